//! Where a log begins and ends only ever goes up, and nobody is told less than was known when he asked.

use super::Findings;
use super::index::Index;
use super::log::{LastTold, Log, Place};
use super::removal::Removal;
use crate::class::Class;
use crate::operation::{Action, LogId, OffsetQuery, Operation, Poll, RefusalKind};

pub(crate) fn check(index: &Index<'_>, findings: &mut Findings) {
    for (number, operation) in (0..).zip(&index.history.operations) {
        match &operation.action {
            Action::ListOffsets { log, query: OffsetQuery::Latest, answer: Some(answer) } => {
                let stale = Class::StaleListOffsets;
                check_end(index, number, operation, *log, answer.offset, stale, findings);
            }
            Action::DeleteRecords { log, before_offset, log_start: Some(start) }
                if operation.is_ok() && start < before_offset =>
            {
                let name = index.name(number);
                let detail =
                    format!("{name} deleted records of {log} before {before_offset}, and {start} is kept");
                findings.report_of(*log, Class::WrongError, detail);
            }
            Action::DeleteRecords { log, before_offset, .. } => {
                check_refused_deletion(index, number, operation, *log, *before_offset, findings);
            }
            Action::Poll(polls) => {
                polls.iter().for_each(|poll| check_poll(index, number, operation, poll, findings));
            }
            _ => {}
        }
    }
    for (id, log) in &index.logs {
        check_starts(index, *id, log, findings);
    }
    if index.came_to_rest {
        check_final(index, findings);
    }
}

/// Records that were there for sure can be deleted.
fn check_refused_deletion(
    index: &Index<'_>,
    number: u32,
    operation: &Operation,
    id: LogId,
    before_offset: u64,
    findings: &mut Findings,
) {
    let says_beyond = operation.has_failed()
        && operation.refusal().is_some_and(|refusal| refusal.kind == RefusalKind::OutOfRange);
    let known = index.logs.get(&id).and_then(|log| log.ends.before(operation.invoked_ns));
    if let Some(known) = known.filter(|known| says_beyond && before_offset <= known.value) {
        let (name, by) = (index.name(number), index.name(known.operation));
        let detail = format!(
            "{name} was told that {before_offset} is beyond the end of {id}, {} was known before by {by}",
            known.value
        );
        findings.report_of(id, Class::WrongError, detail);
    }
}

fn check_end(
    index: &Index<'_>,
    number: u32,
    operation: &Operation,
    id: LogId,
    end: u64,
    stale: Class,
    findings: &mut Findings,
) {
    let Some(log) = index.logs.get(&id) else { return };
    let moment_ns = operation.invoked_ns;
    let acked = log.acked_ends.before(moment_ns).filter(|known| known.value > end);
    let seen = log.ends.before(moment_ns).filter(|known| known.value > end);
    let (class, known) = match (acked, seen) {
        (Some(known), _) => (stale, known),
        (None, Some(known)) => (Class::EndWentBack, known),
        (None, None) => return,
    };
    let (name, by) = (index.name(number), index.name(known.operation));
    findings.report_of(
        id,
        class,
        format!("{name} found the end of {id} at {end}, {} was known before by {by}", known.value),
    );
}

fn check_poll(index: &Index<'_>, number: u32, operation: &Operation, poll: &Poll, findings: &mut Findings) {
    let Some(log) = index.logs.get(&poll.log) else { return };
    match poll.high_watermark {
        Some(end) => check_end(index, number, operation, poll.log, end, Class::StalePoll, findings),
        None => check_empty(index, number, operation, poll, findings),
    }
    let start = log.starts.before(operation.invoked_ns);
    let lowest = poll.records.iter().map(|record| record.offset).min();
    if let Some(start) = start
        && let Some(lowest) =
            lowest.map(|lowest| poll.position.map_or(lowest, |position| position.min(lowest)))
        && lowest < start.value
    {
        let (name, by) = (index.name(number), index.name(start.operation));
        let detail =
            format!("{name} read {} from {lowest}, which {by} knew to begin at {}", poll.log, start.value);
        findings.report_of(poll.log, Class::Retention, detail);
    }
    if let (Some(refusal), Some(position)) = (operation.refusal(), poll.position)
        && operation.has_failed()
        && refusal.kind == RefusalKind::OutOfRange
        && is_within(index, log, poll.log, position, operation)
    {
        let (name, id) = (index.name(number), poll.log);
        findings.report_of(
            id,
            Class::WrongError,
            format!("{name} was told that {id} does not hold {position}, and it does"),
        );
    }
}

/// A poll that found nothing and was not told how far it could read.
fn check_empty(index: &Index<'_>, number: u32, operation: &Operation, poll: &Poll, findings: &mut Findings) {
    let compacts = index.topics.get(&poll.log.topic).is_some_and(|life| life.terms().compacts);
    if let Some(position) =
        poll.position.filter(|_| operation.is_ok() && poll.records.is_empty() && !compacts)
    {
        check_end(index, number, operation, poll.log, position, Class::StalePoll, findings);
    }
}

/// Whether a position was in the log for sure, all the time.
fn is_within(index: &Index<'_>, log: &Log, id: LogId, position: u64, operation: &Operation) -> bool {
    let over_ns = operation.over_ns();
    let removal = Removal::of(index, id, log);
    let start_may_be_later = position < log.start_max_at(over_ns)
        && (removal.expires(over_ns) || position < removal.deleted_before(over_ns));
    let end = log.ends.before(operation.invoked_ns).map_or(0, |known| known.value);
    !start_may_be_later && position <= end
}

/// Starts never go back, and never pass a record that had to be kept.
fn check_starts(index: &Index<'_>, id: LogId, log: &Log, findings: &mut Findings) {
    let removal = Removal::of(index, id, log);
    let mut told: Vec<_> = log.starts_told.iter().collect();
    told.sort_by_key(|told| told.over_ns);
    let mut allowed = 0;
    for told in told {
        if let Some(known) = log.starts.before(told.invoked_ns).filter(|known| known.value > told.start) {
            let (name, by) = (index.name(told.operation), index.name(known.operation));
            let detail = format!(
                "{name} found the start of {id} at {}, {} was known before by {by}",
                told.start, known.value
            );
            findings.report_of(id, Class::StartWentBack, detail);
        }
        let from = removal.deleted_before(told.over_ns).max(allowed);
        if from >= told.start {
            continue;
        }
        let kept = log.within(from..told.start);
        let may_go = |place: &Place| {
            removal.may_be_expired(place, told.over_ns) || removal.may_be_superseded(place, told.over_ns)
        };
        let kept = kept.iter().find(|place| !may_go(place));
        if kept.is_none() && removal.expires(told.over_ns) {
            allowed = told.start;
            continue;
        }
        let name = index.name(told.operation);
        let what = kept.map_or_else(
            || format!("offset {from}"),
            |place| format!("record {} at {}", index.sends.get(place.send).record.id, place.offset),
        );
        let detail = format!("{name} found the start of {id} at {}, and {what} had to be kept", told.start);
        findings.report_of(id, Class::Retention, detail);
    }
}

/// The final reading is there for every log, and ends where the log does.
fn check_final(index: &Index<'_>, findings: &mut Findings) {
    for (topic, life) in &index.topics {
        for partition in 0..life.partitions() {
            let id = LogId { topic: *topic, partition };
            let log = index.logs.get(&id);
            let Some(LastTold { offset: end, invoked_ns, .. }) = log.and_then(|log| log.last.end) else {
                findings.report_of(
                    id,
                    Class::Liveness,
                    format!("nobody asked for the end of {id} in the final reading"),
                );
                continue;
            };
            // Nothing is sent any more when the final reading begins. What was known before is held against the answer.
            let known = log.and_then(|log| log.ends.last());
            if let Some(known) = known.filter(|known| known.value > end && known.known_ns >= invoked_ns) {
                let by = index.name(known.operation);
                let detail = format!("the end of {id} was told as {end} at last, {by} knew {}", known.value);
                findings.report_of(id, Class::EndWentBack, detail);
            }
        }
    }
}
