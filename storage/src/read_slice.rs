//! Cuts what a read may return out of the extents that hold it.
//!
//! Pure. Slices share the memory of the extent; whole batches only, beginning with the one that holds the
//! first offset asked for.

use bytes::Bytes;
use corrente_protocol::ids::Offset;

use crate::le::take;
use crate::tail_ring::Stretch;

/// A read in progress. Invariant: what has been taken ends at `next`.
#[derive(Debug)]
pub(crate) struct ReadSlice {
    next: Offset,
    up_to: Offset,
    room: usize,
    taken: Vec<Bytes>,
}

/// What a stretch did to a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Took {
    /// It was used up; the next one may follow.
    All,
    /// The read is complete.
    Done,
    /// A batch in it is not what it should be.
    Malformed,
}

impl ReadSlice {
    /// A read of the batches from the one that holds `from`, ending at or before `up_to`, of about `room`
    /// bytes: the first batch is taken whatever its size.
    pub(crate) fn new(from: Offset, up_to: Offset, room: usize) -> Self {
        Self { next: from, up_to, room, taken: Vec::new() }
    }

    /// The first offset not yet taken.
    pub(crate) fn next(&self) -> Offset {
        self.next
    }

    /// Whether nothing was taken yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// What was taken.
    pub(crate) fn finish(self) -> Vec<Bytes> {
        self.taken
    }

    /// Takes what it may of a stretch that holds `next`.
    pub(crate) fn take(&mut self, stretch: &Stretch) -> Took {
        assert!(stretch.base_offset <= self.next, "{} lies before {}", self.next, stretch.base_offset);
        assert!(self.next < stretch.end_offset, "{} lies beyond {}", self.next, stretch.end_offset);
        let whole = self.next == stretch.base_offset
            && stretch.end_offset <= self.up_to
            && stretch.batches.len() <= self.room;
        if whole {
            self.push(stretch.batches.clone(), stretch.end_offset);
            return if self.next >= self.up_to || self.room == 0 { Took::Done } else { Took::All };
        }
        self.take_part(stretch)
    }

    fn take_part(&mut self, stretch: &Stretch) -> Took {
        let bytes = &stretch.batches;
        let mut at = 0;
        let mut start = None;
        let mut end = 0;
        let mut outcome = Took::All;
        let mut next = self.next;
        while at < bytes.len() {
            let Some(batch) = BatchSpan::read(&bytes[at..]) else { return Took::Malformed };
            let from = at;
            at += batch.len;
            if batch.end_offset <= self.next {
                continue;
            }
            let taken = end - start.unwrap_or(end);
            let first = self.taken.is_empty() && start.is_none();
            if batch.end_offset > self.up_to || (taken + batch.len > self.room && !first) {
                outcome = Took::Done;
                break;
            }
            start.get_or_insert(from);
            end = at;
            next = batch.end_offset;
        }
        if let Some(start) = start {
            self.push(bytes.slice(start..end), next);
        }
        if outcome == Took::All {
            // Where compaction took the last batches, nothing of them is left to say so.
            self.next = stretch.end_offset;
        }
        if self.next >= self.up_to || self.room == 0 { Took::Done } else { outcome }
    }

    fn push(&mut self, batches: Bytes, next: Offset) {
        self.room = self.room.saturating_sub(batches.len());
        self.next = next;
        self.taken.push(batches);
    }
}

/// Where a batch ends, in bytes and in offsets. Its CRC is not looked at: the extent's hash covers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchSpan {
    pub(crate) base_offset: Offset,
    pub(crate) end_offset: Offset,
    pub(crate) len: usize,
}

/// Where a record batch says where it ends, as Kafka's format version 2 lays it out, in network byte order.
const BASE_OFFSET_AT: usize = 0;
const LENGTH_AT: usize = 8;
const LENGTH_COUNTS_FROM: usize = 12;
const LAST_OFFSET_DELTA_AT: usize = 23;
const BATCH_HEADER_LEN: usize = 61;

impl BatchSpan {
    /// Reads the batch `bytes` begin with; `None` if there is no whole one.
    pub(crate) fn read(bytes: &[u8]) -> Option<BatchSpan> {
        let head = bytes.get(..BATCH_HEADER_LEN)?;
        let base = u64::from_be_bytes(take(head, BASE_OFFSET_AT));
        let rest = u32::from_be_bytes(take(head, LENGTH_AT));
        let last_delta = u32::from_be_bytes(take(head, LAST_OFFSET_DELTA_AT));
        let len = usize::try_from(rest).ok()?.checked_add(LENGTH_COUNTS_FROM)?;
        let end = Offset(base).checked_add(u64::from(last_delta) + 1)?;
        let whole = (BATCH_HEADER_LEN..=bytes.len()).contains(&len);
        whole.then_some(BatchSpan { base_offset: Offset(base), end_offset: end, len })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(base: u64, count: u32, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        bytes[8..12].copy_from_slice(&u32::try_from(len - 12).unwrap().to_be_bytes());
        bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
        bytes
    }

    /// Offsets 10 to 12, 12 to 13 and 13 to 18, 100 bytes each.
    fn stretch() -> Stretch {
        let batches = [batch(10, 2, 100), batch(12, 1, 100), batch(13, 5, 100)].concat();
        Stretch { base_offset: Offset(10), end_offset: Offset(18), batches: batches.into() }
    }

    fn read(from: u64, up_to: u64, room: usize) -> (Took, Vec<(u64, u64)>) {
        let mut slice = ReadSlice::new(Offset(from), Offset(up_to), room);
        let took = slice.take(&stretch());
        let next = slice.next().0;
        let mut spans = Vec::new();
        for bytes in slice.finish() {
            let mut at = 0;
            while at < bytes.len() {
                let span = BatchSpan::read(&bytes[at..]).unwrap();
                spans.push((span.base_offset.0, span.end_offset.0));
                at += span.len;
            }
        }
        assert_eq!(spans.last().map_or(from, |span| span.1), next);
        (took, spans)
    }

    #[test]
    fn a_read_begins_with_the_batch_that_holds_its_offset() {
        assert_eq!(read(10, 99, 999), (Took::All, vec![(10, 12), (12, 13), (13, 18)]));
        assert_eq!(read(11, 99, 999), (Took::All, vec![(10, 12), (12, 13), (13, 18)]));
        assert_eq!(read(12, 99, 999), (Took::All, vec![(12, 13), (13, 18)]));
        assert_eq!(read(17, 99, 999), (Took::All, vec![(13, 18)]));
    }

    #[test]
    fn a_read_ends_at_whole_batches() {
        assert_eq!(read(10, 18, 999), (Took::Done, vec![(10, 12), (12, 13), (13, 18)]));
        assert_eq!(read(10, 17, 999), (Took::Done, vec![(10, 12), (12, 13)]));
        assert_eq!(read(10, 99, 250), (Took::Done, vec![(10, 12), (12, 13)]));
        assert_eq!(read(10, 99, 1), (Took::Done, vec![(10, 12)]));
        assert_eq!(read(10, 11, 999), (Took::Done, vec![]));
    }

    #[test]
    fn a_malformed_batch_is_said_to_be_one() {
        let mut stretch = stretch();
        stretch.batches = stretch.batches.slice(..250);
        let mut slice = ReadSlice::new(Offset(13), Offset(18), 999);
        assert_eq!(slice.take(&stretch), Took::Malformed);
    }

    proptest! {
        #[test]
        fn strange_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(span) = BatchSpan::read(&bytes) {
                prop_assert!(span.len <= bytes.len());
                prop_assert!(span.base_offset < span.end_offset);
            }
        }
    }
}
