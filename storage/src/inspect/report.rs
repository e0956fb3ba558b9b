//! What an inspection found, as it is told to people: plain data.

use std::ops::Range;
use std::path::PathBuf;

use corrente_protocol::ids::Offset;
use thiserror::Error;

use crate::error::PathError;
use crate::log::LogId;
use crate::position::FilePosition;

/// Something an inspection found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How grave it is.
    pub kind: FindingKind,
    /// The file, by its name in the directory that was looked at.
    pub file: String,
    /// Where in the file.
    pub position: Option<u64>,
    /// Offsets whose records cannot be read because of it.
    pub lost: Option<Range<Offset>>,
    /// What is wrong, in one line.
    pub what: String,
}

impl Finding {
    pub(crate) fn damage(
        file: impl Into<String>,
        position: Option<FilePosition>,
        lost: Option<Range<Offset>>,
        what: impl Into<String>,
    ) -> Finding {
        let position = position.map(|position| position.0);
        // What costs no offsets is damage all the same.
        let lost = lost.filter(|lost| !lost.is_empty());
        Finding { kind: FindingKind::Damage, file: file.into(), position, lost, what: what.into() }
    }

    pub(crate) fn note(file: impl Into<String>, what: impl Into<String>) -> Finding {
        let (file, what) = (file.into(), what.into());
        Finding { kind: FindingKind::Note, file, position: None, lost: None, what }
    }
}

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingKind {
    /// Worth knowing; the next start or the next read sees to it.
    Note,
    /// Bytes at the end that were never acknowledged; the next start leaves them behind.
    TornTail,
    /// Something that was flushed is not what it was.
    Damage,
}

/// One log, looked at whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogReport {
    /// Whose log.
    pub id: LogId,
    /// Where it lies.
    pub dir: PathBuf,
    /// Segments that belong to it.
    pub segments: usize,
    /// What they take on the disk.
    pub bytes: u64,
    /// Records in the batches that verify.
    pub records: u64,
    /// The first offset that may be read.
    pub log_start_offset: Offset,
    /// One past the last offset that is known to have been flushed.
    pub end_offset: Offset,
    /// What was found, in the order of the log.
    pub findings: Vec<Finding>,
}

impl LogReport {
    /// Whether anything that was flushed is damaged.
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.kind == FindingKind::Damage)
    }
}

/// Why something could not be looked at.
#[derive(Debug, Error)]
pub enum InspectError {
    /// The path names neither a data directory nor a log.
    #[error(
        "{path} is neither a data directory (with 'identity' and 'topics' in it) nor a log of one \
         (.../topics/<topic id>/<partition>)"
    )]
    NotOurs {
        /// The path.
        path: PathBuf,
    },
    /// A broker holds the directory.
    #[error("data directory {dir} is in use by a broker: stop it first")]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// Neither the disk nor a checkpoint knows the log.
    #[error("no log {log} in {dir}, and no checkpoint knows one")]
    NoSuchLog {
        /// Which log.
        log: LogId,
        /// The data directory.
        dir: PathBuf,
    },
    /// A file was written by another version of this program; that is no damage.
    #[error("{path}: {reason}")]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// The two versions.
        reason: String,
    },
    /// A file or directory could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

impl From<PathError> for InspectError {
    fn from(PathError { path, source }: PathError) -> Self {
        InspectError::Io { path, source }
    }
}
