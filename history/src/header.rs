//! The first line of a history: what has to be known of a run to judge it.

use serde::{Deserialize, Serialize};

/// Format version this crate writes, and the only one it reads.
pub const VERSION: u32 = 1;

/// Facts of a run.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The version of the format.
    #[serde(rename = "history")]
    pub version: u32,
    /// The command or the seed that repeats the run.
    pub run: String,
    /// Wall clock, in ms since 1970, when the run's monotonic clock stood at 0: ties record timestamps to operations.
    #[serde(default)]
    pub epoch_ms: i64,
    /// Whether the broker drops what a producer sends again. If not, a record may stand more than once.
    #[serde(default)]
    pub idempotent: bool,
    /// Whether producers promise that records of one partition stand in the order they were sent, even those under way
    /// together. If not, only a record sent after an acknowledgement must stand behind it.
    #[serde(default)]
    pub in_order: bool,
    /// Whether clients try for longer than any fault lasts, so that none may be turned away.
    #[serde(default)]
    pub patient: bool,
    /// The longest any operation but a poll may take, the time the broker was down not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall_ns_max: Option<u64>,
    /// Topics that were there before the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<Topic>,
}

/// A topic: one life of it. Created again under its old name, it is another one.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// Its number in this history, which stands for its id: never used for another life of the name.
    pub topic: u32,
    /// Its name.
    pub name: String,
    /// Its id at the broker, for people who compare with the broker's own log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// How many partitions it has.
    pub partitions: u32,
    /// What is done with old records.
    #[serde(default, skip_serializing_if = "Cleanup::is_default")]
    pub cleanup: Cleanup,
    /// Records older than this may be deleted, if the cleanup says so; none: age deletes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_ms: Option<u64>,
    /// Records with more than so many bytes after them may be deleted; none: size deletes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_bytes: Option<u64>,
    /// A tombstone is kept at least for so long where the topic is compacted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub delete_retention_ms: u64,
    /// Whether the broker stamps records with the time it appends them at.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub append_time: bool,
}

/// What is done with old records.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Cleanup {
    /// Deleted by age and size, as far as retention is set.
    #[default]
    #[serde(rename = "delete")]
    Delete,
    /// The latest record of each key is kept.
    #[serde(rename = "compact")]
    Compact,
    /// Both.
    #[serde(rename = "compact,delete")]
    CompactAndDelete,
}

impl Cleanup {
    /// Whether a record may go when a later one has its key.
    pub fn compacts(self) -> bool {
        self != Cleanup::Delete
    }

    /// Whether a record may go by age and size.
    pub fn deletes(self) -> bool {
        self != Cleanup::Compact
    }

    // By reference, as serde calls it.
    fn is_default(&self) -> bool {
        *self == Cleanup::default()
    }
}

// By reference, as serde calls it.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
