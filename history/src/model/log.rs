//! A log of the model: what it keeps, and what it may let go.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::bare;
use crate::content::RecordId;
use crate::header::Topic;
use crate::operation::{OffsetAnswer, OffsetQuery};

/// A record that is kept.
#[derive(Clone, Copy)]
pub(super) struct Kept {
    pub(super) id: RecordId,
    pub(super) key: u32,
    pub(super) is_tombstone: bool,
    pub(super) timestamp_ms: i64,
    pub(super) sent_ms: i64,
    pub(super) bytes: u64,
}

#[derive(Default)]
pub(super) struct ModelLog {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) records: BTreeMap<u64, Kept>,
    /// Where each record stands first; what was removed is remembered.
    places: BTreeMap<RecordId, u64>,
    /// When each offset was given away, in ms since 1970: never earlier than the record there was sent and stamped.
    given_ms: Vec<i64>,
}

impl ModelLog {
    pub(super) fn find(&self, id: RecordId) -> Option<u64> {
        self.places.get(&id).copied()
    }

    pub(super) fn append(&mut self, record: Kept, now_ms: i64) -> u64 {
        self.given_ms.push(now_ms);
        let offset = self.end;
        self.places.entry(record.id).or_insert(offset);
        self.records.insert(offset, record);
        self.end += 1;
        offset
    }

    pub(super) fn start_at(&mut self, start: u64) {
        self.start = self.start.max(start);
        self.records = self.records.split_off(&self.start);
    }

    pub(super) fn answer(&self, query: OffsetQuery) -> OffsetAnswer {
        let found = |(offset, kept): (&u64, &Kept)| OffsetAnswer {
            offset: *offset,
            timestamp_ms: Some(kept.timestamp_ms),
        };
        match query {
            OffsetQuery::Earliest => bare(self.start),
            OffsetQuery::Latest => bare(self.end),
            OffsetQuery::Timestamp(at_ms) => self.first_at(at_ms).map_or(bare(self.end), found),
            OffsetQuery::MaxTimestamp => {
                self.latest_ms().and_then(|at_ms| self.first_at(at_ms)).map_or(bare(self.end), found)
            }
        }
    }

    fn first_at(&self, at_ms: i64) -> Option<(&u64, &Kept)> {
        let from = self.given_ms.partition_point(|given_ms| *given_ms < at_ms) as u64;
        self.records.range(from..).find(|(_, kept)| kept.timestamp_ms >= at_ms)
    }

    fn latest_ms(&self) -> Option<i64> {
        let mut latest_ms = None;
        for (offset, kept) in self.records.iter().rev() {
            if Some(self.given_ms[*offset as usize]) < latest_ms {
                break;
            }
            latest_ms = latest_ms.max(Some(kept.timestamp_ms));
        }
        latest_ms
    }

    /// Removes from the front what is too old or too much.
    pub(super) fn expire(&mut self, facts: &Topic, now_ms: i64) {
        let mut bytes_after: u64 = self.records.values().map(|kept| kept.bytes).sum();
        let mut start = self.start;
        for (offset, kept) in &self.records {
            bytes_after -= kept.bytes;
            let is_old = facts.retention_ms.is_some_and(|ms| kept.timestamp_ms + (ms as i64) < now_ms);
            let is_too_much = facts.retention_bytes.is_some_and(|bytes| bytes_after >= bytes);
            if !is_old && !is_too_much {
                break;
            }
            start = offset + 1;
        }
        self.start_at(start);
    }

    /// Removes some of what is superseded, and tombstones past their horizon.
    pub(super) fn compact(&mut self, facts: &Topic, now_ms: i64, rng: &mut Rng) {
        let mut latest: BTreeMap<u32, u64> = BTreeMap::new();
        for (offset, kept) in &self.records {
            latest.insert(kept.key, *offset);
        }
        self.records.retain(|offset, kept| {
            let is_superseded = latest[&kept.key] > *offset;
            let horizon_ms = kept.sent_ms + facts.delete_retention_ms as i64;
            let is_spent = kept.is_tombstone && horizon_ms < now_ms;
            // A tombstone stays as long as anything stands before it that it deletes.
            !(is_superseded && rng.bool() || is_spent && !is_superseded && rng.u8(..4) == 0)
        });
    }
}
