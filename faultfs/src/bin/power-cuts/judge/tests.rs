use super::*;
use corrente_history::{Content, Header, Place, ReadRecord, RecordId, Recording, SentRecord, Topic};

const LOG: LogId = LogId { topic: 3, partition: 0 };
/// Everything below is over by then.
const CUT: u64 = 1_000;

fn record(counter: u32) -> SentRecord {
    let id = RecordId { producer: 7, counter };
    SentRecord { log: LOG, id, key: 0, is_tombstone: false, bytes: 20, timestamp_ms: 5, acked: None }
}

fn read(counter: u32, offset: u64) -> ReadRecord {
    let content = Content::Record { id: record(counter).id, key: 0, is_tombstone: false };
    ReadRecord { offset, timestamp_ms: 5, content }
}

/// Topic 3 was created, and these records were sent one after the other: acknowledged at their offset by the moment,
/// or in doubt.
fn known(records: &[(u32, Option<u64>, u64)]) -> Recording {
    let header = Header { in_order: true, ..Header::default() };
    let mut recording = Recording::new(History::new(header));
    let facts =
        Topic { topic: 3, name: "t".into(), id: Some("id-3".into()), partitions: 1, ..Topic::default() };
    let begun = recording.begin(1, 1, false, Action::CreateTopic(facts));
    let _ = recording.complete(2, begun, Outcome::Ok, |_| {});
    for (counter, acked, over_ns) in records {
        let begun = recording.begin(10, 7, false, Action::Send(vec![record(*counter)]));
        if let Some(offset) = *acked {
            let _ = recording.complete(*over_ns, begun, Outcome::Ok, |action| {
                let Action::Send(records) = action else { unreachable!("a send was begun") };
                records[0].acked = Some(Place { partition: 0, offset });
            });
        }
    }
    recording
}

fn found(records: &[(u32, u64)], end: u64) -> Found {
    let next = records.last().map_or(0, |(_, offset)| offset + 1);
    let records = records.iter().map(|(counter, offset)| read(*counter, *offset)).collect();
    let polls = vec![
        Poll { records, high_watermark: Some(end), ..Poll::default() },
        Poll { position: Some(next), ..Poll::default() },
    ];
    let partition = FoundPartition { bounds: Some((0, end)), polls, refusal: None };
    let topic = FoundTopic { name: "t".into(), id: "id-3".into(), partitions: vec![partition] };
    Found { began_ns: 2_000, ended_ns: 3_000, topics: vec![topic] }
}

fn classes(known: Recording, found: &Found) -> Vec<String> {
    let (findings, _) = judge(&known.finish(), CUT, found);
    let mut classes: Vec<String> = findings.into_iter().map(|finding| finding.class).collect();
    classes.dedup();
    classes
}

fn two_acked() -> Recording {
    known(&[(0, Some(0), 20), (1, Some(1), 30)])
}

#[test]
fn what_was_kept_is_sound_and_counted() {
    let (findings, judged) = judge(&two_acked().finish(), CUT, &found(&[(0, 0), (1, 1)], 2));
    assert_eq!(findings, []);
    assert_eq!(judged, Judged { acked: 2, read: 0, found: 2, removed: 0 });
}

#[test]
fn an_acknowledged_record_that_is_gone_is_a_loss() {
    let (findings, _) = judge(&two_acked().finish(), CUT, &found(&[(0, 0)], 1));
    assert!(findings.iter().any(|finding| finding.class == "LostWrite" && finding.is_loss), "{findings:?}");
    let other = classes(two_acked(), &found(&[(0, 0), (0, 1)], 2));
    assert!(other.contains(&"InconsistentOffsets".to_owned()), "{other:?}");
}

#[test]
fn what_was_acknowledged_behind_the_cut_may_be_there_or_not() {
    let late = || known(&[(0, Some(0), 20), (1, Some(1), CUT + 1)]);
    assert_eq!(classes(late(), &found(&[(0, 0)], 1)), Vec::<String>::new());
    assert_eq!(classes(late(), &found(&[(0, 0), (1, 1)], 2)), Vec::<String>::new());
    let just_in_time = known(&[(0, Some(0), 20), (1, Some(1), CUT)]);
    assert!(classes(just_in_time, &found(&[(0, 0)], 1)).contains(&"LostWrite".to_owned()));
}

#[test]
fn what_was_sent_behind_the_cut_or_never_is_a_phantom() {
    assert_eq!(classes(two_acked(), &found(&[(0, 0), (1, 1), (2, 2)], 3)), ["Phantom"]);
    let mut later = two_acked();
    let _ = later.begin(CUT + 1, 7, false, Action::Send(vec![record(2)]));
    assert_eq!(classes(later, &found(&[(0, 0), (1, 1), (2, 2)], 3)), ["Phantom"]);
}

#[test]
fn what_a_reader_was_given_by_the_cut_must_stay() {
    let seen = |over_ns| {
        let mut seen = known(&[(0, Some(0), 20), (1, None, 0)]);
        let poll = Poll { log: LOG, position: Some(1), records: vec![read(1, 1)], ..Poll::default() };
        let _ = seen.note(Operation {
            process: 9,
            invoked_ns: 15,
            completed_ns: Some(over_ns),
            outcome: Outcome::Ok,
            is_final: false,
            action: Action::Poll(vec![poll]),
        });
        seen
    };
    assert!(classes(seen(CUT), &found(&[(0, 0)], 1)).contains(&"LostRead".to_owned()));
    assert_eq!(classes(seen(CUT + 1), &found(&[(0, 0)], 1)), Vec::<String>::new());
}

#[test]
fn offsets_follow_each_other_to_the_end_told() {
    assert!(!classes(two_acked(), &found(&[(0, 0), (1, 1)], 3)).is_empty());
    assert!(!classes(two_acked(), &found(&[(1, 1)], 2)).is_empty());
}

#[test]
fn a_partition_that_is_not_served_is_refused_and_nobody_knows_its_records() {
    let mut refused = found(&[], 0);
    refused.topics[0].partitions[0] =
        FoundPartition { refusal: Some("damaged".into()), ..FoundPartition::default() };
    assert_eq!(classes(two_acked(), &refused), ["Liveness", "Refused"]);
}

#[test]
fn topics_stay_made_and_stay_deleted() {
    let none = Found { topics: vec![], ..found(&[], 0) };
    assert_eq!(classes(two_acked(), &none), ["Liveness"]);
    assert_eq!(classes(known(&[]), &none), ["Liveness"]);
    let deleted = |over_ns| {
        let mut deleted = two_acked();
        let begun = deleted.begin(100, 1, false, Action::DeleteTopic { topic: 3 });
        let _ = deleted.complete(over_ns, begun, Outcome::Ok, |_| {});
        deleted
    };
    assert_eq!(classes(deleted(CUT), &none), Vec::<String>::new());
    assert_eq!(classes(deleted(CUT), &found(&[(0, 0), (1, 1)], 2)), ["WrongError"]);
    assert_eq!(classes(deleted(CUT + 1), &none), Vec::<String>::new());
    assert_eq!(classes(deleted(CUT + 1), &found(&[(0, 0), (1, 1)], 2)), Vec::<String>::new());
}

#[test]
fn a_topic_asked_for_may_be_there_under_an_id_not_told_and_no_other() {
    let mut with_another = found(&[(0, 0), (1, 1)], 2);
    with_another.topics.push(FoundTopic { name: "u".into(), id: "id-4".into(), partitions: vec![] });
    assert_eq!(classes(two_acked(), &with_another), ["StrangeTopic"]);
    let mut asked = two_acked();
    let facts = Topic { topic: 4, name: "u".into(), partitions: 1, ..Topic::default() };
    let _ = asked.begin(40, 1, false, Action::CreateTopic(facts));
    assert_eq!(classes(asked, &with_another), Vec::<String>::new());
}

#[test]
fn a_run_goes_on_from_what_was_known_at_the_cut() {
    let before = as_of(&known(&[(0, Some(0), 20), (1, Some(1), CUT + 1)]).finish(), CUT);
    let mut after = Recording::new(History::default());
    let begun = after.begin(1_500, 8, false, Action::Send(vec![record(2)]));
    let _ = after.complete(1_600, begun, Outcome::Ok, |action| {
        let Action::Send(records) = action else { unreachable!("a send was begun") };
        records[0].acked = Some(Place { partition: 0, offset: 1 });
    });
    let whole = go_on(before, CUT, after.finish());
    // The record in doubt at the first cut was lost by it, and another has its offset now.
    let (findings, judged) = judge(&whole, 1_700, &found(&[(0, 0), (2, 1)], 2));
    assert_eq!(findings, []);
    assert_eq!(judged.acked, 2);
    let (findings, _) = judge(&whole, 1_700, &found(&[(0, 0)], 1));
    assert!(findings.iter().any(|finding| finding.is_loss));
}

#[test]
fn of_many_findings_the_first_are_told_and_the_rest_counted() {
    let many: Vec<(u32, Option<u64>, u64)> =
        (0..20).map(|counter| (counter, Some(u64::from(counter)), 20)).collect();
    let (findings, _) = judge(&known(&many).finish(), CUT, &found(&[], 0));
    let losses: Vec<_> = findings.iter().filter(|finding| finding.class == "LostWrite").collect();
    assert_eq!(losses.len(), TOLD_MAX + 1);
    assert_eq!(losses[TOLD_MAX].detail, "and 15 more");
}
