//! One subscription of a consumer: to all its partitions that one shard leads.

use std::collections::BTreeMap;

use corrente_protocol::api::AdjustSubscriptionRequest;
use corrente_protocol::frame::Durability;
use corrente_protocol::ids::{PartitionIndex, TopicId};

use super::credit::Credit;
use crate::core::connection::{ConnectionId, Correlation};
use crate::core::hub::Hub;
use crate::core::owner::Owner;
use crate::core::time::Micros;

/// Open at a broker, as far as the client knows: its last answer has not come.
#[derive(Debug)]
pub(super) struct Subscription {
    connection: ConnectionId,
    /// Of the request that opened it, and of all its answers.
    correlation: Correlation,
    /// Places in the consumer's list of partitions, by what answers call them.
    pub(super) places: BTreeMap<(TopicId, PartitionIndex), usize>,
    pub(super) credit: Credit,
    /// A partition left it before its end, and what still comes for that is not wanted.
    pub(super) is_stale: bool,
    /// The broker was asked to end it.
    pub(super) ends: bool,
}

impl Subscription {
    pub(super) fn new(
        connection: ConnectionId,
        correlation: Correlation,
        places: BTreeMap<(TopicId, PartitionIndex), usize>,
        credit: u32,
    ) -> Subscription {
        let mut given = Credit::NONE;
        given.give(credit);
        Subscription { connection, correlation, places, credit: given, is_stale: false, ends: false }
    }

    /// Gives it more credit, unless its connection takes no request now: then it is to be tried when something changed.
    pub(super) fn give(&mut self, now: Micros, hub: &mut Hub, bytes: u32) {
        if self.adjust(now, hub, bytes, false) {
            self.credit.give(bytes);
        }
    }

    /// Has the broker end it, once; its last answer is still to come. Like [`Subscription::give`], it may have to be
    /// tried again.
    pub(super) fn end(&mut self, now: Micros, hub: &mut Hub) {
        self.ends = self.ends || self.adjust(now, hub, 0, true);
    }

    /// True if the broker is told.
    fn adjust(&self, now: Micros, hub: &mut Hub, credit: u32, ends: bool) -> bool {
        if !hub.takes_requests(self.connection) {
            return false;
        }
        let request = AdjustSubscriptionRequest { subscription: self.correlation, credit, ends };
        let timeout = hub.settings.request_timeout;
        let owner = Owner::Adjustment;
        let sent = hub.send(now, self.connection, &request, Durability::Received, timeout, owner);
        assert!(sent.is_ok(), "an adjustment is a few bytes");
        true
    }
}
