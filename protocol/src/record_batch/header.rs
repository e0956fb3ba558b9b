//! The 61 bytes before the records, and the few of them that a broker writes.

use std::ops::Range;

use bytes::Buf;

use super::{BatchError, BatchSequence};
use crate::compression::Compression;
use crate::ids::{LeaderEpoch, Offset};

/// Length of a batch's header, in bytes.
pub const HEADER_LEN: usize = 61;
/// Stands where no leader has stamped the batch yet.
pub const NO_LEADER_EPOCH: LeaderEpoch = LeaderEpoch(u32::MAX);

/// Bytes before those that the length field counts.
const LENGTH_END: usize = 12;
/// The least the length field can state.
const LENGTH_MIN: i32 = 49;
const _: () = assert!(LENGTH_MIN as usize + LENGTH_END == HEADER_LEN);

const BASE_OFFSET: Range<usize> = 0..8;
const LENGTH: Range<usize> = 8..12;
const LEADER_EPOCH: Range<usize> = 12..16;
const MAGIC: usize = 16;
const CRC: Range<usize> = 17..21;
const ATTRIBUTES: Range<usize> = 21..23;
const MAX_TIMESTAMP: Range<usize> = 35..43;
const MAGIC_V2: u8 = 2;

/// The attributes of a batch, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Attributes(pub u16);

impl Attributes {
    const COMPRESSION: u16 = 0x07;
    const APPEND_TIME: u16 = 0x08;
    const TRANSACTIONAL: u16 = 0x10;
    const CONTROL: u16 = 0x20;
    /// What a producer may set: the compression. The rest belongs to brokers, or is not defined.
    pub const FROM_PRODUCER: u16 = Attributes::COMPRESSION;

    /// Only a compression.
    pub const fn compressed(compression: Compression) -> Attributes {
        Attributes(compression.code())
    }

    /// The codec, or its number if it is unknown.
    pub const fn compression(self) -> Result<Compression, u16> {
        let code = self.0 & Attributes::COMPRESSION;
        match Compression::from_code(code) {
            Some(compression) => Ok(compression),
            None => Err(code),
        }
    }

    /// Whether all records have the batch's max timestamp, given by the broker, and not times of their own.
    pub const fn is_append_time(self) -> bool {
        self.0 & Attributes::APPEND_TIME != 0
    }

    /// Whether the batch belongs to a transaction.
    pub const fn is_transactional(self) -> bool {
        self.0 & Attributes::TRANSACTIONAL != 0
    }

    /// Whether the records are marks of a broker and not for readers.
    pub const fn is_control(self) -> bool {
        self.0 & Attributes::CONTROL != 0
    }
}

/// The header of one batch, as it stands there. Until a leader stamped it, base offset and leader epoch are whatever
/// the producer wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordBatchHeader {
    /// Offset of the first record; bits of a signed number in Kafka.
    pub base_offset: Offset,
    /// Bytes after this field; at least 49.
    pub length: i32,
    /// Epoch of the leader that appended it.
    pub leader_epoch: LeaderEpoch,
    /// CRC32C of all that follows it.
    pub crc: u32,
    /// Compression, kind of timestamps, kind of batch.
    pub attributes: Attributes,
    /// Offset of the last record, less the base offset.
    pub last_offset_delta: i32,
    /// Timestamp of the first record, in ms since 1970.
    pub base_timestamp_ms: i64,
    /// The latest timestamp of its records, in ms since 1970.
    pub max_timestamp_ms: i64,
    /// Of an idempotent producer, else -1.
    pub producer_id: i64,
    /// Of an idempotent producer, else -1.
    pub producer_epoch: i16,
    /// Of an idempotent producer, else -1.
    pub base_sequence: i32,
    /// Records in the batch.
    pub record_count: i32,
}

impl RecordBatchHeader {
    /// The header at the front of `bytes`, if its length and magic can be believed. Looks at no byte after the header.
    #[inline]
    pub fn decode(bytes: &[u8]) -> Result<RecordBatchHeader, BatchError> {
        let Some(mut fields) = bytes.get(..HEADER_LEN) else {
            return Err(BatchError::Truncated { needed: HEADER_LEN, have: bytes.len() });
        };
        if bytes[MAGIC] != MAGIC_V2 {
            return Err(BatchError::Magic { found: bytes[MAGIC] });
        }
        let base_offset = Offset(fields.get_u64());
        let length = fields.get_i32();
        let leader_epoch = LeaderEpoch(fields.get_u32());
        fields.advance(1);
        if length < LENGTH_MIN {
            return Err(BatchError::Length { stated: length, min: LENGTH_MIN });
        }
        Ok(RecordBatchHeader {
            base_offset,
            length,
            leader_epoch,
            crc: fields.get_u32(),
            attributes: Attributes(fields.get_u16()),
            last_offset_delta: fields.get_i32(),
            base_timestamp_ms: fields.get_i64(),
            max_timestamp_ms: fields.get_i64(),
            producer_id: fields.get_i64(),
            producer_epoch: fields.get_i16(),
            base_sequence: fields.get_i32(),
            record_count: fields.get_i32(),
        })
    }

    /// The header as bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[BASE_OFFSET].copy_from_slice(&self.base_offset.0.to_be_bytes());
        bytes[LENGTH].copy_from_slice(&self.length.to_be_bytes());
        bytes[LEADER_EPOCH].copy_from_slice(&self.leader_epoch.0.to_be_bytes());
        bytes[MAGIC] = MAGIC_V2;
        bytes[CRC].copy_from_slice(&self.crc.to_be_bytes());
        bytes[ATTRIBUTES].copy_from_slice(&self.attributes.0.to_be_bytes());
        bytes[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        bytes[27..35].copy_from_slice(&self.base_timestamp_ms.to_be_bytes());
        bytes[MAX_TIMESTAMP].copy_from_slice(&self.max_timestamp_ms.to_be_bytes());
        let &RecordBatchHeader { producer_id, producer_epoch, base_sequence, .. } = self;
        put_sequence(&mut bytes, BatchSequence { producer_id, producer_epoch, base_sequence });
        bytes[57..61].copy_from_slice(&self.record_count.to_be_bytes());
        bytes
    }

    /// Bytes of the whole batch, header included.
    #[inline]
    pub fn size(&self) -> usize {
        LENGTH_END + usize::try_from(self.length).unwrap_or(0)
    }

    /// Offset of the last record.
    #[inline]
    pub fn last_offset(&self) -> Offset {
        self.base_offset.saturating_add(u64::try_from(self.last_offset_delta).unwrap_or(0))
    }

    /// One past the offset of the last record.
    #[inline]
    pub fn end_offset(&self) -> Offset {
        self.last_offset().saturating_add(1)
    }
}

/// The headers of batches that lie back to back; checks no checksum and looks at no record.
pub fn headers(bytes: &[u8]) -> Headers<'_> {
    Headers { bytes, at: 0 }
}

/// See [`headers`]. Yields each batch's place and header; ends after an error.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Iterator for Headers<'_> {
    type Item = Result<(Range<usize>, RecordBatchHeader), BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return None;
        }
        let start = self.at;
        self.at = self.bytes.len();
        let header = match RecordBatchHeader::decode(rest) {
            Ok(header) => header,
            Err(error) => return Some(Err(error)),
        };
        if header.size() > rest.len() {
            return Some(Err(BatchError::Truncated { needed: header.size(), have: rest.len() }));
        }
        self.at = start + header.size();
        Some(Ok((start..self.at, header)))
    }
}

/// Gives a batch its place: writes base offset and leader epoch, which no checksum covers.
///
/// # Panics
///
/// If `batch` is shorter than a header.
#[inline]
pub fn stamp(batch: &mut [u8], base_offset: Offset, epoch: LeaderEpoch) {
    assert!(batch.len() >= HEADER_LEN, "a batch of {} bytes has no header", batch.len());
    batch[BASE_OFFSET].copy_from_slice(&base_offset.0.to_be_bytes());
    batch[LEADER_EPOCH].copy_from_slice(&epoch.0.to_be_bytes());
}

/// Gives all records of a batch the broker's time, in ms since 1970, and computes the checksum anew.
///
/// # Panics
///
/// If `batch` is shorter than a header.
pub fn stamp_append_time(batch: &mut [u8], timestamp_ms: i64) {
    assert!(batch.len() >= HEADER_LEN, "a batch of {} bytes has no header", batch.len());
    let attributes = u16::from_be_bytes([batch[ATTRIBUTES.start], batch[ATTRIBUTES.start + 1]]);
    batch[ATTRIBUTES].copy_from_slice(&(attributes | Attributes::APPEND_TIME).to_be_bytes());
    batch[MAX_TIMESTAMP].copy_from_slice(&timestamp_ms.to_be_bytes());
    write_crc(batch);
}

/// Of all that follows the checksum.
#[inline]
pub(super) fn compute_crc(batch: &[u8]) -> u32 {
    crc32c::crc32c(&batch[CRC.end..])
}

/// Gives a batch its place among those of a producer. The checksum is to be computed anew.
pub(super) fn put_sequence(batch: &mut [u8], sequence: BatchSequence) {
    batch[43..51].copy_from_slice(&sequence.producer_id.to_be_bytes());
    batch[51..53].copy_from_slice(&sequence.producer_epoch.to_be_bytes());
    batch[53..57].copy_from_slice(&sequence.base_sequence.to_be_bytes());
}

/// Makes length, magic and checksum right, whatever the rest is.
pub(super) fn seal(batch: &mut [u8]) {
    let length = i32::try_from(batch.len() - LENGTH_END).expect("a batch is shorter than 2 GiB");
    batch[LENGTH].copy_from_slice(&length.to_be_bytes());
    batch[MAGIC] = MAGIC_V2;
    write_crc(batch);
}

fn write_crc(batch: &mut [u8]) {
    let crc = compute_crc(batch);
    batch[CRC].copy_from_slice(&crc.to_be_bytes());
}
