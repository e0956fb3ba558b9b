//! Follows the extents of a log's segments, as they lie on the disk, to the end of the log.
//!
//! Reads, verifies and looks at what lies behind the end; the only thing it changes is that it flushes a file whose
//! tail is to be relied on.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use corrente_protocol::ids::Offset;
use corrente_runtime::buffer::{AlignedBuf, BLOCK};
use corrente_runtime::executor::yield_if_needed;
use corrente_runtime::file::{File, OpenOptions};

use super::found::Found;
use super::{Trouble, chain_start, damaged};
use crate::checkpoint::CheckpointEntry;
use crate::error::{AtPath, PathError};
use crate::extent::{EXTENT_ALIGN, EXTENT_HEADER_LEN, ExtentFault, ExtentHeader};
use crate::position::{FilePosition, Nonce, buffer_len, file_len};
use crate::scan::{BrokenChain, ChainEnd, Next, find_extent};
use crate::segment::segment_name;
use crate::segment_index::SegmentIndex;

/// Bytes read at a time while scanning.
const SCAN_READ: usize = 1024 * 1024;

/// The end of the log.
pub(super) struct LogEnd {
    pub(super) chain: ChainEnd,
    /// The last block, up to the end.
    pub(super) front: Bytes,
    /// Bytes of something behind it.
    pub(super) truncated_bytes: u64,
}

pub(super) struct Scan<'a> {
    pub(super) dir: &'a Path,
    pub(super) extent_bytes_max: usize,
    pub(super) window_bytes_max: usize,
    pub(super) scanned_bytes: u64,
    /// Extents seen in the segment that is being scanned.
    pub(super) index: SegmentIndex,
}

impl Scan<'_> {
    /// Walks from the starting point to the end of the last segment.
    pub(super) async fn walk_segments(
        &mut self,
        segments: &[Found],
        (at, mut chain): (usize, ChainEnd),
        checkpoint: Option<CheckpointEntry>,
    ) -> Result<LogEnd, Trouble> {
        self.check_last_extent(&chain, segments[at].segment.base_offset).await?;
        for (at, found) in segments.iter().enumerate().skip(at) {
            self.index = SegmentIndex::default();
            let name = segment_name(found.segment.base_offset);
            let Some(next) = segments.get(at + 1) else {
                return self.walk_last(found, chain, checkpoint).await;
            };
            let sealed = found.sealed_end(next);
            let file = self.open(&name, OpenOptions::READ).await?;
            let (end, stop) = self.walk(&file, &name, chain, sealed.position.0).await?;
            if end.position != sealed.position || end.hash != sealed.hash {
                let (found, expected) = (end.position, sealed.position);
                return Err(damaged(format!(
                    "{name} verifies up to {found}, it ended at {expected}: {stop}"
                )));
            }
            let follows = next.segment.base_offset;
            if follows != end.next_offset {
                let ended = end.next_offset;
                return Err(damaged(format!("{name} ends at offset {ended}, the next begins at {follows}")));
            }
            chain = ChainEnd { epoch: end.epoch, ..chain_start(next) };
        }
        unreachable!("the last segment returns")
    }

    /// The last extent below the checkpoint is still the one it was.
    async fn check_last_extent(&mut self, chain: &ChainEnd, base_offset: Offset) -> Result<(), Trouble> {
        if chain.last_extent == chain.position {
            return Ok(());
        }
        let name = segment_name(base_offset);
        let file = self.open(&name, OpenOptions::READ).await?;
        let block = self.read(&file, &name, chain.last_extent.block_start(), BLOCK).await?;
        let header = block.get(chain.last_extent.in_block()..).filter(|rest| rest.len() >= EXTENT_HEADER_LEN);
        let header = header.map(|bytes| ExtentHeader::decode(bytes, chain.nonce, chain.last_extent));
        let at = chain.last_extent;
        match header {
            Some(Ok((header, hash))) if hash == chain.hash && header.next_position(at) == chain.position => {
                Ok(())
            }
            Some(Err(fault)) => Err(damaged(format!("{name} at {at}, below the checkpoint: {fault}"))),
            _ => Err(damaged(format!("{name} at {at} is not the extent the checkpoint knows"))),
        }
    }

    /// Walks the segment that may have a torn tail.
    async fn walk_last(
        &mut self,
        found: &Found,
        chain: ChainEnd,
        checkpoint: Option<CheckpointEntry>,
    ) -> Result<LogEnd, Trouble> {
        let name = segment_name(found.segment.base_offset);
        let file = self.open(&name, OpenOptions::READ_WRITE).await?;
        let (mut end, mut truncated_bytes) = self.find_end(&file, &name, chain, found.file_len).await?;
        if end != chain || truncated_bytes > 0 {
            // What is read and relied on must still be there after the next crash: flush, then read again.
            file.sync_data().await.at(&self.dir.join(&name))?;
            self.index = SegmentIndex::default();
            (end, truncated_bytes) = self.find_end(&file, &name, chain, found.file_len).await?;
        }
        let front = self.front(&file, &name, end.position).await?;
        if let Some(entry) = checkpoint {
            let (flushed, found) = (entry.flushed_offset, end.next_offset);
            assert!(found >= flushed, "the log ends at {found}, the checkpoint at {flushed}");
        }
        Ok(LogEnd { chain: end, front, truncated_bytes })
    }

    /// The end of the log in its last segment, and how many bytes of a torn tail lie behind.
    async fn find_end(
        &mut self,
        file: &File,
        name: &str,
        chain: ChainEnd,
        file_end: u64,
    ) -> Result<(ChainEnd, u64), Trouble> {
        let (end, stop) = self.walk(file, name, chain, file_end).await?;
        if let Stop::Broken(broken) = stop {
            return Err(damaged(format!("{name} at {}: {broken}", end.position)));
        }
        let truncated_bytes = self.look_behind(file, name, &end, file_end).await?;
        Ok((end, truncated_bytes))
    }

    /// Follows the chain as far as it goes, at most to `file_end`.
    pub(super) async fn walk(
        &mut self,
        file: &File,
        name: &str,
        mut chain: ChainEnd,
        file_end: u64,
    ) -> Result<(ChainEnd, Stop), Trouble> {
        let mut want = SCAN_READ;
        loop {
            let start = chain.position.block_start();
            let len = want.next_multiple_of(BLOCK) + BLOCK;
            let bytes = if start.0 < file_end {
                self.read(file, name, start, len).await?
            } else {
                AlignedBuf::zeroed(0)
            };
            let available = bytes.len().min(buffer_len_or_max(file_end.saturating_sub(start.0)));
            let file_ends = start.0 + file_len(available) >= file_end || bytes.len() < len;
            let (next, stop) = self.walk_bytes(chain, start, &bytes[..available], file_ends);
            chain = next;
            match stop {
                Stop::Needs(more) => want = more.max(SCAN_READ),
                stop => return Ok((chain, stop)),
            }
            yield_if_needed().await;
        }
    }

    /// Follows the chain through `bytes`, which begin at `start`, at or before the chain's position.
    fn walk_bytes(
        &mut self,
        mut chain: ChainEnd,
        start: FilePosition,
        bytes: &[u8],
        file_ends: bool,
    ) -> (ChainEnd, Stop) {
        loop {
            let rest = bytes.get(buffer_len(chain.position - start)..).unwrap_or_default();
            match chain.next(rest, file_ends) {
                Next::Extent { base_offset, position, end } => {
                    self.index.note(base_offset, position, chain.max_timestamp_ms);
                    chain = end;
                }
                Next::Needs(len) => return (chain, Stop::Needs(len)),
                Next::Nothing(fault) => return (chain, Stop::Nothing(fault)),
                Next::Broken(broken) => return (chain, Stop::Broken(broken)),
            }
        }
    }

    /// The bytes of the last block before the end of the log.
    async fn front(&mut self, file: &File, name: &str, end: FilePosition) -> Result<Bytes, Trouble> {
        if end.in_block() == 0 {
            return Ok(Bytes::new());
        }
        let block = self.read(file, name, end.block_start(), BLOCK).await?;
        let front = block.get(..end.in_block());
        let front = front.ok_or_else(|| damaged(format!("{name} ends before {end}")))?;
        Ok(Bytes::copy_from_slice(front))
    }

    /// Looks at what lies behind the end of the log, as far as one write could reach, or as a whole window of zeros:
    /// how many bytes up to the last that is not zero. A valid extent there proves that what should stand before it
    /// was flushed.
    async fn look_behind(
        &mut self,
        file: &File,
        name: &str,
        end: &ChainEnd,
        file_end: u64,
    ) -> Result<u64, Trouble> {
        let reach = end.position.0 + file_len(self.extent_bytes_max + 2 * BLOCK);
        let limit = reach.min(file_end);
        let mut rubbish = 0;
        let mut at = end.position.block_start();
        while at.0 < limit {
            let len = buffer_len((limit - at.0).min(file_len(SCAN_READ))).next_multiple_of(BLOCK);
            let bytes = self.read(file, name, at, len).await?;
            if bytes.is_empty() {
                break;
            }
            let skip = if at < end.position { end.position.in_block() } else { 0 };
            let (position, bytes) = (at + file_len(skip), bytes.get(skip..).unwrap_or_default());
            let last = bytes.iter().rposition(|byte| *byte != 0);
            if last.is_none() && at.0 + file_len(len) >= end.position.0 + file_len(self.window_bytes_max) {
                break;
            }
            if let Some(last) = last {
                rubbish = position.0 + file_len(last) + 1 - end.position.0;
                // What stands at the end itself has been judged already.
                let own = if position == end.position { EXTENT_HEADER_LEN } else { 0 };
                let later = bytes.get(own..).unwrap_or_default();
                if let Some((found, header)) = find_extent(later, end.nonce, position + file_len(own)) {
                    let (from, to) = (end.next_offset, header.base_offset);
                    return Err(damaged(format!(
                        "{name}: offsets {from} to {to} at {} do not verify, a later extent at {found} does",
                        end.position
                    )));
                }
            }
            at = at + file_len(len);
            yield_if_needed().await;
        }
        Ok(rubbish)
    }

    /// The furthest offset that extents of the segment reach to, from where a chain ended on: what lies between is
    /// damaged.
    pub(super) async fn furthest_end(
        &mut self,
        file: &File,
        name: &str,
        chain: ChainEnd,
        file_end: u64,
    ) -> Result<Offset, Trouble> {
        let mut furthest = chain.next_offset;
        let mut from = chain.position + EXTENT_ALIGN as u64;
        while let Some((position, header)) = self.next_header(file, name, chain.nonce, from, file_end).await?
        {
            let resumed = ChainEnd {
                nonce: chain.nonce,
                position,
                last_extent: position,
                hash: header.prev,
                next_offset: header.base_offset,
                epoch: header.leader_epoch,
                max_timestamp_ms: header.max_timestamp_ms,
            };
            let (end, _) = self.walk(file, name, resumed, file_end).await?;
            // A header without its body was never whole, for all that can be told.
            if end.position > position {
                furthest = furthest.max(end.next_offset);
            }
            from = end.position.max(position + EXTENT_ALIGN as u64);
        }
        Ok(furthest)
    }

    /// The first header of the file that verifies, at or behind a position.
    async fn next_header(
        &mut self,
        file: &File,
        name: &str,
        nonce: Nonce,
        from: FilePosition,
        file_end: u64,
    ) -> Result<Option<(FilePosition, ExtentHeader)>, PathError> {
        let mut at = from.block_start();
        while at.0 < file_end {
            let bytes = self.read(file, name, at, SCAN_READ).await?;
            let skip = if at < from { from.in_block() } else { 0 };
            let rest = bytes.get(skip..).unwrap_or_default();
            if let Some(found) = find_extent(rest, nonce, at + file_len(skip)) {
                return Ok(Some(found));
            }
            at = at + file_len(SCAN_READ);
            yield_if_needed().await;
        }
        Ok(None)
    }

    pub(super) async fn open(&self, name: &str, options: OpenOptions) -> Result<File, PathError> {
        let path = self.dir.join(name);
        File::open(&path, options).await.at(&path)
    }

    async fn read(
        &mut self,
        file: &File,
        name: &str,
        at: FilePosition,
        len: usize,
    ) -> Result<AlignedBuf, PathError> {
        let path: PathBuf = self.dir.join(name);
        let bytes = file.read_at(at.0, len).await.at(&path)?;
        self.scanned_bytes += file_len(bytes.len());
        Ok(bytes)
    }
}

/// Why a walk stopped.
pub(super) enum Stop {
    Needs(usize),
    Nothing(ExtentFault),
    Broken(BrokenChain),
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Stop::Needs(len) => write!(f, "{len} bytes needed"),
            Stop::Nothing(fault) => fault.fmt(f),
            Stop::Broken(broken) => broken.fmt(f),
        }
    }
}

/// A file length as a buffer length, or all there is.
fn buffer_len_or_max(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
