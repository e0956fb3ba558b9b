//! The verdict on one power cut: what clients knew at the cut and what the broker served after it, as one history.
//!
//! Puts the history together and has it checked; what no history can say, such as a broker that does not start, is
//! added by whoever met it.

use std::collections::BTreeMap;
use std::fmt;

use corrente_history::{
    Action, History, LogId, OffsetAnswer, OffsetQuery, Operation, Outcome, Poll, Refusal, RefusalKind, check,
};
use serde::{Deserialize, Serialize};

/// Something that broke a promise.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// Its kind: a class of the history's checker, or one of ours.
    pub class: String,
    /// What exactly, for people.
    pub detail: String,
    /// Something acknowledged is gone.
    pub is_loss: bool,
}

impl Finding {
    /// One that the history's checker cannot know.
    pub fn new(class: &str, detail: impl Into<String>) -> Finding {
        Finding { class: class.to_owned(), detail: detail.into(), is_loss: false }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class, self.detail)
    }
}

/// What the broker served after the cut.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// When reading began and was over.
    pub began_ns: u64,
    pub ended_ns: u64,
    pub topics: Vec<FoundTopic>,
}

/// One topic of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FoundTopic {
    pub name: String,
    pub id: String,
    pub partitions: Vec<FoundPartition>,
}

/// One partition of that.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FoundPartition {
    /// First offset and end, if they were told.
    pub bounds: Option<(u64, u64)>,
    /// What was read from the earliest record on.
    pub polls: Vec<Poll>,
    /// Why it was not all.
    pub refusal: Option<String>,
}

/// How much was compared.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Judged {
    /// Records acknowledged by the cut.
    pub acked: u64,
    /// Records that readers were given by the cut.
    pub read: u64,
    /// Records found after it.
    pub found: u64,
    /// Acknowledged records that were rightly gone: compacted, or expired.
    pub removed: u64,
}

/// The process that cuts the power, and the one that reads everything afterwards.
const NEMESIS: u32 = 0;
const FINAL_READER: u32 = u32::MAX;
/// Findings of one class told in full; more are only counted.
const TOLD_MAX: usize = 5;

/// What clients knew at a moment: what came later has not happened, and what was under way is in doubt.
pub fn as_of(history: &History, cut_ns: u64) -> History {
    let begun = history.operations.iter().filter(|operation| operation.invoked_ns <= cut_ns);
    let operations = begun.filter_map(|operation| match operation.completed_ns {
        Some(completed_ns) if completed_ns <= cut_ns => Some(operation.clone()),
        // Nobody was shown what it read.
        _ if matches!(operation.action, Action::Poll(_)) => None,
        _ => Some(in_doubt(operation, cut_ns)),
    });
    History { header: history.header.clone(), operations: operations.collect() }
}

fn in_doubt(operation: &Operation, cut_ns: u64) -> Operation {
    let mut doubtful = operation.clone();
    doubtful.completed_ns = Some(cut_ns);
    doubtful.outcome = Outcome::Info(Refusal::new(RefusalKind::Other, "the power was cut"));
    match &mut doubtful.action {
        Action::Send(records) => records.iter_mut().for_each(|record| record.acked = None),
        Action::CreateTopic(facts) => facts.id = None,
        _ => {}
    }
    doubtful
}

/// Goes on after a cut with what happened once the broker served again.
pub fn go_on(before: History, cut_ns: u64, after: History) -> History {
    let up_ns = after.operations.iter().map(|operation| operation.invoked_ns).min().unwrap_or(cut_ns);
    let mut history = before;
    history.operations.push(crash(cut_ns, up_ns));
    history.operations.extend(after.operations);
    history
}

/// Compares what was known at the cut with what was found.
pub fn judge(history: &History, cut_ns: u64, found: &Found) -> (Vec<Finding>, Judged) {
    let mut history = as_of(history, cut_ns);
    let mut findings = Vec::new();
    let lives = lives(&history, found, &mut findings);
    history.operations.push(crash(cut_ns, found.began_ns));
    for (topic, life) in found.topics.iter().zip(lives) {
        let Some(life) = life else { continue };
        for (partition, partition_found) in (0..).zip(&topic.partitions) {
            let log = LogId { topic: life, partition };
            history.operations.extend(final_reading(log, partition_found, found));
            if let Some(refusal) = &partition_found.refusal {
                findings.push(Finding::new(
                    "Refused",
                    format!("{} partition {partition}: {refusal}", topic.name),
                ));
            }
        }
    }
    history.operations.push(finally(found, Outcome::Ok, Action::Rest));
    let verdict = check(&history);
    let told = verdict.violations.iter().map(|violation| Finding {
        class: format!("{:?}", violation.class),
        detail: violation.detail.clone(),
        is_loss: violation.class.is_loss(),
    });
    findings.extend(told);
    let judged = Judged {
        acked: verdict.judged.acked,
        read: verdict.judged.read_during,
        found: verdict.judged.final_records,
        removed: verdict.judged.removed,
    };
    (shorten(findings), judged)
}

fn crash(down_ns: u64, up_ns: u64) -> Operation {
    Operation {
        process: NEMESIS,
        invoked_ns: down_ns,
        completed_ns: Some(up_ns),
        outcome: Outcome::Ok,
        is_final: false,
        action: Action::Crash,
    }
}

/// Which life of a topic each one found is.
fn lives(history: &History, found: &Found, findings: &mut Vec<Finding>) -> Vec<Option<u32>> {
    let mut by_id: BTreeMap<&str, u32> = BTreeMap::new();
    let mut unanswered: BTreeMap<&str, u32> = BTreeMap::new();
    for operation in &history.operations {
        if let Action::CreateTopic(facts) = &operation.action {
            match &facts.id {
                Some(id) => by_id.insert(id, facts.topic),
                // Names are not used again while the answer for one is outstanding.
                None => unanswered.insert(&facts.name, facts.topic),
            };
        }
    }
    let life = |topic: &FoundTopic| {
        let by_id = by_id.get(topic.id.as_str());
        by_id.or_else(|| unanswered.get(topic.name.as_str())).copied()
    };
    let lives: Vec<Option<u32>> = found.topics.iter().map(life).collect();
    for (topic, _) in found.topics.iter().zip(&lives).filter(|(_, life)| life.is_none()) {
        let detail = format!("topic {} with id {}: nobody made it", topic.name, topic.id);
        findings.push(Finding::new("StrangeTopic", detail));
    }
    lives
}

fn final_reading(log: LogId, partition: &FoundPartition, found: &Found) -> Vec<Operation> {
    let mut operations = Vec::new();
    if let Some((start, end)) = partition.bounds {
        for (query, offset) in [(OffsetQuery::Earliest, start), (OffsetQuery::Latest, end)] {
            let answer = Some(OffsetAnswer { offset, timestamp_ms: None });
            operations.push(finally(found, Outcome::Ok, Action::ListOffsets { log, query, answer }));
        }
    }
    for poll in &partition.polls {
        let poll = Poll { log, ..poll.clone() };
        operations.push(finally(found, Outcome::Ok, Action::Poll(vec![poll])));
    }
    operations
}

fn finally(found: &Found, outcome: Outcome, action: Action) -> Operation {
    let (invoked_ns, completed_ns) = (found.began_ns, Some(found.ended_ns));
    Operation { process: FINAL_READER, invoked_ns, completed_ns, outcome, is_final: true, action }
}

/// The first few of each class, and how many more there were.
fn shorten(findings: Vec<Finding>) -> Vec<Finding> {
    let mut by_class: BTreeMap<String, Vec<Finding>> = BTreeMap::new();
    for finding in findings {
        by_class.entry(finding.class.clone()).or_default().push(finding);
    }
    let mut short = Vec::new();
    for (class, mut of_class) in by_class {
        let more = of_class.len().saturating_sub(TOLD_MAX);
        let is_loss = of_class[0].is_loss;
        of_class.truncate(TOLD_MAX);
        short.append(&mut of_class);
        if more > 0 {
            short.push(Finding { class, detail: format!("and {more} more"), is_loss });
        }
    }
    short
}

#[cfg(test)]
mod tests;
