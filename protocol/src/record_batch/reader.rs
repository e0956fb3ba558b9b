//! Takes a batch apart, for clients. Keys, values and header values are slices of the batch, or of what it was
//! decompressed into.

use bytes::Bytes;

use super::header::compute_crc;
use super::{BatchError, HEADER_LEN, RecordBatchHeader};
use crate::compression::decompress;
use crate::record::{RECORD_LEN_MIN, RecordError, RecordFields, RecordView};

/// One whole batch whose checksum was found right.
#[derive(Clone, Debug)]
pub struct RecordBatch {
    header: RecordBatchHeader,
    bytes: Bytes,
}

impl RecordBatch {
    /// The batch that `bytes` are, without anything after it.
    pub fn new(bytes: Bytes) -> Result<RecordBatch, BatchError> {
        let header = RecordBatchHeader::decode(&bytes)?;
        let size = header.size();
        if size > bytes.len() {
            return Err(BatchError::Truncated { needed: size, have: bytes.len() });
        }
        if size < bytes.len() {
            return Err(BatchError::TrailingBytes { count: bytes.len() - size });
        }
        let computed = compute_crc(&bytes);
        if computed != header.crc {
            return Err(BatchError::Crc { stated: header.crc, computed });
        }
        Ok(RecordBatch { header, bytes })
    }

    /// Its header.
    pub fn header(&self) -> &RecordBatchHeader {
        &self.header
    }

    /// All of it, header included.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Its records, decompressed into at most `len_max` bytes. The bound does not touch records that are not
    /// compressed: they are there already.
    pub fn records(&self, len_max: usize) -> Result<Records, BatchError> {
        Records::of(self.header, self.bytes.slice(HEADER_LEN..), len_max)
    }
}

/// The batches that lie back to back in a fetched run of bytes. Ends after an error.
#[derive(Clone, Debug)]
pub struct RecordBatches {
    rest: Bytes,
}

impl RecordBatches {
    /// From the first byte of `bytes`, which begins a batch.
    pub fn new(bytes: Bytes) -> RecordBatches {
        RecordBatches { rest: bytes }
    }
}

impl Iterator for RecordBatches {
    type Item = Result<RecordBatch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let batch = match RecordBatchHeader::decode(&self.rest) {
            Ok(header) => RecordBatch::new(self.rest.split_to(header.size().min(self.rest.len()))),
            Err(error) => Err(error),
        };
        if batch.is_err() {
            self.rest = Bytes::new();
        }
        Some(batch)
    }
}

/// The records of one batch, in order. Ends after an error.
#[derive(Clone, Debug)]
pub struct Records {
    header: RecordBatchHeader,
    records: Bytes,
    at: usize,
    index: u32,
    left: u32,
    /// The least that the next record's offset delta can be; compaction leaves gaps.
    next_offset_delta: i32,
}

impl Records {
    /// The records in the `body` of a batch, which is all that follows its header.
    pub(super) fn of(header: RecordBatchHeader, body: Bytes, len_max: usize) -> Result<Records, BatchError> {
        let compression = header.attributes.compression().map_err(|code| BatchError::Compression { code })?;
        let records = match body.is_empty() {
            // Compaction took every record: there is nothing to decompress, whatever the attributes still say.
            true => body,
            false => decompress(compression, &body, len_max)?,
        };
        let count = header.record_count;
        let max = records.len() / RECORD_LEN_MIN;
        let Ok(left) = u32::try_from(count) else { return Err(BatchError::NoRecords { count }) };
        if usize::try_from(left).is_ok_and(|count| count > max) {
            return Err(BatchError::TooManyRecords { count, body_len: records.len(), max });
        }
        Ok(Records { header, records, at: 0, index: 0, left, next_offset_delta: 0 })
    }

    #[inline]
    fn read(&mut self) -> Result<RecordView, RecordError> {
        let fields = RecordFields::decode(&self.records, self.at, self.index)?;
        let (found, from, last) =
            (fields.offset_delta, self.next_offset_delta, self.header.last_offset_delta);
        if found < from || found > last {
            return Err(RecordError::OffsetDelta { index: self.index, found, from, last });
        }
        self.next_offset_delta = found.saturating_add(1);
        self.at = fields.end;
        self.index += 1;
        let timestamp_ms = if self.header.attributes.is_append_time() {
            self.header.max_timestamp_ms
        } else {
            self.header.base_timestamp_ms.wrapping_add(fields.timestamp_delta)
        };
        Ok(RecordView {
            offset: self.header.base_offset.saturating_add(u64::from(found.cast_unsigned())),
            timestamp_ms,
            key: fields.key,
            value: fields.value,
            headers: fields.headers,
        })
    }
}

impl Iterator for Records {
    type Item = Result<RecordView, RecordError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            let count = self.records.len() - self.at;
            self.at = self.records.len();
            return (count > 0).then_some(Err(RecordError::AfterLast { count, records: self.index }));
        }
        self.left -= 1;
        let record = self.read();
        if record.is_err() {
            self.left = 0;
            self.at = self.records.len();
        }
        Some(record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // No promise from below: a record takes far more in memory than the seven bytes it may take here.
        (0, usize::try_from(self.left).ok().and_then(|left| left.checked_add(1)))
    }
}
