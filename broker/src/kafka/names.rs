//! How Kafka names brokers, topics and partitions, and what that is here.

use corrente_protocol::ids::{NodeId, PartitionIndex, TopicId, TopicName};
use corrente_protocol::kafka::{IDS_FROM, KafkaError};
use corrente_replication::metadata::{Image, Topic};

use crate::shard::Shard;

/// How a request names a topic.
#[derive(Clone, Copy)]
pub enum Named<'a> {
    /// By its name.
    Name(&'a str),
    /// By its id.
    Id(TopicId),
}

impl Named<'_> {
    /// As Produce and Fetch do in this version.
    pub fn in_version(version: i16, name: &str, id: [u8; 16]) -> Named<'_> {
        if version >= IDS_FROM { Named::Id(TopicId(id)) } else { Named::Name(name) }
    }
}

/// The topic, if there is one.
pub fn find_topic(shard: &Shard, named: Named<'_>) -> Result<TopicId, KafkaError> {
    find_in(&shard.directory().image, named).map(Topic::id)
}

/// The same in an image at hand.
pub fn find_in<'a>(image: &'a Image, named: Named<'_>) -> Result<&'a Topic, KafkaError> {
    match named {
        Named::Id(id) => image.topic(id).ok_or(KafkaError::UnknownTopicId),
        Named::Name(name) => {
            let name = TopicName::new(name).map_err(|_| KafkaError::InvalidTopic)?;
            image.topic_by_name(&name).ok_or(KafkaError::UnknownTopicOrPartition)
        }
    }
}

/// A partition's number; Kafka's are signed.
pub fn index_of(index: i32) -> Result<PartitionIndex, KafkaError> {
    u32::try_from(index).map(PartitionIndex).map_err(|_| KafkaError::UnknownTopicOrPartition)
}

/// Kafka's node ids are signed.
pub fn node_id(node: NodeId) -> i32 {
    node.0.cast_signed()
}
