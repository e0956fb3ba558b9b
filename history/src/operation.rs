//! One operation of a client, or one thing that befell the broker: when, what, and what came of it.
//!
//! Offsets and times are bare numbers here, as they stand in the file: times in nanoseconds of one monotonic clock,
//! ends exclusive and named so.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::content::RecordId;
use crate::header::Topic;

/// A partition of one life of a topic.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LogId {
    /// The topic's number in the history.
    pub topic: u32,
    /// The partition.
    pub partition: u32,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// What one process did, from asking to the answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Operation {
    /// Who. A process has one poll under way at most; sends may overlap.
    pub process: u32,
    /// The earliest moment at which it may have had an effect, or may have looked. For a poll of a client that fetches
    /// ahead this is when its reader was started.
    pub invoked_ns: u64,
    /// When the answer was there; none if there never was one.
    pub completed_ns: Option<u64>,
    /// What came of it.
    pub outcome: Outcome,
    /// Part of the final reading: faults are over, everything sent has its answer.
    pub is_final: bool,
    /// What it was.
    pub action: Action,
}

/// What came of an operation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It was done.
    Ok,
    /// It may have been done, now or later.
    Info(Refusal),
    /// It was certainly not done, and never will be.
    Fail(Refusal),
}

/// Why something was not done.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Refusal {
    /// The kind, as far as a rule depends on it.
    pub kind: RefusalKind,
    /// What was said, for people.
    pub detail: String,
}

/// Kinds of refusal that rules tell apart.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// Any other.
    #[default]
    Other,
    /// The position lies outside the log.
    OutOfRange,
    /// There is no such topic or partition.
    UnknownTopic,
    /// There is a topic of that name.
    TopicExists,
    /// Time ran out.
    Timeout,
}

/// What an operation was.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Records were sent; they share their fate.
    Send(Vec<SentRecord>),
    /// Logs were read on.
    Poll(Vec<Poll>),
    /// An offset was asked for.
    ListOffsets {
        /// Of this log.
        log: LogId,
        /// Which offset.
        query: OffsetQuery,
        /// The answer.
        answer: Option<OffsetAnswer>,
    },
    /// All records before an offset were to be deleted.
    DeleteRecords {
        /// In this log.
        log: LogId,
        /// The first offset to be kept.
        before_offset: u64,
        /// The log start offset told in answer.
        log_start: Option<u64>,
    },
    /// A topic was to be created.
    CreateTopic(Topic),
    /// A topic was to be changed: more partitions, another configuration. What it is to be then.
    AlterTopic(Topic),
    /// A topic was to be deleted.
    DeleteTopic {
        /// Its number.
        topic: u32,
    },
    /// The broker was killed, lost power or was stopped, and serves again at the completion.
    Crash,
    /// The run came to its end, in good order if the outcome is ok. The last line of every whole history.
    Rest,
}

/// A record on its way to the broker.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SentRecord {
    /// The log that its key leads to.
    pub log: LogId,
    /// Names it: no other record of the history has the same.
    pub id: RecordId,
    /// The number of its key.
    pub key: u32,
    /// Whether it has no value, and so deletes its key where the topic is compacted.
    pub is_tombstone: bool,
    /// Bytes of its value.
    pub bytes: u32,
    /// Its timestamp, in ms since 1970, the one acknowledged if there is one.
    pub timestamp_ms: i64,
    /// Where the acknowledgement says it stands.
    pub acked: Option<Place>,
}

/// A place in a topic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
}

/// What one answer of the broker gave of one log.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Poll {
    /// The log.
    pub log: LogId,
    /// The offset that was to come next; none where a new reader began without one, at the earliest record or the end.
    pub position: Option<u64>,
    /// One past the last record that could be read, as the broker said.
    pub high_watermark: Option<u64>,
    /// What was read, in the order it came.
    pub records: Vec<ReadRecord>,
}

/// A record as a reader found it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReadRecord {
    /// Where it stands.
    pub offset: u64,
    /// Its timestamp, in ms since 1970.
    pub timestamp_ms: i64,
    /// What it was.
    pub content: crate::content::Content,
}

/// Which offset is asked for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OffsetQuery {
    /// The log start offset.
    Earliest,
    /// One past the last readable record.
    Latest,
    /// The first record with this timestamp or a later one; the end, where there is none.
    Timestamp(i64),
    /// A record with the latest timestamp.
    MaxTimestamp,
}

/// An offset told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OffsetAnswer {
    /// The offset.
    pub offset: u64,
    /// The timestamp of the record there, where a question for a time found one.
    pub timestamp_ms: Option<i64>,
}

impl Operation {
    /// Whether it was done for sure.
    pub fn is_ok(&self) -> bool {
        self.outcome == Outcome::Ok
    }

    /// Whether it certainly was not done.
    pub fn has_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Fail(_))
    }

    /// Why it was not done, or may not have been.
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.outcome {
            Outcome::Ok => None,
            Outcome::Info(refusal) | Outcome::Fail(refusal) => Some(refusal),
        }
    }

    /// When it was over; never, if there was no answer.
    pub fn over_ns(&self) -> u64 {
        self.completed_ns.unwrap_or(u64::MAX)
    }
}

impl Action {
    /// The logs it is about; none where it is about whole topics, or about no topic at all.
    pub fn logs(&self) -> Vec<LogId> {
        match self {
            Action::Send(records) => records.iter().map(|record| record.log).collect(),
            Action::Poll(polls) => polls.iter().map(|poll| poll.log).collect(),
            Action::ListOffsets { log, .. } | Action::DeleteRecords { log, .. } => vec![*log],
            Action::CreateTopic(_)
            | Action::AlterTopic(_)
            | Action::DeleteTopic { .. }
            | Action::Crash
            | Action::Rest => vec![],
        }
    }

    /// The topics that have to be there for it, each once where they follow each other.
    pub fn topics(&self) -> Vec<u32> {
        let mut topics: Vec<u32> = match self {
            Action::AlterTopic(facts) => vec![facts.topic],
            Action::DeleteTopic { topic } => vec![*topic],
            other => other.logs().into_iter().map(|log| log.topic).collect(),
        };
        topics.dedup();
        topics
    }
}

impl Refusal {
    /// Of this kind, in these words.
    pub fn new(kind: RefusalKind, detail: impl Into<String>) -> Refusal {
        Refusal { kind, detail: detail.into() }
    }
}
