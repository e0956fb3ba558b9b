//! Retention and compaction over the real binary: what a reader sees of them.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "stories run real processes")]

mod common;

use std::path::Path;

use common::{Broker, refused, scratch, wait_for};
use serde_json::Value;

/// Looks at its logs all the time.
fn busy_broker(home: &Path) -> Broker {
    let config = home.join("corrente.toml");
    std::fs::write(&config, "[log]\nupkeep_interval_ms = 20\n").unwrap();
    let flags = ["--listen", "127.0.0.1:0", "--shards", "1", "--config", config.to_str().unwrap()];
    Broker::start_with(home, &flags)
}

fn consume(broker: &Broker, topic: &str, from: &str) -> String {
    let arguments = ["consume", topic, "--until-end", "--from", from, "--format", "%o:%k=%v "];
    String::from_utf8(broker.output(arguments)).unwrap()
}

fn partition(broker: &Broker, topic: &str) -> Value {
    let described: Value =
        serde_json::from_slice(&broker.output(["topic", "describe", topic, "-o", "json"])).unwrap();
    described["partitions"][0].clone()
}

#[test]
fn a_reader_of_a_compacted_topic_steps_over_what_was_superseded() {
    let home = scratch();
    let broker = busy_broker(home.path());
    broker.output(["topic", "create", "t", "--partitions", "1", "--config", "segment.ms=1"]);
    for record in ["a:1", "b:1", "a:2", "c:1", "b:2", "a:3", "d:1"] {
        broker.produce(["t", "--key-delimiter", ":"], record.as_bytes());
    }
    let everything = "0:a=1 1:b=1 2:a=2 3:c=1 4:b=2 5:a=3 6:d=1 ";
    assert_eq!(consume(&broker, "t", "earliest"), everything);
    let before = partition(&broker, "t")["size_bytes"].as_u64().unwrap();

    let compact = ["cleanup.policy=compact", "min.cleanable.dirty.ratio=0"];
    let compact = compact.iter().flat_map(|config| ["--config", config]);
    broker.output(["topic", "alter", "t"].into_iter().chain(compact));
    wait_for("the log to become smaller", || {
        (partition(&broker, "t")["size_bytes"].as_u64().unwrap() < before).then_some(())
    });
    // What is in memory is read from there; a start forgets it.
    assert!(broker.terminate().success());
    let broker = busy_broker(home.path());
    assert_eq!(consume(&broker, "t", "earliest"), "3:c=1 4:b=2 5:a=3 6:d=1 ");
    assert_eq!(consume(&broker, "t", "0"), "3:c=1 4:b=2 5:a=3 6:d=1 ");
    assert_eq!(consume(&broker, "t", "5"), "5:a=3 6:d=1 ");
    let partition = partition(&broker, "t");
    assert_eq!((&partition["log_start_offset"], &partition["log_end_offset"]), (&0.into(), &7.into()));
}

#[test]
fn what_retention_took_is_told_to_whoever_asks_for_it() {
    let home = scratch();
    let broker = busy_broker(home.path());
    let configs = ["retention.ms=0", "segment.ms=1"].into_iter().flat_map(|config| ["--config", config]);
    broker.output(["topic", "create", "t", "--partitions", "1"].into_iter().chain(configs));
    for record in ["a:1", "b:1", "c:1"] {
        broker.produce(["t", "--key-delimiter", ":"], record.as_bytes());
    }
    wait_for("retention to take everything", || {
        (partition(&broker, "t")["log_start_offset"] == 3).then_some(())
    });
    assert_eq!(consume(&broker, "t", "earliest"), "");
    let error = refused(&mut broker.run(["consume", "t", "--from", "1"]));
    assert!(error.contains("offset 1 is not in 3 to 3"), "{error}");
    broker.output(["topic", "alter", "t", "--unset", "retention.ms"]);
    broker.produce(["t", "--key-delimiter", ":"], b"d:1");
    assert_eq!(consume(&broker, "t", "earliest"), "3:d=1 ");
}
