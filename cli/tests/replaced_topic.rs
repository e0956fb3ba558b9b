//! A topic that is deleted and created again is another topic: a reader of the first one is told so.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "stories run real processes")]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use common::{Broker, scratch};

#[test]
fn a_reader_is_told_and_shown_nothing_of_the_other_topic() {
    let home = scratch();
    let broker = Broker::start(home.path());
    broker.output(["topic", "create", "t", "--partitions", "1"]);
    broker.produce(["t"], b"old1\nold2\n");
    let mut reader =
        broker.run(["consume", "t"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(reader.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "old1");
    assert_eq!(lines.next().unwrap().unwrap(), "old2");

    broker.output(["topic", "delete", "t", "--yes"]);
    broker.output(["topic", "create", "t", "--partitions", "1"]);
    broker.produce(["t"], b"new1\nnew2\nnew3\nnew4\n");

    let status = reader.wait().unwrap();
    let mut stderr = String::new();
    reader.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("the topic was deleted and another one has its name"), "{stderr}");
    assert_eq!(lines.count(), 0, "nothing of the other topic is shown");
}
