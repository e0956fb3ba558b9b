//! A partition whose files are damaged or gone says so, and is in nobody's way but its own readers'.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "stories run real processes")]

mod common;

use common::{Broker, feed, partition_dir, refused, scratch, segments, succeed, the_error};
use serde_json::Value;

fn described(broker: &Broker) -> Value {
    serde_json::from_slice(&broker.output(["topic", "describe", "t", "-o", "json"])).unwrap()
}

#[test]
fn each_partition_says_what_it_can_be_used_for() {
    let home = scratch();
    let broker = Broker::start(home.path());
    broker.output(["topic", "create", "t", "--partitions", "3"]);
    for partition in ["0", "1", "2"] {
        broker.produce(["t", "--partition", partition], b"one\ntwo\n");
    }
    let topic = described(&broker)["id"].as_str().unwrap().to_owned();
    let address = broker.address.clone();
    assert!(broker.terminate().success());

    // The header of the first remains, and nothing it is the header of. Of the second nothing remains.
    let cut = &segments(&partition_dir(home.path(), &topic, "0"))[0];
    std::fs::OpenOptions::new().write(true).open(cut).unwrap().set_len(4096).unwrap();
    std::fs::remove_dir_all(partition_dir(home.path(), &topic, "1")).unwrap();

    let broker = Broker::restart(home.path(), &address);
    let states = described(&broker);
    let states: Vec<(&str, Option<&str>)> = states["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|partition| (partition["state"].as_str().unwrap(), partition["reason"].as_str()))
        .collect();
    assert_eq!(
        states.iter().map(|(state, _)| *state).collect::<Vec<_>>(),
        ["quarantined", "offline", "online"]
    );
    assert!(states[0].1.is_some_and(|reason| !reason.is_empty()), "{states:?}");
    assert!(states[1].1.is_some_and(|reason| reason.contains("is gone")), "{states:?}");
    assert_eq!(states[2].1, None);
    let table = String::from_utf8(broker.output(["topic", "describe", "t"])).unwrap();
    assert!(table.contains("quarantined") && table.contains("is gone"), "{table}");

    for partition in ["0", "1"] {
        let mut produce = broker.run(["produce", "t", "--partition", partition]);
        let output = feed(&mut produce, b"three\n");
        let error = the_error(&produce, &output);
        assert!(error.contains(&format!("t/{partition}")), "{error}");
        refused(&mut broker.run(["consume", "t", "--partition", partition, "--until-end"]));
    }
    let delete = ["topic", "delete-records", "t", "--before", "1", "--yes"];
    let error = refused(broker.run(delete).args(["--partition", "0"]));
    assert!(error.contains("0 of 1 partitions are done"), "{error}");

    broker.produce(["t", "--partition", "2"], b"three\n");
    assert_eq!(broker.output(["consume", "t", "--partition", "2", "--until-end"]), b"one\ntwo\nthree\n");
    succeed(broker.run(delete).args(["--partition", "2"]));
    assert_eq!(broker.output(["consume", "t", "--partition", "2", "--until-end"]), b"two\nthree\n");
}
