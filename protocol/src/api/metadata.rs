//! The nodes of the cluster, its topics, and which shard of which node leads each partition.

use super::{ApiKey, Message, Request, put_message, read_error, read_message};
use crate::error_code::ErrorCode;
use crate::ids::{LeaderEpoch, NodeId, PartitionIndex, ShardId, TopicId, TopicName};
use crate::wire::{DecodeError, Reader, Writer};

/// Which topics to tell about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetadataRequest {
    /// The topics, or `None` for all of them. An empty list asks for the nodes alone.
    pub topics: Option<Vec<TopicName>>,
}

/// What the broker knows; all of one metadata version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetadataResponse {
    /// The cluster; drawn once when it was founded.
    pub cluster_id: [u8; 16],
    /// Grows with every change. An answer with a smaller one is older.
    pub metadata_version: u64,
    /// The node that decides, or [`NodeId::NONE`].
    pub controller: NodeId,
    /// The nodes that take requests at present.
    pub nodes: Vec<NodeEndpoint>,
    /// The topics: those asked for, in that order, or all, in the order of their names.
    pub topics: Vec<TopicMetadata>,
}

/// Where a node is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeEndpoint {
    /// The node.
    pub node: NodeId,
    /// Name or address to connect to.
    pub host: String,
    /// Port to connect to; the hello says which shard is wanted.
    pub port: u16,
    /// How many shards the node has, numbered from 0.
    pub shards: u16,
}

/// One topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicMetadata {
    /// Its name.
    pub name: TopicName,
    /// Its id, by which produce, fetch and list-offsets address it; [`TopicId::NIL`] with an error.
    pub id: TopicId,
    /// Why there is nothing to tell, or [`ErrorCode::None`].
    pub error: ErrorCode,
    /// More about the error.
    pub message: Option<String>,
    /// Its partitions, in order of their index.
    pub partitions: Vec<PartitionMetadata>,
}

/// One partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionMetadata {
    /// Its number within the topic.
    pub index: PartitionIndex,
    /// Why it cannot be used at present, or [`ErrorCode::None`].
    pub error: ErrorCode,
    /// The node that leads it, or [`NodeId::NONE`].
    pub leader: NodeId,
    /// The shard of that node to speak to.
    pub shard: ShardId,
    /// The leadership.
    pub leader_epoch: LeaderEpoch,
    /// The nodes that hold it.
    pub replicas: Vec<NodeId>,
    /// Those of them that are in sync.
    pub isr: Vec<NodeId>,
}

impl Request for MetadataRequest {
    const API: ApiKey = ApiKey::Metadata;
    type Response = MetadataResponse;
}

impl Message for MetadataRequest {
    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_option(self.topics.as_deref(), |w, topics| {
            w.put_list(topics, |w, name| w.put_str(name.as_str()));
        });
        writer.put_no_tags();
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<MetadataRequest, DecodeError> {
        let topics = reader.option(|r| r.list(4, read_topic_name))?;
        reader.tagged(|_, _| Ok(false))?;
        Ok(MetadataRequest { topics })
    }
}

fn read_topic_name(r: &mut Reader) -> Result<TopicName, DecodeError> {
    Ok(TopicName::new(&r.string()?)?)
}

impl Message for MetadataResponse {
    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_uuid(self.cluster_id);
        writer.put_u64(self.metadata_version);
        writer.put_u32(self.controller.0);
        writer.put_list(&self.nodes, |w, node| node.encode(w));
        writer.put_list(&self.topics, |w, topic| topic.encode(w));
        writer.put_no_tags();
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<MetadataResponse, DecodeError> {
        let response = MetadataResponse {
            cluster_id: reader.uuid()?,
            metadata_version: reader.u64()?,
            controller: NodeId(reader.u32()?),
            nodes: reader.list(NodeEndpoint::LEN_MIN, NodeEndpoint::read)?,
            topics: reader.list(TopicMetadata::LEN_MIN, TopicMetadata::read)?,
        };
        reader.tagged(|_, _| Ok(false))?;
        Ok(response)
    }
}

impl NodeEndpoint {
    const LEN_MIN: usize = 4 + 4 + 2 + 2 + 2;

    fn encode(&self, w: &mut Writer) {
        w.put_u32(self.node.0);
        w.put_str(&self.host);
        w.put_u16(self.port);
        w.put_u16(self.shards);
        w.put_no_tags();
    }

    fn read(r: &mut Reader) -> Result<NodeEndpoint, DecodeError> {
        let node =
            NodeEndpoint { node: NodeId(r.u32()?), host: r.string()?, port: r.u16()?, shards: r.u16()? };
        r.tagged(|_, _| Ok(false))?;
        Ok(node)
    }
}

impl TopicMetadata {
    const LEN_MIN: usize = 4 + 16 + 2 + 4 + 2;

    fn encode(&self, w: &mut Writer) {
        w.put_str(self.name.as_str());
        w.put_uuid(self.id.0);
        w.put_u16(self.error.code());
        w.put_list(&self.partitions, |w, partition| partition.encode(w));
        put_message(self.message.as_deref(), w);
    }

    fn read(r: &mut Reader) -> Result<TopicMetadata, DecodeError> {
        Ok(TopicMetadata {
            name: read_topic_name(r)?,
            id: TopicId(r.uuid()?),
            error: read_error(r)?,
            partitions: r.list(PartitionMetadata::LEN_MIN, PartitionMetadata::read)?,
            message: read_message(r)?,
        })
    }
}

impl PartitionMetadata {
    const LEN_MIN: usize = 4 + 2 + 4 + 2 + 4 + 4 + 4 + 2;

    fn encode(&self, w: &mut Writer) {
        w.put_u32(self.index.0);
        w.put_u16(self.error.code());
        w.put_u32(self.leader.0);
        w.put_u16(self.shard.0);
        w.put_u32(self.leader_epoch.0);
        w.put_list(&self.replicas, |w, node| w.put_u32(node.0));
        w.put_list(&self.isr, |w, node| w.put_u32(node.0));
        w.put_no_tags();
    }

    fn read(r: &mut Reader) -> Result<PartitionMetadata, DecodeError> {
        let partition = PartitionMetadata {
            index: PartitionIndex(r.u32()?),
            error: read_error(r)?,
            leader: NodeId(r.u32()?),
            shard: ShardId(r.u16()?),
            leader_epoch: LeaderEpoch(r.u32()?),
            replicas: r.list(4, |r| r.u32().map(NodeId))?,
            isr: r.list(4, |r| r.u32().map(NodeId))?,
        };
        r.tagged(|_, _| Ok(false))?;
        Ok(partition)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        any_error, any_message, any_name, any_nodes, any_text, any_topic, assert_survives,
    };
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    prop_compose! {
        fn any_node()(node: u32, host in any_text(), port: u16, shards: u16) -> NodeEndpoint {
            NodeEndpoint { node: NodeId(node), host, port, shards }
        }
    }

    prop_compose! {
        fn any_partition()(index: u32, error in any_error(), leader: u32, shard: u16, epoch: u32,
            replicas in any_nodes(), isr in any_nodes()) -> PartitionMetadata
        {
            PartitionMetadata {
                index: PartitionIndex(index), error, leader: NodeId(leader), shard: ShardId(shard),
                leader_epoch: LeaderEpoch(epoch), replicas, isr,
            }
        }
    }

    prop_compose! {
        fn any_topic_metadata()(name in any_name(), id in any_topic(), error in any_error(), message in any_message(),
            partitions in vec(any_partition(), 0..3)) -> TopicMetadata
        {
            TopicMetadata { name, id, error, message, partitions }
        }
    }

    #[test]
    fn a_name_that_is_none_is_refused_with_its_own_code() {
        let mut writer = Writer::new();
        writer.put_bool(true);
        writer.put_list(&["../../etc"], |w, name| w.put_str(name));
        writer.put_no_tags();
        let error = MetadataRequest::decode(0, bytes::Bytes::from(writer.finish().concat())).unwrap_err();
        assert_eq!(error.error_code(), ErrorCode::InvalidTopicName);
    }

    proptest! {
        #[test]
        fn request_survives(topics in proptest::option::of(vec(any_name(), 0..4))) {
            assert_survives(&MetadataRequest { topics });
        }

        #[test]
        fn response_survives(cluster_id: [u8; 16], metadata_version: u64, controller: u32,
            nodes in vec(any_node(), 0..3), topics in vec(any_topic_metadata(), 0..3))
        {
            assert_survives(&MetadataResponse {
                cluster_id, metadata_version, controller: NodeId(controller), nodes, topics,
            });
        }
    }
}
