//! What goes in comes out: bytes of text, keys in their order, JSON with nulls and bytes that are no text.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "stories run real processes")]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use common::{Broker, lines, scratch, wait_for};

#[test]
fn lines_come_back_byte_for_byte() {
    let home = scratch();
    let broker = Broker::start(home.path());
    broker.output(["topic", "create", "text", "--partitions", "1"]);

    let mut input = b"first\r\n\n  spaces \t\n\xff\xfe\x00 no text\nkey:value\n".to_vec();
    input.extend(std::iter::repeat_n(b'x', 700_000));
    input.extend(b"\nlast without an end");
    let summary = broker.produce(["text"], &input);
    assert_eq!(String::from_utf8(summary.stderr).unwrap(), "7 records acknowledged, 0 failed\n");
    assert_eq!(summary.stdout, b"");

    let output = broker.output(["consume", "text", "--from", "earliest", "--until-end"]);
    input.push(b'\n');
    assert!(output == input, "{} bytes went in, {} came out", input.len(), output.len());

    let tail =
        broker.output(["consume", "text", "--from", "3", "--max-records", "2", "--format", "%o %k %v\\n"]);
    assert_eq!(tail, b"3  \xff\xfe\x00 no text\n4  key:value\n");
}

#[test]
fn keys_keep_their_order_over_partitions() {
    let home = scratch();
    let broker = Broker::start(home.path());
    broker.output(["topic", "create", "keyed", "--partitions", "4"]);

    let text: String = (0..20_000).map(|i| format!("key-{}:{i}\n", i % 37)).collect();
    let file = home.path().join("input.txt");
    std::fs::write(&file, &text).unwrap();
    let file = file.to_str().unwrap();
    broker.output(["produce", "keyed", "--file", file, "--key-delimiter", ":", "--header", "from=file"]);

    let output = broker.output(["consume", "keyed", "--until-end", "--format", "%p %k %v %h\\n"]);
    let mut partitions = BTreeMap::new();
    let mut values: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for line in lines(&output) {
        let line = std::str::from_utf8(line).unwrap();
        let [partition, key, value, header] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        assert_eq!(header, "from=file");
        assert_eq!(*partitions.entry(key.to_owned()).or_insert(partition.to_owned()), partition);
        values.entry(key.to_owned()).or_default().push(value.parse().unwrap());
    }
    assert_eq!(values.len(), 37);
    assert_eq!(values.values().map(Vec::len).sum::<usize>(), 20_000);
    assert!(values.values().all(|values| values.is_sorted()));
}

#[test]
fn json_holds_everything() {
    let home = scratch();
    let broker = Broker::start(home.path());
    broker.output(["topic", "create", "a", "--partitions", "2"]);
    broker.output(["topic", "create", "b", "--partitions", "2"]);
    let input = concat!(
        r#"{"key":null,"value":null,"headers":[],"timestamp":5,"partition":1}"#,
        "\n",
        r#"{"key":"","value":{"base64":"//4A"},"headers":[{"key":"h","value":null},{"key":"h","value":""}],"#,
        r#""timestamp":6,"partition":0}"#,
        "\n",
        r#"{"key":{"base64":"gA=="},"value":"line\nend \"quoted\" \u0000","headers":[],"timestamp":7,"partition":1}"#,
        "\n",
    );
    broker.produce(["a", "--format", "json"], input.as_bytes());
    let first = broker.output(["consume", "a", "--until-end", "--format", "json"]);
    assert_eq!(lines(&first).len(), 3);
    assert!(String::from_utf8_lossy(&first).contains(r#""value":{"base64":"//4A"}"#));

    // What was printed can be produced again, and prints the same.
    broker.produce(["b", "--format", "json"], &first);
    let second = broker.output(["consume", "b", "--until-end", "-o", "jsonl"]);
    let sorted = |bytes: &[u8]| {
        let mut sorted: Vec<Vec<u8>> = lines(bytes).into_iter().map(<[u8]>::to_vec).collect();
        sorted.sort();
        sorted
    };
    assert_eq!(sorted(&first), sorted(&second));
}

#[test]
fn a_consumer_follows_and_a_closed_pipe_is_no_error() {
    let home = scratch();
    let broker = Broker::start(home.path());
    broker.output(["topic", "create", "t", "--partitions", "1"]);
    let mut consumer =
        broker.run(["consume", "t"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(consumer.stdout.take().unwrap());
    let mut line = String::new();
    // A line is shown as soon as it is there, although the consumer waits for more.
    broker.produce(["t"], b"one\n");
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "one\n");

    drop(output);
    let mut produced = 0u32;
    let status = wait_for("the consumer to notice", || {
        broker.produce(["t"], b"more\n");
        produced += 1;
        consumer.try_wait().unwrap()
    });
    let mut stderr = String::new();
    std::io::Read::read_to_string(&mut consumer.stderr.take().unwrap(), &mut stderr).unwrap();
    assert!(status.success(), "after {produced} records: {stderr}");
    assert_eq!(stderr, "");
}
