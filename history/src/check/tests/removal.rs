//! Records that may be gone, and others that may not.

use super::story::*;
use crate::class::Class;
use crate::header::{Cleanup, Topic};
use crate::operation::{Action, LogId, OffsetQuery, Poll, RefusalKind, SentRecord};

/// Four records of the same key.
fn four(story: Story) -> Story {
    story.acked(0, 0).acked(1, 1).acked(2, 2).acked(3, 3)
}

fn retaining(ms: u64) -> Story {
    Story::new(Topic { partitions: 1, retention_ms: Some(ms), ..Topic::default() })
}

#[test]
fn records_deleted_on_demand() {
    four(Story::plain()).deleted_before(2).end(2, 4, &[(2, 2), (3, 3)]).expect(&[]);
    // One more than was asked for.
    four(Story::plain()).deleted_before(2).end(3, 4, &[(3, 3)]).expect(&[Class::LostWrite, Class::Retention]);
    // None at all, and the broker says it did.
    let kept = four(Story::plain())
        .ok(ADMIN, Action::DeleteRecords { log: LOG, before_offset: 2, log_start: Some(1) });
    kept.end(1, 4, &[(1, 1), (2, 2), (3, 3)]).expect(&[Class::WrongError]);
    // A request that certainly failed deletes nothing; one in doubt may.
    let action = || Action::DeleteRecords { log: LOG, before_offset: 2, log_start: None };
    let failed = four(Story::plain()).then(ADMIN, refused(RefusalKind::OutOfRange), action());
    let failed = failed.end(2, 4, &[(2, 2), (3, 3)]).classes();
    assert!(failed.contains(&Class::Retention), "{failed:?}");
    let mut in_doubt = four(Story::plain()).then(ADMIN, doubt(), action()).end(2, 4, &[(2, 2), (3, 3)]);
    in_doubt.history.header.patient = false;
    in_doubt.expect(&[]);
}

#[test]
fn a_deletion_that_was_refused() {
    let beyond = |before_offset| {
        let action = Action::DeleteRecords { log: LOG, before_offset, log_start: None };
        let story = four(Story::plain()).then(ADMIN, refused(RefusalKind::OutOfRange), action);
        story.end(0, 4, &[(0, 0), (1, 1), (2, 2), (3, 3)])
    };
    beyond(5).expect(&[]);
    beyond(4).expect(&[Class::WrongError]);
}

#[test]
fn a_reader_that_is_overtaken_by_the_log_start() {
    let reader = || four(Story::plain()).polled(READER, None, &[(0, 0)]);
    let goes_on = |story: Story| story.polled(READER, Some(3), &[(3, 3)]).end(3, 4, &[(3, 3)]);
    goes_on(reader().deleted_before(3)).expect(&[]);
    // The gap reaches beyond what was deleted.
    let beyond = reader().deleted_before(2).polled(READER, Some(3), &[(3, 3)]);
    beyond.end(2, 4, &[(2, 2), (3, 3)]).expect(&[Class::PollSkip]);
    // Deleted only afterwards.
    let early = reader().polled(READER, Some(3), &[(3, 3)]).deleted_before(3);
    early.end(3, 4, &[(3, 3)]).expect(&[Class::PollSkip]);
    // Asked for, but the log start was told to lie before the gap.
    let unmoved = reader()
        .then(ADMIN, doubt(), Action::DeleteRecords { log: LOG, before_offset: 3, log_start: None })
        .polled(READER, Some(3), &[(3, 3)])
        .told(ADMIN, OffsetQuery::Earliest, 0);
    let mut unmoved = unmoved.end(0, 4, &[(0, 0), (1, 1), (2, 2), (3, 3)]);
    unmoved.history.header.patient = false;
    unmoved.expect(&[Class::PollSkip]);
}

#[test]
fn an_answer_from_below_the_log_start() {
    let deleted = || four(Story::plain()).deleted_before(2);
    let end = |story: Story| story.end(2, 4, &[(2, 2), (3, 3)]);
    end(deleted().polled(9, Some(1), &[(1, 1)])).expect(&[Class::Retention]);
    // Another offset's data instead of a refusal.
    end(deleted().polled(9, Some(1), &[(2, 2)])).expect(&[Class::Retention]);
    let asks_below = |kind| deleted().then(9, refused(kind), Action::Poll(vec![poll(Some(1), &[])]));
    end(asks_below(RefusalKind::OutOfRange)).expect(&[]);
    // Refused what is there.
    let within = deleted().then(9, refused(RefusalKind::OutOfRange), Action::Poll(vec![poll(Some(2), &[])]));
    end(within).expect(&[Class::WrongError]);
}

#[test]
fn records_that_were_old_enough() {
    // Timestamps are 1 000 to 1 003 ms, sent from 1 000 ms on; the final reading is over at about 2 s.
    four(retaining(500)).after(1_000).end(2, 4, &[(2, 2), (3, 3)]).expect(&[]);
    four(retaining(500)).after(1_000).end(4, 4, &[]).expect(&[]);
    four(retaining(5_000))
        .after(1_000)
        .end(2, 4, &[(2, 2), (3, 3)])
        .expect(&[Class::LostWrite, Class::Retention]);
    // Old enough in the end, but gone before.
    let early = four(retaining(500)).told(ADMIN, OffsetQuery::Earliest, 1).after(1_000);
    early.end(1, 4, &[(1, 1), (2, 2), (3, 3)]).expect(&[Class::Retention]);
    // A hole above the log start is nothing that retention makes.
    let hole = four(retaining(500)).after(1_000).end(0, 4, &[(0, 0), (2, 2), (3, 3)]);
    hole.expect(&[Class::SkipWithinPoll]);
}

#[test]
fn a_retention_that_was_changed() {
    let topic = |retention_ms| Topic { partitions: 1, retention_ms: Some(retention_ms), ..Topic::default() };
    let changed = |to| four(retaining(5_000)).ok(ADMIN, Action::AlterTopic(topic(to))).after(1_000);
    changed(500).end(2, 4, &[(2, 2), (3, 3)]).expect(&[]);
    changed(4_000).end(2, 4, &[(2, 2), (3, 3)]).expect(&[Class::LostWrite, Class::Retention]);
}

#[test]
fn records_that_were_too_many() {
    let sized = |bytes| Story::new(Topic { partitions: 1, retention_bytes: Some(bytes), ..Topic::default() });
    four(sized(10_000)).end(2, 4, &[(2, 2), (3, 3)]).expect(&[]);
    four(sized(1 << 30)).end(2, 4, &[(2, 2), (3, 3)]).expect(&[Class::LostWrite, Class::Retention]);
    // The newest records are never too many.
    four(sized(10_000)).end(4, 4, &[]).expect(&[Class::LostWrite, Class::Retention]);
}

#[test]
fn superseded_records() {
    four(Story::compacted()).end(0, 4, &[(3, 3)]).expect(&[]);
    four(Story::compacted()).end(0, 4, &[(1, 1), (3, 3)]).expect(&[]);
    four(Story::compacted()).polled(READER, None, &[(0, 0), (2, 2)]).end(0, 4, &[(3, 3)]).expect(&[]);
    // The same on a topic that is not compacted.
    four(Story::plain()).end(0, 4, &[(3, 3)]).expect(&[Class::LostWrite, Class::PollSkip]);
}

#[test]
fn the_latest_record_of_a_key_is_kept() {
    four(Story::compacted()).end(0, 4, &[(2, 2)]).expect(&[Class::Unseen]);
    // Its end told as if it had never been.
    let shortened = four(Story::compacted()).end(0, 3, &[(2, 2)]);
    shortened.expect(&[Class::LostWrite, Class::StaleListOffsets]);
    // Another key's record supersedes nothing.
    let other_key = SentRecord { key: 9, ..acked(4, 4) };
    let mut found = poll(None, &[(2, 2), (4, 4)]);
    found.records[1].content = crate::content::Content::Record { id: id(4), key: 9, is_tombstone: false };
    let story = four(Story::compacted()).ok(PRODUCER, Action::Send(vec![other_key]));
    let story = story.told(FINAL, OffsetQuery::Earliest, 0).told(FINAL, OffsetQuery::Latest, 5);
    let story = story.ok(FINAL, Action::Poll(vec![found])).ok(FINAL, Action::Rest);
    story.expect(&[Class::LostWrite, Class::SkipWithinPoll]);
    // All gone.
    four(Story::compacted()).end(0, 4, &[]).expect(&[Class::Unseen]);
}

#[test]
fn a_record_is_not_superseded_before_the_later_one_was_sent() {
    let story = Story::compacted().acked(0, 0).acked(1, 1).acked(2, 2);
    let skips = story.polled(READER, None, &[(0, 0)]).polled(READER, Some(1), &[]);
    let early = skips.polled(READER, Some(3), &[]).acked(3, 3);
    early.end(0, 4, &[(3, 3)]).expect(&[Class::PollSkip]);
}

#[test]
fn what_supersedes_may_be_in_doubt_but_not_in_the_end() {
    let mut story = Story::compacted().acked(0, 0).acked(1, 1);
    story.history.header.patient = false;
    let story = story.sent(2, doubt()).polled(READER, None, &[(0, 0)]).polled(READER, Some(2), &[]);
    story.clone().end(0, 3, &[(2, 2)]).expect(&[]);
    // Nothing was there to supersede it, as it turned out.
    story.end(0, 2, &[]).expect(&[Class::LostRead, Class::Unseen]);
}

#[test]
fn superseded_records_do_not_hold_up_the_log_start() {
    let topic = Topic {
        partitions: 1,
        cleanup: Cleanup::CompactAndDelete,
        retention_ms: Some(500),
        ..Topic::default()
    };
    // The third record is old enough, the others before it are gone for another reason.
    let young = |counter: u32, offset| {
        let mut record = acked(counter, offset);
        record.timestamp_ms = 1_000_000;
        record
    };
    let story = |superseding_key| {
        let later = SentRecord { key: superseding_key, ..young(2, 2) };
        let story = Story::new(topic.clone()).ok(PRODUCER, Action::Send(vec![young(0, 0)]));
        story.acked(1, 1).ok(PRODUCER, Action::Send(vec![later])).after(1_000)
    };
    let told = |key| {
        let story = story(key).told(ADMIN, OffsetQuery::Earliest, 2);
        story.ok(ADMIN, Action::DeleteTopic { topic: 0 }).ok(ADMIN, Action::Rest)
    };
    told(KEY).expect(&[]);
    // Nothing had the key of the record that is gone, and it was young.
    let mut other = told(9);
    other.history.operations.remove(1);
    other.expect(&[Class::Retention]);
}

#[test]
fn an_offset_is_for_ever() {
    // Compaction may not move what it keeps together.
    let moved = four(Story::compacted()).end(0, 4, &[(0, 3)]);
    moved.expect(&[Class::InconsistentOffsets, Class::LostWrite, Class::Unseen]);
}

#[test]
fn tombstones_and_their_horizon() {
    let kept = |ms| {
        let topic =
            Topic { partitions: 1, cleanup: Cleanup::Compact, delete_retention_ms: ms, ..Topic::default() };
        Story::new(topic).acked(0, 0).tombstone(1, 1).after(1_000)
    };
    kept(500).end(0, 2, &[]).expect(&[]);
    kept(5_000).end(0, 2, &[]).expect(&[Class::Unseen]);
    // The value it deleted, without it, has come back to life.
    kept(500).end(0, 2, &[(0, 0)]).expect(&[]);
    let mut still_there = poll(None, &[(1, 1)]);
    still_there.records[0].content =
        crate::content::Content::Record { id: id(1), key: KEY, is_tombstone: true };
    let story = kept(5_000).told(FINAL, OffsetQuery::Earliest, 0).told(FINAL, OffsetQuery::Latest, 2);
    story.ok(FINAL, Action::Poll(vec![still_there])).ok(FINAL, Action::Rest).expect(&[]);
}

#[test]
fn a_deleted_topic_owes_nothing() {
    let deleted = four(Story::plain()).ok(ADMIN, Action::DeleteTopic { topic: 0 });
    deleted.ok(ADMIN, Action::Rest).expect(&[]);
    // But a new life of its name does, and shares nothing with it.
    let log = LogId { topic: 1, partition: 0 };
    let topic = Topic { topic: 1, partitions: 1, ..Topic::default() };
    let again = four(Story::plain())
        .ok(ADMIN, Action::DeleteTopic { topic: 0 })
        .ok(ADMIN, Action::CreateTopic(topic))
        .ok(PRODUCER, Action::Send(vec![SentRecord { log, ..acked(4, 0) }]))
        .ok(9, Action::Poll(vec![Poll { log, ..poll(None, &[(0, 4)]) }]));
    again.clone().ok(ADMIN, Action::Rest).expect(&[Class::Liveness]);
    let crossed = again.ok(9, Action::Poll(vec![poll(None, &[(0, 4)])])).ok(ADMIN, Action::Rest);
    crossed.expect(&[Class::Phantom, Class::Liveness, Class::WrongError]);
}
