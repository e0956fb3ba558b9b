//! Delete records: raise the log start offset of partitions, each on its home.

use std::rc::Rc;

use corrente_protocol::api::{DeleteRecordsPartitionResponse, DeleteRecordsRequest, DeleteRecordsResponse};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{Offset, TopicPartition};

use crate::error::Refusal;
use crate::shard::Shard;

/// Deletes in the order of the request; each partition succeeds or fails by itself.
pub async fn answer(shard: Rc<Shard>, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut partitions = Vec::with_capacity(request.partitions.len());
    for part in request.partitions {
        let id = TopicPartition { topic: part.topic, partition: part.partition };
        let deleted = shard
            .at_home(id, move |partition| async move { Ok(partition.delete_records(part.before).await?) });
        partitions.push(respond(id, deleted.await));
    }
    DeleteRecordsResponse { partitions }
}

fn respond(id: TopicPartition, deleted: Result<Offset, Refusal>) -> DeleteRecordsPartitionResponse {
    let (error, message, log_start_offset) = match deleted {
        Ok(log_start_offset) => (ErrorCode::None, None, log_start_offset),
        Err(refusal) => (refusal.code, Some(refusal.message), Offset::ZERO),
    };
    DeleteRecordsPartitionResponse {
        topic: id.topic,
        partition: id.partition,
        error,
        message,
        log_start_offset,
    }
}
