//! One segment file: its name, its header, and what the log remembers of it.
//!
//! Pure. The header fills the first block; extents begin at [`FIRST_EXTENT`]. A file bears its final name
//! only once its header is durable, so a segment without a valid header is damage, never a torn tail.
//! docs/FORMAT.md draws the bytes.
//!
//! A segment is of one of two kinds. An *appended* one grows by an extent a flush; where it ended, its successor
//! says. A *rewritten* one was made whole from others, by compaction or by repair, before it got its name: its own
//! header says where it ends, and it stands for every offset in between, those it no longer holds included.

use corrente_protocol::ids::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition};
use corrente_runtime::buffer::{AlignedBuf, BLOCK};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use crate::extent::NO_TIMESTAMP;
use crate::le::{i64_at, put, take, u16_at, u32_at, u64_at};
use crate::log_start::LOG_START_NAME;
use crate::position::{BLOCK_BYTES, FilePosition, HeaderHash, Nonce};

/// Where a segment's first extent begins.
pub(crate) const FIRST_EXTENT: FilePosition = FilePosition(BLOCK_BYTES);
/// The one version written and read.
pub(crate) const SEGMENT_VERSION: u16 = 2;

const MAGIC: [u8; 8] = *b"CORRSEGM";
const HASHED: usize = 184;
const HEADER_LEN: usize = 192;
const NO_SEGMENT: u64 = u64::MAX;

const _: () = assert!(HEADER_LEN <= BLOCK);

/// Where the segment before this one ended: everything up to there was durable before this one began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PreviousSegment {
    /// Its base offset.
    pub(crate) base_offset: Offset,
    /// Where its last extent ends, padding counted.
    pub(crate) end_position: FilePosition,
    /// The last header in it: its last extent's, or its own if it has none.
    pub(crate) end_hash: HeaderHash,
    /// The latest timestamp of its records.
    pub(crate) max_timestamp_ms: i64,
}

/// Who made a rewritten segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RewrittenBy {
    /// Compaction: what is missing in it was superseded.
    Compaction,
    /// Compaction by a part of the keys; the others follow.
    PartOfCompaction,
    /// Repair: what is missing in it was damaged beyond reading.
    Repair,
}

/// What a rewritten segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rewritten {
    pub(crate) by: RewrittenBy,
    /// One past the last offset that it stands for.
    pub(crate) end_offset: Offset,
    /// Where its last extent ends, padding counted.
    pub(crate) end_position: FilePosition,
    /// The header hash of its last extent, or its [`chain_start`] if it has none.
    pub(crate) end_hash: HeaderHash,
    /// The latest timestamp of the records in it.
    pub(crate) max_timestamp_ms: i64,
    /// The leader epoch of its last batch.
    pub(crate) last_epoch: LeaderEpoch,
}

/// What the first extent of a rewritten segment chains to: its header is only known when its end is.
pub(crate) fn chain_start(nonce: Nonce) -> HeaderHash {
    HeaderHash(nonce.seed_at(FilePosition(0)))
}

/// The first block of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Whose log it is.
    pub(crate) log: TopicPartition,
    /// The first offset it can hold.
    pub(crate) base_offset: Offset,
    /// This use of the file.
    pub(crate) nonce: Nonce,
    /// When it was made, by the clock on the wall: what its age is counted from.
    pub(crate) created_ms: i64,
    /// The last leader epoch of the log when it was made.
    pub(crate) leader_epoch: LeaderEpoch,
    /// The segment before it when it was made; none for the first of a log.
    pub(crate) previous: Option<PreviousSegment>,
    /// Where it ends, if it was made whole.
    pub(crate) rewritten: Option<Rewritten>,
}

/// Why a block is not the header of the segment it should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum SegmentFault {
    #[error("the file ends within its header, at {0} bytes")]
    Short(usize),
    #[error("no segment header")]
    Foreign,
    #[error("segment version {0}, this code reads {SEGMENT_VERSION}")]
    Version(u16),
    #[error("a segment of {found}, expected {expected}")]
    OtherLog { found: TopicPartition, expected: TopicPartition },
    #[error("a segment from offset {found}, its name says {expected}")]
    OtherBase { found: Offset, expected: Offset },
    #[error("a segment of kind {0}, this code knows 0 to 3")]
    Kind(u16),
    #[error("a segment from offset {base} to {end} with {len} bytes")]
    Impossible { base: Offset, end: Offset, len: FilePosition },
}

impl SegmentHeader {
    /// The header as the block it is written as, with the hash the first extent chains to.
    pub(crate) fn encode(&self) -> (AlignedBuf, HeaderHash) {
        let mut block = AlignedBuf::zeroed(BLOCK);
        let out = &mut block[..HEADER_LEN];
        put(out, 0, MAGIC);
        put(out, 8, SEGMENT_VERSION.to_le_bytes());
        put(out, 12, self.log.partition.0.to_le_bytes());
        put(out, 16, self.log.topic.0);
        put(out, 32, self.base_offset.0.to_le_bytes());
        put(out, 40, self.nonce.0.to_le_bytes());
        put(out, 48, self.created_ms.to_le_bytes());
        put(out, 56, self.leader_epoch.0.to_le_bytes());
        put(out, 64, self.previous.map_or(NO_SEGMENT, |p| p.base_offset.0).to_le_bytes());
        put(out, 72, self.previous.map_or(0, |p| p.end_position.0).to_le_bytes());
        put(out, 80, self.previous.map_or(0, |p| p.end_hash.0).to_le_bytes());
        put(out, 88, self.previous.map_or(0, |p| p.max_timestamp_ms).to_le_bytes());
        if let Some(rewritten) = self.rewritten {
            put(out, 10, rewritten.by.kind().to_le_bytes());
            put(out, 96, rewritten.end_offset.0.to_le_bytes());
            put(out, 104, rewritten.end_position.0.to_le_bytes());
            put(out, 112, rewritten.end_hash.0.to_le_bytes());
            put(out, 120, rewritten.max_timestamp_ms.to_le_bytes());
            put(out, 128, rewritten.last_epoch.0.to_le_bytes());
        }
        let hash = xxh3_64(&out[..HASHED]);
        put(out, HASHED, hash.to_le_bytes());
        (block, HeaderHash(hash))
    }

    /// Reads the header from the first block of the file that should be `log`'s segment from `base_offset`.
    pub(crate) fn decode(
        block: &[u8],
        log: TopicPartition,
        base_offset: Offset,
    ) -> Result<(SegmentHeader, HeaderHash), SegmentFault> {
        if block.len() < HEADER_LEN {
            return Err(SegmentFault::Short(block.len()));
        }
        let hash = u64_at(block, HASHED);
        if block[..8] != MAGIC || xxh3_64(&block[..HASHED]) != hash {
            return Err(SegmentFault::Foreign);
        }
        let version = u16_at(block, 8);
        if version != SEGMENT_VERSION {
            return Err(SegmentFault::Version(version));
        }
        let found =
            TopicPartition { topic: TopicId(take(block, 16)), partition: PartitionIndex(u32_at(block, 12)) };
        if found != log {
            return Err(SegmentFault::OtherLog { found, expected: log });
        }
        let found = Offset(u64_at(block, 32));
        if found != base_offset {
            return Err(SegmentFault::OtherBase { found, expected: base_offset });
        }
        let previous_base = u64_at(block, 64);
        let previous = (previous_base != NO_SEGMENT).then(|| PreviousSegment {
            base_offset: Offset(previous_base),
            end_position: FilePosition(u64_at(block, 72)),
            end_hash: HeaderHash(u64_at(block, 80)),
            max_timestamp_ms: i64_at(block, 88),
        });
        let rewritten = RewrittenBy::of_kind(u16_at(block, 10))?.map(|by| Rewritten {
            by,
            end_offset: Offset(u64_at(block, 96)),
            end_position: FilePosition(u64_at(block, 104)),
            end_hash: HeaderHash(u64_at(block, 112)),
            max_timestamp_ms: i64_at(block, 120),
            last_epoch: LeaderEpoch(u32_at(block, 128)),
        });
        if let Some(Rewritten { end_offset, end_position, .. }) = rewritten
            && (end_offset <= base_offset || end_position < FIRST_EXTENT)
        {
            return Err(SegmentFault::Impossible { base: base_offset, end: end_offset, len: end_position });
        }
        let header = SegmentHeader {
            log,
            base_offset,
            nonce: Nonce(u64_at(block, 40)),
            created_ms: i64_at(block, 48),
            leader_epoch: LeaderEpoch(u32_at(block, 56)),
            previous,
            rewritten,
        };
        Ok((header, HeaderHash(hash)))
    }
}

/// The nonce of a header that does not verify, if its block still says whose it is: then the rot lies elsewhere in it.
/// Only a guess, to be confirmed by extents.
pub(crate) fn probable_nonce(block: &[u8], log: TopicPartition, base_offset: Offset) -> Option<Nonce> {
    let says = block.len() >= HEADER_LEN
        && take::<16>(block, 16) == log.topic.0
        && u32_at(block, 12) == log.partition.0
        && u64_at(block, 32) == base_offset.0;
    says.then(|| Nonce(u64_at(block, 40)))
}

impl RewrittenBy {
    fn kind(self) -> u16 {
        match self {
            RewrittenBy::Compaction => 1,
            RewrittenBy::Repair => 2,
            RewrittenBy::PartOfCompaction => 3,
        }
    }

    fn of_kind(kind: u16) -> Result<Option<RewrittenBy>, SegmentFault> {
        match kind {
            0 => Ok(None),
            1 => Ok(Some(RewrittenBy::Compaction)),
            2 => Ok(Some(RewrittenBy::Repair)),
            3 => Ok(Some(RewrittenBy::PartOfCompaction)),
            other => Err(SegmentFault::Kind(other)),
        }
    }
}

/// What the log remembers of a segment, open or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) base_offset: Offset,
    pub(crate) nonce: Nonce,
    /// The hash of its header.
    pub(crate) header_hash: HeaderHash,
    /// What its header says of the segment before it.
    pub(crate) previous: Option<PreviousSegment>,
    /// What its header says of itself, if it was made whole.
    pub(crate) rewritten: Option<Rewritten>,
    /// The leader epoch before its first batch.
    pub(crate) epoch_before: LeaderEpoch,
    /// When it was made.
    pub(crate) created_ms: i64,
    /// Where its last extent ends; grows while it is the active one.
    pub(crate) end_position: FilePosition,
    /// The latest timestamp of its records; grows while it is the active one.
    pub(crate) max_timestamp_ms: i64,
}

impl Segment {
    /// A segment as its header says it is: empty, or made whole.
    pub(crate) fn new(header: &SegmentHeader, header_hash: HeaderHash) -> Segment {
        Segment {
            base_offset: header.base_offset,
            nonce: header.nonce,
            header_hash,
            previous: header.previous,
            rewritten: header.rewritten,
            epoch_before: header.leader_epoch,
            created_ms: header.created_ms,
            end_position: header.rewritten.map_or(FIRST_EXTENT, |rewritten| rewritten.end_position),
            max_timestamp_ms: header.rewritten.map_or(NO_TIMESTAMP, |rewritten| rewritten.max_timestamp_ms),
        }
    }

    /// What the first extent in it chains to.
    pub(crate) fn chain_start(&self) -> HeaderHash {
        match self.rewritten {
            Some(_) => chain_start(self.nonce),
            None => self.header_hash,
        }
    }
}

/// The file name of the segment from `base_offset`.
pub(crate) fn segment_name(base_offset: Offset) -> String {
    format!("{:020}.seg", base_offset.0)
}

/// The file name of its index.
pub(crate) fn index_name(base_offset: Offset) -> String {
    format!("{:020}.idx", base_offset.0)
}

/// The name a segment bears until its header is durable.
pub(crate) fn unborn_name(base_offset: Offset) -> String {
    format!("{:020}.new", base_offset.0)
}

/// The directory, in a log's own, that holds the files which a repair has replaced.
pub(crate) const SET_ASIDE_NAME: &str = "set-aside";

/// What a name in a log's directory stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileName {
    /// A segment from this offset.
    Segment(Offset),
    /// The index of the segment from this offset.
    Index(Offset),
    /// The log start.
    LogStart,
    /// What repair has put aside.
    SetAside,
    /// A file that was never finished.
    Unfinished,
    /// Not ours; left alone.
    Strange,
}

/// Reads a name in a log's directory.
pub(crate) fn parse_name(name: &str) -> FileName {
    match name {
        LOG_START_NAME => return FileName::LogStart,
        SET_ASIDE_NAME => return FileName::SetAside,
        _ if name.strip_prefix(LOG_START_NAME).is_some_and(is_interim) => return FileName::Unfinished,
        _ => {}
    }
    let Some((stem, kind)) = name.split_once('.') else { return FileName::Strange };
    if stem.len() != 20 || !stem.bytes().all(|byte| byte.is_ascii_digit()) {
        return FileName::Strange;
    }
    let Ok(base) = stem.parse() else { return FileName::Strange };
    match kind {
        "seg" => FileName::Segment(Offset(base)),
        "idx" => FileName::Index(Offset(base)),
        "new" | "idx.new" | "idx.tmp" => FileName::Unfinished,
        _ => FileName::Strange,
    }
}

/// What small files are called until they are whole.
fn is_interim(ending: &str) -> bool {
    matches!(ending, ".new" | ".tmp")
}

/// Makes the hash of the header at the front right, whatever the rest of it is.
pub(crate) fn fuzz_seal(block: &mut [u8]) {
    if block.len() >= HEADER_LEN {
        let hash = xxh3_64(&block[..HASHED]);
        put(block, HASHED, hash.to_le_bytes());
    }
}

/// Entry for fuzzing: a segment's first block, as it lies there and with its hash set right.
#[doc(hidden)]
pub fn fuzz_segment_header(bytes: &[u8]) {
    let log = TopicPartition { topic: TopicId([0; 16]), partition: PartitionIndex(0) };
    let mut sealed = bytes.to_vec();
    fuzz_seal(&mut sealed);
    for bytes in [bytes, &sealed] {
        let guess = probable_nonce(bytes, log, Offset(0));
        let Ok((header, _)) = SegmentHeader::decode(bytes, log, Offset(0)) else { continue };
        assert_eq!(guess, Some(header.nonce));
        let (written, hash) = header.encode();
        assert_eq!(SegmentHeader::decode(&written, log, Offset(0)), Ok((header, hash)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn arbitrary() -> impl Strategy<Value = SegmentHeader> {
        let numbers = (0..u64::MAX / 2, any::<u64>(), any::<i64>(), any::<u32>());
        let previous = proptest::option::of((0..u64::MAX, any::<u64>(), any::<u64>(), any::<i64>()));
        let rewritten = proptest::option::of((any::<bool>(), 1..1_u64 << 40, any::<u64>(), any::<i64>()));
        (any::<[u8; 16]>(), any::<u32>(), numbers, previous, rewritten).prop_map(
            |(topic, partition, (base, nonce, created_ms, epoch), previous, rewritten)| SegmentHeader {
                log: TopicPartition { topic: TopicId(topic), partition: PartitionIndex(partition) },
                base_offset: Offset(base),
                nonce: Nonce(nonce),
                created_ms,
                leader_epoch: LeaderEpoch(epoch),
                previous: previous.map(|(base, position, hash, max_timestamp_ms)| PreviousSegment {
                    base_offset: Offset(base),
                    end_position: FilePosition(position),
                    end_hash: HeaderHash(hash),
                    max_timestamp_ms,
                }),
                rewritten: rewritten.map(|(compacted, count, hash, max_timestamp_ms)| Rewritten {
                    by: if compacted { RewrittenBy::Compaction } else { RewrittenBy::Repair },
                    end_offset: Offset(base + count),
                    end_position: FilePosition(4096 + count * 64),
                    end_hash: HeaderHash(hash),
                    max_timestamp_ms,
                    last_epoch: LeaderEpoch(epoch.wrapping_add(partition)),
                }),
            },
        )
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(header in arbitrary()) {
            let (block, hash) = header.encode();
            let decoded = SegmentHeader::decode(&block, header.log, header.base_offset);
            prop_assert_eq!(decoded, Ok((header, hash)));
        }

        #[test]
        fn every_flipped_byte_is_seen(header in arbitrary(), flip in 1..=255_u8) {
            let (mut block, _) = header.encode();
            for at in 0..HEADER_LEN {
                block[at] ^= flip;
                prop_assert!(SegmentHeader::decode(&block, header.log, header.base_offset).is_err());
                block[at] ^= flip;
            }
        }

        #[test]
        fn strange_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            fuzz_segment_header(&bytes);
        }
    }

    #[test]
    fn names_are_read_back() {
        let base = Offset(42);
        assert_eq!(segment_name(base), "00000000000000000042.seg");
        assert_eq!(parse_name(&segment_name(base)), FileName::Segment(base));
        assert_eq!(parse_name(&index_name(base)), FileName::Index(base));
        assert_eq!(parse_name(&unborn_name(base)), FileName::Unfinished);
        for strange in ["", "lock", "42.seg", "00000000000000000042", "99999999999999999999.seg", "../x"] {
            assert_eq!(parse_name(strange), FileName::Strange, "{strange}");
        }
    }
}
