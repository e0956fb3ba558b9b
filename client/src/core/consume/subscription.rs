//! One subscription of a consumer: to all its partitions that one shard leads.

use std::collections::BTreeMap;

use corrente_protocol::ids::{PartitionIndex, TopicId};

use super::credit::Credit;
use crate::core::connection::{ConnectionId, Correlation};

/// Open at a broker, as far as the client knows: its last answer has not come.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) connection: ConnectionId,
    /// Of the request that opened it, and of all its answers.
    pub(super) correlation: Correlation,
    /// Places in the consumer's list of partitions, by what answers call them.
    pub(super) places: BTreeMap<(TopicId, PartitionIndex), usize>,
    pub(super) credit: Credit,
    /// A partition left it before its end, and what still comes for that is not wanted.
    pub(super) is_stale: bool,
    /// The broker was asked to end it.
    pub(super) ends: bool,
}
