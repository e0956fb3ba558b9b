//! Metadata: brokers and topics as Kafka's clients see them, and topics made because somebody asked for them.

use std::rc::Rc;

use corrente_protocol::api::CreateTopicRequest;
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{NodeId, TopicId, TopicName};
use corrente_protocol::kafka::KafkaError;
use corrente_protocol::kafka::metadata::{
    MetadataBroker, MetadataPartition, MetadataRequest, MetadataRequestTopic, MetadataResponse,
    MetadataTopic, OPERATIONS_NOT_TOLD,
};
use corrente_replication::metadata::{Image, Partition, Topic};

use crate::handlers::topic;
use crate::shard::Shard;

/// How a request names a topic.
#[derive(Clone, Copy)]
pub(super) enum Named<'a> {
    /// By its name.
    Name(&'a str),
    /// By its id.
    Id(TopicId),
}

impl Named<'_> {
    /// Requests have either; where the version has no ids, they are zeros.
    pub(super) fn of_topic(name: &str, id: [u8; 16]) -> Named<'_> {
        if id == [0; 16] { Named::Name(name) } else { Named::Id(TopicId(id)) }
    }
}

/// The topic, if there is one.
pub(super) fn find_topic(shard: &Shard, named: Named<'_>) -> Result<TopicId, KafkaError> {
    find_in(&shard.directory().image, named).map(Topic::id)
}

fn find_in<'a>(image: &'a Image, named: Named<'_>) -> Result<&'a Topic, KafkaError> {
    match named {
        Named::Id(id) => image.topic(id).ok_or(KafkaError::UnknownTopicId),
        Named::Name(name) => {
            let name = TopicName::new(name).map_err(|_| KafkaError::InvalidTopic)?;
            image.topic_by_name(&name).ok_or(KafkaError::UnknownTopicOrPartition)
        }
    }
}

/// Answers from the directory at hand, once the topics that may be made are there.
pub async fn answer(shard: Rc<Shard>, request: MetadataRequest) -> MetadataResponse {
    let topics = match request.topics {
        None => shard.directory().image.topics().map(describe).collect(),
        Some(asked) => {
            let mut topics = Vec::with_capacity(asked.len());
            for topic in asked {
                topics.push(describe_one(&shard, topic, request.allow_auto_topic_creation).await);
            }
            topics
        }
    };
    let node = node_id(shard.node);
    let (host, port) = shard.kafka_endpoint().clone();
    MetadataResponse {
        throttle_ms: 0,
        brokers: vec![MetadataBroker { node_id: node, host, port: port.into(), rack: None }],
        cluster_id: shard.directory().image.cluster().map(|cluster| TopicId(cluster).to_string()),
        controller_id: node,
        topics,
        cluster_authorized_operations: OPERATIONS_NOT_TOLD,
        error: KafkaError::None.code(),
    }
}

async fn describe_one(shard: &Rc<Shard>, asked: MetadataRequestTopic, may_create: bool) -> MetadataTopic {
    let MetadataRequestTopic { id, name } = asked;
    let named = match &name {
        Some(name) => Named::Name(name),
        None => Named::Id(TopicId(id)),
    };
    if let (Named::Name(name), true) = (named, may_create && shard.config.kafka.auto_create_topics) {
        create_if_missing(shard, name).await;
    }
    match find_in(&shard.directory().image, named) {
        Ok(topic) => describe(topic),
        Err(error) => MetadataTopic {
            error: error.code(),
            name,
            id,
            authorized_operations: OPERATIONS_NOT_TOLD,
            ..MetadataTopic::default()
        },
    }
}

/// What cannot be made is missing still, and answered so.
async fn create_if_missing(shard: &Rc<Shard>, name: &str) {
    if !matches!(find_topic(shard, Named::Name(name)), Err(KafkaError::UnknownTopicOrPartition)) {
        return;
    }
    let request = CreateTopicRequest {
        name: name.to_owned(),
        partitions: shard.config.kafka.auto_create_partitions,
        replication_factor: 0,
        configs: Vec::new(),
        validate_only: false,
    };
    let created = topic::create(shard.clone(), request).await;
    match created.error {
        ErrorCode::None => tracing::info!(topic = name, "topic made, for a client asked for it"),
        ErrorCode::TopicAlreadyExists => {}
        error => {
            let reason = created.message.unwrap_or_else(|| error.to_string());
            tracing::warn!(topic = name, reason, "a topic that a client asked for could not be made");
        }
    }
}

fn describe(topic: &Topic) -> MetadataTopic {
    let partitions = topic.partitions().iter().zip(0..);
    MetadataTopic {
        error: KafkaError::None.code(),
        name: Some(topic.name().to_string()),
        id: topic.id().0,
        is_internal: false,
        partitions: partitions.map(|(partition, index)| describe_partition(partition, index)).collect(),
        authorized_operations: OPERATIONS_NOT_TOLD,
    }
}

fn describe_partition(partition: &Partition, index: i32) -> MetadataPartition {
    let nodes = |nodes: &[NodeId]| nodes.iter().copied().map(node_id).collect();
    let error = match partition.leader {
        Some(_) => KafkaError::None,
        None => KafkaError::LeaderNotAvailable,
    };
    MetadataPartition {
        error: error.code(),
        index,
        leader_id: partition.leader.map_or(-1, node_id),
        leader_epoch: partition.leader_epoch.0.cast_signed(),
        replicas: nodes(&partition.replicas),
        isr: nodes(&partition.isr),
        offline_replicas: Vec::new(),
    }
}

/// Kafka's node ids are signed.
pub(super) fn node_id(node: NodeId) -> i32 {
    node.0.cast_signed()
}
