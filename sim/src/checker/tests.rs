//! A sound history passes; each planted fault is caught, and named for what it is.

use super::*;

const P0: PartitionIndex = PartitionIndex(0);
const P1: PartitionIndex = PartitionIndex(1);
const EARLY: ReaderId = ReaderId::During(0);

fn id(counter: u32) -> RecordId {
    RecordId { producer: 1, counter }
}

fn sent(counter: u32) -> Event {
    Event::Sent { id: id(counter), key: 5, partition: P0 }
}

fn acked(counter: u32, offset: u64) -> Event {
    Event::Acked { id: id(counter), partition: P0, offset: Offset(offset) }
}

fn failed(counter: u32, maybe_applied: bool) -> Event {
    Event::Failed { id: id(counter), maybe_applied, error: "time ran out".into() }
}

fn read(reader: ReaderId, offset: u64, counter: u32) -> Event {
    let content = Content::Record { id: id(counter), key: 5 };
    Event::Read { reader, partition: P0, offset: Offset(offset), content }
}

fn asked(question: u32) -> Event {
    Event::Asked { question, partition: P0 }
}

fn answered(question: u32, end: u64) -> Event {
    Event::Answered { question, partition: P0, start: Offset::ZERO, end: Offset(end) }
}

/// Three records, the second sent again after a crash and so there twice.
fn sound() -> Vec<Event> {
    vec![
        sent(0),
        sent(1),
        acked(0, 0),
        read(EARLY, 0, 0),
        Event::HighWatermark { partition: P0, end: Offset(1) },
        asked(0),
        Event::Down,
        answered(0, 2),
        acked(1, 2),
        read(EARLY, 1, 1),
        sent(2),
        acked(2, 3),
        Event::Down,
        asked(1),
        answered(1, 4),
        read(ReaderId::Final, 0, 0),
        read(ReaderId::Final, 1, 1),
        read(ReaderId::Final, 2, 1),
        read(ReaderId::Final, 3, 2),
    ]
}

fn classes(events: Vec<Event>) -> Vec<Class> {
    let (violations, _) = check(&History { events, partitions: 2 });
    let mut classes: Vec<Class> = violations.into_iter().map(|violation| violation.class).collect();
    classes.sort();
    classes.dedup();
    classes
}

/// The classes that show when the event at `at` of the sound history is replaced.
fn with(at: usize, events: impl IntoIterator<Item = Event>) -> Vec<Class> {
    let mut planted = sound();
    planted.splice(at..=at, events);
    classes(planted)
}

#[test]
fn a_sound_history_passes() {
    let (violations, judged) = check(&History { events: sound(), partitions: 2 });
    assert_eq!(violations, []);
    assert_eq!(judged, Judged { sent: 3, acked: 3, read_during: 2, final_records: 4, duplicates: 1 });
    assert_eq!(classes(vec![]), []);
}

#[test]
fn an_acknowledged_record_that_is_gone_at_the_tail() {
    let mut planted = sound();
    planted.truncate(18);
    planted[14] = answered(1, 3);
    assert_eq!(classes(planted), [Class::LostAck, Class::EndWentBack]);
}

#[test]
fn an_acknowledged_record_that_is_gone_in_the_middle() {
    // Acknowledged at 2, where another record stands now.
    let events = [read(ReaderId::Final, 2, 0)];
    assert_eq!(with(17, events), [Class::LostAck, Class::Divergence]);
}

#[test]
fn all_records_gone() {
    let mut planted = sound();
    planted.truncate(14);
    planted.push(answered(1, 0));
    assert_eq!(classes(planted), [Class::LostAck, Class::LostRead, Class::EndWentBack]);
}

#[test]
fn a_record_read_before_it_was_flushed() {
    // Nobody was told that record 1 is safe, but somebody read it.
    let events = vec![sent(1), read(EARLY, 0, 1), Event::Down, failed(1, true), asked(0), answered(0, 0)];
    assert_eq!(classes(events), [Class::LostRead, Class::EndWentBack, Class::Refused]);
}

#[test]
fn an_offset_that_shows_two_records() {
    assert_eq!(with(9, [read(EARLY, 1, 0)]), [Class::LostRead, Class::Divergence]);
    // The acknowledgement names an offset at which a reader saw another record.
    assert_eq!(with(8, [acked(1, 0)]), [Class::LostAck, Class::Divergence, Class::Reordered]);
}

#[test]
fn what_nobody_sent() {
    assert_eq!(with(3, [read(EARLY, 0, 77)]), [Class::Phantom]);
    let content = Content::Corrupt("other filler".into());
    let damaged = Event::Read { reader: EARLY, partition: P0, offset: Offset(0), content };
    assert_eq!(with(3, [damaged]), [Class::Phantom]);
    let content = Content::Record { id: id(0), key: 6 };
    let other_key = Event::Read { reader: EARLY, partition: P0, offset: Offset(0), content };
    assert_eq!(with(3, [other_key]), [Class::Phantom]);
}

#[test]
fn a_record_read_before_it_was_sent() {
    let mut planted = sound();
    planted.swap(0, 3);
    planted.swap(2, 3);
    assert_eq!(classes(planted), [Class::Phantom]);
}

#[test]
fn a_refused_record_that_is_there() {
    assert_eq!(with(11, [failed(2, false)]), [Class::Phantom, Class::Refused]);
    assert_eq!(with(11, [failed(2, true)]), [Class::Refused]);
}

#[test]
fn a_record_in_another_partition() {
    let content = Content::Record { id: id(0), key: 5 };
    let elsewhere = Event::Read { reader: EARLY, partition: P1, offset: Offset(0), content };
    let found = with(3, [elsewhere]);
    assert!(found.contains(&Class::Misplaced), "{found:?}");
    let elsewhere = Event::Acked { id: id(2), partition: P1, offset: Offset(0) };
    assert!(with(11, [elsewhere]).contains(&Class::Misplaced));
}

#[test]
fn an_end_that_goes_back() {
    // Asked after the first acknowledgement, answered as if it had not been.
    assert_eq!(with(7, [answered(0, 0)]), [Class::EndWentBack]);
    // What a fetch said is as binding.
    let news = Event::HighWatermark { partition: P0, end: Offset(3) };
    assert_eq!(with(4, [news]), [Class::EndWentBack]);
    // Answers may be older than what happened since the question.
    assert_eq!(with(7, [sent(9), acked(9, 4), answered(0, 1)]), [Class::LostAck, Class::EndWentBack]);
}

#[test]
fn a_late_answer_to_an_early_question_is_not_the_last_word() {
    // Answered before two of the records were there; on its way until after the last question's answer.
    let mut late = sound();
    let answer = late.remove(7);
    late.insert(14, answer);
    assert_eq!(classes(late), []);
}

#[test]
fn a_start_that_moved() {
    let moved = Event::Answered { question: 1, partition: P0, start: Offset(1), end: Offset(4) };
    assert_eq!(with(14, [moved]), [Class::StartMoved]);
}

#[test]
fn offsets_with_a_hole_or_again() {
    assert_eq!(with(9, [read(EARLY, 2, 1)]), [Class::NotContiguous]);
    assert_eq!(with(9, [read(EARLY, 0, 0)]), [Class::NotContiguous]);
    // The final reader left a record out, began too late, did not reach the end.
    assert!(with(16, []).contains(&Class::NotContiguous));
    assert!(with(15, []).contains(&Class::NotContiguous));
    assert!(with(18, []).contains(&Class::NotContiguous));
}

#[test]
fn records_in_another_order() {
    let events = vec![
        sent(0),
        sent(1),
        acked(0, 1),
        acked(1, 0),
        asked(0),
        answered(0, 2),
        read(ReaderId::Final, 0, 1),
        read(ReaderId::Final, 1, 0),
    ];
    assert_eq!(classes(events), [Class::Reordered]);
    // Acknowledged in order, but a copy of the later one stands before the earlier one.
    let events = vec![
        sent(0),
        sent(1),
        acked(0, 1),
        acked(1, 2),
        asked(0),
        answered(0, 3),
        read(ReaderId::Final, 0, 1),
        read(ReaderId::Final, 1, 0),
        read(ReaderId::Final, 2, 1),
    ];
    assert_eq!(classes(events), [Class::Reordered]);
}

#[test]
fn records_and_readers_that_were_given_up() {
    assert_eq!(with(11, []), [Class::Unresolved]);
    let failure = Event::ReaderFailed { reader: EARLY, error: "offset 9 lies outside of 0 to 4".into() };
    assert_eq!(with(12, [failure]), [Class::ReaderFailed]);
}
