//! Every operation is answered, and in time; the run comes to rest.

use super::Findings;
use super::index::Index;
use crate::class::Class;
use crate::operation::{Action, Operation, Outcome, RefusalKind};

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
        if let Some(complaint) = complaint(index, operation, &outages) {
            let detail = format!("{} {complaint}", index.name(number));
            match operation.action.logs().first() {
                Some(log) => findings.report_of(*log, Class::Liveness, detail),
                None => findings.report(Class::Liveness, detail),
            }
        }
    }
}

/// Why a client was not served well, if it was not.
fn complaint(index: &Index<'_>, operation: &Operation, outages: &Outages) -> Option<String> {
    let Some(completed_ns) = operation.completed_ns else { return Some("was never answered".to_owned()) };
    if index.history.header.patient && was_turned_away(index, operation) {
        let detail = operation.refusal().map_or("", |refusal| &refusal.detail);
        return Some(format!("was given up: {detail}"));
    }
    let stall_ns_max = index.history.header.stall_ns_max.filter(|_| is_bounded(&operation.action))?;
    let took_ns = completed_ns - operation.invoked_ns - outages.within(operation.invoked_ns, completed_ns);
    (took_ns > stall_ns_max)
        .then(|| format!("took {took_ns} ns with the broker up, {stall_ns_max} ns at most are good"))
}

/// Whether an operation is answered by the broker as soon as it can.
fn is_bounded(action: &Action) -> bool {
    !matches!(action, Action::Poll(_) | Action::Crash | Action::Rest)
}

/// Whether a client that outlasts every fault was not served.
fn was_turned_away(index: &Index<'_>, operation: &Operation) -> bool {
    let Some(refusal) = operation.refusal() else { return false };
    let may_be_gone = operation
        .action
        .topics()
        .iter()
        .any(|topic| index.topics.get(topic).is_none_or(|life| life.may_be_gone_by(operation.over_ns())));
    let start_moves = operation.action.logs().iter().any(|id| {
        index.topics.get(&id.topic).is_some_and(|life| life.terms().expires())
            || index.logs.get(id).is_some_and(|log| log.deletions.last().is_some())
    });
    match refusal.kind {
        RefusalKind::TopicExists => false,
        // Nobody can delete what is not there yet.
        RefusalKind::OutOfRange if matches!(operation.action, Action::DeleteRecords { .. }) => false,
        RefusalKind::OutOfRange => !may_be_gone && !start_moves,
        RefusalKind::Other | RefusalKind::Timeout | RefusalKind::UnknownTopic => {
            !may_be_gone && operation.action != Action::Rest
        }
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
