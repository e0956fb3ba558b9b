//! Why configs of a topic are refused: one line each, with what would have been right.

/// Why configs are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No such config, and perhaps one that is spelt alike.
    #[error(
        "unknown config {key:?}{}",
        nearest.map(|nearest| format!(", did you mean {nearest:?}")).unwrap_or_default()
    )]
    UnknownKey {
        /// The key, shortened if it is long.
        key: String,
        /// The known key that is spelt most alike.
        nearest: Option<&'static str>,
    },
    /// A value that the config never takes.
    #[error("config {key} is {value:?}, allowed is {allowed}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// The value, shortened if it is long.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// A value that the config will take once the broker acts on it.
    #[error("config {key} is {value:?}, which is not enforced yet, so only {only:?} is accepted")]
    NotEnforced {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// The value that is acted on.
        only: &'static str,
    },
    /// The largest batch does not fit the segment.
    #[error("config max.message.bytes is {max_message_bytes}, more than segment.bytes {segment_bytes}")]
    MessageLargerThanSegment {
        /// The largest batch.
        max_message_bytes: u64,
        /// The segment's size.
        segment_bytes: u64,
    },
    /// Compaction would have to take a record before it may.
    #[error("config min.compaction.lag.ms is {min_lag_ms}, more than max.compaction.lag.ms {max_lag_ms}")]
    CompactionLags {
        /// For how long a record is left alone.
        min_lag_ms: u64,
        /// After how long it is compacted in any case.
        max_lag_ms: u64,
    },
    /// More in-sync replicas asked for than there are replicas.
    #[error(
        "config min.insync.replicas is {min_insync_replicas}, more than the replication factor {replication_factor}"
    )]
    MinInsyncAboveReplicationFactor {
        /// In-sync replicas asked for.
        min_insync_replicas: u32,
        /// Replicas of each partition.
        replication_factor: usize,
    },
}
