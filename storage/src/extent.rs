//! One extent: what one flush wrote. A header of 64 bytes, then record batches back to back.
//!
//! Pure: encodes, decodes and verifies; never reads or writes a file. docs/FORMAT.md draws the bytes.
//!
//! An extent is taken for ours only if its header hash, seeded with the file's nonce and the extent's own
//! position, agrees. So bytes of an earlier life of the file, bytes written to the wrong place and extents
//! inside a payload never pass. `prev` names the header before it (the segment's own for the first), so a
//! valid extent whose `prev` agrees proves that all before it were flushed: one write is in flight per log.

use corrente_protocol::ids::{LeaderEpoch, Offset};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::le::{i64_at, put, u16_at, u32_at, u64_at};
use crate::position::{BLOCK_BYTES, FilePosition, HeaderHash, Nonce, file_len};

/// Length of an extent header.
pub(crate) const EXTENT_HEADER_LEN: usize = 64;
/// Extents begin at multiples of this, so that a header never crosses a sector and can be looked for.
pub(crate) const EXTENT_ALIGN: usize = 64;
/// The one version written and read.
pub(crate) const EXTENT_VERSION: u16 = 2;
/// The latest timestamp of what holds no records: before every other.
pub(crate) const NO_TIMESTAMP: i64 = i64::MIN;
/// The latest timestamp of what was not looked at: not before any other.
pub(crate) const UNKNOWN_TIMESTAMP: i64 = i64::MAX;

const MAGIC: [u8; 4] = *b"CEXT";
const HASHED: usize = EXTENT_HEADER_LEN - 8;

const _: () = assert!(EXTENT_HEADER_LEN <= EXTENT_ALIGN);
const _: () = assert!(BLOCK_BYTES.is_multiple_of(EXTENT_ALIGN as u64));

/// What an extent says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExtentHeader {
    /// Bytes of record batches after the header, at least one.
    pub(crate) body_len: u32,
    /// The epoch of every batch in it.
    pub(crate) leader_epoch: LeaderEpoch,
    /// The first offset it stands for: where the extent before it ended. The first batch's base offset, or below
    /// it where compaction took what was between.
    pub(crate) base_offset: Offset,
    /// One past the last batch's last offset.
    pub(crate) end_offset: Offset,
    /// The latest of its batches' max timestamps, in ms since 1970.
    pub(crate) max_timestamp_ms: i64,
    /// The header before this one in the segment.
    pub(crate) prev: HeaderHash,
    /// XXH3 of the body.
    pub(crate) body_hash: u64,
}

/// Why bytes are not an extent of this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum ExtentFault {
    /// Nothing was ever written here, or what was written is gone.
    #[error("only zeros")]
    Zeros,
    /// Other bytes: torn, stale, misplaced or rotten.
    #[error("no extent of this file")]
    Foreign,
    /// Ours by its hash, but of a version this code cannot read.
    #[error("extent version {0}, this code reads {EXTENT_VERSION}")]
    Version(u16),
    /// Ours by its hash, but it says something that cannot be.
    #[error("offsets {base} to {end} with {body_len} bytes")]
    Impossible { base: Offset, end: Offset, body_len: u32 },
    /// The body does not have the hash its header names.
    #[error("body hash {found:016x}, the header says {expected:016x}")]
    Body { expected: u64, found: u64 },
}

impl ExtentHeader {
    /// Writes the header for an extent at `position` into the first 64 bytes of `out`.
    pub(crate) fn encode(&self, nonce: Nonce, position: FilePosition, out: &mut [u8]) -> HeaderHash {
        assert!(self.body_len > 0, "extent at {position} holds nothing");
        assert!(self.base_offset < self.end_offset, "{} not below {}", self.base_offset, self.end_offset);
        let out = &mut out[..EXTENT_HEADER_LEN];
        out.fill(0);
        put(out, 0, MAGIC);
        put(out, 4, EXTENT_VERSION.to_le_bytes());
        put(out, 8, self.body_len.to_le_bytes());
        put(out, 12, self.leader_epoch.0.to_le_bytes());
        put(out, 16, self.base_offset.0.to_le_bytes());
        put(out, 24, self.end_offset.0.to_le_bytes());
        put(out, 32, self.prev.0.to_le_bytes());
        put(out, 40, self.body_hash.to_le_bytes());
        put(out, 48, self.max_timestamp_ms.to_le_bytes());
        let hash = xxh3_64_with_seed(&out[..HASHED], nonce.seed_at(position));
        put(out, HASHED, hash.to_le_bytes());
        HeaderHash(hash)
    }

    /// Reads the header at `position`; `bytes` begins there and holds at least 64.
    pub(crate) fn decode(
        bytes: &[u8],
        nonce: Nonce,
        position: FilePosition,
    ) -> Result<(ExtentHeader, HeaderHash), ExtentFault> {
        let bytes = &bytes[..EXTENT_HEADER_LEN];
        if bytes[..4] != MAGIC {
            let zeros = bytes.iter().all(|byte| *byte == 0);
            return Err(if zeros { ExtentFault::Zeros } else { ExtentFault::Foreign });
        }
        let hash = u64_at(bytes, HASHED);
        if xxh3_64_with_seed(&bytes[..HASHED], nonce.seed_at(position)) != hash {
            return Err(ExtentFault::Foreign);
        }
        let version = u16_at(bytes, 4);
        if version != EXTENT_VERSION {
            return Err(ExtentFault::Version(version));
        }
        let header = ExtentHeader {
            body_len: u32_at(bytes, 8),
            leader_epoch: LeaderEpoch(u32_at(bytes, 12)),
            base_offset: Offset(u64_at(bytes, 16)),
            end_offset: Offset(u64_at(bytes, 24)),
            prev: HeaderHash(u64_at(bytes, 32)),
            body_hash: u64_at(bytes, 40),
            max_timestamp_ms: i64_at(bytes, 48),
        };
        if header.body_len == 0 || header.base_offset >= header.end_offset {
            return Err(ExtentFault::Impossible {
                base: header.base_offset,
                end: header.end_offset,
                body_len: header.body_len,
            });
        }
        Ok((header, HeaderHash(hash)))
    }

    /// Checks the body of an extent whose header stands at `position`.
    pub(crate) fn verify_body(
        &self,
        body: &[u8],
        nonce: Nonce,
        position: FilePosition,
    ) -> Result<(), ExtentFault> {
        debug_assert_eq!(file_len(body.len()), u64::from(self.body_len));
        let found = body_hash(body, nonce, position);
        if found != self.body_hash {
            return Err(ExtentFault::Body { expected: self.body_hash, found });
        }
        Ok(())
    }

    /// Where the next extent of the segment would begin.
    pub(crate) fn next_position(&self, position: FilePosition) -> FilePosition {
        next_extent_position(position, u64::from(self.body_len))
    }

    /// Header and body, without the padding behind.
    pub(crate) fn total_len(&self) -> u64 {
        EXTENT_HEADER_LEN as u64 + u64::from(self.body_len)
    }
}

/// The hash of a body whose header stands at `position`: seeded unlike the header's own.
pub(crate) fn body_hash(body: &[u8], nonce: Nonce, position: FilePosition) -> u64 {
    xxh3_64_with_seed(body, nonce.seed_at(position + EXTENT_HEADER_LEN as u64))
}

/// Where an extent ends, padding counted, that begins at `position` and holds `body_len` bytes.
pub(crate) fn next_extent_position(position: FilePosition, body_len: u64) -> FilePosition {
    let end = position.0 + EXTENT_HEADER_LEN as u64 + body_len;
    FilePosition(end.next_multiple_of(EXTENT_ALIGN as u64))
}

/// Makes the hash of the header at the front right, whatever the rest of it is.
pub(crate) fn fuzz_seal(header: &mut [u8], nonce: Nonce, position: FilePosition) {
    let hash = xxh3_64_with_seed(&header[..HASHED], nonce.seed_at(position));
    put(header, HASHED, hash.to_le_bytes());
}

/// Entry for fuzzing: an extent, as it lies there and with the hash of its header set right.
#[doc(hidden)]
pub fn fuzz_extent(bytes: &[u8]) {
    let (nonce, position) = (Nonce(0), FilePosition(4096));
    if bytes.len() < EXTENT_HEADER_LEN {
        return;
    }
    let mut sealed = bytes.to_vec();
    fuzz_seal(&mut sealed, nonce, position);
    for bytes in [bytes, &sealed] {
        let Ok((header, _)) = ExtentHeader::decode(bytes, nonce, position) else { continue };
        assert!(header.base_offset < header.end_offset);
        assert!(header.next_position(position) >= position + header.total_len());
        let mut written = [0; EXTENT_HEADER_LEN];
        let hash = header.encode(nonce, position, &mut written);
        assert_eq!(ExtentHeader::decode(&written, nonce, position), Ok((header, hash)));
        let body =
            usize::try_from(header.body_len).ok().and_then(|len| bytes[EXTENT_HEADER_LEN..].get(..len));
        let _ = body.map(|body| header.verify_body(body, nonce, position));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn arbitrary() -> impl Strategy<Value = (ExtentHeader, Nonce, FilePosition)> {
        let offsets = (0..u64::MAX / 2, 1..u64::MAX / 2);
        let header = (1..u32::MAX, any::<u32>(), offsets, any::<u64>(), any::<u64>(), any::<i64>());
        (header, any::<u64>(), 0..u64::MAX / 128).prop_map(|(fields, nonce, block)| {
            let (body_len, epoch, (base, count), prev, body_hash, max_timestamp_ms) = fields;
            let header = ExtentHeader {
                body_len,
                leader_epoch: LeaderEpoch(epoch),
                base_offset: Offset(base),
                end_offset: Offset(base + count),
                prev: HeaderHash(prev),
                body_hash,
                max_timestamp_ms,
            };
            (header, Nonce(nonce), FilePosition(block * 64))
        })
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded((header, nonce, position) in arbitrary()) {
            let mut bytes = [0; EXTENT_HEADER_LEN];
            let hash = header.encode(nonce, position, &mut bytes);
            prop_assert_eq!(ExtentHeader::decode(&bytes, nonce, position), Ok((header, hash)));
        }

        #[test]
        fn every_flipped_byte_is_seen((header, nonce, position) in arbitrary(), flip in 1..=255_u8) {
            let mut bytes = [0; EXTENT_HEADER_LEN];
            header.encode(nonce, position, &mut bytes);
            for at in 0..EXTENT_HEADER_LEN {
                bytes[at] ^= flip;
                prop_assert_eq!(ExtentHeader::decode(&bytes, nonce, position), Err(ExtentFault::Foreign));
                bytes[at] ^= flip;
            }
        }

        #[test]
        fn elsewhere_it_is_not_ours((header, nonce, position) in arbitrary()) {
            let mut bytes = [0; EXTENT_HEADER_LEN];
            header.encode(nonce, position, &mut bytes);
            prop_assert!(ExtentHeader::decode(&bytes, nonce, position + 64).is_err());
            prop_assert!(ExtentHeader::decode(&bytes, Nonce(nonce.0 ^ 1), position).is_err());
        }

        #[test]
        fn strange_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            fuzz_extent(&bytes);
        }
    }

    #[test]
    fn every_flipped_byte_of_a_body_is_seen() {
        let (nonce, position) = (Nonce(9), FilePosition(8192));
        let mut body = (0..300_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>();
        let header = ExtentHeader {
            body_len: 1200,
            leader_epoch: LeaderEpoch(1),
            base_offset: Offset(0),
            end_offset: Offset(1),
            prev: HeaderHash(0),
            body_hash: body_hash(&body, nonce, position),
            max_timestamp_ms: 0,
        };
        assert_eq!(header.verify_body(&body, nonce, position), Ok(()));
        for at in 0..body.len() {
            body[at] ^= 0x10;
            assert!(header.verify_body(&body, nonce, position).is_err());
            body[at] ^= 0x10;
        }
    }

    #[test]
    fn zeros_are_told_from_rubbish() {
        let decode = |bytes: &[u8]| ExtentHeader::decode(bytes, Nonce(1), FilePosition(4096)).unwrap_err();
        assert_eq!(decode(&[0; 64]), ExtentFault::Zeros);
        assert_eq!(decode(&[1; 64]), ExtentFault::Foreign);
    }

    #[test]
    fn extents_begin_at_multiples_of_64() {
        assert_eq!(next_extent_position(FilePosition(4096), 1), FilePosition(4096 + 128));
        assert_eq!(next_extent_position(FilePosition(4096), 64), FilePosition(4096 + 128));
        assert_eq!(next_extent_position(FilePosition(4096), 65), FilePosition(4096 + 192));
    }
}
