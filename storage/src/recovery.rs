//! Finds the end of a log after a start: what is torn is left behind, what is damaged is reported.
//!
//! The rules, by where something is missing or wrong:
//! - Below the checkpoint, or before a later segment, or before a later extent that is valid: it was flushed
//!   once, so it is *damage*. Nothing is changed; the log is opened in quarantine, for reading alone.
//! - Beyond all of these it was never acknowledged for all we can know: a *torn tail*. The log ends before it.
//!
//! Why going on after a torn tail is safe, whatever is left of it on the disk:
//! 1. A window is being written at the end of the log when the power fails: some of its sectors land, some do
//!    not. Nothing in it was acknowledged, and no later one was written: one write is in flight per log.
//! 2. Recovery first flushes the file, so that what it reads next is durable and stays as it is, then walks
//!    the extents. An extent that verifies whole is kept, acknowledged or not. The first that does not ends
//!    the log.
//!    The same goes for names: a process that was killed has perhaps given a file its name and not flushed it. If
//!    the checkpoint does not know the last segment, or files are to be removed because of what others say, the
//!    directory is flushed before anything is appended or removed.
//! 3. If anything but zeros lies behind the end, the segment is never written again: the next append opens a
//!    new one, with a nonce of its own. Its header names the old segment's end, so what lies behind it is
//!    never looked at again.
//! 4. If only zeros lie there, appends go on in place: no stale byte can ever be taken for an extent.
//! 5. A crash before the next append finds the same bytes and comes to the same end.
//!
//! Segments may be missing or doubled for good reasons, and both are told from damage by what was made durable first:
//! the log start, before segments below it are removed; a rewritten segment, whole, before those it stands for are.
//! The checkpoint may not have heard of either yet, and may end in a segment that is gone.
//!
//! The work does not depend on how much data there is: sealed segments below the checkpoint are only looked
//! at for their header and their length.

mod found;
pub(crate) mod producers;
mod quarantine;
mod walk;

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use corrente_protocol::ids::Offset;
use corrente_runtime::file;

use crate::checkpoint::CheckpointEntry;
use crate::error::{AtPath, PathError, RecoveryError};
use crate::extent::NO_TIMESTAMP;
use crate::log::{LogId, State, Tail};
use crate::scan::ChainEnd;
use crate::segment::{FIRST_EXTENT, Segment, index_name, segment_name};
use crate::segment_index::SegmentIndex;
use crate::shard::Shard;
use found::Found;
use walk::{LogEnd, Scan};

/// What recovery did for one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Bytes read beyond the checkpoint.
    pub scanned_bytes: u64,
    /// Bytes of a torn tail that are left behind.
    pub truncated_bytes: u64,
    /// What was found at the end.
    pub tail: TailFound,
}

/// What lies behind the end of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailFound {
    /// Nothing: appends go on in place.
    Clean,
    /// A write that never completed, or what a recycled file held before: appends go on in a new segment.
    Torn,
    /// Damage: the log is in quarantine, and nothing goes on.
    Damaged,
}

/// Why a log is not opened, before it is known which log.
enum Trouble {
    Damaged(String),
    Io(PathError),
}

impl From<PathError> for Trouble {
    fn from(error: PathError) -> Self {
        Trouble::Io(error)
    }
}

fn damaged(what: impl std::fmt::Display) -> Trouble {
    Trouble::Damaged(what.to_string())
}

/// Finds the log's state on disk. Removes files that were never finished, or that others stand for; changes nothing
/// else, and nothing at all of a log that is damaged.
pub(crate) async fn recover(
    shard: &Shard,
    id: LogId,
    dir: &Path,
    checkpoint: Option<CheckpointEntry>,
) -> Result<(State, Recovered), RecoveryError> {
    match recover_log(shard, id, dir, checkpoint).await {
        Ok(recovered) => Ok(recovered),
        Err(Trouble::Damaged(reason)) => {
            match quarantine::recover(shard, id, dir, checkpoint, &reason).await? {
                Some(recovered) => Ok(recovered),
                None => Err(RecoveryError::Damaged { log: id, reason }),
            }
        }
        Err(Trouble::Io(error)) => Err(error.into()),
    }
}

async fn recover_log(
    shard: &Shard,
    id: LogId,
    dir: &Path,
    checkpoint: Option<CheckpointEntry>,
) -> Result<(State, Recovered), Trouble> {
    let mut names = found::list(dir).await?;
    let mut segments = Vec::new();
    for base_offset in &names.segments {
        segments.push(found::look_at(id, dir, *base_offset).await?);
    }
    let log_start = found::log_start_offset(id, dir, checkpoint).await?;
    if segments.is_empty() {
        if let Some(entry) = checkpoint {
            return Err(damaged(format!("no segment, the checkpoint ends in {}", entry.segment_base)));
        }
        if log_start > Offset::ZERO {
            return Err(damaged(format!("no segment, the log starts at {log_start}")));
        }
        // It was being made when the node went down.
        remove_unfinished(dir, &mut names).await?;
        segments.push(found::make_first(id, dir).await?);
    }
    let superseded = found::take_superseded(&mut segments);
    let expired = found::take_expired(&mut segments, log_start);
    found::check_links(&segments, log_start)?;
    let last = &segments.last().expect("there is at least one segment").segment;
    let known = checkpoint.is_some_and(|entry| entry.nonce == last.nonce);
    if !known || !superseded.is_empty() || !expired.is_empty() {
        file::create_dir_all(dir).await.at(dir)?;
        file::sync_dir(dir).await.at(dir)?;
    }
    let start = starting_point(&segments, checkpoint)?;
    let mut scan = Scan {
        dir,
        extent_bytes_max: shard.config.extent_bytes_max(),
        window_bytes_max: shard.config.window_bytes_max,
        scanned_bytes: 0,
        index: SegmentIndex::default(),
    };
    let end = scan.walk_segments(&segments, start, checkpoint).await?;
    let end_offset = end.chain.next_offset;
    if log_start > end_offset {
        return Err(damaged(format!("the log starts at {log_start} and ends at {end_offset}")));
    }
    remove_unfinished(dir, &mut names).await?;
    for segment in superseded.iter().chain(&expired) {
        remove_segment(dir, segment.base_offset).await?;
    }
    let recovered = Recovered {
        scanned_bytes: scan.scanned_bytes,
        truncated_bytes: end.truncated_bytes,
        tail: if end.truncated_bytes > 0 { TailFound::Torn } else { TailFound::Clean },
    };
    let index = scan.index;
    let mut state = into_state(end, &segments, log_start, shard.config.segment_bytes);
    state.index = index;
    Ok((state, recovered))
}

/// Files that never got their names: nothing in them was ever relied on.
async fn remove_unfinished(dir: &Path, names: &mut found::Names) -> Result<(), PathError> {
    for unfinished in names.unfinished.drain(..) {
        let path = dir.join(unfinished);
        file::remove_file(&path).await.at(&path)?;
    }
    Ok(())
}

async fn remove_segment(dir: &Path, base_offset: Offset) -> Result<(), PathError> {
    let path = dir.join(segment_name(base_offset));
    file::remove_file(&path).await.at(&path)?;
    let index = dir.join(index_name(base_offset));
    match file::remove_file(&index).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at(&index),
        _ => Ok(()),
    }
}

/// Where to begin: the index of a segment, and the end of the chain in it that is known to be durable.
fn starting_point(
    segments: &[Found],
    checkpoint: Option<CheckpointEntry>,
) -> Result<(usize, ChainEnd), Trouble> {
    let Some(entry) = checkpoint else {
        return Ok((0, chain_start(&segments[0])));
    };
    let name = segment_name(entry.segment_base);
    let holds = |found: &Found| found.segment.base_offset <= entry.segment_base;
    let Some(at) = segments.iter().rposition(holds) else {
        // The log start lies beyond it: it was removed on purpose, and the checkpoint is the older of the two.
        let (first, flushed) = (segments[0].segment.base_offset, entry.flushed_offset);
        if first < flushed {
            return Err(damaged(format!("{name} is missing, the checkpoint ends in it at offset {flushed}")));
        }
        return Ok((0, chain_start(&segments[0])));
    };
    let found = &segments[at];
    if let Some(rewritten) = found.segment.rewritten {
        // It stands for what the checkpoint knew, if it reaches as far.
        let (end, flushed) = (rewritten.end_offset, entry.flushed_offset);
        if end < flushed {
            return Err(damaged(format!("{name} was rewritten up to offset {end}, {flushed} was flushed")));
        }
        return Ok(match segments.get(at + 1) {
            Some(next) => (at + 1, chain_start(next)),
            None => (at, chain_end(found)),
        });
    }
    if found.segment.base_offset != entry.segment_base {
        return Err(damaged(format!("{name} is missing, the checkpoint ends in it")));
    }
    if entry.position == FIRST_EXTENT {
        // It held nothing then, and may have been replaced by another that begins at the same offset.
        return Ok((at, chain_start(found)));
    }
    if found.segment.nonce != entry.nonce {
        return Err(damaged(format!("{name} is not the file the checkpoint knows")));
    }
    if found.file_len < entry.position.0 {
        let (len, end) = (found.file_len, entry.position);
        return Err(damaged(format!("{name} has {len} bytes, {end} are known to be flushed")));
    }
    let chain = ChainEnd {
        nonce: entry.nonce,
        position: entry.position,
        last_extent: entry.last_extent,
        hash: entry.last_hash,
        next_offset: entry.flushed_offset,
        epoch: entry.leader_epoch,
        max_timestamp_ms: entry.max_timestamp_ms,
    };
    Ok((at, chain))
}

fn chain_start(found: &Found) -> ChainEnd {
    ChainEnd {
        nonce: found.segment.nonce,
        position: FIRST_EXTENT,
        last_extent: FIRST_EXTENT,
        hash: found.segment.chain_start(),
        next_offset: found.segment.base_offset,
        epoch: found.epoch,
        max_timestamp_ms: NO_TIMESTAMP,
    }
}

/// The end of a segment that was made whole and is the log's last.
fn chain_end(found: &Found) -> ChainEnd {
    let start = chain_start(found);
    match found.segment.rewritten {
        None => start,
        Some(own) => ChainEnd {
            position: own.end_position,
            last_extent: own.end_position,
            hash: own.end_hash,
            next_offset: own.end_offset,
            epoch: own.last_epoch.max(start.epoch),
            max_timestamp_ms: own.max_timestamp_ms,
            ..start
        },
    }
}

fn into_state(end: LogEnd, segments: &[Found], log_start_offset: Offset, segment_bytes: u64) -> State {
    let LogEnd { chain, front, truncated_bytes } = end;
    let mut known: BTreeMap<Offset, Segment> = BTreeMap::new();
    for (at, found) in segments.iter().enumerate() {
        let (end_position, max_timestamp_ms) = match segments.get(at + 1) {
            Some(next) => {
                let sealed = found.sealed_end(next);
                (sealed.position, sealed.max_timestamp_ms)
            }
            None => (chain.position, chain.max_timestamp_ms),
        };
        known.insert(found.segment.base_offset, Segment { end_position, max_timestamp_ms, ..found.segment });
    }
    let last = segments.last().expect("there is at least one segment");
    let tail = Tail {
        flushed: chain.next_offset,
        epoch: chain.epoch,
        segment: last.segment.base_offset,
        position: chain.position,
        last_extent: chain.last_extent,
        last_hash: chain.hash,
    };
    // What was made whole stays as it is.
    let roll_due =
        truncated_bytes > 0 || chain.position.0 >= segment_bytes || last.segment.rewritten.is_some();
    let front = if roll_due { Bytes::new() } else { front };
    State::new(log_start_offset, known, tail, front, roll_due)
}
