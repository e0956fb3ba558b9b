//! What a node tells those who watch it, and that it tells of damage.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "stories run real processes")]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use common::{Broker, corrente, partition_dir, refused, scratch, segments, wait_for};
use serde_json::Value;

/// Status line and body of a GET.
fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("the listener is there");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

/// The lines of a scrape that are values.
fn scrape(address: &str) -> Vec<String> {
    let (status, body) = get(address, "/metrics");
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(body.trim_end().ends_with("# EOF"), "{body}");
    body.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

fn value(lines: &[String], name: &str) -> u64 {
    let line = lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} among {lines:#?}")).parse().expect("a whole number")
}

fn start(home: &Path, flags: &[&str]) -> (Broker, String) {
    let given = ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"];
    let broker = Broker::start_with(home, &[&given[..], flags].concat());
    let ready: Value = serde_json::from_slice(&std::fs::read(&broker.ready_file).unwrap()).unwrap();
    let metrics = ready["metrics"].as_str().expect("the ready file names the listener").to_owned();
    (broker, metrics)
}

fn describe(broker: &Broker) -> Value {
    serde_json::from_slice(&broker.output(["topic", "describe", "t", "-o", "json"])).unwrap()
}

#[test]
fn damage_is_counted_described_and_in_nobodys_way() {
    let home = scratch();
    let (broker, metrics) = start(home.path(), &["--shards", "2"]);
    broker.output(["topic", "create", "t", "--partitions", "3"]);
    for partition in ["0", "1", "2"] {
        broker.produce(["t", "--partition", partition], b"one\ntwo\n");
    }
    let lines = scrape(&metrics);
    // The metadata's own partition is one of them.
    for (state, count) in [("online", 4), ("fenced", 0), ("quarantined", 0), ("offline", 0)] {
        assert_eq!(value(&lines, &format!("corrente_partitions{{state=\"{state}\"}}")), count, "{state}");
    }
    let topic = describe(&broker)["id"].as_str().unwrap().to_owned();
    assert!(broker.terminate().success());

    let file = &segments(&partition_dir(home.path(), &topic, "1"))[0];
    std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(4096).unwrap();
    std::fs::remove_dir_all(partition_dir(home.path(), &topic, "2")).unwrap();

    let (broker, metrics) = start(home.path(), &["--shards", "2"]);
    let lines = scrape(&metrics);
    for (state, count) in [("online", 2), ("fenced", 0), ("quarantined", 1), ("offline", 1)] {
        assert_eq!(value(&lines, &format!("corrente_partitions{{state=\"{state}\"}}")), count, "{state}");
    }
    assert_eq!(value(&lines, "corrente_shards{state=\"serving\"}"), 2);
    let described = describe(&broker);
    let states: Vec<&str> =
        described["partitions"].as_array().unwrap().iter().map(|p| p["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["online", "quarantined", "offline"]);
    assert_eq!(broker.output(["consume", "t", "--partition", "0", "--until-end"]), b"one\ntwo\n");
    assert!(broker.terminate().success());
}

#[test]
fn every_metric_is_told_and_written_down() {
    let home = scratch();
    let (broker, metrics) = start(home.path(), &["--shards", "1"]);
    broker.output(["topic", "create", "t", "--partitions", "1"]);
    broker.produce(["t"], &b"x\n".repeat(1000));
    let lines = scrape(&metrics);
    let data = home.path().join("data").display().to_string();
    let dir = |name: &str| value(&lines, &format!("corrente_data_dir_{name}{{path=\"{data}\"}}"));
    assert!(dir("available_bytes") > dir("reserve_bytes") && dir("reserve_bytes") > 0);
    assert!(dir("size_bytes") >= dir("available_bytes"));
    assert_eq!((dir("below_reserve"), dir("failed")), (0, 0));
    let of_shard = |name: &str| value(&lines, &format!("corrente_{name}{{shard=\"0\"}}"));
    assert!(of_shard("log_bytes") > 1000);
    assert!(of_shard("tail_ring_bytes") > 1000);
    assert!(of_shard("request_memory_capacity_bytes") > of_shard("request_memory_bytes"));
    assert!(of_shard("response_memory_capacity_bytes") > of_shard("response_memory_bytes"));
    assert_eq!(of_shard("upkeep_failures_total"), 0);
    assert!(of_shard("produce_requests_total") > 0 && of_shard("appended_bytes_total") > 1000);
    assert_eq!((of_shard("fetch_requests_total"), of_shard("fetched_bytes_total")), (0, 0));
    for histogram in ["append_queue_seconds", "append_acknowledge_seconds"] {
        let counted = value(&lines, &format!("corrente_{histogram}_count"));
        assert_eq!(counted, of_shard("produce_requests_total"));
        assert_eq!(value(&lines, &format!("corrente_{histogram}_bucket{{le=\"+Inf\"}}")), counted);
    }

    let manual = include_str!("../../docs/OPERATIONS.md");
    let names: std::collections::BTreeSet<&str> =
        lines.iter().map(|line| family(line.split(['{', ' ']).next().unwrap())).collect();
    for name in &names {
        assert!(manual.contains(&format!("| `{name}")), "{name} is not in docs/OPERATIONS.md");
    }
    let written =
        manual.lines().filter_map(|line| line.strip_prefix("| `corrente_")?.split(['{', '`']).next());
    for name in written {
        assert!(
            names.contains(&*format!("corrente_{name}")),
            "docs/OPERATIONS.md knows corrente_{name}, the node does not"
        );
    }
    assert!(broker.terminate().success());
}

/// A histogram is told in several lines and written down in one.
fn family(name: &str) -> &str {
    ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name)
}

#[test]
fn shards_can_be_looked_at() {
    let home = scratch();
    let (broker, metrics) = start(home.path(), &["--shards", "2"]);
    broker.output(["topic", "create", "t", "--partitions", "2"]);
    broker.produce(["t"], b"x\n");
    let (status, body) = get(&metrics, "/debug/shards");
    assert_eq!(status, "HTTP/1.1 200 OK");
    let seen: Value = serde_json::from_str(&body).unwrap();
    let shards = seen["shards"].as_array().unwrap();
    assert_eq!(shards.len(), 2);
    let appends: u64 = shards.iter().map(|shard| shard["produce"]["requests"].as_u64().unwrap()).sum();
    assert_eq!(appends, 1, "{seen}");
}

#[test]
fn a_node_tells_its_configuration_and_a_report_keeps_it() {
    let home = scratch();
    let (broker, metrics) = start(home.path(), &["--shards", "2"]);
    let (status, body) = get(&metrics, "/debug/config");
    assert_eq!(status, "HTTP/1.1 200 OK");
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(told["shards"]["count"], 2);
    assert_eq!(told["listen"]["native"], "127.0.0.1:0", "as it was configured");

    let bench = "bench produce --records 100 --warmup 0s --slip-max 100% -o json --control";
    let report = broker.output(bench.split(' ').chain([&*metrics]));
    let report: Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["plan"]["broker_config"], told);

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let said = refused(&mut broker.run(bench.split(' ').chain([&*nobody])));
    assert!(said.contains("does the broker run, with --metrics"), "{said}");
}

#[test]
fn one_interval_can_be_looked_at() {
    let home = scratch();
    let (broker, metrics) = start(home.path(), &["--shards", "2"]);
    broker.output(["topic", "create", "t", "--partitions", "2"]);
    broker.produce(["t"], b"x\n");
    let top = ["top", "--control", &metrics, "--once", "--interval", "10ms"];
    let seen: Value = serde_json::from_slice(&broker.output([&top[..], &["-o", "json"]].concat())).unwrap();
    let shards = seen["shards"].as_array().unwrap();
    assert_eq!(shards.len(), 2, "{seen}");
    for shard in shards {
        for (name, figure) in shard.as_object().unwrap() {
            assert!(!figure.is_null(), "{name} is not known: {shard}");
        }
    }
    assert_eq!(seen["partitions"]["online"], 3.0, "{seen}");
    assert_eq!(seen["append_acknowledge"]["per_s"], 0.0, "{seen}");
    assert_eq!(seen["data_dirs"][0]["failed"], false, "{seen}");
    let text = String::from_utf8(broker.output(top)).unwrap();
    assert!(text.starts_with("corrente ") && text.contains("PRODUCE/S"), "{text}");
    // Nothing but text where no terminal is.
    assert!(!text.contains('\x1b'), "{text:?}");

    assert!(broker.terminate().success());
    let error = refused(&mut corrente(top));
    assert!(error.contains(&metrics), "{error}");
}

#[test]
fn health_is_told_until_the_end() {
    let home = scratch();
    let (broker, metrics) = start(home.path(), &["--shards", "1"]);
    assert_eq!(get(&metrics, "/livez"), ("HTTP/1.1 200 OK".to_owned(), "alive\n".to_owned()));
    assert_eq!(get(&metrics, "/readyz"), ("HTTP/1.1 200 OK".to_owned(), "ready\n".to_owned()));
    assert_eq!(get(&metrics, "/nothing").0, "HTTP/1.1 404 Not Found");
    assert!(broker.terminate().success());
    wait_for("the listener to go", || TcpStream::connect(&metrics).is_err().then_some(()));
}

#[test]
fn an_address_that_is_taken_ends_the_start_with_one_line() {
    let home = scratch();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut serve = corrente(["serve", "--shards", "1", "--listen", "127.0.0.1:0", "--metrics", &address]);
    let error = refused(serve.arg("--data-dir").arg(home.path().join("data")));
    assert!(error.contains(&address) && error.contains("metrics"), "{error}");
    let error = refused(&mut corrente(["serve", "--metrics", "nowhere"]));
    assert!(error.contains("--metrics nowhere"), "{error}");
}
