//! Errors and successes that contradict what is known of the topics.

use std::collections::BTreeMap;

use super::Findings;
use super::index::Index;
use super::topic_life::TopicLife;
use crate::class::Class;
use crate::header::Topic;
use crate::operation::{Action, Operation, RefusalKind};

pub(crate) fn check(index: &Index<'_>, findings: &mut Findings) {
    // The first operation that succeeded on each topic.
    let mut first_uses: BTreeMap<u32, u32> = BTreeMap::new();
    for (number, operation) in (0..).zip(&index.history.operations) {
        for topic in operation.action.topics() {
            if operation.is_ok() {
                first_uses.entry(topic).or_insert(number);
            }
            if let Some(life) = index.topics.get(&topic) {
                check_answer(index, number, operation, topic, life, findings);
            }
        }
    }
    for (number, operation) in (0..).zip(&index.history.operations) {
        if let Action::CreateTopic(facts) = &operation.action {
            let first_use = first_uses.get(&facts.topic).copied();
            check_creation(index, number, operation, facts, first_use, findings);
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
    let name = || index.name(number);
    if operation.is_ok()
        && let Some((gone_ns, by)) = life.gone
        && gone_ns < operation.invoked_ns
    {
        let by = index.name(by);
        findings.report(
            Class::WrongError,
            format!("{} succeeded on topic {topic}, which {by} had deleted", name()),
        );
    }
    if operation.has_failed()
        && operation.refusal().is_some_and(|refusal| refusal.kind == RefusalKind::UnknownTopic)
        && life.is_alive(operation.invoked_ns, operation.over_ns())
    {
        findings.report(
            Class::WrongError,
            format!("{} was told that there is no topic {topic}, which was there", name()),
        );
    }
}

fn check_creation(
    index: &Index<'_>,
    number: u32,
    operation: &Operation,
    facts: &Topic,
    first_use: Option<u32>,
    findings: &mut Findings,
) {
    let name = index.name(number);
    let namesakes =
        || index.topics.iter().filter(|(topic, life)| **topic != facts.topic && life.name == facts.name);
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
        && let Some(user) = first_use
    {
        let user = index.name(user);
        let detail = format!("{name} failed to create topic {} for certain, and {user} used it", facts.topic);
        findings.report(Class::WrongError, detail);
    }
}
