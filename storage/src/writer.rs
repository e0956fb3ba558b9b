//! The one task that writes a log: freezes the window that has gathered, writes it, and again, until nothing
//! is left to write.
//!
//! At most one runs per log, and only it touches the active file's end, opens, rolls or trims it. So at most
//! one write of data is in flight per log; the next window grows meanwhile, and group commit needs no timer.
//! A write is durable when it returns (`RWF_DSYNC`). Any error fences the log; nothing is tried twice.

use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use corrente_protocol::ids::Offset;
use corrente_runtime::buffer::BLOCK;
use corrente_runtime::executor::{Queue, spawn_in};
use corrente_runtime::file::{self, File, OpenOptions, Sync};
use corrente_runtime::random::random_u64;
use corrente_runtime::timer;

use crate::error::{AtPath, PathError};
use crate::log::{ActiveFile, LogInner, State, Tail};
use crate::position::{BLOCK_BYTES, FilePosition, Nonce, buffer_len, file_len};
use crate::prewrite::{Ahead, Prewrite};
use crate::segment::{
    FIRST_EXTENT, PreviousSegment, Segment, SegmentHeader, index_name, segment_name, unborn_name,
};
use crate::segment_index::{POINT_EVERY, SegmentIndex};
use crate::window::SealedWindow;

/// An active segment's index keeps at most this many points while the log rests.
const POINTS_AT_REST: usize = 128;
/// A sealed segment's index is written only if no gap in it is wider; else it is rebuilt when first read.
const GAP_MAX: u64 = 16 * POINT_EVERY;

/// Starts the writer. The caller has set `writing`, which stays set until it has nothing left to do.
pub(crate) fn start(log: Rc<LogInner>) {
    debug_assert!(log.state.borrow().writing);
    spawn_in(Queue::Storage, run(log)).detach();
}

/// Starts the writer of a log without traffic, to give up its file first; without effect while it writes.
pub(crate) fn start_resting(log: Rc<LogInner>) {
    {
        let mut state = log.state.borrow_mut();
        let filling = state.active.as_ref().is_none_or(|active| active.prewrite.is_filling());
        if state.writing || filling {
            return;
        }
        state.writing = true;
    }
    spawn_in(Queue::Storage, async move {
        rest(&log).await;
        run(log).await;
    })
    .detach();
}

/// Seals the active segment although nothing is appended; without effect while the log writes.
pub(crate) fn seal_active(log: &Rc<LogInner>) {
    {
        let mut state = log.state.borrow_mut();
        if state.writing || state.growing.is_some() {
            return;
        }
        state.roll_at_next_window();
        state.writing = true;
    }
    let log = log.clone();
    spawn_in(Queue::Storage, async move {
        match roll(&log).await {
            Ok(()) => run(log).await,
            Err(error) => fail(&log, &error),
        }
    })
    .detach();
}

/// Ends the log's writability and the writer.
fn fail(log: &LogInner, error: &PathError) {
    log.drive.learn_from(&error.source);
    log.fence(&error.to_string());
    log.state.borrow_mut().writing = false;
    log.quiet.notify_all();
}

async fn run(log: Rc<LogInner>) {
    loop {
        match write_next(&log).await {
            Ok(Wrote::One) => {}
            Ok(Wrote::Nothing) => return,
            Err(error) => return fail(&log, &error),
        }
    }
}

#[derive(PartialEq, Eq)]
enum Wrote {
    One,
    Nothing,
}

async fn write_next(log: &Rc<LogInner>) -> Result<Wrote, PathError> {
    if stop_if_done(log) {
        return Ok(Wrote::Nothing);
    }
    if log.state.borrow().roll_due {
        roll(log).await?;
    }
    let file = active_file(log).await?;
    let Some(window) = freeze(log) else { return Ok(Wrote::One) };
    wait_for_space(log, window.write_end()).await;
    if let Err(source) = file.write_at(window.data.clone(), window.at.0, Sync::Data).await {
        let path = log.segment_path(log.state.borrow().tail.segment);
        return Err(PathError { path, source });
    }
    let ahead = flushed(log, &window);
    make_ready(log, &file, ahead).await?;
    Ok(Wrote::One)
}

/// Decides, in one step with giving up `writing`, that nothing is left: an append after it starts anew.
fn stop_if_done(log: &LogInner) -> bool {
    let mut state = log.state.borrow_mut();
    if state.growing.is_some() && state.fenced.is_none() {
        return false;
    }
    state.writing = false;
    drop(state);
    log.quiet.notify_all();
    true
}

/// Takes the window that has gathered; appends go into the next one from now on. None is there if the log
/// was fenced meanwhile.
fn freeze(log: &LogInner) -> Option<SealedWindow> {
    let window = {
        let mut state = log.state.borrow_mut();
        let state = &mut *state;
        let growing = state.growing.take()?;
        state.window_capacity = next_capacity(state.window_capacity, growing.len());
        let window = growing.seal(state.tail.position, state.active_segment().nonce, state.tail.last_hash);
        state.frozen_end = window.stretch.end_offset;
        state.roll_due = window.next_extent.0 >= log.policy.get().segment_bytes;
        state.front = if state.roll_due { Bytes::new() } else { window.front_of_next() };
        state.invariants();
        window
    };
    log.shard.tail.borrow_mut().push(log.id, window.stretch.clone(), window.data.len());
    log.room.notify_all();
    Some(window)
}

/// Half way from the last guess to what was needed: windows seldom grow, and shrink with the load.
fn next_capacity(guess: usize, len: usize) -> usize {
    if len > guess { len } else { (guess + len) / 2 }
}

/// Everything up to the end of `window` is durable.
fn flushed(log: &Rc<LogInner>, window: &SealedWindow) -> Ahead {
    let end_offset = window.stretch.end_offset;
    let ahead = {
        let mut state = log.state.borrow_mut();
        let state = &mut *state;
        let before = state.active_segment().max_timestamp_ms;
        state.index.note(window.stretch.base_offset, window.extent, before);
        state.tail = Tail {
            flushed: end_offset,
            epoch: window.epoch,
            segment: state.tail.segment,
            position: window.next_extent,
            last_extent: window.extent,
            last_hash: window.hash,
        };
        let segment = state.segments.get_mut(&state.tail.segment).expect("the active segment is known");
        segment.end_position = window.next_extent;
        segment.max_timestamp_ms = before.max(window.max_timestamp_ms);
        state.touched = timer::now();
        state.invariants();
        let bound = log.policy.get().segment_bytes.next_multiple_of(BLOCK_BYTES);
        let len = file_len(window.data.len());
        // Without a file the log was fenced meanwhile.
        let active = state.active.as_mut().filter(|_| !state.roll_due);
        let after = |active: &mut ActiveFile| {
            active.prewrite.after_write(state.touched, len, window.write_end(), bound)
        };
        active.map_or(Ahead::Enough, after)
    };
    log.shard.tail.borrow_mut().flushed(log.id, end_offset);
    log.shard.checkpointer.note(&log.shard, log.checkpoint_entry(), file_len(window.data.len()));
    log.shard.producers.note(&log.shard, file_len(window.data.len()));
    log.flushed.set(end_offset);
    ahead
}

/// The active segment's file, opened if the log was at rest.
async fn active_file(log: &Rc<LogInner>) -> Result<File, PathError> {
    if let Some(active) = &log.state.borrow().active {
        return Ok(active.file.clone());
    }
    let path = log.segment_path(log.state.borrow().tail.segment);
    let file = File::open(&path, OpenOptions::READ_WRITE).await.at(&path)?;
    let len = file.len().await.at(&path)?;
    install(log, file.clone(), len);
    Ok(file)
}

fn install(log: &Rc<LogInner>, file: File, len: u64) {
    let prewrite = Prewrite::new(len - len % BLOCK_BYTES);
    log.state.borrow_mut().active = Some(ActiveFile { file, prewrite });
    log.shard.woke(log);
}

/// Waits while the write would run into the range that is being filled with zeros: two writes in flight to
/// one place land in any order.
async fn wait_for_space(log: &LogInner, end: u64) {
    loop {
        let quiet = log.quiet.wait();
        let blocked = {
            let state = log.state.borrow();
            state.active.as_ref().is_some_and(|active| active.prewrite.blocks(end))
        };
        if !blocked {
            return;
        }
        quiet.await;
    }
}

async fn make_ready(log: &Rc<LogInner>, file: &File, ahead: Ahead) -> Result<(), PathError> {
    match ahead {
        Ahead::Enough => Ok(()),
        // What is left of a drive that is nearly full is for records.
        Ahead::Fill(range) if !log.drive.take_if_plenty(range.end - range.start) => {
            with_prewrite(log, Prewrite::filled);
            Ok(())
        }
        Ahead::Allocate(range) if !log.drive.take_if_plenty(range.end - range.start) => Ok(()),
        Ahead::Fill(range) => {
            spawn_in(Queue::Background, fill(log.clone(), file.clone(), range)).detach();
            Ok(())
        }
        Ahead::Allocate(range) => {
            // Only a help: without it the write itself finds space, or says that there is none.
            if file.allocate(range.start, range.end - range.start).await.is_ok() {
                with_prewrite(log, |prewrite| prewrite.reached(range.end));
            }
            Ok(())
        }
    }
}

/// Fills a range beyond the data with zeros, durably, piece by piece.
async fn fill(log: Rc<LogInner>, file: File, range: Range<u64>) {
    let zeros = log.shard.zeros();
    let mut at = range.start;
    while at < range.end && log.state.borrow().fenced.is_none() {
        let len = (range.end - at).min(file_len(zeros.len()));
        match file.write_at(zeros.slice(..buffer_len(len)), at, Sync::Data).await {
            Ok(()) => at += len,
            // A full disk is the next data write's to say; it may fit where this did not.
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
            Err(error) => {
                let path = log.segment_path(log.state.borrow().tail.segment);
                log.fence(&format!("{}: {error}", path.display()));
                break;
            }
        }
        with_prewrite(&log, |prewrite| prewrite.reached(at));
        log.quiet.notify_all();
    }
    with_prewrite(&log, Prewrite::filled);
    log.quiet.notify_all();
}

fn with_prewrite(log: &LogInner, change: impl FnOnce(&mut Prewrite)) {
    if let Some(active) = &mut log.state.borrow_mut().active {
        change(&mut active.prewrite);
    }
}

/// Gives up the active file, with the space made ready ahead and the memory kept for speed.
async fn rest(log: &LogInner) {
    let (active, end) = {
        let mut state = log.state.borrow_mut();
        state.front = Bytes::copy_from_slice(&state.front);
        state.window_capacity = 0;
        state.index.thin(POINTS_AT_REST);
        (state.active.take(), state.tail.position.block_end())
    };
    let Some(active) = active else { return };
    trim(log, &active, end).await;
}

/// Gives space ahead back to the disk. Only a help: a file that stays long is as good.
async fn trim(log: &LogInner, active: &ActiveFile, end: FilePosition) {
    if active.prewrite.ready() <= end.0 {
        return;
    }
    if let Err(error) = active.file.set_len(end.0).await {
        tracing::warn!(log = %log.id, %error, "space ahead could not be given back");
    }
}

/// Ends the active segment and begins the next.
///
/// 1. All of the old segment is durable: its last write has returned.
/// 2. The new file gets its header, durably, under a name that recovery throws away.
/// 3. It gets its own name, and the directory is made durable.
/// 4. Only then is an extent written into it.
///
/// A crash before 3 leaves the old segment the last one, and nothing acknowledged is in the new. A crash
/// after 3 finds a segment with a valid header that names the old one's end, so that a shorter old one is
/// known for damage. If the old segment holds nothing (its only extent was torn), the new one has its name
/// and replaces it at one stroke.
async fn roll(log: &Rc<LogInner>) -> Result<(), PathError> {
    wait_for_space(log, u64::MAX).await;
    let (old, active, header) = {
        let mut state = log.state.borrow_mut();
        let old = *state.active_segment();
        let previous = if state.tail.position == FIRST_EXTENT {
            old.previous
        } else {
            Some(PreviousSegment {
                base_offset: old.base_offset,
                end_position: old.end_position,
                end_hash: state.tail.last_hash,
                max_timestamp_ms: old.max_timestamp_ms,
            })
        };
        let header = SegmentHeader {
            log: log.id,
            base_offset: state.tail.flushed,
            nonce: Nonce(random_u64()),
            created_ms: timer::wall_clock_ms(),
            leader_epoch: state.tail.epoch,
            previous,
            rewritten: None,
        };
        (old, state.active.take(), header)
    };
    if let Some(active) = active {
        trim(log, &active, old.end_position.block_end()).await;
    }
    let recycled = log.shard.pool.take(&log.dir);
    let (file, segment) = create_segment(&log.dir, &header, recycled).await?;
    let len = file.len().await.at(&log.segment_path(segment.base_offset))?;
    let index = begin_segment(&mut log.state.borrow_mut(), segment, &header);
    install(log, file, len);
    if old.base_offset != segment.base_offset && index.widest_gap(FIRST_EXTENT, old.end_position) <= GAP_MAX {
        spawn_in(Queue::Background, write_index(log.clone(), old, index)).detach();
    }
    Ok(())
}

/// Makes `segment` the active one; gives back the index of the one before it.
fn begin_segment(state: &mut State, segment: Segment, header: &SegmentHeader) -> SegmentIndex {
    let old_base = state.tail.segment;
    if old_base != segment.base_offset {
        state.sealed_bytes += state.tail.position.0;
    }
    state.segments.insert(segment.base_offset, segment);
    state.tail = Tail {
        segment: header.base_offset,
        position: FIRST_EXTENT,
        last_extent: FIRST_EXTENT,
        last_hash: segment.header_hash,
        ..state.tail
    };
    state.roll_due = false;
    state.invariants();
    std::mem::take(&mut state.index)
}

/// A new segment file, durable with its name and header, in a file of the pool if one is given.
pub(crate) async fn create_segment(
    dir: &std::path::Path,
    header: &SegmentHeader,
    recycled: Option<std::path::PathBuf>,
) -> Result<(File, Segment), PathError> {
    let unborn = dir.join(unborn_name(header.base_offset));
    let path = dir.join(segment_name(header.base_offset));
    let file = open_unborn(&unborn, recycled).await?;
    let (block, header_hash) = header.encode();
    file.write_at(block.freeze(), 0, Sync::Data).await.at(&unborn)?;
    file::rename(&unborn, &path).await.at(&path)?;
    file::sync_dir(dir).await.at(dir)?;
    Ok((file, Segment::new(header, header_hash)))
}

/// An empty file, or one whose bytes mean nothing under the nonce it will get.
async fn open_unborn(
    unborn: &std::path::Path,
    recycled: Option<std::path::PathBuf>,
) -> Result<File, PathError> {
    if let Some(recycled) = recycled
        && file::rename(&recycled, unborn).await.is_ok()
    {
        return File::open(unborn, OpenOptions::READ_WRITE).await.at(unborn);
    }
    let options = OpenOptions { create: true, ..OpenOptions::READ_WRITE };
    let file = File::open(unborn, options).await.at(unborn)?;
    file.set_len(0).await.at(unborn)?;
    Ok(file)
}

/// Puts a sealed segment's index beside it. Only a help: without it the index is rebuilt when first needed.
pub(crate) async fn write_index(log: Rc<LogInner>, segment: Segment, index: SegmentIndex) {
    if !log.takes_upkeep() {
        return;
    }
    let path = log.dir.join(index_name(segment.base_offset));
    let content = index.encode(segment.nonce, segment.end_position).to_vec();
    if let Err(error) = file::write_small(&path, content).await {
        tracing::warn!(path = %path.display(), %error, "the index could not be written");
    }
}

/// Waits until nothing is left to write, then gives up the file. Appends have been refused before.
pub(crate) async fn finish(log: &Rc<LogInner>) {
    loop {
        let quiet = log.quiet.wait();
        let busy = {
            let mut state = log.state.borrow_mut();
            let filling = state.active.as_ref().is_some_and(|active| active.prewrite.is_filling());
            let busy = state.writing || filling;
            state.writing |= !busy;
            busy
        };
        if !busy {
            break;
        }
        quiet.await;
    }
    rest(log).await;
    log.state.borrow_mut().writing = false;
    log.flushed.close();
}

const _: () = assert!(BLOCK_BYTES as usize == BLOCK);

/// The first segment of a new log.
pub(crate) fn first_header(log: crate::log::LogId) -> SegmentHeader {
    SegmentHeader {
        log,
        base_offset: Offset::ZERO,
        nonce: Nonce(random_u64()),
        created_ms: timer::wall_clock_ms(),
        leader_epoch: corrente_protocol::ids::LeaderEpoch(0),
        previous: None,
        rewritten: None,
    }
}
