//! Metadata records: what the metadata log says, one fact each, and their bytes.
//!
//! Owns the typed records and their encoding: one version byte, then one protobuf envelope that holds
//! exactly one kind. Never decides whether a record is *right*: that is the image's door.
//!
//! The rule for strangers: an unknown **field** of a known kind is skipped (that is how records grow); an
//! unknown **kind** or version is refused, because a broker that skipped a fact would hold another image
//! than its peers and not know it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use corrente_protocol::ids::{LeaderEpoch, NodeId, PartitionIndex, TopicId, TopicName, TopicPartition};
use prost::Message as _;

use super::wire;

/// The version that this broker writes and the newest it reads.
pub const RECORD_VERSION: u8 = 1;

/// The longest encoded record in bytes; longer ones are refused before anything is allocated.
pub const RECORD_LEN_MAX: usize = 256 * 1024;

/// One fact of the metadata log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataRecord {
    /// A topic appears, without partitions; they follow in the same batch.
    Topic(TopicRecord),
    /// A topic and all its partitions vanish.
    RemoveTopic(RemoveTopicRecord),
    /// Configs of a topic change.
    TopicConfig(TopicConfigRecord),
    /// The whole state of one partition, new or changed.
    Partition(PartitionRecord),
    /// A broker is here, under this incarnation, at these endpoints.
    BrokerRegistration(BrokerRegistrationRecord),
    /// Which cluster this log belongs to; written once.
    ClusterIdentity(ClusterIdentityRecord),
    /// Producer ids are given out.
    ProducerIds(ProducerIdsRecord),
}

/// A topic appears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRecord {
    /// Its id, never used before.
    pub id: TopicId,
    /// Its name, free at this moment.
    pub name: TopicName,
    /// The configs that differ from the defaults, by key.
    pub configs: BTreeMap<String, String>,
}

/// A topic vanishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoveTopicRecord {
    /// Which one.
    pub id: TopicId,
}

/// Configs of a topic change. A key is in `set` or in `unset`, never in both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfigRecord {
    /// Which topic.
    pub id: TopicId,
    /// Keys with their new values.
    pub set: BTreeMap<String, String>,
    /// Keys that fall back to their defaults.
    pub unset: BTreeSet<String>,
}

/// The whole state of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRecord {
    /// Its topic.
    pub topic: TopicId,
    /// Its index: the number of the topic's partitions if it is new.
    pub index: PartitionIndex,
    /// Who leads; `None` while nobody may.
    pub leader: Option<NodeId>,
    /// Grows with every election, even of the same broker.
    pub leader_epoch: LeaderEpoch,
    /// Grows with every change of this partition: what a compare-and-set compares.
    pub partition_epoch: u32,
    /// Who holds it, preferred leader first.
    pub replicas: Vec<NodeId>,
    /// The in-sync replicas, a subset of `replicas`.
    pub isr: Vec<NodeId>,
    /// The eligible leader replicas outside the ISR (KIP-966).
    pub elr: Vec<NodeId>,
}

impl PartitionRecord {
    /// Its address.
    pub fn id(&self) -> TopicPartition {
        TopicPartition { topic: self.topic, partition: self.index }
    }
}

/// A broker is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerRegistrationRecord {
    /// Its node id.
    pub node: NodeId,
    /// Drawn at every start of the process.
    pub incarnation: [u8; 16],
    /// Grows with every registration of this node.
    pub broker_epoch: u64,
    /// The advertised host, at most 255 bytes.
    pub host: String,
    /// The advertised port.
    pub port: u16,
    /// How many shards it runs, at least one.
    pub shards: u16,
    /// The ids of its data directories.
    pub data_dirs: Vec<[u8; 16]>,
}

/// Which cluster this log belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterIdentityRecord {
    /// The id, drawn once when the cluster is formatted.
    pub cluster: [u8; 16],
}

/// Producer ids are given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerIdsRecord {
    /// One past the last id that was given out; at most `i64::MAX`.
    pub end: u64,
}

/// Why bytes are not a metadata record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No byte at all, or a version byte alone.
    #[error("metadata record of {len} bytes holds nothing")]
    Empty {
        /// Bytes given.
        len: usize,
    },
    /// Longer than [`RECORD_LEN_MAX`].
    #[error("metadata record of {len} bytes is longer than {RECORD_LEN_MAX}")]
    TooLong {
        /// Bytes given.
        len: usize,
    },
    /// Written by a newer broker.
    #[error("metadata record has version {found}, this broker reads up to {RECORD_VERSION}")]
    UnknownVersion {
        /// Version found.
        found: u8,
    },
    /// A kind that this broker does not know.
    #[error("metadata record of unknown kind {kind}, written by a newer broker")]
    UnknownKind {
        /// The tag of the kind.
        kind: u64,
    },
    /// The envelope does not hold exactly one kind.
    #[error("metadata record holds {found} bytes of one kind in an envelope of {len}")]
    NotOneKind {
        /// Bytes that the first kind and its key fill.
        found: u64,
        /// Bytes in the envelope.
        len: usize,
    },
    /// Not protobuf, or a field of another wire type.
    #[error("metadata record is malformed: {0}")]
    Malformed(String),
    /// A field holds what it may not.
    #[error("{kind} record: {field} {problem}")]
    Field {
        /// The record's kind.
        kind: &'static str,
        /// The field's name.
        field: &'static str,
        /// What is wrong, with both numbers.
        problem: String,
    },
}

impl MetadataRecord {
    /// The bytes: version, then the envelope. The same record always gives the same bytes.
    ///
    /// # Panics
    ///
    /// If the record is longer than [`RECORD_LEN_MAX`]: the controller bounds what it writes.
    pub fn encode(&self) -> Bytes {
        let envelope = wire::Envelope { kind: Some(self.to_wire()) };
        let mut bytes = Vec::with_capacity(1 + envelope.encoded_len());
        bytes.push(RECORD_VERSION);
        envelope.encode_raw(&mut bytes);
        assert!(
            bytes.len() <= RECORD_LEN_MAX,
            "metadata record of {} bytes is longer than {RECORD_LEN_MAX}",
            bytes.len()
        );
        Bytes::from(bytes)
    }

    /// Reads what [`encode`](Self::encode) wrote. Never panics, and allocates in proportion to `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let len = bytes.len();
        if len > RECORD_LEN_MAX {
            return Err(DecodeError::TooLong { len });
        }
        let Some((&version, body)) = bytes.split_first() else {
            return Err(DecodeError::Empty { len });
        };
        if version != RECORD_VERSION {
            return Err(DecodeError::UnknownVersion { found: version });
        }
        if body.is_empty() {
            return Err(DecodeError::Empty { len });
        }
        check_one_known_kind(body)?;
        let envelope = wire::Envelope::decode(body).map_err(malformed)?;
        let Some(kind) = envelope.kind else {
            return Err(DecodeError::Empty { len });
        };
        Self::from_wire(kind)
    }

    fn to_wire(&self) -> wire::Kind {
        match self {
            Self::Topic(r) => wire::Kind::Topic(wire::Topic {
                id: r.id.0.to_vec(),
                name: r.name.as_str().to_owned(),
                configs: to_entries(&r.configs),
            }),
            Self::RemoveTopic(r) => wire::Kind::RemoveTopic(wire::RemoveTopic { id: r.id.0.to_vec() }),
            Self::TopicConfig(r) => wire::Kind::TopicConfig(wire::TopicConfig {
                id: r.id.0.to_vec(),
                set: to_entries(&r.set),
                unset: r.unset.iter().cloned().collect(),
            }),
            Self::Partition(r) => wire::Kind::Partition(wire::Partition {
                topic: r.topic.0.to_vec(),
                index: r.index.0,
                leader: r.leader.map(|node| node.0),
                leader_epoch: r.leader_epoch.0,
                partition_epoch: r.partition_epoch,
                replicas: to_numbers(&r.replicas),
                isr: to_numbers(&r.isr),
                elr: to_numbers(&r.elr),
            }),
            Self::BrokerRegistration(r) => wire::Kind::BrokerRegistration(wire::BrokerRegistration {
                node: r.node.0,
                incarnation: r.incarnation.to_vec(),
                broker_epoch: r.broker_epoch,
                host: r.host.clone(),
                port: u32::from(r.port),
                shards: u32::from(r.shards),
                data_dirs: r.data_dirs.iter().map(|id| id.to_vec()).collect(),
            }),
            Self::ClusterIdentity(r) => {
                wire::Kind::ClusterIdentity(wire::ClusterIdentity { cluster: r.cluster.to_vec() })
            }
            Self::ProducerIds(r) => wire::Kind::ProducerIds(wire::ProducerIds { end: r.end }),
        }
    }

    fn from_wire(kind: wire::Kind) -> Result<Self, DecodeError> {
        Ok(match kind {
            wire::Kind::Topic(r) => Self::Topic(TopicRecord {
                id: TopicId(to_id("topic", "id", &r.id)?),
                name: TopicName::new(&r.name).map_err(|error| field("topic", "name", error.to_string()))?,
                configs: from_entries("topic", "configs", r.configs)?,
            }),
            wire::Kind::RemoveTopic(r) => {
                Self::RemoveTopic(RemoveTopicRecord { id: TopicId(to_id("remove topic", "id", &r.id)?) })
            }
            wire::Kind::TopicConfig(r) => Self::TopicConfig(TopicConfigRecord {
                id: TopicId(to_id("topic config", "id", &r.id)?),
                set: from_entries("topic config", "set", r.set)?,
                unset: r.unset.into_iter().collect(),
            }),
            wire::Kind::Partition(r) => Self::Partition(PartitionRecord {
                topic: TopicId(to_id("partition", "topic", &r.topic)?),
                index: PartitionIndex(r.index),
                leader: r.leader.map(NodeId),
                leader_epoch: LeaderEpoch(r.leader_epoch),
                partition_epoch: r.partition_epoch,
                replicas: r.replicas.into_iter().map(NodeId).collect(),
                isr: r.isr.into_iter().map(NodeId).collect(),
                elr: r.elr.into_iter().map(NodeId).collect(),
            }),
            wire::Kind::BrokerRegistration(r) => Self::BrokerRegistration(BrokerRegistrationRecord {
                node: NodeId(r.node),
                incarnation: to_id("broker registration", "incarnation", &r.incarnation)?,
                broker_epoch: r.broker_epoch,
                host: r.host,
                port: to_u16("port", r.port)?,
                shards: to_u16("shards", r.shards)?,
                data_dirs: r
                    .data_dirs
                    .iter()
                    .map(|id| to_id("broker registration", "data dir", id))
                    .collect::<Result<_, _>>()?,
            }),
            wire::Kind::ClusterIdentity(r) => Self::ClusterIdentity(ClusterIdentityRecord {
                cluster: to_id("cluster identity", "cluster", &r.cluster)?,
            }),
            wire::Kind::ProducerIds(r) => Self::ProducerIds(ProducerIdsRecord { end: r.end }),
        })
    }
}

/// Protobuf skips unknown kinds and keeps the last of several; a fact may be neither lost nor doubled.
fn check_one_known_kind(body: &[u8]) -> Result<(), DecodeError> {
    let mut rest = body;
    let (kind, wire_type) = prost::encoding::decode_key(&mut rest).map_err(malformed)?;
    let kind = u64::from(kind);
    if !wire::KNOWN_KINDS.contains(&kind) {
        return Err(DecodeError::UnknownKind { kind });
    }
    if wire_type != prost::encoding::WireType::LengthDelimited {
        return Err(DecodeError::Malformed(format!("kind {kind} has wire type {wire_type:?}")));
    }
    let kind_len = prost::encoding::decode_varint(&mut rest).map_err(malformed)?;
    let found = kind_len.saturating_add((body.len() - rest.len()) as u64);
    if found != body.len() as u64 {
        return Err(DecodeError::NotOneKind { found, len: body.len() });
    }
    Ok(())
}

fn malformed(error: prost::DecodeError) -> DecodeError {
    DecodeError::Malformed(error.to_string())
}

fn field(kind: &'static str, field: &'static str, problem: String) -> DecodeError {
    DecodeError::Field { kind, field, problem }
}

fn to_id(kind: &'static str, name: &'static str, bytes: &[u8]) -> Result<[u8; 16], DecodeError> {
    bytes.try_into().map_err(|_| field(kind, name, format!("has {} bytes, not 16", bytes.len())))
}

fn to_u16(name: &'static str, value: u32) -> Result<u16, DecodeError> {
    u16::try_from(value)
        .map_err(|_| field("broker registration", name, format!("is {value}, more than {}", u16::MAX)))
}

fn to_numbers(nodes: &[NodeId]) -> Vec<u32> {
    nodes.iter().map(|node| node.0).collect()
}

fn to_entries(configs: &BTreeMap<String, String>) -> Vec<wire::ConfigEntry> {
    configs.iter().map(|(key, value)| wire::ConfigEntry { key: key.clone(), value: value.clone() }).collect()
}

fn from_entries(
    kind: &'static str,
    name: &'static str,
    entries: Vec<wire::ConfigEntry>,
) -> Result<BTreeMap<String, String>, DecodeError> {
    let mut configs = BTreeMap::new();
    for entry in entries {
        if configs.contains_key(&entry.key) {
            return Err(field(kind, name, format!("names {:?} twice", entry.key)));
        }
        configs.insert(entry.key, entry.value);
    }
    Ok(configs)
}

/// Entry for fuzzing: whatever decodes means the same once written again.
#[doc(hidden)]
pub fn fuzz_metadata_record(bytes: &[u8]) {
    if let Ok(record) = MetadataRecord::decode(bytes) {
        assert_eq!(MetadataRecord::from_wire(record.to_wire()), Ok(record));
    }
}
