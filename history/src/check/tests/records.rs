//! What was sent, acknowledged and read, while nothing is ever removed.

use super::story::*;
use crate::check::Judged;
use crate::class::Class;
use crate::content::Content;
use crate::header::Topic;
use crate::operation::{Action, LogId, OffsetQuery, Operation, Poll, RefusalKind, SentRecord};

#[test]
fn a_sound_history_passes() {
    let verdict = sound().end(0, 4, &ALL).verdict();
    assert_eq!(verdict.violations, []);
    let judged = Judged {
        operations: 12,
        sent: 3,
        acked: 3,
        read_during: 4,
        final_records: 4,
        duplicates: 1,
        removed: 0,
        crashes: 1,
    };
    assert_eq!(verdict.judged, judged);
    Story::plain().end(0, 0, &[]).expect(&[]);
}

#[test]
fn one_offset_shows_two_records() {
    sound().polled(9, None, &[(1, 2)]).end(0, 4, &ALL).expect(&[Class::InconsistentOffsets, Class::LostRead]);
    sound().acked(3, 3).end(0, 4, &ALL).expect(&[
        Class::InconsistentOffsets,
        Class::LostWrite,
        Class::NonMonotonicSend,
    ]);
}

#[test]
fn an_acknowledged_record_that_is_gone() {
    // In the middle, where another record stands now.
    sound()
        .acked(3, 4)
        .acked(4, 5)
        .end(0, 6, &[(0, 0), (1, 1), (2, 1), (3, 2), (4, 4), (5, 4)])
        .expect(&[Class::InconsistentOffsets, Class::LostWrite]);
    // At the tail, which nobody had read.
    sound().acked(3, 4).end(0, 4, &ALL).expect(&[Class::LostWrite, Class::StaleListOffsets]);
    // Everything.
    sound().end(0, 0, &[]).expect(&[Class::LostWrite, Class::LostRead, Class::StaleListOffsets]);
    // A hole that a reader went over, in a history without an end.
    let hole = Story::plain().acked(0, 0).acked(1, 1).acked(2, 2).polled(READER, None, &[(0, 0), (2, 2)]);
    hole.ok(ADMIN, Action::Rest).expect(&[Class::LostWrite, Class::SkipWithinPoll, Class::Liveness]);
}

#[test]
fn an_acknowledged_record_that_nobody_was_shown() {
    sound().acked(3, 4).end(0, 5, &ALL).expect(&[Class::Unseen]);
}

#[test]
fn a_record_that_was_shown_before_it_was_safe() {
    let story = Story::plain().sent(0, doubt()).polled(READER, None, &[(0, 0)]).end(0, 0, &[]);
    story.expect(&[Class::LostRead, Class::EndWentBack, Class::Liveness]);
}

#[test]
fn what_nobody_sent() {
    sound().polled(9, None, &[(0, 77)]).end(0, 4, &ALL).expect(&[Class::Phantom]);
    let mut damaged = poll(None, &[(0, 0)]);
    damaged.records[0].content = Content::Corrupt("other filler".into());
    sound().ok(9, Action::Poll(vec![damaged.clone()])).end(0, 4, &ALL).expect(&[Class::Phantom]);
    damaged.records[0].content = Content::Record { id: id(0), key: 6, is_tombstone: false };
    sound().ok(9, Action::Poll(vec![damaged.clone()])).end(0, 4, &ALL).expect(&[Class::Phantom]);
    damaged.records[0].content = Content::Record { id: id(0), key: KEY, is_tombstone: true };
    sound().ok(9, Action::Poll(vec![damaged])).end(0, 4, &ALL).expect(&[Class::Phantom]);
    let mut stamped = poll(None, &[(0, 0)]);
    stamped.records[0].timestamp_ms += 1;
    sound().ok(9, Action::Poll(vec![stamped])).end(0, 4, &ALL).expect(&[Class::Phantom]);
    let elsewhere = Poll { log: LogId { topic: 7, partition: 0 }, ..poll(None, &[(0, 0)]) };
    sound().ok(9, Action::Poll(vec![elsewhere])).end(0, 4, &ALL).expect(&[Class::Phantom]);
}

#[test]
fn copies_of_a_record_that_the_broker_stamps() {
    let stamped = |at: usize| {
        let topic = Topic { partitions: 1, append_time: true, ..Topic::default() };
        // The first attempt stands at 0, the acknowledged one at 1.
        let mut found = poll(None, &[(0, 0), (1, 0)]);
        found.records[at].timestamp_ms -= 7;
        let story = Story::new(topic).acked(0, 1).told(FINAL, OffsetQuery::Earliest, 0);
        let story = story.told(FINAL, OffsetQuery::Latest, 2);
        story.ok(FINAL, Action::Poll(vec![found])).ok(FINAL, Action::Rest)
    };
    stamped(0).expect(&[]);
    stamped(1).expect(&[Class::Phantom]);
}

#[test]
fn a_record_read_before_it_was_sent() {
    let story = Story::plain().polled(READER, None, &[(0, 0)]).acked(0, 0).end(0, 1, &[(0, 0)]);
    story.expect(&[Class::Phantom]);
}

#[test]
fn a_record_whose_sending_had_failed() {
    let story =
        sound().sent(3, refused(RefusalKind::Other)).end(0, 5, &[(0, 0), (1, 1), (2, 1), (3, 2), (4, 3)]);
    story.expect(&[Class::AbortedRead, Class::Liveness]);
    // In doubt it may be there.
    let story = sound().sent(3, doubt()).end(0, 5, &[(0, 0), (1, 1), (2, 1), (3, 2), (4, 3)]);
    story.expect(&[Class::Liveness]);
}

#[test]
fn a_copy_where_the_broker_drops_them() {
    let mut story = sound();
    story.history.header.idempotent = true;
    story.end(0, 4, &ALL).expect(&[Class::Duplicate]);
}

#[test]
fn less_than_was_acknowledged() {
    sound().told(ADMIN, OffsetQuery::Latest, 3).end(0, 4, &ALL).expect(&[Class::StaleListOffsets]);
    let mut stale = poll(Some(4), &[]);
    stale.high_watermark = Some(3);
    sound().ok(READER, Action::Poll(vec![stale])).end(0, 4, &ALL).expect(&[Class::StalePoll]);
    let empty = sound().acked(3, 4).polled(READER, Some(4), &[]);
    empty.end(0, 5, &[(0, 0), (1, 1), (2, 1), (3, 2), (4, 3)]).expect(&[Class::StalePoll]);
}

#[test]
fn ends_and_starts_that_go_back() {
    let story =
        sound().sent(3, doubt()).told(ADMIN, OffsetQuery::Latest, 5).told(ADMIN, OffsetQuery::Latest, 4);
    let all = [(0, 0), (1, 1), (2, 1), (3, 2), (4, 3)];
    story.end(0, 5, &all).expect(&[Class::EndWentBack, Class::Liveness]);
    let story = sound().deleted_before(2).told(ADMIN, OffsetQuery::Earliest, 1);
    story.end(2, 4, &ALL[2..]).expect(&[Class::StartWentBack]);
    // The final reading found more than the end that was told.
    sound().sent(3, doubt()).end(0, 4, &all).expect(&[Class::EndWentBack, Class::Liveness]);
}

#[test]
fn a_late_answer_to_an_early_question_is_not_the_last_word() {
    let mut late = sound().end(0, 4, &ALL);
    let answer = late.history.operations[2].clone();
    late.history.operations[2].completed_ns = Some(late.clock_ms * 1_000_000);
    late.expect(&[]);
    late.history.operations[2] = Operation { is_final: true, ..late.history.operations[2].clone() };
    late.expect(&[]);
    late.history.operations[2] = Operation { invoked_ns: late.clock_ms * 1_000_000 - 1, ..answer };
    late.history.operations[2].completed_ns = Some(late.clock_ms * 1_000_000);
    late.expect(&[Class::StaleListOffsets]);
}

#[test]
fn offsets_with_a_hole_or_again() {
    let hole = |records: &[(u64, u32)]| sound().polled(9, None, records).end(0, 4, &ALL);
    hole(&[(0, 0), (2, 1)]).expect(&[Class::SkipWithinPoll]);
    hole(&[(1, 1), (0, 0)]).expect(&[Class::NonMonotonicWithinPoll]);
    hole(&[(0, 0), (0, 0)]).expect(&[Class::NonMonotonicWithinPoll]);
    let hole = |position, first| {
        sound().polled(9, None, &[(0, 0)]).polled(9, Some(position), &[first]).end(0, 4, &ALL)
    };
    hole(1, (1, 1)).expect(&[]);
    hole(1, (2, 1)).expect(&[Class::PollSkip]);
    hole(2, (2, 1)).expect(&[Class::PollSkip]);
    hole(1, (0, 0)).expect(&[Class::NonMonotonicPoll]);
    hole(0, (0, 0)).expect(&[Class::NonMonotonicPoll]);
    // A new reader owes nothing to the one before it.
    sound().polled(9, None, &[(2, 1)]).polled(9, None, &[(0, 0)]).end(0, 4, &ALL).expect(&[]);
}

#[test]
fn a_final_reading_that_left_something_out() {
    sound().end(0, 4, &[(0, 0), (2, 1), (3, 2)]).expect(&[Class::LostRead, Class::SkipWithinPoll]);
    sound().end(0, 4, &ALL[1..]).expect(&[Class::LostWrite, Class::LostRead, Class::PollSkip]);
    sound().end(0, 4, &ALL[..3]).expect(&[Class::LostRead, Class::Unseen]);
    sound().end(0, 4, &[]).expect(&[Class::LostRead, Class::Unseen]);
    let mut unasked = sound().end(0, 4, &ALL);
    unasked.history.operations.retain(|operation| {
        !matches!(operation.action, Action::ListOffsets { query: OffsetQuery::Latest, .. } if operation.is_final)
    });
    unasked.expect(&[Class::Liveness]);
}

#[test]
fn records_in_another_order() {
    let story = Story::plain().acked(0, 1).acked(1, 0).end(0, 2, &[(0, 1), (1, 0)]);
    story.expect(&[Class::NonMonotonicSend]);
    // Acknowledged in order, but a copy of the later one stands before the earlier one.
    let copied = Story::plain().acked(0, 1).acked(1, 2).end(0, 3, &[(0, 1), (1, 0), (2, 1)]);
    copied.expect(&[Class::NonMonotonicSend]);
    // First copies that were removed say nothing of the order.
    let twice = Story::plain().acked(0, 2).acked(1, 3).deleted_before(1);
    twice.end(1, 4, &[(1, 1), (2, 0), (3, 1)]).expect(&[]);
    // Clients that promise no order for what is under way together are held to what came after an answer.
    let mut one_by_one = story.clone();
    one_by_one.history.header.in_order = false;
    one_by_one.expect(&[Class::NonMonotonicSend]);
    one_by_one.history.operations[1].invoked_ns = one_by_one.history.operations[0].invoked_ns;
    one_by_one.expect(&[]);
}

#[test]
fn a_record_in_another_partition() {
    let topic = Topic { partitions: 1, ..Topic::default() };
    let elsewhere = LogId { topic: 0, partition: 1 };
    let misled = SentRecord { log: elsewhere, ..acked(0, 0) };
    let story = Story::new(topic).ok(PRODUCER, Action::Send(vec![misled]));
    story.end(0, 1, &[(0, 0)]).expect(&[Class::Misplaced]);
}

#[test]
fn a_run_that_did_not_come_to_rest() {
    sound().expect(&[Class::Liveness]);
    sound().then(ADMIN, doubt(), Action::Rest).expect(&[Class::Liveness]);
    let mut open = sound().end(0, 4, &ALL);
    open.history.operations[2].completed_ns = None;
    open.history.operations[2].outcome = doubt();
    open.history.operations[2].action =
        Action::ListOffsets { log: LOG, query: OffsetQuery::Latest, answer: None };
    open.expect(&[Class::Liveness]);
}

#[test]
fn clients_that_outlast_every_fault_and_are_turned_away() {
    let turned_away =
        || sound().then(READER, doubt(), Action::Poll(vec![poll(Some(4), &[])])).end(0, 4, &ALL);
    turned_away().expect(&[Class::Liveness]);
    let mut impatient = turned_away();
    impatient.history.header.patient = false;
    impatient.expect(&[]);
}

#[test]
fn an_operation_that_takes_too_long() {
    let mut slow = sound().end(0, 4, &ALL);
    slow.history.header.stall_ns_max = Some(100_000_000);
    slow.expect(&[]);
    // While the broker is down nothing is held against it.
    slow.history.operations[4].invoked_ns = slow.history.operations[3].invoked_ns;
    slow.history.operations[3].completed_ns = Some(slow.history.operations[4].over_ns());
    slow.expect(&[]);
    slow.history.operations[4].completed_ns =
        slow.history.operations[4].completed_ns.map(|ns| ns + 200_000_000);
    slow.history.operations[5].completed_ns = slow.history.operations[4].completed_ns;
    assert!(slow.classes().contains(&Class::Liveness));
}
