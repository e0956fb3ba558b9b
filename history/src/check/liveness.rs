//! Every operation is answered, and in time; the run comes to rest.

use super::Findings;
use super::index::Index;
use crate::class::Class;
use crate::operation::{Action, LogId, Operation, Outcome, RefusalKind};

pub(crate) fn check(index: &Index<'_>, findings: &mut Findings) {
    let operations = &index.history.operations;
    let rest = operations.iter().rfind(|operation| operation.action == Action::Rest);
    match rest.map(|operation| &operation.outcome) {
        None => findings
            .report(Class::Liveness, "the run did not come to rest: the history has no end".to_owned()),
        Some(Outcome::Info(refusal) | Outcome::Fail(refusal)) => {
            findings.report(Class::Liveness, format!("the run did not come to rest: {}", refusal.detail));
        }
        Some(Outcome::Ok) => {}
    }
    let outages = Outages::of(operations);
    for (number, operation) in (0..).zip(operations) {
        if operation.completed_ns.is_none() {
            findings.report(Class::Liveness, format!("{} was never answered", index.name(number)));
        } else if index.history.header.patient && was_turned_away(index, operation) {
            let detail = operation.refusal().map_or("", |refusal| &refusal.detail);
            findings.report(Class::Liveness, format!("{} was given up: {detail}", index.name(number)));
        }
        if let Some(stall_ns_max) = index.history.header.stall_ns_max
            && is_bounded(&operation.action)
            && let Some(completed_ns) = operation.completed_ns
        {
            let took_ns =
                completed_ns - operation.invoked_ns - outages.within(operation.invoked_ns, completed_ns);
            if took_ns > stall_ns_max {
                let name = index.name(number);
                let detail = format!(
                    "{name} took {took_ns} ns with the broker up, {stall_ns_max} ns at most are good"
                );
                findings.report(Class::Liveness, detail);
            }
        }
    }
}

/// Whether an operation is answered by the broker as soon as it can.
fn is_bounded(action: &Action) -> bool {
    !matches!(action, Action::Poll(_) | Action::Crash | Action::Rest)
}

/// Whether a client that outlasts every fault was not served.
fn was_turned_away(index: &Index<'_>, operation: &Operation) -> bool {
    let Some(refusal) = operation.refusal() else { return false };
    let logs = logs_of(&operation.action);
    let may_be_gone = logs
        .iter()
        .any(|log| index.topics.get(&log.topic).is_none_or(|life| life.may_be_gone_by(operation.over_ns())));
    let start_moves = logs.iter().any(|id| {
        index.topics.get(&id.topic).is_some_and(|life| life.expires())
            || index.logs.get(id).is_some_and(|log| log.deletions.last().is_some())
    });
    match refusal.kind {
        RefusalKind::TopicExists => false,
        RefusalKind::OutOfRange => !may_be_gone && !start_moves,
        RefusalKind::Other | RefusalKind::Timeout | RefusalKind::UnknownTopic => {
            !may_be_gone && operation.action != Action::Rest
        }
    }
}

fn logs_of(action: &Action) -> Vec<LogId> {
    match action {
        Action::Send(records) => records.iter().map(|record| record.log).collect(),
        Action::Poll(polls) => polls.iter().map(|poll| poll.log).collect(),
        Action::ListOffsets { log, .. } | Action::DeleteRecords { log, .. } => vec![*log],
        Action::AlterTopic(facts) => vec![LogId { topic: facts.topic, partition: 0 }],
        Action::DeleteTopic { topic } => vec![LogId { topic: *topic, partition: 0 }],
        Action::CreateTopic(_) | Action::Crash | Action::Rest => vec![],
    }
}

/// When the broker was down.
struct Outages(Vec<(u64, u64)>);

impl Outages {
    fn of(operations: &[Operation]) -> Outages {
        let mut outages: Vec<(u64, u64)> = operations
            .iter()
            .filter(|operation| operation.action == Action::Crash)
            .map(|operation| (operation.invoked_ns, operation.over_ns()))
            .collect();
        outages.sort_unstable();
        outages.dedup_by(|later, earlier| {
            let overlap = later.0 <= earlier.1;
            if overlap {
                earlier.1 = earlier.1.max(later.1);
            }
            overlap
        });
        Outages(outages)
    }

    /// How much of a span it was down.
    fn within(&self, from_ns: u64, to_ns: u64) -> u64 {
        let first = self.0.partition_point(|(_, up_ns)| *up_ns <= from_ns);
        let of_span = self.0[first..].iter().take_while(|(down_ns, _)| *down_ns < to_ns);
        of_span.map(|(down_ns, up_ns)| (*up_ns).min(to_ns) - (*down_ns).max(from_ns)).sum()
    }
}
