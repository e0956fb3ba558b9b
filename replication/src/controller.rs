//! The controller's decisions: a command and the image it meets become records, or a refusal.
//!
//! Owns every rule about what may be asked of the metadata. Never writes: the records of one plan are one
//! atomic batch that the caller appends and then applies. A caller that only wants to know whether a command
//! would pass drops the plan.

use std::collections::{BTreeMap, BTreeSet};

use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{LeaderEpoch, NodeId, PartitionIndex, TopicId, TopicName, TopicPartition};

use crate::metadata::{
    BrokerRegistrationRecord, ClusterIdentityRecord, Image, MetadataRecord, Partition, ProducerIdsRecord,
    RemoveTopicRecord, Topic, TopicConfigRecord, TopicRecord,
};
use crate::topic_config::{self, ConfigError, TopicConfig};

mod election;

pub use election::elect;

/// What is asked of the metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A new topic.
    CreateTopic {
        /// Its name, as it came.
        name: String,
        /// How many partitions.
        partitions: u32,
        /// How many replicas of each; 0 for the default.
        replication_factor: u16,
        /// Configs that differ from the defaults.
        configs: Vec<(String, String)>,
    },
    /// A topic and its records go.
    DeleteTopic {
        /// Its name, as it came.
        name: String,
        /// If it has this id.
        id: Option<TopicId>,
    },
    /// Configs of a topic change; those not named stay.
    AlterTopic {
        /// Its name, as it came.
        name: String,
        /// Keys with their new values.
        set: Vec<(String, String)>,
        /// Keys that fall back to their defaults.
        unset: Vec<String>,
    },
    /// A topic gets more partitions.
    AddPartitions {
        /// Its name, as it came.
        name: String,
        /// How many it has afterwards.
        total: u32,
    },
    /// A broker started, or moved its endpoints.
    RegisterBroker(BrokerRegistration),
    /// The cluster gets its identity. The same one again changes nothing.
    IdentifyCluster {
        /// The id, drawn by the caller.
        cluster: [u8; 16],
    },
    /// The next [`PRODUCER_ID_BLOCK`] producer ids are given out, to whoever asks (KIP-730).
    GrantProducerIds,
}

/// What a broker says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerRegistration {
    /// Its node id.
    pub node: NodeId,
    /// Drawn at every start of the process.
    pub incarnation: [u8; 16],
    /// The advertised host.
    pub host: String,
    /// The advertised port.
    pub port: u16,
    /// How many shards it runs.
    pub shards: u16,
    /// The ids of its data directories.
    pub data_dirs: Vec<[u8; 16]>,
}

/// What a decision depends on beside image and command.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    /// The nodes that live, in the order in which replicas are dealt out.
    pub nodes: &'a [NodeId],
    /// An id never used before, for the topic that the command may create.
    pub topic_id: TopicId,
    /// The limits of this cluster.
    pub limits: Limits,
}

/// The limits of a cluster, all included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Partitions of all topics together.
    pub partitions_max: u64,
    /// Partitions of one topic: what one atomic batch of metadata records still carries.
    pub topic_partitions_max: u32,
    /// Replicas of a partition where the command names no number.
    pub default_replication_factor: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self { partitions_max: 100_000, topic_partitions_max: 10_000, default_replication_factor: 1 }
    }
}

/// How many producer ids are given out at once: most producers are served without a change of metadata.
pub const PRODUCER_ID_BLOCK: u64 = 1000;

/// The longest advertised host, in bytes.
pub const HOST_LEN_MAX: usize = 255;

/// The most data directories of one broker.
pub const DATA_DIRS_MAX: usize = 1024;

/// Why a command is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The code for the wire.
    pub code: ErrorCode,
    /// One line for a person.
    pub message: String,
}

impl Refusal {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<ConfigError> for Refusal {
    fn from(error: ConfigError) -> Self {
        Self::new(ErrorCode::InvalidConfig, error.to_string())
    }
}

/// Decides a command. The records, in order, make one batch that applies to `image` without error; none
/// means that what was asked for holds already.
pub fn plan(image: &Image, command: &Command, context: &Context<'_>) -> Result<Vec<MetadataRecord>, Refusal> {
    match command {
        Command::CreateTopic { name, partitions, replication_factor, configs } => {
            create_topic(image, context, name, *partitions, *replication_factor, configs)
        }
        Command::DeleteTopic { name, id } => delete_topic(image, name, *id),
        Command::AlterTopic { name, set, unset } => alter_topic(image, name, set, unset),
        Command::AddPartitions { name, total } => add_partitions(image, context, name, *total),
        Command::RegisterBroker(registration) => register_broker(image, context, registration),
        Command::IdentifyCluster { cluster } => identify_cluster(image, *cluster),
        Command::GrantProducerIds => grant_producer_ids(image),
    }
}

fn create_topic(
    image: &Image,
    context: &Context<'_>,
    name: &str,
    partitions: u32,
    replication_factor: u16,
    configs: &[(String, String)],
) -> Result<Vec<MetadataRecord>, Refusal> {
    let name = valid_name(name)?;
    if let Some(topic) = image.topic_by_name(&name) {
        let message = format!("topic {name} exists already with {} partitions", topic.partitions().len());
        return Err(Refusal::new(ErrorCode::TopicAlreadyExists, message));
    }
    if partitions == 0 {
        return Err(Refusal::new(ErrorCode::InvalidPartitions, "a topic has at least 1 partition, not 0"));
    }
    check_partition_limits(image, context, partitions, partitions)?;
    let replication_factor = replication_factor_within(context, replication_factor)?;
    let configs = distinct_configs(configs)?;
    TopicConfig::parse(&configs)?.check_replication_factor(replication_factor)?;
    if image.topic(context.topic_id).is_some() {
        let message = format!("topic id {} drawn for {name} is in use", context.topic_id);
        return Err(Refusal::new(ErrorCode::Internal, message));
    }
    let id = context.topic_id;
    let topic = MetadataRecord::Topic(TopicRecord { id, name, configs });
    let added = new_partitions(image, context.nodes, id, 0..partitions, replication_factor);
    Ok(std::iter::once(topic).chain(added).collect())
}

fn delete_topic(image: &Image, name: &str, id: Option<TopicId>) -> Result<Vec<MetadataRecord>, Refusal> {
    let topic = known_topic(image, name)?;
    if let Some(id) = id.filter(|id| *id != topic.id()) {
        let message = format!("topic {name} has id {} now, not {id}", topic.id());
        return Err(Refusal::new(ErrorCode::UnknownTopicOrPartition, message));
    }
    Ok(vec![MetadataRecord::RemoveTopic(RemoveTopicRecord { id: topic.id() })])
}

fn alter_topic(
    image: &Image,
    name: &str,
    set: &[(String, String)],
    unset: &[String],
) -> Result<Vec<MetadataRecord>, Refusal> {
    let topic = known_topic(image, name)?;
    let set = distinct_configs(set)?;
    let unset: BTreeSet<String> = unset.iter().cloned().collect();
    if set.is_empty() && unset.is_empty() {
        let message = format!("nothing to alter in topic {name}: 0 configs to set and 0 to unset");
        return Err(Refusal::new(ErrorCode::InvalidRequest, message));
    }
    for key in &unset {
        topic_config::spec(key)?;
        if set.contains_key(key) {
            let message = format!("config {key} is both set and unset");
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
    }
    let changed = topic.configs_after(&set, &unset);
    let replication_factor = topic.partitions().iter().map(|p| p.replicas.len()).min().unwrap_or(1);
    TopicConfig::parse(&changed)?.check_replication_factor(replication_factor)?;
    if changed == *topic.configs() {
        return Ok(Vec::new());
    }
    Ok(vec![MetadataRecord::TopicConfig(TopicConfigRecord { id: topic.id(), set, unset })])
}

fn add_partitions(
    image: &Image,
    context: &Context<'_>,
    name: &str,
    total: u32,
) -> Result<Vec<MetadataRecord>, Refusal> {
    let topic = known_topic(image, name)?;
    let have = u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX);
    if total <= have {
        let message = format!("topic {name} has {have} partitions, {total} is not more");
        return Err(Refusal::new(ErrorCode::InvalidPartitions, message));
    }
    check_partition_limits(image, context, total, total - have)?;
    let replication_factor = topic.partitions().first().map_or(1, |partition| partition.replicas.len());
    check_replication_factor(context, replication_factor)?;
    Ok(new_partitions(image, context.nodes, topic.id(), have..total, replication_factor).collect())
}

/// A new incarnation ends every leadership of the old one: a leader that was killed and came back may have
/// lost what it had not flushed, and would else write other bytes under the same epoch and offset.
fn register_broker(
    image: &Image,
    context: &Context<'_>,
    registration: &BrokerRegistration,
) -> Result<Vec<MetadataRecord>, Refusal> {
    check_registration(registration)?;
    let node = registration.node;
    let old = image.broker(node);
    let record = BrokerRegistrationRecord {
        node,
        incarnation: registration.incarnation,
        broker_epoch: old.map_or(0, |old| old.broker_epoch) + 1,
        host: registration.host.clone(),
        port: registration.port,
        shards: registration.shards,
        data_dirs: registration.data_dirs.clone(),
    };
    let same_incarnation = old.is_some_and(|old| old.incarnation == record.incarnation);
    let mut records = vec![MetadataRecord::BrokerRegistration(record)];
    if !same_incarnation {
        let lives = |candidate: NodeId| candidate == node || context.nodes.contains(&candidate);
        let elections = image
            .partitions()
            .filter(|(_, partition)| partition.leader == Some(node) || partition.leader.is_none())
            .filter_map(|(id, partition)| elect(id, partition, lives));
        records.extend(elections.map(MetadataRecord::Partition));
    }
    Ok(records)
}

fn identify_cluster(image: &Image, cluster: [u8; 16]) -> Result<Vec<MetadataRecord>, Refusal> {
    match image.cluster() {
        None => Ok(vec![MetadataRecord::ClusterIdentity(ClusterIdentityRecord { cluster })]),
        Some(have) if have == cluster => Ok(Vec::new()),
        Some(have) => {
            let message = format!("the cluster is {}, not {}", TopicId(have), TopicId(cluster));
            Err(Refusal::new(ErrorCode::InvalidRequest, message))
        }
    }
}

fn grant_producer_ids(image: &Image) -> Result<Vec<MetadataRecord>, Refusal> {
    let have = image.producer_ids_end();
    let end = have + PRODUCER_ID_BLOCK;
    if i64::try_from(end).is_err() {
        let message =
            format!("{have} producer ids are given out, another {PRODUCER_ID_BLOCK} would pass {}", i64::MAX);
        return Err(Refusal::new(ErrorCode::Internal, message));
    }
    Ok(vec![MetadataRecord::ProducerIds(ProducerIdsRecord { end })])
}

fn valid_name(name: &str) -> Result<TopicName, Refusal> {
    TopicName::new(name).map_err(|error| Refusal::new(ErrorCode::InvalidTopicName, error.to_string()))
}

fn known_topic<'a>(image: &'a Image, name: &str) -> Result<&'a Topic, Refusal> {
    let name = valid_name(name)?;
    image
        .topic_by_name(&name)
        .ok_or_else(|| Refusal::new(ErrorCode::UnknownTopicOrPartition, format!("there is no topic {name}")))
}

fn check_partition_limits(
    image: &Image,
    context: &Context<'_>,
    total: u32,
    added: u32,
) -> Result<(), Refusal> {
    let Limits { partitions_max, topic_partitions_max, .. } = context.limits;
    if total > topic_partitions_max {
        let message = format!("{total} partitions are more than a topic may have: {topic_partitions_max}");
        return Err(Refusal::new(ErrorCode::InvalidPartitions, message));
    }
    let have = image.partition_count();
    if have.saturating_add(u64::from(added)) > partitions_max {
        let message = format!(
            "{added} more partitions on top of {have} are more than the cluster may have: {partitions_max}"
        );
        return Err(Refusal::new(ErrorCode::InvalidPartitions, message));
    }
    Ok(())
}

fn replication_factor_within(context: &Context<'_>, asked: u16) -> Result<usize, Refusal> {
    let replication_factor =
        usize::from(if asked == 0 { context.limits.default_replication_factor } else { asked });
    check_replication_factor(context, replication_factor)?;
    Ok(replication_factor)
}

fn check_replication_factor(context: &Context<'_>, replication_factor: usize) -> Result<(), Refusal> {
    let nodes = context.nodes.len();
    if replication_factor == 0 {
        let message = "replication factor 0 keeps no copy, at least 1 is needed";
        return Err(Refusal::new(ErrorCode::InvalidReplicationFactor, message));
    }
    if replication_factor > nodes {
        let message =
            format!("replication factor {replication_factor} is more than the nodes that live: {nodes}");
        return Err(Refusal::new(ErrorCode::InvalidReplicationFactor, message));
    }
    Ok(())
}

fn distinct_configs(configs: &[(String, String)]) -> Result<BTreeMap<String, String>, Refusal> {
    let mut distinct = BTreeMap::new();
    for (key, value) in configs {
        topic_config::spec(key)?;
        if let Some(earlier) = distinct.insert(key.clone(), value.clone()) {
            let message = format!("config {key} is set twice, to {earlier:?} and to {value:?}");
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
    }
    Ok(distinct)
}

fn check_registration(registration: &BrokerRegistration) -> Result<(), Refusal> {
    let refuse = |message: String| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    let BrokerRegistration { node, host, port, shards, data_dirs, .. } = registration;
    if host.is_empty() || host.len() > HOST_LEN_MAX {
        return refuse(format!(
            "node {node}: host has {} bytes, allowed are 1 to {HOST_LEN_MAX}",
            host.len()
        ));
    }
    if *port == 0 {
        return refuse(format!("node {node}: port is 0, nobody can connect to that"));
    }
    if *shards == 0 {
        return refuse(format!("node {node}: it runs 0 shards, at least 1 is needed"));
    }
    if data_dirs.len() > DATA_DIRS_MAX {
        return refuse(format!(
            "node {node}: {} data directories are more than {DATA_DIRS_MAX}",
            data_dirs.len()
        ));
    }
    Ok(())
}

/// New partitions, dealt out so that leaders and followers spread evenly over `nodes`.
fn new_partitions<'a>(
    image: &Image,
    nodes: &'a [NodeId],
    topic: TopicId,
    indexes: std::ops::Range<u32>,
    replication_factor: usize,
) -> impl Iterator<Item = MetadataRecord> + 'a {
    let turns = nodes.iter().cycle();
    // At most `partitions_max`, and only its remainder matters.
    let first_turn = usize::try_from(image.partition_count() % nodes.len().max(1) as u64).unwrap_or(0);
    indexes.enumerate().map(move |(nth, index)| {
        let turn = (first_turn + nth) % nodes.len().max(1);
        let replicas: Vec<NodeId> = turns.clone().skip(turn).take(replication_factor).copied().collect();
        let partition = Partition {
            leader: replicas.first().copied(),
            leader_epoch: LeaderEpoch(0),
            partition_epoch: 0,
            isr: replicas.clone(),
            replicas,
            elr: Vec::new(),
        };
        let id = TopicPartition { topic, partition: PartitionIndex(index) };
        MetadataRecord::Partition(partition.to_record(id))
    })
}
