//! Takes records out of a batch, as compaction does: what stays keeps its offset, its timestamp and its bytes.

use bytes::{Bytes, BytesMut};

use super::header::seal;
use super::{Attributes, BatchError, HEADER_LEN, RecordBatch, RecordBatchHeader};
use crate::compression::{Compression, compress, decompress};
use crate::ids::{LeaderEpoch, Offset};
use crate::record::{self, RecordError, RecordTooLong, RecordView};

/// The timestamp of what holds no record.
const NO_TIMESTAMP_MS: i64 = -1;

/// What is left of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retained {
    /// All of it, byte for byte.
    Unchanged,
    /// Some records; or none, in a batch that still says which offsets it stood for.
    Changed(Bytes),
}

/// Why a batch could not be read; it is then best left as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetainError {
    /// The batch itself.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A record in it.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A record that was read cannot be written again.
    #[error(transparent)]
    TooLong(#[from] RecordTooLong),
}

/// Keeps the records that `keep` says yes to, decompressing at most `len_max` bytes.
///
/// The batch keeps its base offset, last offset, leader epoch, producer and compression, so that offsets never change.
/// One in which a tombstone stays says from then on until when it must: until `delete_horizon_ms`, in ms since 1970
/// (KIP-534: attribute bit 6, and the base timestamp holds the time). A batch that says so already is not told again.
pub fn retain(
    batch: &RecordBatch,
    len_max: usize,
    delete_horizon_ms: i64,
    mut keep: impl FnMut(&RecordView) -> bool,
) -> Result<Retained, RetainError> {
    let header = *batch.header();
    // What stays is noted, not held: a record takes far more in memory than the seven bytes it may take here.
    let mut kept = Vec::new();
    let mut latest = None;
    let mut tombstones = false;
    for record in batch.records(len_max)? {
        let record = record?;
        let stays = keep(&record);
        kept.push(stays);
        if stays {
            tombstones |= record.value.is_none();
            latest = latest.max(Some(record.timestamp_ms));
        }
    }
    let record_count = kept.iter().filter(|stays| **stays).count();
    let stamp_horizon = tombstones && !header.attributes.has_delete_horizon();
    if record_count == kept.len() && !stamp_horizon {
        return Ok(Retained::Unchanged);
    }
    let changed = RecordBatchHeader {
        base_timestamp_ms: if stamp_horizon { delete_horizon_ms } else { header.base_timestamp_ms },
        max_timestamp_ms: latest.unwrap_or(NO_TIMESTAMP_MS),
        record_count: i32::try_from(record_count).expect("no more than the batch had"),
        attributes: if stamp_horizon { header.attributes.with_delete_horizon() } else { header.attributes },
        ..header
    };
    let mut records = BytesMut::new();
    for (record, _) in batch.records(len_max)?.zip(&kept).filter(|(_, stays)| **stays) {
        let RecordView { offset, timestamp_ms, key, value, headers } = record?;
        let offset_delta = i32::try_from(offset.0 - header.base_offset.0).expect("it was read as one");
        let timestamp_delta = timestamp_ms.wrapping_sub(changed.base_timestamp_ms);
        record::encode(
            &mut records,
            offset_delta,
            timestamp_delta,
            key.as_deref(),
            value.as_deref(),
            &headers,
        )?;
    }
    Ok(Retained::Changed(seal_records(changed, &records)))
}

/// A batch without records that stands for the offsets from `base_offset` up to `end_offset`, which is not reached.
pub fn empty_batch(base_offset: Offset, end_offset: Offset, leader_epoch: LeaderEpoch) -> Bytes {
    let last = end_offset.0.checked_sub(base_offset.0 + 1).and_then(|delta| i32::try_from(delta).ok());
    let header = RecordBatchHeader {
        base_offset,
        length: 0,
        leader_epoch,
        crc: 0,
        attributes: Attributes::default(),
        last_offset_delta: last.expect("a batch stands for 1 to 2^31 offsets"),
        base_timestamp_ms: NO_TIMESTAMP_MS,
        max_timestamp_ms: NO_TIMESTAMP_MS,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        record_count: 0,
    };
    seal_records(header, &[])
}

/// A batch of these records, compressed as its header says if that makes it smaller.
fn seal_records(header: RecordBatchHeader, records: &[u8]) -> Bytes {
    let compression = header.attributes.compression().unwrap_or(Compression::None);
    let compressed = if records.is_empty() { None } else { compress(compression, records) };
    let (attributes, body) = match &compressed {
        Some(compressed) => (header.attributes, compressed.as_ref()),
        None => (header.attributes.uncompressed(), records),
    };
    let mut bytes = BytesMut::with_capacity(HEADER_LEN + body.len());
    bytes.extend_from_slice(&RecordBatchHeader { attributes, ..header }.encode());
    bytes.extend_from_slice(body);
    seal(&mut bytes);
    bytes.freeze()
}

impl RecordBatch {
    /// The same records without compression, of at most `len_max` bytes.
    pub fn decompressed(&self, len_max: usize) -> Result<RecordBatch, BatchError> {
        let header = *self.header();
        let compression = header.attributes.compression().map_err(|code| BatchError::Compression { code })?;
        let records = decompress(compression, &self.bytes().slice(HEADER_LEN..), len_max)?;
        let attributes = header.attributes.uncompressed();
        RecordBatch::new(seal_records(RecordBatchHeader { attributes, ..header }, &records))
    }

    /// The same records, which are not compressed, with this compression; none if that would not make them smaller.
    pub fn compressed(&self, compression: Compression) -> Option<Bytes> {
        let header = *self.header();
        let attributes = header.attributes.uncompressed().with_compression(compression);
        let bytes = seal_records(RecordBatchHeader { attributes, ..header }, &self.bytes()[HEADER_LEN..]);
        (bytes.len() < self.bytes().len()).then_some(bytes)
    }
}

impl Attributes {
    const DELETE_HORIZON: u16 = 0x40;

    /// Whether the base timestamp says until when the batch's tombstones are kept (KIP-534).
    pub const fn has_delete_horizon(self) -> bool {
        self.0 & Attributes::DELETE_HORIZON != 0
    }

    const fn with_delete_horizon(self) -> Attributes {
        Attributes(self.0 | Attributes::DELETE_HORIZON)
    }

    const fn uncompressed(self) -> Attributes {
        Attributes(self.0 & !Attributes::FROM_PRODUCER)
    }

    const fn with_compression(self, compression: Compression) -> Attributes {
        Attributes(self.0 | compression.code())
    }
}

impl RecordBatchHeader {
    /// Until when the batch's tombstones must be kept, in ms since 1970, once compaction has met them (KIP-534).
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        self.attributes.has_delete_horizon().then_some(self.base_timestamp_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{RecordBatchBuilder, stamp};
    use super::*;
    use crate::ids::{LeaderEpoch, Offset};

    fn batch(compression: Compression, values: &[(i64, Option<Vec<u8>>)]) -> RecordBatch {
        let mut builder = RecordBatchBuilder::new(compression);
        for (n, (timestamp_ms, value)) in values.iter().enumerate() {
            let key = format!("key-{n}");
            builder.push(*timestamp_ms, Some(key.as_bytes()), value.as_deref(), &[]).expect("small");
        }
        let mut bytes = BytesMut::from(&builder.build()[..]);
        stamp(&mut bytes, Offset(1000), LeaderEpoch(3));
        RecordBatch::new(bytes.freeze()).expect("a batch")
    }

    fn records(bytes: &Bytes) -> (RecordBatchHeader, Vec<RecordView>) {
        let batch = RecordBatch::new(bytes.clone()).expect("a batch with a good checksum");
        let records = batch.records(1 << 20).expect("records").map(|record| record.expect("a record"));
        (*batch.header(), records.collect())
    }

    proptest! {
        #[test]
        fn what_stays_is_as_it_was(
            values in proptest::collection::vec(
                (any::<i64>(), proptest::option::of(proptest::collection::vec(any::<u8>(), 0..50))), 1..20),
            kept in any::<u32>(), code in 0..5_u16, horizon in any::<i64>(),
        ) {
            let compression = Compression::from_code(code).expect("five codecs");
            let batch = batch(compression, &values);
            let before = records(batch.bytes()).1;
            let keeps = |record: &RecordView| kept >> (record.offset.0 - 1000) & 1 == 1;
            let expected: Vec<RecordView> = before.iter().filter(|record| keeps(record)).cloned().collect();
            let tombstones = expected.iter().any(|record| record.value.is_none());
            match retain(&batch, 1 << 20, horizon, keeps).expect("a good batch") {
                Retained::Unchanged => {
                    prop_assert_eq!(expected.len(), before.len());
                    prop_assert!(!tombstones);
                }
                Retained::Changed(bytes) => {
                    let (header, found) = records(&bytes);
                    prop_assert_eq!(&found, &expected);
                    prop_assert_eq!(header.base_offset, Offset(1000));
                    prop_assert_eq!(header.leader_epoch, LeaderEpoch(3));
                    prop_assert_eq!(header.last_offset(), batch.header().last_offset());
                    prop_assert_eq!(header.delete_horizon_ms(), tombstones.then_some(horizon));
                    // What has no records is never the latest.
                    let latest = expected.iter().map(|record| record.timestamp_ms).max();
                    prop_assert_eq!(header.max_timestamp_ms, latest.unwrap_or(NO_TIMESTAMP_MS));
                    let again = retain(&RecordBatch::new(bytes).unwrap(), 1 << 20, 0, |_| true).unwrap();
                    prop_assert_eq!(again, Retained::Unchanged);
                }
            }
        }
    }

    #[test]
    fn an_empty_batch_stands_for_its_offsets() {
        let (header, found) = records(&empty_batch(Offset(7), Offset(10), LeaderEpoch(2)));
        assert_eq!((header.base_offset, header.end_offset()), (Offset(7), Offset(10)));
        assert_eq!(found, []);
    }
}
