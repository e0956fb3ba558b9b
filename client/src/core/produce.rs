//! Producers: which batch goes out when, what happens to it when it comes back or does not.
//!
//! Order of a partition is kept by having at most one batch of it in flight: the next is chosen only after the answer,
//! and a batch that has to be tried again stands before everything younger. Batches gather meanwhile. Partitions of
//! one shard that are ready together share a request. A batch is sealed, with its sequence, when it is first sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corrente_protocol::api::{
    InitProducerIdRequest, InitProducerIdResponse, ProducePartition, ProducePartitionResponse,
    ProduceRequest, ProduceResponse,
};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::frame::Durability;
use corrente_protocol::ids::{PartitionIndex, TopicId};
use corrente_protocol::record_batch::UnsealedBatch;

use super::accumulator::{Accumulator, FullBatch, ProducerSettings};
use super::completion::BatchReceipt;
use super::connection::{Answer, ConnectionId, Destination};
use super::hub::{Hub, decode};
use super::identity::{Identity, Sequences};
use super::owner::Owner;
use super::time::Micros;
use super::timers::Timer;
use super::{Action, ProducerId};
use crate::error::{Error, ErrorKind};

/// A request of a producer on its way: its batches, in the order of the request.
#[derive(Debug)]
pub(crate) struct ProduceFlight {
    producer: ProducerId,
    broker: Option<Arc<str>>,
    batches: Vec<(TopicId, Attempt)>,
}

/// Whoever waits is told of a batch that was sent so often: a second or two, with the usual waits.
const ATTEMPTS_UNTIL_TOLD: u32 = 7;

/// A batch that was taken from the accumulator and is not settled.
#[derive(Debug)]
struct Attempt {
    partition: PartitionIndex,
    batch: FullBatch,
    /// As it goes on the wire; empty until it is sealed.
    bytes: Bytes,
    /// Under which id it was sealed; -1 without one.
    producer_id: i64,
    /// How often it was sent.
    attempts: u32,
    maybe_applied: bool,
    broker: Option<Arc<str>>,
    last: Option<Error>,
}

/// One partition, as the core sees it. Idle, or one of its batches is in flight, or one waits to be sent again.
#[derive(Debug, Default)]
struct Lane {
    in_flight: bool,
    again: Option<Attempt>,
    not_before: Micros,
    sequences: Sequences,
}

struct Producer {
    accumulator: Arc<Accumulator>,
    identity: Identity,
    lanes: BTreeMap<PartitionIndex, Lane>,
    /// Partitions with nothing in flight that have, or may have, something to send.
    ready: BTreeSet<PartitionIndex>,
    /// When the producer's timer is set, so that it is not set again and again.
    timer: Option<Micros>,
    dirty: bool,
}

#[derive(Default)]
pub(crate) struct Producers {
    producers: BTreeMap<ProducerId, Producer>,
}

impl Producers {
    pub(crate) fn add(
        &mut self,
        hub: &mut Hub,
        id: ProducerId,
        settings: ProducerSettings,
        partitions: u32,
    ) -> Arc<Accumulator> {
        hub.metadata.attend(&settings.topic);
        let accumulator = Arc::new(Accumulator::new(settings, partitions, hub.rng.u64(..)));
        let producer = Producer {
            accumulator: Arc::clone(&accumulator),
            identity: Identity::new(accumulator.settings().idempotent),
            lanes: BTreeMap::new(),
            ready: BTreeSet::new(),
            timer: None,
            dirty: false,
        };
        let before = self.producers.insert(id, producer);
        assert!(before.is_none(), "producer {} was added twice", id.0);
        accumulator
    }

    /// Looks what the callers have pushed, and forgets producers that nobody holds and that are done.
    pub(crate) fn look(&mut self, hub: &mut Hub) {
        self.producers.retain(|_, producer| {
            if let Some(news) = producer.accumulator.take_news() {
                producer.ready.extend(news);
                producer.dirty = true;
                if producer.accumulator.is_abandoned() {
                    hub.metadata.neglect(&producer.accumulator.settings().topic);
                    return false;
                }
            }
            true
        });
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    pub(crate) fn due(&mut self, id: ProducerId) {
        if let Some(producer) = self.producers.get_mut(&id) {
            producer.timer = None;
            producer.dirty = true;
        }
    }

    /// Something can be done at once.
    pub(crate) fn is_dirty(&self) -> bool {
        self.producers.values().any(|producer| producer.dirty)
    }

    pub(crate) fn pump(&mut self, now: Micros, hub: &mut Hub) {
        for (id, producer) in &mut self.producers {
            if std::mem::take(&mut producer.dirty) || hub.changed {
                producer.pump(now, hub, *id);
            }
        }
    }

    pub(crate) fn answered(&mut self, now: Micros, hub: &mut Hub, flight: ProduceFlight, answer: &Answer) {
        let Some(producer) = self.producers.get_mut(&flight.producer) else { return };
        match decode::<ProduceRequest>(answer).and_then(|response| matching(&flight, response)) {
            Ok(outcomes) => {
                for ((_, attempt), outcome) in flight.batches.into_iter().zip(outcomes) {
                    producer.answered(now, hub, flight.producer, attempt, outcome);
                }
            }
            Err(error) => {
                // What the broker did with a request it answered like this is not known.
                let unknown = error.kind() == ErrorKind::Corrupt;
                for (_, mut attempt) in flight.batches {
                    attempt.maybe_applied |= unknown;
                    producer.failed(now, hub, flight.producer, attempt, error.clone());
                }
            }
        }
        producer.dirty = true;
    }

    /// The connection broke, or the request's time ran out.
    pub(crate) fn lost(&mut self, now: Micros, hub: &mut Hub, flight: ProduceFlight, error: &Error) {
        let Some(producer) = self.producers.get_mut(&flight.producer) else { return };
        for (_, mut attempt) in flight.batches {
            attempt.maybe_applied = true;
            producer.try_again(now, hub, flight.producer, attempt, error.clone());
        }
        producer.dirty = true;
    }

    /// A broker gave the producer its id, or none.
    pub(crate) fn identified(&mut self, now: Micros, hub: &mut Hub, id: ProducerId, answer: &Answer) {
        let Some(producer) = self.producers.get_mut(&id) else { return };
        match decode::<InitProducerIdRequest>(answer).and_then(known) {
            Ok(identity) => {
                producer.identity = identity;
                producer.dirty = true;
            }
            Err(error) => producer.unidentified(now, hub, error),
        }
    }

    /// The request for an id was lost.
    pub(crate) fn identity_lost(&mut self, now: Micros, hub: &mut Hub, id: ProducerId, error: &Error) {
        if let Some(producer) = self.producers.get_mut(&id) {
            producer.unidentified(now, hub, error.clone());
        }
    }

    /// The client ends: everything that is left fails.
    pub(crate) fn close(&mut self, now: Micros, hub: &mut Hub) {
        for (id, mut producer) in std::mem::take(&mut self.producers) {
            producer.accumulator.close(Error::closed("produce"));
            producer.ready.extend(producer.accumulator.take_news().unwrap_or_default());
            let lanes = std::mem::take(&mut producer.lanes);
            let partitions: BTreeSet<PartitionIndex> =
                lanes.keys().copied().chain(producer.ready.clone()).collect();
            for attempt in lanes.into_values().filter_map(|lane| lane.again) {
                producer.settle(now, hub, id, attempt, Err(Error::closed("produce")));
            }
            for partition in partitions {
                while let Some(batch) = producer.accumulator.take(partition) {
                    let attempt = Attempt::new(partition, batch);
                    producer.settle(now, hub, id, attempt, Err(Error::closed("produce")));
                }
            }
        }
    }
}

impl Attempt {
    fn new(partition: PartitionIndex, batch: FullBatch) -> Attempt {
        Attempt {
            partition,
            batch,
            bytes: Bytes::new(),
            producer_id: -1,
            attempts: 0,
            maybe_applied: false,
            broker: None,
            last: None,
        }
    }
}

/// What a look at a ready partition came to.
enum Readiness {
    /// Nothing to send any more.
    Empty,
    /// Look again at this moment.
    Wait(Micros),
    /// Look again when something changed, at this moment at the latest.
    Stuck(Micros),
    Send(TopicId, Destination, ConnectionId),
}

impl Producer {
    /// Sends what can be sent. What is left in `ready` waits for time, a leader, or a connection.
    fn pump(&mut self, now: Micros, hub: &mut Hub, id: ProducerId) {
        if let Some(known) = hub.metadata.topic(&self.accumulator.settings().topic) {
            self.accumulator.grow(known.partitions());
        }
        self.ask_for_identity(now, hub, id);
        let mut requests: BTreeMap<Destination, (ConnectionId, Vec<(TopicId, Attempt)>)> = BTreeMap::new();
        let mut look_again: Option<Micros> = None;
        for partition in self.ready.iter().copied().collect::<Vec<_>>() {
            match self.look_at(now, hub, id, partition) {
                Readiness::Empty => {
                    self.ready.remove(&partition);
                }
                Readiness::Wait(at) | Readiness::Stuck(at) => {
                    look_again = Some(look_again.map_or(at, |earliest| earliest.min(at)));
                }
                Readiness::Send(topic, destination, connection) => {
                    self.ready.remove(&partition);
                    let Some(mut attempt) = self.take(partition) else { continue };
                    self.seal(&mut attempt);
                    let (_, batches) =
                        requests.entry(destination).or_insert_with(|| (connection, Vec::new()));
                    batches.push((topic, attempt));
                }
            }
        }
        for (connection, batches) in requests.into_values() {
            self.send(now, hub, id, connection, batches);
        }
        if let Some(at) = look_again {
            self.set_timer(hub, id, at);
        }
    }

    fn look_at(
        &mut self,
        now: Micros,
        hub: &mut Hub,
        id: ProducerId,
        partition: PartitionIndex,
    ) -> Readiness {
        let settings = self.accumulator.settings();
        let (linger, delivery_timeout, topic) =
            (settings.linger, settings.delivery_timeout, settings.topic.clone());
        let lane = self.lanes.entry(partition).or_default();
        if lane.in_flight {
            // Looked at again when the answer is here.
            return Readiness::Empty;
        }
        let (opened_at, may_go_at) = match &lane.again {
            Some(attempt) => (attempt.batch.opened_at, lane.not_before),
            None => match self.accumulator.head(partition) {
                None => return Readiness::Empty,
                Some(head) if head.due => (head.opened_at, now),
                Some(head) => (head.opened_at, head.opened_at + linger),
            },
        };
        let deadline = opened_at + delivery_timeout;
        if now >= deadline {
            self.expire(now, hub, id, partition);
            return Readiness::Wait(now);
        }
        if now < may_go_at {
            return Readiness::Wait(may_go_at.min(deadline));
        }
        let is_sealed = lane.again.as_ref().is_some_and(|attempt| !attempt.bytes.is_empty());
        if !is_sealed && !self.identity.is_settled() {
            return self.without_identity(now, hub, id, partition, deadline);
        }
        let Some(route) = hub.route(&topic, partition) else { return Readiness::Stuck(deadline) };
        match hub.ready(now, route.destination) {
            None => Readiness::Stuck(deadline),
            Some(connection) => Readiness::Send(route.topic, route.destination, connection),
        }
    }

    /// Asks any broker for an id, if one is needed and it is time.
    fn ask_for_identity(&mut self, now: Micros, hub: &mut Hub, id: ProducerId) {
        let Identity::Wanted { failures, not_before } = self.identity else { return };
        if self.ready.is_empty() {
            return;
        }
        if now < not_before {
            return self.set_timer(hub, id, not_before);
        }
        // Looked at again when something changed.
        let Some(connection) = hub.ready_any(now) else { return };
        let (timeout, owner) = (hub.settings.request_timeout, Owner::Identity(id));
        self.identity = Identity::Asked { failures };
        let sent = hub.send(now, connection, &InitProducerIdRequest, Durability::Received, timeout, owner);
        if let Err((too_large, _)) = sent {
            self.identity = Identity::Refused(too_large.error("produce"));
        }
    }

    fn unidentified(&mut self, now: Micros, hub: &mut Hub, error: Error) {
        self.dirty = true;
        let failures = match self.identity {
            Identity::Asked { failures } => failures.saturating_add(1),
            _ => 1,
        };
        self.identity = if error.is_retryable() {
            tracing::debug!(%error, "no producer id yet");
            let not_before = now + hub.settings.retry.wait(failures, &mut hub.rng);
            Identity::Wanted { failures, not_before }
        } else if error.kind() == ErrorKind::UnsupportedVersion {
            let cause =
                format!("the broker gives no producer ids, so idempotence has to be turned off: {error}");
            Identity::Refused(Error::new(ErrorKind::UnsupportedVersion, "produce", cause))
        } else {
            Identity::Refused(error)
        };
    }

    /// What becomes of a batch that would need an id: it waits, or fails if there will be none.
    fn without_identity(
        &mut self,
        now: Micros,
        hub: &mut Hub,
        id: ProducerId,
        partition: PartitionIndex,
        deadline: Micros,
    ) -> Readiness {
        let Identity::Refused(error) = &self.identity else { return Readiness::Stuck(deadline) };
        let error = error.clone();
        if let Some(attempt) = self.take(partition) {
            self.settle(now, hub, id, attempt, Err(error));
        }
        Readiness::Wait(now)
    }

    /// Gives a batch that is sent for the first time its place among the producer's batches.
    fn seal(&mut self, attempt: &mut Attempt) {
        if attempt.bytes.is_empty() {
            let lane = self.lanes.get_mut(&attempt.partition).expect("what was taken has a lane");
            let sequence = self.identity.take_sequence(&mut lane.sequences, attempt.batch.records);
            attempt.producer_id = sequence.producer_id;
            attempt.bytes = std::mem::take(&mut attempt.batch.unsealed).seal(sequence);
        }
    }

    fn take(&mut self, partition: PartitionIndex) -> Option<Attempt> {
        let lane = self.lanes.get_mut(&partition).expect("a lane was looked at");
        assert!(!lane.in_flight, "partition {partition} has a batch in flight");
        let attempt = match lane.again.take() {
            Some(attempt) => attempt,
            None => Attempt::new(partition, self.accumulator.take(partition)?),
        };
        lane.in_flight = true;
        Some(attempt)
    }

    /// Sends the batches to one shard, in as few requests as the largest request allows.
    fn send(
        &mut self,
        now: Micros,
        hub: &mut Hub,
        id: ProducerId,
        connection: ConnectionId,
        batches: Vec<(TopicId, Attempt)>,
    ) {
        let mut group = Vec::new();
        let mut bytes = 0;
        for (topic, attempt) in batches {
            let len = attempt.bytes.len();
            if bytes + len > hub.settings.request_bytes_max && !group.is_empty() {
                self.send_group(now, hub, id, connection, std::mem::take(&mut group));
                bytes = 0;
            }
            bytes += len;
            group.push((topic, attempt));
        }
        self.send_group(now, hub, id, connection, group);
    }

    fn send_group(
        &mut self,
        now: Micros,
        hub: &mut Hub,
        id: ProducerId,
        connection: ConnectionId,
        mut group: Vec<(TopicId, Attempt)>,
    ) {
        let settings = self.accumulator.settings();
        let broker = hub.address(connection);
        let mut timeout = Duration::ZERO;
        for (_, attempt) in &mut group {
            attempt.attempts += 1;
            attempt.broker.clone_from(&broker);
            timeout = timeout.max(attempt.batch.opened_at + settings.delivery_timeout - now);
        }
        let partitions = group
            .iter()
            .map(|(topic, attempt)| ProducePartition {
                topic: *topic,
                partition: attempt.partition,
                expected_end_offset: None,
                batches: attempt.bytes.clone(),
            })
            .collect();
        let timeout = timeout.min(hub.settings.request_timeout);
        let durability = settings.durability;
        let owner = Owner::Produce(ProduceFlight { producer: id, broker, batches: group });
        let sent = hub.send(now, connection, &ProduceRequest::new(partitions), durability, timeout, owner);
        let Err((too_large, owner)) = sent else { return };
        let Owner::Produce(flight) = owner else { unreachable!("the owner comes back as it was given") };
        // Alone it may fit; if it is alone already, it never will.
        let alone = flight.batches.len() == 1;
        for (topic, attempt) in flight.batches {
            if alone {
                self.failed(now, hub, id, attempt, too_large.error("produce"));
            } else {
                self.send_group(now, hub, id, connection, vec![(topic, attempt)]);
            }
        }
    }

    fn answered(
        &mut self,
        now: Micros,
        hub: &mut Hub,
        id: ProducerId,
        attempt: Attempt,
        outcome: ProducePartitionResponse,
    ) {
        if outcome.error == ErrorCode::OutOfOrderSequence {
            return self.out_of_order(now, hub, id, attempt, outcome.message.as_deref());
        }
        if outcome.error != ErrorCode::None {
            let error = Error::from_code(outcome.error, "produce", outcome.message.as_deref());
            return self.failed(now, hub, id, attempt, error);
        }
        let records = u64::from(attempt.batch.records);
        if outcome.end_offset.since(outcome.base_offset) != records {
            let cause = format!(
                "{records} records sent, offsets {} to {} acknowledged",
                outcome.base_offset, outcome.end_offset
            );
            let mut attempt = attempt;
            attempt.maybe_applied = true;
            return self.failed(now, hub, id, attempt, Error::new(ErrorKind::Corrupt, "produce", cause));
        }
        let receipt = BatchReceipt {
            base_offset: outcome.base_offset,
            append_time_ms: (outcome.log_append_time_ms >= 0).then_some(outcome.log_append_time_ms),
            durability: outcome.receipt,
        };
        self.settle(now, hub, id, attempt, Ok(receipt));
    }

    /// The log ends before the batch that was acknowledged last, which is lost. So this one is not in the log either:
    /// it goes on under another id where less was promised than that everything is flushed. Else the loss must be seen.
    fn out_of_order(
        &mut self,
        now: Micros,
        hub: &mut Hub,
        id: ProducerId,
        mut attempt: Attempt,
        message: Option<&str>,
    ) {
        let error = Error::from_code(ErrorCode::OutOfOrderSequence, "produce", message);
        if self.accumulator.settings().durability == Durability::IsrFlushed {
            return self.settle(now, hub, id, attempt, Err(error));
        }
        if self.identity.is(attempt.producer_id) {
            self.identity = Identity::wanted_at(now);
        }
        tracing::warn!(
            "{}; acknowledged records were lost, it goes on",
            self.told_of(&attempt, error.clone(), now)
        );
        attempt.producer_id = -1;
        attempt.batch.unsealed = UnsealedBatch::reopen(std::mem::take(&mut attempt.bytes));
        self.try_again(now, hub, id, attempt, error);
    }

    /// The broker refused the batch, or it cannot be sent: for good, or until later.
    fn failed(&mut self, now: Micros, hub: &mut Hub, id: ProducerId, mut attempt: Attempt, error: Error) {
        attempt.maybe_applied |= error.leaves_doubt();
        if !error.is_retryable() {
            return self.settle(now, hub, id, attempt, Err(error));
        }
        hub.metadata.forget_leader(&self.accumulator.settings().topic, attempt.partition);
        self.try_again(now, hub, id, attempt, error);
    }

    fn try_again(&mut self, now: Micros, hub: &mut Hub, id: ProducerId, mut attempt: Attempt, error: Error) {
        let delivery_timeout = self.accumulator.settings().delivery_timeout;
        if now >= attempt.batch.opened_at + delivery_timeout {
            return self.settle(now, hub, id, attempt, Err(error.timed_out(delivery_timeout)));
        }
        if attempt.attempts == ATTEMPTS_UNTIL_TOLD {
            let error = self.told_of(&attempt, error.clone(), now);
            tracing::warn!("{error}; trying again until {delivery_timeout:?} are over");
        }
        let wait = hub.settings.retry.wait(attempt.attempts, &mut hub.rng);
        let partition = attempt.partition;
        attempt.last = Some(error);
        let lane = self.lanes.get_mut(&partition).expect("what was in flight has a lane");
        assert!(lane.again.is_none(), "partition {partition} has two batches to send again");
        lane.in_flight = false;
        lane.not_before = now + wait;
        lane.again = Some(attempt);
        self.ready.insert(partition);
        self.dirty = true;
    }

    /// The head of the lane was not acknowledged in time.
    fn expire(&mut self, now: Micros, hub: &mut Hub, id: ProducerId, partition: PartitionIndex) {
        let Some(attempt) = self.take(partition) else { return };
        let last = attempt.last.clone().or_else(|| hub.last_failure.clone());
        let last =
            last.unwrap_or_else(|| Error::new(ErrorKind::Disconnected, "produce", "no leader is known"));
        let error = last.timed_out(self.accumulator.settings().delivery_timeout);
        self.settle(now, hub, id, attempt, Err(error));
    }

    fn settle(
        &mut self,
        now: Micros,
        hub: &mut Hub,
        id: ProducerId,
        attempt: Attempt,
        result: Result<BatchReceipt, Error>,
    ) {
        if result.is_err() && self.identity.is(attempt.producer_id) {
            self.identity = Identity::wanted_at(now);
        }
        let result = result.map_err(|error| self.told_of(&attempt, error, now));
        if let Some(lane) = self.lanes.get_mut(&attempt.partition) {
            lane.in_flight = false;
        }
        self.ready.insert(attempt.partition);
        self.dirty = true;
        self.accumulator.settle(&attempt.batch, result);
        hub.actions.push_back(Action::RoomFreed { producer: id, bytes: attempt.batch.room });
    }

    /// The error with all there is to say of the batch it met.
    fn told_of(&self, attempt: &Attempt, error: Error, now: Micros) -> Error {
        let error = error.operation("produce").topic(&self.accumulator.settings().topic);
        let error = error.partition(attempt.partition.0).broker(attempt.broker.as_deref());
        error.after(attempt.attempts, now - attempt.batch.opened_at).applied_maybe(attempt.maybe_applied)
    }

    fn set_timer(&mut self, hub: &mut Hub, id: ProducerId, at: Micros) {
        match self.timer {
            Some(set) if set <= at => {}
            set => {
                if let Some(set) = set {
                    hub.timers.cancel(set, Timer::Producer(id));
                }
                hub.timers.set(at, Timer::Producer(id));
                self.timer = Some(at);
            }
        }
    }
}

/// The identity that was given. One without sequences would give up, unsaid, what the producer promises.
fn known(response: InitProducerIdResponse) -> Result<Identity, Error> {
    let InitProducerIdResponse { error, message, producer_id, producer_epoch } = response;
    if error != ErrorCode::None {
        return Err(Error::from_code(error, "produce", message.as_deref()));
    }
    if producer_id < 0 || producer_epoch < 0 {
        let cause = format!("the broker gave {producer_id} as producer id, with epoch {producer_epoch}");
        return Err(Error::new(ErrorKind::Corrupt, "produce", cause));
    }
    Ok(Identity::Known { producer_id, producer_epoch })
}

/// The outcomes, if they are those of the batches that were sent.
fn matching(
    flight: &ProduceFlight,
    response: ProduceResponse,
) -> Result<Vec<ProducePartitionResponse>, Error> {
    let sent = flight.batches.iter().map(|(topic, attempt)| (*topic, attempt.partition));
    let answered = response.partitions.iter().map(|outcome| (outcome.topic, outcome.partition));
    if !sent.eq(answered) {
        let cause = format!(
            "{} partitions sent and {} answered by {}, not the same in the same order",
            flight.batches.len(),
            response.partitions.len(),
            flight.broker.as_deref().unwrap_or("the broker"),
        );
        return Err(Error::new(ErrorKind::Corrupt, "produce", cause));
    }
    Ok(response.partitions)
}
