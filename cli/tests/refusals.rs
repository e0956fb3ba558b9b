//! Wrong input and wrong surroundings: one clear line each, and the broker goes on.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "stories run real processes")]

mod common;

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use common::{Broker, corrente, feed, refused, scratch, the_error};

#[test]
fn a_broker_that_cannot_start_says_why() {
    let home = scratch();
    let serve = |data: &Path, flags: &[&str]| -> Command {
        let mut command =
            corrente(["serve", "--placement", "unbound", "--shards", "1", "--log", "off", "--data-dir"]);
        command.arg(data).args(flags);
        command
    };
    let fresh = home.path().join("fresh");
    let any_port = ["--listen", "127.0.0.1:0"];

    // Not writable for anybody, root included: a directory cannot be made below a file.
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = refused(&mut serve(&file.join("data"), &any_port));
    assert!(error.contains("file/data"), "{error}");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = refused(&mut serve(&fresh, &["--listen", &address]));
    assert!(error.contains(&address), "{error}");

    let broker = Broker::start(home.path());
    let error = refused(&mut serve(&home.path().join("data"), &any_port));
    assert!(error.contains("data"), "{error}");
    broker.output(["topic", "list"]);

    let config = home.path().join("corrente.toml");
    std::fs::write(&config, "[log]\nsegment_byte = 5\n").unwrap();
    let error = refused(&mut serve(&fresh, &["--config", config.to_str().unwrap()]));
    assert!(error.contains("log.segment_byte") && error.contains("log.segment_bytes"), "{error}");
    let error = refused(&mut serve(&fresh, &["--config", "/does/not/exist.toml"]));
    assert!(error.contains("/does/not/exist.toml"), "{error}");
    let error = refused(serve(&fresh, &any_port).env("CORRENTE__SHARDS__COUNTS", "2"));
    assert!(error.contains("counts") && error.contains("shards.count"), "{error}");
}

#[test]
fn topics_that_cannot_be_are_refused_by_name() {
    let home = scratch();
    let broker = Broker::start(home.path());
    let create = |name: &str, partitions: &str| {
        refused(&mut broker.run(["topic", "create", name, "--partitions", partitions]))
    };
    for name in ["../../etc", "", ".", "..", "a/b", "sp ace", &"x".repeat(300)] {
        let error = create(name, "1");
        assert!(error.contains("name"), "{error}");
    }
    create("t", "0");
    broker.output(["topic", "create", "t", "--partitions", "1"]);
    let error = create("t", "1");
    assert!(error.contains("exists"), "{error}");
    let error = refused(&mut broker.run(["topic", "alter", "t", "--config", "retention.mss=1"]));
    assert!(error.contains("retention.ms"), "{error}");
    let error = refused(&mut broker.run(["topic", "add-partitions", "t", "--partitions", "1"]));
    assert!(error.contains('1'), "{error}");

    for unknown in [
        vec!["topic", "describe", "missing"],
        vec!["topic", "delete", "missing"],
        vec!["produce", "missing"],
        vec!["consume", "missing", "--until-end"],
        vec!["consume", "t", "--partition", "5", "--until-end"],
    ] {
        let error = refused(&mut broker.run(&unknown));
        assert!(error.contains("missing") || error.contains('5'), "{error}");
    }
    assert!(!home.path().join("etc").exists());
    broker.output(["topic", "describe", "t"]);
}

#[test]
fn records_that_cannot_be_are_named_by_line_or_offset() {
    let home = scratch();
    let broker = Broker::start(home.path());
    broker.output(["topic", "create", "t", "--partitions", "1"]);

    let mut command = broker.run(["produce", "t", "--format", "json"]);
    let output = feed(&mut command, b"{\"value\":\"a\"}\n{\"value\":\"b\"}\nnonsense\n{\"value\":\"c\"}\n");
    let error = the_error(&command, &output);
    assert!(error.contains("line 3"), "{error}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("2 records acknowledged, 0 failed"), "{stderr}");

    let mut command = broker.run(["produce", "t"]);
    let mut input = b"short\n".to_vec();
    input.resize(64 << 20, b'x');
    let output = feed(&mut command, &input);
    let error = the_error(&command, &output);
    assert!(error.contains("line 2"), "{error}");

    let kept = broker.output(["consume", "t", "--until-end"]);
    assert_eq!(kept, b"a\nb\nshort\n");
    let error = refused(&mut broker.run(["consume", "t", "--from", "100", "--until-end"]));
    assert!(error.contains("100") && error.contains('3'), "{error}");
    let error = refused(&mut broker.run(["produce", "t", "--partition", "9", "--file", "/etc/hostname"]));
    assert!(error.contains('9'), "{error}");
}

#[test]
fn nobody_there_is_said_in_one_line() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let error = refused(&mut corrente(["topic", "list", "--brokers", &free]));
    assert!(error.contains(&free), "{error}");
}
