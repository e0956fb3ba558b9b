//! One partition's log: what every caller holds, and the state it guards.
//!
//! Owns the offsets, the growing window and the memory of where the segments lie. Never flushes by itself
//! ([`crate::writer`] does, one write in flight) and never knows who leads or who may read.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use corrente_protocol::ids::{LeaderEpoch, Offset, TopicPartition};
use corrente_protocol::record_batch::{ValidBatch, stamp, stamp_append_time};
use corrente_runtime::file::File;
use corrente_runtime::sync::{Budget, Notify, Watch};
use corrente_runtime::timer::{self, Instant};

use crate::checkpoint::CheckpointEntry;
use crate::drives::Drive;
use crate::error::{AppendError, DeleteRecordsError, Fenced, ReadError};
use crate::extent::NO_TIMESTAMP;
use crate::policy::LogPolicy;
use crate::position::{FilePosition, HeaderHash, file_len};
use crate::prewrite::Prewrite;
use crate::producer_state::{Judgement, ProducerState};
use crate::reader;
use crate::retention;
use crate::segment::{FIRST_EXTENT, Segment, segment_name};
use crate::segment_index::SegmentIndex;
use crate::shard::Shard;
use crate::timestamps::{self, TimestampedOffset};
use crate::window::Window;
use crate::writer;

/// Whose log it is.
pub type LogId = TopicPartition;

/// Where appended batches stand in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The offset of the first record.
    pub base_offset: Offset,
    /// One past the offset of the last.
    pub end_offset: Offset,
    /// The time that all the records were given, in ms since 1970, if the log gives them one.
    pub append_time_ms: Option<i64>,
}

/// Whether a log takes records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Sound,
    /// A write or flush failed; what was flushed before can be read. The next start tries again.
    Fenced(Arc<str>),
    /// Something that was flushed is damaged; what is sound can be read. Repair ends it.
    Quarantined(Arc<str>),
}

/// A handle on an open log. Cheap to clone; belongs to the shard that opened it.
#[derive(Clone)]
pub struct Log(pub(crate) Rc<LogInner>);

pub(crate) struct LogInner {
    pub(crate) id: LogId,
    pub(crate) dir: PathBuf,
    pub(crate) shard: Rc<Shard>,
    /// What it lies on.
    pub(crate) drive: Rc<Drive>,
    pub(crate) state: RefCell<State>,
    /// The flushed offset; closed when the log is fenced or closed.
    pub(crate) flushed: Watch<Offset>,
    /// How it is kept.
    pub(crate) policy: Cell<LogPolicy>,
    /// Records below are settled: they may be removed, or compacted away. Its owner moves it.
    pub(crate) settled_end: Cell<Offset>,
    /// Held by whoever removes or rewrites segments: one at a time.
    pub(crate) upkeep: Budget,
    /// Held by the one who compacts.
    pub(crate) compacting: Budget,
    /// Compaction failed, and is not tried before.
    pub(crate) compaction_rests_until: Cell<Instant>,
    /// Held by the append that gathers next: first come, first served.
    turn: Budget,
    /// Held by whoever opens a segment by its name, or gives another file that name.
    pub(crate) names: Budget,
    /// Rings when the growing window was taken, and when no append will succeed any more.
    pub(crate) room: Notify,
    /// Rings when the writer or the prewriter has stopped, or a prewritten range has grown.
    pub(crate) quiet: Notify,
}

/// Invariants: `log_start_offset <= flushed <= frozen_end <= log_end_offset`; `growing` holds exactly the
/// offsets `frozen_end..log_end_offset` and is none if they are equal (a fenced log has dropped it);
/// `segments` has the tail's segment as its last; `front` is as long as the next extent's place is into its
/// block.
pub(crate) struct State {
    pub(crate) log_start_offset: Offset,
    /// One past what has been handed to the writer.
    pub(crate) frozen_end: Offset,
    pub(crate) log_end_offset: Offset,
    /// The epoch of the last batch gathered.
    pub(crate) last_epoch: LeaderEpoch,
    /// The producers of everything gathered.
    pub(crate) producers: ProducerState,
    pub(crate) segments: BTreeMap<Offset, Segment>,
    /// What sealed segments take on disk.
    pub(crate) sealed_bytes: u64,
    pub(crate) tail: Tail,
    /// The bytes of the last, partly filled block of what was handed to the writer.
    pub(crate) front: Bytes,
    /// The next window opens a new segment.
    pub(crate) roll_due: bool,
    pub(crate) growing: Option<Window>,
    /// The memory the next window begins with.
    pub(crate) window_capacity: usize,
    /// Whether a task writes, rolls or trims; the one that may touch the active file.
    pub(crate) writing: bool,
    /// The active segment, open while there is traffic.
    pub(crate) active: Option<ActiveFile>,
    pub(crate) touched: Instant,
    /// The active segment's index.
    pub(crate) index: SegmentIndex,
    pub(crate) closed: bool,
    pub(crate) fenced: Option<Fenced>,
    /// What is damaged, if the log was opened for reading alone.
    pub(crate) quarantined: Option<Arc<str>>,
}

/// Where the flushed part of the log ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tail {
    pub(crate) flushed: Offset,
    pub(crate) epoch: LeaderEpoch,
    /// The base offset of the segment written.
    pub(crate) segment: Offset,
    /// Where its next extent begins.
    pub(crate) position: FilePosition,
    /// Where its last extent begins; equal to `position` if it holds none.
    pub(crate) last_extent: FilePosition,
    /// What the next extent chains to.
    pub(crate) last_hash: HeaderHash,
}

pub(crate) struct ActiveFile {
    pub(crate) file: File,
    pub(crate) prewrite: Prewrite,
}

impl Log {
    pub(crate) fn new(id: LogId, dir: PathBuf, shard: Rc<Shard>, state: State) -> Log {
        state.invariants();
        let flushed = Watch::new(state.tail.flushed);
        let drive = shard.drive_of(&dir).clone();
        Log(Rc::new(LogInner {
            drive,
            policy: Cell::new(LogPolicy::keep_all(shard.config.segment_bytes)),
            settled_end: Cell::new(Offset::ZERO),
            upkeep: Budget::new(1),
            compacting: Budget::new(1),
            compaction_rests_until: Cell::new(Instant::from_nanos(0)),
            id,
            dir,
            shard,
            state: RefCell::new(state),
            flushed,
            turn: Budget::new(1),
            names: Budget::new(1),
            room: Notify::new(),
            quiet: Notify::new(),
        }))
    }

    /// Whose log this is.
    pub fn id(&self) -> LogId {
        self.0.id
    }

    /// The directory that holds its files.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Sets how the log is kept; until then it keeps everything, in segments of the shard's size.
    pub fn set_policy(&self, policy: LogPolicy) {
        self.0.policy.set(policy);
    }

    /// How the log is kept.
    pub fn policy(&self) -> LogPolicy {
        self.0.policy.get()
    }

    /// Lets retention and compaction touch what lies below `end`, which is flushed, and never goes back: what is not
    /// settled among the replicas must stay as it is.
    pub fn settle(&self, end: Offset) {
        assert!(end <= self.flushed_offset(), "settled to {end}, flushed to {}", self.flushed_offset());
        self.0.settled_end.set(end.max(self.0.settled_end.get()));
    }

    /// Appends whole batches: `batches` says where they lie in `bytes`, which they fill without a gap.
    ///
    /// They are copied once, into the window that gathers, where base offset and `epoch` are stamped; on
    /// return they have their offsets and will be flushed without further asking, but are not flushed yet.
    /// Batches of an idempotent producer that are in the log already are not appended again: what is returned is
    /// where they stand.
    /// Waits, first come, first served, while the window is full. Cancel-safe: a dropped append has appended
    /// nothing, unless it returned.
    pub async fn append(
        &self,
        epoch: LeaderEpoch,
        bytes: &[u8],
        batches: &[ValidBatch],
    ) -> Result<Appended, AppendError> {
        let inner = &self.0;
        let max = inner.shard.config.append_bytes_max;
        if batches.is_empty() {
            return Err(AppendError::Empty);
        }
        if bytes.len() > max {
            return Err(AppendError::TooLarge { len: bytes.len(), max });
        }
        let _turn = inner.turn.acquire(1).await;
        if let Judgement::Duplicate(place) = inner.state.borrow().producers.judge(batches)? {
            return Ok(place);
        }
        if !inner.policy.get().uses_reserve {
            inner.take_room(file_len(bytes.len())).await?;
        }
        loop {
            let room = inner.room.wait();
            if inner.may_gather(epoch, bytes.len())? {
                return inner.gather(epoch, bytes, batches);
            }
            room.await;
        }
    }

    /// The first offset that may be read.
    pub fn log_start_offset(&self) -> Offset {
        self.0.state.borrow().log_start_offset
    }

    /// One past the last offset appended.
    pub fn log_end_offset(&self) -> Offset {
        self.0.state.borrow().log_end_offset
    }

    /// One past the last offset flushed.
    pub fn flushed_offset(&self) -> Offset {
        self.0.flushed.get()
    }

    /// Waits until the flushed offset is beyond `offset` and returns it. Cancel-safe.
    pub async fn flushed_past(&self, offset: Offset) -> Result<Offset, Fenced> {
        if let Some(flushed) = self.0.flushed.past(offset).await {
            return Ok(flushed);
        }
        let fenced = self.0.state.borrow().fenced.clone();
        Err(fenced.unwrap_or_else(|| Fenced { reason: Arc::from("the log is closed") }))
    }

    /// Deletes the records below `offset`, at most up to the settled end; says where the log starts now, durably. An
    /// offset at or below the log start deletes nothing. Whole segments go at once, the rest with its segment. Not
    /// cancel-safe: dropped, the log may start at either offset.
    pub async fn delete_records_before(&self, offset: Offset) -> Result<Offset, DeleteRecordsError> {
        retention::delete_before(&self.0, offset).await
    }

    /// The first record below `up_to`, which is flushed, with a timestamp of `at_ms` or later. Cancel-safe.
    pub async fn offset_for_timestamp(
        &self,
        at_ms: i64,
        up_to: Offset,
    ) -> Result<Option<TimestampedOffset>, ReadError> {
        timestamps::first_at(&self.0, at_ms, up_to).await
    }

    /// The record below `up_to`, which is flushed, with the latest timestamp; the first of several. Cancel-safe.
    pub async fn offset_of_max_timestamp(
        &self,
        up_to: Offset,
    ) -> Result<Option<TimestampedOffset>, ReadError> {
        timestamps::latest(&self.0, up_to).await
    }

    /// Reads whole batches, beginning with the one that holds `from`, ending at or before `up_to`, of about
    /// `max_bytes`: the first batch is returned whatever its size. Each element holds one or more batches
    /// back to back and shares memory with the log.
    ///
    /// Offsets still gathering in the window, beyond what has been handed to the disk, are not returned yet:
    /// with `up_to` at or below the flushed offset at least one batch comes back if one ends there. Tail
    /// reads come from memory; others from disk, verified, with read-ahead. Cancel-safe.
    pub async fn read(&self, from: Offset, up_to: Offset, max_bytes: usize) -> Result<Vec<Bytes>, ReadError> {
        reader::read(&self.0, from, up_to, max_bytes).await
    }

    /// The leader epoch of the last batch appended; epoch 0 for a log that never had one.
    pub fn last_epoch(&self) -> LeaderEpoch {
        self.0.state.borrow().last_epoch
    }

    /// Bytes its segments take on disk, headers counted, space made ready ahead not.
    pub fn size_bytes(&self) -> u64 {
        let state = self.0.state.borrow();
        state.sealed_bytes + state.tail.position.0
    }

    /// Why nothing can be appended any more, if a write or flush failed.
    pub fn is_fenced(&self) -> Option<Fenced> {
        self.0.state.borrow().fenced.clone()
    }

    /// Whether the log takes records, and why not.
    pub fn health(&self) -> Health {
        let state = self.0.state.borrow();
        match (&state.fenced, &state.quarantined) {
            (Some(fenced), _) => Health::Fenced(fenced.reason.clone()),
            (None, Some(reason)) => Health::Quarantined(reason.clone()),
            (None, None) => Health::Sound,
        }
    }

    /// Whether the active segment's file is open. A log without traffic gives it up.
    pub fn is_at_rest(&self) -> bool {
        let state = self.0.state.borrow();
        state.active.is_none() && !state.writing
    }
}

impl LogInner {
    /// Whether a window with room for `len` bytes at `epoch` gathers now; `false` says wait.
    fn may_gather(&self, epoch: LeaderEpoch, len: usize) -> Result<bool, AppendError> {
        let state = self.state.borrow();
        if let Some(fenced) = &state.fenced {
            return Err(fenced.clone().into());
        }
        if let Some(reason) = &state.quarantined {
            return Err(AppendError::Quarantined { reason: reason.clone() });
        }
        if state.closed {
            return Err(AppendError::Closed);
        }
        if epoch < state.last_epoch {
            return Err(AppendError::StaleEpoch { given: epoch, last: state.last_epoch });
        }
        let Some(window) = &state.growing else { return Ok(true) };
        Ok(window.epoch() == epoch && window.len() + len <= self.shard.config.window_bytes_max)
    }

    /// Copies, stamps and counts; wakes the writer if it sleeps. Nothing here awaits, so the append happens
    /// whole or not at all.
    fn gather(
        self: &Rc<Self>,
        epoch: LeaderEpoch,
        bytes: &[u8],
        batches: &[ValidBatch],
    ) -> Result<Appended, AppendError> {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let base_offset = state.log_end_offset;
        let records = batches.iter().map(|batch| u64::from(batch.record_count)).sum();
        let end_offset =
            base_offset.checked_add(records).ok_or(AppendError::OffsetsExhausted { end: base_offset })?;
        let policy = self.policy.get();
        let now_ms = timer::wall_clock_ms();
        if state.growing.is_none() && state.is_aged(now_ms, policy.segment_ms) {
            state.roll_at_next_window();
        }
        let append_time_ms = policy.append_time.then_some(now_ms);
        let latest = batches.iter().map(|batch| batch.header.max_timestamp_ms).max();
        let max_timestamp_ms = append_time_ms.or(latest).unwrap_or(NO_TIMESTAMP);
        let capacity = state.window_capacity.max(bytes.len());
        let window =
            state.growing.get_or_insert_with(|| Window::new(&state.front, base_offset, epoch, capacity));
        let copy = window.gather(bytes, end_offset, max_timestamp_ms);
        let mut next = base_offset;
        for batch in batches {
            let copy = &mut copy[batch.range.clone()];
            if let Some(append_time_ms) = append_time_ms {
                stamp_append_time(copy, append_time_ms);
            }
            stamp(copy, next, epoch);
            let place = Appended {
                base_offset: next,
                end_offset: next.saturating_add(u64::from(batch.record_count)),
                append_time_ms,
            };
            state.producers.note(&batch.header, place, now_ms);
            next = place.end_offset;
        }
        assert_eq!(next, end_offset, "batches end at {next}, the window at {end_offset}");
        state.log_end_offset = end_offset;
        state.last_epoch = epoch;
        state.invariants();
        let was_writing = std::mem::replace(&mut state.writing, true);
        drop(guard);
        if !was_writing {
            writer::start(self.clone());
        }
        Ok(Appended { base_offset, end_offset, append_time_ms })
    }

    /// Takes room for an append; files that wait for their next life are given up for it.
    async fn take_room(&self, len: u64) -> Result<(), AppendError> {
        let Err(mut full) = self.drive.take(len).await else { return Ok(()) };
        let freed = self.shard.pool.drain(self.drive.path()).await.unwrap_or(0);
        if freed > 0 && self.drive.look().await.is_ok() {
            match self.drive.take(len).await {
                Ok(()) => return Ok(()),
                Err(still_full) => full = still_full,
            }
        }
        self.drive.note_refusal(len);
        Err(full.into())
    }

    /// Whether segments of it may be removed. A log that is fenced takes no more records, and may be what fills the
    /// drive.
    pub(crate) fn takes_removals(&self) -> bool {
        let state = self.state.borrow();
        state.quarantined.is_none() && !state.closed
    }

    /// Whether segments of it may be rewritten as well.
    pub(crate) fn takes_upkeep(&self) -> bool {
        let state = self.state.borrow();
        state.fenced.is_none() && state.quarantined.is_none() && !state.closed
    }

    /// Why not.
    pub(crate) fn why_no_upkeep(&self) -> Arc<str> {
        let state = self.state.borrow();
        let fenced = state.fenced.as_ref().map(|fenced| fenced.reason.clone());
        fenced.or_else(|| state.quarantined.clone()).unwrap_or_else(|| Arc::from("the log is closed"))
    }

    /// Puts one segment in the place of others that followed each other, and of what memory holds of them.
    pub(crate) fn replace_segments(&self, old: &[Segment], new: Segment) {
        let end_offset = {
            let mut state = self.state.borrow_mut();
            for segment in old {
                let gone = state.segments.remove(&segment.base_offset).expect("a segment of this log");
                state.sealed_bytes -= gone.end_position.0;
            }
            state.segments.insert(new.base_offset, new);
            state.sealed_bytes += new.end_position.0;
            state.invariants();
            let following = state.segments.range(new.base_offset..).nth(1);
            following.map(|(base_offset, _)| *base_offset).expect("only sealed segments are replaced")
        };
        self.shard.tail.borrow_mut().let_go_below(self.id, end_offset);
        self.shard.read_ahead.forget(self.id);
    }

    /// Ends the log's writability for good; what was flushed can still be read.
    pub(crate) fn fence(&self, reason: &str) {
        tracing::error!(log = %self.id, reason, "the log is fenced");
        {
            let mut state = self.state.borrow_mut();
            state.fenced.get_or_insert(Fenced { reason: Arc::from(reason) });
            state.growing = None;
            state.active = None;
        }
        self.shard.tail.borrow_mut().flushed(self.id, Offset::MAX);
        self.flushed.close();
        self.room.notify_all();
    }

    /// No append succeeds any more; those that wait learn it.
    pub(crate) fn refuse_appends(&self) {
        self.state.borrow_mut().closed = true;
        self.room.notify_all();
    }

    /// The file of a segment.
    pub(crate) fn segment_path(&self, base_offset: Offset) -> PathBuf {
        self.dir.join(segment_name(base_offset))
    }

    /// What the checkpoint says of this log now.
    pub(crate) fn checkpoint_entry(&self) -> CheckpointEntry {
        let state = self.state.borrow();
        let tail = state.tail;
        let segment = &state.segments[&tail.segment];
        CheckpointEntry {
            log: self.id,
            leader_epoch: tail.epoch,
            log_start_offset: state.log_start_offset,
            flushed_offset: tail.flushed,
            segment_base: tail.segment,
            nonce: segment.nonce,
            position: tail.position,
            last_extent: tail.last_extent,
            last_hash: tail.last_hash,
            max_timestamp_ms: segment.max_timestamp_ms,
        }
    }
}

impl State {
    /// The state of a log whose flushed part ends at `tail`; `front` are the bytes of its last block.
    pub(crate) fn new(
        log_start_offset: Offset,
        segments: BTreeMap<Offset, Segment>,
        tail: Tail,
        front: Bytes,
        roll_due: bool,
    ) -> State {
        let sealed = segments.range(..tail.segment);
        let sealed_bytes = sealed.map(|(_, segment)| segment.end_position.0).sum();
        State {
            log_start_offset,
            frozen_end: tail.flushed,
            log_end_offset: tail.flushed,
            last_epoch: tail.epoch,
            producers: ProducerState::default(),
            segments,
            sealed_bytes,
            tail,
            front,
            roll_due,
            growing: None,
            window_capacity: 0,
            writing: false,
            active: None,
            touched: timer::now(),
            index: SegmentIndex::default(),
            closed: false,
            fenced: None,
            quarantined: None,
        }
    }

    /// Whether the active segment holds something, or will soon, and was made longer than `age_ms` ago.
    pub(crate) fn is_aged(&self, now_ms: i64, age_ms: u64) -> bool {
        let holds_records = self.tail.position > FIRST_EXTENT || self.frozen_end > self.tail.flushed;
        let age = now_ms.saturating_sub(self.active_segment().created_ms);
        holds_records && u64::try_from(age).is_ok_and(|age| age >= age_ms)
    }

    /// Has the next window open a new segment; none may be gathering.
    pub(crate) fn roll_at_next_window(&mut self) {
        assert!(self.growing.is_none(), "a window gathers for the present segment");
        self.roll_due = true;
        self.front = Bytes::new();
    }

    /// The segment being written.
    pub(crate) fn active_segment(&self) -> &Segment {
        &self.segments[&self.tail.segment]
    }

    pub(crate) fn invariants(&self) {
        let flushed = self.tail.flushed;
        assert!(self.log_start_offset <= flushed, "start {} > flushed {flushed}", self.log_start_offset);
        assert!(flushed <= self.frozen_end, "flushed {flushed} > frozen {}", self.frozen_end);
        assert!(
            self.frozen_end <= self.log_end_offset,
            "frozen {} > end {}",
            self.frozen_end,
            self.log_end_offset
        );
        if self.fenced.is_none() {
            let gathered = self.growing.as_ref().map_or(self.frozen_end, Window::end_offset);
            assert_eq!(gathered, self.log_end_offset, "gathered to {gathered}, end {}", self.log_end_offset);
        }
        assert!(FIRST_EXTENT <= self.tail.last_extent, "last extent {}", self.tail.last_extent);
        assert!(
            self.tail.last_extent <= self.tail.position,
            "last extent {} > position {}",
            self.tail.last_extent,
            self.tail.position
        );
        let last = self.segments.keys().next_back();
        assert_eq!(last, Some(&self.tail.segment), "the tail lies in {}", self.tail.segment);
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.borrow();
        let (start, end) = (state.log_start_offset, state.log_end_offset);
        write!(f, "Log({} {start}..{end}, flushed {})", self.0.id, state.tail.flushed)
    }
}
