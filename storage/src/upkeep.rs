//! What a shard does for its logs from time to time: retention, compaction.
//!
//! One task, in the background queue, one log at a time. It holds the storage weakly and ends with it.

use std::cell::Cell;
use std::rc::{Rc, Weak};

use corrente_runtime::executor::{Queue, spawn_in, yield_if_needed};
use corrente_runtime::timer;

use crate::compaction::{self, CompactError};
use crate::log::Log;
use crate::retention;
use crate::storage::Storage;

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
    spawn_in(Queue::Background, run(Rc::downgrade(storage), storage.config().upkeep_interval)).detach();
}

async fn run(storage: Weak<Storage>, every: std::time::Duration) {
    loop {
        timer::sleep(every).await;
        let Some(storage) = storage.upgrade() else { return };
        if storage.is_closed() {
            return;
        }
        round(&storage).await;
    }
}

/// Looks at every log once: retention first, then compaction, the dirtiest log before the others.
pub(crate) async fn round(storage: &Storage) {
    let counters = storage.upkeep_counters();
    let mut dirty = Vec::new();
    for log in storage.logs() {
        let now_ms = timer::wall_clock_ms();
        if let Err(error) = retention::enforce(&log.0, now_ms).await {
            tracing::error!(log = %log.id(), %error, "retention could not remove what is no longer kept");
            count_failure(counters);
        }
        if log.policy().compaction.is_some() {
            dirty.push((dirtiness(&log, now_ms), log));
        }
        yield_if_needed().await;
    }
    dirty.sort_by_key(|(dirty_ppm, _)| std::cmp::Reverse(*dirty_ppm));
    storage.give_back_pools().await;
    for (_, log) in dirty {
        compact(&log, counters).await;
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
        Err(CompactError::Closed) => {}
        Err(error) => {
            tracing::error!(log = %log.id(), %error, "the log could not be compacted");
            count_failure(counters);
        }
    }
}

fn count_failure(counters: &Cell<UpkeepCounters>) {
    let mut now = counters.get();
    now.failures += 1;
    counters.set(now);
}
