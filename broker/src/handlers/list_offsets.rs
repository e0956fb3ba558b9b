//! List offsets: where a log begins, where its readable part ends, and where a time stands in it.

use std::rc::Rc;

use corrente_protocol::api::{
    ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, OffsetSpec,
};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{LeaderEpoch, Offset, TopicPartition};
use corrente_storage::TimestampedOffset;

use crate::error::Refusal;
use crate::partition::Partition;
use crate::shard::Shard;

/// What stands where a timestamp was not asked for, or no record has a late enough one.
const NO_TIMESTAMP: i64 = -1;

/// Answers for each partition in the order of the request.
pub async fn answer(shard: Rc<Shard>, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let mut partitions = Vec::with_capacity(request.partitions.len());
    for part in request.partitions {
        let id = TopicPartition { topic: part.topic, partition: part.partition };
        let found = shard.at_home(id, move |partition| find(partition, part.spec));
        partitions.push(respond(id, found.await));
    }
    ListOffsetsResponse { partitions }
}

async fn find(partition: Rc<Partition>, spec: OffsetSpec) -> Result<TimestampedOffset, Refusal> {
    let log = partition.log();
    // Before the search: what is appended meanwhile is not passed over by an answer that nothing was found.
    let end = partition.high_watermark();
    let found = match spec {
        OffsetSpec::Earliest => return Ok(bare(&partition, log.log_start_offset())),
        OffsetSpec::Latest => None,
        OffsetSpec::Timestamp(at_ms) => log.offset_for_timestamp(at_ms, end).await?,
        OffsetSpec::MaxTimestamp => log.offset_of_max_timestamp(end).await?,
    };
    Ok(found.unwrap_or_else(|| bare(&partition, end)))
}

/// An offset at which no record was looked at.
fn bare(partition: &Partition, offset: Offset) -> TimestampedOffset {
    let leader_epoch = partition.leader_epoch().unwrap_or(LeaderEpoch(0));
    TimestampedOffset { offset, timestamp_ms: NO_TIMESTAMP, leader_epoch }
}

fn respond(id: TopicPartition, found: Result<TimestampedOffset, Refusal>) -> ListOffsetsPartitionResponse {
    let nothing =
        TimestampedOffset { offset: Offset(0), timestamp_ms: NO_TIMESTAMP, leader_epoch: LeaderEpoch(0) };
    let (error, message, found) = match found {
        Ok(found) => (ErrorCode::None, None, found),
        Err(refusal) => (refusal.code, Some(refusal.message), nothing),
    };
    ListOffsetsPartitionResponse {
        topic: id.topic,
        partition: id.partition,
        error,
        message,
        offset: found.offset,
        timestamp_ms: found.timestamp_ms,
        leader_epoch: found.leader_epoch,
    }
}
