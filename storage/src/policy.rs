//! What a log keeps, and for how long: the settings of its topic, as storage understands them.
//!
//! Pure. Times are in milliseconds, sizes in bytes; a limit that is `None` does not hold.

/// How one log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPolicy {
    /// A segment that has reached this size is followed by a new one; the last window may pass it.
    pub segment_bytes: u64,
    /// A segment that holds records and is older than this is followed by a new one at the next append.
    pub segment_ms: u64,
    /// Whether whole segments are removed once they are too old, or the log is too large.
    pub delete: bool,
    /// How long after the latest timestamp in it a segment is kept.
    pub retention_ms: Option<u64>,
    /// The size that the log keeps at least, as long as it has so much.
    pub retention_bytes: Option<u64>,
    /// Whether and when records are removed that a later one of the same key supersedes.
    pub compaction: Option<CompactionPolicy>,
    /// Whether appends may take what is reserved of a drive: for the log that deletions are written to.
    pub uses_reserve: bool,
    /// Whether records take the time at which they are appended, not their producer's.
    pub append_time: bool,
}

/// When a log is compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionPolicy {
    /// A segment is left alone until its latest record is older than this.
    pub min_lag_ms: u64,
    /// No record stays uncompacted for longer than this, however small the dirty part.
    pub max_lag_ms: u64,
    /// How long a tombstone is kept after the first compaction that met it.
    pub delete_retention_ms: u64,
    /// The part of the log, in millionths of its bytes, that must be uncompacted before it is worth the work.
    pub dirty_ratio_ppm: u32,
}

impl LogPolicy {
    /// A log that keeps everything, in segments of this size.
    pub const fn keep_all(segment_bytes: u64) -> LogPolicy {
        LogPolicy {
            segment_bytes,
            segment_ms: u64::MAX,
            delete: false,
            retention_ms: None,
            retention_bytes: None,
            compaction: None,
            uses_reserve: false,
            append_time: false,
        }
    }
}
