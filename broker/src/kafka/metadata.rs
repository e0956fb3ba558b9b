//! Metadata: brokers and topics as Kafka's clients see them, and topics made because somebody asked for them.

use std::collections::BTreeSet;
use std::rc::Rc;

use corrente_protocol::api::CreateTopicRequest;
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{NodeId, TopicId};
use corrente_protocol::kafka::KafkaError;
use corrente_protocol::kafka::metadata::{
    MetadataBroker, MetadataPartition, MetadataRequest, MetadataResponse, MetadataTopic, OPERATIONS_NOT_TOLD,
};
use corrente_replication::metadata::{Partition, Topic};
use corrente_runtime::executor::yield_if_needed;

use super::names::{Named, find_in, find_topic, node_id};
use crate::handlers::topic;
use crate::shard::Shard;

/// Answers from the directory at hand, once the topics that may be made are there.
pub async fn answer(shard: Rc<Shard>, request: MetadataRequest) -> MetadataResponse {
    let topics = match request.topics {
        None => shard.directory().image.topics().map(describe).collect(),
        Some(asked) => {
            // Each once, however often it was named: what is answered is not larger than what there is.
            let distinct: BTreeSet<(Option<String>, [u8; 16])> =
                asked.into_iter().map(|topic| (topic.name, topic.id)).collect();
            let mut topics = Vec::with_capacity(distinct.len());
            for (name, id) in distinct {
                topics.push(describe_one(&shard, name, id, request.allow_auto_topic_creation).await);
                yield_if_needed().await;
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

async fn describe_one(
    shard: &Rc<Shard>,
    name: Option<String>,
    id: [u8; 16],
    may_create: bool,
) -> MetadataTopic {
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
