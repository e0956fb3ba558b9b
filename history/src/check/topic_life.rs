//! One life of a topic: when it was there, and on what terms it kept records.

use std::collections::BTreeMap;

use crate::header::Topic;
use crate::history::History;
use crate::operation::{Action, Operation};

/// One life of a topic.
pub(crate) struct TopicLife<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// The laxest terms that may have been in force up to any moment; each since when, and never stricter later.
    terms: Vec<(u64, Terms)>,
    /// The partitions it has for sure in the end.
    partitions: u32,
    /// Since when it exists for sure.
    born_ns: Option<u64>,
    /// Since when it may exist.
    pub(crate) maybe_born_ns: u64,
    /// Since when it may be deleted.
    maybe_gone_ns: u64,
    /// Since when it is deleted for sure, and by which operation.
    pub(crate) gone: Option<(u64, u32)>,
}

/// What may be removed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    /// Records that a later one of their key supersedes.
    pub(crate) compacts: bool,
    /// Records of this age.
    pub(crate) retention_ms: Option<u64>,
    /// Records with so many bytes behind them.
    pub(crate) retention_bytes: Option<u64>,
    /// Tombstones of this age, where it compacts.
    pub(crate) delete_retention_ms: u64,
    /// Whether the broker may stamp records with its own time.
    pub(crate) stamps: bool,
}

impl<'a> TopicLife<'a> {
    pub(crate) fn all_of(history: &'a History) -> BTreeMap<u32, TopicLife<'a>> {
        let mut lives: BTreeMap<u32, TopicLife<'a>> = BTreeMap::new();
        for facts in &history.header.topics {
            lives.insert(facts.topic, TopicLife::begin(facts, 0, Some(0)));
        }
        for operation in &history.operations {
            if let Action::CreateTopic(facts) = &operation.action {
                let born_ns = operation.is_ok().then(|| operation.over_ns());
                lives
                    .entry(facts.topic)
                    .or_insert_with(|| TopicLife::begin(facts, operation.invoked_ns, born_ns));
            }
        }
        let mut alterations: Vec<(&Operation, &Topic)> = Vec::new();
        for (number, operation) in (0..).zip(&history.operations) {
            match &operation.action {
                Action::AlterTopic(facts) if !operation.has_failed() => alterations.push((operation, facts)),
                Action::DeleteTopic { topic } if !operation.has_failed() => {
                    if let Some(life) = lives.get_mut(topic) {
                        life.may_go(operation, number);
                    }
                }
                _ => {}
            }
        }
        alterations.sort_by_key(|(operation, _)| operation.invoked_ns);
        for (operation, facts) in alterations {
            if let Some(life) = lives.get_mut(&facts.topic) {
                life.may_change(operation, facts);
            }
        }
        lives
    }

    fn begin(facts: &'a Topic, maybe_born_ns: u64, born_ns: Option<u64>) -> TopicLife<'a> {
        TopicLife {
            name: &facts.name,
            terms: vec![(maybe_born_ns, Terms::of(facts))],
            partitions: facts.partitions,
            born_ns,
            maybe_born_ns,
            maybe_gone_ns: u64::MAX,
            gone: None,
        }
    }

    fn may_change(&mut self, operation: &Operation, facts: &Topic) {
        let before = self.terms_at(u64::MAX);
        self.terms.push((operation.invoked_ns, before.or(Terms::of(facts))));
        if operation.is_ok() {
            self.partitions = self.partitions.max(facts.partitions);
        }
    }

    fn may_go(&mut self, operation: &Operation, number: u32) {
        self.maybe_gone_ns = self.maybe_gone_ns.min(operation.invoked_ns);
        if operation.is_ok() {
            let gone = (operation.over_ns(), number);
            self.gone = Some(self.gone.map_or(gone, |earlier| earlier.min(gone)));
        }
    }

    /// The laxest terms that may have been in force at any time up to a moment.
    pub(crate) fn terms_at(&self, moment_ns: u64) -> Terms {
        let begun = self.terms.partition_point(|(since_ns, _)| *since_ns <= moment_ns);
        begun.checked_sub(1).map_or(Terms::default(), |last| self.terms[last].1)
    }

    /// The same, for ever.
    pub(crate) fn terms(&self) -> Terms {
        self.terms_at(u64::MAX)
    }

    /// Whether it may have been deleted at any time.
    pub(crate) fn may_be_gone(&self) -> bool {
        self.may_be_gone_by(u64::MAX - 1)
    }

    /// Whether it may have been deleted by then.
    pub(crate) fn may_be_gone_by(&self, moment_ns: u64) -> bool {
        self.maybe_gone_ns <= moment_ns
    }

    /// Whether it was there for sure, all the time between two moments.
    pub(crate) fn is_alive(&self, from_ns: u64, to_ns: u64) -> bool {
        self.born_ns.is_some_and(|born_ns| born_ns < from_ns) && to_ns < self.maybe_gone_ns
    }

    /// The partitions it has for sure in the end.
    pub(crate) fn partitions(&self) -> u32 {
        if self.born_ns.is_none() || self.may_be_gone() { 0 } else { self.partitions }
    }
}

impl Terms {
    fn of(facts: &Topic) -> Terms {
        let deletes = facts.cleanup.deletes();
        Terms {
            compacts: facts.cleanup.compacts(),
            retention_ms: facts.retention_ms.filter(|_| deletes),
            retention_bytes: facts.retention_bytes.filter(|_| deletes),
            delete_retention_ms: facts.delete_retention_ms,
            stamps: facts.append_time,
        }
    }

    /// Whether records go by age or size.
    pub(crate) fn expires(self) -> bool {
        self.retention_ms.is_some() || self.retention_bytes.is_some()
    }

    /// Whatever either of the two lets go.
    fn or(self, other: Terms) -> Terms {
        let least = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
        Terms {
            compacts: self.compacts || other.compacts,
            retention_ms: least(self.retention_ms, other.retention_ms),
            retention_bytes: least(self.retention_bytes, other.retention_bytes),
            delete_retention_ms: self.delete_retention_ms.min(other.delete_retention_ms),
            stamps: self.stamps || other.stamps,
        }
    }
}
