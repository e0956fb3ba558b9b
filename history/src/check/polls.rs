//! Readers are given every offset once and in order; a gap must be explained.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Findings;
use super::index::Index;
use super::log::{LastTold, Log, Place};
use super::removal::Removal;
use super::topic_life::TopicLife;
use crate::class::Class;
use crate::operation::{Action, LogId, Operation, Poll};

/// Offsets that a reader was not given.
struct Gap {
    offsets: Range<u64>,
    operation: u32,
    over_ns: u64,
    class: Class,
}

pub(crate) fn check(index: &Index<'_>, findings: &mut Findings) {
    let mut gaps: BTreeMap<LogId, Vec<Gap>> = BTreeMap::new();
    let mut next: BTreeMap<(u32, LogId), u64> = BTreeMap::new();
    for (number, operation) in (0..).zip(&index.history.operations) {
        if let Action::Poll(polls) = &operation.action {
            for poll in polls {
                let process = (operation.process, poll.log);
                let before = next.remove(&process);
                let mut reader = Reader { index, number, operation, poll, gaps: &mut gaps, findings };
                if let Some(after) = reader.follow(before) {
                    next.insert(process, after);
                }
            }
        }
    }
    for (id, log) in index.logs.iter().filter(|_| index.came_to_rest) {
        gaps.entry(*id).or_default().extend(unread_tail(index, *id, log));
    }
    for (id, gaps) in &gaps {
        let Some(log) = index.logs.get(id) else { continue };
        let removal = Removal::of(index, *id, log);
        gaps.iter().for_each(|gap| explain(index, *id, &removal, gap, findings));
    }
}

/// What lies between the end of the final reading and the end that was told.
fn unread_tail(index: &Index<'_>, id: LogId, log: &Log) -> Option<Gap> {
    let LastTold { offset: end, operation, .. } = log.last.end?;
    let start = log.last.start.map_or(0, |told| told.offset);
    let reached = log.last.reached.unwrap_or(start).max(start);
    let is_gone = index.topics.get(&id.topic).is_some_and(TopicLife::may_be_gone);
    let gap = Gap { offsets: reached..end, operation, over_ns: index.over_ns, class: Class::Unseen };
    (reached < end && !is_gone).then_some(gap)
}

/// One poll of one log, being followed.
struct Reader<'a> {
    index: &'a Index<'a>,
    number: u32,
    operation: &'a Operation,
    poll: &'a Poll,
    gaps: &'a mut BTreeMap<LogId, Vec<Gap>>,
    findings: &'a mut Findings,
}

impl Reader<'_> {
    /// What must come next, if anything is known of it.
    fn follow(&mut self, before: Option<u64>) -> Option<u64> {
        // A new reader owes nothing to the one before it; the final one owes all from the log start on.
        let start = self.index.logs.get(&self.poll.log).and_then(|log| log.last.start);
        let start = start.filter(|_| self.operation.is_final).map(|told| told.offset);
        let Some(position) = self.poll.position else { return self.read(start) };
        if let Some(expected) = before.or(start) {
            self.step(expected, position, Class::PollSkip, Class::NonMonotonicPoll);
        }
        self.read(Some(position)).or(Some(position))
    }

    fn read(&mut self, from: Option<u64>) -> Option<u64> {
        let mut next = from;
        let mut classes = (Class::PollSkip, Class::NonMonotonicPoll);
        for record in &self.poll.records {
            if let Some(expected) = next {
                self.step(expected, record.offset, classes.0, classes.1);
            }
            next = Some(record.offset.saturating_add(1));
            classes = (Class::SkipWithinPoll, Class::NonMonotonicWithinPoll);
        }
        next
    }

    fn step(&mut self, expected: u64, found: u64, skip: Class, backwards: Class) {
        if found > expected {
            let gap = Gap {
                offsets: expected..found,
                operation: self.number,
                over_ns: self.operation.over_ns(),
                class: skip,
            };
            self.gaps.entry(self.poll.log).or_default().push(gap);
        } else if found < expected {
            let (name, log) = (self.index.name(self.number), self.poll.log);
            let detail = format!("{name} was given {log}/{found} where {expected} comes next");
            self.findings.report_of(log, backwards, detail);
        }
    }
}

/// Reports a gap unless each offset in it may have been removed. One poll is one answer, during which the log start
/// does not move: within it, only compaction leaves gaps.
fn explain(index: &Index<'_>, id: LogId, removal: &Removal<'_>, gap: &Gap, findings: &mut Findings) {
    let log = &index.logs[&id];
    let Gap { offsets, operation, over_ns, class } = gap;
    let start_max = if *class == Class::SkipWithinPoll { 0 } else { log.start_max_at(*over_ns) };
    let deleted = removal.deleted_before(*over_ns).min(start_max);
    let rest = offsets.start.max(deleted)..offsets.end;
    if rest.is_empty() {
        return;
    }
    let known = log.within(rest.clone());
    let may_be_gone = |place: &Place| {
        removal.may_be_superseded(place, *over_ns)
            || (place.offset < start_max && removal.may_be_expired(place, *over_ns))
    };
    let kept = known.iter().find(|place| !may_be_gone(place));
    let mut distinct: Vec<u64> = known.iter().map(|place| place.offset).collect();
    distinct.dedup();
    let has_unknown = (distinct.len() as u64) < rest.end - rest.start;
    let unknown_may_go = removal.compacts(*over_ns) || (removal.expires(*over_ns) && rest.end <= start_max);
    if kept.is_none() && (!has_unknown || unknown_may_go) {
        return;
    }
    let name = index.name(*operation);
    let missing = match kept {
        Some(place) => {
            let record = index.sends.get(place.send).record.id;
            format!("record {record} at {}, seen by {}", place.offset, index.name(place.seen_by))
        }
        None => "offsets at which nobody saw a record".to_owned(),
    };
    let detail = format!("{name} went on from {id}/{} to {} over {missing}", offsets.start, offsets.end);
    findings.report_of(id, *class, detail);
    if log.last.end.is_none()
        && let Some(place) = kept.filter(|place| place.is_acked && place.read_by.is_none())
    {
        let record = index.sends.get(place.send).record.id;
        let detail =
            format!("record {record} was acknowledged at {id}/{}, and {name} went over it", place.offset);
        findings.report_of(id, Class::LostWrite, detail);
    }
}
