//! Lookups by time find the first record late enough, among those that could be read.

use std::collections::BTreeMap;

use super::Findings;
use super::index::Index;
use super::log::Log;
use super::removal::Removal;
use crate::class::Class;
use crate::operation::{Action, LogId, OffsetAnswer, OffsetQuery, Operation};

pub(crate) fn check(index: &Index<'_>, findings: &mut Findings) {
    let mut logs: BTreeMap<LogId, Stamps<'_>> = BTreeMap::new();
    for (number, operation) in (0..).zip(&index.history.operations) {
        let Action::ListOffsets { log: id, query, answer: Some(answer) } = &operation.action else {
            continue;
        };
        let Some(log) = index.logs.get(id) else { continue };
        let asked_ms = match query {
            OffsetQuery::Timestamp(asked_ms) => Some(*asked_ms),
            OffsetQuery::MaxTimestamp => None,
            OffsetQuery::Earliest | OffsetQuery::Latest => continue,
        };
        let stamps = logs.entry(*id).or_insert_with(|| Stamps::of(index, *id, log));
        let found = stamps.judge(operation, asked_ms, *answer);
        if let Err(what) = found {
            let detail = format!("{} was told offset {} of {id}, {what}", index.name(number), answer.offset);
            findings.report_of(*id, Class::WrongLookup, detail);
        }
    }
}

/// The timestamps of a log, ready to be searched.
struct Stamps<'a> {
    index: &'a Index<'a>,
    log: &'a Log,
    removal: Removal<'a>,
    /// A tree over the places: a node holds the greatest timestamp below it, the leaves are at the end.
    tree: Vec<i64>,
}

impl<'a> Stamps<'a> {
    fn of(index: &'a Index<'a>, id: LogId, log: &'a Log) -> Stamps<'a> {
        let leaves = log.places.len().next_power_of_two();
        let mut tree = vec![i64::MIN; 2 * leaves];
        for (leaf, place) in log.places.iter().enumerate() {
            tree[leaves + leaf] = place.timestamp_ms;
        }
        for node in (1..leaves).rev() {
            tree[node] = tree[2 * node].max(tree[2 * node + 1]);
        }
        Stamps { index, log, removal: Removal::of(index, id, log), tree }
    }

    fn judge(
        &self,
        operation: &Operation,
        asked_ms: Option<i64>,
        answer: OffsetAnswer,
    ) -> Result<(), String> {
        let at = self.log.within(answer.offset..answer.offset.saturating_add(1)).first();
        let there_ms = at.map(|place| place.timestamp_ms);
        if let (Some(told_ms), Some(there_ms)) = (answer.timestamp_ms, there_ms)
            && told_ms != there_ms
        {
            return Err(format!("with timestamp {told_ms}, its record has {there_ms}"));
        }
        let found_ms = answer.timestamp_ms.and(there_ms).or(answer.timestamp_ms);
        match asked_ms {
            None => self.expect_none_before(
                operation,
                found_ms.map_or(i64::MIN, |ms| ms.saturating_add(1)),
                u64::MAX,
            ),
            Some(asked_ms) => {
                if let Some(found_ms) = found_ms.filter(|found_ms| *found_ms < asked_ms) {
                    return Err(format!("whose timestamp {found_ms} is before {asked_ms}"));
                }
                self.expect_none_before(operation, asked_ms, answer.offset)
            }
        }
    }

    /// No record before `to_offset` that was readable for sure is as late as this.
    fn expect_none_before(&self, operation: &Operation, late_ms: i64, to_offset: u64) -> Result<(), String> {
        let readable = self.log.ends.before(operation.invoked_ns).map_or(0, |end| end.value).min(to_offset);
        // What lies before a start known by then is gone for sure.
        let start = self.log.starts.before(operation.invoked_ns).map_or(0, |start| start.value);
        let mut from = self.log.places.partition_point(|place| place.offset < start);
        while let Some(found) = self.first_late(from, late_ms) {
            let place = &self.log.places[found];
            if place.offset >= readable {
                return Ok(());
            }
            if !self.removal.may_be_gone(place, operation.over_ns()) {
                let record = self.index.sends.get(place.send).record.id;
                let stamp = place.timestamp_ms;
                return Err(format!("though record {record} at {} has timestamp {stamp}", place.offset));
            }
            from = found + 1;
        }
        Ok(())
    }

    /// The first place from this one on whose timestamp is as late.
    fn first_late(&self, from: usize, late_ms: i64) -> Option<usize> {
        let leaves = self.tree.len() / 2;
        if from >= self.log.places.len() {
            return None;
        }
        let mut node = leaves + from;
        // Up and to the right until a part is late enough, then down to its first such leaf.
        while self.tree[node] < late_ms {
            while node % 2 == 1 {
                node /= 2;
                if node == 0 {
                    return None;
                }
            }
            node += 1;
        }
        while node < leaves {
            node *= 2;
            if self.tree[node] < late_ms {
                node += 1;
            }
        }
        (node - leaves < self.log.places.len()).then_some(node - leaves)
    }
}
