//! What one shard owns on disk: its open logs and what they share.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;
use corrente_protocol::ids::{LeaderEpoch, Offset};
use corrente_runtime::file;

use crate::checkpointer::checkpoint_dir;
use crate::drives::{Drive, DriveState};
use crate::error::{AtPath, CreateError, OpenError, PathError, RecoveryError};
use crate::layout::{DELETED_SUFFIX, FoundLog, log_dir};
use crate::log::{Health, Log, LogId, State, Tail};
use crate::recovery::{self, Recovered};
use crate::segment::{FIRST_EXTENT, FileName, parse_name};
use crate::shard::{Shard, StorageConfig};
use crate::upkeep::{self, UpkeepCounters};
use crate::writer;

/// The logs of one shard. Belongs to that shard.
///
/// Invariant: a log is in `logs` from before its first file is made until its last one is gone, or until it
/// could not be opened.
pub struct Storage {
    shard: Rc<Shard>,
    logs: RefCell<BTreeMap<LogId, Option<Log>>>,
    closed: Cell<bool>,
    upkeep: Cell<UpkeepCounters>,
}

impl Storage {
    /// Takes up a shard's share of the data directories, which a [`crate::NodeLayout`] holds locked.
    pub async fn open(config: StorageConfig) -> Result<Rc<Storage>, OpenError> {
        if config.data_dirs.is_empty() {
            return Err(OpenError::NoDataDir);
        }
        let dir = checkpoint_dir(&config.data_dirs);
        file::create_dir_all(&dir).await.at(&dir)?;
        let shard = Shard::new(config);
        let storage = Rc::new(Storage {
            shard,
            logs: RefCell::new(BTreeMap::new()),
            closed: Cell::new(false),
            upkeep: Cell::default(),
        });
        upkeep::start(&storage);
        Ok(storage)
    }

    /// The data directories, as they were last looked at.
    pub fn drives(&self) -> Vec<DriveState> {
        self.shard.drives.iter().map(|drive| drive.state()).collect()
    }

    /// The data directories, looked at within the last second; one that does not answer is as it was then.
    pub async fn look_at_drives(&self) -> Vec<DriveState> {
        for drive in &self.shard.drives {
            drive.look_lately().await;
        }
        self.drives()
    }

    /// Whether any data directory takes new logs, by a fresh look.
    pub async fn has_room(&self) -> bool {
        self.drive_for_new_log().await.is_some()
    }

    /// The data directory with the fewest of this shard's logs, of those that have not failed and have room.
    async fn drive_for_new_log(&self) -> Option<Rc<Drive>> {
        let count = |drive: &Rc<Drive>| {
            let logs = self.logs.borrow();
            logs.values().flatten().filter(|log| Rc::ptr_eq(&log.0.drive, drive)).count()
        };
        let mut drives = self.shard.drives.clone();
        drives.sort_by_cached_key(count);
        for drive in drives {
            if drive.is_open().await {
                return Some(drive);
            }
        }
        None
    }

    /// Makes a new, empty log in the data directory that has the fewest; in another one if that fails meanwhile. It is
    /// durable on return, and not cancel-safe, as [`Storage::create_log`].
    pub async fn place_log(&self, id: LogId) -> Result<Log, CreateError> {
        loop {
            let Some(drive) = self.drive_for_new_log().await else { return Err(CreateError::NoRoom) };
            let at =
                self.shard.drives.iter().position(|other| Rc::ptr_eq(other, &drive)).expect("one of them");
            match self.create_log(id, at).await {
                Err(CreateError::Io { path, source }) => {
                    drive.learn_from(&source);
                    if !drive.has_failed() {
                        return Err(CreateError::Io { path, source });
                    }
                }
                made => return made,
            }
        }
    }

    /// The open logs, ordered by id.
    pub fn logs(&self) -> Vec<Log> {
        self.logs.borrow().values().flatten().cloned().collect()
    }

    /// Makes a new, empty log in a data directory. It is durable on return. Not cancel-safe: dropped, it may
    /// leave an empty directory, which [`Storage::create_log`] and [`Storage::open_log`] make use of later.
    pub async fn create_log(&self, id: LogId, dir_index: usize) -> Result<Log, CreateError> {
        if self.closed.get() {
            return Err(CreateError::Closed);
        }
        let Some(place) = self.reserve(id) else { return Err(CreateError::Exists { log: id }) };
        let dir = log_dir(&self.shard.config.data_dirs[dir_index], id);
        file::create_dir_all(&dir).await.at(&dir)?;
        for entry in file::read_dir(&dir).await.at(&dir)? {
            if matches!(parse_name(&entry.name), FileName::Segment(_)) {
                return Err(CreateError::Exists { log: id });
            }
        }
        let header = writer::first_header(id);
        let (_, segment) = writer::create_segment(&dir, &header, None).await?;
        let tail = Tail {
            flushed: Offset::ZERO,
            epoch: LeaderEpoch(0),
            segment: segment.base_offset,
            position: FIRST_EXTENT,
            last_extent: FIRST_EXTENT,
            last_hash: segment.header_hash,
        };
        let segments = BTreeMap::from([(segment.base_offset, segment)]);
        let state = State::new(Offset::ZERO, segments, tail, Bytes::new(), false);
        let log = place.fill(Log::new(id, dir, self.shard.clone(), state));
        self.shard.producers.add(&log.0);
        Ok(log)
    }

    /// Opens a log that was found: finds its end, from the checkpoint on. Damage is left as it is, and what the
    /// checkpoint knows of the log is kept: it opens in quarantine ([`Log::health`]), or not at all if nothing of
    /// it can be made out.
    pub async fn open_log(&self, found: FoundLog) -> Result<(Log, Recovered), RecoveryError> {
        let Some(place) = self.reserve(found.id) else { return Err(RecoveryError::Open { log: found.id }) };
        let dir = log_dir(&self.shard.config.data_dirs[found.dir_index], found.id);
        let opened = self.recover(&found, dir).await;
        if !opened.as_ref().is_ok_and(|(log, _)| log.health() == Health::Sound) {
            self.keep_closed(&found);
        }
        let (log, recovered) = opened?;
        let log = place.fill(log);
        if log.health() == Health::Sound {
            self.shard.producers.add(&log.0);
        }
        Ok((log, recovered))
    }

    async fn recover(&self, found: &FoundLog, dir: PathBuf) -> Result<(Log, Recovered), RecoveryError> {
        let (state, recovered) = recovery::recover(&self.shard, found.id, &dir, found.checkpoint).await?;
        let log = Log::new(found.id, dir, self.shard.clone(), state);
        if log.health() == Health::Sound {
            let written = found.producers.as_deref();
            let rebuilt = recovery::producers::rebuild(&log, written).await;
            rebuilt.map_err(|source| RecoveryError::Producers { log: found.id, source })?;
        }
        Ok((log, recovered))
    }

    /// Carries what the checkpoint knows of a log that is not to be opened now.
    pub fn keep_closed(&self, found: &FoundLog) {
        if let Some(entry) = found.checkpoint {
            self.shard.checkpointer.keep(entry);
        }
        if let Some(producers) = &found.producers {
            self.shard.producers.keep(found.id, producers.clone());
        }
    }

    /// Ends a log and removes its files; content with one that is not open. Appends and waits on it end.
    pub async fn delete_log(&self, id: LogId) -> Result<(), PathError> {
        let Some(log) = self.logs.borrow().get(&id).cloned().flatten() else { return Ok(()) };
        log.0.refuse_appends();
        // A compaction that is under way ends at its next step.
        let _turn = log.0.upkeep.acquire(1).await;
        writer::finish(&log.0).await;
        self.shard.checkpointer.forget(id);
        self.shard.producers.forget(id);
        self.shard.tail.borrow_mut().forget(id);
        self.shard.read_ahead.forget(id);
        remove_log_dir(&log.0.dir).await?;
        self.logs.borrow_mut().remove(&id);
        Ok(())
    }

    /// Writes the checkpoint now; on return it holds every flush that was complete before the call.
    pub async fn checkpoint_now(&self) -> Result<(), PathError> {
        self.shard.producers.write().await;
        self.shard.checkpointer.write_now().await
    }

    /// Refuses further appends, flushes what was appended, gives up every file and writes the checkpoint.
    pub async fn close(&self) -> Result<(), PathError> {
        self.closed.set(true);
        let logs = self.logs();
        for log in &logs {
            log.0.refuse_appends();
        }
        for log in &logs {
            let _turn = log.0.upkeep.acquire(1).await;
            writer::finish(&log.0).await;
        }
        self.shard.read_ahead.clear();
        self.checkpoint_now().await
    }

    /// Does now, for every log, what is otherwise done from time to time: retention and compaction.
    pub async fn upkeep_now(&self) {
        upkeep::round(self).await;
    }

    /// What upkeep has done since the start.
    pub fn upkeep_done(&self) -> UpkeepCounters {
        self.upkeep.get()
    }

    pub(crate) fn upkeep_counters(&self) -> &Cell<UpkeepCounters> {
        &self.upkeep
    }

    /// Empties the pool of a drive that has little room left.
    pub(crate) async fn give_back_pools(&self) {
        for drive in &self.shard.drives {
            if !drive.take_if_plenty(0)
                && let Err(error) = self.shard.pool.drain(drive.path()).await
            {
                tracing::warn!(%error, "recycled files could not be removed");
            }
        }
    }

    pub(crate) fn config(&self) -> &StorageConfig {
        &self.shard.config
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Memory held for tail reads, in bytes.
    pub fn tail_ring_used(&self) -> usize {
        self.shard.tail.borrow().used()
    }

    fn reserve(&self, id: LogId) -> Option<Place<'_>> {
        let mut logs = self.logs.borrow_mut();
        if logs.contains_key(&id) {
            return None;
        }
        logs.insert(id, None);
        Some(Place { storage: self, id })
    }
}

/// A log that is being made or opened; gives its place up again unless it is filled.
struct Place<'a> {
    storage: &'a Storage,
    id: LogId,
}

impl Place<'_> {
    fn fill(self, log: Log) -> Log {
        let shard = &self.storage.shard;
        if log.0.state.borrow().quarantined.is_none() {
            shard.checkpointer.note(shard, log.0.checkpoint_entry(), 0);
        }
        self.storage.logs.borrow_mut().insert(self.id, Some(log.clone()));
        log
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut logs = self.storage.logs.borrow_mut();
        if logs.get(&self.id).is_some_and(Option::is_none) {
            logs.remove(&self.id);
        }
    }
}

/// Under another name first, at one stroke, so that a crash in between leaves no log with files missing.
pub(crate) async fn remove_log_dir(dir: &std::path::Path) -> Result<(), PathError> {
    let mut name = dir.as_os_str().to_owned();
    name.push(DELETED_SUFFIX);
    let deleted = std::path::PathBuf::from(name);
    let above = dir.parent().expect("a log lies below its topic");
    file::rename(dir, &deleted).await.at(dir)?;
    file::sync_dir(above).await.at(above)?;
    file::remove_dir_all(&deleted).await.at(&deleted)?;
    if file::read_dir(above).await.at(above)?.is_empty() {
        file::remove_dir_all(above).await.at(above)?;
    }
    Ok(())
}
