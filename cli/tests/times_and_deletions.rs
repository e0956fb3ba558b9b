//! Records by time, and records deleted: over the real binary, as a user asks for them.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "stories run real processes")]

mod common;

use common::{Broker, feed, refused, scratch, succeed, the_error};
use serde_json::{Value, json};

/// 2025-11-25T10:00:00Z, in ms.
const TEN: i64 = 1_764_064_800_000;

/// Records of these seconds after ten o'clock, in this order.
fn fill(broker: &Broker, topic: &str, partition: &str, seconds: &[i64]) {
    let lines = seconds.iter().map(|second| {
        let timestamp = TEN + second * 1000;
        json!({"key": "k", "value": second.to_string(), "timestamp": timestamp}).to_string() + "\n"
    });
    let input: String = lines.collect();
    broker.produce([topic, "--partition", partition, "--format", "json"], input.as_bytes());
}

fn offsets_from(broker: &Broker, topic: &str, from: &str) -> String {
    let arguments = ["consume", topic, "--partition", "0", "--until-end", "--format", "%o ", "--from", from];
    String::from_utf8(broker.output(arguments)).unwrap()
}

fn output_json(broker: &Broker, arguments: &[&str]) -> Value {
    serde_json::from_slice(&broker.output(arguments.iter().chain(&["-o", "json"]))).unwrap()
}

/// For ever: the times of these stories are long past.
fn create(broker: &Broker, topic: &str, partitions: &str) {
    broker.output(["topic", "create", topic, "--partitions", partitions, "--config", "retention.ms=-1"]);
}

#[test]
fn reading_begins_at_a_time_whatever_order_the_times_have() {
    let home = scratch();
    let broker = Broker::start(home.path());
    create(&broker, "t", "2");
    fill(&broker, "t", "0", &[10, 50, 20]);
    fill(&broker, "t", "0", &[40, 30]);

    assert_eq!(offsets_from(&broker, "t", "@2025-11-25T10:00:10Z"), "0 1 2 3 4 ");
    assert_eq!(offsets_from(&broker, "t", "@2025-11-25T11:00:10.001+01:00"), "1 2 3 4 ");
    assert_eq!(offsets_from(&broker, "t", &format!("@{}", TEN + 50_000)), "1 2 3 4 ");
    assert_eq!(offsets_from(&broker, "t", "@2025-11-25T10:00:51Z"), "");
    assert_eq!(offsets_from(&broker, "t", "@-15m"), "");
    broker.produce(["t", "--partition", "0"], b"now\n");
    assert_eq!(offsets_from(&broker, "t", "@-15m"), "5 ");
    assert_eq!(offsets_from(&broker, "t", "@0"), "0 1 2 3 4 5 ");

    let bounds = output_json(&broker, &["topic", "offsets", "t"]);
    assert_eq!(
        bounds,
        json!([{"partition": 0, "start": 0, "end": 6}, {"partition": 1, "start": 0, "end": 0}])
    );
    let at = output_json(&broker, &["topic", "offsets", "t", "--at", "@2025-11-25T10:00:15Z"]);
    let nothing = json!({"partition": 1, "offset": 0, "timestamp_ms": null});
    assert_eq!(at, json!([{"partition": 0, "offset": 1, "timestamp_ms": TEN + 50_000}, nothing]));
    create(&broker, "past", "2");
    fill(&broker, "past", "0", &[10, 50, 20, 50]);
    let table =
        String::from_utf8(broker.output(["topic", "offsets", "past", "--at", "max-timestamp"])).unwrap();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        rows,
        [
            vec!["PARTITION", "OFFSET", "TIMESTAMP"],
            vec!["0", "1", "2025-11-25T10:00:50Z"],
            vec!["1", "0", "none"]
        ]
    );
}

#[test]
fn records_are_deleted_as_the_plan_says() {
    let home = scratch();
    let broker = Broker::start(home.path());
    create(&broker, "t", "3");
    for partition in ["0", "1", "2"] {
        fill(&broker, "t", partition, &[10, 50, 20, 40]);
    }
    let delete = |arguments: &[&str]| -> (Value, String) {
        let command = ["topic", "delete-records", "t", "-o", "json"];
        let output = succeed(&mut broker.run(command.iter().chain(arguments)));
        (serde_json::from_slice(&output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };

    let (plan, said) = delete(&["--partition", "2", "--partition", "0", "--before", "3", "--dry-run"]);
    let step = |partition| json!({"partition": partition, "from": 0, "to": 3, "records": 3});
    assert_eq!((plan, said.as_str()), (json!([step(0), step(2)]), ""));
    assert_eq!(offsets_from(&broker, "t", "earliest"), "0 1 2 3 ", "a plan deletes nothing");

    let (done, said) = delete(&["--partition", "0", "--before", "3"]);
    assert_eq!(done, json!([{"partition": 0, "from": 0, "to": 3, "records": 3, "log_start_offset": 3}]));
    let plan: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(plan[1..], [vec!["PARTITION", "FROM", "TO", "RECORDS"], vec!["0", "0", "3", "3"]], "{said}");
    assert_eq!(offsets_from(&broker, "t", "earliest"), "3 ");
    let error = refused(&mut broker.run(["consume", "t", "--partition", "0", "--from", "1"]));
    assert!(error.contains("offset 1 is not in 3 to 4"), "{error}");

    // By time, everywhere: from the first record that is late enough everything is kept, and partition 0 stays.
    let (done, _) = delete(&["--before", "@2025-11-25T10:00:45Z", "--yes"]);
    let starts: Vec<&Value> = done.as_array().unwrap().iter().map(|step| &step["log_start_offset"]).collect();
    assert_eq!(starts, [&json!(4), &json!(1), &json!(1)]);
    let (done, _) = delete(&["--before", "end", "--yes"]);
    let deleted: Vec<&Value> = done.as_array().unwrap().iter().map(|step| &step["records"]).collect();
    assert_eq!(deleted, [&json!(0), &json!(3), &json!(3)]);
    let (again, _) = delete(&["--before", "end", "--yes"]);
    assert!(again.as_array().unwrap().iter().all(|step| step["records"] == 0), "{again}");

    let described = output_json(&broker, &["topic", "describe", "t"]);
    for partition in described["partitions"].as_array().unwrap() {
        assert_eq!((&partition["log_start_offset"], &partition["state"]), (&json!(4), &json!("online")));
    }
    assert_eq!(offsets_from(&broker, "t", "earliest"), "");
    broker.produce(["t", "--partition", "0"], b"next\n");
    assert_eq!(offsets_from(&broker, "t", "earliest"), "4 ");
}

#[test]
fn what_cannot_be_deleted_is_refused_before_anything_is() {
    let home = scratch();
    let broker = Broker::start(home.path());
    create(&broker, "t", "2");
    fill(&broker, "t", "0", &[1, 2, 3]);
    for (arguments, wanted) in [
        (vec!["t", "--before", "3"], "offset 3 is beyond the end of t/1, which is at 0"),
        (vec!["t", "--partition", "0", "--before", "4"], "offset 4 is beyond the end of t/0, which is at 3"),
        (vec!["t", "--partition", "0", "--partition", "7", "--before", "end"], "t/7"),
        (vec!["missing", "--before", "end"], "missing"),
    ] {
        let error = refused(broker.run(["topic", "delete-records"]).args(&arguments));
        assert!(error.contains(wanted), "{arguments:?}: {error}");
    }
    assert_eq!(offsets_from(&broker, "t", "earliest"), "0 1 2 ");

    let compact = ["topic", "create", "state", "--partitions", "1", "--config", "cleanup.policy=compact"];
    broker.output(compact);
    fill(&broker, "state", "0", &[1]);
    let error = refused(&mut broker.run(["topic", "delete-records", "state", "--before", "end"]));
    assert!(error.contains("0 of 1 partitions are done") && error.contains("compact"), "{error}");
    let mut keyless = broker.run(["produce", "state"]);
    let output = feed(&mut keyless, b"no key\n");
    let error = the_error(&keyless, &output);
    assert!(error.contains("record 0 has no key"), "{error}");
    assert_eq!(offsets_from(&broker, "state", "earliest"), "0 ");
}

#[test]
fn the_configs_in_force_are_shown() {
    let home = scratch();
    let broker = Broker::start(home.path());
    let create =
        ["topic", "create", "t", "--partitions", "1", "--config", "message.timestamp.type=LogAppendTime"];
    broker.output(create);
    let described = output_json(&broker, &["topic", "describe", "t"]);
    let setting = |key: &str| {
        let configs = described["configs"].as_array().unwrap();
        let config = configs.iter().find(|config| config["key"] == key).unwrap();
        (config["value"].as_str().unwrap().to_owned(), config["is_default"] == true)
    };
    assert_eq!(setting("retention.ms"), ("604800000".to_owned(), true));
    assert_eq!(setting("message.timestamp.type"), ("LogAppendTime".to_owned(), false));
    // The producer said 1970; the broker knows better, or retention would have it at once.
    broker.produce(["t", "--format", "json"], b"{\"value\":\"a\",\"timestamp\":7}\n");
    let printed = broker.output(["consume", "t", "--until-end", "--format", "%t"]);
    let timestamp: i64 = String::from_utf8(printed).unwrap().parse().unwrap();
    assert!(timestamp > TEN, "{timestamp}");
    let error = refused(&mut broker.run(["topic", "alter", "t", "--config", "min.cleanable.dirty.ratio=7"]));
    assert!(error.contains("a number from 0 to 1"), "{error}");
}
