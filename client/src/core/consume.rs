//! Consumers: one subscription for each shard that leads some of their partitions, with credit while there is room.
//!
//! Positions advance when batches arrive and their checksums hold, never before; a broken connection repeats from the
//! position. Disconnects, moved leaders and busy brokers are ridden through for as long as it takes.
//!
//! What a subscription covers never changes. When a partition wants to join a shard that is subscribed already, or the
//! credit that is out there has become more than its share, that subscription is ended and another one opened for all.
//! One that a broker refused is asked about by itself first, so that the others are left alone while it fails.

mod credit;
mod intake;
mod partition;
mod partitions;
mod settings;
mod subscription;

use std::collections::BTreeMap;
use std::sync::Arc;

use corrente_protocol::api::{ListOffsetsPartition, ListOffsetsRequest, OffsetSpec, SubscribeRequest};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::frame::Durability;
use corrente_protocol::ids::TopicId;

use self::credit::{Credit, Room};
use self::partition::{Partition, State};
use self::partitions::Partitions;
pub use self::settings::{ConsumerSettings, OutOfRange, StartOffset};
use self::subscription::Subscription;
use super::ConsumerId;
use super::call::missing;
use super::connection::{Answer, ConnectionId, Destination};
use super::hub::{Hub, decode};
use super::inbox::Inbox;
use super::owner::Owner;
use super::time::Micros;
use super::timers::Timer;
use crate::error::{Error, ErrorKind};

/// Whose answers of a subscription are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subscriber {
    consumer: ConsumerId,
    destination: Destination,
}

/// A question for offsets on its way.
#[derive(Debug)]
pub(crate) struct OffsetsFlight {
    consumer: ConsumerId,
    asked: Vec<(usize, OffsetSpec)>,
}

/// A place in `partitions` is in the state `Subscribed` of a destination only if the subscription there covers it.
struct Consumer {
    inbox: Arc<Inbox>,
    settings: ConsumerSettings,
    partitions: Partitions,
    created_at: Micros,
    subscriptions: BTreeMap<Destination, Subscription>,
    timer: Option<Micros>,
    /// Its owner is gone; it stays until its subscriptions have ended.
    is_abandoned: bool,
    dirty: bool,
}

#[derive(Default)]
pub(crate) struct Consumers {
    consumers: BTreeMap<ConsumerId, Consumer>,
}

impl Consumers {
    pub(crate) fn add(
        &mut self,
        now: Micros,
        hub: &mut Hub,
        id: ConsumerId,
        settings: ConsumerSettings,
    ) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox::new());
        let partitions = settings.partitions.iter().map(|(topic, index, start)| {
            hub.metadata.attend(topic);
            Partition::new(topic, *index, *start, now)
        });
        let consumer = Consumer {
            inbox: Arc::clone(&inbox),
            partitions: Partitions::new(partitions.collect()),
            settings,
            created_at: now,
            subscriptions: BTreeMap::new(),
            timer: None,
            is_abandoned: false,
            dirty: true,
        };
        let before = self.consumers.insert(id, consumer);
        assert!(before.is_none(), "consumer {} was added twice", id.0);
        inbox
    }

    /// Looks whether room was made, or consumers were abandoned.
    pub(crate) fn look(&mut self, hub: &mut Hub) {
        for consumer in self.consumers.values_mut() {
            if consumer.inbox.take_news() {
                consumer.dirty = true;
                if consumer.inbox.is_abandoned() && !consumer.is_abandoned {
                    consumer.abandon(hub);
                }
            }
        }
    }

    pub(crate) fn due(&mut self, id: ConsumerId) {
        if let Some(consumer) = self.consumers.get_mut(&id) {
            consumer.timer = None;
            consumer.dirty = true;
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.consumers.is_empty()
    }

    /// Something can be done at once.
    pub(crate) fn is_dirty(&self) -> bool {
        self.consumers.values().any(|consumer| consumer.dirty)
    }

    pub(crate) fn pump(&mut self, now: Micros, hub: &mut Hub) {
        for (id, consumer) in &mut self.consumers {
            if std::mem::take(&mut consumer.dirty) || hub.changed {
                consumer.pump(now, hub, *id);
            }
        }
        self.consumers.retain(|_, consumer| !consumer.is_abandoned || !consumer.subscriptions.is_empty());
    }

    pub(crate) fn offsets_answered(
        &mut self,
        now: Micros,
        hub: &mut Hub,
        flight: OffsetsFlight,
        answer: &Answer,
    ) {
        let Some(consumer) = self.consumers.get_mut(&flight.consumer) else { return };
        consumer.dirty = true;
        let response = match decode::<ListOffsetsRequest>(answer) {
            Ok(response) if response.partitions.len() == flight.asked.len() => response,
            Ok(response) => {
                let (asked, answered) = (flight.asked.len(), response.partitions.len());
                let cause = format!("{asked} offsets asked for, {answered} answered");
                return consumer.offsets_failed(
                    now,
                    hub,
                    &flight,
                    &Error::new(ErrorKind::Corrupt, "list offsets", cause),
                );
            }
            Err(error) => return consumer.offsets_failed(now, hub, &flight, &error),
        };
        for ((place, spec), found) in flight.asked.iter().zip(response.partitions) {
            if found.error != ErrorCode::None {
                let error = Error::from_code(found.error, "list offsets", found.message.as_deref());
                consumer.failed(now, hub, *place, &error);
                continue;
            }
            consumer.offset_found(*place, *spec, found.offset);
        }
    }

    pub(crate) fn offsets_lost(&mut self, now: Micros, hub: &mut Hub, flight: &OffsetsFlight, error: &Error) {
        let Some(consumer) = self.consumers.get_mut(&flight.consumer) else { return };
        consumer.dirty = true;
        flight.asked.iter().for_each(|(place, _)| consumer.try_again(now, hub, *place, error));
    }

    /// An answer of a subscription; the last one, if it does not say that more follow. An error means that the broker
    /// does not keep to what was agreed.
    pub(crate) fn sent(
        &mut self,
        now: Micros,
        hub: &mut Hub,
        subscriber: Subscriber,
        answer: &Answer,
    ) -> Result<(), Error> {
        let Some(consumer) = self.consumers.get_mut(&subscriber.consumer) else { return Ok(()) };
        consumer.dirty = true;
        consumer.sent(now, hub, subscriber.destination, answer)
    }

    pub(crate) fn subscription_lost(
        &mut self,
        now: Micros,
        hub: &mut Hub,
        subscriber: Subscriber,
        error: &Error,
    ) {
        let Some(consumer) = self.consumers.get_mut(&subscriber.consumer) else { return };
        consumer.dirty = true;
        for place in consumer.ended(subscriber.destination) {
            consumer.try_again(now, hub, place, error);
        }
    }

    /// The client ends.
    pub(crate) fn close(&mut self) {
        for consumer in std::mem::take(&mut self.consumers).into_values() {
            consumer.inbox.put(Err(Error::closed("fetch")));
            consumer.inbox.end();
        }
    }
}

/// What idle partitions want, by the shard that leads them.
#[derive(Default)]
struct Wishes {
    offsets: BTreeMap<Destination, (ConnectionId, Vec<Ask>)>,
    subscriptions: BTreeMap<Destination, (ConnectionId, Vec<Ask>)>,
    /// When those have to be looked at that must wait.
    look_again: Option<Micros>,
}

/// A partition to ask about.
struct Ask {
    place: usize,
    topic: TopicId,
}

impl Consumer {
    fn pump(&mut self, now: Micros, hub: &mut Hub, id: ConsumerId) {
        let wishes = self.wishes(now, hub);
        for (connection, asks) in wishes.offsets.into_values() {
            self.ask_offsets(now, hub, id, connection, &asks);
        }
        let held = self.inbox.held();
        let mut tell_below = None;
        for (destination, (connection, asks)) in wishes.subscriptions {
            let room = self.room(destination, held);
            if let Some(open) = self.subscriptions.get_mut(&destination) {
                open.end(now, hub);
            } else if let Some(credit) = Credit::NONE.wanted(&room) {
                self.subscribe(now, hub, Subscriber { consumer: id, destination }, connection, &asks, credit);
            } else {
                tell_below = tell_below.max(Credit::NONE.wanted_below(&room));
            }
        }
        let open: Vec<Destination> = self.subscriptions.keys().copied().collect();
        for destination in open {
            tell_below = tell_below.max(self.top_up(now, hub, destination, held));
        }
        if self.partitions.are_all_done() {
            self.subscriptions.values_mut().for_each(|open| open.end(now, hub));
            self.inbox.end();
        }
        // What was taken since may be what was waited for.
        self.dirty |= self.inbox.tell_below(tell_below, held);
        if let Some(at) = wishes.look_again {
            self.set_timer(hub, id, at);
        }
    }

    /// What the idle partitions want now.
    fn wishes(&mut self, now: Micros, hub: &mut Hub) -> Wishes {
        let mut wishes = Wishes::default();
        for place in self.partitions.idle() {
            let partition = &mut self.partitions[place];
            if partition.not_before > now {
                let at = partition.not_before;
                wishes.look_again = Some(wishes.look_again.map_or(at, |earliest| earliest.min(at)));
                continue;
            }
            if partition.has_reached_end() {
                self.partitions.enter(place, State::Done);
                continue;
            }
            let Partition { topic, index, .. } = partition;
            if let Some(error) =
                missing(now, hub, self.created_at, hub.settings.request_timeout, topic, *index)
            {
                self.give_up(place, error);
                continue;
            }
            let Some(route) = hub.route(topic, *index) else { continue };
            if *partition.topic_id.get_or_insert(route.topic) != route.topic {
                let cause = "the topic was deleted and another one has its name; start anew to read that one";
                self.give_up(place, Error::new(ErrorKind::TopicNotFound, "fetch", cause));
                continue;
            }
            self.partitions.lies_at(place, route.destination);
            let Some(connection) = hub.ready(now, route.destination) else { continue };
            let by_destination = match self.wants_offsets(place) {
                true => &mut wishes.offsets,
                false => &mut wishes.subscriptions,
            };
            let (_, asks) =
                by_destination.entry(route.destination).or_insert_with(|| (connection, Vec::new()));
            asks.push(Ask { place, topic: route.topic });
        }
        wishes
    }

    fn wants_offsets(&self, place: usize) -> bool {
        let partition = &self.partitions[place];
        let wants_end = self.settings.until_end && partition.stop_at.is_none();
        partition.position.is_none() || wants_end || partition.is_suspect
    }

    fn ask_offsets(
        &mut self,
        now: Micros,
        hub: &mut Hub,
        id: ConsumerId,
        connection: ConnectionId,
        asks: &[Ask],
    ) {
        let mut asked = Vec::new();
        let mut partitions = Vec::new();
        for ask in asks {
            self.partitions.enter(ask.place, State::Asked);
            let partition = &self.partitions[ask.place];
            let start = partition.start.spec().filter(|_| partition.position.is_none());
            let wants_end = self.settings.until_end && partition.stop_at.is_none();
            let end = (wants_end || partition.is_suspect).then_some(OffsetSpec::Latest);
            let mut specs: Vec<OffsetSpec> = start.into_iter().chain(end).collect();
            specs.dedup();
            for spec in specs {
                asked.push((ask.place, spec));
                partitions.push(ListOffsetsPartition { topic: ask.topic, partition: partition.index, spec });
            }
        }
        let owner = Owner::Offsets(OffsetsFlight { consumer: id, asked });
        let timeout = hub.settings.request_timeout;
        let request = ListOffsetsRequest { partitions };
        if let Err((too_large, _)) = hub.send(now, connection, &request, Durability::Received, timeout, owner)
        {
            asks.iter().for_each(|ask| self.give_up(ask.place, too_large.error("list offsets")));
        }
    }

    fn subscribe(
        &mut self,
        now: Micros,
        hub: &mut Hub,
        subscriber: Subscriber,
        connection: ConnectionId,
        asks: &[Ask],
        credit: u32,
    ) {
        let heartbeat = self.settings.heartbeat;
        let request = SubscribeRequest {
            heartbeat_ms: u32::try_from(heartbeat.as_millis()).unwrap_or(u32::MAX),
            credit,
            max_bytes: u32::try_from(self.settings.answer_bytes_max).unwrap_or(u32::MAX),
            partitions: asks.iter().map(|ask| self.partitions[ask.place].wanted(ask.topic)).collect(),
        };
        let owner = Owner::Subscription(subscriber);
        let timeout = hub.settings.request_timeout + heartbeat;
        match hub.send(now, connection, &request, Durability::Received, timeout, owner) {
            Ok(correlation) => {
                let mut places = BTreeMap::new();
                for Ask { place, topic } in asks {
                    self.partitions.enter(*place, State::Subscribed(subscriber.destination));
                    places.insert((*topic, self.partitions[*place].index), *place);
                }
                let open = Subscription::new(connection, correlation, places, credit);
                let before = self.subscriptions.insert(subscriber.destination, open);
                assert!(before.is_none(), "{:?} is subscribed to twice", subscriber.destination);
            }
            Err((too_large, _)) => {
                asks.iter().for_each(|ask| self.give_up(ask.place, too_large.error("subscribe")));
            }
        }
    }

    /// What decides about the credit of the subscription to a destination, open or not.
    fn room(&self, destination: Destination, held: usize) -> Room {
        let others = self.subscriptions.iter().filter(|(other, _)| **other != destination);
        let elsewhere = others.map(|(_, open)| open.credit.outstanding()).sum();
        let subscriptions = self.partitions.destinations().max(1);
        // Each must have some.
        let total = self.settings.prefetch_bytes.max(subscriptions);
        Room { total, held, elsewhere, subscriptions }
    }

    /// Gives a subscription the credit it should have, or says how little must be held for that. One that covers
    /// what it should not, or has more than its share of what there are now, is ended; another will take its place.
    fn top_up(&mut self, now: Micros, hub: &mut Hub, destination: Destination, held: usize) -> Option<usize> {
        let room = self.room(destination, held);
        let open = self.subscriptions.get_mut(&destination).expect("the caller found it");
        if open.is_stale || open.credit.outstanding() > room.share() {
            open.end(now, hub);
        }
        if open.ends {
            return None;
        }
        let Some(more) = open.credit.wanted(&room) else { return open.credit.wanted_below(&room) };
        open.give(now, hub, more);
        None
    }

    /// A subscription is over; those of its partitions that are not done can be subscribed to again. Their places.
    fn ended(&mut self, destination: Destination) -> Vec<usize> {
        let left = self.covered(destination);
        self.subscriptions.remove(&destination);
        left.iter().for_each(|place| self.partitions.enter(*place, State::Idle));
        left
    }

    /// The places that the subscription to a destination covers now.
    fn covered(&self, destination: Destination) -> Vec<usize> {
        let places = self.subscriptions.get(&destination).into_iter().flat_map(|open| open.places.values());
        let is_covered = |place: &usize| self.partitions[*place].state() == State::Subscribed(destination);
        places.copied().filter(is_covered).collect()
    }

    fn abandon(&mut self, hub: &mut Hub) {
        self.is_abandoned = true;
        self.partitions.iter().for_each(|partition| hub.metadata.neglect(&partition.topic));
        (0..self.settings.partitions.len()).for_each(|place| self.partitions.enter(place, State::Done));
    }

    fn set_timer(&mut self, hub: &mut Hub, id: ConsumerId, at: Micros) {
        match self.timer {
            Some(set) if set <= at => {}
            set => {
                if let Some(set) = set {
                    hub.timers.cancel(set, Timer::Consumer(id));
                }
                hub.timers.set(at, Timer::Consumer(id));
                self.timer = Some(at);
            }
        }
    }
}
