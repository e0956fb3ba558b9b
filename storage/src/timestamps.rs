//! Finds records by their timestamps, in whatever order those came.
//!
//! Segments and extents know the latest timestamp in them, the index the latest before each of its points; so whole
//! parts of the log are passed over, and the first record that is late enough is found for sure. A part that is
//! damaged is never passed over: the answer could lie in it.

use std::rc::Rc;

use bytes::Bytes;
use corrente_protocol::ids::{LeaderEpoch, Offset};
use corrente_protocol::record::RecordView;
use corrente_protocol::record_batch::{RecordBatch, RecordBatches};
use corrente_runtime::offload::offload;

use crate::DECOMPRESSED_BATCH_BYTES_MAX;
use crate::error::ReadError;
use crate::extent::{ExtentHeader, NO_TIMESTAMP, UNKNOWN_TIMESTAMP};
use crate::log::LogInner;
use crate::position::Nonce;
use crate::reader;
use crate::segment::Segment;
use crate::segment_reader::{Place, READ_LEN_MAX, SegmentReader, open};

/// A record found by its timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampedOffset {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp, in ms since 1970.
    pub timestamp_ms: i64,
    /// The leader epoch it was appended under.
    pub leader_epoch: LeaderEpoch,
}

/// The first record below `up_to` with a timestamp of `at_ms` or later.
pub(crate) async fn first_at(
    log: &Rc<LogInner>,
    at_ms: i64,
    up_to: Offset,
) -> Result<Option<TimestampedOffset>, ReadError> {
    let mut from = Offset::ZERO;
    while let Some((segment, end_offset)) = next_segment(log, from, at_ms, up_to)? {
        match first_in_segment(log, segment, end_offset, at_ms, up_to).await {
            Ok(Some(found)) => return Ok(Some(found)),
            Ok(None) => from = end_offset,
            // It was removed or rewritten meanwhile: the log is asked again.
            Err(ReadError::OutOfRange { .. }) => {}
            Err(_) if !reader::is_current(log, &segment) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The record below `up_to` with the latest timestamp; the first of several. Believes what batches say of themselves:
/// one that claims a later timestamp than its records have may hide others.
pub(crate) async fn latest(
    log: &Rc<LogInner>,
    up_to: Offset,
) -> Result<Option<TimestampedOffset>, ReadError> {
    loop {
        let before = start_and_sealed(log);
        let latest_ms = latest_timestamp(log, up_to).await?;
        if latest_ms == NO_TIMESTAMP {
            return Ok(None);
        }
        let found = first_at(log, latest_ms, up_to).await?;
        // The record that was so late may have been removed in between: then another one is the latest.
        if found.is_some() || start_and_sealed(log) == before {
            return Ok(found);
        }
    }
}

/// Where the log begins and which segments are sealed: whether records were removed in between shows in these.
fn start_and_sealed(log: &LogInner) -> (Offset, Vec<Nonce>) {
    let state = log.state.borrow();
    let sealed = state.segments.values().rev().skip(1);
    (state.log_start_offset, sealed.map(|segment| segment.nonce).collect())
}

async fn latest_timestamp(log: &Rc<LogInner>, up_to: Offset) -> Result<i64, ReadError> {
    let mut latest_ms = NO_TIMESTAMP;
    let mut from = Offset::ZERO;
    while let Some((segment, end_offset)) = next_segment(log, from, latest_ms.saturating_add(1), up_to)? {
        let of_segment = latest_of_segment(log, segment, end_offset, up_to).await;
        match of_segment {
            Ok(of_segment) => latest_ms = latest_ms.max(of_segment),
            // The log start moved on: the log is asked again.
            Err(ReadError::OutOfRange { .. }) => continue,
            Err(_) if !reader::is_current(log, &segment) => continue,
            Err(error) => return Err(error),
        }
        from = end_offset;
    }
    Ok(latest_ms)
}

/// The latest timestamp of the records of a segment that can be read, by the headers of what lies wholly among them.
async fn latest_of_segment(
    log: &Rc<LogInner>,
    segment: Segment,
    end_offset: Offset,
    up_to: Offset,
) -> Result<i64, ReadError> {
    let start = log.state.borrow().log_start_offset;
    let is_known = segment.max_timestamp_ms != UNKNOWN_TIMESTAMP;
    if is_known && start <= segment.base_offset && end_offset <= up_to {
        return Ok(segment.max_timestamp_ms);
    }
    let mut latest_ms = NO_TIMESTAMP;
    let file = open(log, &segment).await?;
    let place = Place::in_segment(log, segment, end_offset);
    let reader = SegmentReader { log, place, file, read_len_max: READ_LEN_MAX };
    let mut walk = reader.walk_from(None).await?;
    while let Some(header) = walk.next(&reader).await? {
        if header.base_offset >= up_to {
            break;
        }
        if header.end_offset <= start || header.max_timestamp_ms <= latest_ms {
            continue;
        }
        let whole = start <= header.base_offset && header.end_offset <= up_to;
        latest_ms = match whole {
            true => header.max_timestamp_ms,
            false => latest_ms.max(latest_of_part(log, &header, start, up_to).await?),
        };
    }
    Ok(latest_ms)
}

/// The latest timestamp of the records of an extent from `start` up to `up_to`.
async fn latest_of_part(
    log: &Rc<LogInner>,
    extent: &ExtentHeader,
    start: Offset,
    up_to: Offset,
) -> Result<i64, ReadError> {
    let from = extent.base_offset.max(start);
    let batches = reader::read(log, from, up_to.min(extent.end_offset), extent.body_len as usize).await?;
    Ok(offload(move || latest_among(batches, start, up_to)).await)
}

fn latest_among(batches: Vec<Bytes>, start: Offset, up_to: Offset) -> i64 {
    let batches = batches.into_iter().flat_map(RecordBatches::new).map_while(Result::ok);
    let records = batches.filter_map(|batch| batch.records(DECOMPRESSED_BATCH_BYTES_MAX).ok());
    let readable = records
        .flat_map(|records| records.map_while(Result::ok))
        .filter(|record| record.offset >= start && record.offset < up_to);
    readable.map(|record| record.timestamp_ms).max().unwrap_or(NO_TIMESTAMP)
}

/// The first segment that reaches beyond `from` and may hold such a record, and where it ends. What lay before the
/// first one there is may have held it as well. Compaction may have made one of several since `from` was found: then
/// it begins before, and what lies beyond is still to be looked at.
fn next_segment(
    log: &LogInner,
    from: Offset,
    at_ms: i64,
    up_to: Offset,
) -> Result<Option<(Segment, Offset)>, ReadError> {
    let state = log.state.borrow();
    reader::check_beginning(&state)?;
    let up_to = up_to.min(state.tail.flushed);
    // The last segment's end moves on with every flush.
    if from >= up_to {
        return Ok(None);
    }
    let ends = state.segments.keys().skip(1).copied().chain([state.tail.flushed]);
    let mut segments = state.segments.values().zip(ends);
    let found = segments.find(|(segment, end)| {
        *end > from.max(state.log_start_offset)
            && segment.base_offset < up_to
            && segment.max_timestamp_ms >= at_ms
    });
    Ok(found.map(|(segment, end)| (*segment, end)))
}

async fn first_in_segment(
    log: &Rc<LogInner>,
    segment: Segment,
    end_offset: Offset,
    at_ms: i64,
    up_to: Offset,
) -> Result<Option<TimestampedOffset>, ReadError> {
    let file = open(log, &segment).await?;
    let place = Place::in_segment(log, segment, end_offset);
    let reader = SegmentReader { log, place, file, read_len_max: READ_LEN_MAX };
    let index = reader.index().await?;
    let mut walk = reader.walk_from(index.before_timestamp(at_ms)).await?;
    while let Some(header) = walk.next(&reader).await? {
        if header.base_offset >= up_to {
            return Ok(None);
        }
        let start = log.state.borrow().log_start_offset;
        if header.max_timestamp_ms < at_ms || header.end_offset <= start {
            continue;
        }
        if let Some(found) = first_in_extent(log, &header, at_ms, up_to.min(end_offset)).await? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

async fn first_in_extent(
    log: &Rc<LogInner>,
    extent: &ExtentHeader,
    at_ms: i64,
    up_to: Offset,
) -> Result<Option<TimestampedOffset>, ReadError> {
    let start = log.state.borrow().log_start_offset;
    let mut next = extent.base_offset.max(start);
    let up_to = up_to.min(extent.end_offset);
    while next < up_to {
        let batches = reader::read(log, next, up_to, extent.body_len as usize).await?;
        let before = next;
        for batch in batches.into_iter().flat_map(RecordBatches::new).map_while(Result::ok) {
            next = batch.header().end_offset();
            if batch.header().max_timestamp_ms < at_ms {
                continue;
            }
            // What it takes to look inside is up to a stranger.
            if let Some(found) = offload(move || first_in_batch(&batch, at_ms, start)).await {
                return Ok(Some(found));
            }
        }
        if next == before {
            // The rest of it goes on beyond what may be read.
            return Ok(None);
        }
    }
    Ok(None)
}

fn first_in_batch(batch: &RecordBatch, at_ms: i64, start: Offset) -> Option<TimestampedOffset> {
    let header = batch.header();
    let leader_epoch = header.leader_epoch;
    let Ok(records) = batch.records(DECOMPRESSED_BATCH_BYTES_MAX) else {
        let offset = header.base_offset.max(start);
        return Some(TimestampedOffset { offset, timestamp_ms: header.max_timestamp_ms, leader_epoch });
    };
    let late = |record: &RecordView| record.timestamp_ms >= at_ms && record.offset >= start;
    let record = records.map_while(Result::ok).find(late)?;
    Some(TimestampedOffset { offset: record.offset, timestamp_ms: record.timestamp_ms, leader_epoch })
}
