//! The data directories of a node that is down: which logs lie in them, and what the checkpoints say of each.
//!
//! Holds the directories' locks, so that no broker starts meanwhile. Unlike a start it makes, finishes and removes
//! nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use corrente_protocol::ids::TopicPartition;
use corrente_runtime::file::{self, DirLock};

use super::report::{Finding, InspectError};
use crate::checkpoint::{CheckpointEntry, CheckpointFault};
use crate::checkpointer::checkpoint_dir;
use crate::checkpoints::{Checkpoints, Faulty};
use crate::error::AtPath;
use crate::identity::{IDENTITY_LEN, Identity, IdentityFault};
use crate::layout::{log_dir, parse_partition, parse_topic, topics_dir};
use crate::log::LogId;

/// Where checkpoints lie, as findings name it.
const CHECKPOINT_NAME: &str = "checkpoint";

/// Whether a directory may be looked at while a broker runs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// No: what is found must hold still.
    Nobody,
    /// Yes: what is shown is a moment that may be over.
    Broker,
}

/// Some logs, and the data directories they lie in.
pub struct OfflineDirs {
    logs: Vec<OfflineLog>,
    dirs: Vec<DirReport>,
    locks: Vec<DirLock>,
}

/// A log whose broker does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfflineLog {
    /// Whose log.
    pub id: LogId,
    /// Where it lies, or lay.
    pub dir: PathBuf,
    /// How far the checkpoints know it to be durable.
    pub checkpoint: Option<CheckpointEntry>,
}

/// One data directory but for its logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirReport {
    /// The directory.
    pub dir: PathBuf,
    /// Whether a broker runs on it at this moment.
    pub in_use: bool,
    /// Whether its checkpoints are those of the node.
    pub has_checkpoints: bool,
    /// What was found: its identity, its checkpoints.
    pub findings: Vec<Finding>,
}

/// What one of the paths given stands for.
struct Named {
    data_dir: PathBuf,
    log: Option<LogId>,
}

impl OfflineDirs {
    /// Takes up what `paths` name: data directories with all their logs, or single logs. The checkpoints of a node lie
    /// in its first data directory; `first_data_dir` names it where the paths lie in others.
    pub async fn open(
        paths: &[PathBuf],
        first_data_dir: Option<&Path>,
        beside: Beside,
    ) -> Result<OfflineDirs, InspectError> {
        let mut named = Vec::new();
        for path in paths {
            named.push(name(path).await?);
        }
        let mut data_dirs: Vec<&Path> = Vec::new();
        for dir in first_data_dir.into_iter().chain(named.iter().map(|named| named.data_dir.as_path())) {
            if !data_dirs.contains(&dir) {
                data_dirs.push(dir);
            }
        }
        let mut found = OfflineDirs { logs: Vec::new(), dirs: Vec::new(), locks: Vec::new() };
        let mut entries = BTreeMap::new();
        for dir in data_dirs {
            entries.extend(found.take_up(dir, beside).await?);
        }
        for Named { data_dir, log } in &named {
            let ids = match log {
                Some(id) => vec![*id],
                None => find_logs(data_dir).await?,
            };
            for id in ids {
                let (dir, checkpoint) = (log_dir(data_dir, id), entries.get(&id).copied());
                if checkpoint.is_none() && !file::exists(&dir).await.at(&dir)? {
                    return Err(InspectError::NoSuchLog { log: id, dir: data_dir.clone() });
                }
                let log = OfflineLog { id, dir, checkpoint };
                if !found.logs.contains(&log) {
                    found.logs.push(log);
                }
            }
        }
        found.note_missing_logs(&named, &entries);
        Ok(found)
    }

    /// Locks a data directory and looks at what lies in it but for the logs; what its checkpoints say.
    async fn take_up(
        &mut self,
        dir: &Path,
        beside: Beside,
    ) -> Result<BTreeMap<LogId, CheckpointEntry>, InspectError> {
        let in_use = match file::lock_exclusive(&dir.join("lock")).await {
            Ok(lock) => {
                self.locks.push(lock);
                false
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => match beside {
                Beside::Broker => true,
                Beside::Nobody => return Err(InspectError::Locked { dir: dir.to_owned() }),
            },
            // Where nothing can be written no broker runs.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => false,
            Err(source) => return Err(InspectError::Io { path: dir.join("lock"), source }),
        };
        let mut report =
            DirReport { dir: dir.to_owned(), in_use, has_checkpoints: false, findings: Vec::new() };
        report.findings.extend(look_at_identity(dir).await?);
        let checkpoints = checkpoint_dir(&[dir.to_owned()]);
        let mut entries = BTreeMap::new();
        if file::exists(&checkpoints).await.at(&checkpoints)? {
            let read = Checkpoints::read(&checkpoints).await?;
            report.has_checkpoints = true;
            report.findings.extend(faults(&read)?);
            entries = read.entries.into_iter().map(|(id, (entry, _))| (id, entry)).collect();
        }
        self.dirs.push(report);
        Ok(entries)
    }

    /// Logs that a checkpoint knows and that lie nowhere.
    fn note_missing_logs(&mut self, named: &[Named], entries: &BTreeMap<LogId, CheckpointEntry>) {
        // Single logs were asked for: the others may well be there.
        if named.iter().any(|named| named.log.is_some()) {
            return;
        }
        let there: BTreeSet<LogId> = self.logs.iter().map(|log| log.id).collect();
        let missing = entries.values().filter(|entry| !there.contains(&entry.log)).map(|entry| {
            let what = format!(
                "log {} was flushed up to offset {} and lies in none of these directories: its topic was deleted, \
                 or a data directory is missing",
                entry.log, entry.flushed_offset
            );
            Finding::note(CHECKPOINT_NAME, what)
        });
        if let Some(report) = self.dirs.iter_mut().find(|report| report.has_checkpoints) {
            report.findings.extend(missing);
        }
    }

    /// The logs, in the order of the paths.
    pub fn logs(&self) -> &[OfflineLog] {
        &self.logs
    }

    /// What the directories hold beside them.
    pub fn dirs(&self) -> &[DirReport] {
        &self.dirs
    }

    /// Whether the node's checkpoints are among what was found: without them nobody can say how far a log reached.
    pub fn has_checkpoints(&self) -> bool {
        self.dirs.iter().any(|dir| dir.has_checkpoints)
    }
}

/// What a path stands for. A log need not be there: a checkpoint may still know it.
async fn name(path: &Path) -> Result<Named, InspectError> {
    for mark in [path.join("identity"), topics_dir(path)] {
        if file::exists(&mark).await.at(&mark)? {
            return Ok(Named { data_dir: path.to_owned(), log: None });
        }
    }
    let not_ours = || InspectError::NotOurs { path: path.to_owned() };
    let mut above = path.ancestors().map(|ancestor| ancestor.file_name().and_then(|name| name.to_str()));
    let partition = above.next().flatten().and_then(parse_partition).ok_or_else(not_ours)?;
    let topic = above.next().flatten().and_then(parse_topic).ok_or_else(not_ours)?;
    let data_dir = path.ancestors().nth(3).ok_or_else(not_ours)?;
    if topics_dir(data_dir) != path.ancestors().nth(2).ok_or_else(not_ours)?
        || !file::exists(&data_dir.join("identity")).await.at(data_dir)?
    {
        return Err(not_ours());
    }
    Ok(Named { data_dir: data_dir.to_owned(), log: Some(TopicPartition { topic, partition }) })
}

async fn look_at_identity(dir: &Path) -> Result<Option<Finding>, InspectError> {
    let path = dir.join("identity");
    let what = match file::read_small(&path, IDENTITY_LEN).await {
        Ok(bytes) => match Identity::decode(&bytes) {
            Ok(_) => return Ok(None),
            Err(fault @ IdentityFault::Version(_)) => {
                return Err(InspectError::OtherVersion { path, reason: fault.to_string() });
            }
            Err(fault) => fault.to_string(),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => "missing".to_owned(),
        Err(error) => error.to_string(),
    };
    let what = format!("{what}; no broker starts on this directory, and repair does not mend it");
    Ok(Some(Finding::damage("identity", None, None, what)))
}

/// What is wrong with the checkpoint files: nothing that repair could mend, and the next start writes them anew.
fn faults(checkpoints: &Checkpoints) -> Result<Vec<Finding>, InspectError> {
    let mut findings = Vec::new();
    let name = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        format!("{CHECKPOINT_NAME}/{name}")
    };
    for Faulty { path, fault } in &checkpoints.faulty {
        if let CheckpointFault::Version(_) = fault {
            return Err(InspectError::OtherVersion { path: path.clone(), reason: fault.to_string() });
        }
        let what = format!("{fault}; the next start writes it anew, and there is nothing to repair");
        findings.push(Finding::damage(name(path), None, None, what));
    }
    for path in &checkpoints.cut {
        let what = "a frame does not verify and a later one does; the next start writes it anew, and there is nothing \
                    to repair";
        findings.push(Finding::damage(name(path), None, None, what));
    }
    Ok(findings)
}

/// The logs below a data directory, ordered by id.
async fn find_logs(data_dir: &Path) -> Result<Vec<LogId>, InspectError> {
    let topics = topics_dir(data_dir);
    let mut found = Vec::new();
    if !file::exists(&topics).await.at(&topics)? {
        return Ok(found);
    }
    for entry in file::read_dir(&topics).await.at(&topics)? {
        let Some(topic) = parse_topic(&entry.name).filter(|_| entry.is_dir) else { continue };
        let dir = topics.join(&entry.name);
        let partitions = file::read_dir(&dir).await.at(&dir)?;
        let partitions =
            partitions.iter().filter(|entry| entry.is_dir).map(|entry| parse_partition(&entry.name));
        found.extend(partitions.flatten().map(|partition| TopicPartition { topic, partition }));
    }
    found.sort_unstable();
    Ok(found)
}
