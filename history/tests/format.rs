//! The file: what the README shows is read, what is not right is refused by one line that names the place.

use corrente_history::{Action, History};

const HEADER: &str = r#"{"history":1,"run":"by hand"}"#;

/// The refusal of a file with this second line.
fn refusal(line: &str) -> String {
    let text = format!("{HEADER}\n{line}\n");
    let error = History::read(text.as_bytes()).expect_err(line).to_string();
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

#[test]
fn what_the_readme_shows_is_read_and_written_again() {
    let readme = include_str!("../README.md");
    let lines: Vec<&str> = readme.lines().filter(|line| line.starts_with('{')).collect();
    let history = History::read(lines.join("\n").as_bytes()).expect("examples are good");
    assert_eq!(history.operations.len(), 10);
    assert_eq!(history.header.stall_ns_max, Some(60_000_000_000));
    assert_eq!(history.operations.last().map(|last| &last.action), Some(&Action::Rest));
    let written: Vec<String> = history.lines().collect();
    // The header leaves out what says nothing.
    assert_eq!(written[1..], lines[1..]);
    assert_eq!(History::read(written.join("\n").as_bytes()).expect("what was written is read"), history);
}

#[test]
fn a_file_that_is_no_history() {
    let read = |text: &str| History::read(text.as_bytes()).expect_err("no history").to_string();
    assert_eq!(read(""), "line 1: an empty file has no header");
    assert!(read("hello\n").starts_with("line 1: expected value"), "{}", read("hello\n"));
    assert_eq!(
        read(r#"{"history":2,"new":1}"#),
        "line 1: a history of version 2, this program reads version 1"
    );
    assert!(read(r#"{"history":1,"run":"","new":1}"#).starts_with("line 1: unknown field `new`"));
    assert!(History::read(&b"\xff\xfe\n"[..]).expect_err("no text").to_string().starts_with("line 1: "));
}

#[test]
fn lines_that_are_no_operation() {
    let poll = |records: &str| {
        let polls = format!(r#"[{{"topic":0,"partition":0,"records":[{records}]}}]"#);
        format!(r#"{{"process":1,"f":"poll","t_invoke":1,"t_complete":2,"type":"ok","polls":{polls}}}"#)
    };
    let send = |kind: &str, more: &str| {
        let record = r#""topic":0,"partition":0,"id":[1,2],"key":3,"bytes":4,"timestamp":5"#;
        format!(
            r#"{{"process":1,"f":"send","t_invoke":1,"t_complete":2,"type":"{kind}","records":[{{{record}{more}}}]}}"#
        )
    };
    for (line, expected) in [
        (r#"{"process":1}"#, "line 2: missing field `f`"),
        (r#"{"process":1,"f":"poll"#, "line 2: EOF while parsing a string"),
        ("", "line 2: EOF while parsing a value"),
        (
            r#"{"process":1,"f":"txn","t_invoke":1,"t_complete":2,"type":"ok"}"#,
            "line 2: this version knows no operation `txn`",
        ),
        (
            r#"{"process":1,"f":"crash","t_invoke":3,"t_complete":2,"type":"ok"}"#,
            "line 2: completed at 2, before it was invoked at 3",
        ),
        (
            r#"{"process":1,"f":"crash","t_invoke":3,"type":"ok"}"#,
            "line 2: an operation without t_complete is of type info",
        ),
        (
            r#"{"process":1,"f":"crash","t_invoke":1,"t_complete":2,"type":"ok","topic":0}"#,
            "line 2: `topic` does not belong to crash",
        ),
        (
            r#"{"process":1,"f":"delete_topic","t_invoke":1,"t_complete":2,"type":"ok"}"#,
            "line 2: delete_topic lacks `topic`",
        ),
        (
            r#"{"process":1,"f":"crash","t_invoke":1,"t_complete":2,"type":"ok","detail":"no"}"#,
            "line 2: an operation of type ok has no `error` and no `detail`",
        ),
        (&send("ok", ""), "line 2: record 1/2 was acknowledged without `offset`"),
        (&send("fail", r#","offset":6"#), "line 2: record 1/2 has an `offset` and was not acknowledged"),
        (&poll("[0,0,1,2]"), "line 2: invalid length 4"),
        (&poll("[0,0,1,2,3,true,4]"), "line 2: "),
        (&poll("[0,0,4294967296,2,3]"), "line 2: producer 4294967296 is over 4294967295"),
    ] {
        let refusal = refusal(line);
        assert!(refusal.starts_with(expected), "{line}\n{refusal}");
    }
    // A line that is good by itself.
    let twice = format!("{0}\n{0}", send("ok", r#","offset":6"#));
    assert_eq!(refusal(&twice), "line 3: record 1/2 was sent before, in line 2");
}

#[test]
fn a_line_without_an_end() {
    let endless = format!("{HEADER}\n{}", " ".repeat((16 << 20) + 1));
    let error = History::read(endless.as_bytes()).expect_err("too long").to_string();
    assert_eq!(error, "line 2: over 16777216 bytes");
}
