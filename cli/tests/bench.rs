//! A short run of the load generator against a real broker, and the figures scripts rely on.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "stories run real processes")]

mod common;

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
            .chain(["--partitions", "2", "--warmup", "200ms", "--json", file.to_str().unwrap()]),
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
        .chain(["--warmup", "0s", "-o", "json"]),
    );
    let report: Value = serde_json::from_slice(&report).unwrap();
    assert_eq!((&report["mode"], &report["records"]), (&"closed-loop".into(), &500.into()));
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
        [
            "bench",
            "consume",
            "--rate",
            "2000",
            "--records",
            "1000",
            "--batch-records",
            "10",
            "--partitions",
            "3",
        ]
        .into_iter()
        .chain(["--consumers", "2", "--warmup", "100ms", "-o", "json"]),
    );
    let report: Value = serde_json::from_slice(&report).unwrap();
    assert_eq!((&report["mode"], &report["operation"]), (&"open-loop".into(), &"consume".into()));
    // Each consumer reads everything.
    assert_eq!((&report["records"], &report["errors"]), (&2_000.into(), &0.into()));
    assert!(report["latency_us"]["p99"].is_f64() && report["slip_us"]["p99"].is_f64());
}

#[test]
fn a_plan_that_cannot_be_is_refused() {
    let error = refused(&mut common::corrente(["bench", "produce", "--records", "0", "--topic", "t"]));
    assert!(error.contains("0 records"), "{error}");
}
