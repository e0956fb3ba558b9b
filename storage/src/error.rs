//! What can happen to each operation, and nothing else.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use corrente_protocol::ids::{LeaderEpoch, Offset, TopicPartition};
use thiserror::Error;

use crate::drives::{Full, tells_of_a_failed_drive};
use crate::producer_state::SequenceRefusal;

/// A write or flush of the log failed once. Nothing can be appended to it any more in this run; what was
/// flushed before can be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the log is fenced: {reason}")]
pub struct Fenced {
    /// What failed, in one line.
    pub reason: Arc<str>,
}

/// Why batches were not appended; none of them was.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AppendError {
    /// An earlier write failed.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// Batches of an idempotent producer that do not go on where it stopped.
    #[error(transparent)]
    Sequence(#[from] SequenceRefusal),
    /// More bytes than one extent may hold.
    #[error("append of {len} bytes, at most {max} fit")]
    TooLarge {
        /// Bytes given.
        len: usize,
        /// The most one append may hold.
        max: usize,
    },
    /// No batches were given.
    #[error("append of no batches")]
    Empty,
    /// The log already holds records of a later epoch.
    #[error("append at leader epoch {given}, the log is at {last}")]
    StaleEpoch {
        /// The epoch given.
        given: LeaderEpoch,
        /// The last one in the log.
        last: LeaderEpoch,
    },
    /// The offsets are used up.
    #[error("no offsets left after {end}")]
    OffsetsExhausted {
        /// The log end offset.
        end: Offset,
    },
    /// Part of the log is damaged: it can be read where it is sound, and takes no more.
    #[error("the log is in quarantine: {reason}")]
    Quarantined {
        /// What is damaged, in one line.
        reason: Arc<str>,
    },
    /// The drive has less than its reserve left. Nothing is lost; appends go on once there is room again.
    #[error(
        "data directory {dir} has {available} bytes left, less than the reserve of {reserve}: delete records or \
         topics, or give it more space"
    )]
    DiskFull {
        /// The data directory.
        dir: Arc<str>,
        /// Bytes that are left.
        available: u64,
        /// Bytes that appends leave alone.
        reserve: u64,
    },
    /// The log is closed or deleted.
    #[error("the log is closed")]
    Closed,
}

impl From<Full> for AppendError {
    fn from(Full { dir, available, reserve }: Full) -> Self {
        AppendError::DiskFull { dir, available, reserve }
    }
}

/// Why records were not deleted.
#[derive(Debug, Error)]
pub enum DeleteRecordsError {
    /// Only what is settled among the replicas can be deleted.
    #[error("offset {asked} is not in {start} to {end}")]
    OutOfRange {
        /// The offset asked for: the first one to keep.
        asked: Offset,
        /// The log start offset.
        start: Offset,
        /// The furthest offset that could be asked for.
        end: Offset,
    },
    /// The log is fenced, in quarantine or closed; nothing of it is removed.
    #[error("nothing is deleted: {reason}")]
    Unavailable {
        /// Why, in one line.
        reason: Arc<str>,
    },
    /// The disk did not answer.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why nothing was read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// The log does not hold this offset.
    #[error("offset {asked} is not in {start} to {end}")]
    OutOfRange {
        /// The offset asked for.
        asked: Offset,
        /// The log start offset.
        start: Offset,
        /// The log end offset.
        end: Offset,
    },
    /// The bytes on disk are not what was written. Other ranges can still be read.
    #[error("offsets {start} to {end} are damaged: {reason}")]
    Damaged {
        /// The first offset that cannot be read.
        start: Offset,
        /// The first one after it that may be readable.
        end: Offset,
        /// What was found, in one line.
        reason: Arc<str>,
    },
    /// The disk did not answer.
    #[error("{path}: {reason}")]
    Io {
        /// The file.
        path: Arc<str>,
        /// What the kernel said.
        reason: Arc<str>,
    },
    /// The log is closed or deleted.
    #[error("the log is closed")]
    Closed,
}

/// Why the node's directories, or a shard's share of them, could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// No data directory was named.
    #[error("no data directory is configured")]
    NoDataDir,
    /// Another process holds the directory.
    #[error("data directory {dir} is in use by another broker: stop it, or use another directory")]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory cannot be made, read or written.
    #[error(
        "data directory {dir} cannot be made, read or written: {source}; use one that the broker's user may write"
    )]
    DataDir {
        /// The directory.
        dir: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The same directory was named twice.
    #[error("data directories {first} and {second} are the same")]
    SameDir {
        /// One name.
        first: PathBuf,
        /// The other name.
        second: PathBuf,
    },
    /// The identity file is not one of ours, or of a version this code cannot read.
    #[error("{path}: {reason}")]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// One log lies in two directories.
    #[error("log {log} lies in both {first} and {second}")]
    DuplicateLog {
        /// Which log.
        log: TopicPartition,
        /// One place.
        first: PathBuf,
        /// The other place.
        second: PathBuf,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A checkpoint was written by a later version of this program.
    #[error("{path}: {reason}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl OpenError {
    /// Whether a drive is the trouble, and not how it is used.
    pub(crate) fn tells_of_a_failed_drive(&self) -> bool {
        match self {
            OpenError::DataDir { source, .. } | OpenError::Io { source, .. } => {
                tells_of_a_failed_drive(source)
            }
            _ => false,
        }
    }
}

/// Why a log could not be made.
#[derive(Debug, Error)]
pub enum CreateError {
    /// It is there already.
    #[error("log {log} exists already")]
    Exists {
        /// Which log.
        log: TopicPartition,
    },
    /// The shard is closing.
    #[error("the storage is closed")]
    Closed,
    /// Every data directory has failed or has less than its reserve left.
    #[error("no data directory has room for another log")]
    NoRoom,
    /// A file or directory could not be made.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why a log could not be opened. Nothing on disk was changed.
#[derive(Debug, Error)]
pub enum RecoveryError {
    /// Something is missing or wrong that was known to be flushed. It is never truncated away.
    #[error("log {log} is damaged: {reason}")]
    Damaged {
        /// Which log.
        log: TopicPartition,
        /// What is wrong, in one line.
        reason: String,
    },
    /// It is open already.
    #[error("log {log} is open already")]
    Open {
        /// Which log.
        log: TopicPartition,
    },
    /// The disk did not answer.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// What its producers have sent cannot be read.
    #[error("the producers of log {log} are not known: {source}")]
    Producers {
        /// Which log.
        log: TopicPartition,
        /// Why not.
        source: ReadError,
    },
}

/// An I/O error with the path it happened to.
#[derive(Debug, Error)]
#[error("{path}: {source}")]
pub struct PathError {
    /// The file or directory.
    pub path: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

/// Names the path an I/O error happened to.
pub(crate) trait AtPath<T> {
    fn at(self, path: &Path) -> Result<T, PathError>;
}

impl<T> AtPath<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, PathError> {
        self.map_err(|source| PathError { path: path.to_owned(), source })
    }
}

impl From<PathError> for CreateError {
    fn from(PathError { path, source }: PathError) -> Self {
        CreateError::Io { path, source }
    }
}

impl From<PathError> for DeleteRecordsError {
    fn from(PathError { path, source }: PathError) -> Self {
        DeleteRecordsError::Io { path, source }
    }
}

impl From<PathError> for RecoveryError {
    fn from(PathError { path, source }: PathError) -> Self {
        RecoveryError::Io { path, source }
    }
}

impl From<PathError> for OpenError {
    fn from(PathError { path, source }: PathError) -> Self {
        OpenError::Io { path, source }
    }
}

impl From<PathError> for ReadError {
    fn from(PathError { path, source }: PathError) -> Self {
        ReadError::Io { path: path.to_string_lossy().into(), reason: source.to_string().into() }
    }
}
