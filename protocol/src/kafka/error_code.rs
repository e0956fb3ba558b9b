//! Kafka's numbers for what can go wrong, and which of them stands for each of ours.

use crate::error_code::ErrorCode;

macro_rules! kafka_errors {
    ($($name:ident = $number:literal, $meaning:literal;)*) => {
        /// An error as Kafka numbers it (Apache Kafka, `org.apache.kafka.common.protocol.Errors`).
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(i16)]
        pub enum KafkaError {
            $(
                #[doc = $meaning]
                $name = $number,
            )*
        }
    };
}

kafka_errors! {
    UnknownServerError = -1, "something that has no number of its own";
    None = 0, "no error";
    OffsetOutOfRange = 1, "the offset is not in the log";
    CorruptMessage = 2, "a batch is damaged";
    UnknownTopicOrPartition = 3, "this broker does not know the topic or the partition";
    LeaderNotAvailable = 5, "the partition has no leader at present";
    NotLeaderOrFollower = 6, "this broker does not lead the partition";
    RequestTimedOut = 7, "it took too long, or there was no room for it in time";
    MessageTooLarge = 10, "a batch is larger than allowed";
    CoordinatorLoadInProgress = 14, "what is asked for is not ready; the same broker is to be asked again";
    CoordinatorNotAvailable = 15, "there is no coordinator";
    InvalidTopic = 17, "the name cannot be a topic's";
    InvalidRequiredAcks = 21, "acks is neither -1, 0 nor 1";
    ClusterAuthorizationFailed = 31, "the principal may not do this";
    UnsupportedVersion = 35, "the version is not served";
    TopicAlreadyExists = 36, "there is a topic of this name already";
    InvalidPartitions = 37, "the number of partitions is not possible";
    InvalidReplicationFactor = 38, "the number of replicas is not possible";
    InvalidReplicaAssignment = 39, "the replicas named are not possible";
    InvalidConfig = 40, "a config is unknown or its value not possible";
    NotController = 41, "this broker is not the controller";
    InvalidRequest = 42, "the request contradicts itself";
    PolicyViolation = 44, "a policy does not allow it";
    OutOfOrderSequenceNumber = 45, "a batch of an idempotent producer does not follow the last one";
    InvalidProducerEpoch = 47, "a batch of an idempotent producer has an earlier epoch";
    TransactionalIdAuthorizationFailed = 53, "no transactions with this id";
    StorageError = 56, "the disk failed, is full or damaged";
    SaslAuthenticationFailed = 58, "the connection has to authenticate first";
    FetchSessionIdNotFound = 70, "there is no such fetch session";
    InvalidFetchSessionEpoch = 71, "the fetch session is at another epoch";
    FencedLeaderEpoch = 74, "the leader epoch is older than the broker's";
    UnknownLeaderEpoch = 75, "the leader epoch is newer than the broker's";
    InvalidRecord = 87, "a batch is intact and not acceptable";
    UnknownTopicId = 100, "this broker knows no topic of this id";
}

impl KafkaError {
    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }
}

impl From<ErrorCode> for KafkaError {
    /// Errors that pass by themselves become ones that clients try again after.
    fn from(code: ErrorCode) -> KafkaError {
        match code {
            ErrorCode::None => KafkaError::None,
            ErrorCode::UnknownTopicOrPartition => KafkaError::UnknownTopicOrPartition,
            ErrorCode::OffsetOutOfRange => KafkaError::OffsetOutOfRange,
            ErrorCode::CorruptMessage | ErrorCode::Damaged => KafkaError::CorruptMessage,
            ErrorCode::MessageTooLarge => KafkaError::MessageTooLarge,
            ErrorCode::InvalidTopicName => KafkaError::InvalidTopic,
            ErrorCode::TopicAlreadyExists => KafkaError::TopicAlreadyExists,
            ErrorCode::InvalidPartitions => KafkaError::InvalidPartitions,
            ErrorCode::InvalidReplicationFactor => KafkaError::InvalidReplicationFactor,
            ErrorCode::InvalidConfig => KafkaError::InvalidConfig,
            ErrorCode::InvalidRequest | ErrorCode::UnexpectedEndOffset | ErrorCode::InvalidDurability => {
                KafkaError::InvalidRequest
            }
            ErrorCode::UnsupportedVersion | ErrorCode::UnsupportedApi => KafkaError::UnsupportedVersion,
            ErrorCode::NotLeader | ErrorCode::ShuttingDown => KafkaError::NotLeaderOrFollower,
            ErrorCode::LeaderNotAvailable => KafkaError::LeaderNotAvailable,
            ErrorCode::RequestTimedOut | ErrorCode::Busy => KafkaError::RequestTimedOut,
            ErrorCode::StorageError | ErrorCode::LogFenced | ErrorCode::DiskFull => KafkaError::StorageError,
            ErrorCode::InvalidRecord => KafkaError::InvalidRecord,
            ErrorCode::OutOfOrderSequence => KafkaError::OutOfOrderSequenceNumber,
            ErrorCode::InvalidProducerEpoch => KafkaError::InvalidProducerEpoch,
            ErrorCode::NotController => KafkaError::NotController,
            ErrorCode::PolicyViolation => KafkaError::PolicyViolation,
            ErrorCode::FencedLeaderEpoch => KafkaError::FencedLeaderEpoch,
            ErrorCode::UnknownLeaderEpoch => KafkaError::UnknownLeaderEpoch,
            ErrorCode::AuthenticationRequired => KafkaError::SaslAuthenticationFailed,
            ErrorCode::NotAuthorized => KafkaError::ClusterAuthorizationFailed,
            ErrorCode::Internal | ErrorCode::Unknown(_) => KafkaError::UnknownServerError,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_number() {
        for code in ErrorCode::ALL.iter().copied().filter(|code| *code != ErrorCode::None) {
            assert_ne!(KafkaError::from(code), KafkaError::None, "{code:?}");
        }
    }
}
