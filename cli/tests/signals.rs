//! How a broker and a producer end when they are told to.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "stories run real processes")]

mod common;

use std::io::Write;
use std::process::Stdio;

use common::{Broker, scratch, wait_for};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn a_broker_told_to_end_drains_and_removes_its_ready_file() {
    let home = scratch();
    let broker = Broker::start(home.path());
    broker.output(["topic", "create", "t", "--partitions", "1"]);
    broker.produce(["t"], b"kept\n");
    let (ready_file, address) = (broker.ready_file.clone(), broker.address.clone());
    assert!(broker.terminate().success());
    assert!(!ready_file.exists());

    let broker = Broker::restart(home.path(), &address);
    assert_eq!(broker.output(["consume", "t", "--until-end"]), b"kept\n");
}

#[test]
fn a_producer_interrupted_waits_for_what_it_sent() {
    let home = scratch();
    let broker = Broker::start(home.path());
    broker.output(["topic", "create", "t", "--partitions", "1"]);
    let stats = home.path().join("stats.json");
    let mut producer = broker
        .run(["produce", "t", "--stats-file", stats.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The pipe stays open: without the signal the producer would wait for more.
    let mut stdin = producer.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\n").unwrap();
    wait_for("both records to be sent", || {
        let stats: serde_json::Value = serde_json::from_slice(&std::fs::read(&stats).ok()?).unwrap();
        (stats["sent"] == 2).then_some(())
    });
    let pid = Pid::from_raw(i32::try_from(producer.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let status = wait_for("the producer to end", || producer.try_wait().unwrap());
    let mut stderr = String::new();
    std::io::Read::read_to_string(&mut producer.stderr.take().unwrap(), &mut stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("2 records acknowledged, 0 failed") && stderr.contains("interrupted"),
        "{stderr}"
    );
    drop(stdin);
}
