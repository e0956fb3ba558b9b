//! The one error of the SDK: what failed, where, after how many attempts and how long, and why.
//!
//! It never carries payload bytes and never more than one line of text.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use corrente_protocol::error_code::ErrorCode;

/// What kind of trouble an [`Error`] is. New kinds may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The time granted (request timeout or delivery timeout) ran out.
    Timeout,
    /// No broker could be reached, or the connection broke and no time was left to try again.
    Disconnected,
    /// The broker asked does not lead the partition, and no other was found in time.
    NotLeader,
    /// The topic or partition does not exist.
    TopicNotFound,
    /// The topic exists already.
    TopicAlreadyExists,
    /// The offset asked for lies outside the log.
    OffsetOutOfRange,
    /// The record, batch or request is larger than what the producer or the broker allows.
    MessageTooLarge,
    /// Bytes failed a checksum or could not be decoded.
    Corrupt,
    /// Broker and client have no version of the protocol in common.
    UnsupportedVersion,
    /// The caller asked for something that cannot be: a bad name, count, configuration or record.
    InvalidRequest,
    /// The broker could not write or read its disk, or has no room left on it.
    Storage,
    /// The broker or the log was replaced by a newer one.
    Fenced,
    /// The broker has no room at the moment.
    Busy,
    /// The client, producer or consumer was closed.
    Closed,
    /// Another party's append came first: the expected end offset did not match.
    UnexpectedEndOffset,
    /// The broker refused by policy.
    Refused,
    /// Something that should not happen; the message says what.
    Internal,
}

/// The error of every operation of the SDK. Cheap to clone.
///
/// Its `Display` is one line: operation, topic and partition, broker, attempts, elapsed time, cause.
#[derive(Clone)]
pub struct Error(Arc<Details>);

#[derive(Clone)]
struct Details {
    kind: ErrorKind,
    operation: &'static str,
    topic: Option<String>,
    partition: Option<u32>,
    broker: Option<String>,
    attempts: u32,
    elapsed: Option<Duration>,
    code: Option<ErrorCode>,
    cause: String,
    retryable: bool,
    maybe_applied: bool,
}

impl Error {
    /// What kind of trouble this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// True if the same call may well succeed later without any change by the caller.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// True if the broker may have done what was asked although the call failed: a request was sent and no
    /// answer came back. False means that it surely had no effect.
    pub fn maybe_applied(&self) -> bool {
        self.0.maybe_applied
    }

    /// The broker's own error code, where the error is a broker's answer.
    pub fn broker_code(&self) -> Option<ErrorCode> {
        self.0.code
    }

    /// True for a broker's answer that leaves open whether it did what was asked: it had begun, and its time ran
    /// out, its disk failed, or it was told to stop.
    pub(crate) fn leaves_doubt(&self) -> bool {
        matches!(
            self.0.code,
            Some(
                ErrorCode::RequestTimedOut
                    | ErrorCode::StorageError
                    | ErrorCode::LogFenced
                    | ErrorCode::ShuttingDown
                    | ErrorCode::Internal
            )
        )
    }

    /// The partition it is about, where it is about one.
    pub fn concerns_partition(&self) -> Option<u32> {
        self.0.partition
    }

    /// How often the operation was tried.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    pub(crate) fn new(kind: ErrorKind, operation: &'static str, cause: impl Into<String>) -> Error {
        let retryable = matches!(
            kind,
            ErrorKind::Timeout | ErrorKind::Disconnected | ErrorKind::NotLeader | ErrorKind::Busy
        );
        Error(Arc::new(Details {
            kind,
            operation,
            topic: None,
            partition: None,
            broker: None,
            attempts: 0,
            elapsed: None,
            code: None,
            cause: one_line(cause.into()),
            retryable,
            maybe_applied: false,
        }))
    }

    /// A broker's answer as an error.
    pub(crate) fn from_code(code: ErrorCode, operation: &'static str, message: Option<&str>) -> Error {
        let cause = match message {
            Some(message) if !message.is_empty() => message.to_owned(),
            _ => code.to_string(),
        };
        let mut error = Error::new(kind_of(code), operation, cause);
        let details = error.details();
        details.code = Some(code);
        details.retryable = code.is_retryable();
        error
    }

    pub(crate) fn closed(operation: &'static str) -> Error {
        Error::new(ErrorKind::Closed, operation, "the client is closed")
    }

    pub(crate) fn invalid(operation: &'static str, cause: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidRequest, operation, cause)
    }

    pub(crate) fn topic(mut self, topic: impl fmt::Display) -> Error {
        self.details().topic = Some(topic.to_string());
        self
    }

    pub(crate) fn partition(mut self, partition: u32) -> Error {
        self.details().partition = Some(partition);
        self
    }

    pub(crate) fn broker(mut self, broker: Option<&str>) -> Error {
        if let Some(broker) = broker {
            self.details().broker = Some(broker.to_owned());
        }
        self
    }

    pub(crate) fn operation(mut self, operation: &'static str) -> Error {
        self.details().operation = operation;
        self
    }

    pub(crate) fn after(mut self, attempts: u32, elapsed: Duration) -> Error {
        let details = self.details();
        details.attempts = attempts;
        details.elapsed = Some(elapsed);
        self
    }

    pub(crate) fn applied_maybe(mut self, maybe: bool) -> Error {
        self.details().maybe_applied = maybe;
        self
    }

    /// The same trouble seen from the end of a budget: its kind becomes `Timeout`, its cause is kept.
    pub(crate) fn timed_out(mut self, budget: Duration) -> Error {
        let details = self.details();
        details.cause = format!("no success within {budget:?}; last: {}", details.cause);
        details.kind = ErrorKind::Timeout;
        details.retryable = true;
        self
    }

    fn details(&mut self) -> &mut Details {
        Arc::make_mut(&mut self.0)
    }
}

fn kind_of(code: ErrorCode) -> ErrorKind {
    match code {
        ErrorCode::UnknownTopicOrPartition => ErrorKind::TopicNotFound,
        ErrorCode::OffsetOutOfRange => ErrorKind::OffsetOutOfRange,
        ErrorCode::CorruptMessage | ErrorCode::Damaged => ErrorKind::Corrupt,
        ErrorCode::MessageTooLarge => ErrorKind::MessageTooLarge,
        ErrorCode::TopicAlreadyExists => ErrorKind::TopicAlreadyExists,
        ErrorCode::InvalidTopicName
        | ErrorCode::InvalidPartitions
        | ErrorCode::InvalidReplicationFactor
        | ErrorCode::InvalidConfig
        | ErrorCode::InvalidRequest
        | ErrorCode::InvalidRecord
        | ErrorCode::InvalidDurability
        | ErrorCode::OutOfOrderSequence
        | ErrorCode::InvalidProducerEpoch => ErrorKind::InvalidRequest,
        ErrorCode::UnsupportedVersion | ErrorCode::UnsupportedApi => ErrorKind::UnsupportedVersion,
        ErrorCode::NotLeader
        | ErrorCode::LeaderNotAvailable
        | ErrorCode::NotController
        | ErrorCode::FencedLeaderEpoch
        | ErrorCode::UnknownLeaderEpoch => ErrorKind::NotLeader,
        ErrorCode::RequestTimedOut => ErrorKind::Timeout,
        ErrorCode::StorageError | ErrorCode::DiskFull => ErrorKind::Storage,
        ErrorCode::LogFenced => ErrorKind::Fenced,
        ErrorCode::Busy => ErrorKind::Busy,
        ErrorCode::ShuttingDown => ErrorKind::Disconnected,
        ErrorCode::UnexpectedEndOffset => ErrorKind::UnexpectedEndOffset,
        ErrorCode::PolicyViolation | ErrorCode::AuthenticationRequired | ErrorCode::NotAuthorized => {
            ErrorKind::Refused
        }
        _ => ErrorKind::Internal,
    }
}

/// Text from outside must not break the promise of one line.
fn one_line(text: String) -> String {
    if text.contains(|c: char| c.is_control()) { text.replace(|c: char| c.is_control(), " ") } else { text }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let details = &*self.0;
        f.write_str(details.operation)?;
        if let Some(topic) = &details.topic {
            write!(f, " {topic}")?;
        }
        if let Some(partition) = details.partition {
            write!(f, "/{partition}")?;
        }
        if let Some(broker) = &details.broker {
            write!(f, " at {broker}")?;
        }
        f.write_str(" failed")?;
        if details.attempts > 0 {
            let plural = if details.attempts == 1 { "" } else { "s" };
            write!(f, " after {} attempt{plural}", details.attempts)?;
        }
        if let Some(elapsed) = details.elapsed {
            write!(f, " in {:.3} s", elapsed.as_secs_f64())?;
        }
        write!(f, ": {}", details.cause)?;
        if details.maybe_applied {
            f.write_str(" (may have been applied)")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}, {self})", self.0.kind)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_everything_on_one_line() {
        let error = Error::new(ErrorKind::Timeout, "produce", "connection\nreset")
            .topic("orders")
            .partition(3)
            .broker(Some("127.0.0.1:7400"))
            .after(4, Duration::from_millis(1204))
            .applied_maybe(true);
        assert_eq!(
            error.to_string(),
            "produce orders/3 at 127.0.0.1:7400 failed after 4 attempts in 1.204 s: connection reset \
             (may have been applied)"
        );
        assert_eq!(error.concerns_partition(), Some(3));
        assert!(error.is_retryable());
        assert!(error.maybe_applied());
    }

    #[test]
    fn a_brokers_answer_keeps_its_code() {
        let error = Error::from_code(ErrorCode::OffsetOutOfRange, "fetch", Some("asked 9, log holds [2, 7)"));
        assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
        assert_eq!(error.broker_code(), Some(ErrorCode::OffsetOutOfRange));
        assert_eq!(error.to_string(), "fetch failed: asked 9, log holds [2, 7)");
        assert!(!error.is_retryable());
        assert!(!error.leaves_doubt());
    }

    #[test]
    fn a_broker_that_stops_may_have_done_it() {
        let error = Error::from_code(ErrorCode::ShuttingDown, "add partitions", None);
        assert!(error.is_retryable());
        assert!(error.leaves_doubt());
    }
}
