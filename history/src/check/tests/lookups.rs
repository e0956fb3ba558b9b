//! Lookups by time.

use super::story::*;
use crate::class::Class;
use crate::operation::{Action, OffsetAnswer, OffsetQuery};

/// Timestamps 1 000, 1 001, 1 002 and 1 003 at offsets 0 to 3, and the answer to a question.
fn lookup(query: OffsetQuery, offset: u64, timestamp_ms: Option<i64>) -> Story {
    let story = Story::plain().acked(0, 0).acked(1, 1).acked(2, 2).acked(3, 3);
    let answer = Some(OffsetAnswer { offset, timestamp_ms });
    let story = story.ok(ADMIN, Action::ListOffsets { log: LOG, query, answer });
    story.end(0, 4, &[(0, 0), (1, 1), (2, 2), (3, 3)])
}

#[test]
fn the_first_record_late_enough() {
    let at = |asked, offset, told| lookup(OffsetQuery::Timestamp(asked), offset, told);
    at(0, 0, Some(1_000)).expect(&[]);
    at(1_000, 0, Some(1_000)).expect(&[]);
    at(1_002, 2, Some(1_002)).expect(&[]);
    at(9_999, 4, None).expect(&[]);
    // Not the first, too early, the wrong timestamp, none though there is one.
    at(1_001, 2, Some(1_002)).expect(&[Class::WrongLookup]);
    at(1_002, 1, Some(1_001)).expect(&[Class::WrongLookup]);
    at(1_002, 2, Some(1_003)).expect(&[Class::WrongLookup]);
    at(1_003, 4, None).expect(&[Class::WrongLookup]);
}

#[test]
fn the_latest_record() {
    lookup(OffsetQuery::MaxTimestamp, 3, Some(1_003)).expect(&[]);
    lookup(OffsetQuery::MaxTimestamp, 2, Some(1_002)).expect(&[Class::WrongLookup]);
}

#[test]
fn records_that_may_not_have_been_there_do_not_count() {
    let look = |story: Story, asked, offset, told| {
        let answer = Some(OffsetAnswer { offset, timestamp_ms: told });
        story.ok(ADMIN, Action::ListOffsets { log: LOG, query: OffsetQuery::Timestamp(asked), answer })
    };
    // Acknowledged only after the question.
    let story = look(Story::plain().acked(0, 0), 1_001, 1, None).acked(1, 1);
    story.end(0, 2, &[(0, 0), (1, 1)]).expect(&[]);
    // Deleted before it, or perhaps superseded.
    let deleted = Story::plain().acked(0, 0).acked(1, 1).deleted_before(1);
    look(deleted, 0, 1, Some(1_001)).end(1, 2, &[(1, 1)]).expect(&[]);
    let compacted = || Story::compacted().acked(0, 0).acked(1, 1);
    look(compacted(), 0, 1, Some(1_001)).end(0, 2, &[(1, 1)]).expect(&[]);
    look(compacted(), 0, 2, None).end(0, 2, &[(1, 1)]).expect(&[Class::WrongLookup]);
}
