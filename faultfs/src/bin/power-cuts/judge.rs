//! The verdict on one power cut: what clients knew at the cut against what the broker served after it.
//!
//! Knows nothing of how either came about. Each class has a planted case among the tests that it must catch.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::content::{Content, Log, RecordId};
use crate::history::{Deed, Stamped};

/// A kind of broken promise.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The file system could not be checked or mounted: the disk, the kernel or this harness is at fault.
    FileSystem,
    /// The broker did not come to serve requests.
    NotStarted,
    /// An acknowledged record is not where it was acknowledged to be.
    LostAck,
    /// A record that a reader was given is gone: it was shown before it was safe.
    LostRead,
    /// A topic whose making was acknowledged is gone.
    LostTopic,
    /// A topic whose deletion was acknowledged is back.
    TopicBack,
    /// Something is served that nobody had sent there by then, or that is damaged.
    Phantom,
    /// A partition is not served, or not all of it.
    Refused,
    /// Offsets do not follow each other from the first to the end that is told.
    Gap,
    /// A partition takes no more records.
    Deaf,
    /// A reader met trouble while the run was recorded.
    Trouble,
}

/// One broken promise.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Violation {
    pub class: Class,
    /// What exactly, for people.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.class, self.detail)
    }
}

/// What the broker served after the cut.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    pub topics: Vec<FoundTopic>,
}

/// One topic of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FoundTopic {
    pub name: String,
    pub id: String,
    /// Per partition, what was read from the earliest record on: offset and content.
    pub partitions: Vec<Vec<(u64, Content)>>,
    /// Per partition the end that the broker told; nothing if it told none.
    pub ends: Vec<Option<u64>>,
    /// What it refused, in its own words.
    pub refusals: Vec<String>,
}

/// How much was compared.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Judged {
    /// Acknowledged records looked for.
    pub acked: u64,
    /// Records looked for because a reader had them.
    pub seen: u64,
    /// Records found.
    pub found: u64,
}

/// Findings of one class told in full; more are only counted.
const TOLD_MAX: usize = 5;

/// Compares what was known with what was found. `deeds` end at the cut.
pub fn judge(deeds: &[Stamped], found: &Found) -> (Vec<Violation>, Judged) {
    let known = Known::of(deeds);
    let mut judge = Judge { known: &known, violations: Vec::new(), judged: Judged::default() };
    known.trouble.iter().for_each(|what| judge.report(Class::Trouble, what.clone()));
    let lives = judge.topics(found);
    let mut served: BTreeMap<(Log, u64), RecordId> = BTreeMap::new();
    for (topic, life) in found.topics.iter().zip(lives) {
        judge.topic(topic, life, &mut served);
    }
    judge.records(&served);
    (shorten(judge.violations), judge.judged)
}

/// What clients knew.
#[derive(Default)]
struct Known {
    topics: BTreeMap<u32, Life>,
    sent: BTreeMap<RecordId, Log>,
    refused: BTreeSet<RecordId>,
    acked: BTreeMap<RecordId, u64>,
    seen: BTreeMap<(Log, u64), RecordId>,
    trouble: Vec<String>,
}

/// One life of a topic.
#[derive(Default)]
struct Life {
    name: String,
    /// Known once its making was acknowledged.
    id: Option<String>,
    delete_asked: bool,
    deleted: bool,
}

impl Known {
    fn of(deeds: &[Stamped]) -> Known {
        let mut known = Known::default();
        for Stamped { deed, .. } in deeds {
            known.take(deed);
        }
        known
    }

    fn take(&mut self, deed: &Deed) {
        match deed {
            Deed::TopicAsked { topic, name, .. } => {
                self.topics.insert(*topic, Life { name: name.clone(), ..Life::default() });
            }
            Deed::TopicMade { topic, id } => self.life(*topic).id = Some(id.clone()),
            Deed::DeleteAsked { topic } => self.life(*topic).delete_asked = true,
            Deed::Deleted { topic } => self.life(*topic).deleted = true,
            Deed::Sent { record, log } => {
                self.sent.insert(*record, *log);
            }
            Deed::Acked { record, offset } => {
                self.acked.insert(*record, *offset);
            }
            Deed::Refused { record } => {
                self.refused.insert(*record);
            }
            Deed::Seen { record, log, offset } => {
                self.seen.insert((*log, *offset), *record);
            }
            Deed::Trouble { what } => self.trouble.push(what.clone()),
        }
    }

    fn life(&mut self, topic: u32) -> &mut Life {
        self.topics.entry(topic).or_default()
    }

    /// Which record this is, or why it has no business here.
    fn sent_here(&self, log: Log, content: &Content) -> Result<RecordId, String> {
        let (id, meant_for) = content.clone()?;
        match self.sent.get(&id) {
            None => Err(format!("record {id} had not been sent")),
            Some(sent) if *sent != log || meant_for != log => Err(format!("record {id} was sent to {sent}")),
            Some(_) if self.refused.contains(&id) => Err(format!("record {id} was refused for sure")),
            Some(_) => Ok(id),
        }
    }

    /// Whether all that was acknowledged or seen in this log has to be there.
    fn must_be_there(&self, log: Log) -> bool {
        self.topics.get(&log.0).is_some_and(|life| !life.delete_asked)
    }
}

struct Judge<'a> {
    known: &'a Known,
    violations: Vec<Violation>,
    judged: Judged,
}

impl Judge<'_> {
    /// Which life each topic found is, as far as the history tells.
    fn topics(&mut self, found: &Found) -> Vec<Option<u32>> {
        for life in self.known.topics.values() {
            let there = found.topics.iter().any(|topic| Some(&topic.id) == life.id.as_ref());
            if life.id.is_some() && !life.delete_asked && !there {
                self.report(Class::LostTopic, format!("{} was made and is gone", life.name));
            }
            if life.deleted && there {
                self.report(Class::TopicBack, format!("{} was deleted and is there", life.name));
            }
        }
        found.topics.iter().map(|topic| self.life_of(topic)).collect()
    }

    fn life_of(&mut self, topic: &FoundTopic) -> Option<u32> {
        let by_id = self.known.topics.iter().find(|(_, life)| life.id.as_ref() == Some(&topic.id));
        // Its making was asked for, and the cut came before the answer.
        let unanswered = |(_, life): &(&u32, &Life)| life.id.is_none() && life.name == topic.name;
        let life = by_id.or_else(|| self.known.topics.iter().find(unanswered)).map(|(number, _)| *number);
        if life.is_none() {
            self.report(Class::Phantom, format!("topic {} with id {}: nobody made it", topic.name, topic.id));
        }
        life
    }

    fn topic(&mut self, topic: &FoundTopic, life: Option<u32>, served: &mut BTreeMap<(Log, u64), RecordId>) {
        for refusal in &topic.refusals {
            self.report(Class::Refused, format!("{}: {refusal}", topic.name));
        }
        for (partition, records) in (0..).zip(&topic.partitions) {
            let log = Log(life.unwrap_or(u32::MAX), partition);
            let end = topic.ends.get(partition as usize).copied().flatten();
            self.offsets(topic, log, records.iter().map(|(offset, _)| *offset), end);
            for (offset, content) in records {
                self.judged.found += 1;
                match self.known.sent_here(log, content) {
                    Ok(id) => drop(served.insert((log, *offset), id)),
                    Err(what) => self.report(Class::Phantom, format!("{log} offset {offset}: {what}")),
                }
            }
        }
    }

    fn offsets(
        &mut self,
        topic: &FoundTopic,
        log: Log,
        offsets: impl Iterator<Item = u64>,
        end: Option<u64>,
    ) {
        let mut next = 0;
        for offset in offsets {
            if offset != next {
                self.report(
                    Class::Gap,
                    format!("{} {log}: offset {offset} where {next} comes next", topic.name),
                );
            }
            next = offset + 1;
        }
        match end {
            Some(end) if end != next => {
                let detail = format!("{} {log}: read to {next}, its end was told as {end}", topic.name);
                self.report(Class::Gap, detail);
            }
            _ => {}
        }
    }

    fn records(&mut self, served: &BTreeMap<(Log, u64), RecordId>) {
        for (id, offset) in &self.known.acked {
            let log = self.known.sent[id];
            if self.known.must_be_there(log) {
                self.judged.acked += 1;
                self.expect(Class::LostAck, log, *offset, *id, served);
            }
        }
        for ((log, offset), id) in &self.known.seen {
            if self.known.must_be_there(*log) {
                self.judged.seen += 1;
                self.expect(Class::LostRead, *log, *offset, *id, served);
            }
        }
    }

    fn expect(
        &mut self,
        class: Class,
        log: Log,
        offset: u64,
        id: RecordId,
        served: &BTreeMap<(Log, u64), RecordId>,
    ) {
        let there = served.get(&(log, offset));
        if there != Some(&id) {
            let there = there.map_or_else(|| "nothing".to_owned(), |other| format!("record {other}"));
            self.report(class, format!("{log} offset {offset}: record {id} was there, now {there}"));
        }
    }

    fn report(&mut self, class: Class, detail: String) {
        self.violations.push(Violation { class, detail });
    }
}

/// The first few of each class, and how many there were.
fn shorten(violations: Vec<Violation>) -> Vec<Violation> {
    let mut by_class: BTreeMap<Class, Vec<Violation>> = BTreeMap::new();
    for violation in violations {
        by_class.entry(violation.class).or_default().push(violation);
    }
    let mut short = Vec::new();
    for (class, mut of_class) in by_class {
        let more = of_class.len().saturating_sub(TOLD_MAX);
        of_class.truncate(TOLD_MAX);
        short.append(&mut of_class);
        if more > 0 {
            short.push(Violation { class, detail: format!("and {more} more") });
        }
    }
    short
}

#[cfg(test)]
mod tests;
