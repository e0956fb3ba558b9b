//! What can still be read of a damaged log.
//!
//! Opens it for reading alone: the segments whose headers verify, up to the furthest end that anything knows of. What
//! is missing in between is met, and told, by whoever reads it. Changes nothing on the disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use corrente_protocol::ids::Offset;
use corrente_runtime::file::OpenOptions;

use super::found::{self, Found};
use super::walk::Scan;
use super::{Recovered, TailFound, Trouble, chain_start};
use crate::checkpoint::CheckpointEntry;
use crate::error::PathError;
use crate::extent::{EXTENT_ALIGN, UNKNOWN_TIMESTAMP};
use crate::log::{LogId, State, Tail};
use crate::position::FilePosition;
use crate::segment::{FIRST_EXTENT, Segment, segment_name};
use crate::segment_index::SegmentIndex;
use crate::shard::Shard;

/// The state of the log in quarantine; none if no segment of it can be made out.
pub(super) async fn recover(
    shard: &Shard,
    id: LogId,
    dir: &Path,
    checkpoint: Option<CheckpointEntry>,
    reason: &str,
) -> Result<Option<(State, Recovered)>, PathError> {
    let log_start = found::log_start_offset(id, dir, checkpoint).await?;
    let mut segments = readable(id, dir).await?;
    found::take_superseded(&mut segments);
    found::take_expired(&mut segments, log_start);
    let Some(last) = segments.last().copied() else { return Ok(None) };
    let mut scan = Scan {
        dir,
        extent_bytes_max: shard.config.extent_bytes_max(),
        window_bytes_max: shard.config.window_bytes_max,
        scanned_bytes: 0,
        index: SegmentIndex::default(),
    };
    let name = segment_name(last.segment.base_offset);
    let file = scan.open(&name, OpenOptions::READ).await?;
    let chain = match scan.walk(&file, &name, chain_start(&last), last.file_len).await {
        Ok((chain, _)) => chain,
        Err(Trouble::Io(error)) => return Err(error),
        Err(Trouble::Damaged(_)) => chain_start(&last),
    };
    let furthest = match scan.furthest_end(&file, &name, chain, last.file_len).await {
        Ok(furthest) => furthest,
        Err(Trouble::Io(error)) => return Err(error),
        Err(Trouble::Damaged(_)) => chain.next_offset,
    };
    let flushed = checkpoint.map_or(Offset::ZERO, |entry| entry.flushed_offset).max(furthest);
    let log_start = log_start.min(flushed);
    let known = segments.iter().enumerate().map(|(at, found)| {
        let segment = sealed(found, segments.get(at + 1));
        (segment.base_offset, segment)
    });
    let mut known: BTreeMap<Offset, Segment> = known.collect();
    let segment = known.get_mut(&last.segment.base_offset).expect("it is one of them");
    // Others may have followed it.
    segment.max_timestamp_ms = UNKNOWN_TIMESTAMP;
    let tail = Tail {
        flushed,
        epoch: checkpoint.map_or(chain.epoch, |entry| entry.leader_epoch.max(chain.epoch)),
        segment: last.segment.base_offset,
        position: segment.end_position,
        last_extent: chain.last_extent.min(segment.end_position),
        last_hash: chain.hash,
    };
    let mut state = State::new(log_start, known, tail, Bytes::new(), true);
    state.quarantined = Some(Arc::from(reason));
    let recovered =
        Recovered { scanned_bytes: scan.scanned_bytes, truncated_bytes: 0, tail: TailFound::Damaged };
    Ok(Some((state, recovered)))
}

/// The segments whose headers verify.
async fn readable(id: LogId, dir: &Path) -> Result<Vec<Found>, PathError> {
    let mut segments = Vec::new();
    for base_offset in found::list(dir).await?.segments {
        match found::look_at(id, dir, base_offset).await {
            Ok(found) => segments.push(found),
            Err(Trouble::Damaged(reason)) => tracing::warn!(log = %id, reason, "a segment cannot be read"),
            Err(Trouble::Io(error)) => return Err(error),
        }
    }
    Ok(segments)
}

/// The segment with its end, as far as that is known.
fn sealed(found: &Found, next: Option<&Found>) -> Segment {
    if let Some(rewritten) = found.segment.rewritten {
        let is_followed = next.is_some_and(|next| next.segment.base_offset == rewritten.end_offset);
        let max_timestamp_ms = if is_followed { rewritten.max_timestamp_ms } else { UNKNOWN_TIMESTAMP };
        return Segment { max_timestamp_ms, ..found.segment };
    }
    let told =
        next.and_then(|next| next.segment.previous).filter(|p| p.base_offset == found.segment.base_offset);
    let whole = found.file_len - found.file_len % EXTENT_ALIGN as u64;
    let end_position = told.map_or(FilePosition(whole).max(FIRST_EXTENT), |previous| previous.end_position);
    let max_timestamp_ms = told.map_or(UNKNOWN_TIMESTAMP, |previous| previous.max_timestamp_ms);
    Segment { end_position, max_timestamp_ms, ..found.segment }
}
