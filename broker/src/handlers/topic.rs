//! Create, delete, alter, extend and describe topics.

use std::rc::Rc;

use corrente_protocol::api::{
    AddPartitionsRequest, AddPartitionsResponse, AlterTopicRequest, AlterTopicResponse, CreateTopicRequest,
    CreateTopicResponse, DeleteTopicRequest, DeleteTopicResponse, DescribeTopicRequest,
    DescribeTopicResponse, PartitionDescription, PartitionState, TopicConfigEntry,
};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{LeaderEpoch, PartitionIndex, ShardId, TopicId, TopicName, TopicPartition};
use corrente_replication::controller::Command;
use corrente_replication::topic_config::{SEGMENT_BYTES, effective_configs};
use corrente_storage::Health;

use crate::error::Refusal;
use crate::partition::Partition;
use crate::reconcile;
use crate::shard::Shard;

/// Creates a topic; answers once every partition can be written.
pub async fn create(shard: Rc<Shard>, request: CreateTopicRequest) -> CreateTopicResponse {
    let CreateTopicRequest { name, partitions, replication_factor, configs, validate_only } = request;
    let command = Command::CreateTopic { name: name.clone(), partitions, replication_factor, configs };
    let (error, message) = outcome(shard.controller.execute(command, validate_only).await);
    let id = if error == ErrorCode::None { topic_id(&shard, &name) } else { None };
    CreateTopicResponse { error, message, id: id.unwrap_or(TopicId([0; 16])) }
}

/// Deletes a topic and its records.
pub async fn delete(shard: Rc<Shard>, request: DeleteTopicRequest) -> DeleteTopicResponse {
    let command = Command::DeleteTopic { name: request.name, id: None };
    let (error, message) = outcome(shard.controller.execute(command, false).await);
    DeleteTopicResponse { error, message }
}

/// Deletes a topic if it still is the one with this id.
pub async fn delete_the_one(shard: &Rc<Shard>, name: String, id: TopicId) -> Result<(), Refusal> {
    shard.controller.execute(Command::DeleteTopic { name, id: Some(id) }, false).await
}

/// Changes a topic's configuration.
pub async fn alter(shard: Rc<Shard>, request: AlterTopicRequest) -> AlterTopicResponse {
    let AlterTopicRequest { name, set, unset, validate_only } = request;
    let command = Command::AlterTopic { name, set, unset };
    let (error, message) = outcome(shard.controller.execute(command, validate_only).await);
    AlterTopicResponse { error, message }
}

/// Gives a topic more partitions.
pub async fn add_partitions(shard: Rc<Shard>, request: AddPartitionsRequest) -> AddPartitionsResponse {
    let AddPartitionsRequest { name, total, validate_only } = request;
    let command = Command::AddPartitions { name, total };
    let (error, message) = outcome(shard.controller.execute(command, validate_only).await);
    AddPartitionsResponse { error, message }
}

fn outcome(result: Result<(), Refusal>) -> (ErrorCode, Option<String>) {
    match result {
        Ok(()) => (ErrorCode::None, None),
        Err(refusal) => (refusal.code, Some(refusal.message)),
    }
}

fn topic_id(shard: &Shard, name: &str) -> Option<TopicId> {
    let name = TopicName::new(name).ok()?;
    shard.directory().image.topic_by_name(&name).map(|topic| topic.id())
}

/// All that is known of one topic, asked of each partition's home.
pub async fn describe(shard: Rc<Shard>, request: DescribeTopicRequest) -> DescribeTopicResponse {
    let directory = shard.directory();
    let topic = TopicName::new(&request.name).ok().and_then(|name| directory.image.topic_by_name(&name));
    let Some(topic) = topic else {
        return DescribeTopicResponse {
            error: ErrorCode::UnknownTopicOrPartition,
            message: Some(format!("topic '{}' does not exist", request.name)),
            id: TopicId([0; 16]),
            configs: Vec::new(),
            partitions: Vec::new(),
        };
    };
    let replicas = topic.partitions().first().map_or(1, |partition| partition.replicas.len());
    let configs = effective_configs(topic.configs(), replicas).into_iter().map(|config| TopicConfigEntry {
        key: config.key.to_owned(),
        value: match config.key {
            // The one default that a node may set otherwise.
            SEGMENT_BYTES => reconcile::segment_bytes(&shard, topic).to_string(),
            _ => config.value,
        },
        is_default: config.is_default,
    });
    let configs = configs.collect();
    let mut partitions = Vec::with_capacity(topic.partitions().len());
    for index in (0..).take(topic.partitions().len()).map(PartitionIndex) {
        let id = TopicPartition { topic: topic.id(), partition: index };
        partitions.push(describe_partition(&shard, id).await);
    }
    DescribeTopicResponse { error: ErrorCode::None, message: None, id: topic.id(), configs, partitions }
}

async fn describe_partition(shard: &Rc<Shard>, id: TopicPartition) -> PartitionDescription {
    let described = shard.at_home(id, move |partition| async move { Ok(describe_served(&partition)) });
    let described = described.await.unwrap_or_else(|refusal| describe_unserved(id.partition, refusal));
    let home = shard.directory().home(id).unwrap_or(ShardId::ANY);
    PartitionDescription { leader: shard.node, shard: home, ..described }
}

/// Everything but where it was asked.
fn describe_served(partition: &Partition) -> PartitionDescription {
    let log = partition.log();
    let (state, error, reason) = match log.health() {
        Health::Sound => (PartitionState::Online, ErrorCode::None, None),
        Health::Fenced(reason) => (PartitionState::Fenced, ErrorCode::LogFenced, Some(reason)),
        Health::Quarantined(reason) => (PartitionState::Quarantined, ErrorCode::Damaged, Some(reason)),
    };
    PartitionDescription {
        leader_epoch: partition.leader_epoch().unwrap_or(LeaderEpoch(0)),
        log_start_offset: log.log_start_offset(),
        high_watermark: partition.high_watermark(),
        log_end_offset: log.log_end_offset(),
        size_bytes: log.size_bytes(),
        data_dir: log.dir().display().to_string(),
        error,
        state,
        reason: reason.map(|reason| reason.to_string()),
        ..PartitionDescription::nothing_known(partition.id.partition)
    }
}

fn describe_unserved(index: PartitionIndex, refusal: Refusal) -> PartitionDescription {
    PartitionDescription {
        error: refusal.code,
        state: PartitionState::Offline,
        reason: Some(refusal.message),
        ..PartitionDescription::nothing_known(index)
    }
}
