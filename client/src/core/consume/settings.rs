//! What a consumer is told to do.

use std::time::Duration;

use corrente_protocol::api::OffsetSpec;
use corrente_protocol::ids::{Offset, PartitionIndex, TopicName};

/// Where a consumer begins in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartOffset {
    /// At the log start offset.
    Earliest,
    /// At the high watermark: only what comes from now on.
    Latest,
    /// At this offset.
    At(Offset),
    /// At the first record of this time or later, in milliseconds since the Unix epoch; where there is none, at the
    /// high watermark. Records after it may be older.
    Timestamp(i64),
}

impl StartOffset {
    /// What a broker has to be asked to know the offset.
    pub(super) fn spec(self) -> Option<OffsetSpec> {
        match self {
            StartOffset::Earliest => Some(OffsetSpec::Earliest),
            StartOffset::Latest => Some(OffsetSpec::Latest),
            StartOffset::At(_) => None,
            StartOffset::Timestamp(at_ms) => Some(OffsetSpec::Timestamp(at_ms)),
        }
    }
}

/// What a consumer does when its position lies outside the log: records were deleted before it came to them, or it was
/// told to begin where the log does not reach. A start that had to be asked for and was overtaken by a deletion before
/// anything was read is none of this: it is asked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OutOfRange {
    /// Yield an error of kind `OffsetOutOfRange`, which names the bounds of the log, and stop with that partition: only
    /// the owner knows whether the records in between matter.
    #[default]
    Fail,
    /// Go on at the log start offset.
    Earliest,
    /// Go on at the high watermark.
    Latest,
}

/// What a consumer was configured to do.
#[derive(Debug, Clone)]
pub struct ConsumerSettings {
    /// The partitions, and where to begin in each.
    pub partitions: Vec<(TopicName, PartitionIndex, StartOffset)>,
    /// End at the high watermarks found at the start.
    pub until_end: bool,
    /// What to do when a position lies outside the log.
    pub out_of_range: OutOfRange,
    /// Sent or on its way and not yet taken: at most about this many bytes; a single larger batch still comes.
    pub prefetch_bytes: usize,
    /// Bytes that a broker sends at a time.
    pub answer_bytes_max: usize,
    /// How long a broker may be silent.
    pub heartbeat: Duration,
}
