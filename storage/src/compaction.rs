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
use corrente_protocol::record::RecordView;
use corrente_protocol::record_batch::{
    HEADER_LEN, RecordBatch, RecordBatchHeader, RecordBatches, Retained, retain,
};
use corrente_runtime::executor::yield_in_background;
use corrente_runtime::file::{self, File, OpenOptions};
use corrente_runtime::offload::offload;
use corrente_runtime::random::random_u64;
use corrente_runtime::sync::Permit;

use crate::DECOMPRESSED_BATCH_BYTES_MAX;
use crate::error::{AtPath, PathError, ReadError};
use crate::log::LogInner;
use crate::policy::CompactionPolicy;
use crate::position::BLOCK_BYTES;
use crate::read_ahead::Chunk;
use crate::reader;
use crate::retention::remove_segment_files;
use crate::rewriter::{Rewrite, Rewriter, Unborn};
use crate::segment::{RewrittenBy, Segment, unborn_name};
use crate::segment_reader::{Place, SegmentReader};
use crate::writer;
use key_map::{Full, KeyMap};
pub(crate) use plan::{Due, due};

/// What is read or written at one go: a flush that somebody waits for waits for that first.
const IO_LEN_MAX: usize = 128 * 1024;

/// Records looked at between two chances for others to run.
const RECORDS_A_STEP: usize = 256;

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
    #[error("segments of the log were removed meanwhile")]
    Changed,
    #[error("the drive has {available} bytes left, {reserve} are reserved")]
    NoRoom { available: u64, reserve: u64 },
}

/// Compacts what is due, if anything is and nobody is at it already.
pub(crate) async fn compact(log: &Rc<LogInner>, now_ms: i64) -> Result<Compacted, CompactError> {
    let mut done = Compacted::default();
    let Some(policy) = log.policy.get().compaction else { return Ok(done) };
    let Some(_alone) = log.compacting.try_acquire(1) else { return Ok(done) };
    let overdue = log.state.borrow().is_aged(now_ms, policy.max_lag_ms);
    if overdue && log.takes_upkeep() && log.drive.take(BLOCK_BYTES).await.is_ok() {
        writer::seal_active(log);
    }
    let due_now = || plan::due(&log.state.borrow(), &policy, now_ms, log.settled_end.get());
    let mut due = due_now().filter(|_| log.takes_upkeep());
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
    let dirty_start = due.dirty_start;
    let keys_of =
        |parts, part| KeyMap::new(seed, log.shard.config.compaction_bytes, dirty_start, parts, part);
    let mut keys = keys_of(1, 0);
    read_keys(log, &mut keys, due.end).await?;
    if keys.end() > dirty_start {
        let pass = Pass { log, policy, now_ms, keys, dirty_start, is_last: true };
        return pass.rewrite_all().await;
    }
    // Not even one segment's keys fit: they are taken in parts, each of which goes through everything once.
    let end = segment_end(log, &segments_within(log, dirty_start, due.end)[0]);
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
        let pass =
            Pass { log, policy, now_ms, keys, dirty_start, is_last: part == parts }.rewrite_all().await?;
        done.bytes_before = done.bytes_before.max(pass.bytes_before);
        done.bytes_after = pass.bytes_after;
    }
    Ok(done)
}

/// Takes note of every key from the map's start on, segment by segment, as long as whole ones fit.
async fn read_keys(log: &Rc<LogInner>, keys: &mut KeyMap, end: Offset) -> Result<(), CompactError> {
    for segment in segments_within(log, keys.end(), end) {
        let _turn = turn_for(log, &[segment]).await?;
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

/// The turn for upkeep of the log, as long as it still has these segments. It is given up between any two steps:
/// whoever deletes records waits for one step alone.
async fn turn_for(log: &Rc<LogInner>, segments: &[Segment]) -> Result<Permit, CompactError> {
    let turn = log.upkeep.acquire(1).await;
    if !log.takes_upkeep() {
        return Err(CompactError::Closed);
    }
    if !segments.iter().all(|segment| reader::is_current(log, segment)) {
        return Err(CompactError::Changed);
    }
    Ok(turn)
}

async fn note_chunk(keys: &mut KeyMap, chunk: &Chunk) -> Result<(), Full> {
    for stretch in &chunk.stretches {
        for batch in RecordBatches::new(stretch.batches.clone()).map_while(Result::ok) {
            // What cannot be read supersedes nothing.
            if batch.header().attributes.is_control() {
                continue;
            }
            let Ok(batch) = decompressed(batch).await else { continue };
            let Ok(records) = batch.records(DECOMPRESSED_BATCH_BYTES_MAX) else { continue };
            for (count, record) in records.map_while(Result::ok).enumerate() {
                if let Some(key) = &record.key {
                    keys.note(key, record.offset)?;
                }
                if count % RECORDS_A_STEP == 0 {
                    yield_in_background().await;
                }
            }
        }
    }
    Ok(())
}

/// The batch without compression, which is taken off on another thread.
async fn decompressed(batch: RecordBatch) -> Result<RecordBatch, ()> {
    if batch.header().attributes.compression() == Ok(Compression::None) {
        return Ok(batch);
    }
    offload(move || batch.decompressed(DECOMPRESSED_BATCH_BYTES_MAX).map_err(|_| ())).await
}

/// One walk through everything up to the end of what a map knows.
struct Pass<'a> {
    log: &'a Rc<LogInner>,
    policy: CompactionPolicy,
    now_ms: i64,
    keys: KeyMap,
    /// Everything below is clean, and stays so.
    dirty_start: Offset,
    /// What was dirty is clean after it.
    is_last: bool,
}

impl Pass<'_> {
    async fn rewrite_all(&self) -> Result<Compacted, CompactError> {
        let mut done = Compacted::default();
        let segments = segments_within(self.log, Offset::ZERO, self.keys.end());
        let (clean, dirty): (Vec<Segment>, Vec<Segment>) =
            segments.into_iter().partition(|segment| segment.base_offset < self.dirty_start);
        let segment_bytes = self.log.policy.get().segment_bytes;
        let by = if self.is_last { RewrittenBy::Compaction } else { RewrittenBy::PartOfCompaction };
        let groups =
            plan::groups(&clean, segment_bytes).into_iter().map(|group| (group, RewrittenBy::Compaction));
        let groups = groups.chain(plan::groups(&dirty, segment_bytes).into_iter().map(|group| (group, by)));
        for (group, by) in groups {
            let _turn = turn_for(self.log, &group).await?;
            let is_so = matches!(&group[..], [only] if only.rewritten.is_some_and(|own| own.by == by));
            if is_so && !self.changes(group[0]).await? {
                continue;
            }
            let unborn = self.rewrite(&group, by).await?;
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
                    yield_in_background().await;
                }
            }
        }
        Ok(false)
    }

    /// A new segment from old ones. What was begun of it and cannot be finished goes at once.
    async fn rewrite(&self, group: &[Segment], by: RewrittenBy) -> Result<Unborn, CompactError> {
        let bytes = group.iter().map(|segment| segment.end_position.0).sum();
        if let Err(full) = self.log.drive.take(bytes).await {
            return Err(CompactError::NoRoom { available: full.available, reserve: full.reserve });
        }
        let rewritten = self.rewrite_into_file(group, by).await;
        if rewritten.is_err() {
            // It may not even have been made.
            let _ = file::remove_file(&self.log.dir.join(unborn_name(group[0].base_offset))).await;
        }
        rewritten
    }

    async fn rewrite_into_file(&self, group: &[Segment], by: RewrittenBy) -> Result<Unborn, CompactError> {
        let (first, last) = (group[0], group[group.len() - 1]);
        let rewrite = Rewrite {
            log: self.log.id,
            by,
            base_offset: first.base_offset,
            previous: first.previous,
            epoch: first.epoch_before,
            created_ms: last.created_ms,
        };
        let window_bytes_max = self.log.shard.config.window_bytes_max.min(IO_LEN_MAX);
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
                        yield_in_background().await;
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
        let keep = |record: &RecordView| match &record.key {
            Some(key) if self.keys.supersedes(key, record.offset) => false,
            // What it deletes is of its own part of the keys, and goes in this very pass.
            Some(key) => record.value.is_some() || !tombstones_go || !self.keys.is_of_its_part(key),
            None => true,
        };
        let retained = retain(&plain, DECOMPRESSED_BATCH_BYTES_MAX, horizon_ms, keep).ok()?;
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
    log.shard.producers.cover(log.id, segment_end(log, &old[old.len() - 1])).await;
    let names = log.names.acquire(1).await;
    let born = log.segment_path(segment.base_offset);
    // Held open, so that what it held is given back in small steps, not at once by the loss of its name.
    let before = File::open(&born, OpenOptions::READ_WRITE).await.at(&born)?;
    file::rename(&path, &born).await.at(&born)?;
    log.replace_segments(old, segment);
    drop(names);
    file::sync_dir(&log.dir).await.at(&log.dir)?;
    log.drive.release(before, old[0].end_position.block_end().0, 0, || {});
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
        let reader =
            SegmentReader { log: self.log, place, file: self.file.clone(), read_len_max: IO_LEN_MAX };
        let chunk = reader.read_chunk(self.next).await?;
        self.next = chunk.end_offset();
        Ok(Some(self.last.insert(chunk)))
    }
}
