//! Which segments of a log lie on the disk, and whether they follow each other.
//!
//! Looks at names, headers and lengths alone; extents are the walk's.

use std::path::Path;

use corrente_protocol::ids::{LeaderEpoch, Offset};
use corrente_runtime::buffer::BLOCK;
use corrente_runtime::file::{self, File, OpenOptions};

use super::{Trouble, damaged};
use crate::checkpoint::CheckpointEntry;
use crate::error::{AtPath, PathError};
use crate::log::LogId;
use crate::log_start;
use crate::position::{FilePosition, HeaderHash};
use crate::segment::{FIRST_EXTENT, FileName, Segment, SegmentHeader, parse_name, segment_name};
use crate::writer;

/// The names in a log's directory.
pub(super) struct Names {
    pub(super) segments: Vec<Offset>,
    /// Files that were never finished.
    pub(super) unfinished: Vec<String>,
}

pub(super) async fn list(dir: &Path) -> Result<Names, PathError> {
    let mut names = Names { segments: Vec::new(), unfinished: Vec::new() };
    for entry in file::read_dir(dir).await.at(dir)? {
        match parse_name(&entry.name) {
            FileName::Segment(base_offset) => names.segments.push(base_offset),
            FileName::Index(_) | FileName::LogStart | FileName::SetAside => {}
            FileName::Unfinished => names.unfinished.push(entry.name),
            FileName::Strange => {
                tracing::warn!(path = %dir.join(&entry.name).display(), "not a segment: left alone");
            }
        }
    }
    names.segments.sort_unstable();
    Ok(names)
}

/// A segment file as it lies there.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) segment: Segment,
    pub(super) epoch: LeaderEpoch,
    pub(super) file_len: u64,
}

/// Where a segment that is written no more ends.
#[derive(Clone, Copy)]
pub(super) struct SealedEnd {
    pub(super) position: FilePosition,
    pub(super) hash: HeaderHash,
    pub(super) max_timestamp_ms: i64,
}

impl Found {
    /// Where the segment ends, by its own header if it was made whole, else by its successor's.
    pub(super) fn sealed_end(&self, successor: &Found) -> SealedEnd {
        if let Some(own) = self.segment.rewritten {
            return SealedEnd {
                position: own.end_position,
                hash: own.end_hash,
                max_timestamp_ms: own.max_timestamp_ms,
            };
        }
        let previous = successor.segment.previous.expect("links were checked");
        SealedEnd {
            position: previous.end_position,
            hash: previous.end_hash,
            max_timestamp_ms: previous.max_timestamp_ms,
        }
    }
}

pub(super) async fn look_at(id: LogId, dir: &Path, base_offset: Offset) -> Result<Found, Trouble> {
    let path = dir.join(segment_name(base_offset));
    let file = File::open(&path, OpenOptions::READ).await.at(&path)?;
    let file_len = file.len().await.at(&path)?;
    let block = file.read_at(0, BLOCK).await.at(&path)?;
    file.close().await.at(&path)?;
    let (header, header_hash) = SegmentHeader::decode(&block, id, base_offset)
        .map_err(|fault| damaged(format!("{}: {fault}", segment_name(base_offset))))?;
    Ok(Found { segment: Segment::new(&header, header_hash), epoch: header.leader_epoch, file_len })
}

pub(super) async fn make_first(id: LogId, dir: &Path) -> Result<Found, PathError> {
    let header = writer::first_header(id);
    let (file, segment) = writer::create_segment(dir, &header, None).await?;
    let path = dir.join(segment_name(header.base_offset));
    file.close().await.at(&path)?;
    Ok(Found { segment, epoch: header.leader_epoch, file_len: FIRST_EXTENT.0 })
}

/// Takes out the segments that a rewritten one stands for: a crash came between its birth and their removal.
pub(super) fn take_superseded(segments: &mut Vec<Found>) -> Vec<Segment> {
    let mut covered_to = Offset::ZERO;
    let mut superseded = Vec::new();
    segments.retain(|found| {
        let segment = found.segment;
        if segment.base_offset < covered_to {
            superseded.push(segment);
            return false;
        }
        if let Some(rewritten) = segment.rewritten {
            covered_to = rewritten.end_offset;
        }
        true
    });
    superseded
}

/// Takes out the segments that lie wholly below the log start: a crash came before they were removed.
pub(super) fn take_expired(segments: &mut Vec<Found>, log_start: Offset) -> Vec<Segment> {
    let kept_from = segments.iter().rposition(|found| found.segment.base_offset <= log_start).unwrap_or(0);
    segments.drain(..kept_from).map(|found| found.segment).collect()
}

/// The log start offset, from the two places that know it.
pub(super) async fn log_start_offset(
    id: LogId,
    dir: &Path,
    checkpoint: Option<CheckpointEntry>,
) -> Result<Offset, PathError> {
    let of_checkpoint = checkpoint.map_or(Offset::ZERO, |entry| entry.log_start_offset);
    let of_file = log_start::read(dir, id).await?.unwrap_or(Offset::ZERO);
    Ok(of_checkpoint.max(of_file))
}

/// The first segment reaches down to the log start; every other one follows the one before it, and that one is as
/// long as it was then.
pub(super) fn check_links(segments: &[Found], log_start: Offset) -> Result<(), Trouble> {
    let first = segments[0].segment.base_offset;
    if first > log_start {
        return Err(damaged(format!("the log starts at {log_start}, its first segment at {first}")));
    }
    for pair in segments.windows(2) {
        check_link(&pair[0], &pair[1])?;
    }
    let last = segments.last().expect("there is at least one segment");
    check_len(last, last.segment.end_position)
}

fn check_link(before: &Found, after: &Found) -> Result<(), Trouble> {
    let (base, name) = (after.segment.base_offset, segment_name(after.segment.base_offset));
    let before_base = before.segment.base_offset;
    if let Some(rewritten) = before.segment.rewritten {
        let end = rewritten.end_offset;
        if end != base {
            let before_name = segment_name(before_base);
            return Err(damaged(format!(
                "{before_name} ends at offset {end}, the next segment begins at {base}"
            )));
        }
        return check_len(before, rewritten.end_position);
    }
    let Some(previous) = after.segment.previous else {
        return Err(damaged(format!("{name} is a first segment, but {before_base} lies before it")));
    };
    if previous.base_offset != before_base {
        let expected = previous.base_offset;
        return Err(damaged(format!("{name} follows segment {expected}, found {before_base} before it")));
    }
    check_len(before, previous.end_position)
}

fn check_len(found: &Found, end: FilePosition) -> Result<(), Trouble> {
    if found.file_len < end.0 {
        let name = segment_name(found.segment.base_offset);
        return Err(damaged(format!("{name} has {} bytes, it ended at {end}", found.file_len)));
    }
    Ok(())
}
