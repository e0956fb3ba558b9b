//! The history in memory and the one in the file are the same, and tell what has no answer.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test over a file of its own")]

use std::fs::File;
use std::io::BufReader;

use corrente_chaos::recorder::Recorder;
use corrente_history::{Action, Class, Header, History, LogId, OffsetAnswer, OffsetQuery, Outcome, check};

#[test]
fn what_is_written_is_what_happened() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let file = directory.path().join("history.jsonl");
    let recorder =
        Recorder::create(&file, Header { run: "a test".into(), ..Header::default() }).expect("a file");
    assert_ne!(recorder.process(), recorder.process());
    let log = LogId { topic: 0, partition: 0 };
    let ask = || Action::ListOffsets { log, query: OffsetQuery::Latest, answer: None };
    let unanswered = recorder.begin(1, ask());
    let begun = recorder.begin_final(2, ask());
    recorder.complete(begun, Outcome::Ok, |action| {
        let answer = Some(OffsetAnswer { offset: 0, timestamp_ms: None });
        *action = Action::ListOffsets { log, query: OffsetQuery::Latest, answer };
    });
    drop(unanswered);
    let history = recorder.finish().expect("written");
    assert_eq!(history.operations.len(), 2);
    assert!(history.operations[0].is_final && history.operations[0].is_ok());
    assert_eq!(history.operations[1].completed_ns, None);
    let read = History::read(BufReader::new(File::open(&file).expect("the file"))).expect("a history");
    assert_eq!(read, history);
    let verdict = check(&read);
    assert_eq!(verdict.classes(), [Class::Liveness]);
    assert_eq!(verdict.violations.len(), 2, "unanswered, and no end: {:?}", verdict.violations);
}
