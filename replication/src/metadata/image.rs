//! The metadata image: the state that the records of the metadata log add up to.
//!
//! Owns the one door through which a record becomes state. Never decides what should happen: a record is a
//! committed fact, and one that does not fit is a broken log, not a refused request.
//!
//! A clone shares everything and costs one reference count; the first change after a clone copies the maps
//! of references, once per batch however many records it has, and of the topics only those that change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use corrente_protocol::ids::{
    LeaderEpoch, NodeId, Offset, PartitionIndex, TopicId, TopicName, TopicPartition,
};

use super::delta::{Change, Delta};
use super::records::{
    BrokerRegistrationRecord, ClusterIdentityRecord, MetadataRecord, PartitionRecord, RemoveTopicRecord,
    TopicConfigRecord, TopicRecord,
};
use crate::topic_config::{ConfigError, TopicConfig};

/// The state of the cluster as of one offset of the metadata log.
///
/// Invariants, checked by [`invariants`](Image::invariants):
/// - `by_name` and `topics` name the same topics;
/// - the partitions of a topic are numbered from 0 without a hole;
/// - `partition_count` is the number of partitions of all topics;
/// - of every partition: replicas are distinct and not empty, ISR and ELR are disjoint subsets of them, and
///   the leader is in the ISR.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    state: Arc<State>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    /// One past the last record applied.
    end_offset: Offset,
    cluster: Option<[u8; 16]>,
    brokers: BTreeMap<NodeId, Arc<BrokerRegistrationRecord>>,
    topics: BTreeMap<TopicId, Arc<Topic>>,
    by_name: BTreeMap<TopicName, TopicId>,
    partition_count: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            end_offset: Offset(0),
            cluster: None,
            brokers: BTreeMap::new(),
            topics: BTreeMap::new(),
            by_name: BTreeMap::new(),
            partition_count: 0,
        }
    }
}

/// One topic of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    id: TopicId,
    name: TopicName,
    configs: BTreeMap<String, String>,
    config: TopicConfig,
    partitions: Vec<Partition>,
}

impl Topic {
    /// Its id.
    pub fn id(&self) -> TopicId {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &TopicName {
        &self.name
    }

    /// The configs that were set, as text; all others have their defaults.
    pub fn configs(&self) -> &BTreeMap<String, String> {
        &self.configs
    }

    /// What [`configs`](Self::configs) would be after a change.
    pub fn configs_after(
        &self,
        set: &BTreeMap<String, String>,
        unset: &BTreeSet<String>,
    ) -> BTreeMap<String, String> {
        let kept = self.configs.iter().filter(|(key, _)| !unset.contains(*key));
        kept.chain(set).map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// All configs, typed.
    pub fn config(&self) -> &TopicConfig {
        &self.config
    }

    /// Its partitions; the place of each is its index.
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// One of its partitions.
    pub fn partition(&self, index: PartitionIndex) -> Option<&Partition> {
        self.partitions.get(usize::try_from(index.0).ok()?)
    }
}

/// One partition of an image: what its last record said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Who leads; `None` while nobody may.
    pub leader: Option<NodeId>,
    /// Grows with every election.
    pub leader_epoch: LeaderEpoch,
    /// Grows with every change.
    pub partition_epoch: u32,
    /// Who holds it, preferred leader first.
    pub replicas: Vec<NodeId>,
    /// The in-sync replicas.
    pub isr: Vec<NodeId>,
    /// The eligible leader replicas outside the ISR.
    pub elr: Vec<NodeId>,
}

impl Partition {
    /// The record that says this state.
    pub fn to_record(&self, id: TopicPartition) -> PartitionRecord {
        PartitionRecord {
            topic: id.topic,
            index: id.partition,
            leader: self.leader,
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            replicas: self.replicas.clone(),
            isr: self.isr.clone(),
            elr: self.elr.clone(),
        }
    }
}

impl From<&PartitionRecord> for Partition {
    fn from(record: &PartitionRecord) -> Self {
        Self {
            leader: record.leader,
            leader_epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
            replicas: record.replicas.clone(),
            isr: record.isr.clone(),
            elr: record.elr.clone(),
        }
    }
}

/// Why a record does not fit the image. Each means a broken metadata log or a broken controller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// A topic appears under an id that is in use.
    #[error("topic id {id} is in use by topic {name}")]
    TopicIdInUse {
        /// The id.
        id: TopicId,
        /// Who has it.
        name: TopicName,
    },
    /// A topic appears under a name that is in use.
    #[error("topic name {name} is in use by topic id {have}, new id {new}")]
    TopicNameInUse {
        /// The name.
        name: TopicName,
        /// Who has it.
        have: TopicId,
        /// Who wants it.
        new: TopicId,
    },
    /// The record speaks of a topic that is not there.
    #[error("unknown topic id {id}")]
    UnknownTopic {
        /// The id.
        id: TopicId,
    },
    /// A topic carries configs that this broker does not accept.
    #[error("topic id {id}: {error}")]
    Config {
        /// The topic.
        id: TopicId,
        /// What is wrong.
        error: ConfigError,
    },
    /// A new partition leaves a hole.
    #[error("partition {id} would leave a hole: the topic has {have} partitions")]
    PartitionHole {
        /// The partition.
        id: TopicPartition,
        /// How many there are.
        have: usize,
    },
    /// An epoch does not grow as it must.
    #[error("partition {id}: {what} goes from {have} to {new}")]
    StaleEpoch {
        /// The partition.
        id: TopicPartition,
        /// Which epoch.
        what: &'static str,
        /// The epoch in the image.
        have: u64,
        /// The epoch in the record.
        new: u64,
    },
    /// Replicas, ISR, ELR and leader do not fit together.
    #[error("partition {id}: {problem}")]
    Membership {
        /// The partition.
        id: TopicPartition,
        /// What is wrong.
        problem: String,
    },
    /// A broker registers with an epoch that does not grow.
    #[error("node {node}: broker epoch goes from {have} to {new}")]
    StaleBrokerEpoch {
        /// The node.
        node: NodeId,
        /// The epoch in the image.
        have: u64,
        /// The epoch in the record.
        new: u64,
    },
    /// A second, different identity.
    #[error("the cluster has an identity already, and the record names another")]
    ClusterIdentity,
}

impl Image {
    /// The image of an empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// The image that `records` of a snapshot add up to, standing at `end_offset` of the log.
    pub fn from_snapshot(
        end_offset: Offset,
        records: impl IntoIterator<Item = MetadataRecord>,
    ) -> Result<Self, ApplyError> {
        let mut image = Self::new();
        for record in records {
            image.apply(&record)?;
        }
        Arc::make_mut(&mut image.state).end_offset = end_offset;
        image.invariants();
        Ok(image)
    }

    /// The fewest records that add up to this image: the identity, brokers, topics by name, each followed
    /// by its partitions. [`from_snapshot`](Self::from_snapshot) turns them back.
    pub fn to_records(&self) -> impl Iterator<Item = MetadataRecord> + '_ {
        let cluster =
            self.cluster().map(|cluster| MetadataRecord::ClusterIdentity(ClusterIdentityRecord { cluster }));
        let brokers = self.brokers().map(|broker| MetadataRecord::BrokerRegistration(broker.clone()));
        cluster.into_iter().chain(brokers).chain(self.topics().flat_map(topic_records))
    }

    /// One past the offset of the last record applied: the offset that the next record has.
    pub fn end_offset(&self) -> Offset {
        self.state.end_offset
    }

    /// The offset of the last record applied; `None` before the first.
    pub fn version(&self) -> Option<Offset> {
        self.state.end_offset.0.checked_sub(1).map(Offset)
    }

    /// Which cluster this is, once it is known.
    pub fn cluster(&self) -> Option<[u8; 16]> {
        self.state.cluster
    }

    /// The registered brokers, by node id.
    pub fn brokers(&self) -> impl ExactSizeIterator<Item = &BrokerRegistrationRecord> {
        self.state.brokers.values().map(Arc::as_ref)
    }

    /// One registered broker.
    pub fn broker(&self, node: NodeId) -> Option<&BrokerRegistrationRecord> {
        self.state.brokers.get(&node).map(Arc::as_ref)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.state.by_name.values().filter_map(|id| self.topic(*id))
    }

    /// How many topics there are.
    pub fn topic_count(&self) -> usize {
        self.state.topics.len()
    }

    /// A topic by its id.
    pub fn topic(&self, id: TopicId) -> Option<&Topic> {
        self.state.topics.get(&id).map(Arc::as_ref)
    }

    /// A topic by its name.
    pub fn topic_by_name(&self, name: &TopicName) -> Option<&Topic> {
        self.topic(*self.state.by_name.get(name)?)
    }

    /// A partition by its address.
    pub fn partition(&self, id: TopicPartition) -> Option<&Partition> {
        self.topic(id.topic)?.partition(id.partition)
    }

    /// All partitions, by topic id and index.
    pub fn partitions(&self) -> impl Iterator<Item = (TopicPartition, &Partition)> {
        self.state.topics.values().flat_map(|topic| {
            (0..).zip(&topic.partitions).map(|(index, partition)| {
                (TopicPartition { topic: topic.id, partition: PartitionIndex(index) }, partition)
            })
        })
    }

    /// How many partitions all topics have together.
    pub fn partition_count(&self) -> u64 {
        self.state.partition_count
    }

    /// Applies the next record of the log: all of it, or nothing and the image is as it was.
    pub fn apply(&mut self, record: &MetadataRecord) -> Result<Delta, ApplyError> {
        let mut delta = Delta::default();
        match record {
            MetadataRecord::Topic(r) => self.apply_topic(r, &mut delta)?,
            MetadataRecord::RemoveTopic(r) => self.apply_remove_topic(r, &mut delta)?,
            MetadataRecord::TopicConfig(r) => self.apply_topic_config(r, &mut delta)?,
            MetadataRecord::Partition(r) => self.apply_partition(r, &mut delta)?,
            MetadataRecord::BrokerRegistration(r) => self.apply_broker(r, &mut delta)?,
            MetadataRecord::ClusterIdentity(r) => self.apply_cluster(r, &mut delta)?,
        }
        let state = self.state_mut();
        state.end_offset = Offset(state.end_offset.0 + 1);
        Ok(delta)
    }

    /// Applies the records of one batch and says what they changed together.
    ///
    /// After an error the image holds the records before the one that did not fit: a log that holds such a
    /// record cannot be followed further, so the caller stops.
    pub fn apply_batch<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a MetadataRecord>,
    ) -> Result<Delta, ApplyError> {
        let mut delta = Delta::default();
        for record in records {
            delta.merge(self.apply(record)?);
        }
        Ok(delta)
    }

    /// Everything that differs from `older`, for a reader that missed the deltas between.
    pub fn delta_since(&self, older: &Image) -> Delta {
        let mut delta = Delta { cluster: self.cluster() != older.cluster(), ..Delta::default() };
        for topic in older.state.topics.values().filter(|topic| self.topic(topic.id).is_none()) {
            remove_topic(topic, &mut delta);
        }
        for topic in self.state.topics.values() {
            match older.state.topics.get(&topic.id) {
                Some(old) if Arc::ptr_eq(old, topic) => {}
                old => compare_topic(old.map(Arc::as_ref), topic, &mut delta),
            }
        }
        delta.brokers = self
            .brokers()
            .filter(|broker| older.broker(broker.node) != Some(*broker))
            .map(|b| b.node)
            .collect();
        delta
    }

    /// Panics, with both numbers, if the image is not one.
    pub fn invariants(&self) {
        let state = &self.state;
        assert_eq!(state.by_name.len(), state.topics.len(), "names and ids of topics differ in number");
        let mut partition_count = 0;
        for (id, topic) in &state.topics {
            assert_eq!(*id, topic.id, "topic {} is filed under another id", topic.name);
            assert_eq!(state.by_name.get(&topic.name), Some(id), "topic {} is not found by name", topic.name);
            partition_count += topic.partitions.len() as u64;
        }
        assert_eq!(state.partition_count, partition_count, "partition count is off");
        for (id, partition) in self.partitions() {
            let membership = check_membership(&partition.to_record(id));
            assert_eq!(membership, Ok(()), "membership of partition {id} is off");
        }
        for (node, broker) in &state.brokers {
            assert_eq!(*node, broker.node, "broker is filed under another node id");
        }
    }

    fn state_mut(&mut self) -> &mut State {
        Arc::make_mut(&mut self.state)
    }

    fn apply_topic(&mut self, record: &TopicRecord, delta: &mut Delta) -> Result<(), ApplyError> {
        let TopicRecord { id, name, configs } = record;
        if let Some(topic) = self.topic(*id) {
            return Err(ApplyError::TopicIdInUse { id: *id, name: topic.name.clone() });
        }
        if let Some(have) = self.topic_by_name(name) {
            return Err(ApplyError::TopicNameInUse { name: name.clone(), have: have.id, new: *id });
        }
        let config = TopicConfig::parse(configs).map_err(|error| ApplyError::Config { id: *id, error })?;
        let topic =
            Topic { id: *id, name: name.clone(), configs: configs.clone(), config, partitions: Vec::new() };
        let state = self.state_mut();
        state.by_name.insert(name.clone(), *id);
        state.topics.insert(*id, Arc::new(topic));
        delta.topic(*id, Change::Appeared);
        Ok(())
    }

    fn apply_remove_topic(
        &mut self,
        record: &RemoveTopicRecord,
        delta: &mut Delta,
    ) -> Result<(), ApplyError> {
        if self.topic(record.id).is_none() {
            return Err(ApplyError::UnknownTopic { id: record.id });
        }
        let state = self.state_mut();
        if let Some(topic) = state.topics.remove(&record.id) {
            state.by_name.remove(&topic.name);
            state.partition_count -= topic.partitions.len() as u64;
            remove_topic(&topic, delta);
        }
        Ok(())
    }

    fn apply_topic_config(
        &mut self,
        record: &TopicConfigRecord,
        delta: &mut Delta,
    ) -> Result<(), ApplyError> {
        let id = record.id;
        let topic = self.topic(id).ok_or(ApplyError::UnknownTopic { id })?;
        let configs = topic.configs_after(&record.set, &record.unset);
        let config = TopicConfig::parse(&configs).map_err(|error| ApplyError::Config { id, error })?;
        let topic = self.topic_mut(id)?;
        topic.configs = configs;
        topic.config = config;
        delta.topic(id, Change::Changed);
        Ok(())
    }

    fn apply_partition(&mut self, record: &PartitionRecord, delta: &mut Delta) -> Result<(), ApplyError> {
        let id = record.id();
        let topic = self.topic(record.topic).ok_or(ApplyError::UnknownTopic { id: record.topic })?;
        let have = topic.partitions.len();
        check_membership(record)?;
        if let Some(old) = topic.partition(record.index) {
            check_epochs(old, record)?;
            let index = index_of(id, have)?;
            self.topic_mut(record.topic)?.partitions[index] = Partition::from(record);
            delta.partition(record.topic, record.index, Change::Changed);
            return Ok(());
        }
        if usize::try_from(record.index.0) != Ok(have) {
            return Err(ApplyError::PartitionHole { id, have });
        }
        self.topic_mut(record.topic)?.partitions.push(Partition::from(record));
        self.state_mut().partition_count += 1;
        delta.partition(record.topic, record.index, Change::Appeared);
        Ok(())
    }

    fn apply_broker(
        &mut self,
        record: &BrokerRegistrationRecord,
        delta: &mut Delta,
    ) -> Result<(), ApplyError> {
        let node = record.node;
        if let Some(old) = self.broker(node)
            && record.broker_epoch <= old.broker_epoch
        {
            return Err(ApplyError::StaleBrokerEpoch {
                node,
                have: old.broker_epoch,
                new: record.broker_epoch,
            });
        }
        self.state_mut().brokers.insert(node, Arc::new(record.clone()));
        delta.brokers.insert(node);
        Ok(())
    }

    fn apply_cluster(&mut self, record: &ClusterIdentityRecord, delta: &mut Delta) -> Result<(), ApplyError> {
        if self.cluster().is_some_and(|cluster| cluster != record.cluster) {
            return Err(ApplyError::ClusterIdentity);
        }
        delta.cluster = self.cluster().is_none();
        self.state_mut().cluster = Some(record.cluster);
        Ok(())
    }

    fn topic_mut(&mut self, id: TopicId) -> Result<&mut Topic, ApplyError> {
        let topic = self.state_mut().topics.get_mut(&id).ok_or(ApplyError::UnknownTopic { id })?;
        Ok(Arc::make_mut(topic))
    }
}

fn topic_records(topic: &Topic) -> impl Iterator<Item = MetadataRecord> + '_ {
    let head = MetadataRecord::Topic(TopicRecord {
        id: topic.id,
        name: topic.name.clone(),
        configs: topic.configs.clone(),
    });
    let partitions = (0..).zip(&topic.partitions).map(|(index, partition)| {
        let id = TopicPartition { topic: topic.id, partition: PartitionIndex(index) };
        MetadataRecord::Partition(partition.to_record(id))
    });
    std::iter::once(head).chain(partitions)
}

fn remove_topic(topic: &Topic, delta: &mut Delta) {
    delta.topic(topic.id, Change::Vanished);
    for (index, _) in (0..).zip(&topic.partitions) {
        delta.partition(topic.id, PartitionIndex(index), Change::Vanished);
    }
}

fn compare_topic(old: Option<&Topic>, new: &Topic, delta: &mut Delta) {
    match old {
        None => delta.topic(new.id, Change::Appeared),
        Some(old) if old.name != new.name || old.configs != new.configs => {
            delta.topic(new.id, Change::Changed)
        }
        Some(_) => {}
    }
    for (index, partition) in (0..).map(PartitionIndex).zip(&new.partitions) {
        match old.and_then(|old| old.partition(index)) {
            None => delta.partition(new.id, index, Change::Appeared),
            Some(old) if old != partition => delta.partition(new.id, index, Change::Changed),
            Some(_) => {}
        }
    }
}

fn index_of(id: TopicPartition, have: usize) -> Result<usize, ApplyError> {
    usize::try_from(id.partition.0).map_err(|_| ApplyError::PartitionHole { id, have })
}

fn check_epochs(old: &Partition, new: &PartitionRecord) -> Result<(), ApplyError> {
    let stale = |what, have: u32, new_epoch: u32| ApplyError::StaleEpoch {
        id: new.id(),
        what,
        have: u64::from(have),
        new: u64::from(new_epoch),
    };
    if new.partition_epoch <= old.partition_epoch {
        return Err(stale("partition epoch", old.partition_epoch, new.partition_epoch));
    }
    let epoch_may_stay = new.leader == old.leader;
    let (have, next) = (old.leader_epoch.0, new.leader_epoch.0);
    if next < have || (next == have && !epoch_may_stay) {
        return Err(stale("leader epoch", have, next));
    }
    Ok(())
}

fn check_membership(record: &PartitionRecord) -> Result<(), ApplyError> {
    let problem = |problem: String| Err(ApplyError::Membership { id: record.id(), problem });
    if record.replicas.is_empty() {
        return problem("it has no replica".to_owned());
    }
    for (what, nodes) in [("replicas", &record.replicas), ("isr", &record.isr), ("elr", &record.elr)] {
        for (place, node) in nodes.iter().enumerate() {
            if nodes[..place].contains(node) {
                return problem(format!("node {node} is twice in its {what}"));
            }
            if !record.replicas.contains(node) {
                return problem(format!("node {node} is in its {what}, not in its replicas"));
            }
        }
    }
    if let Some(node) = record.elr.iter().find(|node| record.isr.contains(node)) {
        return problem(format!("node {node} is in its isr and in its elr"));
    }
    if let Some(leader) = record.leader
        && !record.isr.contains(&leader)
    {
        return problem(format!("leader {leader} is not in its isr"));
    }
    Ok(())
}
