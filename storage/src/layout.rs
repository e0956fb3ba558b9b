//! The node's data directories, once at start: their locks, who they are, which logs lie in them and how far
//! each is known to be durable.
//!
//! Owns the locks for as long as the node runs. Never opens a log: that is the shard's, given what was found
//! here.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use corrente_protocol::ids::{PartitionIndex, ShardId, TopicId, TopicPartition};
use corrente_runtime::file::{self, DirLock};
use corrente_runtime::random::fill_random;
use corrente_runtime::timer::wall_clock_ms;

use crate::checkpoint::{CheckpointEntry, CheckpointFault};
use crate::checkpointer::{checkpoint_dir, parse_file_name};
use crate::checkpoints::{Checkpoints, Faulty};
use crate::error::{AtPath, OpenError, PathError};
use crate::found_twice;
use crate::identity::{IDENTITY_LEN, Identity};
use crate::log::LogId;
use crate::pool;
use crate::producer_snapshot::LogProducers;
use crate::producer_snapshots;
use crate::storage::remove_log_dir;

/// What a log's directory is called while it is removed.
pub(crate) const DELETED_SUFFIX: &str = ".deleted";

/// The data directories of this node, locked.
pub struct NodeLayout {
    data_dirs: Vec<PathBuf>,
    dir_ids: Vec<[u8; 16]>,
    generation: u64,
    logs: Vec<FoundLog>,
    lost: Vec<FoundLog>,
    failed: Vec<FailedDir>,
    _locks: Vec<DirLock>,
}

/// A data directory that cannot be used in this run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedDir {
    /// Which, by its place in the configuration.
    pub index: usize,
    /// What the drive said.
    pub reason: String,
}

/// A log that lies in a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLog {
    /// Whose log.
    pub id: LogId,
    /// Which data directory, by its place in the configuration.
    pub dir_index: usize,
    /// How far it is known to be durable; none for a log made shortly before the node went down.
    pub checkpoint: Option<CheckpointEntry>,
    /// The shard that wrote that checkpoint: the log's home until now.
    pub home: Option<ShardId>,
    /// What was written of its producers.
    pub(crate) producers: Option<Arc<LogProducers>>,
}

/// Where a log lies.
pub(crate) fn log_dir(data_dir: &Path, id: LogId) -> PathBuf {
    topics_dir(data_dir).join(id.topic.to_string()).join(id.partition.to_string())
}

/// Where all logs of a data directory lie.
pub(crate) fn topics_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("topics")
}

impl NodeLayout {
    /// Locks every data directory, making those that are missing, and looks at what lies in them. A second
    /// broker on any of them is refused.
    pub async fn open(data_dirs: &[PathBuf]) -> Result<NodeLayout, OpenError> {
        if data_dirs.is_empty() {
            return Err(OpenError::NoDataDir);
        }
        let mut locks = Vec::new();
        let mut identities: Vec<(Identity, &PathBuf)> = Vec::new();
        let mut failed: Vec<FailedDir> = Vec::new();
        for (index, dir) in data_dirs.iter().enumerate() {
            let (lock, identity) = match take_up(dir, &identities).await {
                Ok(taken) => taken,
                // The first one holds what the node knows of all.
                Err(error) if index > 0 && error.tells_of_a_failed_drive() => {
                    tracing::error!(dir = %dir.display(), %error, "a data directory is not used: its logs are offline");
                    failed.push(FailedDir { index, reason: error.to_string() });
                    continue;
                }
                Err(error) => return Err(error),
            };
            locks.push(lock);
            if let Some((_, first)) = identities.iter().find(|(other, _)| other.dir_id == identity.dir_id) {
                return Err(OpenError::SameDir { first: (*first).clone(), second: dir.clone() });
            }
            identities.push((identity, dir));
        }
        let checkpoints = read_checkpoints(&checkpoint_dir(data_dirs)).await?;
        let logs = find_logs(data_dirs, &checkpoints, &mut failed).await?;
        let lost = checkpoints.entries.iter().filter(|(id, _)| !logs.contains_key(id));
        let lost = lost.map(|(id, (entry, home))| FoundLog {
            id: *id,
            dir_index: 0,
            checkpoint: Some(*entry),
            home: Some(*home),
            producers: checkpoints.producers.get(id).cloned(),
        });
        Ok(NodeLayout {
            data_dirs: data_dirs.to_vec(),
            dir_ids: identities.iter().map(|(identity, _)| identity.dir_id).collect(),
            generation: checkpoints.generation + 1,
            lost: lost.collect(),
            failed,
            logs: logs.into_values().collect(),
            _locks: locks,
        })
    }

    /// The data directories, as configured.
    pub fn data_dirs(&self) -> &[PathBuf] {
        &self.data_dirs
    }

    /// Which start of the node this is: greater than every earlier one.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The identities of the data directories, in their order.
    pub fn dir_ids(&self) -> &[[u8; 16]] {
        &self.dir_ids
    }

    /// Removes a log that no shard has opened: its topic was deleted.
    pub async fn remove_log(&self, log: &FoundLog) -> Result<(), PathError> {
        remove_log_dir(&log_dir(&self.data_dirs[log.dir_index], log.id)).await
    }

    /// Every log found, ordered by id.
    pub fn logs(&self) -> &[FoundLog] {
        &self.logs
    }

    /// Logs that a checkpoint names and no data directory holds, ordered by id. Those of deleted topics may
    /// be among them; any other is missing, with a data directory perhaps.
    pub fn lost(&self) -> &[FoundLog] {
        &self.lost
    }

    /// Data directories that cannot be used in this run: what lies there is among the lost logs, if a checkpoint knows
    /// of it.
    pub fn failed(&self) -> &[FailedDir] {
        &self.failed
    }

    /// Removes the checkpoints of earlier starts, once every live shard has written its first of this one
    /// ([`crate::Storage::checkpoint_now`] after all its logs were opened). Says whether it did: `false` if a
    /// shard has none yet.
    pub async fn retire_old_generations(&self, live: &[ShardId]) -> io::Result<bool> {
        let dir = checkpoint_dir(&self.data_dirs);
        let files = file::read_dir(&dir).await?;
        let by = |parse: fn(&str) -> Option<(u64, ShardId)>| -> Vec<(u64, ShardId, &str)> {
            files
                .iter()
                .map(|entry| entry.name.as_str())
                .filter_map(|name| parse(name).map(|(g, s)| (g, s, name)))
                .collect()
        };
        let (checkpoints, producers) = (by(parse_file_name), by(producer_snapshots::parse_file_name));
        let all_in = |named: &[(u64, ShardId, &str)]| {
            live.iter().all(|shard| named.iter().any(|(g, s, _)| *g == self.generation && s == shard))
        };
        if !all_in(&checkpoints) {
            return Ok(false);
        }
        // They are no condition: what an older one says holds until there are newer ones of every shard.
        let producers = producers.iter().filter(|_| all_in(&producers));
        for (_, _, name) in checkpoints.iter().chain(producers).filter(|(g, ..)| *g < self.generation) {
            file::remove_file(&dir.join(name)).await?;
        }
        file::sync_dir(&dir).await?;
        Ok(true)
    }
}

async fn take_up(dir: &Path, held: &[(Identity, &PathBuf)]) -> Result<(DirLock, Identity), OpenError> {
    let lock = lock(dir, held).await?;
    Ok((lock, identify(dir).await?))
}

async fn lock(dir: &Path, held: &[(Identity, &PathBuf)]) -> Result<DirLock, OpenError> {
    let in_dir = |source| OpenError::DataDir { dir: dir.to_owned(), source };
    file::create_dir_all(dir).await.map_err(in_dir)?;
    match file::lock_exclusive(&dir.join("lock")).await {
        Ok(lock) => Ok(lock),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(locked_by(dir, held).await),
        Err(error) => Err(in_dir(error)),
    }
}

/// Another broker, or we ourselves under another name of the directory.
async fn locked_by(dir: &Path, held: &[(Identity, &PathBuf)]) -> OpenError {
    let identity = match file::read_small(&dir.join("identity"), IDENTITY_LEN).await {
        Ok(bytes) => Identity::decode(&bytes).ok(),
        Err(_) => None,
    };
    let same = identity.and_then(|identity| held.iter().find(|(other, _)| other.dir_id == identity.dir_id));
    match same {
        Some((_, first)) => OpenError::SameDir { first: (*first).clone(), second: dir.to_owned() },
        None => OpenError::Locked { dir: dir.to_owned() },
    }
}

/// Reads the directory's identity, or gives it one.
async fn identify(dir: &Path) -> Result<Identity, OpenError> {
    let path = dir.join("identity");
    match file::read_small(&path, IDENTITY_LEN).await {
        Ok(bytes) => Identity::decode(&bytes)
            .map_err(|fault| OpenError::Identity { path: path.clone(), reason: fault.to_string() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if file::exists(&topics_dir(dir)).await.at(dir)? {
                let reason = "missing, though the directory holds topics".to_owned();
                return Err(OpenError::Identity { path, reason });
            }
            let mut dir_id = [0; 16];
            fill_random(&mut dir_id);
            let identity = Identity { dir_id, created_ms: wall_clock_ms() };
            let written = file::write_small(&path, identity.encode()).await;
            written.map_err(|source| OpenError::DataDir { dir: dir.to_owned(), source })?;
            Ok(identity)
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(OpenError::Identity { path, reason: error.to_string() })
        }
        Err(source) => Err(OpenError::Io { path, source }),
    }
}

/// What the checkpoints say. One that never got its name is of no use and goes.
async fn read_checkpoints(dir: &Path) -> Result<Checkpoints, OpenError> {
    file::create_dir_all(dir).await.at(dir)?;
    for entry in file::read_dir(dir).await.at(dir)? {
        let path = dir.join(&entry.name);
        let unfinished = path.extension().is_some_and(|ending| ending == "new" || ending == "tmp");
        if parse_file_name(&entry.name).is_none() && unfinished {
            file::remove_file(&path).await.at(&path)?;
        }
    }
    let checkpoints = Checkpoints::read(dir).await?;
    for Faulty { path, fault } in &checkpoints.faulty {
        if let CheckpointFault::Version(_) = fault {
            return Err(OpenError::Checkpoint { path: path.clone(), reason: fault.to_string() });
        }
        // The other one of the pair is intact, or was never needed: its snapshot was the first.
        tracing::warn!(path = %path.display(), %fault, "a checkpoint file is not used");
    }
    for (path, fault) in &checkpoints.faulty_producers {
        tracing::warn!(path = %path.display(), %fault, "producer states are not used: all of the logs is read");
    }
    for path in &checkpoints.cut {
        tracing::warn!(path = %path.display(), "a checkpoint file is damaged: what its end said is found by scanning");
    }
    Ok(checkpoints)
}

async fn find_logs(
    data_dirs: &[PathBuf],
    checkpoints: &Checkpoints,
    failed: &mut Vec<FailedDir>,
) -> Result<BTreeMap<LogId, FoundLog>, OpenError> {
    let mut found_in: BTreeMap<LogId, Vec<usize>> = BTreeMap::new();
    for (dir_index, dir) in data_dirs.iter().enumerate() {
        if failed.iter().any(|failed| failed.index == dir_index) {
            continue;
        }
        let found = match look_through(dir).await {
            Err(error) if dir_index > 0 && error.tells_of_a_failed_drive() => {
                tracing::error!(dir = %dir.display(), %error, "the data directory is not used: its logs are offline");
                failed.push(FailedDir { index: dir_index, reason: error.to_string() });
                continue;
            }
            found => found?,
        };
        for id in found {
            found_in.entry(id).or_default().push(dir_index);
        }
    }
    let mut logs = BTreeMap::new();
    for (id, found_in) in found_in {
        let (checkpoint, home) = checkpoints.entries.get(&id).copied().unzip();
        let dir_index = match found_in[..] {
            [only] => only,
            _ => found_twice::settle(data_dirs, id, &found_in, checkpoint.as_ref(), failed).await?,
        };
        let producers = checkpoints.producers.get(&id).cloned();
        logs.insert(id, FoundLog { id, dir_index, checkpoint, home, producers });
    }
    Ok(logs)
}

/// The logs in a data directory, which is left without a pool.
async fn look_through(dir: &Path) -> Result<Vec<LogId>, OpenError> {
    pool::clear(dir).await?;
    let topics = topics_dir(dir);
    file::create_dir_all(&topics).await.at(&topics)?;
    find_in(&topics).await
}

/// The logs below a `topics` directory; finishes deletions that a crash cut short.
async fn find_in(topics: &Path) -> Result<Vec<LogId>, OpenError> {
    let mut found = Vec::new();
    for topic_entry in file::read_dir(topics).await.at(topics)? {
        let topic_dir = topics.join(&topic_entry.name);
        let Some(topic) = parse_topic(&topic_entry.name).filter(|_| topic_entry.is_dir) else {
            tracing::warn!(path = %topic_dir.display(), "not a topic: left alone");
            continue;
        };
        for entry in file::read_dir(&topic_dir).await.at(&topic_dir)? {
            let path = topic_dir.join(&entry.name);
            if entry.name.ends_with(DELETED_SUFFIX) {
                file::remove_dir_all(&path).await.at(&path)?;
                continue;
            }
            match parse_partition(&entry.name).filter(|_| entry.is_dir) {
                Some(partition) => found.push(TopicPartition { topic, partition }),
                None => tracing::warn!(path = %path.display(), "not a partition: left alone"),
            }
        }
    }
    Ok(found)
}

/// A topic id as we would write it, and no other spelling.
pub(crate) fn parse_topic(name: &str) -> Option<TopicId> {
    name.parse::<TopicId>().ok().filter(|id| id.to_string() == name)
}

pub(crate) fn parse_partition(name: &str) -> Option<PartitionIndex> {
    name.parse::<u32>().ok().map(PartitionIndex).filter(|index| index.to_string() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_spelling_names_a_log() {
        let topic = TopicId::METADATA.to_string();
        assert_eq!(parse_topic(&topic), Some(TopicId::METADATA));
        assert_eq!(parse_topic("lost+found"), None);
        assert_eq!(parse_partition("7"), Some(PartitionIndex(7)));
        for strange in ["", "07", "-1", "+7", "4294967296", "7.deleted"] {
            assert_eq!(parse_partition(strange), None, "{strange}");
        }
    }
}
