//! What a broker proves before it appends: a ladder of checks on the header, and the checksum over all the rest.

use std::ops::Range;

use super::header::compute_crc;
use super::{Attributes, BatchError, HEADER_LEN, RecordBatchHeader, headers};
use crate::compression::Compression;
use crate::record::RECORD_LEN_MIN;

/// Bounds that a topic or a broker sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchLimits {
    /// The largest batch, in bytes with its header.
    pub batch_bytes_max: usize,
}

/// A batch that may be appended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ValidBatch {
    /// Where it lies among the bytes that were validated.
    pub range: Range<usize>,
    /// Its records; at least 1.
    pub record_count: u32,
    /// Its header.
    pub header: RecordBatchHeader,
}

/// The batches that lie back to back in `bytes`, if every one may be appended. There is at least one.
///
/// Records are not looked at: the count is held against the header and, without compression, against what the bytes
/// could hold at all.
pub fn validate_batches(bytes: &[u8], limits: &BatchLimits) -> Result<Vec<ValidBatch>, BatchError> {
    let mut batches = Vec::with_capacity(1);
    for found in headers(bytes) {
        let (range, header) = found?;
        let record_count = validate(&bytes[range.clone()], &header, limits)?;
        batches.push(ValidBatch { range, record_count, header });
    }
    if batches.is_empty() {
        return Err(BatchError::Empty);
    }
    Ok(batches)
}

fn validate(batch: &[u8], header: &RecordBatchHeader, limits: &BatchLimits) -> Result<u32, BatchError> {
    if batch.len() > limits.batch_bytes_max {
        return Err(BatchError::TooLarge { size: batch.len(), max: limits.batch_bytes_max });
    }
    // Before the other fields are judged: a damaged batch is worth sending again, a wrong one is not.
    let computed = compute_crc(batch);
    if computed != header.crc {
        return Err(BatchError::Crc { stated: header.crc, computed });
    }
    let attributes = header.attributes;
    if attributes.0 & !Attributes::FROM_PRODUCER != 0 {
        return Err(BatchError::Attributes { found: attributes.0, allowed: Attributes::FROM_PRODUCER });
    }
    let compression = attributes.compression().map_err(|code| BatchError::Compression { code })?;
    let count = header.record_count;
    let record_count =
        u32::try_from(count).ok().filter(|count| *count > 0).ok_or(BatchError::NoRecords { count })?;
    if header.last_offset_delta != count - 1 {
        return Err(BatchError::Count { count, last_offset_delta: header.last_offset_delta });
    }
    let body_len = batch.len() - HEADER_LEN;
    let max = body_len / RECORD_LEN_MIN;
    if compression == Compression::None && usize::try_from(count).is_ok_and(|count| count > max) {
        return Err(BatchError::TooManyRecords { count, body_len, max });
    }
    Ok(record_count)
}
