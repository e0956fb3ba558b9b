//! Removes records that a later one of the same key supersedes, and tombstones whose time has come.
//!
//! Works on sealed, settled segments in the background, in pieces of about a MiB, one log of a shard at a time. Offsets
//! never change; the record with the last offset of each key stays, and so does what cannot be read as records.
//!
//! Crash story. (1) The keys of the dirty part are read; nothing is written. (2) A segment is rewritten from one or
//! more old ones, into a file without a name that counts; all of it is made durable. (3) The file takes the name of the
//! first old one, at one stroke, and the directory is made durable. (4) The other old ones are removed. A crash up to 3
//! leaves the old segments; after 3 the new one stands for all of them, and a start removes what is left of them. The
//! log reads the same at every step: what is missing in the new segment was superseded by a record that is durable
//! elsewhere.

mod key_map;
mod plan;

use std::rc::Rc;

use bytes::Bytes;
use corrente_protocol::compression::Compression;
use corrente_protocol::ids::Offset;
use corrente_protocol::record_batch::{
    HEADER_LEN, RecordBatch, RecordBatchHeader, RecordBatches, Retained, retain,
};
use corrente_runtime::executor::yield_if_needed;
use corrente_runtime::file::{self, File, OpenOptions};
use corrente_runtime::offload::offload;
use corrente_runtime::random::random_u64;

use crate::error::{AtPath, PathError, ReadError};
use crate::log::LogInner;
use crate::policy::CompactionPolicy;
use crate::read_ahead::Chunk;
use crate::retention::remove_segment_files;
use crate::rewriter::{Rewrite, Rewriter, Unborn};
use crate::segment::{RewrittenBy, Segment};
use crate::segment_reader::{Place, SegmentReader};
use crate::writer;
use key_map::{Full, KeyMap};
pub(crate) use plan::{Due, due};

/// The most that one batch may hold when it is decompressed; a larger one is left as it is.
const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What one compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Compacted {
    /// Bytes of the segments before.
    pub(crate) bytes_before: u64,
    /// Bytes of those that replaced them.
    pub(crate) bytes_after: u64,
}

/// Why a compaction ended early. What it has done until then is whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompactError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Io(#[from] PathError),
    #[error("the log was closed")]
    Closed,
}

/// Compacts what is due, if anything is.
pub(crate) async fn compact(log: &Rc<LogInner>, now_ms: i64) -> Result<Compacted, CompactError> {
    let mut done = Compacted::default();
    let Some(policy) = log.policy.get().compaction else { return Ok(done) };
    let _turn = log.upkeep.acquire(1).await;
    if !log.takes_upkeep() {
        return Ok(done);
    }
    if log.state.borrow().is_aged(now_ms, policy.max_lag_ms) {
        writer::seal_active(log);
    }
    let due_now = || plan::due(&log.state.borrow(), &policy, now_ms, log.settled_end.get());
    let mut due = due_now();
    // What is appended meanwhile is left to the next time: other logs wait.
    let end = due.map_or(Offset::ZERO, |due| due.end);
    while let Some(part) = due.filter(|due| due.dirty_start < end) {
        tracing::debug!(log = %log.id, ?part, "compaction begins");
        let one = compact_once(log, policy, now_ms, part).await?;
        done.bytes_before += one.bytes_before;
        done.bytes_after += one.bytes_after;
        due = due_now();
    }
    Ok(done)
}

/// Makes at least the first dirty segment clean.
async fn compact_once(
    log: &Rc<LogInner>,
    policy: CompactionPolicy,
    now_ms: i64,
    due: Due,
) -> Result<Compacted, CompactError> {
    let seed = random_u64();
    let keys_of =
        |parts, part| KeyMap::new(seed, log.shard.config.compaction_bytes, due.dirty_start, parts, part);
    let mut keys = keys_of(1, 0);
    read_keys(log, &mut keys, due.end).await?;
    if keys.end() > due.dirty_start {
        return Pass { log, policy, now_ms, keys, by: RewrittenBy::Compaction }.rewrite_all().await;
    }
    // Not even one segment's keys fit: they are taken in parts, each of which rewrites everything once.
    let end = segment_end(log, &segments_within(log, due.dirty_start, due.end)[0]);
    let mut done = Compacted::default();
    let (mut parts, mut part) = (2_u64, 0);
    while part < parts {
        let mut keys = keys_of(parts, part);
        read_keys(log, &mut keys, end).await?;
        if keys.end() < end {
            assert!(parts < 1 << 32, "the keys of {} do not fit in {parts} parts", log.id);
            (parts, part) = (parts * 2, 0);
            continue;
        }
        part += 1;
        let by = if part == parts { RewrittenBy::Compaction } else { RewrittenBy::PartOfCompaction };
        let pass = Pass { log, policy, now_ms, keys, by }.rewrite_all().await?;
        done.bytes_before = done.bytes_before.max(pass.bytes_before);
        done.bytes_after = pass.bytes_after;
    }
    Ok(done)
}

/// Takes note of every key from the map's start on, segment by segment, as long as whole ones fit.
async fn read_keys(log: &Rc<LogInner>, keys: &mut KeyMap, end: Offset) -> Result<(), CompactError> {
    for segment in segments_within(log, keys.end(), end) {
        let mut scan = SegmentScan::open(log, segment).await?;
        while let Some(chunk) = scan.next().await? {
            if note_chunk(keys, chunk).await == Err(Full) {
                return Ok(());
            }
        }
        keys.noted_to(scan.end_offset);
    }
    Ok(())
}

async fn note_chunk(keys: &mut KeyMap, chunk: &Chunk) -> Result<(), Full> {
    for stretch in &chunk.stretches {
        for batch in RecordBatches::new(stretch.batches.clone()).map_while(Result::ok) {
            // What cannot be read supersedes nothing.
            let Ok(batch) = decompressed(batch).await else { continue };
            let Ok(records) = batch.records(BATCH_BYTES_MAX) else { continue };
            for record in records.map_while(Result::ok) {
                if let Some(key) = &record.key {
                    keys.note(key, record.offset)?;
                }
            }
            yield_if_needed().await;
        }
    }
    Ok(())
}

/// The batch without compression, which is taken off on another thread.
async fn decompressed(batch: RecordBatch) -> Result<RecordBatch, ()> {
    if batch.header().attributes.compression() == Ok(Compression::None) {
        return Ok(batch);
    }
    offload(move || batch.decompressed(BATCH_BYTES_MAX).map_err(|_| ())).await
}

/// One rewriting of everything up to the end of what a map knows.
struct Pass<'a> {
    log: &'a Rc<LogInner>,
    policy: CompactionPolicy,
    now_ms: i64,
    keys: KeyMap,
    by: RewrittenBy,
}

impl Pass<'_> {
    async fn rewrite_all(&self) -> Result<Compacted, CompactError> {
        let mut done = Compacted::default();
        let segments = segments_within(self.log, Offset::ZERO, self.keys.end());
        for group in plan::groups(&segments, self.log.policy.get().segment_bytes) {
            let clean = matches!(&group[..], [only] if only.rewritten.is_some_and(|own| own.by == self.by));
            if clean && !self.changes(group[0]).await? {
                continue;
            }
            let unborn = self.rewrite(&group).await?;
            done.bytes_before += group.iter().map(|segment| segment.end_position.0).sum::<u64>();
            done.bytes_after += unborn.segment.end_position.0;
            adopt(self.log, &group, unborn).await?;
        }
        Ok(done)
    }

    /// Whether anything in a segment would be taken out.
    async fn changes(&self, segment: Segment) -> Result<bool, CompactError> {
        let mut scan = SegmentScan::open(self.log, segment).await?;
        while let Some(chunk) = scan.next().await? {
            for stretch in &chunk.stretches {
                for batch in RecordBatches::new(stretch.batches.clone()).map_while(Result::ok) {
                    if !matches!(self.retain(batch).await, None | Some(Retained::Unchanged)) {
                        return Ok(true);
                    }
                    yield_if_needed().await;
                }
            }
        }
        Ok(false)
    }

    async fn rewrite(&self, group: &[Segment]) -> Result<Unborn, CompactError> {
        let (first, last) = (group[0], group[group.len() - 1]);
        let rewrite = Rewrite {
            log: self.log.id,
            by: self.by,
            base_offset: first.base_offset,
            previous: first.previous,
            epoch: first.epoch_before,
            created_ms: last.created_ms,
        };
        let window_bytes_max = self.log.shard.config.window_bytes_max;
        let mut rewriter = Rewriter::begin(&self.log.dir, rewrite, window_bytes_max).await?;
        for segment in group {
            let mut scan = SegmentScan::open(self.log, *segment).await?;
            let end_offset = scan.end_offset;
            while let Some(chunk) = scan.next().await? {
                for stretch in &chunk.stretches {
                    let mut batches = stretch.batches.clone();
                    while !batches.is_empty() {
                        let batch = split_batch(&mut batches, stretch.base_offset)?;
                        self.copy(&mut rewriter, batch, end_offset).await?;
                        yield_if_needed().await;
                    }
                }
            }
        }
        let (written, expected) = (rewriter.end_offset(), segment_end(self.log, &last));
        assert!(written == expected, "rewritten up to {written}, the old segment ended at {expected}");
        Ok(rewriter.finish().await?)
    }

    /// Copies what stays of a batch; nothing of one that is left without records, unless it is the segment's last.
    async fn copy(
        &self,
        rewriter: &mut Rewriter,
        bytes: Bytes,
        segment_end: Offset,
    ) -> Result<(), CompactError> {
        let header = RecordBatchHeader::decode(&bytes).expect("it was split by its header");
        let Ok(batch) = RecordBatch::new(bytes.clone()) else {
            return Ok(rewriter.push(&bytes, &header).await?);
        };
        match self.retain(batch).await {
            None | Some(Retained::Unchanged) if header.record_count > 0 => {
                rewriter.push(&bytes, &header).await?
            }
            None | Some(Retained::Unchanged) => {
                if header.end_offset() == segment_end {
                    rewriter.push(&bytes, &header).await?;
                }
            }
            Some(Retained::Changed(changed)) => {
                let header = RecordBatchHeader::decode(&changed).expect("a batch just built");
                if header.record_count > 0 || header.end_offset() == segment_end {
                    rewriter.push(&changed, &header).await?;
                }
            }
        }
        Ok(())
    }

    /// What stays of a batch; none if it cannot be read, and is to be left as it is.
    async fn retain(&self, batch: RecordBatch) -> Option<Retained> {
        let header = *batch.header();
        if header.attributes.is_control() {
            return Some(Retained::Unchanged);
        }
        let compressed = header.attributes.compression() != Ok(Compression::None);
        let tombstones_go = header.delete_horizon_ms().is_some_and(|horizon| self.now_ms > horizon);
        let retention = i64::try_from(self.policy.delete_retention_ms).unwrap_or(i64::MAX);
        let horizon_ms = self.now_ms.saturating_add(retention);
        let plain = decompressed(batch.clone()).await.ok()?;
        let keep = |record: &corrente_protocol::record::RecordView| match &record.key {
            Some(key) if self.keys.supersedes(key, record.offset) => false,
            Some(_) => record.value.is_some() || !tombstones_go,
            None => true,
        };
        let retained = retain(&plain, BATCH_BYTES_MAX, horizon_ms, keep).ok()?;
        let Retained::Changed(bytes) = retained else { return Some(Retained::Unchanged) };
        if !compressed {
            return Some(Retained::Changed(bytes));
        }
        let compression = header.attributes.compression().ok()?;
        Some(Retained::Changed(offload(move || recompressed(bytes, compression)).await))
    }
}

fn recompressed(bytes: Bytes, compression: Compression) -> Bytes {
    let batch = RecordBatch::new(bytes.clone()).expect("a batch just built");
    batch.compressed(compression).unwrap_or(bytes)
}

/// The segments that hold anything between two offsets and are written no more.
fn segments_within(log: &LogInner, from: Offset, end: Offset) -> Vec<Segment> {
    let state = log.state.borrow();
    let end = end.min(state.tail.segment);
    let first = state.segments.range(..=from).next_back().map_or(from, |(base, _)| *base);
    state.segments.range(first..end).map(|(_, segment)| *segment).collect()
}

/// Where a sealed segment ends.
fn segment_end(log: &LogInner, segment: &Segment) -> Offset {
    let state = log.state.borrow();
    let next = state.segments.range(segment.base_offset..).nth(1).map(|(base, _)| *base);
    next.unwrap_or(state.tail.flushed)
}

/// Takes the first batch off; its checksum is not looked at.
fn split_batch(batches: &mut Bytes, near: Offset) -> Result<Bytes, ReadError> {
    let malformed = || ReadError::Damaged {
        start: near,
        end: near.saturating_add(1),
        reason: "the extent verifies, a batch in it has no length".into(),
    };
    let header = RecordBatchHeader::decode(batches).map_err(|_| malformed())?;
    if header.size() < HEADER_LEN || header.size() > batches.len() {
        return Err(malformed());
    }
    Ok(batches.split_to(header.size()))
}

/// Puts a rewritten segment in the place of those it was made from.
///
/// Files are opened by the name of a segment, so nobody opens one between the new file's taking the name and the log's
/// knowing it.
async fn adopt(log: &Rc<LogInner>, old: &[Segment], unborn: Unborn) -> Result<(), CompactError> {
    let Unborn { path, segment, index } = unborn;
    if !log.takes_upkeep() {
        let _ = file::remove_file(&path).await;
        return Err(CompactError::Closed);
    }
    let names = log.names.acquire(1).await;
    let born = log.segment_path(segment.base_offset);
    file::rename(&path, &born).await.at(&born)?;
    log.replace_segments(old, segment);
    drop(names);
    file::sync_dir(&log.dir).await.at(&log.dir)?;
    writer::write_index(log.clone(), segment, index).await;
    for gone in old.iter().filter(|gone| gone.base_offset != segment.base_offset) {
        remove_segment_files(log, gone).await?;
    }
    Ok(())
}

/// Reads a sealed segment from end to end, past the memory that readers share.
struct SegmentScan<'a> {
    log: &'a Rc<LogInner>,
    segment: Segment,
    file: File,
    next: Offset,
    end_offset: Offset,
    last: Option<Chunk>,
}

impl<'a> SegmentScan<'a> {
    async fn open(log: &'a Rc<LogInner>, segment: Segment) -> Result<SegmentScan<'a>, CompactError> {
        let path = log.segment_path(segment.base_offset);
        let file = File::open(&path, OpenOptions::READ).await.at(&path)?;
        let end_offset = segment_end(log, &segment);
        Ok(SegmentScan { log, segment, file, next: segment.base_offset, end_offset, last: None })
    }

    /// The next extents, verified.
    async fn next(&mut self) -> Result<Option<&Chunk>, CompactError> {
        if self.next >= self.end_offset {
            return Ok(None);
        }
        if !self.log.takes_upkeep() {
            return Err(CompactError::Closed);
        }
        let known = self.last.as_ref().map(|chunk| chunk.next_position);
        let place =
            Place::in_sealed(self.segment, self.end_offset, known.or(Some(crate::segment::FIRST_EXTENT)));
        let reader = SegmentReader { log: self.log, place, file: self.file.clone() };
        let chunk = reader.read_chunk(self.next).await?;
        self.next = chunk.end_offset();
        Ok(Some(self.last.insert(chunk)))
    }
}
