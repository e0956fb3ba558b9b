//! The metadata image: the state that the records of the metadata log add up to.
//!
//! Owns the state and its lookups; [`apply`] is the one door through which a record becomes state. Never
//! decides what should happen: a record is a committed fact.
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
    BrokerRegistrationRecord, ClusterIdentityRecord, MetadataRecord, PartitionRecord, ProducerIdsRecord,
    TopicRecord,
};
use crate::topic_config::TopicConfig;

pub(crate) mod apply;

pub use apply::ApplyError;

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
    /// One past the last producer id that was given out.
    producer_ids_end: u64,
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
            producer_ids_end: 0,
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

    /// The fewest records that add up to this image: the identity, producer ids, brokers, topics by name, each
    /// followed by its partitions. [`from_snapshot`](Self::from_snapshot) turns them back.
    pub fn to_records(&self) -> impl Iterator<Item = MetadataRecord> + '_ {
        let cluster =
            self.cluster().map(|cluster| MetadataRecord::ClusterIdentity(ClusterIdentityRecord { cluster }));
        let producer_ids = Some(self.producer_ids_end()).filter(|end| *end > 0);
        let producer_ids = producer_ids.map(|end| MetadataRecord::ProducerIds(ProducerIdsRecord { end }));
        let brokers = self.brokers().map(|broker| MetadataRecord::BrokerRegistration(broker.clone()));
        cluster.into_iter().chain(producer_ids).chain(brokers).chain(self.topics().flat_map(topic_records))
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

    /// One past the last producer id that was given out.
    pub fn producer_ids_end(&self) -> u64 {
        self.state.producer_ids_end
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

    /// Everything that differs from `older`, for a reader that missed the deltas between.
    pub fn delta_since(&self, older: &Image) -> Delta {
        let mut delta = Delta {
            cluster: self.cluster() != older.cluster(),
            producer_ids: self.producer_ids_end() != older.producer_ids_end(),
            ..Delta::default()
        };
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
            let membership = apply::check_membership(&partition.to_record(id));
            assert_eq!(membership, Ok(()), "membership of partition {id} is off");
        }
        for (node, broker) in &state.brokers {
            assert_eq!(*node, broker.node, "broker is filed under another node id");
        }
    }

    fn state_mut(&mut self) -> &mut State {
        Arc::make_mut(&mut self.state)
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
