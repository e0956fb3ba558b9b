//! The records of a topic are described without being kept, and records like them are sent again.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "stories run real processes")]

mod common;

use common::{Broker, refused, scratch};
use serde_json::Value;

fn profile(broker: &Broker, arguments: &[&str]) -> Value {
    let arguments = [&["bench", "profile", "-o", "json"], arguments].concat();
    serde_json::from_slice(&broker.output(arguments)).unwrap()
}

#[test]
fn a_profile_is_taken_and_replayed() {
    let home = scratch();
    let broker = Broker::start(home.path());
    let bench = ["bench", "produce", "--closed-loop", "--warmup", "0s", "-o", "json"];
    let slow = ["--slip-max", "100%"];
    let recorded =
        ["--records", "2000", "--batch-records", "5", "--record-size", "100", "--compression", "lz4"];
    let keys = ["--keys", "50", "--key-size", "12", "--key-skew", "zipf:1", "--topic", "recorded"];
    broker.output([&bench[..], &slow, &recorded, &keys, &["--partitions", "3"]].concat());

    let file = home.path().join("profile.json");
    let file = file.to_str().unwrap();
    let seen = profile(&broker, &["recorded", "--json", file]);
    assert_eq!(serde_json::from_slice::<Value>(&std::fs::read(file).unwrap()).unwrap(), seen);
    assert_eq!(
        (&seen["records"], &seen["null_keys"], &seen["partitions"]),
        (&2000.into(), &0.into(), &3.into())
    );
    assert_eq!(seen["value_sizes"]["counts"], serde_json::json!([[100, 2000]]));
    assert_eq!(seen["batch_records"]["counts"], serde_json::json!([[5, 400]]));
    assert_eq!(seen["keys"]["sizes"]["counts"], serde_json::json!([[12, 2000]]));
    assert_eq!(seen["compression"], serde_json::json!({ "lz4": 400 }));
    let distinct = seen["keys"]["distinct"].as_u64().unwrap();
    assert!((30..=50).contains(&distinct), "{distinct}");
    assert_eq!(profile(&broker, &["recorded", "--records", "7"])["records"], 10);

    let replay = ["--replay", file, "--records", "1000", "--topic", "replayed", "--partitions", "3"];
    let report: Value =
        serde_json::from_slice(&broker.output([&bench[..], &slow, &replay].concat())).unwrap();
    assert_eq!((&report["records"], &report["errors"]), (&1000.into(), &0.into()));
    let replayed = &report["plan"]["work"]["produce"]["replay"];
    assert_eq!((&replayed["topic"], &replayed["value_sizes"]), (&"recorded".into(), &seen["value_sizes"]));
    let again = profile(&broker, &["replayed"]);
    assert_eq!(again["value_sizes"]["counts"], serde_json::json!([[100, 1000]]));
    assert_eq!(again["batch_records"]["counts"], serde_json::json!([[5, 200]]));
    assert_eq!(again["keys"]["sizes"]["counts"], serde_json::json!([[12, 1000]]));
    assert_eq!(again["compression"], serde_json::json!({ "lz4": 200 }));
    assert!(broker.terminate().success());
}

#[test]
fn what_cannot_be_described_or_replayed_is_named() {
    let home = scratch();
    let broker = Broker::start(home.path());
    let error = refused(&mut broker.run(["bench", "profile", "missing"]));
    assert!(error.contains("missing"), "{error}");
    broker.output(["topic", "create", "empty", "--partitions", "1"]);
    let error = refused(&mut broker.run(["bench", "profile", "empty"]));
    assert!(error.contains("topic empty holds no record"), "{error}");

    let file = home.path().join("profile.json");
    let said = |content: &str, further: &[&str]| {
        std::fs::write(&file, content).unwrap();
        let output = broker.run(["bench", "produce", "--replay"]).arg(&file).args(further).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(said("{}", &[]).contains("it holds no profile"));
    broker.produce(["empty"], b"x\n");
    let profile = broker.output(["bench", "profile", "empty", "-o", "json"]);
    let profile = String::from_utf8(profile).unwrap();
    assert!(said(&profile, &["--record-size", "5"]).contains("cannot be used with"));
    let wrong = profile.replace("\"records\": 1,", "\"records\": 2,");
    assert!(said(&wrong, &[]).contains("are not the 2 records"), "{wrong}");
    assert!(broker.terminate().success());
}
