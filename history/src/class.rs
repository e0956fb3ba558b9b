//! Kinds of broken promises, and how grave each is.

use std::fmt;

use crate::operation::LogId;

/// A kind of anomaly that a log broker must never show. In order: the gravest first.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Class {
    /// One offset showed two records.
    InconsistentOffsets,
    /// An acknowledged record is not where it was acknowledged to be.
    LostWrite,
    /// A record that somebody read is gone: it was shown before it was safe.
    LostRead,
    /// An acknowledged record lies before the end that was told, and no reader was ever shown it.
    Unseen,
    /// Something was read that nobody sent, or damaged, or before it was sent.
    Phantom,
    /// A record was read whose sending had certainly failed.
    AbortedRead,
    /// Fewer records were shown than were acknowledged, or read, before the poll began.
    StalePoll,
    /// An end offset was told that lies before a record acknowledged by then.
    StaleListOffsets,
    /// An end offset was told that lies before one known by then.
    EndWentBack,
    /// A log start offset was told that lies before one known by then.
    StartWentBack,
    /// A record stands more than once though the broker drops what is sent again.
    Duplicate,
    /// Within one poll, offsets were left out.
    SkipWithinPoll,
    /// Within one poll, offsets came again, or backwards.
    NonMonotonicWithinPoll,
    /// From one poll to the next, offsets were left out.
    PollSkip,
    /// From one poll to the next, offsets came again, or backwards.
    NonMonotonicPoll,
    /// Records of one producer stand in another order than they were sent.
    NonMonotonicSend,
    /// A record stands in a partition that its key does not lead to.
    Misplaced,
    /// A lookup by time was answered with another record than the first one late enough.
    WrongLookup,
    /// An operation was never answered, was turned away though every fault passed, or the run did not come to rest.
    Liveness,
    /// A definite error for what was done, a success for what could not be.
    WrongError,
    /// A record was gone before retention, or whoever deletes records, allowed it; or the log answered below its start.
    Retention,
}

impl Class {
    /// Every class, the gravest first.
    pub const ALL: [Class; 21] = [
        Class::InconsistentOffsets,
        Class::LostWrite,
        Class::LostRead,
        Class::Unseen,
        Class::Phantom,
        Class::AbortedRead,
        Class::StalePoll,
        Class::StaleListOffsets,
        Class::EndWentBack,
        Class::StartWentBack,
        Class::Duplicate,
        Class::SkipWithinPoll,
        Class::NonMonotonicWithinPoll,
        Class::PollSkip,
        Class::NonMonotonicPoll,
        Class::NonMonotonicSend,
        Class::Misplaced,
        Class::WrongLookup,
        Class::Liveness,
        Class::WrongError,
        Class::Retention,
    ];

    /// Whether something that had been acknowledged is gone.
    pub fn is_loss(self) -> bool {
        matches!(self, Class::LostWrite | Class::Unseen)
    }
}

/// One broken promise.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Violation {
    /// Its kind.
    pub class: Class,
    /// The log whose promise it was, if it was one log's.
    pub log: Option<LogId>,
    /// What exactly, for people, with the lines of the operations in it.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.class, self.detail)
    }
}
