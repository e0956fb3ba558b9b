//! What is gone though nothing allowed it: compares all that stood somewhere with the final reading.

use super::Findings;
use super::index::Index;
use super::log::{Log, Place};
use super::removal::Removal;
use crate::class::Class;
use crate::operation::LogId;

pub(crate) fn check(index: &Index<'_>, findings: &mut Findings) {
    // A final reading that was not finished does not say what is gone.
    if !index.came_to_rest {
        return;
    }
    for (id, log) in index.logs.iter().filter(|(_, log)| log.last.end.is_some()) {
        if index.topics.get(&id.topic).is_some_and(|life| life.may_be_gone()) {
            continue;
        }
        let removal = Removal::of(index, *id, log);
        for place in log.places.iter().filter(|place| !place.is_final) {
            if removal.may_be_gone_in_the_end(place, index.over_ns) {
                findings.judged.removed += u64::from(place.is_acked);
            } else {
                report(index, *id, log, place, findings);
            }
        }
    }
}

fn report(index: &Index<'_>, id: LogId, log: &Log, place: &Place, findings: &mut Findings) {
    let send = index.sends.get(place.send);
    let (record, offset) = (send.record.id, place.offset);
    let now = now_there(index, log, offset);
    if place.is_acked {
        let by = index.name(send.operation);
        let [start, end] = [log.last.start, log.last.end].map(|told| told.map_or(0, |told| told.offset));
        let was_passed = log.last.reached.is_some_and(|reached| offset < reached);
        let is_told_there = (start..end).contains(&offset) && !was_passed;
        let class = if is_told_there { Class::Unseen } else { Class::LostWrite };
        findings.report_of(
            id,
            class,
            format!("record {record} was acknowledged at {id}/{offset} to {by}, {now}"),
        );
    }
    if let Some(reader) = place.read_by {
        let reader = index.name(reader);
        findings.report_of(
            id,
            Class::LostRead,
            format!("record {record} was at {id}/{offset} for {reader}, {now}"),
        );
    }
}

fn now_there(index: &Index<'_>, log: &Log, offset: u64) -> String {
    let told = log.last.end.map_or_else(String::new, |told| format!(" before the end at {}", told.offset));
    match log.within(offset..offset.saturating_add(1)).iter().find(|place| place.is_final) {
        Some(other) => format!("where in the end there is record {}", index.sends.get(other.send).record.id),
        None => format!("where in the end there is nothing{told}"),
    }
}
