//! List offsets: where a log begins and where its readable part ends.

use std::rc::Rc;

use corrente_protocol::api::{
    ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, OffsetSpec,
};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{LeaderEpoch, Offset, TopicPartition};

use crate::error::Refusal;
use crate::partition::Partition;
use crate::shard::Shard;

/// Answers for each partition in the order of the request.
pub async fn answer(shard: Rc<Shard>, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let mut partitions = Vec::with_capacity(request.partitions.len());
    for part in request.partitions {
        let id = TopicPartition { topic: part.topic, partition: part.partition };
        let found = shard.at_home(id, move |partition| async move { find(&partition, part.spec) });
        partitions.push(respond(id, found.await));
    }
    ListOffsetsResponse { partitions }
}

fn find(partition: &Partition, spec: OffsetSpec) -> Result<(Offset, LeaderEpoch), Refusal> {
    let offset = match spec {
        OffsetSpec::Earliest => partition.log().log_start_offset(),
        OffsetSpec::Latest => partition.high_watermark(),
        OffsetSpec::Timestamp(_) | OffsetSpec::MaxTimestamp => {
            let line = "offsets are not found by timestamp by this version; ask for earliest or latest";
            return Err(Refusal::new(ErrorCode::InvalidRequest, line));
        }
    };
    Ok((offset, partition.leader_epoch().unwrap_or(LeaderEpoch(0))))
}

fn respond(
    id: TopicPartition,
    found: Result<(Offset, LeaderEpoch), Refusal>,
) -> ListOffsetsPartitionResponse {
    let (error, message, (offset, leader_epoch)) = match found {
        Ok(found) => (ErrorCode::None, None, found),
        Err(refusal) => (refusal.code, Some(refusal.message), (Offset(0), LeaderEpoch(0))),
    };
    ListOffsetsPartitionResponse {
        topic: id.topic,
        partition: id.partition,
        error,
        message,
        offset,
        timestamp_ms: -1,
        leader_epoch,
    }
}
