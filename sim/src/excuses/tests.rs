//! What is excused, and what is not though the same partition, or another one, was hit.

use corrente_history::{
    Action, Content, Header, LogId, OffsetAnswer, OffsetQuery, Operation, Outcome, Place, Poll, ReadRecord,
    RecordId, Refusal, RefusalKind, SentRecord, Topic, check,
};

use super::*;

const READER: u32 = 9;

fn log(partition: u32) -> LogId {
    LogId { topic: 0, partition }
}

/// Operations that follow each other, each of them over before the next begins.
struct Story(History);

impl Story {
    /// Two records in each of two partitions, acknowledged, and the final reading of what is left of them.
    fn of(left: [u64; 2]) -> Story {
        let mut story = Story(History::new(Header { patient: true, ..Header::default() }));
        let topic = Topic { name: TOPIC.into(), partitions: 2, ..Topic::default() };
        story.add(false, Action::CreateTopic(topic));
        for (partition, counter) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let acked = Some(Place { partition, offset: counter.into() });
            let id = RecordId { producer: partition, counter };
            let record = SentRecord {
                log: log(partition),
                id,
                key: partition,
                is_tombstone: false,
                bytes: 20,
                timestamp_ms: 0,
                acked,
            };
            story.add(false, Action::Send(vec![record]));
        }
        for (partition, end) in (0..).zip(left) {
            for (query, offset) in [(OffsetQuery::Earliest, 0), (OffsetQuery::Latest, end)] {
                let answer = Some(OffsetAnswer { offset, timestamp_ms: None });
                story.add(true, Action::ListOffsets { log: log(partition), query, answer });
            }
            for offset in 0..end {
                story.read(partition, offset..offset, offset);
            }
        }
        story
    }

    fn add(&mut self, is_final: bool, action: Action) -> &mut Operation {
        let at = self.0.operations.len() as u64 * 10;
        self.0.operations.push(Operation {
            process: READER,
            invoked_ns: at,
            completed_ns: Some(at + 1),
            outcome: Outcome::Ok,
            is_final,
            action,
        });
        self.0.operations.last_mut().expect("just added")
    }

    /// Reads on from the start of the range, and is given what stands at its end.
    fn read(&mut self, partition: u32, offsets: Range<u64>, counter: u64) {
        let id = RecordId { producer: partition, counter: u32::try_from(counter).expect("a small story") };
        self.show(partition, offsets, Content::Record { id, key: partition, is_tombstone: false });
    }

    fn show(&mut self, partition: u32, offsets: Range<u64>, content: Content) {
        let records = vec![ReadRecord { offset: offsets.end, timestamp_ms: 0, content }];
        let poll = Poll { log: log(partition), position: Some(offsets.start), high_watermark: None, records };
        self.add(true, Action::Poll(vec![poll]));
    }

    /// A reader is turned away for good, in these words.
    fn told(mut self, error: &str) -> Story {
        let refusal = Refusal::new(RefusalKind::Other, error);
        self.add(true, Action::Poll(vec![])).outcome = Outcome::Fail(refusal);
        self
    }

    /// The classes that are left in the end.
    fn classes(mut self, injected: &Injected) -> Vec<Class> {
        self.add(true, Action::Rest);
        let found = check(&self.0).violations;
        let left = excuse(found, &self.0, injected).violations;
        let mut classes: Vec<Class> = left.into_iter().map(|violation| violation.class).collect();
        classes.dedup();
        classes
    }
}

fn damage(harm: Harm, path: &str, at: u64) -> Damage {
    Damage { harm, path: path.into(), range: 0..4096, at: Duration::from_secs(at) }
}

fn segment(partition: u32) -> String {
    format!("/data-1/topics/6b1f0c6e-0000-4000-8000-000000000001/{partition}/00000000000000000000.seg")
}

fn injected(damages: Vec<Damage>) -> Injected {
    let [began, served, end] = [100, 101, 90].map(Duration::from_secs);
    Injected {
        damages,
        starts: vec![Duration::ZERO..Duration::from_secs(1), began..served],
        served: vec![Duration::from_secs(1), served],
        sudden_ends: vec![end],
        window: Duration::from_secs(5),
        ..Injected::default()
    }
}

const REFUSED: &str = "fetch ledger/0 failed: offsets 1 to 2 are damaged: the hash differs";
const LOST: &[Class] = &[Class::LostWrite, Class::StaleListOffsets];
const TURNED_AWAY: &[Class] = &[Class::Liveness];

#[test]
fn without_a_fault_nothing_is_excused() {
    assert_eq!(Story::of([2, 2]).classes(&injected(vec![])), []);
    assert_eq!(Story::of([1, 2]).classes(&injected(vec![])), LOST);
    assert_eq!(Story::of([2, 2]).told(REFUSED).classes(&injected(vec![])), TURNED_AWAY);
}

#[test]
fn damage_that_was_told_of_excuses_its_own_partition_alone() {
    let hit = injected(vec![damage(Harm::Rotten, &segment(0), 90)]);
    assert_eq!(Story::of([1, 2]).told(REFUSED).classes(&hit), []);
    assert_eq!(Story::of([1, 1]).told(REFUSED).classes(&hit), LOST);
    assert_eq!(Story::of([1, 2]).classes(&hit), LOST, "nobody was told");
    let other = "fetch ledger/1 failed: offsets 1 to 2 are damaged: the hash differs";
    assert_eq!(Story::of([2, 2]).told(other).classes(&hit), TURNED_AWAY, "partition 1 is sound");
    let beyond = "fetch ledger/0 failed: offset 2 is not in 0 to 1";
    let both = Story::of([1, 2]).told(REFUSED).told(beyond);
    assert_eq!(both.classes(&hit), TURNED_AWAY, "an end that went back has not been told of");
}

#[test]
fn nothing_excuses_wrong_bytes_and_holes() {
    let told = injected(vec![damage(Harm::Rotten, &segment(0), 90)]);
    let silent = injected(vec![damage(Harm::NeverWritten, &segment(0), 89)]);
    for hit in [&told, &silent] {
        let mut corrupt = Story::of([1, 2]).told(REFUSED);
        corrupt.show(0, 1..1, Content::Corrupt("other filler than was sent".into()));
        assert_eq!(corrupt.classes(hit), [Class::Phantom]);
        let mut hole = Story::of([1, 2]).told(REFUSED);
        hole.read(0, 1..5, 1);
        assert_eq!(hole.classes(hit), [Class::PollSkip]);
    }
    let mut given_again = Story::of([1, 2]).told(REFUSED);
    given_again.read(0, 1..1, 0);
    assert_eq!(given_again.classes(&told), [Class::InconsistentOffsets]);
    let mut given_again = Story::of([1, 2]).told(REFUSED);
    given_again.read(0, 1..1, 0);
    assert_eq!(given_again.classes(&silent), []);
}

#[test]
fn what_was_never_written_shortly_before_a_sudden_end_may_be_lost_without_a_word() {
    for (at, expected) in [(86, &[][..]), (80, LOST), (95, LOST)] {
        let hit = injected(vec![damage(Harm::NeverWritten, &segment(0), at)]);
        assert_eq!(Story::of([1, 2]).classes(&hit), expected, "lost at {at} s, the end was at 90 s");
    }
    // What had been at rest for so long is known to the checkpoint.
    let hit = injected(vec![damage(Harm::Rotten, &segment(0), 90)]);
    assert_eq!(Story::of([1, 2]).classes(&hit), LOST);
}

#[test]
fn without_the_checkpoint_of_the_same_life_the_window_reaches_back() {
    let checkpoint = "/data-0/checkpoint/0000000001-shard-0000.a";
    let both =
        |at| injected(vec![damage(Harm::Rotten, checkpoint, at), damage(Harm::Rotten, &segment(0), 90)]);
    assert_eq!(Story::of([1, 2]).classes(&both(90)), []);
    assert_eq!(Story::of([1, 2]).classes(&both(102)), LOST, "it was written anew since");
    assert_eq!(Story::of([2, 1]).classes(&both(90)), LOST, "partition 1 is sound");
}

#[test]
fn a_misread_is_in_the_window_while_a_start_looks_for_the_end() {
    for (at, expected) in [(100, &[][..]), (50, LOST)] {
        let hit = injected(vec![damage(Harm::Misread, &segment(0), at)]);
        assert_eq!(Story::of([1, 2]).classes(&hit), expected);
    }
}

#[test]
fn a_broker_that_refuses_to_start_is_excused_by_damage_alone() {
    let left = |damages| {
        let refused_start = Some("the metadata log is damaged".to_owned());
        Story::of([0, 0]).classes(&Injected { refused_start, ..injected(damages) })
    };
    assert_eq!(left(vec![damage(Harm::Rotten, "/data-0/identity", 90)]), []);
    assert_ne!(left(vec![]), []);
}

#[test]
fn a_failing_disk_excuses_refusals_that_say_so() {
    let fenced = "produce ledger/0 failed: the log is fenced: x.seg: Input/output error (os error 5)";
    let failing = Injected { failures: true, ..injected(vec![]) };
    assert_eq!(Story::of([2, 2]).told(fenced).classes(&failing), []);
    assert_eq!(Story::of([2, 2]).told(fenced).classes(&injected(vec![])), TURNED_AWAY);
    assert_eq!(Story::of([2, 2]).told("the broker broke a rule").classes(&failing), TURNED_AWAY);
    assert_eq!(Story::of([1, 2]).told(fenced).classes(&failing), LOST);
}

#[test]
fn the_metadata_log_is_no_partition_of_the_topic() {
    let metadata = format!("/data-0/topics/{}/0/00000000000000000000.seg", TopicId::METADATA);
    assert!(is_metadata(Path::new(&metadata)));
    assert_eq!(partition_of_log(Path::new(&metadata)), None);
    assert_eq!(partition_of_log(Path::new(&segment(1))), Some(1));
    assert_eq!(partition_of_log(Path::new("/data-0/identity")), None);
}
