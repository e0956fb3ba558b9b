//! Brokers, topics, partitions and their leaders.

use super::{ApiKey, DecodeError, Fields, Message};

/// Stands where operations were not asked for, and where nothing restricts them.
pub const OPERATIONS_NOT_TOLD: i32 = i32::MIN;

/// Which topics to tell of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetadataRequest {
    /// Null for all; in version 0 an empty list means the same.
    pub topics: Option<Vec<MetadataRequestTopic>>,
    /// Whether a topic that is missing may be created; always before version 4.
    pub allow_auto_topic_creation: bool,
    /// Whether to tell what the client may do with the cluster.
    pub include_cluster_authorized_operations: bool,
    /// Whether to tell what the client may do with each topic.
    pub include_topic_authorized_operations: bool,
}

impl Default for MetadataRequest {
    fn default() -> MetadataRequest {
        MetadataRequest {
            topics: None,
            allow_auto_topic_creation: true,
            include_cluster_authorized_operations: false,
            include_topic_authorized_operations: false,
        }
    }
}

/// One topic asked for.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct MetadataRequestTopic {
    /// Its id, or zeros.
    pub id: [u8; 16],
    /// Its name, if the id is not given.
    pub name: Option<String>,
}

/// The cluster as it is.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct MetadataResponse {
    /// How long the broker held the answer back, in ms.
    pub throttle_ms: i32,
    /// Every broker.
    pub brokers: Vec<MetadataBroker>,
    /// The cluster's id.
    pub cluster_id: Option<String>,
    /// The broker that takes changes of the metadata, or -1.
    pub controller_id: i32,
    /// The topics asked for.
    pub topics: Vec<MetadataTopic>,
    /// What the client may do with the cluster, as bits.
    pub cluster_authorized_operations: i32,
    /// What concerns the whole request.
    pub error: i16,
}

/// A broker and where it is reached.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct MetadataBroker {
    /// Its id.
    pub node_id: i32,
    /// Host.
    pub host: String,
    /// Port.
    pub port: i32,
    /// Where it stands.
    pub rack: Option<String>,
}

/// A topic.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct MetadataTopic {
    /// 0, or why it cannot be told of.
    pub error: i16,
    /// Its name; null only if it was asked for by an id that nobody knows.
    pub name: Option<String>,
    /// Its id.
    pub id: [u8; 16],
    /// Whether it belongs to the broker itself.
    pub is_internal: bool,
    /// In the order of their indexes.
    pub partitions: Vec<MetadataPartition>,
    /// What the client may do with it, as bits.
    pub authorized_operations: i32,
}

/// A partition.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct MetadataPartition {
    /// 0, or why it cannot be used.
    pub error: i16,
    /// Which one.
    pub index: i32,
    /// The broker that leads it, or -1.
    pub leader_id: i32,
    /// The epoch of that leadership.
    pub leader_epoch: i32,
    /// Who holds it.
    pub replicas: Vec<i32>,
    /// Who of those is in sync.
    pub isr: Vec<i32>,
    /// Who of those is gone.
    pub offline_replicas: Vec<i32>,
}

impl Message for MetadataRequest {
    const API: ApiKey = ApiKey::Metadata;

    fn walk<F: Fields>(&mut self, version: i16, fields: &mut F) -> Result<(), DecodeError> {
        fields.nullable_list(&mut self.topics, |topic, fields| {
            if version >= 10 {
                fields.uuid(&mut topic.id)?;
                fields.nullable_string(&mut topic.name)?;
            } else {
                fields.string(topic.name.get_or_insert_default())?;
            }
            fields.tags()
        })?;
        if version == 0 {
            self.topics.take_if(|topics| topics.is_empty());
        }
        if version >= 4 {
            fields.bool(&mut self.allow_auto_topic_creation)?;
        }
        if (8..=10).contains(&version) {
            fields.bool(&mut self.include_cluster_authorized_operations)?;
        }
        if version >= 8 {
            fields.bool(&mut self.include_topic_authorized_operations)?;
        }
        fields.tags()
    }
}

impl Message for MetadataResponse {
    const API: ApiKey = ApiKey::Metadata;

    fn walk<F: Fields>(&mut self, version: i16, fields: &mut F) -> Result<(), DecodeError> {
        if version >= 3 {
            fields.i32(&mut self.throttle_ms)?;
        }
        fields.list(&mut self.brokers, |broker, fields| {
            fields.i32(&mut broker.node_id)?;
            fields.string(&mut broker.host)?;
            fields.i32(&mut broker.port)?;
            if version >= 1 {
                fields.nullable_string(&mut broker.rack)?;
            }
            fields.tags()
        })?;
        if version >= 2 {
            fields.nullable_string(&mut self.cluster_id)?;
        }
        if version >= 1 {
            fields.i32(&mut self.controller_id)?;
        }
        fields.list(&mut self.topics, |topic, fields| topic.walk(version, fields))?;
        if (8..=10).contains(&version) {
            fields.i32(&mut self.cluster_authorized_operations)?;
        }
        if version >= 13 {
            fields.i16(&mut self.error)?;
        }
        fields.tags()
    }
}

impl MetadataTopic {
    fn walk<F: Fields>(&mut self, version: i16, fields: &mut F) -> Result<(), DecodeError> {
        fields.i16(&mut self.error)?;
        if version >= 12 {
            fields.nullable_string(&mut self.name)?;
        } else {
            fields.string(self.name.get_or_insert_default())?;
        }
        if version >= 10 {
            fields.uuid(&mut self.id)?;
        }
        if version >= 1 {
            fields.bool(&mut self.is_internal)?;
        }
        fields.list(&mut self.partitions, |partition, fields| partition.walk(version, fields))?;
        if version >= 8 {
            fields.i32(&mut self.authorized_operations)?;
        }
        fields.tags()
    }
}

impl MetadataPartition {
    fn walk<F: Fields>(&mut self, version: i16, fields: &mut F) -> Result<(), DecodeError> {
        fields.i16(&mut self.error)?;
        fields.i32(&mut self.index)?;
        fields.i32(&mut self.leader_id)?;
        if version >= 7 {
            fields.i32(&mut self.leader_epoch)?;
        }
        fields.list(&mut self.replicas, |node, fields| fields.i32(node))?;
        fields.list(&mut self.isr, |node, fields| fields.i32(node))?;
        if version >= 5 {
            fields.list(&mut self.offline_replicas, |node, fields| fields.i32(node))?;
        }
        fields.tags()
    }
}
