//! What stands where: one record an offset, one offset a record, in the partition its key leads to.

use super::Findings;
use super::index::Index;
use super::log::{Log, Place};
use crate::class::Class;
use crate::operation::LogId;

pub(crate) fn check(index: &Index<'_>, findings: &mut Findings) {
    for (id, log) in &index.logs {
        for pair in log.places.windows(2).filter(|pair| pair[0].offset == pair[1].offset) {
            let [first, second] = [pair[0], pair[1]].map(|place| describe(index, place));
            let detail = format!("{id}/{} is {first}, and {second}", pair[0].offset);
            findings.report_of(*id, Class::InconsistentOffsets, detail);
        }
        for place in &log.places {
            check_sender(index, *id, place, findings);
        }
        check_copies(index, *id, log, findings);
    }
}

fn describe(index: &Index<'_>, place: Place) -> String {
    let Place { send, seen_by, .. } = place;
    format!("record {} by {}", index.sends.get(send).record.id, index.name(seen_by))
}

fn check_sender(index: &Index<'_>, id: LogId, place: &Place, findings: &mut Findings) {
    let send = index.sends.get(place.send);
    let record = send.record;
    if record.log.partition != id.partition {
        let (seen_by, leads_to) = (index.name(place.seen_by), record.log.partition);
        let detail = format!(
            "record {} is at {id}/{} by {seen_by}, its key leads to partition {leads_to}",
            record.id, place.offset
        );
        findings.report_of(id, Class::Misplaced, detail);
    }
    if send.by.has_failed() {
        let (seen_by, sent_by) = (index.name(place.seen_by), index.name(send.operation));
        let detail = format!(
            "record {} is at {id}/{} by {seen_by}, and its sending had failed for certain in {sent_by}",
            record.id, place.offset
        );
        findings.report_of(id, Class::AbortedRead, detail);
    }
}

/// Counts records that stand more than once in the end, and reports any that does where the broker drops copies.
fn check_copies(index: &Index<'_>, id: LogId, log: &Log, findings: &mut Findings) {
    let mut by_send: Vec<&Place> = log.places.iter().collect();
    by_send.sort_by_key(|place| place.send);
    for copies in by_send.chunk_by(|one, other| one.send == other.send) {
        let in_the_end = copies.iter().filter(|place| place.is_final).count() as u64;
        findings.judged.final_records += in_the_end;
        findings.judged.duplicates += in_the_end.saturating_sub(1);
        if copies.len() > 1 && index.history.header.idempotent {
            let offsets: Vec<String> = copies
                .iter()
                .map(|place| format!("{} by {}", place.offset, index.name(place.seen_by)))
                .collect();
            let record = index.sends.get(copies[0].send).record.id;
            findings.report_of(
                id,
                Class::Duplicate,
                format!("record {record} stands in {id} at {}", offsets.join(", at ")),
            );
        }
    }
}
