//! What a checkpoint file holds: a header block, then frames of entries, each checksummed.
//!
//! Pure. The first frame is a snapshot of every log of the shard, each later one the logs that changed. An
//! entry says how far a log is known to be durable, so what is missing below it is damage and never a torn
//! tail. Entries may lag behind the truth, never run ahead of it. docs/FORMAT.md draws the bytes.

use corrente_protocol::ids::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition};
use corrente_runtime::buffer::{AlignedBuf, BLOCK};
use thiserror::Error;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::le::{i64_at, put, take, u16_at, u32_at, u64_at};
use crate::position::{FilePosition, HeaderHash, Nonce, file_len};

/// The one version written and read.
pub(crate) const CHECKPOINT_VERSION: u16 = 2;
/// Length of one entry.
pub(crate) const ENTRY_LEN: usize = 128;

const FILE_MAGIC: [u8; 8] = *b"CORRCKPT";
const FRAME_MAGIC: [u8; 4] = *b"CKFR";
const FILE_HASHED: usize = 40;
const FRAME_HEADER_LEN: usize = 64;
const FRAME_HASHED: usize = FRAME_HEADER_LEN - 8;

const _: () = assert!(FILE_HASHED + 8 <= BLOCK);

/// How far one log is known to be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointEntry {
    /// Whose log.
    pub log: TopicPartition,
    /// The last leader epoch in it.
    pub leader_epoch: LeaderEpoch,
    /// The first offset that may be read.
    pub log_start_offset: Offset,
    /// One past the last offset known to be flushed.
    pub flushed_offset: Offset,
    /// The segment in which the flushed part ends.
    pub segment_base: Offset,
    /// That file's nonce.
    pub nonce: Nonce,
    /// Where in that file the flushed part ends: the next extent begins here.
    pub position: FilePosition,
    /// Where the last extent below `position` begins; equal to `position` if the segment holds none.
    pub last_extent: FilePosition,
    /// The hash of that extent's header, or of the segment's header if it holds none.
    pub last_hash: HeaderHash,
    /// The latest timestamp in that segment, up to `position`.
    pub max_timestamp_ms: i64,
}

/// Whose checkpoint a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileHeader {
    /// Which start of the node wrote it.
    pub(crate) generation: u64,
    /// Which shard.
    pub(crate) shard: u16,
    /// Drawn anew for each file: what seeds the hashes of its frames.
    pub(crate) nonce: Nonce,
}

/// Why a file is not a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum CheckpointFault {
    #[error("no checkpoint header")]
    Foreign,
    #[error("checkpoint version {0}, this code reads {CHECKPOINT_VERSION}")]
    Version(u16),
    #[error("the snapshot does not verify")]
    Snapshot,
}

/// What could be read of one checkpoint file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CheckpointFile {
    pub(crate) header: FileHeader,
    /// Each frame that verified, in the order written, with its sequence number.
    pub(crate) frames: Vec<(u64, Vec<CheckpointEntry>)>,
}

impl FileHeader {
    /// The header as the block it is written as.
    pub(crate) fn encode(&self) -> AlignedBuf {
        let mut block = AlignedBuf::zeroed(BLOCK);
        put(&mut block, 0, FILE_MAGIC);
        put(&mut block, 8, CHECKPOINT_VERSION.to_le_bytes());
        put(&mut block, 10, self.shard.to_le_bytes());
        put(&mut block, 16, self.generation.to_le_bytes());
        put(&mut block, 24, self.nonce.0.to_le_bytes());
        let hash = xxh3_64(&block[..FILE_HASHED]);
        put(&mut block, FILE_HASHED, hash.to_le_bytes());
        block
    }

    fn decode(block: &[u8]) -> Result<FileHeader, CheckpointFault> {
        if block.len() < FILE_HASHED + 8 || block[..8] != FILE_MAGIC {
            return Err(CheckpointFault::Foreign);
        }
        if xxh3_64(&block[..FILE_HASHED]) != u64_at(block, FILE_HASHED) {
            return Err(CheckpointFault::Foreign);
        }
        let version = u16_at(block, 8);
        if version != CHECKPOINT_VERSION {
            return Err(CheckpointFault::Version(version));
        }
        Ok(FileHeader {
            generation: u64_at(block, 16),
            shard: u16_at(block, 10),
            nonce: Nonce(u64_at(block, 24)),
        })
    }
}

/// One frame as whole blocks, to be written at `position` of the file with this nonce.
pub(crate) fn encode_frame(
    entries: &[CheckpointEntry],
    sequence: u64,
    nonce: Nonce,
    position: FilePosition,
) -> AlignedBuf {
    let body_len = entries.len() * ENTRY_LEN;
    let mut frame = AlignedBuf::zeroed((FRAME_HEADER_LEN + body_len).next_multiple_of(BLOCK));
    let (head, body) = frame.split_at_mut(FRAME_HEADER_LEN);
    for (entry, out) in entries.iter().zip(body.chunks_exact_mut(ENTRY_LEN)) {
        entry.encode(out);
    }
    let seed = nonce.seed_at(position);
    let count = u32::try_from(entries.len()).expect("a shard holds fewer logs than 2^32");
    put(head, 0, FRAME_MAGIC);
    put(head, 4, count.to_le_bytes());
    put(head, 8, sequence.to_le_bytes());
    put(head, 16, xxh3_64_with_seed(&body[..body_len], seed).to_le_bytes());
    let hash = xxh3_64_with_seed(&head[..FRAME_HASHED], seed);
    put(head, FRAME_HASHED, hash.to_le_bytes());
    frame
}

/// The frame at `position`, with its length in whole blocks; `None` where no frame of this file stands.
fn decode_frame(
    bytes: &[u8],
    nonce: Nonce,
    position: FilePosition,
) -> Option<(u64, Vec<CheckpointEntry>, usize)> {
    let head = bytes.get(..FRAME_HEADER_LEN)?;
    let seed = nonce.seed_at(position);
    if head[..4] != FRAME_MAGIC
        || xxh3_64_with_seed(&head[..FRAME_HASHED], seed) != u64_at(head, FRAME_HASHED)
    {
        return None;
    }
    let count = usize::try_from(u32_at(head, 4)).ok()?;
    let body_len = count.checked_mul(ENTRY_LEN)?;
    let body = bytes.get(FRAME_HEADER_LEN..)?.get(..body_len)?;
    if xxh3_64_with_seed(body, seed) != u64_at(head, 16) {
        return None;
    }
    let entries = body.chunks_exact(ENTRY_LEN).map(CheckpointEntry::decode).collect();
    Some((u64_at(head, 8), entries, (FRAME_HEADER_LEN + body_len).next_multiple_of(BLOCK)))
}

impl CheckpointFile {
    /// Reads a whole file. The first frame that does not verify ends it; without a snapshot it is refused.
    pub(crate) fn decode(bytes: &[u8]) -> Result<CheckpointFile, CheckpointFault> {
        let header = FileHeader::decode(bytes)?;
        let mut frames: Vec<(u64, Vec<CheckpointEntry>)> = Vec::new();
        let mut at = BLOCK;
        while let Some(rest) = bytes.get(at..) {
            let Some((sequence, entries, len)) = decode_frame(rest, header.nonce, FilePosition(file_len(at)))
            else {
                break;
            };
            if frames.last().is_some_and(|(before, _)| *before >= sequence) {
                break;
            }
            frames.push((sequence, entries));
            at += len;
        }
        if frames.is_empty() {
            return Err(CheckpointFault::Snapshot);
        }
        Ok(CheckpointFile { header, frames })
    }

    /// Whether the bytes it was read from hold a frame behind the one that ended it: that one is rotten then, for a
    /// frame that was not finished is never followed by another.
    pub(crate) fn is_cut(&self, bytes: &[u8]) -> bool {
        let last = self.frames.last().map_or(0, |(sequence, _)| *sequence);
        (BLOCK..bytes.len()).step_by(BLOCK).any(|at| {
            let frame = decode_frame(&bytes[at..], self.header.nonce, FilePosition(file_len(at)));
            frame.is_some_and(|(sequence, ..)| sequence > last)
        })
    }
}

impl CheckpointEntry {
    fn encode(&self, out: &mut [u8]) {
        put(out, 0, self.log.topic.0);
        put(out, 16, self.log.partition.0.to_le_bytes());
        put(out, 20, self.leader_epoch.0.to_le_bytes());
        put(out, 24, self.log_start_offset.0.to_le_bytes());
        put(out, 32, self.flushed_offset.0.to_le_bytes());
        put(out, 40, self.segment_base.0.to_le_bytes());
        put(out, 48, self.nonce.0.to_le_bytes());
        put(out, 56, self.position.0.to_le_bytes());
        put(out, 64, self.last_extent.0.to_le_bytes());
        put(out, 72, self.last_hash.0.to_le_bytes());
        put(out, 80, self.max_timestamp_ms.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> CheckpointEntry {
        CheckpointEntry {
            log: TopicPartition {
                topic: TopicId(take(bytes, 0)),
                partition: PartitionIndex(u32_at(bytes, 16)),
            },
            leader_epoch: LeaderEpoch(u32_at(bytes, 20)),
            log_start_offset: Offset(u64_at(bytes, 24)),
            flushed_offset: Offset(u64_at(bytes, 32)),
            segment_base: Offset(u64_at(bytes, 40)),
            nonce: Nonce(u64_at(bytes, 48)),
            position: FilePosition(u64_at(bytes, 56)),
            last_extent: FilePosition(u64_at(bytes, 64)),
            last_hash: HeaderHash(u64_at(bytes, 72)),
            max_timestamp_ms: i64_at(bytes, 80),
        }
    }
}

/// Entry for fuzzing: a checkpoint file, as it lies there and with every hash set right.
#[doc(hidden)]
pub fn fuzz_checkpoint(bytes: &[u8]) {
    let mut sealed = bytes.to_vec();
    fuzz_seal(&mut sealed);
    for bytes in [bytes, &sealed] {
        let Ok(file) = CheckpointFile::decode(bytes) else { continue };
        assert!(file.frames.is_sorted_by(|a, b| a.0 < b.0), "frames out of order");
        let mut written = file.header.encode().to_vec();
        for (sequence, entries) in &file.frames {
            let at = FilePosition(file_len(written.len()));
            written.extend_from_slice(&encode_frame(entries, *sequence, file.header.nonce, at));
        }
        assert_eq!(CheckpointFile::decode(&written), Ok(file));
    }
}

/// Makes every hash right, up to the first frame that does not fit into the file.
pub(crate) fn fuzz_seal(bytes: &mut [u8]) {
    if bytes.len() < BLOCK {
        return;
    }
    let hash = xxh3_64(&bytes[..FILE_HASHED]);
    put(bytes, FILE_HASHED, hash.to_le_bytes());
    let nonce = FileHeader::decode(bytes).map_or(Nonce(0), |header| header.nonce);
    let mut at = BLOCK;
    while let Some(frame) = bytes.get_mut(at..).filter(|rest| rest.len() >= FRAME_HEADER_LEN) {
        let seed = nonce.seed_at(FilePosition(file_len(at)));
        let (head, rest) = frame.split_at_mut(FRAME_HEADER_LEN);
        let body = usize::try_from(u32_at(head, 4)).ok().and_then(|count| rest.get(..count * ENTRY_LEN));
        let Some(body) = body else { break };
        put(head, 16, xxh3_64_with_seed(body, seed).to_le_bytes());
        let hash = xxh3_64_with_seed(&head[..FRAME_HASHED], seed);
        put(head, FRAME_HASHED, hash.to_le_bytes());
        at += (FRAME_HEADER_LEN + body.len()).next_multiple_of(BLOCK);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: FileHeader = FileHeader { generation: 3, shard: 1, nonce: Nonce(77) };

    fn entry(n: u64) -> CheckpointEntry {
        CheckpointEntry {
            log: TopicPartition { topic: TopicId([7; 16]), partition: PartitionIndex(5) },
            leader_epoch: LeaderEpoch(2),
            log_start_offset: Offset(n),
            flushed_offset: Offset(n + 10),
            segment_base: Offset(n),
            nonce: Nonce(n ^ 1),
            position: FilePosition(n * 64),
            last_extent: FilePosition(n * 32),
            last_hash: HeaderHash(n ^ 2),
            max_timestamp_ms: i64::try_from(n).unwrap(),
        }
    }

    fn file(frames: &[(u64, Vec<CheckpointEntry>)]) -> Vec<u8> {
        let mut bytes = HEADER.encode().to_vec();
        for (sequence, entries) in frames {
            let at = FilePosition(file_len(bytes.len()));
            bytes.extend_from_slice(&encode_frame(entries, *sequence, HEADER.nonce, at));
        }
        bytes
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            frames in proptest::collection::vec(proptest::collection::vec(0..1_u64 << 40, 0..100), 1..5),
        ) {
            let frames = (1..).zip(frames.into_iter().map(|f| f.into_iter().map(entry).collect())).collect::<Vec<_>>();
            let decoded = CheckpointFile::decode(&file(&frames)).unwrap();
            prop_assert_eq!(decoded, CheckpointFile { header: HEADER, frames });
        }

        #[test]
        fn strange_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..9000)) {
            fuzz_checkpoint(&bytes);
        }
    }

    #[test]
    fn a_torn_delta_leaves_those_before_it() {
        let frames = [(1, vec![entry(1), entry(2)]), (2, vec![entry(3)]), (3, vec![entry(4)])];
        let whole = file(&frames);
        for cut in (0..whole.len()).step_by(97) {
            let read = CheckpointFile::decode(&whole[..cut]);
            match read {
                Ok(read) => assert_eq!(read.frames, frames[..read.frames.len()]),
                Err(_) => assert!(cut < 2 * BLOCK, "nothing was read of {cut} bytes"),
            }
        }
    }

    #[test]
    fn a_flipped_byte_ends_the_file_at_its_frame() {
        let frames = [(1, vec![entry(1)]), (2, vec![entry(2)])];
        let whole = file(&frames);
        for at in 0..FRAME_HEADER_LEN + ENTRY_LEN {
            let mut torn = whole.clone();
            torn[2 * BLOCK + at] ^= 0x40;
            assert_eq!(CheckpointFile::decode(&torn).unwrap().frames, frames[..1], "byte {at}");
            let mut torn = whole.clone();
            torn[BLOCK + at] ^= 0x40;
            assert_eq!(CheckpointFile::decode(&torn), Err(CheckpointFault::Snapshot), "byte {at}");
        }
        for at in 0..FILE_HASHED + 8 {
            let mut torn = whole.clone();
            torn[at] ^= 0x40;
            assert_eq!(CheckpointFile::decode(&torn), Err(CheckpointFault::Foreign), "byte {at}");
        }
    }

    #[test]
    fn a_frame_behind_a_rotten_one_tells_it_from_a_torn_one() {
        let frames = [(1, vec![entry(1)]), (2, vec![entry(2)]), (3, vec![entry(3)])];
        let is_cut = |bytes: &[u8]| CheckpointFile::decode(bytes).unwrap().is_cut(bytes);
        let mut bytes = file(&frames);
        assert!(!is_cut(&bytes));
        bytes[3 * BLOCK + 80] ^= 1;
        assert!(!is_cut(&bytes), "the last one may be torn");
        bytes[2 * BLOCK + 80] ^= 1;
        assert!(!is_cut(&bytes));
        bytes[3 * BLOCK + 80] ^= 1;
        assert!(is_cut(&bytes));
    }

    #[test]
    fn a_frame_of_an_earlier_life_is_not_ours() {
        let mut bytes = file(&[(1, vec![entry(1)])]);
        let at = FilePosition(file_len(bytes.len()));
        bytes.extend_from_slice(&encode_frame(&[entry(9)], 2, Nonce(78), at));
        assert_eq!(CheckpointFile::decode(&bytes).unwrap().frames.len(), 1);
    }
}
