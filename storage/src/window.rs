//! The window that gathers: appends are copied into it once, and the frozen buffer is both what is written
//! and what tail reads are served from.
//!
//! Pure: no I/O. A window becomes one extent. Its buffer begins with the bytes of the last, partly filled
//! block of the file, which the next write repeats; then the space of the extent's header; then batches.

use bytes::Bytes;
use corrente_protocol::ids::{LeaderEpoch, Offset};
use corrente_runtime::buffer::{AlignedBuf, BLOCK};

use crate::extent::{EXTENT_HEADER_LEN, ExtentHeader, NO_TIMESTAMP, body_hash};
use crate::position::{FilePosition, HeaderHash, Nonce, file_len};
use crate::tail_ring::Stretch;

/// Invariants: `front < BLOCK`; `front + EXTENT_HEADER_LEN <= buffer.len()`; `base_offset <= end_offset`, equal
/// exactly while it holds nothing.
#[derive(Debug)]
pub(crate) struct Window {
    buffer: AlignedBuf,
    front: usize,
    epoch: LeaderEpoch,
    base_offset: Offset,
    end_offset: Offset,
    max_timestamp_ms: i64,
}

/// A window whose bytes no longer change, ready to be written.
#[derive(Debug)]
pub(crate) struct SealedWindow {
    /// Whole blocks.
    pub(crate) data: Bytes,
    /// Where they belong: the block in which the extent begins.
    pub(crate) at: FilePosition,
    /// Where the extent begins.
    pub(crate) extent: FilePosition,
    /// Where the next extent begins.
    pub(crate) next_extent: FilePosition,
    /// The extent's header hash.
    pub(crate) hash: HeaderHash,
    pub(crate) epoch: LeaderEpoch,
    /// The latest timestamp in it.
    pub(crate) max_timestamp_ms: i64,
    /// The batches, as slices of `data`.
    pub(crate) stretch: Stretch,
}

impl Window {
    /// An empty window from `base_offset`, with memory for about `capacity` bytes of batches. `front` are
    /// the bytes of the last block of the file that stand before the extent.
    pub(crate) fn new(front: &[u8], base_offset: Offset, epoch: LeaderEpoch, capacity: usize) -> Self {
        assert!(front.len() < BLOCK, "{} bytes in front fill a block", front.len());
        let mut buffer = AlignedBuf::with_capacity(front.len() + EXTENT_HEADER_LEN + capacity);
        buffer.extend_from_slice(front);
        buffer.extend_from_slice(&[0; EXTENT_HEADER_LEN]);
        Self {
            buffer,
            front: front.len(),
            epoch,
            base_offset,
            end_offset: base_offset,
            max_timestamp_ms: NO_TIMESTAMP,
        }
    }

    /// Bytes of batches gathered.
    pub(crate) fn len(&self) -> usize {
        self.buffer.len() - self.front - EXTENT_HEADER_LEN
    }

    /// The epoch of all that it holds.
    pub(crate) fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// One past the last offset gathered.
    pub(crate) fn end_offset(&self) -> Offset {
        self.end_offset
    }

    /// Copies whole batches behind the others and returns the copy, to be stamped. They take the offsets up
    /// to `end_offset`; none of them has a timestamp later than `max_timestamp_ms`.
    pub(crate) fn gather(&mut self, batches: &[u8], end_offset: Offset, max_timestamp_ms: i64) -> &mut [u8] {
        assert!(end_offset > self.end_offset, "{end_offset} not beyond {}", self.end_offset);
        let filled = self.buffer.len();
        self.buffer.extend_from_slice(batches);
        self.end_offset = end_offset;
        self.max_timestamp_ms = self.max_timestamp_ms.max(max_timestamp_ms);
        &mut self.buffer[filled..]
    }

    /// Writes the header and freezes the bytes. `extent` is where the extent begins, as far into its block as
    /// the bytes in front are long; `prev` is the header it chains to.
    pub(crate) fn seal(mut self, extent: FilePosition, nonce: Nonce, prev: HeaderHash) -> SealedWindow {
        assert_eq!(extent.in_block(), self.front, "the window was begun for another place");
        assert!(self.base_offset < self.end_offset, "an empty window at {}", self.base_offset);
        let filled = self.buffer.len();
        let (head, body) = self.buffer[self.front..].split_at_mut(EXTENT_HEADER_LEN);
        let header = ExtentHeader {
            body_len: u32::try_from(body.len()).expect("appends are bounded far below 4 GiB"),
            leader_epoch: self.epoch,
            base_offset: self.base_offset,
            end_offset: self.end_offset,
            prev,
            body_hash: body_hash(body, nonce, extent),
            max_timestamp_ms: self.max_timestamp_ms,
        };
        let hash = header.encode(nonce, extent, head);
        let next_extent = header.next_position(extent);
        let at = extent.block_start();
        self.buffer.pad_to_block();
        let data = self.buffer.freeze();
        let batches = data.slice(self.front + EXTENT_HEADER_LEN..filled);
        let stretch = Stretch { base_offset: self.base_offset, end_offset: self.end_offset, batches };
        let (epoch, max_timestamp_ms) = (self.epoch, self.max_timestamp_ms);
        SealedWindow { data, at, extent, next_extent, hash, epoch, max_timestamp_ms, stretch }
    }
}

impl SealedWindow {
    /// The bytes of the last block that the next window repeats in front of its extent.
    pub(crate) fn front_of_next(&self) -> Bytes {
        let len = self.next_extent.in_block();
        let last_block = self.next_extent.block_start() - self.at;
        let start = usize::try_from(last_block).expect("within the buffer");
        self.data.slice(start..start + len)
    }

    /// One past the last byte it writes.
    pub(crate) fn write_end(&self) -> u64 {
        self.at.0 + file_len(self.data.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: Nonce = Nonce(5);

    #[test]
    fn a_sealed_window_is_an_extent_with_the_bytes_before_it() {
        let front = [7; 128];
        let mut window = Window::new(&front, Offset(10), LeaderEpoch(2), 100);
        window.gather(&[1; 300], Offset(12), 70).fill(3);
        window.gather(&[2; 5000], Offset(13), 60);
        assert_eq!(window.len(), 5300);
        let extent = FilePosition(8192 + 128);
        let sealed = window.seal(extent, NONCE, HeaderHash(9));

        assert_eq!(sealed.at, FilePosition(8192));
        assert_eq!(sealed.data.len(), 2 * BLOCK);
        assert_eq!(sealed.data[..128], front);
        let (header, hash) = ExtentHeader::decode(&sealed.data[128..], NONCE, extent).unwrap();
        assert_eq!(hash, sealed.hash);
        assert_eq!((header.base_offset, header.end_offset), (Offset(10), Offset(13)));
        assert_eq!(header.leader_epoch, LeaderEpoch(2));
        assert_eq!(header.max_timestamp_ms, 70);
        assert_eq!(header.verify_body(&sealed.stretch.batches, NONCE, extent), Ok(()));
        assert_eq!(sealed.stretch.batches[..300], [3; 300]);
        assert_eq!(sealed.stretch.batches[300..], [2; 5000]);
        assert_eq!(sealed.next_extent, header.next_position(extent));
        let next = sealed.front_of_next();
        assert_eq!(next.len(), sealed.next_extent.in_block());
        assert_eq!(next, sealed.data[BLOCK..BLOCK + next.len()]);
    }

    #[test]
    fn an_extent_that_fills_its_block_leaves_nothing_in_front() {
        for len in [BLOCK - EXTENT_HEADER_LEN, BLOCK - EXTENT_HEADER_LEN - 1] {
            let mut window = Window::new(&[], Offset(0), LeaderEpoch(0), len);
            window.gather(&vec![1; len], Offset(1), 0);
            let sealed = window.seal(FilePosition(4096), NONCE, HeaderHash(0));
            assert_eq!(sealed.next_extent, FilePosition(8192));
            assert_eq!(sealed.front_of_next().len(), 0);
        }
    }
}
