//! Writes a segment whole, from batches that others held: for compaction and for repair.
//!
//! Owns the file until it is finished: extents first, the header that says where they end last, all of it durable
//! before the file can get its name. Its first extent chains to the nonce, for the header is not known yet.

use std::path::{Path, PathBuf};

use corrente_protocol::ids::{LeaderEpoch, Offset};
use corrente_protocol::record_batch::RecordBatchHeader;
use corrente_runtime::file::{File, OpenOptions, Sync};
use corrente_runtime::random::random_u64;

use crate::error::{AtPath, PathError};
use crate::extent::NO_TIMESTAMP;
use crate::log::LogId;
use crate::position::{FilePosition, HeaderHash, Nonce};
use crate::segment::{
    FIRST_EXTENT, PreviousSegment, Rewritten, RewrittenBy, Segment, SegmentHeader, chain_start, unborn_name,
};
use crate::segment_index::SegmentIndex;
use crate::window::Window;

/// What is known of the new segment before its first batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rewrite {
    pub(crate) log: LogId,
    pub(crate) by: RewrittenBy,
    /// The first offset it stands for.
    pub(crate) base_offset: Offset,
    /// What the first of the segments it replaces says of the one before.
    pub(crate) previous: Option<PreviousSegment>,
    /// The leader epoch before its first batch.
    pub(crate) epoch: LeaderEpoch,
    /// When the newest of the segments it replaces was made.
    pub(crate) created_ms: i64,
}

/// A segment that is being written.
///
/// Invariants: `position` is where the next extent begins and `hash` what it chains to; all offsets up to `end_offset`
/// are covered, by extents or by `window`.
pub(crate) struct Rewriter {
    rewrite: Rewrite,
    path: PathBuf,
    file: File,
    nonce: Nonce,
    position: FilePosition,
    hash: HeaderHash,
    front: bytes::Bytes,
    window: Option<Window>,
    window_bytes_max: usize,
    epoch: LeaderEpoch,
    end_offset: Offset,
    max_timestamp_ms: i64,
    index: SegmentIndex,
}

/// A segment that is whole and durable, and still without its name.
pub(crate) struct Unborn {
    pub(crate) path: PathBuf,
    pub(crate) segment: Segment,
    pub(crate) index: SegmentIndex,
}

impl Rewriter {
    /// Begins a file in the directory of the log, under a name that recovery throws away.
    pub(crate) async fn begin(
        dir: &Path,
        rewrite: Rewrite,
        window_bytes_max: usize,
    ) -> Result<Rewriter, PathError> {
        let path = dir.join(unborn_name(rewrite.base_offset));
        let options = OpenOptions { create: true, ..OpenOptions::READ_WRITE };
        let file = File::open(&path, options).await.at(&path)?;
        file.set_len(0).await.at(&path)?;
        let nonce = Nonce(random_u64());
        Ok(Rewriter {
            path,
            file,
            nonce,
            position: FIRST_EXTENT,
            hash: chain_start(nonce),
            front: bytes::Bytes::new(),
            window: None,
            window_bytes_max,
            epoch: rewrite.epoch,
            end_offset: rewrite.base_offset,
            max_timestamp_ms: NO_TIMESTAMP,
            index: SegmentIndex::default(),
            rewrite,
        })
    }

    /// One past the last offset that what was pushed stands for.
    pub(crate) fn end_offset(&self) -> Offset {
        self.end_offset
    }

    /// Adds a batch, stamped, that lies behind all others. Offsets between are covered and hold nothing.
    pub(crate) async fn push(&mut self, batch: &[u8], header: &RecordBatchHeader) -> Result<(), PathError> {
        let end = header.end_offset();
        assert!(end > self.end_offset, "a batch up to {end} behind {}", self.end_offset);
        let epoch = header.leader_epoch.max(self.epoch);
        let full = self.window.as_ref().is_some_and(|window| {
            window.epoch() != epoch || window.len() + batch.len() > self.window_bytes_max
        });
        if full {
            self.write_window().await?;
        }
        self.epoch = epoch;
        let (front, base) = (&self.front, self.end_offset);
        let capacity = self.window_bytes_max.max(batch.len());
        let window = self.window.get_or_insert_with(|| Window::new(front, base, epoch, capacity));
        window.gather(batch, end, header.max_timestamp_ms);
        self.end_offset = end;
        Ok(())
    }

    async fn write_window(&mut self) -> Result<(), PathError> {
        let Some(window) = self.window.take() else { return Ok(()) };
        let sealed = window.seal(self.position, self.nonce, self.hash);
        self.index.note(sealed.stretch.base_offset, sealed.extent, self.max_timestamp_ms);
        self.file.write_at(sealed.data.clone(), sealed.at.0, Sync::No).await.at(&self.path)?;
        self.front = sealed.front_of_next();
        self.position = sealed.next_extent;
        self.hash = sealed.hash;
        self.max_timestamp_ms = self.max_timestamp_ms.max(sealed.max_timestamp_ms);
        Ok(())
    }

    /// Writes what is left and the header; everything is durable on return, but for the name.
    pub(crate) async fn finish(mut self) -> Result<Unborn, PathError> {
        self.write_window().await?;
        let Rewrite { log, by, base_offset, previous, epoch, created_ms } = self.rewrite;
        let header = SegmentHeader {
            log,
            base_offset,
            nonce: self.nonce,
            created_ms,
            leader_epoch: epoch,
            previous,
            rewritten: Some(Rewritten {
                by,
                end_offset: self.end_offset,
                end_position: self.position,
                end_hash: self.hash,
                max_timestamp_ms: self.max_timestamp_ms,
                last_epoch: self.epoch,
            }),
        };
        let (block, header_hash) = header.encode();
        self.file.write_at(block.freeze(), 0, Sync::No).await.at(&self.path)?;
        self.file.sync_data().await.at(&self.path)?;
        let segment = Segment::new(&header, header_hash);
        self.file.close().await.at(&self.path)?;
        Ok(Unborn { path: self.path, segment, index: self.index })
    }
}
