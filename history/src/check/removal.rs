//! What may rightly be gone: deleted on demand, too old, too much, or superseded by a later record of its key.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use super::index::Index;
use super::log::{Log, Place};
use super::sends::Send;
use super::topic_life::{Terms, TopicLife};
use crate::operation::LogId;

/// More than a record can take on a disk beyond its value.
const OVERHEAD_BYTES_MAX: u64 = 16 * 1024;
/// How far the broker's clock may be ahead of the one that the history was written by, on the same machine.
const CLOCK_SLACK_MS: i64 = 20;

/// What may be gone from one log.
pub(crate) struct Removal<'a> {
    index: &'a Index<'a>,
    log: &'a Log,
    life: Option<&'a TopicLife<'a>>,
    keys: OnceCell<BTreeMap<u32, Key>>,
    bytes_from: OnceCell<Vec<u64>>,
}

/// All records of one key that may stand in the log.
#[derive(Default)]
struct Key {
    /// By offset; those that stand somewhere or nowhere come last.
    records: Vec<Keyed>,
    /// For each of them: the earliest sending from there on.
    sent_from_here_ns: Vec<u64>,
}

#[derive(Clone, Copy)]
struct Keyed {
    offset: u64,
    invoked_ns: u64,
    is_final: bool,
    is_tombstone: bool,
}

impl<'a> Removal<'a> {
    pub(crate) fn of(index: &'a Index<'a>, id: LogId, log: &'a Log) -> Removal<'a> {
        Removal {
            index,
            log,
            life: index.topics.get(&id.topic),
            keys: OnceCell::new(),
            bytes_from: OnceCell::new(),
        }
    }

    /// Offsets before this one were asked to be deleted by then.
    pub(crate) fn deleted_before(&self, moment_ns: u64) -> u64 {
        // A request may have its effect from the moment it is made.
        self.log.deletions.before(moment_ns.saturating_add(1)).map_or(0, |deletion| deletion.value)
    }

    /// Whether the record at a place may have fallen below the log start by then, whatever was told of that.
    pub(crate) fn may_be_expired(&self, place: &Place, moment_ns: u64) -> bool {
        let terms = self.terms_at(moment_ns);
        let by_age = terms.retention_ms.is_some_and(|retention_ms| {
            let retention_ms = i64::try_from(retention_ms).unwrap_or(i64::MAX);
            let gone_ms = place.timestamp_ms.saturating_add(retention_ms);
            gone_ms <= self.index.wall_ms(moment_ns).saturating_add(CLOCK_SLACK_MS)
        });
        by_age || terms.retention_bytes.is_some_and(|bytes| self.may_have_after(place.offset, bytes))
    }

    fn terms_at(&self, moment_ns: u64) -> Terms {
        self.life.map_or(Terms::default(), |life| life.terms_at(moment_ns))
    }

    /// Whether anything but a request to delete moves the start of this log.
    pub(crate) fn expires(&self, moment_ns: u64) -> bool {
        self.terms_at(moment_ns).expires()
    }

    /// Whether so many bytes may stand behind an offset.
    fn may_have_after(&self, offset: u64, bytes: u64) -> bool {
        let first = self.log.places.partition_point(|place| place.offset <= offset);
        let known = (self.log.places.len() - first) as u64;
        let end = self.log.ends.last().map_or(0, |end| end.value);
        let has_unknown = end.saturating_sub(offset.saturating_add(1)) > known;
        let bytes_from = self.bytes_from.get_or_init(|| self.sum_up());
        has_unknown || bytes_from[first] >= bytes
    }

    /// For each place, and behind the last: the most bytes that may stand from there on.
    fn sum_up(&self) -> Vec<u64> {
        let mut sum = 0;
        let mut sums = vec![0];
        for place in self.log.places.iter().rev() {
            sum += u64::from(self.index.sends.get(place.send).record.bytes) + OVERHEAD_BYTES_MAX;
            sums.push(sum);
        }
        sums.reverse();
        sums
    }

    /// Whether records of this log may be removed by compaction.
    pub(crate) fn compacts(&self, moment_ns: u64) -> bool {
        self.terms_at(moment_ns).compacts
    }

    /// Whether the record at a place may have been gone by then.
    pub(crate) fn may_be_gone(&self, place: &Place, moment_ns: u64) -> bool {
        self.may_be_below_start(place, moment_ns) || self.may_be_superseded(place, moment_ns)
    }

    /// Whether the log may have begun behind the place by then.
    fn may_be_below_start(&self, place: &Place, moment_ns: u64) -> bool {
        place.offset < self.log.start_max_at(moment_ns)
            && (place.offset < self.deleted_before(moment_ns) || self.may_be_expired(place, moment_ns))
    }

    /// Whether a later record of its key may have been there, or it is a tombstone past its horizon.
    pub(crate) fn may_be_superseded(&self, place: &Place, moment_ns: u64) -> bool {
        if !self.compacts(moment_ns) {
            return false;
        }
        let send = self.index.sends.get(place.send);
        let Some(key) = self.keys().get(&send.record.key) else { return false };
        let later = key.records.partition_point(|record| record.offset <= place.offset);
        let sent_ns = key.sent_from_here_ns.get(later).copied().unwrap_or(u64::MAX);
        sent_ns <= moment_ns
            || (send.record.is_tombstone && self.is_past_horizon(send.by.invoked_ns, moment_ns))
    }

    /// Whether the record at a place may be absent from the final reading, over at this moment.
    pub(crate) fn may_be_gone_in_the_end(&self, place: &Place, moment_ns: u64) -> bool {
        if self.may_be_below_start(place, moment_ns) {
            return true;
        }
        if !self.compacts(moment_ns) {
            return false;
        }
        let key = self.index.sends.get(place.send).record.key;
        let Some(key) = self.keys().get(&key) else { return false };
        let later = key.records.partition_point(|record| record.offset < place.offset);
        key.records[later..].iter().rev().any(|record| {
            let is_later = record.offset > place.offset;
            let is_spent = record.is_tombstone && self.is_past_horizon(record.invoked_ns, moment_ns);
            (is_later && record.is_final) || is_spent
        })
    }

    fn is_past_horizon(&self, sent_ns: u64, moment_ns: u64) -> bool {
        let kept_ms = i64::try_from(self.terms_at(moment_ns).delete_retention_ms).unwrap_or(i64::MAX);
        self.index.wall_ms(sent_ns).saturating_add(kept_ms) <= self.index.wall_ms(moment_ns)
    }

    fn keys(&self) -> &BTreeMap<u32, Key> {
        self.keys.get_or_init(|| {
            let mut keys: BTreeMap<u32, Key> = BTreeMap::new();
            let mut add = |send: Send<'_>, offset, is_final| {
                let (invoked_ns, is_tombstone) = (send.by.invoked_ns, send.record.is_tombstone);
                let record = Keyed { offset, invoked_ns, is_final, is_tombstone };
                keys.entry(send.record.key).or_default().records.push(record);
            };
            let mut located = BTreeSet::new();
            for place in &self.log.places {
                add(self.index.sends.get(place.send), place.offset, place.is_final);
                if !self.log.in_doubt.is_empty() {
                    located.insert(place.send);
                }
            }
            for send in self.log.in_doubt.iter().filter(|send| !located.contains(send)) {
                add(self.index.sends.get(*send), u64::MAX, false);
            }
            keys.values_mut().for_each(Key::settle);
            keys
        })
    }
}

impl Key {
    fn settle(&mut self) {
        self.records.sort_by_key(|record| record.offset);
        let mut earliest = u64::MAX;
        let from_here = self.records.iter().rev().map(|record| {
            earliest = earliest.min(record.invoked_ns);
            earliest
        });
        self.sent_from_here_ns = from_here.collect();
        self.sent_from_here_ns.reverse();
    }
}
