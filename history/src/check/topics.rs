//! Lives of topics: what held of each when, and errors and successes that contradict it.

use std::collections::BTreeMap;

use super::Findings;
use super::index::Index;
use crate::class::Class;
use crate::header::Topic;
use crate::history::History;
use crate::operation::{Action, Operation, RefusalKind};

/// One life of a topic.
pub(crate) struct TopicLife<'a> {
    /// What it was meant to be, since when that may have been in force.
    facts: Vec<(u64, &'a Topic)>,
    /// Since when it exists for sure.
    born_ns: Option<u64>,
    /// Since when it may exist.
    maybe_born_ns: u64,
    /// Since when it may be deleted.
    maybe_gone_ns: u64,
    /// Since when it is deleted for sure, and by which operation.
    gone: Option<(u64, u32)>,
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
        for (number, operation) in (0..).zip(&history.operations) {
            match &operation.action {
                Action::AlterTopic(facts) if !operation.has_failed() => {
                    if let Some(life) = lives.get_mut(&facts.topic) {
                        life.facts.push((operation.invoked_ns, facts));
                    }
                }
                Action::DeleteTopic { topic } if !operation.has_failed() => {
                    if let Some(life) = lives.get_mut(topic) {
                        life.may_go(operation, number);
                    }
                }
                _ => {}
            }
        }
        lives
    }

    fn begin(facts: &'a Topic, maybe_born_ns: u64, born_ns: Option<u64>) -> TopicLife<'a> {
        TopicLife {
            facts: vec![(maybe_born_ns, facts)],
            born_ns,
            maybe_born_ns,
            maybe_gone_ns: u64::MAX,
            gone: None,
        }
    }

    fn may_go(&mut self, operation: &Operation, number: u32) {
        self.maybe_gone_ns = self.maybe_gone_ns.min(operation.invoked_ns);
        if operation.is_ok() {
            let gone = (operation.over_ns(), number);
            self.gone = Some(self.gone.map_or(gone, |earlier| earlier.min(gone)));
        }
    }

    /// All that may have been in force up to a moment.
    fn facts_until(&self, moment_ns: u64) -> impl Iterator<Item = &'a Topic> + '_ {
        self.facts.iter().filter(move |(since_ns, _)| *since_ns <= moment_ns).map(|(_, facts)| *facts)
    }

    /// Whether records may have been compacted away by then.
    pub(crate) fn may_compact(&self, moment_ns: u64) -> bool {
        self.facts_until(moment_ns).any(|facts| facts.cleanup.compacts())
    }

    /// The age at which records may have been deleted by then.
    pub(crate) fn retention_ms(&self, moment_ns: u64) -> Option<u64> {
        let facts = self.facts_until(moment_ns).filter(|facts| facts.cleanup.deletes());
        facts.filter_map(|facts| facts.retention_ms).min()
    }

    /// The size beyond which records may have been deleted by then.
    pub(crate) fn retention_bytes(&self, moment_ns: u64) -> Option<u64> {
        let facts = self.facts_until(moment_ns).filter(|facts| facts.cleanup.deletes());
        facts.filter_map(|facts| facts.retention_bytes).min()
    }

    /// How long tombstones were kept at least.
    pub(crate) fn delete_retention_ms(&self, moment_ns: u64) -> u64 {
        self.facts_until(moment_ns).map(|facts| facts.delete_retention_ms).min().unwrap_or(0)
    }

    /// Whether the broker may have stamped records with its own time.
    pub(crate) fn may_stamp(&self) -> bool {
        self.facts_until(u64::MAX).any(|facts| facts.append_time)
    }

    /// Whether it may have been deleted at any time.
    pub(crate) fn may_be_gone(&self) -> bool {
        self.maybe_gone_ns < u64::MAX
    }

    /// Whether it may have been deleted by then.
    pub(crate) fn may_be_gone_by(&self, moment_ns: u64) -> bool {
        self.maybe_gone_ns <= moment_ns
    }

    /// Whether its records may ever have been deleted by age or size.
    pub(crate) fn expires(&self) -> bool {
        self.retention_ms(u64::MAX).is_some() || self.retention_bytes(u64::MAX).is_some()
    }

    /// Whether it was there for sure, all the time between two moments.
    fn is_alive(&self, from_ns: u64, to_ns: u64) -> bool {
        self.born_ns.is_some_and(|born_ns| born_ns < from_ns) && to_ns < self.maybe_gone_ns
    }

    /// The partitions it has for sure in the end.
    pub(crate) fn partitions(&self) -> u32 {
        if self.born_ns.is_none() || self.may_be_gone() {
            return 0;
        }
        self.facts.iter().map(|(_, facts)| facts.partitions).max().unwrap_or(0)
    }

    fn name(&self) -> &'a str {
        &self.facts[0].1.name
    }
}

/// Errors and successes that what is known of the topics contradicts.
pub(crate) fn check(index: &Index<'_>, findings: &mut Findings) {
    for (number, operation) in (0..).zip(&index.history.operations) {
        for topic in operation.action.topics() {
            let Some(life) = index.topics.get(&topic) else { continue };
            check_answer(index, number, operation, topic, life, findings);
        }
        if let Action::CreateTopic(facts) = &operation.action {
            check_creation(index, number, operation, facts, findings);
        }
    }
}

fn check_answer(
    index: &Index<'_>,
    number: u32,
    operation: &Operation,
    topic: u32,
    life: &TopicLife<'_>,
    findings: &mut Findings,
) {
    let name = index.name(number);
    if operation.is_ok()
        && let Some((gone_ns, by)) = life.gone
        && gone_ns < operation.invoked_ns
    {
        let by = index.name(by);
        findings
            .report(Class::WrongError, format!("{name} succeeded on topic {topic}, which {by} had deleted"));
    }
    if operation.has_failed()
        && operation.refusal().is_some_and(|refusal| refusal.kind == RefusalKind::UnknownTopic)
        && life.is_alive(operation.invoked_ns, operation.over_ns())
    {
        findings.report(
            Class::WrongError,
            format!("{name} was told that there is no topic {topic}, which was there"),
        );
    }
}

fn check_creation(
    index: &Index<'_>,
    number: u32,
    operation: &Operation,
    facts: &Topic,
    findings: &mut Findings,
) {
    let name = index.name(number);
    let namesakes =
        || index.topics.iter().filter(|(topic, life)| **topic != facts.topic && life.name() == facts.name);
    if operation.is_ok()
        && let Some((other, _)) =
            namesakes().find(|(_, life)| life.is_alive(operation.invoked_ns, operation.over_ns()))
    {
        let detail =
            format!("{name} created '{}' as topic {}, which existed as {other}", facts.name, facts.topic);
        findings.report(Class::WrongError, detail);
    }
    let says_exists = operation.has_failed()
        && operation.refusal().is_some_and(|refusal| refusal.kind == RefusalKind::TopicExists);
    let may_exist = |life: &TopicLife<'_>| {
        life.maybe_born_ns <= operation.over_ns()
            && life.gone.is_none_or(|(gone_ns, _)| gone_ns >= operation.invoked_ns)
    };
    if says_exists && !namesakes().any(|(_, life)| may_exist(life)) {
        let detail = format!("{name} was told that there is a topic '{}', and there was none", facts.name);
        findings.report(Class::WrongError, detail);
    }
    if operation.has_failed()
        && let Some(user) = first_use(index, facts.topic)
    {
        let user = index.name(user);
        let detail = format!("{name} failed to create topic {} for certain, and {user} used it", facts.topic);
        findings.report(Class::WrongError, detail);
    }
}

/// The first operation that succeeded on a topic.
fn first_use(index: &Index<'_>, topic: u32) -> Option<u32> {
    let operations = (0..).zip(&index.history.operations);
    operations
        .filter(|(_, operation)| operation.is_ok())
        .find(|(_, operation)| operation.action.topics().contains(&topic))
        .map(|(number, _)| number)
}
