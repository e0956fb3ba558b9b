//! What a shard does for its logs from time to time: retention, compaction.
//!
//! Two tasks in the background queue, so that a long compaction holds no retention up; each takes one log at a time,
//! holds the storage weakly and ends with it.

use std::cell::Cell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use corrente_runtime::executor::{Queue, spawn_in, yield_in_background};
use corrente_runtime::timer;

use crate::compaction::{self, CompactError};
use crate::log::Log;
use crate::retention;
use crate::storage::Storage;

/// What cannot be compacted now, for damage or want of room, will hardly be so in a moment.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(600);

/// What upkeep has done since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UpkeepCounters {
    /// Bytes of segments before they were compacted.
    pub compacted_bytes_before: u64,
    /// Bytes of those that replaced them.
    pub compacted_bytes_after: u64,
    /// Attempts that ended early: damage, a disk that did not answer.
    pub failures: u64,
}

pub(crate) fn start(storage: &Rc<Storage>) {
    let every = storage.config().upkeep_interval;
    spawn_in(Queue::Background, run(Rc::downgrade(storage), every, Work::Retention)).detach();
    spawn_in(Queue::Background, run(Rc::downgrade(storage), every, Work::Compaction)).detach();
}

#[derive(Clone, Copy)]
enum Work {
    Retention,
    Compaction,
}

/// Ends with the storage.
async fn run(storage: Weak<Storage>, every: Duration, work: Work) {
    loop {
        timer::sleep(every).await;
        let Some(storage) = storage.upgrade() else { return };
        if storage.is_closed() {
            return;
        }
        match work {
            Work::Retention => enforce_retention(&storage).await,
            Work::Compaction => compact_dirty(&storage).await,
        }
    }
}

/// Looks at every log once.
pub(crate) async fn round(storage: &Storage) {
    enforce_retention(storage).await;
    compact_dirty(storage).await;
}

async fn enforce_retention(storage: &Storage) {
    for log in storage.logs() {
        if let Err(error) = retention::enforce(&log.0, timer::wall_clock_ms()).await {
            tracing::error!(log = %log.id(), %error, "retention could not remove what is no longer kept");
            count_failure(storage.upkeep_counters());
        }
        yield_in_background().await;
    }
    storage.give_back_pools().await;
}

/// The dirtiest log before the others.
async fn compact_dirty(storage: &Storage) {
    let now_ms = timer::wall_clock_ms();
    let compacted = storage.logs().into_iter().filter(|log| log.policy().compaction.is_some());
    let mut dirty: Vec<(u64, Log)> = compacted.map(|log| (dirtiness(&log, now_ms), log)).collect();
    dirty.sort_by_key(|(dirty_ppm, _)| std::cmp::Reverse(*dirty_ppm));
    for (_, log) in dirty {
        if log.0.compaction_rests_until.get() <= timer::now() {
            compact(&log, storage.upkeep_counters()).await;
        }
    }
}

fn dirtiness(log: &Log, now_ms: i64) -> u64 {
    let inner = &log.0;
    let policy = inner.policy.get().compaction;
    let due = policy
        .and_then(|policy| compaction::due(&inner.state.borrow(), &policy, now_ms, inner.settled_end.get()));
    due.map_or(0, |due| due.dirty_ppm)
}

async fn compact(log: &Log, counters: &Cell<UpkeepCounters>) {
    match compaction::compact(&log.0, timer::wall_clock_ms()).await {
        Ok(done) => {
            let mut now = counters.get();
            now.compacted_bytes_before += done.bytes_before;
            now.compacted_bytes_after += done.bytes_after;
            counters.set(now);
            if done.bytes_before > 0 {
                tracing::info!(log = %log.id(), ?done, "compacted");
            }
        }
        Err(CompactError::Closed | CompactError::Changed) => {}
        Err(error) => {
            tracing::error!(log = %log.id(), %error, "the log could not be compacted; tried again in ten minutes");
            log.0.compaction_rests_until.set(timer::now() + REST_AFTER_FAILURE);
            count_failure(counters);
        }
    }
}

fn count_failure(counters: &Cell<UpkeepCounters>) {
    let mut now = counters.get();
    now.failures += 1;
    counters.set(now);
}
