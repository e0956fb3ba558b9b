//! What changed between two images: the part that shards reconcile towards.

use std::collections::{BTreeMap, BTreeSet};

use corrente_protocol::ids::{NodeId, PartitionIndex, TopicId, TopicPartition};

/// How one thing changed from the older image to the newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is in the newer image alone.
    Appeared,
    /// It is in both, and differs.
    Changed,
    /// It is in the older image alone.
    Vanished,
}

/// Everything that one record, or one batch of records, changed. In stable order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Topics whose existence, name or configs changed.
    pub topics: BTreeMap<TopicId, Change>,
    /// Partitions whose existence or state changed.
    pub partitions: BTreeMap<TopicPartition, Change>,
    /// Brokers that registered.
    pub brokers: BTreeSet<NodeId>,
    /// Whether the cluster got its identity.
    pub cluster: bool,
    /// Whether producer ids were given out.
    pub producer_ids: bool,
}

impl Delta {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
            && self.partitions.is_empty()
            && self.brokers.is_empty()
            && !self.cluster
            && !self.producer_ids
    }

    /// Adds what happened after `self`; something that came and went leaves no trace.
    pub fn merge(&mut self, later: Delta) {
        for (id, change) in later.topics {
            note(&mut self.topics, id, change);
        }
        for (id, change) in later.partitions {
            note(&mut self.partitions, id, change);
        }
        self.brokers.extend(later.brokers);
        self.cluster |= later.cluster;
        self.producer_ids |= later.producer_ids;
    }

    pub(super) fn topic(&mut self, id: TopicId, change: Change) {
        note(&mut self.topics, id, change);
    }

    pub(super) fn partition(&mut self, topic: TopicId, partition: PartitionIndex, change: Change) {
        note(&mut self.partitions, TopicPartition { topic, partition }, change);
    }
}

fn note<K: Ord>(changes: &mut BTreeMap<K, Change>, key: K, later: Change) {
    use Change::{Appeared, Changed, Vanished};
    let merged = match (changes.get(&key), later) {
        (None, later) => Some(later),
        (Some(Appeared), Changed) => Some(Appeared),
        (Some(Appeared), Vanished) => None,
        // Ids are drawn anew and never come back; if one did, it must be looked at again.
        (Some(Vanished), Appeared | Changed) => Some(Changed),
        (Some(_), later) => Some(later),
    };
    match merged {
        Some(change) => changes.insert(key, change),
        None => changes.remove(&key),
    };
}
