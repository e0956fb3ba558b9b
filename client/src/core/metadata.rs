//! Who leads what: the cache of metadata, and when it has to be asked again.
//!
//! It is asked again when somebody misses a leader, a broker says that it is not the leader, a connection breaks,
//! or it has grown old; never more often than its backoff allows, and never twice at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use corrente_protocol::api::metadata::{MetadataResponse, NodeEndpoint};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{NodeId, PartitionIndex, ShardId, TopicId, TopicName};

use super::connection::Destination;
use super::time::Micros;

/// Where requests for a partition go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) topic: TopicId,
    pub(crate) destination: Destination,
}

/// What the cache knows of a topic.
#[derive(Debug, Clone, Default)]
pub(crate) struct KnownTopic {
    pub(crate) id: TopicId,
    /// By partition index; `None` where no leader is known.
    leaders: Vec<Option<(NodeId, ShardId)>>,
    /// Since when the cluster says that there is no such topic.
    pub(crate) missing_since: Option<Micros>,
}

impl KnownTopic {
    pub(crate) fn partitions(&self) -> usize {
        self.leaders.len()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Metadata {
    nodes: BTreeMap<NodeId, NodeEndpoint>,
    controller: Option<NodeId>,
    topics: BTreeMap<TopicName, KnownTopic>,
    /// Topics somebody works with, and how many do.
    interest: BTreeMap<TopicName, u32>,
    /// An answer is wanted before the cache grows old.
    pub(crate) stale: bool,
    pub(crate) in_flight: bool,
    /// Not asked again before this moment.
    pub(crate) not_before: Micros,
    /// Asked again at this moment even if nobody misses anything.
    pub(crate) old_at: Micros,
    pub(crate) failures: u32,
}

impl Metadata {
    /// The shard that leads the partition. If none is known, metadata becomes stale.
    pub(crate) fn route(&mut self, topic: &TopicName, partition: PartitionIndex) -> Option<Route> {
        let route = self.known_route(topic, partition);
        self.stale |= route.is_none();
        route
    }

    fn known_route(&self, topic: &TopicName, partition: PartitionIndex) -> Option<Route> {
        let known = self.topics.get(topic)?;
        let (node, shard) = (*known.leaders.get(usize::try_from(partition.0).ok()?)?)?;
        self.nodes.contains_key(&node).then_some(())?;
        Some(Route { topic: known.id, destination: Destination::Shard(node, shard) })
    }

    pub(crate) fn topic(&self, topic: &TopicName) -> Option<&KnownTopic> {
        self.topics.get(topic)
    }

    /// Forgets the leader of a partition whose broker said that it is not.
    pub(crate) fn forget_leader(&mut self, topic: &TopicName, partition: PartitionIndex) {
        self.stale = true;
        let Some(known) = self.topics.get_mut(topic) else { return };
        if let Some(leader) = usize::try_from(partition.0).ok().and_then(|index| known.leaders.get_mut(index))
        {
            *leader = None;
        }
    }

    pub(crate) fn controller(&self) -> Option<Destination> {
        let node = self.controller?;
        self.nodes.contains_key(&node).then_some(Destination::Shard(node, ShardId(0)))
    }

    pub(crate) fn address(&self, node: NodeId) -> Option<(Arc<str>, u16)> {
        self.nodes.get(&node).map(|endpoint| (Arc::from(endpoint.host.as_str()), endpoint.port))
    }

    /// Shard 0 of every node: whom to ask when any broker will do.
    pub(crate) fn anyone(&self) -> impl Iterator<Item = Destination> + '_ {
        self.nodes.keys().map(|node| Destination::Shard(*node, ShardId(0)))
    }

    pub(crate) fn attend(&mut self, topic: &TopicName) {
        *self.interest.entry(topic.clone()).or_insert(0) += 1;
    }

    /// Nobody's request or session for the topic is left, as far as the caller is concerned. What is known of it
    /// stays, so that the next request need not ask.
    pub(crate) fn neglect(&mut self, topic: &TopicName) {
        let Some(count) = self.interest.get_mut(topic) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.interest.remove(topic);
        if self.topics.get(topic).is_some_and(|known| known.missing_since.is_some()) {
            self.topics.remove(topic);
        }
    }

    pub(crate) fn interest(&self) -> Vec<TopicName> {
        self.interest.keys().cloned().collect()
    }

    /// Takes in an answer, to the cache's own request or to a caller's.
    pub(crate) fn apply(&mut self, now: Micros, response: &MetadataResponse) {
        self.controller = Some(response.controller);
        self.nodes = response.nodes.iter().map(|node| (node.node, node.clone())).collect();
        for topic in &response.topics {
            let name = topic.name.clone();
            // What is known of a topic that nobody works with at the moment is kept, so it has to be kept true.
            if !self.interest.contains_key(&name) && !self.topics.contains_key(&name) {
                continue;
            }
            let known = self.topics.entry(name).or_default();
            match topic.error {
                ErrorCode::None => {
                    known.id = topic.id;
                    known.missing_since = None;
                    known.leaders = vec![None; topic.partitions.len()];
                    for partition in &topic.partitions {
                        let leader = (partition.error == ErrorCode::None)
                            .then_some((partition.leader, partition.shard));
                        if let Some(slot) = known.leaders.get_mut(partition.index.0 as usize) {
                            *slot = leader;
                        }
                    }
                }
                ErrorCode::UnknownTopicOrPartition => {
                    known.missing_since.get_or_insert(now);
                    known.leaders.fill(None);
                }
                // The broker cannot say at the moment: what was known may still hold.
                _ => self.stale = true,
            }
        }
    }

    /// The cache's own request was answered.
    pub(crate) fn refreshed(&mut self, now: Micros, response: &MetadataResponse, settings: RefreshSettings) {
        self.in_flight = false;
        self.stale = false;
        self.failures = 0;
        self.not_before = now + settings.interval_min;
        self.old_at = now + settings.age_max;
        self.apply(now, response);
    }

    /// The cache's own request was lost or refused.
    pub(crate) fn failed(&mut self, now: Micros, wait: Duration) {
        self.in_flight = false;
        self.stale = true;
        self.not_before = now + wait;
    }

    pub(crate) fn wants_refresh(&self, now: Micros) -> bool {
        !self.in_flight && (self.stale || now >= self.old_at) && now >= self.not_before
    }

    /// When `wants_refresh` may become true by time alone.
    pub(crate) fn next_refresh(&self) -> Option<Micros> {
        (!self.in_flight).then(|| if self.stale { self.not_before } else { self.old_at.max(self.not_before) })
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct RefreshSettings {
    /// Least time between two requests.
    pub(crate) interval_min: Duration,
    /// Age at which the cache is asked again without need.
    pub(crate) age_max: Duration,
}
