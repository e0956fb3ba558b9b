//! Records of one producer and log stand in the order they were sent.

use std::collections::BTreeMap;

use super::Findings;
use super::frontier::Frontier;
use super::index::Index;
use super::sends::Send;
use crate::class::Class;
use crate::operation::{LogId, Place};

pub(crate) fn check(index: &Index<'_>, findings: &mut Findings) {
    // By producer and counter, and so each log's records in the order they were sent.
    let mut lanes: BTreeMap<(u32, LogId), Vec<(u32, Send<'_>)>> = BTreeMap::new();
    for (number, send) in index.sends.iter().filter(|(_, send)| send.record.acked.is_some()) {
        lanes.entry((send.record.id.producer, send.record.log)).or_default().push((number, send));
    }
    if index.history.header.in_order {
        let first_places = first_places(index);
        lanes.values().for_each(|lane| check_in_order(index, lane, &first_places, findings));
    } else {
        lanes.values().for_each(|lane| check_one_by_one(index, lane, findings));
    }
}

/// Even those under way together stand in order, and so do the first copies of those that stand more than once.
fn check_in_order(
    index: &Index<'_>,
    lane: &[(u32, Send<'_>)],
    first_places: &[u64],
    findings: &mut Findings,
) {
    for pair in lane.windows(2) {
        let [(earlier_number, earlier), (number, send)] = [pair[0], pair[1]];
        if acked_at(earlier) >= acked_at(send) {
            report(index, &earlier, &send, findings);
        }
        let [first_earlier, first] = [earlier_number, number].map(|number| first_places[number as usize]);
        if first_earlier >= first && first_earlier < u64::MAX {
            let (earlier, record) = (earlier.record.id, send.record.id);
            let detail = format!(
                "record {record} stands first at {}/{first}, record {earlier}, sent before it, at {first_earlier}",
                send.record.log
            );
            findings.report_of(send.record.log, Class::NonMonotonicSend, detail);
        }
    }
}

/// Where each record stands first in the end. Logs from which records were removed are left out: first copies may have
/// been among them.
fn first_places(index: &Index<'_>) -> Vec<u64> {
    let mut first_places = vec![u64::MAX; index.sends.len()];
    for (id, log) in &index.logs {
        let is_compacted = index.topics.get(&id.topic).is_some_and(|life| life.terms().compacts);
        if is_compacted || log.last.start.is_some_and(|told| told.offset > 0) {
            continue;
        }
        for place in log.places.iter().filter(|place| place.is_final) {
            let first = &mut first_places[place.send as usize];
            *first = place.offset.min(*first);
        }
    }
    first_places
}

/// A record sent after an acknowledgement stands behind it.
fn check_one_by_one(index: &Index<'_>, lane: &[(u32, Send<'_>)], findings: &mut Findings) {
    let mut acked = Frontier::default();
    for (place, (_, send)) in (0..).zip(lane) {
        acked.see(send.by.over_ns(), acked_at(*send), place);
    }
    acked.settle();
    for (_, send) in lane {
        if let Some(earlier) = acked.before(send.by.invoked_ns)
            && earlier.value >= acked_at(*send)
        {
            report(index, &lane[earlier.operation as usize].1, send, findings);
        }
    }
}

fn acked_at(send: Send<'_>) -> u64 {
    send.record.acked.map_or(0, |Place { offset, .. }| offset)
}

fn report(index: &Index<'_>, earlier: &Send<'_>, send: &Send<'_>, findings: &mut Findings) {
    let detail = format!(
        "record {} was acknowledged at {}/{} to {}, record {}, sent before it, at {} to {}",
        send.record.id,
        send.record.log,
        acked_at(*send),
        index.name(send.operation),
        earlier.record.id,
        acked_at(*earlier),
        index.name(earlier.operation)
    );
    findings.report_of(send.record.log, Class::NonMonotonicSend, detail);
}
