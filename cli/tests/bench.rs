//! A short run of the load generator against a real broker, and the figures scripts rely on.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "stories run real processes")]

mod common;

use std::process::Stdio;

use common::{Broker, refused, scratch};
use serde_json::Value;

#[test]
fn an_open_loop_reports_latency_slip_and_the_broker() {
    let home = scratch();
    let broker = Broker::start(home.path());
    let file = home.path().join("report.json");
    let table = broker.output(
        ["bench", "produce", "--records", "2000", "--record-size", "256", "--rate", "4000", "--topic", "b"]
            .into_iter()
            .chain(["--partitions", "2", "--warmup", "200ms", "--slip-max", "100%", "--json"])
            .chain([file.to_str().unwrap()]),
    );
    assert!(String::from_utf8_lossy(&table).contains("open-loop"));
    let report: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(report["mode"], "open-loop");
    assert_eq!((&report["records"], &report["errors"]), (&2_000.into(), &0.into()));
    for key in ["p50", "p90", "p99", "p999", "p9999", "max"] {
        assert!(report["latency_us"][key].is_f64(), "{report}");
    }
    assert!(report["slip_us"]["p99"].is_f64() && report["slip_us"]["max"].is_f64());
    assert!(report["records_per_s"].is_f64() && report["bytes_per_s"].is_f64() && report["seconds"].is_f64());
    assert_eq!(report["broker"]["pid"], broker.pid());
    assert!(report["broker"]["cpu_s"].is_f64() && report["broker"]["rss_bytes"].is_u64());

    // The warm-up's records are there too.
    let read = broker.output(["bench", "consume", "--topic", "b", "-o", "json"]);
    let read: Value = serde_json::from_slice(&read).unwrap();
    assert_eq!((&read["records"], &read["errors"]), (&2_800.into(), &0.into()));
    assert_eq!(read["latency_us"]["p50"], Value::Null);
}

#[test]
fn a_closed_loop_is_labelled() {
    let home = scratch();
    let broker = Broker::start(home.path());
    let report = broker.output(
        [
            "bench",
            "produce",
            "--records",
            "500",
            "--batch-records",
            "10",
            "--closed-loop",
            "--in-flight",
            "4",
        ]
        .into_iter()
        .chain(["--warmup", "0s", "--stages", "-o", "json"]),
    );
    let report: Value = serde_json::from_slice(&report).unwrap();
    assert_eq!((&report["mode"], &report["records"]), (&"closed-loop".into(), &500.into()));
    let stages = &report["stages_us"];
    for stage in ["queue", "disk", "replication", "send", "outside"] {
        assert!(stages[stage]["p50"].is_f64(), "{stages}");
    }
    assert!(stages["disk"]["p50"].as_f64() > stages["replication"]["p50"].as_f64(), "{stages}");
    assert_eq!(report["slip_us"]["p99"], Value::Null);
}

#[test]
fn a_new_topic_is_filled_before_it_is_read() {
    let home = scratch();
    let broker = Broker::start(home.path());
    let report =
        broker.output(["bench", "consume", "--records", "3000", "--batch-records", "100", "-o", "json"]);
    let report: Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["records"], 3_000);
}

#[test]
fn a_rate_measures_from_end_to_end() {
    let home = scratch();
    let broker = Broker::start(home.path());
    let report = broker.output(
        ["bench", "e2e", "--rate", "2000", "--records", "1000", "--batch-records", "10", "--partitions", "3"]
            .into_iter()
            .chain(["--consumers", "2", "--warmup", "100ms", "--slip-max", "100%", "-o", "json"]),
    );
    let report: Value = serde_json::from_slice(&report).unwrap();
    assert_eq!((&report["mode"], &report["operation"]), (&"open-loop".into(), &"consume".into()));
    // Each consumer reads everything.
    assert_eq!((&report["records"], &report["errors"]), (&2_000.into(), &0.into()));
    assert!(report["latency_us"]["p99"].is_f64() && report["slip_us"]["p99"].is_f64());
}

#[test]
fn a_run_that_is_not_to_be_believed_ends_with_3_and_says_why() {
    let home = scratch();
    let broker = Broker::start(home.path());
    let (json, hdr) = (home.path().join("runs.json"), home.path().join("run.hdr"));
    let run = || {
        let mut command = broker.run(["bench", "produce", "--records", "200", "--rate", "2000"]);
        command.args(["--arrivals", "poisson", "--warmup", "0s", "--topic", "t"]);
        // No generator is never late.
        command.args(["--slip-max", "0%", "--json", json.to_str().unwrap(), "--append", "--hdr"]);
        command.arg(&hdr).output().unwrap()
    };
    for _ in 0..2 {
        let output = run();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("the generator ran late"), "{output:?}");
    }
    let reports = std::fs::read(&json).unwrap();
    let reports: Vec<Value> =
        serde_json::Deserializer::from_slice(&reports).into_iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(reports.len(), 2);
    let counted: u64 = reports[1]["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .map(|second| second["records"].as_u64().unwrap())
        .sum();
    assert_eq!(counted, 200);
    let log = std::fs::read_to_string(&hdr).unwrap();
    assert!(log.lines().any(|line| line.starts_with("0.000,1.000,")), "{log}");
}

#[test]
fn runs_are_compared_with_a_verdict() {
    let home = scratch();
    let broker = Broker::start(home.path());
    let files = ["a.json", "b.json"].map(|name| home.path().join(name).to_str().unwrap().to_owned());
    let compare = |condition: &str| {
        common::corrente(["bench", "compare", &files[0], &files[1], "--fail-if", condition]).output().unwrap()
    };
    let run_both = || {
        for file in &files {
            let mut command = broker.run(["bench", "produce", "--records", "200", "--closed-loop"]);
            command.args(["--warmup", "0s", "--topic", "t", "--json", file, "--append"]);
            common::succeed(&mut command);
        }
    };
    run_both();
    // More than nothing, less than anything: what the condition says of one run a side is not to be judged.
    let output = compare("p99>-100%");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("A has 1 of at least 3 runs"), "{output:?}");
    run_both();
    run_both();
    assert_eq!(compare("p99>-100%").status.code(), Some(1));
    assert_eq!(compare("p99<-100%").status.code(), Some(0));

    let garbage = home.path().join("garbage");
    std::fs::write(&garbage, "{}").unwrap();
    let error = refused(common::corrente(["bench", "compare", &files[0]]).arg(&garbage));
    assert!(error.contains("does not hold reports of corrente bench"), "{error}");
}

#[test]
fn the_highest_rate_that_holds_is_searched_for() {
    let home = scratch();
    let broker = Broker::start(home.path());
    let search = |slo: &str| {
        let mut command = broker.run(["bench", "max", "--slo", slo, "--precision", "100%", "-o", "json"]);
        command.args(["produce", "--rate", "8", "--records", "2", "--warmup", "0s", "--slip-max", "100%"]);
        command.output().unwrap()
    };
    // No broker answers within a nanosecond, and each rate fails twice: 8, 4, 2 and 1 record a second.
    let output = search("p50=0.001us");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["records_per_s"], Value::Null);
    assert_eq!(answer["runs"].as_array().unwrap().len(), 8, "{answer}");
    let error = refused(&mut broker.run(["bench", "max", "--slo", "p99=1ms", "produce", "--closed-loop"]));
    assert!(error.contains("a closed loop has no rate to search for"), "{error}");
}

#[test]
fn a_matrix_runs_every_combination_in_turn() {
    let home = scratch();
    let broker = Broker::start(home.path());
    let (file, json) = (home.path().join("m.toml"), home.path().join("m.json"));
    let matrix = "command = 'produce'\nruns = 2\n\
                  [settings]\nrecords = 50\nclosed-loop = true\nwarmup = '0s'\n\
                  [axes]\nrecord-size = [10, 20]\nbatch-records = [1, 5]\n";
    std::fs::write(&file, matrix).unwrap();
    let rows = broker.output([
        "bench",
        "matrix",
        file.to_str().unwrap(),
        "--json",
        json.to_str().unwrap(),
        "-o",
        "json",
    ]);
    let rows: Value = serde_json::from_slice(&rows).unwrap();
    let combinations: Vec<&Value> = rows.as_array().unwrap().iter().map(|row| &row["combination"]).collect();
    assert_eq!(
        combinations,
        [
            "batch-records=1 record-size=10",
            "batch-records=1 record-size=20",
            "batch-records=5 record-size=10",
            "batch-records=5 record-size=20",
        ]
    );
    let reports = std::fs::read(&json).unwrap();
    let reports: Vec<Value> =
        serde_json::Deserializer::from_slice(&reports).into_iter().collect::<Result<_, _>>().unwrap();
    let sizes: Vec<u64> = reports
        .iter()
        .map(|run| run["plan"]["work"]["produce"]["shape"]["record_size"].as_u64().unwrap())
        .collect();
    assert_eq!(sizes, [10, 20, 10, 20, 10, 20, 10, 20]);

    std::fs::write(&file, "command = 'produce'\n[axes]\nrecord-size = ['large']\n").unwrap();
    let error = refused(&mut broker.run(["bench", "matrix", file.to_str().unwrap()]));
    assert!(error.contains("record-size=large"), "{error}");
}

#[test]
fn kafkas_protocol_is_driven_alike() {
    let home = scratch();
    let broker = Broker::start_with(
        home.path(),
        &["--listen", "127.0.0.1:0", "--kafka", "127.0.0.1:0", "--shards", "2"],
    );
    let kafka = broker.kafka.as_ref().expect("it listens for Kafka's clients");
    let run = |arguments: &[&str]| -> Value {
        let mut command = common::corrente(["bench"]);
        command.args(arguments).args([
            "--protocol",
            "kafka",
            "--brokers",
            kafka,
            "--topic",
            "t",
            "-o",
            "json",
        ]);
        serde_json::from_slice(&common::succeed(&mut command).stdout).unwrap()
    };
    let e2e = ["e2e", "--rate", "2000", "--records", "1000", "--batch-records", "10", "--partitions", "3"];
    let report = run(&[&e2e[..], &["--consumers", "2", "--warmup", "100ms", "--slip-max", "100%"]].concat());
    assert_eq!((&report["records"], &report["errors"]), (&2_000.into(), &0.into()));
    assert!(report["latency_us"]["p99"].is_f64());
    assert_eq!(report["plan"]["protocol"], "kafka");
    let report =
        run(&["produce", "--records", "500", "--closed-loop", "--warmup", "0s", "--compression", "zstd"]);
    assert_eq!((&report["records"], &report["errors"]), (&500.into(), &0.into()));
    // 200 of the warm-up, 1 000 and 500.
    let report = run(&["consume"]);
    assert_eq!((&report["records"], &report["bytes_per_s"].is_f64()), (&1_700.into(), &true));
    // What it wrote is what the SDK reads.
    let read = broker.output(["bench", "consume", "--topic", "t", "-o", "json"]);
    assert_eq!(serde_json::from_slice::<Value>(&read).unwrap()["records"], 1_700);

    let error = refused(&mut broker.run(["bench", "produce", "--protocol", "kafka", "--topic", "t"]));
    assert!(error.contains("does not answer as Kafka does"), "{error}");
}

#[test]
fn what_was_acknowledged_is_read_back() {
    let home = scratch();
    let broker = Broker::start_with(
        home.path(),
        &["--listen", "127.0.0.1:0", "--kafka", "127.0.0.1:0", "--shards", "2"],
    );
    let kafka = broker.kafka.clone().expect("it listens for Kafka's clients");
    let verified = |arguments: &str| -> Value {
        let mut command = common::corrente(["bench"]);
        command.args(arguments.split(' ')).args(["--verify", "--warmup", "100ms", "-o", "json"]);
        let report: Value = serde_json::from_slice(&common::succeed(&mut command).stdout).unwrap();
        report["verification"].clone()
    };
    let sound = |batches: u64| {
        serde_json::json!({
            "batches": batches, "lost": 0, "duplicated": 0, "out_of_order": 0, "altered": 0, "incomplete": null
        })
    };
    let topic = "--topic t --partitions 3 --rate 2000 --batch-records 10 --slip-max 100%";
    // The warm-up's 20 batches are verified too.
    let native = format!("--brokers {} {topic}", broker.address);
    assert_eq!(verified(&format!("produce --records 1000 --connections 2 {native}")), sound(120));
    // What an earlier run left is none of this one's.
    assert_eq!(verified(&format!("e2e --records 1000 --compression lz4 {native}")), sound(120));
    let keys = "--keys 100 --key-size 8 --durability received";
    assert_eq!(verified(&format!("produce --records 1000 {keys} {native}")), sound(120));
    let kafka = format!("--protocol kafka --brokers {kafka} {topic}");
    assert_eq!(verified(&format!("produce --records 1000 --connections 2 {kafka}")), sound(120));

    let table = broker.output("bench produce --records 10 --closed-loop --warmup 0s --verify".split(' '));
    let table = String::from_utf8_lossy(&table);
    assert!(table.contains("10 acknowledged batches, 0 lost, 0 duplicated, 0 out of order"), "{table}");
}

#[test]
fn a_verification_that_fails_ends_the_run_with_1_and_one_line() {
    let home = scratch();
    let broker = Broker::start(home.path());
    // Somebody else writes to the topic all the time: what the run did not send is not its own.
    let mut stranger =
        broker.run("bench produce --topic t --duration 600s --closed-loop --seed 2".split(' '));
    let mut stranger = stranger.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    common::wait_for("the stranger's records", || {
        let described = broker.run(["topic", "describe", "t", "-o", "json"]).output().unwrap();
        let described: Value = serde_json::from_slice(&described.stdout).ok()?;
        (described["partitions"][0]["high_watermark"].as_u64()? > 0).then_some(())
    });
    let run = "bench produce --topic t --records 1000 --closed-loop --warmup 0s --verify -o json";
    let mut command = broker.run(run.split(' '));
    let output = command.output().unwrap();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    let error = common::the_error(&command, &output);
    assert!(error.starts_with("error: verification failed: 1000 acknowledged batches, 0 lost"), "{error}");
    // The figures are there nevertheless.
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["records"], &report["errors"]), (&1_000.into(), &0.into()));
    let found = &report["verification"];
    assert!(found["altered"].as_u64().unwrap() > 0 && found["incomplete"].is_null(), "{found}");
    assert_eq!(
        (&found["lost"], &found["duplicated"], &found["out_of_order"]),
        (&0.into(), &0.into(), &0.into())
    );
}

#[test]
fn a_broker_can_live_for_the_run_alone() {
    let home = scratch();
    let run = |arguments: &str| {
        let mut command = common::corrente(["bench"]);
        command.args(arguments.split(' ')).args(["--embedded", "--shards", "1", "-o", "json"]);
        command.env("TMPDIR", home.path());
        command
    };
    let report = |arguments: &str| -> Value {
        serde_json::from_slice(&common::succeed(&mut run(arguments)).stdout).unwrap()
    };
    let is_empty = || std::fs::read_dir(home.path()).unwrap().next().is_none();
    let produced = report("produce --records 2000 --closed-loop --warmup 0s --verify");
    assert_eq!((&produced["records"], &produced["verification"]["lost"]), (&2_000.into(), &0.into()));
    assert_eq!(produced["broker"]["is_embedded"], true);
    assert!(produced["broker"]["cpu_s"].as_f64().unwrap() >= 0.0 && produced["generator_cpu_s"].is_f64());
    assert!(is_empty());
    let consumed = report("consume --records 1000 --protocol kafka");
    assert_eq!((&consumed["records"], &consumed["errors"]), (&1_000.into(), &0.into()));
    let search =
        "max --slo p50=0.001us --precision 100% produce --rate 1 --records 2 --warmup 0s --slip-max 100%";
    assert_eq!(run(search).output().unwrap().status.code(), Some(1));
    assert!(is_empty());

    let data = home.path().join("data");
    let kept =
        format!("produce --records 10 --warmup 0s --closed-loop --topic t --data-dir {}", data.display());
    report(&kept);
    report(&kept);
    assert!(data.exists());
    let refusal = refused(run("produce").args(["--brokers", "127.0.0.1:1"]));
    assert!(refusal.contains("starts a broker of its own"), "{refusal}");
    let refusal = refused(run("produce").args(["--cpus", "0", "--broker-cpus", "0"]));
    assert!(refusal.contains("cpu 0 is given to the generator and to the broker"), "{refusal}");
    let refusal = refused(&mut run("produce --records 0"));
    assert!(refusal.contains("0 records"), "{refusal}");
}

#[test]
fn the_generators_own_ceiling_needs_no_broker() {
    let report = common::succeed(
        common::corrente(["bench"]).args(
            "produce --null --closed-loop --in-flight 8 --records 2000 --partitions 3 --warmup 0s -o json"
                .split(' '),
        ),
    );
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!((&report["records"], &report["errors"]), (&2_000.into(), &0.into()));
    assert_eq!(report["broker"]["is_embedded"], true);
    for (arguments, why) in [
        ("e2e --null", "nothing to read"),
        ("produce --null --verify", "nothing to verify"),
        ("produce --null --protocol kafka", "own protocol alone"),
        ("produce --null --brokers 127.0.0.1:1", "--null starts a broker of its own"),
        ("produce --broker-cpus 0", "for --embedded or --null"),
    ] {
        let refusal = refused(common::corrente(["bench"]).args(arguments.split(' ')));
        assert!(refusal.contains(why), "{arguments}: {refusal}");
    }
}

#[test]
fn records_are_sent_while_others_catch_up() {
    let home = scratch();
    let broker = Broker::start_with(
        home.path(),
        &["--listen", "127.0.0.1:0", "--kafka", "127.0.0.1:0", "--shards", "1"],
    );
    let kafka = broker.kafka.clone().expect("it listens for Kafka's clients");
    for (protocol, address) in [("native", &broker.address), ("kafka", &kafka)] {
        let mut command =
            common::corrente(["bench", "mixed", "--consumers", "2", "--backlog", "3000", "--verify"]);
        command.args(["--rate", "1000", "--records", "1000", "--batch-records", "10", "--warmup", "100ms"]);
        command.args(["--slip-max", "100%", "-o", "json", "--topic", protocol, "--protocol", protocol]);
        let report = common::succeed(command.args(["--brokers", address])).stdout;
        let report: Value = serde_json::from_slice(&report).unwrap();
        assert_eq!((&report["operation"], &report["mode"]), (&"mixed".into(), &"open-loop".into()));
        assert_eq!((&report["records"], &report["errors"]), (&1_000.into(), &0.into()));
        assert!(
            report["latency_us"]["p99"].is_f64() && report["consumed"]["records_per_s"].is_f64(),
            "{report}"
        );
        // The records of the warm-up are verified too, those of the backlog are not this run's.
        assert_eq!(
            (&report["verification"]["batches"], &report["verification"]["lost"]),
            (&110.into(), &0.into())
        );
        let read = broker.output(["bench", "consume", "--topic", protocol, "-o", "json"]);
        assert_eq!(serde_json::from_slice::<Value>(&read).unwrap()["records"], 4_100);
    }
}

#[test]
fn runs_are_shown_on_a_page_that_needs_nothing_else() {
    let home = scratch();
    let broker = Broker::start(home.path());
    let (json, html, both) =
        (home.path().join("runs.json"), home.path().join("run.html"), home.path().join("both.html"));
    for topic in ["first-topic", "second-topic"] {
        let mut command = broker.run(["bench", "produce", "--records", "200", "--rate", "2000"]);
        command.args(["--warmup", "0s", "--slip-max", "100%", "--topic", topic, "--append", "--json"]);
        common::succeed(command.arg(&json).arg("--html").arg(&html));
    }
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("Latency by percentile"), "{page}");
    assert!(page.contains("second-topic") && !page.contains("first-topic"), "{page}");

    let mut report = common::corrente(["bench", "report"]);
    common::succeed(report.arg(&json).arg("--html").arg(&both));
    let compared = std::fs::read_to_string(&both).unwrap();
    for part in ["2 runs", "first-topic", "second-topic"] {
        assert!(compared.contains(part), "{part} in {compared}");
    }
    // Nothing comes from elsewhere.
    for page in [page, compared] {
        assert!(
            !page.contains("http://") && !page.contains("https://") && !page.contains("<script"),
            "{page}"
        );
    }
}

#[test]
fn what_is_no_report_is_not_shown() {
    let home = scratch();
    let (json, html) = (home.path().join("runs.json"), home.path().join("runs.html"));
    for (text, why) in [
        ("garbage", "does not hold reports of corrente bench"),
        ("{\"operation\": \"produce\"}", "does not hold reports of corrente bench"),
        ("", "holds no report"),
    ] {
        std::fs::write(&json, text).unwrap();
        let error = refused(common::corrente(["bench", "report"]).arg(&json).arg("--html").arg(&html));
        assert!(error.contains("runs.json") && error.contains(why), "{error}");
        assert!(!html.exists(), "{error}");
    }
}

#[test]
fn a_plan_that_cannot_be_is_refused() {
    let error = refused(&mut common::corrente(["bench", "produce", "--records", "0", "--topic", "t"]));
    assert!(error.contains("0 records"), "{error}");
}
