//! Consumers: one subscription for each shard that leads some of their partitions, with credit while there is room.
//!
//! Positions advance when batches arrive and their checksums hold, never before; a broken connection repeats from the
//! position. Disconnects, moved leaders and busy brokers are ridden through for as long as it takes.
//!
//! What a subscription covers never changes. When a partition wants to join a shard that is subscribed already, or the
//! credit that is out there has become more than its share, that subscription is ended and another one opened for all.

mod credit;
mod partition;
mod settings;
mod subscription;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use corrente_protocol::api::{
    AdjustSubscriptionRequest, FetchPartitionResponse, ListOffsetsPartition, ListOffsetsRequest, OffsetSpec,
    SubscribeRequest,
};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::frame::Durability;
use corrente_protocol::ids::{Offset, TopicId};

use self::credit::{Credit, Room};
use self::partition::{Partition, State};
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

struct Consumer {
    inbox: Arc<Inbox>,
    settings: ConsumerSettings,
    partitions: Vec<Partition>,
    created_at: Micros,
    subscriptions: BTreeMap<Destination, Subscription>,
    timer: Option<Micros>,
    dirty: bool,
}

#[derive(Default)]
pub(crate) struct Consumers {
    consumers: BTreeMap<ConsumerId, Consumer>,
}

/// Batches that fail their checks are asked for again this often before the consumer is told.
const DAMAGED_ATTEMPTS_MAX: u32 = 3;

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
            partitions: partitions.collect(),
            settings,
            created_at: now,
            subscriptions: BTreeMap::new(),
            timer: None,
            dirty: true,
        };
        let before = self.consumers.insert(id, consumer);
        assert!(before.is_none(), "consumer {} was added twice", id.0);
        inbox
    }

    /// Looks whether room was made, and forgets consumers that are gone.
    pub(crate) fn look(&mut self, now: Micros, hub: &mut Hub) {
        self.consumers.retain(|_, consumer| {
            if consumer.inbox.take_news() {
                consumer.dirty = true;
                if consumer.inbox.is_abandoned() {
                    consumer.partitions.iter().for_each(|partition| hub.metadata.neglect(&partition.topic));
                    consumer.end_all(now, hub);
                    return false;
                }
            }
            true
        });
    }

    pub(crate) fn due(&mut self, id: ConsumerId) {
        if let Some(consumer) = self.consumers.get_mut(&id) {
            consumer.timer = None;
            consumer.dirty = true;
        }
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

    /// An answer of a subscription; the last one, if it does not say that more follow.
    pub(crate) fn sent(&mut self, now: Micros, hub: &mut Hub, subscriber: Subscriber, answer: &Answer) {
        let Some(consumer) = self.consumers.get_mut(&subscriber.consumer) else { return };
        consumer.dirty = true;
        match decode::<SubscribeRequest>(answer) {
            Ok(response) if response.partitions.is_empty() => consumer.are_well(subscriber.destination),
            Ok(response) => {
                for sent in response.partitions {
                    consumer.took(now, hub, subscriber.destination, sent);
                }
            }
            Err(error) => consumer.subscription_failed(now, hub, subscriber.destination, &error),
        }
        if !answer.header.has_more() {
            consumer.ended(subscriber.destination);
        }
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
    /// Where they are, a connection or none.
    destinations: BTreeSet<Destination>,
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
        let count = self.subscriptions.keys().chain(&wishes.destinations).collect::<BTreeSet<_>>().len();
        let held = self.inbox.held();
        let mut tell_below = None;
        for (destination, (connection, asks)) in wishes.subscriptions {
            let room = self.room(destination, held, count);
            if self.subscriptions.contains_key(&destination) {
                self.end(now, hub, destination);
            } else if let Some(credit) = Credit::NONE.wanted(&room) {
                self.subscribe(now, hub, Subscriber { consumer: id, destination }, connection, &asks, credit);
            } else {
                tell_below = tell_below.max(Credit::NONE.wanted_below(&room));
            }
        }
        let open: Vec<Destination> = self.subscriptions.keys().copied().collect();
        for destination in open {
            tell_below = tell_below.max(self.top_up(now, hub, destination, held, count));
        }
        if self.partitions.iter().all(|partition| partition.state == State::Done) {
            self.end_all(now, hub);
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
        for place in 0..self.partitions.len() {
            let partition = &mut self.partitions[place];
            if partition.state != State::Idle {
                continue;
            }
            if partition.not_before > now {
                let at = partition.not_before;
                wishes.look_again = Some(wishes.look_again.map_or(at, |earliest| earliest.min(at)));
                continue;
            }
            if partition.has_reached_end() {
                partition.state = State::Done;
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
            wishes.destinations.insert(route.destination);
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
        partition.position.is_none() || (self.settings.until_end && partition.stop_at.is_none())
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
            let partition = &mut self.partitions[ask.place];
            partition.state = State::Asked;
            let start = partition.start.spec().filter(|_| partition.position.is_none());
            let end = (self.settings.until_end && partition.stop_at.is_none()).then_some(OffsetSpec::Latest);
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
        let mut places = BTreeMap::new();
        let mut partitions = Vec::with_capacity(asks.len());
        for ask in asks {
            let partition = &mut self.partitions[ask.place];
            places.insert((ask.topic, partition.index), ask.place);
            partitions.push(partition.subscribe(ask.topic));
        }
        let heartbeat = self.settings.heartbeat;
        let request = SubscribeRequest {
            heartbeat_ms: u32::try_from(heartbeat.as_millis()).unwrap_or(u32::MAX),
            credit,
            max_bytes: u32::try_from(self.settings.answer_bytes_max).unwrap_or(u32::MAX),
            partitions,
        };
        let owner = Owner::Subscription(subscriber);
        let timeout = hub.settings.request_timeout + heartbeat;
        match hub.send(now, connection, &request, Durability::Received, timeout, owner) {
            Ok(correlation) => {
                let mut given = Credit::NONE;
                given.give(credit);
                let subscription = Subscription {
                    connection,
                    correlation,
                    places,
                    credit: given,
                    is_stale: false,
                    ends: false,
                };
                self.subscriptions.insert(subscriber.destination, subscription);
            }
            Err((too_large, _)) => {
                asks.iter().for_each(|ask| self.give_up(ask.place, too_large.error("subscribe")));
            }
        }
    }

    fn room(&self, destination: Destination, held: usize, subscriptions: usize) -> Room {
        let others = self.subscriptions.iter().filter(|(other, _)| **other != destination);
        let elsewhere = others.map(|(_, subscription)| subscription.credit.outstanding()).sum();
        // Each must have some.
        let total = self.settings.prefetch_bytes.max(subscriptions);
        Room { total, held, elsewhere, subscriptions }
    }

    /// Gives a subscription the credit it should have, or says how little must be held for that. One that covers
    /// what it should not, or has more than its share of what there are now, is ended; another will take its place.
    fn top_up(
        &mut self,
        now: Micros,
        hub: &mut Hub,
        destination: Destination,
        held: usize,
        count: usize,
    ) -> Option<usize> {
        let room = self.room(destination, held, count);
        let subscription = self.subscriptions.get_mut(&destination).expect("the caller found it");
        if subscription.ends {
            return None;
        }
        if subscription.is_stale || subscription.credit.outstanding() > room.share() {
            self.end(now, hub, destination);
            return None;
        }
        let Some(more) = subscription.credit.wanted(&room) else {
            return subscription.credit.wanted_below(&room);
        };
        subscription.credit.give(more);
        adjust(now, hub, subscription, more, false);
        None
    }

    /// Has the broker end a subscription; its last answer is still to come.
    fn end(&mut self, now: Micros, hub: &mut Hub, destination: Destination) {
        let subscription = self.subscriptions.get_mut(&destination).expect("the caller found it");
        if !std::mem::replace(&mut subscription.ends, true) {
            adjust(now, hub, subscription, 0, true);
        }
    }

    fn end_all(&mut self, now: Micros, hub: &mut Hub) {
        let open: Vec<Destination> = self.subscriptions.keys().copied().collect();
        open.into_iter().for_each(|destination| self.end(now, hub, destination));
    }

    /// A subscription is over; those of its partitions that are not done can be subscribed to again.
    fn ended(&mut self, destination: Destination) -> Vec<usize> {
        let Some(subscription) = self.subscriptions.remove(&destination) else { return Vec::new() };
        let is_left = |place: &usize| self.partitions[*place].state == State::Subscribed;
        let left: Vec<usize> = subscription.places.into_values().filter(is_left).collect();
        left.iter().for_each(|place| self.partitions[*place].state = State::Idle);
        left
    }

    /// The places of a subscription that it still covers.
    fn covered(&self, destination: Destination) -> Vec<usize> {
        let places = self.subscriptions.get(&destination).into_iter().flat_map(|open| open.places.values());
        places.copied().filter(|place| self.partitions[*place].state == State::Subscribed).collect()
    }

    /// Nothing is wrong with any partition of a subscription.
    fn are_well(&mut self, destination: Destination) {
        self.covered(destination).into_iter().for_each(|place| self.partitions[place].is_well());
    }

    fn subscription_failed(&mut self, now: Micros, hub: &mut Hub, destination: Destination, error: &Error) {
        self.covered(destination).into_iter().for_each(|place| self.failed(now, hub, place, error));
        self.set_stale(destination);
    }

    fn set_stale(&mut self, destination: Destination) {
        if let Some(subscription) = self.subscriptions.get_mut(&destination) {
            subscription.is_stale = true;
        }
    }

    fn offset_found(&mut self, place: usize, spec: OffsetSpec, offset: Offset) {
        let partition = &mut self.partitions[place];
        partition.state = State::Idle;
        partition.failures = 0;
        if partition.position.is_none() && Some(spec) == partition.start.spec() {
            partition.position = Some(offset);
        }
        if self.settings.until_end && partition.stop_at.is_none() && spec == OffsetSpec::Latest {
            partition.stop_at = Some(offset);
        }
    }

    /// Takes in what was sent of one partition.
    fn took(&mut self, now: Micros, hub: &mut Hub, destination: Destination, sent: FetchPartitionResponse) {
        let Some(subscription) = self.subscriptions.get_mut(&destination) else { return };
        subscription.credit.use_up(sent.batches.iter().map(bytes::Bytes::len).sum());
        let Some(place) = subscription.places.get(&(sent.topic, sent.partition)).copied() else {
            let cause = format!("partition {} was sent, which is not subscribed to", sent.partition);
            let error = Error::new(ErrorKind::Corrupt, "subscribe", cause);
            return self.subscription_failed(now, hub, destination, &error);
        };
        // What is still on its way for one that failed, or ended, is not wanted.
        if self.partitions[place].state == State::Subscribed {
            self.took_for(now, hub, place, sent);
            let partition = &self.partitions[place];
            if partition.state != State::Subscribed && !partition.has_reached_end() {
                self.set_stale(destination);
            }
        }
    }

    fn took_for(&mut self, now: Micros, hub: &mut Hub, place: usize, sent: FetchPartitionResponse) {
        let partition = &mut self.partitions[place];
        if sent.error == ErrorCode::OffsetOutOfRange
            && let Some(start) = partition.new_start(self.settings.out_of_range)
        {
            return partition.start_at(start);
        }
        if sent.error != ErrorCode::None {
            let error = Error::from_code(sent.error, "fetch", sent.message.as_deref());
            return self.failed(now, hub, place, &error);
        }
        partition.is_well();
        for run in sent.batches.into_iter().filter(|run| !run.is_empty()) {
            let (fetched, checked) = self.partitions[place].take_in(run, sent.high_watermark);
            if let Some(fetched) = fetched {
                tracing::trace!(from = fetched.from.0, bytes = fetched.bytes, "sent");
                self.inbox.put(Ok(fetched));
            }
            if let Err(error) = checked {
                return self.damaged(now, hub, place, error);
            }
        }
        let partition = &mut self.partitions[place];
        partition.damaged = 0;
        if partition.has_reached_end() {
            partition.state = State::Done;
        }
    }

    /// Bytes may have been damaged on the way: they are asked for again a few times.
    fn damaged(&mut self, now: Micros, hub: &mut Hub, place: usize, error: Error) {
        self.partitions[place].damaged += 1;
        if self.partitions[place].damaged >= DAMAGED_ATTEMPTS_MAX {
            return self.give_up(place, error);
        }
        self.try_again(now, hub, place, &error);
    }

    fn failed(&mut self, now: Micros, hub: &mut Hub, place: usize, error: &Error) {
        if !error.is_retryable() {
            return self.give_up(place, error.clone());
        }
        let Partition { topic, index, .. } = &self.partitions[place];
        hub.metadata.forget_leader(topic, *index);
        self.try_again(now, hub, place, error);
    }

    fn offsets_failed(&mut self, now: Micros, hub: &mut Hub, flight: &OffsetsFlight, error: &Error) {
        flight.asked.iter().for_each(|(place, _)| self.failed(now, hub, *place, error));
    }

    fn try_again(&mut self, now: Micros, hub: &mut Hub, place: usize, error: &Error) {
        let partition = &mut self.partitions[place];
        if partition.state == State::Done {
            return;
        }
        tracing::debug!(topic = %partition.topic, partition = partition.index.0, %error, "fetching again");
        partition.state = State::Idle;
        partition.failures = partition.failures.saturating_add(1);
        partition.not_before = now + hub.settings.retry.wait(partition.failures, &mut hub.rng);
    }

    /// Tells the owner, once, and leaves the partition alone.
    fn give_up(&mut self, place: usize, error: Error) {
        let partition = &mut self.partitions[place];
        if partition.state == State::Done {
            return;
        }
        partition.state = State::Done;
        self.dirty = true;
        let error = error.operation("fetch").topic(&partition.topic).partition(partition.index.0);
        self.inbox.put(Err(error));
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

/// Says something about a subscription to its broker. The answer is of no interest: if the subscription was over, its
/// last answer is on its way.
fn adjust(now: Micros, hub: &mut Hub, subscription: &Subscription, credit: u32, ends: bool) {
    let request = AdjustSubscriptionRequest { subscription: subscription.correlation, credit, ends };
    let timeout = hub.settings.request_timeout;
    let sent =
        hub.send(now, subscription.connection, &request, Durability::Received, timeout, Owner::Adjustment);
    assert!(sent.is_ok(), "an adjustment is a few bytes");
}
