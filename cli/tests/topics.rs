//! The life of a topic, for people and for scripts.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "stories run real processes")]

mod common;

use common::{Broker, scratch};
use serde_json::Value;

#[test]
fn create_list_describe_alter_grow_delete() {
    let home = scratch();
    let broker = Broker::start(home.path());
    let json = |arguments: &[&str]| -> Value {
        serde_json::from_slice(&broker.output(arguments.iter().chain(&["-o", "json"]))).unwrap()
    };

    assert_eq!(json(&["topic", "list"]), serde_json::json!([]));
    let created =
        json(&["topic", "create", "orders", "--partitions", "3", "--config", "max.message.bytes=100000"]);
    assert_eq!((&created["topic"], &created["partitions"]), (&"orders".into(), &3.into()));
    broker.output(["topic", "create", "other", "--partitions", "1"]);

    let listed = json(&["topic", "list"]);
    let names: Vec<&str> =
        listed.as_array().unwrap().iter().map(|topic| topic["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["orders", "other"]);
    let objects = broker.output(["topic", "list", "-o", "jsonl"]);
    assert_eq!(common::lines(&objects).len(), 2);

    broker.produce(["orders", "--partition", "2"], b"a\nb\n");
    let described = json(&["topic", "describe", "orders"]);
    assert_eq!(described["partitions"][2]["high_watermark"], 2);
    assert_eq!(described["partitions"][0]["log_end_offset"], 0);
    assert_eq!(setting(&described, "max.message.bytes"), ("100000".to_owned(), false));

    broker.output(["topic", "alter", "orders", "--config", "max.message.bytes=200000"]);
    assert_eq!(
        setting(&json(&["topic", "describe", "orders"]), "max.message.bytes"),
        ("200000".to_owned(), false)
    );
    broker.output(["topic", "alter", "orders", "--unset", "max.message.bytes"]);
    assert!(setting(&json(&["topic", "describe", "orders"]), "max.message.bytes").1);

    broker.output(["topic", "add-partitions", "orders", "--partitions", "5"]);
    assert_eq!(json(&["topic", "describe", "orders"])["partitions"].as_array().unwrap().len(), 5);
    broker.produce(["orders", "--partition", "4"], b"c\n");

    let table = String::from_utf8(broker.output(["topic", "describe", "orders"])).unwrap();
    assert!(table.contains("orders") && table.contains("max.message.bytes"), "{table}");

    broker.output(["topic", "delete", "orders"]);
    let listed = json(&["topic", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["name"], "other");
}

fn setting(described: &Value, key: &str) -> (String, bool) {
    let configs = described["configs"].as_array().unwrap();
    let config = configs.iter().find(|config| config["key"] == key).unwrap();
    (config["value"].as_str().unwrap().to_owned(), config["is_default"].as_bool().unwrap())
}
