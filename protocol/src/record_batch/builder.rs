//! Puts records together into a batch. Made once and used for many batches.

use bytes::{Bytes, BytesMut};

use super::header::{put_sequence, seal};
use super::{Attributes, BatchSequence, HEADER_LEN, NO_LEADER_EPOCH, RecordBatchHeader};
use crate::compression::{Compression, compress};
use crate::ids::Offset;
use crate::record::{self, Header, RecordTooLong};

/// A batch with all its records and without its place among a producer's batches, nor a checksum.
#[derive(Debug, Default)]
pub struct UnsealedBatch(BytesMut);

impl UnsealedBatch {
    /// The batch, at its place: [`BatchSequence::NONE`] if it has none.
    pub fn seal(self, sequence: BatchSequence) -> Bytes {
        let UnsealedBatch(mut batch) = self;
        put_sequence(&mut batch, sequence);
        seal(&mut batch);
        batch.freeze()
    }

    /// Opens a batch that was sealed here, to give it another place. Copied only if somebody else holds it too.
    pub fn reopen(batch: Bytes) -> UnsealedBatch {
        UnsealedBatch(batch.try_into_mut().unwrap_or_else(|batch| BytesMut::from(&batch[..])))
    }
}

/// Collects records and turns them into one batch.
///
/// Records are written once, right behind the room for the header; without compression that very buffer becomes the
/// batch.
#[derive(Debug)]
pub struct RecordBatchBuilder {
    compression: Compression,
    /// Room for the header, then the records so far.
    buffer: BytesMut,
    count: i32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
}

impl RecordBatchBuilder {
    /// An empty builder.
    pub fn new(compression: Compression) -> RecordBatchBuilder {
        RecordBatchBuilder::with_capacity(compression, 0)
    }

    /// An empty builder with room for a batch of `capacity` bytes, before compression.
    pub fn with_capacity(compression: Compression, capacity: usize) -> RecordBatchBuilder {
        let mut buffer = BytesMut::with_capacity(capacity.max(HEADER_LEN));
        buffer.resize(HEADER_LEN, 0);
        RecordBatchBuilder { compression, buffer, count: 0, base_timestamp_ms: 0, max_timestamp_ms: 0 }
    }

    /// Adds a record at `timestamp_ms`, in ms since 1970. Nothing changes if it would make the batch too long.
    #[inline]
    pub fn push(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) -> Result<(), RecordTooLong> {
        if self.count == 0 {
            self.base_timestamp_ms = timestamp_ms;
            self.max_timestamp_ms = timestamp_ms;
        }
        // Readers add with wrapping too, so that no pair of timestamps is out of reach.
        let timestamp_delta = timestamp_ms.wrapping_sub(self.base_timestamp_ms);
        record::encode(&mut self.buffer, self.count, timestamp_delta, key, value, headers)?;
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        self.count += 1;
        Ok(())
    }

    /// Records so far.
    pub fn record_count(&self) -> u32 {
        self.count.cast_unsigned()
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the batch so far, header included, before compression; the batch is never longer.
    pub fn len_estimate(&self) -> usize {
        self.buffer.len()
    }

    /// The batch. The builder is empty afterwards. Records that compression does not make smaller stay as they are.
    ///
    /// # Panics
    ///
    /// If there is no record: a batch has at least one.
    pub fn build(&mut self) -> Bytes {
        self.finish().seal(BatchSequence::NONE)
    }

    /// As [`build`](Self::build), but for the place among a producer's batches and the checksum.
    ///
    /// # Panics
    ///
    /// If there is no record.
    pub fn finish(&mut self) -> UnsealedBatch {
        assert!(!self.is_empty(), "a record batch has at least one record");
        let batch = match compress(self.compression, &self.buffer[HEADER_LEN..]) {
            Some(compressed) => {
                let mut batch = BytesMut::with_capacity(HEADER_LEN + compressed.len());
                batch.extend_from_slice(&self.header(self.compression));
                batch.extend_from_slice(&compressed);
                self.buffer.clear();
                batch
            }
            None => {
                let header = self.header(Compression::None);
                let mut batch = self.buffer.split();
                batch[..HEADER_LEN].copy_from_slice(&header);
                batch
            }
        };
        self.buffer.resize(HEADER_LEN, 0);
        self.count = 0;
        UnsealedBatch(batch)
    }

    /// All but length and checksum.
    fn header(&self, compression: Compression) -> [u8; HEADER_LEN] {
        let header = RecordBatchHeader {
            base_offset: Offset::ZERO,
            length: 0,
            leader_epoch: NO_LEADER_EPOCH,
            crc: 0,
            attributes: Attributes::compressed(compression),
            last_offset_delta: self.count - 1,
            base_timestamp_ms: self.base_timestamp_ms,
            max_timestamp_ms: self.max_timestamp_ms,
            producer_id: BatchSequence::NONE.producer_id,
            producer_epoch: BatchSequence::NONE.producer_epoch,
            base_sequence: BatchSequence::NONE.base_sequence,
            record_count: self.count,
        };
        header.encode()
    }
}
