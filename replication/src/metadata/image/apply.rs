//! How a record becomes state: the one door of the image, and what it refuses.
//!
//! A record that does not fit is a broken log or a broken controller, not a refused request.

use std::collections::BTreeSet;
use std::sync::Arc;

use corrente_protocol::fuzz::Choices;
use corrente_protocol::ids::{NodeId, Offset, TopicId, TopicName, TopicPartition};

use super::{Image, Partition, Topic, remove_topic};
use crate::metadata::delta::{Change, Delta};
use crate::metadata::records::{
    BrokerRegistrationRecord, ClusterIdentityRecord, MetadataRecord, PartitionRecord, ProducerIdsRecord,
    RemoveTopicRecord, TopicConfigRecord, TopicRecord,
};
use crate::topic_config::{ConfigError, TopicConfig};

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
    /// Producer ids that were given out before.
    #[error("producer ids go from {have} to {new}")]
    StaleProducerIds {
        /// The end in the image.
        have: u64,
        /// The end in the record.
        new: u64,
    },
    /// A second, different identity.
    #[error("the cluster has an identity already, and the record names another")]
    ClusterIdentity,
}

impl Image {
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
            MetadataRecord::ProducerIds(r) => self.apply_producer_ids(r, &mut delta)?,
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

    fn apply_producer_ids(
        &mut self,
        record: &ProducerIdsRecord,
        delta: &mut Delta,
    ) -> Result<(), ApplyError> {
        let (have, new) = (self.producer_ids_end(), record.end);
        if new <= have || i64::try_from(new).is_err() {
            return Err(ApplyError::StaleProducerIds { have, new });
        }
        self.state_mut().producer_ids_end = new;
        delta.producer_ids = true;
        Ok(())
    }

    fn topic_mut(&mut self, id: TopicId) -> Result<&mut Topic, ApplyError> {
        let topic = self.state_mut().topics.get_mut(&id).ok_or(ApplyError::UnknownTopic { id })?;
        Ok(Arc::make_mut(topic))
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

pub(super) fn check_membership(record: &PartitionRecord) -> Result<(), ApplyError> {
    let problem = |problem: String| Err(ApplyError::Membership { id: record.id(), problem });
    if record.replicas.is_empty() {
        return problem("it has no replica".to_owned());
    }
    // Sets, for a record may name tens of thousands.
    let replicas: BTreeSet<NodeId> = record.replicas.iter().copied().collect();
    for (what, nodes) in [("replicas", &record.replicas), ("isr", &record.isr), ("elr", &record.elr)] {
        let mut seen = BTreeSet::new();
        for node in nodes {
            if !seen.insert(node) {
                return problem(format!("node {node} is twice in its {what}"));
            }
            if !replicas.contains(node) {
                return problem(format!("node {node} is in its {what}, not in its replicas"));
            }
        }
    }
    let isr: BTreeSet<NodeId> = record.isr.iter().copied().collect();
    if let Some(node) = record.elr.iter().find(|node| isr.contains(node)) {
        return problem(format!("node {node} is in its isr and in its elr"));
    }
    if let Some(leader) = record.leader
        && !record.isr.contains(&leader)
    {
        return problem(format!("leader {leader} is not in its isr"));
    }
    Ok(())
}

/// Entry for fuzzing: a metadata log, each record behind its length in two bytes. A record is applied whole or not at
/// all, the image stays one, and its own records say it again.
#[doc(hidden)]
pub fn fuzz_image(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut image = Image::new();
    while !choices.is_empty() {
        let Ok(record) = MetadataRecord::decode(choices.bytes()) else { continue };
        let before = image.clone();
        if let Err(error) = image.apply(&record) {
            assert_eq!(image, before, "refused and yet applied: {error}");
            continue;
        }
        image.invariants();
        assert_eq!(image.end_offset().0, before.end_offset().0 + 1);
        assert!(image.delta_since(&image).is_empty());
    }
    let rebuilt = Image::from_snapshot(image.end_offset(), image.to_records());
    assert_eq!(rebuilt, Ok(image), "the records of an image are another image");
}
