//! The protobuf messages behind the metadata records: tags and wire types, nothing else.
//!
//! A tag, once released, keeps its meaning for ever. A new field takes a new tag and a default that means
//! what its absence meant; older brokers skip it. A new *kind* is refused by older brokers.

/// The envelope: exactly one kind.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Envelope {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub(super) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Kind {
    #[prost(message, tag = "1")]
    Topic(Topic),
    #[prost(message, tag = "2")]
    RemoveTopic(RemoveTopic),
    #[prost(message, tag = "3")]
    TopicConfig(TopicConfig),
    #[prost(message, tag = "4")]
    Partition(Partition),
    #[prost(message, tag = "5")]
    BrokerRegistration(BrokerRegistration),
    #[prost(message, tag = "6")]
    ClusterIdentity(ClusterIdentity),
    #[prost(message, tag = "7")]
    ProducerIds(ProducerIds),
}

/// Tags of the envelope that this version knows: those of [`Kind`].
pub(super) const KNOWN_KINDS: std::ops::RangeInclusive<u64> = 1..=7;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ConfigEntry {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Topic {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) id: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) configs: Vec<ConfigEntry>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RemoveTopic {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) id: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TopicConfig {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) id: Vec<u8>,
    #[prost(message, repeated, tag = "2")]
    pub(super) set: Vec<ConfigEntry>,
    #[prost(string, repeated, tag = "3")]
    pub(super) unset: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Partition {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) topic: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub(super) index: u32,
    #[prost(uint32, optional, tag = "3")]
    pub(super) leader: Option<u32>,
    #[prost(uint32, tag = "4")]
    pub(super) leader_epoch: u32,
    #[prost(uint32, tag = "5")]
    pub(super) partition_epoch: u32,
    #[prost(uint32, repeated, tag = "6")]
    pub(super) replicas: Vec<u32>,
    #[prost(uint32, repeated, tag = "7")]
    pub(super) isr: Vec<u32>,
    #[prost(uint32, repeated, tag = "8")]
    pub(super) elr: Vec<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct BrokerRegistration {
    #[prost(uint32, tag = "1")]
    pub(super) node: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) incarnation: Vec<u8>,
    #[prost(uint64, tag = "3")]
    pub(super) broker_epoch: u64,
    #[prost(string, tag = "4")]
    pub(super) host: String,
    #[prost(uint32, tag = "5")]
    pub(super) port: u32,
    #[prost(uint32, tag = "6")]
    pub(super) shards: u32,
    #[prost(bytes = "vec", repeated, tag = "7")]
    pub(super) data_dirs: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ClusterIdentity {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) cluster: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ProducerIds {
    #[prost(uint64, tag = "1")]
    pub(super) end: u64,
}
