//! The files of a broker that is down: damage is found and told, shown and repaired, and the broker goes on.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "stories run real processes")]

mod common;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{Broker, corrente, lines, partition_dir, refused, scratch, segments, succeed};
use serde_json::Value;

/// A node that is down, with a topic of one partition: 300 records of twelve thousand bytes in several segments.
struct Node {
    home: tempfile::TempDir,
    address: String,
    topic: String,
}

fn record(n: usize) -> String {
    format!("{n:04} {}", "x".repeat(11_995))
}

impl Node {
    fn grown() -> Node {
        let home = scratch();
        let broker = Broker::start(home.path());
        broker.output(["topic", "create", "t", "--partitions", "1", "--config", "segment.bytes=1100000"]);
        for part in 0..30 {
            let text: String = (part * 10..part * 10 + 10).map(|n| record(n) + "\n").collect();
            broker.produce(["t"], text.as_bytes());
        }
        let described = broker.output(["topic", "describe", "t", "-o", "json"]);
        let described: Value = serde_json::from_slice(&described).unwrap();
        let topic = described["id"].as_str().unwrap().to_owned();
        let address = broker.address.clone();
        assert!(broker.terminate().success());
        Node { home, address, topic }
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    fn log_dir(&self) -> PathBuf {
        partition_dir(self.home.path(), &self.topic, "0")
    }

    fn start(&self) -> Broker {
        Broker::restart(self.home.path(), &self.address)
    }

    fn log(&self, verb: &str, flags: &[&str]) -> Command {
        let mut command = corrente(["log", verb]);
        command.arg(self.data()).args(flags);
        command
    }

    /// What verify says of the topic's log, and its exit code.
    fn verified(&self) -> (Value, Option<i32>) {
        let output = self.log("verify", &["-o", "json"]).output().unwrap();
        let all: Value = serde_json::from_slice(&output.stdout).expect("one JSON value");
        let ours = |of: &&Value| of["log"].as_str().is_some_and(|log| log.starts_with(&self.topic));
        (all.as_array().unwrap().iter().find(ours).expect("the log is told").clone(), output.status.code())
    }
}

fn flip(path: &Path, at: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x5A], at).unwrap();
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_sound_node_is_told_to_be_sound_and_shown() {
    let node = Node::grown();
    let output = succeed(&mut node.log("verify", &[]));
    assert!(text(&output).contains("all sound"), "{}", text(&output));
    let (log, code) = node.verified();
    assert_eq!((code, log["state"].as_str()), (Some(0), Some("ok")));
    assert_eq!(log["content"]["records"], 300);
    assert!(log["content"]["segments"].as_u64().unwrap() > 2, "{log}");

    let mut dump = corrente(["log", "dump", "--records", "-o", "jsonl", "--from", "290"]);
    let output = succeed(dump.arg(node.log_dir()));
    let records: Vec<Value> =
        lines(&output.stdout).iter().map(|line| serde_json::from_slice(line).unwrap()).collect();
    let records: Vec<&Value> = records.iter().filter(|shown| shown["kind"] == "record").collect();
    assert_eq!(records.len(), 10);
    assert_eq!(
        (&records[9]["offset"], &records[9]["value_bytes"]),
        (&Value::from(299), &Value::from(12_000))
    );
    let output = succeed(corrente(["log", "dump", "--max", "2"]).arg(node.log_dir()));
    assert_eq!(text(&output).matches("\n    batch").count(), 2, "{}", text(&output));

    let output = succeed(&mut node.log("repair", &["--plan"]));
    assert!(text(&output).contains("2 logs need no repair"), "{}", text(&output));

    // Beside a broker nothing is judged or changed, but shown.
    let broker = node.start();
    for verb in ["verify", "repair"] {
        let output = node.log(verb, &[]).output().unwrap();
        assert!(!output.status.success());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("in use by a broker"), "{error}");
    }
    assert_eq!(node.log("verify", &[]).status().unwrap().code(), Some(2));
    let output = succeed(corrente(["log", "dump"]).arg(node.log_dir()));
    assert!(String::from_utf8_lossy(&output.stderr).contains("in use by a broker"));
    assert!(broker.terminate().success());
}

#[test]
fn what_is_damaged_is_told_and_repaired_and_the_rest_is_served() {
    let node = Node::grown();
    let files = segments(&node.log_dir());
    flip(&files[1], 4096 + 2000);
    std::fs::remove_file(files.last().unwrap()).unwrap();
    let last_base: u64 = files.last().unwrap().file_stem().unwrap().to_str().unwrap().parse().unwrap();

    let (log, code) = node.verified();
    assert_eq!((code, log["state"].as_str()), (Some(1), Some("damaged")));
    let lost: Vec<(u64, u64)> = log["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|found| Some((found["lost"]["start"].as_u64()?, found["lost"]["end"].as_u64()?)))
        .collect();
    assert_eq!(lost.len(), 2, "{log}");
    assert_eq!(lost[1], (last_base, 300));
    let is_lost = |offset: u64| lost.iter().any(|(start, end)| (*start..*end).contains(&offset));
    let table = text(&node.log("verify", &[]).output().unwrap());
    assert!(table.contains("damaged") && table.contains(&format!("{last_base}..300")), "{table}");

    // A plan changes nothing, and without a yes nothing happens where nobody can be asked.
    let before = segments(&node.log_dir());
    let plan = text(&succeed(&mut node.log("repair", &["--plan"])));
    assert!(plan.contains("are lost for good"), "{plan}");
    assert!(refused(&mut node.log("repair", &[])).contains("--yes"));
    assert_eq!(segments(&node.log_dir()), before);
    assert!(!node.log_dir().join("set-aside").exists());

    let done: Value =
        serde_json::from_slice(&succeed(&mut node.log("repair", &["--yes", "-o", "json"])).stdout).unwrap();
    assert_eq!(done[0]["done"], true, "{done}");
    assert!(segments(&node.log_dir().join("set-aside")).len() == 1, "{done}");
    let (log, code) = node.verified();
    assert_eq!((code, log["state"].as_str()), (Some(0), Some("ok")), "{log}");

    let broker = node.start();
    let described: Value =
        serde_json::from_slice(&broker.output(["topic", "describe", "t", "-o", "json"])).unwrap();
    assert_eq!(described["partitions"][0]["state"], "online", "{described}");
    broker.produce(["t"], (record(300) + "\n").as_bytes());
    let output = broker.output(["consume", "t", "--until-end", "--format", "%o %v\\n"]);
    let expected: String = (0..301)
        .filter(|n| !is_lost(*n))
        .map(|n| format!("{n} {}\n", record(usize::try_from(n).unwrap())))
        .collect();
    assert!(output == expected.as_bytes(), "other records after the repair");
    assert!(broker.terminate().success());
    assert_eq!(node.verified().1, Some(0));
}

#[test]
fn metadata_that_is_lost_is_not_made_up() {
    let node = Node::grown();
    let metadata = partition_dir(node.home.path(), "00000000-0000-0000-0000-000000000001", "0");
    flip(&segments(&metadata)[0], 4096 + 70);
    assert_eq!(node.log("verify", &[]).output().unwrap().status.code(), Some(1));
    let output = node.log("repair", &["--yes"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("cannot be repaired") && said.contains("metadata"), "{said}");
    assert!(!metadata.join("set-aside").exists());
}

#[test]
fn what_is_no_log_is_refused() {
    let home = scratch();
    for verb in ["verify", "dump", "repair"] {
        let output = corrente(["log", verb]).arg(home.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(if verb == "verify" { 2 } else { 1 }), "{verb}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("neither a data directory") && error.lines().count() == 1, "{error}");
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "looking left something behind");
}
