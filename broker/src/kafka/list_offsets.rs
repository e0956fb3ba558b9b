//! List offsets: translated to the native request and back.

use std::cmp::Ordering;
use std::rc::Rc;

use corrente_protocol::api::{self, ListOffsetsPartitionResponse, OffsetSpec};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{TopicId, TopicPartition};
use corrente_protocol::kafka::KafkaError;
use corrente_protocol::kafka::list_offsets::{
    EARLIEST, EARLIEST_LOCAL, FoundPartition, FoundTopic, LATEST, LATEST_TIERED, ListOffsetsPartition,
    ListOffsetsRequest, ListOffsetsResponse, MAX_TIMESTAMP,
};

use super::names::{Named, find_topic, index_of};
use crate::handlers::list_offsets;
use crate::shard::Shard;

/// Answers in the order of the request.
pub async fn answer(shard: Rc<Shard>, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let found = find_topic(&shard, Named::Name(&topic.name));
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let found = match found {
                Ok(id) => find(&shard, id, &partition).await,
                Err(error) => Err(error),
            };
            let index = partition.index;
            partitions.push(match found {
                Ok(found) => FoundPartition { index, ..found },
                Err(error) => FoundPartition { index, error: error.code(), ..FoundPartition::default() },
            });
        }
        topics.push(FoundTopic { name: topic.name, partitions });
    }
    ListOffsetsResponse { throttle_ms: 0, topics }
}

async fn find(
    shard: &Rc<Shard>,
    topic: TopicId,
    partition: &ListOffsetsPartition,
) -> Result<FoundPartition, KafkaError> {
    let index = index_of(partition.index)?;
    check_epoch(shard, TopicPartition { topic, partition: index }, partition.current_leader_epoch)?;
    let Some(spec) = spec_of(partition.timestamp_ms)? else { return Ok(FoundPartition::default()) };
    let asked = api::ListOffsetsPartition { topic, partition: index, spec };
    let request = api::ListOffsetsRequest { partitions: vec![asked] };
    let found = list_offsets::answer(shard.clone(), request).await.partitions.remove(0);
    match found.error {
        ErrorCode::None => Ok(translate(spec, &found)),
        error => Err(error.into()),
    }
}

/// A client that knows another leader epoch than this broker must learn of it before it believes an offset.
fn check_epoch(shard: &Shard, id: TopicPartition, known: i32) -> Result<(), KafkaError> {
    let Ok(known) = u32::try_from(known) else { return Ok(()) };
    let directory = shard.directory();
    let topic = directory.image.topic(id.topic).ok_or(KafkaError::UnknownTopicOrPartition)?;
    let partition = topic.partitions().get(id.partition.0 as usize);
    let current = partition.ok_or(KafkaError::UnknownTopicOrPartition)?.leader_epoch.0;
    match known.cmp(&current) {
        Ordering::Less => Err(KafkaError::FencedLeaderEpoch),
        Ordering::Equal => Ok(()),
        Ordering::Greater => Err(KafkaError::UnknownLeaderEpoch),
    }
}

/// Nothing lies in tiered storage, of which there is none.
fn spec_of(timestamp_ms: i64) -> Result<Option<OffsetSpec>, KafkaError> {
    match timestamp_ms {
        LATEST => Ok(Some(OffsetSpec::Latest)),
        EARLIEST | EARLIEST_LOCAL => Ok(Some(OffsetSpec::Earliest)),
        MAX_TIMESTAMP => Ok(Some(OffsetSpec::MaxTimestamp)),
        LATEST_TIERED => Ok(None),
        at_ms if at_ms >= 0 => Ok(Some(OffsetSpec::Timestamp(at_ms))),
        _ => Err(KafkaError::InvalidRequest),
    }
}

/// Where no record is late enough, Kafka names no offset; the native protocol names the end.
fn translate(spec: OffsetSpec, found: &ListOffsetsPartitionResponse) -> FoundPartition {
    let seeks_record = matches!(spec, OffsetSpec::Timestamp(_) | OffsetSpec::MaxTimestamp);
    if seeks_record && found.timestamp_ms < 0 {
        return FoundPartition::default();
    }
    FoundPartition {
        timestamp_ms: found.timestamp_ms,
        offset: found.offset.0.cast_signed(),
        leader_epoch: found.leader_epoch.0.cast_signed(),
        ..FoundPartition::default()
    }
}
