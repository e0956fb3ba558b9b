//! What is excused, and what is not though the same partition, or another one, was hit.

use super::*;
use crate::content::Content;
use corrente_protocol::ids::Offset;

const P0: PartitionIndex = PartitionIndex(0);
const P1: PartitionIndex = PartitionIndex(1);

fn id(partition: PartitionIndex, counter: u32) -> RecordId {
    RecordId { producer: partition.0, counter }
}

/// Two records in each of two partitions, acknowledged, and the final reading of what is left of them.
fn history(left: [u32; 2], told: &[&str]) -> History {
    let mut events = Vec::new();
    for partition in [P0, P1] {
        for counter in 0..2 {
            let id = id(partition, counter);
            events.push(Event::Sent { id, key: partition.0, partition });
            events.push(Event::Acked { id, partition, offset: Offset(counter.into()) });
        }
    }
    events.push(Event::Down);
    for (partition, left) in [P0, P1].into_iter().zip(left) {
        let (question, end) = (partition.0, Offset(left.into()));
        events.push(Event::Asked { question, partition });
        events.push(Event::Answered { question, partition, start: Offset::ZERO, end });
        events.extend((0..left).map(|counter| read(partition, counter, counter)));
    }
    let failed = |error: &&str| Event::ReaderFailed { reader: ReaderId::Final, error: (*error).to_owned() };
    events.extend(told.iter().map(failed));
    History { events, partitions: 2 }
}

fn read(partition: PartitionIndex, offset: u32, counter: u32) -> Event {
    let content = Content::Record { id: id(partition, counter), key: partition.0 };
    Event::Read { reader: ReaderId::Final, partition, offset: Offset(offset.into()), content }
}

fn damage(harm: Harm, path: &str, at: u64) -> Damage {
    Damage { harm, path: path.into(), range: 0..4096, at: Duration::from_secs(at) }
}

fn log(partition: u32) -> String {
    format!("/data-1/topics/6b1f0c6e-0000-4000-8000-000000000001/{partition}/00000000000000000000.seg")
}

fn injected(damages: Vec<Damage>) -> Injected {
    let seconds = |seconds: &[u64]| seconds.iter().copied().map(Duration::from_secs).collect();
    Injected {
        damages,
        starts: vec![
            Duration::ZERO..Duration::from_secs(1),
            Duration::from_secs(100)..Duration::from_secs(101),
        ],
        served: seconds(&[1, 101]),
        sudden_ends: seconds(&[90]),
        window: Duration::from_secs(5),
        ..Injected::default()
    }
}

fn classes(history: &History, injected: &Injected) -> Vec<Class> {
    let mut classes: Vec<Class> =
        judge(history, None, injected).violations.into_iter().map(|violation| violation.class).collect();
    classes.sort();
    classes.dedup();
    classes
}

const REFUSED: &str = "fetch ledger/0 failed: offsets 1 to 2 are damaged: the hash differs";
const LOST: [Class; 2] = [Class::LostAck, Class::EndWentBack];

#[test]
fn without_a_fault_nothing_is_excused() {
    assert_eq!(classes(&history([2, 2], &[]), &injected(vec![])), []);
    assert_eq!(classes(&history([1, 2], &[]), &injected(vec![])), LOST);
    assert_eq!(classes(&history([2, 2], &[REFUSED]), &injected(vec![])), [Class::ReaderFailed]);
}

#[test]
fn damage_that_was_told_of_excuses_its_own_partition_alone() {
    let hit = injected(vec![damage(Harm::Rotten, &log(0), 90)]);
    assert_eq!(classes(&history([1, 2], &[REFUSED]), &hit), []);
    assert_eq!(classes(&history([1, 1], &[REFUSED]), &hit), LOST);
    assert_eq!(classes(&history([1, 2], &[]), &hit), LOST, "nobody was told");
    let other = "fetch ledger/1 failed: offsets 1 to 2 are damaged: the hash differs";
    assert_eq!(classes(&history([2, 2], &[other]), &hit), [Class::ReaderFailed], "partition 1 is sound");
}

#[test]
fn nothing_excuses_wrong_bytes_and_holes() {
    for told in [&[REFUSED][..], &[]] {
        let harm = if told.is_empty() { Harm::NeverWritten } else { Harm::Rotten };
        let hit = injected(vec![damage(harm, &log(0), 89)]);
        let mut corrupt = history([1, 2], told);
        let content = Content::Corrupt("other filler than was sent".into());
        let offset = Offset(1);
        corrupt.events.push(Event::Read { reader: ReaderId::Final, partition: P0, offset, content });
        assert_eq!(classes(&corrupt, &hit), [Class::Phantom]);
        let mut hole = history([1, 2], told);
        hole.events.push(read(P0, 5, 1));
        assert_eq!(classes(&hole, &hit), [Class::NotContiguous]);
    }
}

#[test]
fn what_was_never_written_shortly_before_a_sudden_end_may_be_lost_without_a_word() {
    for (at, expected) in [(86, &[][..]), (80, &LOST), (95, &LOST)] {
        let hit = injected(vec![damage(Harm::NeverWritten, &log(0), at)]);
        assert_eq!(classes(&history([1, 2], &[]), &hit), expected, "lost at {at} s, the end was at 90 s");
    }
    // What had been at rest for so long is known to the checkpoint.
    assert_eq!(classes(&history([1, 2], &[]), &injected(vec![damage(Harm::Rotten, &log(0), 90)])), LOST);
}

#[test]
fn without_the_checkpoint_of_the_same_life_the_window_reaches_back() {
    let checkpoint = "/data-0/checkpoint/0000000001-shard-0000.a";
    let both = |at| vec![damage(Harm::Rotten, checkpoint, at), damage(Harm::Rotten, &log(0), 90)];
    assert_eq!(classes(&history([1, 2], &[]), &injected(both(90))), []);
    assert_eq!(classes(&history([1, 2], &[]), &injected(both(102))), LOST, "it was written anew since");
    assert_eq!(classes(&history([2, 1], &[]), &injected(both(90))), LOST, "partition 1 is sound");
}

#[test]
fn a_misread_is_in_the_window_while_a_start_looks_for_the_end() {
    for (at, expected) in [(100, &[][..]), (50, &LOST)] {
        let hit = injected(vec![damage(Harm::Misread, &log(0), at)]);
        assert_eq!(classes(&history([1, 2], &[]), &hit), expected);
    }
}

#[test]
fn a_broker_that_refuses_to_start_is_excused_by_damage_alone() {
    let stuck = |damages| {
        let refused =
            Injected { refused_start: Some("the metadata log is damaged".into()), ..injected(damages) };
        judge(&history([0, 0], &[]), Some("the rest of the run".into()), &refused).violations.len()
    };
    assert_eq!(stuck(vec![damage(Harm::Rotten, "/data-0/identity", 90)]), 0);
    assert!(stuck(vec![]) > 0);
}

#[test]
fn a_failing_disk_excuses_refusals_that_say_so() {
    let fenced = "produce ledger/0 failed: the log is fenced: x.seg: Input/output error (os error 5)";
    let failing = Injected { failures: true, ..injected(vec![]) };
    assert_eq!(classes(&history([2, 2], &[fenced]), &failing), []);
    assert_eq!(classes(&history([2, 2], &[fenced]), &injected(vec![])), [Class::ReaderFailed]);
    assert_eq!(classes(&history([2, 2], &["the broker broke a rule"]), &failing), [Class::ReaderFailed]);
    assert_eq!(classes(&history([1, 2], &[fenced]), &failing), LOST);
}

#[test]
fn the_metadata_log_is_no_partition_of_the_topic() {
    let metadata = format!("/data-0/topics/{}/0/00000000000000000000.seg", TopicId::METADATA);
    assert!(is_metadata(Path::new(&metadata)));
    assert_eq!(partition_of_log(Path::new(&metadata)), None);
    assert_eq!(partition_of_log(Path::new(&log(1))), Some(P1));
    assert_eq!(partition_of_log(Path::new("/data-0/identity")), None);
}
