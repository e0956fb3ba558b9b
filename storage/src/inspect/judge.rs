//! Says of everything a walk meets in a segment whether it is sound, damaged, or a torn tail that was never
//! acknowledged.
//!
//! The rules are recovery's, applied to every extent instead of the newest: what lies below the checkpoint, before a
//! later extent or before where a segment is told to end was flushed once. What does not verify is held back until the
//! next thing decides.

use std::collections::VecDeque;
use std::ops::Range;

use corrente_protocol::ids::{LeaderEpoch, Offset};

use super::batches::{Body, Piece, pieces};
use super::segment_bytes::{SegmentBytes, Unreadable};
use super::walk::{Met, MetExtent, Nothing, OtherVersion, Walk};
use crate::checkpoint::CheckpointEntry;
use crate::extent::NO_TIMESTAMP;
use crate::position::{FilePosition, HeaderHash, Nonce, file_len};
use crate::segment::FIRST_EXTENT;

/// Where a segment should end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// Its own header says so, or its successor's.
    Told { position: FilePosition, hash: HeaderHash, offset: Offset },
    /// Something follows it from this offset on; nothing says where it ended itself.
    Below(Offset),
    /// It is the last of its log.
    Last,
}

/// What is known of a segment before it is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub(crate) nonce: Nonce,
    pub(crate) base_offset: Offset,
    /// What its first extent chains to, unless its header is lost.
    pub(crate) chain_start: Option<HeaderHash>,
    /// The leader epoch before its first batch.
    pub(crate) epoch: LeaderEpoch,
    /// Whether offsets may be without batches in it.
    pub(crate) gaps: bool,
    pub(crate) end: End,
    /// The checkpoint's entry, if the flushed part ended in this very file.
    pub(crate) checkpoint: Option<CheckpointEntry>,
}

/// What there is to say of a part of a segment.
pub(crate) enum Item {
    /// An extent; where its body is damaged its pieces say what is left.
    Extent { met: MetExtent, pieces: Vec<Piece> },
    /// Something was flushed here and is not there, and what went with it; perhaps no offsets.
    Damage { at: FilePosition, lost: Range<Offset>, why: String },
    /// Bytes behind the end of the log that were never acknowledged.
    TornTail { from: FilePosition, to: FilePosition },
}

/// What one looked at and did not find sound; decided by what comes next.
struct Doubt {
    from: FilePosition,
    filled_to: FilePosition,
    why: String,
    /// Its header verifies, its body does not.
    extent: Option<MetExtent>,
}

/// A segment while it is read.
///
/// Invariants: everything below `next_offset` has been told, sound or not; `prev` is what the next extent chains to
/// and none behind anything unsound.
pub(crate) struct Judge {
    walk: Walk,
    known: Known,
    next_offset: Offset,
    epoch: LeaderEpoch,
    prev: Option<HeaderHash>,
    position: FilePosition,
    max_timestamp_ms: i64,
    checkpoint_met: bool,
    sound: bool,
    doubts: Vec<Doubt>,
    ready: VecDeque<Item>,
    ended: bool,
}

impl Judge {
    pub(crate) fn new(bytes: SegmentBytes, known: Known) -> Judge {
        let end = match known.end {
            End::Told { position, .. } => position,
            End::Below(_) | End::Last => FilePosition(u64::MAX),
        };
        Judge {
            walk: Walk::new(bytes, known.nonce, FIRST_EXTENT, end),
            known,
            next_offset: known.base_offset,
            epoch: known.epoch,
            prev: known.chain_start,
            position: FIRST_EXTENT,
            max_timestamp_ms: NO_TIMESTAMP,
            checkpoint_met: false,
            sound: true,
            doubts: Vec::new(),
            ready: VecDeque::new(),
            ended: false,
        }
    }

    /// The next item; none at the end of the segment.
    pub(crate) async fn next(&mut self) -> Result<Option<Item>, OtherVersion> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            if self.ended {
                return Ok(None);
            }
            match self.walk.next().await? {
                Some(Met::Extent(met)) => self.met_extent(met),
                Some(Met::Nothing(nothing)) => self.met_nothing(nothing),
                None => self.end(),
            }
        }
    }

    /// One past the last offset that the segment stands for, as far as it was read.
    pub(crate) fn end_offset(&self) -> Offset {
        self.next_offset
    }

    /// The last leader epoch in it.
    pub(crate) fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// Where the last extent that counts ends.
    pub(crate) fn end_position(&self) -> FilePosition {
        self.position
    }

    /// The hash of the last header; none if the segment is unsound there.
    pub(crate) fn end_hash(&self) -> Option<HeaderHash> {
        self.prev
    }

    /// The first block of the file that could not be read until now.
    pub(crate) fn unreadable(&self) -> Option<&Unreadable> {
        self.walk.bytes().unreadable()
    }

    /// Whether nothing unsound was met.
    pub(crate) fn is_sound(&self) -> bool {
        self.sound
    }

    /// The latest timestamp of what verifies.
    pub(crate) fn max_timestamp_ms(&self) -> i64 {
        self.max_timestamp_ms
    }

    fn met_nothing(&mut self, nothing: Nothing) {
        let Nothing { from, filled_to, fault } = nothing;
        self.doubts.push(Doubt { from, filled_to, why: fault.to_string(), extent: None });
    }

    fn met_extent(&mut self, met: MetExtent) {
        // A header that verifies proves that everything before it was flushed.
        self.confirm_doubts(met.header.base_offset);
        if let Some(why) = self.contradiction(&met) {
            self.damage(met.position, self.next_offset..self.next_offset, why);
            return;
        }
        let missing = self.next_offset..met.header.base_offset;
        if !missing.is_empty() {
            self.damage(met.position, missing, "they are missing before this extent".to_owned());
        }
        if let Some(expected) = self.prev.filter(|prev| *prev != met.header.prev) {
            let why = format!("it follows a header {:?}, the one before it is {expected:?}", met.header.prev);
            self.damage(met.position, self.next_offset..self.next_offset, why);
        }
        match &met.fault {
            None => self.accept(met),
            Some(fault) => self.doubts.push(Doubt {
                from: met.position,
                filled_to: met.position + file_len(met.body.len()),
                why: fault.to_string(),
                extent: Some(met),
            }),
        }
    }

    /// Why an extent that is this file's cannot stand where it does.
    fn contradiction(&self, met: &MetExtent) -> Option<String> {
        let (base, end, epoch) = (met.header.base_offset, met.header.end_offset, met.header.leader_epoch);
        if base < self.next_offset {
            return Some(format!("an extent from offset {base}, expected {}", self.next_offset));
        }
        if epoch < self.epoch {
            return Some(format!("an extent of leader epoch {epoch} after {}", self.epoch));
        }
        let limit = self.limit()?;
        (end > limit).then(|| format!("an extent up to offset {end}, the segment ends at {limit}"))
    }

    /// The offset that the segment cannot reach beyond.
    fn limit(&self) -> Option<Offset> {
        match self.known.end {
            End::Told { offset, .. } | End::Below(offset) => Some(offset),
            End::Last => None,
        }
    }

    fn accept(&mut self, met: MetExtent) {
        let trust = match (&met.fault, self.known.gaps) {
            (Some(_), _) => Body::Damaged,
            (None, true) => Body::WholeWithGaps,
            (None, false) => Body::Whole,
        };
        let pieces = pieces(&met.body, &met.header, trust);
        self.sound &= pieces.iter().all(|piece| matches!(piece, Piece::Batch(_)));
        self.next_offset = met.header.end_offset;
        self.epoch = met.header.leader_epoch;
        self.prev = met.fault.is_none().then_some(met.hash);
        self.position = met.header.next_position(met.position);
        self.max_timestamp_ms = self.max_timestamp_ms.max(met.header.max_timestamp_ms);
        self.checkpoint_met |= self.known.checkpoint.is_some_and(|entry| {
            (entry.position, entry.last_hash, entry.flushed_offset)
                == (self.position, met.hash, self.next_offset)
        });
        self.ready.push_back(Item::Extent { met, pieces });
    }

    /// What was in doubt was flushed once: up to `to`, if nothing in it says otherwise.
    fn confirm_doubts(&mut self, to: Offset) {
        let to = self.limit().map_or(to, |limit| to.min(limit));
        let mut hole: Option<(FilePosition, String)> = None;
        for doubt in std::mem::take(&mut self.doubts) {
            let Some(met) = doubt.extent else {
                hole.get_or_insert((doubt.from, doubt.why));
                continue;
            };
            if let Some((at, why)) = hole.take() {
                self.damage(at, self.next_offset..met.header.base_offset.max(self.next_offset), why);
            }
            self.accept(met);
        }
        if let Some((at, why)) = hole {
            self.damage(at, self.next_offset..to.max(self.next_offset), why);
        }
    }

    fn damage(&mut self, at: FilePosition, lost: Range<Offset>, why: String) {
        self.next_offset = self.next_offset.max(lost.end);
        self.prev = None;
        self.sound = false;
        self.ready.push_back(Item::Damage { at, lost, why });
    }

    fn end(&mut self) {
        self.ended = true;
        match self.known.end {
            End::Told { position, hash, offset } => self.end_told(position, hash, offset),
            End::Below(limit) => self.end_below(limit),
            End::Last => self.end_last(),
        }
        if let Some(entry) = self.known.checkpoint
            && entry.position > FIRST_EXTENT
            && !self.checkpoint_met
            && self.sound
        {
            let why = "it is not the extent the checkpoint knows".to_owned();
            self.damage(entry.last_extent, self.next_offset..self.next_offset, why);
        }
    }

    fn end_told(&mut self, position: FilePosition, hash: HeaderHash, offset: Offset) {
        self.confirm_doubts(offset);
        if self.next_offset < offset {
            let why = format!("the extents end at {}, the segment ended at {position}", self.position);
            self.damage(self.position, self.next_offset..offset, why);
        } else if self.position != position || self.prev.is_some_and(|found| found != hash) {
            let why = format!("the last extent is not the one with which the segment ended at {position}");
            self.damage(self.position, offset..offset, why);
        }
    }

    /// An extent below what follows was flushed; of anything else nobody can say.
    fn end_below(&mut self, limit: Offset) {
        let last = self
            .doubts
            .iter()
            .rposition(|doubt| doubt.extent.as_ref().is_some_and(|met| met.header.end_offset <= limit));
        self.doubts.truncate(last.map_or(0, |last| last + 1));
        self.confirm_doubts(self.next_offset);
    }

    fn end_last(&mut self) {
        let flushed = self.known.checkpoint.map_or(self.next_offset, |entry| entry.flushed_offset);
        if self.next_offset < flushed {
            let known: Vec<Doubt> = std::mem::take(&mut self.doubts);
            let (below, beyond) = known
                .into_iter()
                .partition(|doubt| doubt.extent.as_ref().is_none_or(|met| met.header.base_offset < flushed));
            self.doubts = below;
            self.confirm_doubts(flushed);
            if self.next_offset < flushed {
                let why = format!("the file ends, {flushed} is known to be flushed");
                self.damage(self.position, self.next_offset..flushed, why);
            }
            self.doubts = beyond;
        }
        let filled = self.doubts.iter().filter(|doubt| doubt.filled_to > doubt.from);
        let (first, last) = (filled.clone().map(|doubt| doubt.from).min(), filled.map(|d| d.filled_to).max());
        if let (Some(from), Some(to)) = (first, last) {
            self.ready.push_back(Item::TornTail { from, to });
        }
    }
}
