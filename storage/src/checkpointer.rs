//! Keeps the shard's checkpoint on disk: soon after a flush, and never the only copy at risk.
//!
//! Owns two files, `a` and `b`. One is appended to, a delta at a time, into space filled with zeros
//! beforehand; when that is used up the other is made anew from a snapshot and takes over, so an intact older
//! copy is always there. A shard at rest writes nothing.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

use corrente_protocol::ids::ShardId;
use corrente_runtime::buffer::{AlignedBuf, BLOCK};
use corrente_runtime::executor::{Queue, spawn_in};
use corrente_runtime::file::{self, File, OpenOptions, Sync};
use corrente_runtime::random::random_u64;
use corrente_runtime::sync::{Budget, Notify};
use corrente_runtime::timer;

use crate::checkpoint::{CheckpointEntry, FileHeader, encode_frame};
use crate::error::{AtPath, PathError};
use crate::log::LogId;
use crate::position::{FilePosition, Nonce, file_len};
use crate::shard::{Shard, StorageConfig};

/// Space for deltas behind a snapshot.
const DELTA_ROOM: usize = 1024 * 1024;

/// The directory checkpoints lie in, below the first data directory.
pub(crate) fn checkpoint_dir(data_dirs: &[PathBuf]) -> PathBuf {
    data_dirs[0].join("checkpoint")
}

/// The name of one of a shard's two files.
pub(crate) fn file_name(generation: u64, shard: ShardId, side: Side) -> String {
    format!("{}.{}", file_stem(generation, shard), side.letter())
}

/// What the names of all files of a shard in the checkpoints' directory begin with.
pub(crate) fn file_stem(generation: u64, shard: ShardId) -> String {
    format!("{generation:010}-shard-{:04}", shard.0)
}

/// Generation and shard of a checkpoint file, from its name; `None` for names that are not ours.
pub(crate) fn parse_file_name(name: &str) -> Option<(u64, ShardId)> {
    let (stem, side) = name.split_once('.')?;
    parse_file_stem(stem).filter(|_| matches!(side, "a" | "b"))
}

/// Reads it back as we write it, and in no other spelling.
pub(crate) fn parse_file_stem(stem: &str) -> Option<(u64, ShardId)> {
    let (generation, shard) = stem.split_once("-shard-")?;
    let (generation, shard) = (generation.parse().ok()?, ShardId(shard.parse().ok()?));
    (file_stem(generation, shard) == stem).then_some((generation, shard))
}

/// Which of the two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    A,
    B,
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }

    fn letter(self) -> char {
        match self {
            Side::A => 'a',
            Side::B => 'b',
        }
    }
}

/// Invariant: `dirty` names logs of `table` only.
pub(crate) struct Checkpointer {
    dir: PathBuf,
    generation: u64,
    shard: ShardId,
    table: RefCell<BTreeMap<LogId, CheckpointEntry>>,
    dirty: RefCell<BTreeSet<LogId>>,
    /// Bytes flushed since the last checkpoint began.
    bytes: Cell<u64>,
    bytes_max: u64,
    /// Whether a task waits to write, or writes.
    scheduled: Cell<bool>,
    /// Rings when the checkpoint should not wait for its time.
    sooner: Notify,
    /// Held while writing.
    turn: Budget,
    current: RefCell<Option<Current>>,
    next_side: Cell<Side>,
    next_sequence: Cell<u64>,
}

/// The file deltas go to.
struct Current {
    path: PathBuf,
    file: File,
    nonce: Nonce,
    /// Where the next frame goes.
    position: u64,
    /// Where the space for frames ends.
    end: u64,
}

impl Checkpointer {
    pub(crate) fn new(config: &StorageConfig) -> Self {
        Self {
            dir: checkpoint_dir(&config.data_dirs),
            generation: config.generation,
            shard: config.shard,
            table: RefCell::new(BTreeMap::new()),
            dirty: RefCell::new(BTreeSet::new()),
            bytes: Cell::new(0),
            bytes_max: config.checkpoint_bytes,
            scheduled: Cell::new(false),
            sooner: Notify::new(),
            turn: Budget::new(1),
            current: RefCell::new(None),
            next_side: Cell::new(Side::A),
            next_sequence: Cell::new(1),
        }
    }

    /// Takes note of what a log has flushed, `bytes` more than before; written within the interval.
    pub(crate) fn note(&self, shard: &Rc<Shard>, entry: CheckpointEntry, bytes: u64) {
        self.table.borrow_mut().insert(entry.log, entry);
        self.dirty.borrow_mut().insert(entry.log);
        self.bytes.set(self.bytes.get() + bytes);
        if self.bytes.get() >= self.bytes_max {
            self.sooner.notify_all();
        }
        if !self.scheduled.replace(true) {
            spawn_in(Queue::Storage, run(Rc::downgrade(shard))).detach();
        }
    }

    /// Keeps the entry of a log that is not open, so that it is not forgotten with the files of an earlier
    /// generation.
    pub(crate) fn keep(&self, entry: CheckpointEntry) {
        self.table.borrow_mut().insert(entry.log, entry);
        self.dirty.borrow_mut().insert(entry.log);
    }

    /// Forgets a log that is no more.
    pub(crate) fn forget(&self, log: LogId) {
        self.table.borrow_mut().remove(&log);
        self.dirty.borrow_mut().remove(&log);
    }

    /// Makes everything noted so far durable. The first call writes a snapshot even of nothing.
    pub(crate) async fn write_now(&self) -> Result<(), PathError> {
        let _turn = self.turn.acquire(1).await;
        let dirty = self.dirty.take();
        self.bytes.set(0);
        let mut current = self.current.take();
        if dirty.is_empty() && current.is_some() {
            self.current.replace(current);
            return Ok(());
        }
        let appended = match &mut current {
            Some(current) => self.append_delta(current, &dirty).await,
            None => Ok(false),
        };
        let written = match appended {
            Ok(true) => Ok(()),
            Ok(false) => self.write_snapshot().await.map(|snapshot| current = Some(snapshot)),
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => {
                self.current.replace(current);
                Ok(())
            }
            // The file is not touched again: the next attempt makes the other one anew.
            Err(error) => {
                self.put_back(dirty);
                Err(error)
            }
        }
    }

    fn put_back(&self, logs: BTreeSet<LogId>) {
        let table = self.table.borrow();
        self.dirty.borrow_mut().extend(logs.into_iter().filter(|log| table.contains_key(log)));
    }

    fn take_sequence(&self) -> u64 {
        let sequence = self.next_sequence.get();
        self.next_sequence.set(sequence + 1);
        sequence
    }

    /// Appends the logs that changed; `false` if they do not fit into the space left.
    async fn append_delta(&self, current: &mut Current, dirty: &BTreeSet<LogId>) -> Result<bool, PathError> {
        let frame = {
            let table = self.table.borrow();
            let entries: Vec<CheckpointEntry> =
                dirty.iter().filter_map(|log| table.get(log)).copied().collect();
            let position = FilePosition(current.position);
            encode_frame(&entries, self.take_sequence(), current.nonce, position)
        };
        let end = current.position + file_len(frame.len());
        if end > current.end {
            return Ok(false);
        }
        let position = current.position;
        current.file.write_at(frame.freeze(), position, Sync::Data).await.at(&current.path)?;
        current.position = end;
        Ok(true)
    }

    /// Makes the other file anew: snapshot, zeros for deltas, all durable before it gets its name.
    async fn write_snapshot(&self) -> Result<Current, PathError> {
        let nonce = Nonce(random_u64());
        let (content, frames_end) = self.snapshot(nonce);
        let side = self.next_side.get();
        let path = self.dir.join(file_name(self.generation, self.shard, side));
        let unborn = path.with_extension("new");
        let end = file_len(content.len());
        let file = write_file(&unborn, content).await?;
        file::rename(&unborn, &path).await.at(&path)?;
        file::sync_dir(&self.dir).await.at(&self.dir)?;
        self.next_side.set(side.other());
        Ok(Current { path, file, nonce, position: frames_end, end })
    }

    /// A whole file, and where its first delta goes.
    fn snapshot(&self, nonce: Nonce) -> (AlignedBuf, u64) {
        let entries: Vec<CheckpointEntry> = self.table.borrow().values().copied().collect();
        let header = FileHeader { generation: self.generation, shard: self.shard.0, nonce };
        let frame = encode_frame(&entries, self.take_sequence(), nonce, FilePosition(file_len(BLOCK)));
        let frames_end = BLOCK + frame.len();
        let mut content = AlignedBuf::zeroed(frames_end + DELTA_ROOM);
        content[..BLOCK].copy_from_slice(&header.encode());
        content[BLOCK..frames_end].copy_from_slice(&frame);
        (content, file_len(frames_end))
    }
}

async fn write_file(path: &Path, content: AlignedBuf) -> Result<File, PathError> {
    let options = OpenOptions { create: true, ..OpenOptions::READ_WRITE };
    let file = File::open(path, options).await.at(path)?;
    file.set_len(0).await.at(path)?;
    file.write_at(content.freeze(), 0, Sync::Data).await.at(path)?;
    Ok(file)
}

/// Runs while anything is dirty. A failed attempt is said and made again at the next interval, in a new file:
/// flushes stay valid without it, only the line between damage and torn tail lags behind.
async fn run(shard: Weak<Shard>) {
    loop {
        let Some(shard) = shard.upgrade() else { return };
        let checkpointer = &shard.checkpointer;
        let sooner = checkpointer.sooner.wait();
        if checkpointer.bytes.get() < checkpointer.bytes_max {
            let _ = timer::timeout(shard.config.checkpoint_interval, sooner).await;
        }
        if let Err(error) = checkpointer.write_now().await {
            tracing::error!(shard = %shard.config.shard, %error, "the checkpoint could not be written");
        }
        if checkpointer.dirty.borrow().is_empty() {
            checkpointer.scheduled.set(false);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_read_back() {
        let name = file_name(17, ShardId(3), Side::B);
        assert_eq!(name, "0000000017-shard-0003.b");
        assert_eq!(parse_file_name(&name), Some((17, ShardId(3))));
        for strange in
            ["", "x", "1-shard-2", "1-shard-2.c", "1-shard-2.new", "-1-shard-2.a", "1-shard-70000.a"]
        {
            assert_eq!(parse_file_name(strange), None, "{strange}");
        }
    }
}
