//! What clients did and saw, in the order of virtual time: all that a checker knows of a run.

use corrente_protocol::ids::{Offset, PartitionIndex};

use crate::content::{Content, RecordId};

/// Who read.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum ReaderId {
    /// One that read while the run went on.
    During(u32),
    /// The one that read everything after the last start.
    Final,
}

/// One thing that happened at a client.
#[derive(Clone, Debug)]
pub enum Event {
    /// A record was handed to the producer.
    Sent {
        /// Which.
        id: RecordId,
        /// The number of its key.
        key: u32,
        /// Where the key leads.
        partition: PartitionIndex,
    },
    /// A record was acknowledged.
    Acked {
        /// Which.
        id: RecordId,
        /// Where the broker says it stands.
        partition: PartitionIndex,
        /// At which offset.
        offset: Offset,
    },
    /// A record was given up.
    Failed {
        /// Which.
        id: RecordId,
        /// Whether it may stand in the log all the same.
        maybe_applied: bool,
        /// What the producer said.
        error: String,
    },
    /// A record was read.
    Read {
        /// By whom.
        reader: ReaderId,
        /// In which partition.
        partition: PartitionIndex,
        /// At which offset.
        offset: Offset,
        /// What it was.
        content: Content,
    },
    /// A reader was refused for good, or was given what cannot be read.
    ReaderFailed {
        /// Which.
        reader: ReaderId,
        /// What it was told.
        error: String,
    },
    /// A reader was told how far it could read.
    HighWatermark {
        /// In which partition.
        partition: PartitionIndex,
        /// One past the last readable record.
        end: Offset,
    },
    /// A question for first and end offset begins.
    Asked {
        /// Names the question; later ones have greater numbers.
        question: u32,
        /// About which partition.
        partition: PartitionIndex,
    },
    /// The answer.
    Answered {
        /// To which question.
        question: u32,
        /// About which partition.
        partition: PartitionIndex,
        /// The first offset kept.
        start: Offset,
        /// One past the last readable record.
        end: Offset,
    },
    /// The broker lost power, or was stopped.
    Down,
}

/// Everything that happened, oldest first.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The events.
    pub events: Vec<Event>,
    /// How many partitions the topic has.
    pub partitions: u32,
}
