//! Judges a history: which promises of a log broker it breaks.
//!
//! Knows nothing of how the run came about. Each rule stands for a class of anomaly and has a planted history
//! among the tests that it must catch. A bad history usually breaks several rules; the verdict is the whole list.

use std::collections::BTreeMap;
use std::fmt;

use corrente_protocol::ids::{Offset, PartitionIndex};

use crate::content::{Content, RecordId};
use crate::history::{Event, History, ReaderId};

#[cfg(test)]
mod tests;

/// A kind of broken promise.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Class {
    /// An acknowledged record is not where it was acknowledged to be.
    LostAck,
    /// A record that somebody read is gone: it was shown before it was flushed.
    LostRead,
    /// One offset showed two records.
    Divergence,
    /// Something was read that nobody sent, or damaged, or that was refused for sure.
    Phantom,
    /// A record stands in a partition that its key does not lead to.
    Misplaced,
    /// The end of a partition went back, or was told too low.
    EndWentBack,
    /// The first record kept moved though nothing is ever removed.
    StartMoved,
    /// A reader was given offsets with a hole, or again, or the final reader did not reach the end.
    NotContiguous,
    /// Records of one producer and partition stand in another order than they were sent.
    Reordered,
    /// A record was given up though everything was healed in time.
    Refused,
    /// A reader was refused.
    ReaderFailed,
    /// A record was neither acknowledged nor given up, or the run did not come to rest.
    Unresolved,
}

/// One broken promise.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// Its kind.
    pub class: Class,
    /// What exactly, for people.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.class, self.detail)
    }
}

/// Counts of what was judged.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Judged {
    /// Records sent.
    pub sent: u64,
    /// Records acknowledged.
    pub acked: u64,
    /// Records that readers saw while the run went on.
    pub read_during: u64,
    /// Records in all partitions at the end.
    pub final_records: u64,
    /// Records at the end that stand at more than one offset: sent again after a lost acknowledgement.
    pub duplicates: u64,
}

/// Judges a whole history, whose end must be the final reading.
pub fn check(history: &History) -> (Vec<Violation>, Judged) {
    let mut checker = Checker::default();
    for event in &history.events {
        checker.take(event);
    }
    checker.conclude(history.partitions);
    (checker.violations, checker.judged)
}

struct Sent {
    key: u32,
    partition: PartitionIndex,
    outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq)]
enum Outcome {
    Unknown,
    Acked(Offset),
    Failed { maybe_applied: bool },
}

/// Who said first what stands at an offset.
#[derive(Clone, Copy)]
struct Seen {
    id: RecordId,
    by: Witness,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Witness {
    Ack,
    Reader(ReaderId),
}

type Place = (PartitionIndex, Offset);

#[derive(Default)]
struct Checker {
    sent: BTreeMap<RecordId, Sent>,
    /// What stands at each offset, as first told.
    places: BTreeMap<Place, Seen>,
    /// What the final reader found.
    final_records: BTreeMap<Place, RecordId>,
    /// The least end a partition can have, by what clients know.
    least_end: BTreeMap<PartitionIndex, Offset>,
    /// That end when each open question was asked.
    questions: BTreeMap<u32, Offset>,
    /// The end told in answer to the last question, and that question. Answers may overtake each other.
    told: BTreeMap<PartitionIndex, (u32, Offset)>,
    /// The offset each reader must be given next.
    next: BTreeMap<(ReaderId, PartitionIndex), Offset>,
    violations: Vec<Violation>,
    judged: Judged,
}

impl Checker {
    fn take(&mut self, event: &Event) {
        match event {
            Event::Sent { id, key, partition } => {
                let sent = Sent { key: *key, partition: *partition, outcome: Outcome::Unknown };
                let before = self.sent.insert(*id, sent);
                assert!(before.is_none(), "record {id} was sent twice by the workload");
                self.judged.sent += 1;
            }
            Event::Acked { id, partition, offset } => self.acked(*id, *partition, *offset),
            Event::Failed { id, maybe_applied, error } => {
                self.resolve(*id, Outcome::Failed { maybe_applied: *maybe_applied });
                self.report(Class::Refused, format!("record {id}: {error}"));
            }
            Event::Read { reader, partition, offset, content } => {
                self.read(*reader, *partition, *offset, content)
            }
            Event::ReaderFailed { reader, error } => {
                self.report(Class::ReaderFailed, format!("{reader:?}: {error}"));
            }
            Event::HighWatermark { partition, end } => self.raise(*partition, *end),
            Event::Asked { question, partition } => {
                let least = self.least_end(*partition);
                self.questions.insert(*question, least);
            }
            Event::Answered { question, partition, start, end } => {
                self.told_end(*question, *partition, *start, *end)
            }
            Event::Down => {}
        }
    }

    fn acked(&mut self, id: RecordId, partition: PartitionIndex, offset: Offset) {
        self.resolve(id, Outcome::Acked(offset));
        self.judged.acked += 1;
        self.raise(partition, offset.saturating_add(1));
        self.expect_partition(id, partition);
        self.note(partition, offset, id, Witness::Ack);
    }

    fn resolve(&mut self, id: RecordId, outcome: Outcome) {
        let sent = self.sent.get_mut(&id).expect("the workload records what it sends");
        assert!(sent.outcome == Outcome::Unknown, "record {id} was resolved twice by the workload");
        sent.outcome = outcome;
    }

    fn read(&mut self, reader: ReaderId, partition: PartitionIndex, offset: Offset, content: &Content) {
        self.follow(reader, partition, offset);
        self.raise(partition, offset.saturating_add(1));
        if reader != ReaderId::Final {
            self.judged.read_during += 1;
        }
        let (id, key) = match content {
            Content::Record { id, key } => (*id, *key),
            Content::Corrupt(what) => {
                return self.report(Class::Phantom, format!("{reader:?} at {partition}/{offset}: {what}"));
            }
        };
        match self.sent.get(&id) {
            None => {
                return self.report(
                    Class::Phantom,
                    format!("{reader:?} at {partition}/{offset}: {id} was not sent"),
                );
            }
            Some(sent) if sent.key != key => {
                let detail =
                    format!("{reader:?} at {partition}/{offset}: {id} of key {}, found key {key}", sent.key);
                self.report(Class::Phantom, detail);
            }
            Some(_) => {}
        }
        self.expect_partition(id, partition);
        self.note(partition, offset, id, Witness::Reader(reader));
        if reader == ReaderId::Final {
            self.final_records.insert((partition, offset), id);
        }
    }

    /// A reader's offsets go up one by one.
    fn follow(&mut self, reader: ReaderId, partition: PartitionIndex, offset: Offset) {
        let next = self.next.insert((reader, partition), offset.saturating_add(1));
        let expected = match (next, reader) {
            (Some(next), _) => next,
            (None, ReaderId::Final) => Offset::ZERO,
            (None, ReaderId::During(_)) => return,
        };
        if expected != offset {
            let detail = format!("{reader:?} was given {partition}/{offset} where {expected} comes next");
            self.report(Class::NotContiguous, detail);
        }
    }

    fn expect_partition(&mut self, id: RecordId, partition: PartitionIndex) {
        if let Some(sent) = self.sent.get(&id).filter(|sent| sent.partition != partition) {
            let detail =
                format!("record {id} is in partition {partition}, its key leads to {}", sent.partition);
            self.report(Class::Misplaced, detail);
        }
    }

    fn note(&mut self, partition: PartitionIndex, offset: Offset, id: RecordId, by: Witness) {
        let first = *self.places.entry((partition, offset)).or_insert(Seen { id, by });
        if first.id != id {
            let detail = format!("{partition}/{offset} is {} by {:?} and {id} by {by:?}", first.id, first.by);
            self.report(Class::Divergence, detail);
        }
    }

    fn raise(&mut self, partition: PartitionIndex, end: Offset) {
        let least = self.least_end.entry(partition).or_default();
        *least = end.max(*least);
    }

    fn least_end(&self, partition: PartitionIndex) -> Offset {
        self.least_end.get(&partition).copied().unwrap_or_default()
    }

    fn told_end(&mut self, question: u32, partition: PartitionIndex, start: Offset, end: Offset) {
        let least = self.questions.remove(&question).expect("an answer follows its question");
        if end < least {
            let detail = format!("partition {partition} ends at {end}, {least} was known when it was asked");
            self.report(Class::EndWentBack, detail);
        }
        if start != Offset::ZERO {
            self.report(
                Class::StartMoved,
                format!("partition {partition} begins at {start}, nothing was removed"),
            );
        }
        self.raise(partition, end);
        let told = self.told.entry(partition).or_insert((question, end));
        *told = (question, end).max(*told);
    }

    /// The rules that need everything: what is there in the end.
    fn conclude(&mut self, partitions: u32) {
        for partition in (0..partitions).map(PartitionIndex) {
            self.conclude_partition(partition);
        }
        self.conclude_records();
        self.conclude_order();
        self.judged.final_records = self.final_records.len() as u64;
    }

    fn conclude_partition(&mut self, partition: PartitionIndex) {
        let read = self.next.get(&(ReaderId::Final, partition)).copied().unwrap_or_default();
        let told = self.told.get(&partition).map_or(Offset::ZERO, |(_, end)| *end);
        if read != told {
            let detail =
                format!("partition {partition} was read to {read} in the end, its end was told as {told}");
            self.report(Class::NotContiguous, detail);
        }
        let known = self.least_end(partition);
        if read < known {
            let detail =
                format!("partition {partition} was read to {read} in the end, {known} was known before");
            self.report(Class::EndWentBack, detail);
        }
    }

    fn conclude_records(&mut self) {
        let mut lost = Vec::new();
        for ((partition, offset), seen) in &self.places {
            let found = self.final_records.get(&(*partition, *offset));
            if let Witness::Reader(reader) = seen.by
                && found != Some(&seen.id)
            {
                let detail =
                    format!("{partition}/{offset} was {} to {reader:?}, in the end {}", seen.id, name(found));
                lost.push((Class::LostRead, detail));
            }
        }
        let mut offsets: BTreeMap<RecordId, u64> = BTreeMap::new();
        for id in self.final_records.values() {
            *offsets.entry(*id).or_default() += 1;
        }
        for (id, sent) in &self.sent {
            let there = offsets.get(id).copied().unwrap_or(0);
            match sent.outcome {
                Outcome::Acked(offset) => {
                    let found = self.final_records.get(&(sent.partition, offset));
                    if found != Some(id) {
                        let place = format!("{}/{offset}", sent.partition);
                        let detail =
                            format!("record {id}, acknowledged at {place}, where there is {}", name(found));
                        lost.push((Class::LostAck, detail));
                    }
                }
                Outcome::Failed { maybe_applied: false } if there > 0 => {
                    lost.push((Class::Phantom, format!("record {id} was refused for sure and is there")));
                }
                Outcome::Failed { .. } => {}
                Outcome::Unknown => lost.push((Class::Unresolved, format!("record {id}: no answer ever"))),
            }
            self.judged.duplicates += there.saturating_sub(1);
        }
        for (class, detail) in lost {
            self.report(class, detail);
        }
    }

    /// Of one producer and partition: a record sent later was acknowledged at, and first stands at, a later offset.
    fn conclude_order(&mut self) {
        let mut first_place: BTreeMap<RecordId, Offset> = BTreeMap::new();
        for ((_, offset), id) in &self.final_records {
            let first = first_place.entry(*id).or_insert(*offset);
            *first = (*offset).min(*first);
        }
        let mut last: BTreeMap<(u32, PartitionIndex), (RecordId, Offset, Option<Offset>)> = BTreeMap::new();
        let mut wrong = Vec::new();
        for (id, sent) in &self.sent {
            let Outcome::Acked(acked) = sent.outcome else { continue };
            let first = first_place.get(id).copied();
            let before = last.insert((id.producer, sent.partition), (*id, acked, first));
            let Some((earlier, earlier_acked, earlier_first)) = before else { continue };
            if earlier_acked >= acked {
                wrong.push(format!(
                    "record {id} was acknowledged at {acked}, the earlier {earlier} at {earlier_acked}"
                ));
            }
            if let (Some(earlier_first), Some(first)) = (earlier_first, first)
                && earlier_first >= first
            {
                wrong.push(format!(
                    "record {id} first stands at {first}, the earlier {earlier} at {earlier_first}"
                ));
            }
        }
        for detail in wrong {
            self.report(Class::Reordered, detail);
        }
    }

    fn report(&mut self, class: Class, detail: String) {
        self.violations.push(Violation { class, detail });
    }
}

fn name(found: Option<&RecordId>) -> String {
    found.map_or_else(|| "nothing".to_owned(), |id| format!("record {id}"))
}
