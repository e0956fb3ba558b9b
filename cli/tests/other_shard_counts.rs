//! The same data under 2 shards, then 1, then 4: nothing moves, nothing changes.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "stories run real processes")]

mod common;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use common::{Broker, scratch};

#[test]
fn data_is_the_same_under_any_number_of_shards() {
    let home = scratch();
    let start = |shards| Broker::start_with(home.path(), &["--listen", "127.0.0.1:0", "--shards", shards]);

    let broker = start("2");
    broker.output(["topic", "create", "t", "--partitions", "8"]);
    let text: String = (0..5_000).map(|i| format!("{}:value {i}\n", i % 101)).collect();
    broker.produce(["t", "--key-delimiter", ":"], text.as_bytes());
    let before = contents(&broker);
    assert_eq!(before.iter().filter(|byte| **byte == b'\n').count(), 5_000);
    assert!(broker.terminate().success());
    let files_before = segments(&home.path().join("data"));
    assert!(!files_before.is_empty());

    for shards in ["1", "4"] {
        let broker = start(shards);
        assert!(contents(&broker) == before, "other records with {shards} shards");
        assert!(broker.terminate().success());
        let files = segments(&home.path().join("data"));
        for (path, inode) in &files_before {
            assert_eq!(files.get(path), Some(inode), "{} was moved or copied", path.display());
        }
    }

    let broker = start("4");
    broker.produce(["t", "--partition", "7"], b"one more\n");
    let last = broker.output(["consume", "t", "--partition", "7", "--until-end", "--format", "%v\\n"]);
    assert!(last.ends_with(b"one more\n"));
}

/// Every record with its place, sorted by it.
fn contents(broker: &Broker) -> Vec<u8> {
    let output = broker.output(["consume", "t", "--until-end", "--format", "%p %o %t %k %v\\n"]);
    let mut lines = common::lines(&output);
    lines.sort();
    let mut sorted = lines.join(&b'\n');
    sorted.push(b'\n');
    sorted
}

/// The files below the topics' directories that hold records, and their inodes.
fn segments(data: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut directories = vec![data.join("topics")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                directories.push(entry.path());
            } else {
                found.insert(entry.path(), metadata.ino());
            }
        }
    }
    found
}
