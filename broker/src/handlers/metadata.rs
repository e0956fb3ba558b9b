//! Metadata: nodes, topics, and which shard to speak to for each partition.

use std::collections::BTreeSet;
use std::rc::Rc;

use corrente_protocol::api::{
    MetadataRequest, MetadataResponse, NodeEndpoint, PartitionMetadata, TopicMetadata,
};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{NodeId, PartitionIndex, ShardId, TopicId, TopicName, TopicPartition};
use corrente_replication::metadata::{Partition, Topic};

use crate::shard::Shard;
use crate::topology::Directory;

/// Answers from the directory at hand; asks nobody.
pub async fn answer(shard: Rc<Shard>, request: MetadataRequest) -> MetadataResponse {
    let directory = shard.directory();
    let image = &directory.image;
    let topics = match request.topics {
        None => image.topics().map(|topic| describe(&directory, topic)).collect(),
        Some(names) => BTreeSet::from_iter(names).into_iter().map(|name| find(&directory, name)).collect(),
    };
    let nodes = image.brokers().map(|broker| NodeEndpoint {
        node: broker.node,
        host: broker.host.clone(),
        port: broker.port,
        shards: broker.shards,
    });
    MetadataResponse {
        cluster_id: image.cluster().unwrap_or_default(),
        metadata_version: image.end_offset().0,
        controller: shard.node,
        nodes: nodes.collect(),
        topics,
    }
}

fn find(directory: &Directory, name: TopicName) -> TopicMetadata {
    match directory.image.topic_by_name(&name) {
        Some(topic) => describe(directory, topic),
        None => TopicMetadata {
            id: TopicId([0; 16]),
            error: ErrorCode::UnknownTopicOrPartition,
            message: Some(format!("topic '{name}' does not exist")),
            partitions: Vec::new(),
            name,
        },
    }
}

fn describe(directory: &Directory, topic: &Topic) -> TopicMetadata {
    let partitions = topic.partitions().iter().zip(0..).map(|(partition, index)| {
        let index = PartitionIndex(index);
        describe_partition(directory, TopicPartition { topic: topic.id(), partition: index }, partition)
    });
    TopicMetadata {
        name: topic.name().clone(),
        id: topic.id(),
        error: ErrorCode::None,
        message: None,
        partitions: partitions.collect(),
    }
}

fn describe_partition(directory: &Directory, id: TopicPartition, partition: &Partition) -> PartitionMetadata {
    let error = match partition.leader {
        Some(_) => ErrorCode::None,
        None => ErrorCode::LeaderNotAvailable,
    };
    PartitionMetadata {
        index: id.partition,
        error,
        leader: partition.leader.unwrap_or(NodeId::NONE),
        shard: directory.home(id).unwrap_or(ShardId::ANY),
        leader_epoch: partition.leader_epoch,
        replicas: partition.replicas.clone(),
        isr: partition.isr.clone(),
    }
}
