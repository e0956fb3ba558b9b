//! A broker killed while records are on their way, and started again: the producer goes on, nothing is lost.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "stories run real processes")]

mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Stdio;

use common::{Broker, PATIENCE, lines, scratch, wait_for};

const KEYS: u32 = 50;
const LINES: u32 = 60_000;
const KILLS: u32 = 3;

#[test]
fn a_producer_rides_through_kill_9() {
    let home = scratch();
    let mut broker = Broker::start(home.path());
    let address = broker.address.clone();
    broker.output(["topic", "create", "t", "--partitions", "4"]);
    let stats_file = home.path().join("stats.json");
    let mut producer = broker
        .run(["produce", "t", "--key-delimiter", ":"])
        .args(["--delivery-timeout", &format!("{}s", PATIENCE.as_secs()), "--stats-file"])
        .arg(&stats_file)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = producer.stdin.take().unwrap();
    let padding = "x".repeat(200);

    let acked = || {
        let text = std::fs::read(&stats_file).ok()?;
        let stats: serde_json::Value = serde_json::from_slice(&text).unwrap();
        stats["acked"].as_u64()
    };
    let mut sent = 0;
    for kill in 1..=KILLS {
        let part = LINES / (KILLS + 1);
        for _ in 0..part {
            writeln!(stdin, "{}:{sent} {padding}", sent % KEYS).unwrap();
            sent += 1;
        }
        wait_for("acknowledgements of this part", || {
            acked().filter(|acked| *acked > u64::from((kill - 1) * part))
        });
        broker.kill_9();
        // Written while nobody is there to take it.
        for _ in 0..1_000 {
            writeln!(stdin, "{}:{sent} {padding}", sent % KEYS).unwrap();
            sent += 1;
        }
        broker = Broker::restart(home.path(), &address);
    }
    while sent < LINES {
        writeln!(stdin, "{}:{sent} {padding}", sent % KEYS).unwrap();
        sent += 1;
    }
    drop(stdin);
    let output = producer.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains(&format!("{LINES} records acknowledged, 0 failed")), "{stderr}");

    let output = broker.output(["consume", "t", "--until-end", "--format", "%k %v\\n"]);
    let mut next: BTreeMap<u32, u32> = (0..KEYS).map(|key| (key, key)).collect();
    for line in lines(&output) {
        let line = std::str::from_utf8(line).unwrap();
        let mut words = line.split(' ');
        let key: u32 = words.next().unwrap().parse().unwrap();
        let number: u32 = words.next().unwrap().parse().unwrap();
        let expected = next.get_mut(&key).unwrap();
        // A retry may repeat records, so a number may stand here again; it may never come early.
        assert!(number <= *expected, "key {key}: {number} came before {expected}");
        if number == *expected {
            *expected += KEYS;
        }
    }
    for (key, next) in next {
        assert!(next >= LINES, "key {key} ends before {next}");
    }
}
