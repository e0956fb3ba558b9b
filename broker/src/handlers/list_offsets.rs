//! List offsets: where a log begins and where its readable part ends.

use std::rc::Rc;

use corrente_protocol::api::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, OffsetSpec,
};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{LeaderEpoch, Offset, TopicPartition};

use crate::error::{Refusal, stopped, unknown_partition};
use crate::shard::{Place, Shard};

/// Answers for each partition in the order of the request.
pub async fn answer(shard: Rc<Shard>, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let mut partitions = Vec::with_capacity(request.partitions.len());
    for part in request.partitions {
        let id = TopicPartition { topic: part.topic, partition: part.partition };
        let found = match shard.place(id) {
            Place::Here(_) => find(&shard, &part),
            Place::There(home) => {
                let found = shard.run_at(home, move |home| async move { find(&home, &part) });
                found.await.unwrap_or_else(|gone| Err(stopped(gone)))
            }
            Place::Unknown => Err(unknown_partition(id)),
        };
        partitions.push(respond(id, found));
    }
    ListOffsetsResponse { partitions }
}

fn find(shard: &Shard, part: &ListOffsetsPartition) -> Result<(Offset, LeaderEpoch), Refusal> {
    let id = TopicPartition { topic: part.topic, partition: part.partition };
    let Place::Here(slot) = shard.place(id) else { return Err(unknown_partition(id)) };
    let partition = slot.serving()?;
    let offset = match part.spec {
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
