//! Topics come and go: errors and successes that contradict it.

use super::story::*;
use crate::class::Class;
use crate::header::Topic;
use crate::operation::{Action, LogId, OffsetQuery, Outcome, RefusalKind, SentRecord};

fn topic(topic: u32) -> Topic {
    Topic { topic, name: "orders".into(), partitions: 1, ..Topic::default() }
}

fn create(number: u32) -> Action {
    Action::CreateTopic(topic(number))
}

fn delete(topic: u32) -> Action {
    Action::DeleteTopic { topic }
}

fn nothing_yet() -> Story {
    let mut story = Story::plain();
    story.history.header.topics.clear();
    story
}

/// Ends without a final reading.
fn rest(story: Story) -> Story {
    story.ok(ADMIN, Action::Rest)
}

#[test]
fn one_life_after_the_other() {
    let story =
        nothing_yet().ok(ADMIN, create(0)).ok(ADMIN, delete(0)).ok(ADMIN, create(1)).ok(ADMIN, delete(1));
    rest(story).expect(&[]);
    let refused_rightly = nothing_yet()
        .ok(ADMIN, create(0))
        .then(ADMIN, refused(RefusalKind::TopicExists), create(1))
        .ok(ADMIN, delete(0))
        .then(ADMIN, refused(RefusalKind::UnknownTopic), delete(0));
    rest(refused_rightly).expect(&[]);
}

#[test]
fn a_success_that_should_have_been_refused() {
    let twice =
        nothing_yet().ok(ADMIN, create(0)).ok(ADMIN, create(1)).ok(ADMIN, delete(0)).ok(ADMIN, delete(1));
    rest(twice).expect(&[Class::WrongError]);
    let after_its_end = nothing_yet().ok(ADMIN, create(0)).acked(0, 0).ok(ADMIN, delete(0)).acked(1, 1);
    rest(after_its_end).expect(&[Class::WrongError]);
    let deleted_twice = nothing_yet().ok(ADMIN, create(0)).ok(ADMIN, delete(0)).ok(ADMIN, delete(0));
    rest(deleted_twice).expect(&[Class::WrongError]);
}

#[test]
fn a_definite_error_for_what_was_done() {
    let used =
        nothing_yet().then(ADMIN, refused(RefusalKind::Other), create(0)).acked(0, 0).ok(ADMIN, delete(0));
    let used = rest(used).classes();
    assert!(used.contains(&Class::WrongError), "{used:?}");
    // Nothing of that name was there.
    let none = nothing_yet().then(ADMIN, refused(RefusalKind::TopicExists), create(0));
    rest(none).expect(&[Class::WrongError]);
    let gone = nothing_yet().ok(ADMIN, create(0)).ok(ADMIN, delete(0));
    rest(gone.then(ADMIN, refused(RefusalKind::TopicExists), create(1))).expect(&[Class::WrongError]);
    // It may have been there.
    let in_doubt = nothing_yet().then(ADMIN, doubt(), create(0)).then(
        ADMIN,
        refused(RefusalKind::TopicExists),
        create(1),
    );
    let mut in_doubt = rest(in_doubt);
    in_doubt.history.header.patient = false;
    in_doubt.expect(&[]);
}

#[test]
fn a_topic_that_is_not_found() {
    let asked = |story: Story| {
        let action = Action::ListOffsets { log: LOG, query: OffsetQuery::Latest, answer: None };
        story.then(READER, refused(RefusalKind::UnknownTopic), action)
    };
    let lives = asked(nothing_yet().ok(ADMIN, create(0)));
    let mut lives = rest(lives.ok(ADMIN, delete(0)));
    lives.history.header.patient = false;
    lives.expect(&[Class::WrongError]);
    rest(asked(nothing_yet().ok(ADMIN, create(0)).ok(ADMIN, delete(0)))).expect(&[]);
    // A deletion that failed for certain, and yet the topic is gone.
    let kept = nothing_yet().ok(ADMIN, create(0)).then(ADMIN, refused(RefusalKind::Other), delete(0));
    let kept = rest(asked(kept)).classes();
    assert!(kept.contains(&Class::WrongError), "{kept:?}");
}

#[test]
fn partitions_that_were_added_are_read_too() {
    let grown = Story::plain().ok(ADMIN, Action::AlterTopic(Topic { partitions: 2, ..Topic::default() }));
    grown.clone().end(0, 0, &[]).expect(&[Class::Liveness]);
    let log = LogId { topic: 0, partition: 1 };
    let record = SentRecord { log, ..acked(0, 0) };
    let record = SentRecord {
        acked: record.acked.map(|place| crate::operation::Place { partition: 1, ..place }),
        ..record
    };
    let lost = grown.then(PRODUCER, Outcome::Ok, Action::Send(vec![record])).end(0, 0, &[]);
    // Nobody looked what is there.
    lost.expect(&[Class::Liveness]);
}
