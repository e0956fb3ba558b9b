//! Keeps the producer states of a shard's logs on disk, so that a start reads little to know them again.
//!
//! One file a shard beside the checkpoint, replaced whole: when a certain number of bytes was flushed since the last
//! time, at a start and a stop, and before segments that a start would have to read are removed or rewritten. It only
//! spares reading: where it cannot be written that is said, and nothing else fails for it.
//!
//! A state is never ahead of its log. (1) The states are taken, each with the offset where its log ends. (2) All up to
//! these offsets is flushed. (3) Only then the file takes its name. A batch that the power took is thus in no file,
//! and is appended when it is sent again. A log whose flush does not come, for it is fenced or its drive hangs, stays
//! as it was in the file before. Were it otherwise, a start would still not believe a state that ends beyond its log;
//! but it would read that log from its beginning.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use corrente_protocol::ids::{Offset, ShardId};
use corrente_runtime::executor::{Queue, spawn_in};
use corrente_runtime::file;
use corrente_runtime::sync::Budget;
use corrente_runtime::timer::{self, Instant};
use futures_util::future::join_all;

use crate::checkpointer::{checkpoint_dir, file_stem, parse_file_stem};
use crate::log::{Log, LogId, LogInner};
use crate::producer_snapshot::{FILE_LEN_MAX, LogProducers, encode};
use crate::shard::{Shard, StorageConfig};

/// How long the flushes of all logs are waited for.
const FLUSH_WAIT: Duration = Duration::from_secs(5);

/// The name of a shard's file.
pub(crate) fn file_name(generation: u64, shard: ShardId) -> String {
    format!("{}.producers", file_stem(generation, shard))
}

/// Generation and shard of such a file, from its name; `None` for names that are not ours.
pub(crate) fn parse_file_name(name: &str) -> Option<(u64, ShardId)> {
    parse_file_stem(name.strip_suffix(".producers")?)
}

pub(crate) struct ProducerSnapshots {
    path: PathBuf,
    generation: u64,
    shard: ShardId,
    /// Whose states are taken.
    logs: RefCell<BTreeMap<LogId, Weak<LogInner>>>,
    /// What the file says, or will say of logs that are not open.
    written: RefCell<BTreeMap<LogId, Arc<LogProducers>>>,
    /// Bytes flushed since the file was written.
    bytes: Cell<u64>,
    bytes_max: u64,
    /// Whether a task writes, or is about to.
    scheduled: Cell<bool>,
    /// Held while writing.
    turn: Budget,
}

impl ProducerSnapshots {
    pub(crate) fn new(config: &StorageConfig) -> ProducerSnapshots {
        ProducerSnapshots {
            path: checkpoint_dir(&config.data_dirs).join(file_name(config.generation, config.shard)),
            generation: config.generation,
            shard: config.shard,
            logs: RefCell::default(),
            written: RefCell::default(),
            bytes: Cell::new(0),
            bytes_max: config.checkpoint_bytes,
            scheduled: Cell::new(false),
            turn: Budget::new(1),
        }
    }

    /// Carries what an earlier file says of a log that is not open, or not yet.
    pub(crate) fn keep(&self, log: LogId, producers: Arc<LogProducers>) {
        self.written.borrow_mut().insert(log, producers);
    }

    /// Takes the states of this log from now on.
    pub(crate) fn add(&self, log: &Rc<LogInner>) {
        self.logs.borrow_mut().insert(log.id, Rc::downgrade(log));
    }

    /// Forgets a log that is no more.
    pub(crate) fn forget(&self, log: LogId) {
        self.logs.borrow_mut().remove(&log);
        self.written.borrow_mut().remove(&log);
    }

    /// Takes note that so many bytes were flushed; once it is enough of them the file is written.
    pub(crate) fn note(&self, shard: &Rc<Shard>, bytes: u64) {
        self.bytes.set(self.bytes.get() + bytes);
        if self.bytes.get() >= self.bytes_max && !self.scheduled.replace(true) {
            spawn_in(Queue::Background, run(Rc::downgrade(shard))).detach();
        }
    }

    /// Sees to it that a start will not need what the log holds below `end`, which is flushed: it is about to be
    /// removed or rewritten. If that fails, duplicates of it will not be told after a start; it is said, and no reason
    /// to keep the records.
    pub(crate) async fn cover(&self, log: LogId, end: Offset) {
        if self.covers(log, end) {
            return;
        }
        self.write().await;
        if !self.covers(log, end) {
            tracing::warn!(%log, "the producer states of the log could not be taken");
        }
    }

    fn covers(&self, log: LogId, end: Offset) -> bool {
        self.written.borrow().get(&log).is_some_and(|producers| producers.end_offset >= end)
    }

    /// Writes what there is to say now.
    pub(crate) async fn write(&self) {
        let _turn = self.turn.acquire(1).await;
        self.bytes.set(0);
        let flushed = self.flushed(self.take()).await;
        let content = {
            let mut table = self.written.borrow().clone();
            table.extend(self.still_open(&flushed));
            encode(self.generation, self.shard, table.iter().map(|(log, producers)| (log, &**producers)))
        };
        let not_written = |error: &dyn std::fmt::Display| {
            let path = self.path.display();
            tracing::error!(%path, %error, "the producer states were not written; the next start reads more");
        };
        if content.len() > FILE_LEN_MAX {
            let length = content.len();
            return not_written(&format!("they take {length} bytes of at most {FILE_LEN_MAX}"));
        }
        match file::write_small(&self.path, content).await {
            Ok(()) => self.written.borrow_mut().extend(self.still_open(&flushed)),
            Err(error) => not_written(&error),
        }
    }

    /// Those whose logs were not deleted meanwhile.
    fn still_open(&self, taken: &[(LogId, Arc<LogProducers>)]) -> Vec<(LogId, Arc<LogProducers>)> {
        let logs = self.logs.borrow();
        taken.iter().filter(|(log, _)| logs.contains_key(log)).cloned().collect()
    }

    /// The present states of all logs that take records.
    fn take(&self) -> Vec<(Rc<LogInner>, Arc<LogProducers>)> {
        let now_ms = timer::wall_clock_ms();
        let logs = self.logs.borrow();
        logs.values()
            .filter_map(Weak::upgrade)
            .filter_map(|log| {
                let mut state = log.state.borrow_mut();
                if state.fenced.is_some() || state.quarantined.is_some() {
                    return None;
                }
                let end_offset = state.log_end_offset;
                let written = self.written.borrow().get(&log.id).cloned();
                let producers = written.filter(|written| written.end_offset == end_offset);
                let producers = producers.unwrap_or_else(|| {
                    state.producers.forget_silent(now_ms);
                    Arc::new(LogProducers { end_offset, state: state.producers.clone() })
                });
                drop(state);
                Some((log, producers))
            })
            .collect()
    }

    /// Those whose logs are flushed as far. All are waited for at once: one that hangs costs the others nothing.
    async fn flushed(
        &self,
        taken: Vec<(Rc<LogInner>, Arc<LogProducers>)>,
    ) -> Vec<(LogId, Arc<LogProducers>)> {
        let deadline = timer::now() + FLUSH_WAIT;
        let waits = taken.into_iter().map(async |(log, producers)| {
            let id = log.id;
            is_flushed(log, producers.end_offset, deadline).await.then_some((id, producers))
        });
        join_all(waits).await.into_iter().flatten().collect()
    }
}

async fn is_flushed(log: Rc<LogInner>, end: Offset, deadline: Instant) -> bool {
    let log = Log(log);
    if log.flushed_offset() >= end {
        return true;
    }
    let now = timer::now();
    let left = if now < deadline { deadline - now } else { Duration::ZERO };
    matches!(timer::timeout(left, log.flushed_past(Offset(end.0 - 1))).await, Ok(Ok(_)))
}

async fn run(shard: Weak<Shard>) {
    let Some(shard) = shard.upgrade() else { return };
    shard.producers.write().await;
    shard.producers.scheduled.set(false);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_read_back() {
        let name = file_name(17, ShardId(3));
        assert_eq!(name, "0000000017-shard-0003.producers");
        assert_eq!(parse_file_name(&name), Some((17, ShardId(3))));
        for strange in ["", "x.producers", "1-shard-2.producers", "0000000017-shard-0003.a"] {
            assert_eq!(parse_file_name(strange), None, "{strange}");
        }
    }
}
