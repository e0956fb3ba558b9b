//! The one map from what went wrong in here to what a client is told.

use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{ShardId, TopicPartition};
use corrente_replication::controller;
use corrente_storage::{AppendError, DeleteRecordsError, Fenced, ReadError, SequenceRefusal};

use crate::partition::{AppendRefusal, DeleteRefusal};
use crate::shard::ShardStopped;

/// Why a request, or one partition's part of it, was refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// For programs.
    pub code: ErrorCode,
    /// For people: one line.
    pub message: String,
}

impl Refusal {
    /// A refusal with one line about it.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into() }
    }
}

/// The partition is not known here.
pub fn unknown_partition(id: TopicPartition) -> Refusal {
    Refusal::new(ErrorCode::UnknownTopicOrPartition, format!("no partition {id} on this broker"))
}

/// A shard of this node has stopped.
pub fn stopped(shard: impl Into<ShardId>) -> Refusal {
    Refusal::new(ErrorCode::ShuttingDown, format!("shard {} has stopped", shard.into()))
}

impl From<ShardStopped> for ShardId {
    fn from(stopped: ShardStopped) -> ShardId {
        stopped.0
    }
}

impl From<AppendRefusal> for Refusal {
    fn from(refusal: AppendRefusal) -> Refusal {
        let code = match &refusal {
            AppendRefusal::Batch(error) => error.error_code(),
            AppendRefusal::Unkeyed { error, .. } => error.error_code(),
            AppendRefusal::UnexpectedEnd { .. } => ErrorCode::UnexpectedEndOffset,
            AppendRefusal::NotEnoughReplicas => ErrorCode::Busy,
            AppendRefusal::NotLeader => ErrorCode::NotLeader,
            AppendRefusal::Log(AppendError::Fenced(_)) => ErrorCode::LogFenced,
            AppendRefusal::Log(AppendError::TooLarge { .. }) => ErrorCode::MessageTooLarge,
            AppendRefusal::Log(AppendError::StaleEpoch { .. }) => ErrorCode::NotLeader,
            AppendRefusal::Log(AppendError::Empty | AppendError::OffsetsExhausted { .. }) => {
                ErrorCode::InvalidRequest
            }
            AppendRefusal::Log(AppendError::Sequence(SequenceRefusal::StaleEpoch { .. })) => {
                ErrorCode::InvalidProducerEpoch
            }
            AppendRefusal::Log(AppendError::Sequence(_)) => ErrorCode::OutOfOrderSequence,
            AppendRefusal::Log(AppendError::Quarantined { .. }) => ErrorCode::Damaged,
            AppendRefusal::Log(AppendError::DiskFull { .. }) => ErrorCode::DiskFull,
            AppendRefusal::Log(AppendError::Closed) => ErrorCode::ShuttingDown,
        };
        Refusal::new(code, refusal.to_string())
    }
}

impl From<DeleteRefusal> for Refusal {
    fn from(refusal: DeleteRefusal) -> Refusal {
        let code = match &refusal {
            DeleteRefusal::OnlyCompacted => ErrorCode::PolicyViolation,
            DeleteRefusal::BeyondHighWatermark { .. }
            | DeleteRefusal::Log(DeleteRecordsError::OutOfRange { .. }) => ErrorCode::OffsetOutOfRange,
            DeleteRefusal::NotLeader => ErrorCode::NotLeader,
            DeleteRefusal::Quarantined { .. } => ErrorCode::Damaged,
            DeleteRefusal::Fenced(_) => ErrorCode::LogFenced,
            DeleteRefusal::Log(DeleteRecordsError::Unavailable { .. } | DeleteRecordsError::Io { .. }) => {
                ErrorCode::StorageError
            }
        };
        Refusal::new(code, refusal.to_string())
    }
}

impl From<controller::Refusal> for Refusal {
    fn from(refusal: controller::Refusal) -> Refusal {
        Refusal { code: refusal.code, message: refusal.message }
    }
}

impl From<Fenced> for Refusal {
    fn from(fenced: Fenced) -> Refusal {
        Refusal::new(ErrorCode::LogFenced, fenced.to_string())
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Refusal {
        let code = match &error {
            ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            ReadError::Damaged { .. } => ErrorCode::Damaged,
            _ => ErrorCode::StorageError,
        };
        Refusal::new(code, error.to_string())
    }
}
