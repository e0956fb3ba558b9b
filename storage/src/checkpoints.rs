//! What all checkpoint files of a node say together: the newest entry of each log.
//!
//! Reads, and changes nothing: a start and the tools that look at a node that is down both ask here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use corrente_protocol::ids::ShardId;
use corrente_runtime::file;

use crate::checkpoint::{CheckpointEntry, CheckpointFault, CheckpointFile};
use crate::checkpointer::parse_file_name;
use crate::error::{AtPath, PathError};
use crate::log::LogId;
use crate::producer_snapshot::{self, FILE_LEN_MAX, LogProducers, ProducerSnapshot, SnapshotFault};
use crate::producer_snapshots;

/// The largest checkpoint file read: some ten million logs.
const CHECKPOINT_LEN_MAX: usize = 1 << 30;

/// What the files of one directory say.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    /// The greatest generation seen; 0 if none.
    pub(crate) generation: u64,
    /// The newest entry of each log.
    pub(crate) entries: BTreeMap<LogId, (CheckpointEntry, ShardId)>,
    /// The newest producer states of each log.
    pub(crate) producers: BTreeMap<LogId, Arc<LogProducers>>,
    /// Files of producer states that are not used.
    pub(crate) faulty_producers: Vec<(PathBuf, SnapshotFault)>,
    /// Files of which nothing is used.
    pub(crate) faulty: Vec<Faulty>,
    /// Files that say less than was written to them.
    pub(crate) cut: Vec<PathBuf>,
}

/// A file that is not used.
#[derive(Debug)]
pub(crate) struct Faulty {
    pub(crate) path: PathBuf,
    pub(crate) fault: CheckpointFault,
}

impl Checkpoints {
    /// Reads every file with a name of ours in `dir`, which must be there.
    pub(crate) async fn read(dir: &Path) -> Result<Checkpoints, PathError> {
        let mut checkpoints = Checkpoints::default();
        let mut newest: BTreeMap<LogId, ((u64, u64), CheckpointEntry, ShardId)> = BTreeMap::new();
        let mut snapshots: Vec<ProducerSnapshot> = Vec::new();
        for entry in file::read_dir(dir).await.at(dir)? {
            let path = dir.join(&entry.name);
            if let Some((named, _)) = producer_snapshots::parse_file_name(&entry.name) {
                checkpoints.generation = checkpoints.generation.max(named);
                match read_producers(&path).await {
                    Ok(snapshot) => snapshots.push(snapshot),
                    Err(fault) => checkpoints.faulty_producers.push((path, fault)),
                }
                continue;
            }
            let Some((named, shard)) = parse_file_name(&entry.name) else { continue };
            checkpoints.generation = checkpoints.generation.max(named);
            let content = file::read_small(&path, CHECKPOINT_LEN_MAX).await.at(&path)?;
            let file = match CheckpointFile::decode(&content) {
                Ok(file) => file,
                Err(fault) => {
                    checkpoints.faulty.push(Faulty { path, fault });
                    continue;
                }
            };
            if file.is_cut(&content) {
                checkpoints.cut.push(path);
            }
            checkpoints.generation = checkpoints.generation.max(file.header.generation);
            for (sequence, entries) in file.frames {
                let age = (file.header.generation, sequence);
                for entry in entries {
                    let known = newest.entry(entry.log).or_insert((age, entry, shard));
                    if known.0 <= age {
                        *known = (age, entry, shard);
                    }
                }
            }
        }
        let entries = newest.into_iter().map(|(log, (_, entry, shard))| (log, (entry, shard)));
        checkpoints.entries = entries.collect();
        // The newest counts, and is put in last.
        snapshots.sort_by_key(|snapshot| snapshot.generation);
        let states = snapshots.into_iter().flat_map(|snapshot| snapshot.logs);
        checkpoints.producers = states.map(|(log, states)| (log, Arc::new(states))).collect();
        Ok(checkpoints)
    }
}

/// It only spares a start reading: whatever is wrong with it, the start goes on without.
async fn read_producers(path: &Path) -> Result<ProducerSnapshot, SnapshotFault> {
    let content = file::read_small(path, FILE_LEN_MAX).await;
    producer_snapshot::decode(&content.map_err(|error| SnapshotFault::Unreadable(error.to_string()))?)
}
