//! Consumers: one fetch session for each shard that leads some of their partitions, kept asking as long as there is
//! room.
//!
//! Positions advance when batches arrive and their checksums hold, never before; a broken connection repeats from the
//! position. Disconnects, moved leaders and busy brokers are ridden through for as long as it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corrente_protocol::api::{
    FetchPartition, FetchPartitionResponse, FetchRequest, ListOffsetsPartition, ListOffsetsRequest,
    OffsetSpec,
};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::frame::Durability;
use corrente_protocol::ids::{Offset, PartitionIndex, TopicId, TopicName};
use corrente_protocol::record_batch::{BatchError, RecordBatch, RecordBatches};

use super::ConsumerId;
use super::call::missing;
use super::connection::{Answer, ConnectionId, Destination};
use super::hub::{Hub, decode};
use super::inbox::{Fetched, Inbox};
use super::owner::Owner;
use super::time::Micros;
use super::timers::Timer;
use crate::error::{Error, ErrorKind};

/// Where a consumer begins in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartOffset {
    /// At the log start offset.
    Earliest,
    /// At the high watermark: only what comes from now on.
    Latest,
    /// At this offset.
    At(Offset),
    /// At the first record of this time or later, in milliseconds since the Unix epoch; where there is none, at the
    /// high watermark. Records after it may be older.
    Timestamp(i64),
}

impl StartOffset {
    /// What a broker has to be asked to know the offset.
    fn spec(self) -> Option<OffsetSpec> {
        match self {
            StartOffset::Earliest => Some(OffsetSpec::Earliest),
            StartOffset::Latest => Some(OffsetSpec::Latest),
            StartOffset::At(_) => None,
            StartOffset::Timestamp(at_ms) => Some(OffsetSpec::Timestamp(at_ms)),
        }
    }
}

/// What a consumer does when its position lies outside the log: records were deleted before it came to them, or it was
/// told to begin where the log does not reach. A start that had to be asked for and was overtaken by a deletion before
/// anything was read is none of this: it is asked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OutOfRange {
    /// Yield an error of kind `OffsetOutOfRange`, which names the bounds of the log, and stop with that partition: only
    /// the owner knows whether the records in between matter.
    #[default]
    Fail,
    /// Go on at the log start offset.
    Earliest,
    /// Go on at the high watermark.
    Latest,
}

/// What a consumer was configured to do.
#[derive(Debug, Clone)]
pub struct ConsumerSettings {
    /// The partitions, and where to begin in each.
    pub partitions: Vec<(TopicName, PartitionIndex, StartOffset)>,
    /// End at the high watermarks found at the start.
    pub until_end: bool,
    /// What to do when a position lies outside the log.
    pub out_of_range: OutOfRange,
    /// Fetched and not yet taken: at most about this many bytes; a single larger batch still comes.
    pub prefetch_bytes: usize,
    /// Bytes asked for at a time.
    pub fetch_bytes_max: usize,
    /// How long a broker may wait for the first byte.
    pub wait_max: Duration,
}

/// A fetch on its way.
#[derive(Debug)]
pub(crate) struct FetchFlight {
    consumer: ConsumerId,
    destination: Destination,
    /// Room set aside for the answer.
    reserved: usize,
    /// Places in the consumer's list of partitions, and what was asked there.
    asked: Vec<(usize, TopicId, Offset)>,
}

/// A question for offsets on its way.
#[derive(Debug)]
pub(crate) struct OffsetsFlight {
    consumer: ConsumerId,
    asked: Vec<(usize, OffsetSpec)>,
}

#[derive(Debug)]
struct Partition {
    topic: TopicName,
    index: PartitionIndex,
    /// The topic that the positions belong to, once it was asked: another of the same name has others.
    topic_id: Option<TopicId>,
    start: StartOffset,
    /// Something was fetched from where it started, if only that there is nothing yet.
    begun: bool,
    /// The next offset to fetch, once it is known.
    position: Option<Offset>,
    /// Where to end, once it is known; asked for only with `until_end`.
    stop_at: Option<Offset>,
    state: State,
    not_before: Micros,
    failures: u32,
    /// How often in a row its batches failed their checks.
    damaged: u32,
}

impl Partition {
    /// Where to go on when the position lies outside the log; `None` is not at all.
    fn new_start(&self, policy: OutOfRange) -> Option<StartOffset> {
        if !self.begun && self.start.spec().is_some() {
            return Some(self.start);
        }
        match policy {
            OutOfRange::Fail => None,
            OutOfRange::Earliest => Some(StartOffset::Earliest),
            OutOfRange::Latest => Some(StartOffset::Latest),
        }
    }

    /// Begins anew at a place that has to be asked for.
    fn start_at(&mut self, start: StartOffset) {
        self.state = State::Idle;
        self.start = start;
        self.begun = false;
        self.position = None;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    /// A fetch or a question for offsets is in flight.
    Asked,
    /// Ended or failed.
    Done,
}

struct Consumer {
    inbox: Arc<Inbox>,
    settings: ConsumerSettings,
    partitions: Vec<Partition>,
    created_at: Micros,
    fetching: BTreeSet<Destination>,
    reserved: usize,
    /// Which partition is served first, in turn.
    turn: usize,
    timer: Option<Micros>,
    dirty: bool,
}

#[derive(Default)]
pub(crate) struct Consumers {
    consumers: BTreeMap<ConsumerId, Consumer>,
}

/// Batches that fail their checks are fetched again this often before the consumer is told.
const DAMAGED_ATTEMPTS_MAX: u32 = 3;

impl Consumers {
    pub(crate) fn add(
        &mut self,
        now: Micros,
        hub: &mut Hub,
        id: ConsumerId,
        settings: ConsumerSettings,
    ) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox::new(settings.prefetch_bytes));
        let partitions = settings.partitions.iter().map(|(topic, index, start)| {
            hub.metadata.attend(topic);
            Partition {
                topic: topic.clone(),
                index: *index,
                topic_id: None,
                start: *start,
                begun: false,
                position: match start {
                    StartOffset::At(offset) => Some(*offset),
                    _ => None,
                },
                stop_at: None,
                state: State::Idle,
                not_before: now,
                failures: 0,
                damaged: 0,
            }
        });
        let consumer = Consumer {
            inbox: Arc::clone(&inbox),
            partitions: partitions.collect(),
            settings,
            created_at: now,
            fetching: BTreeSet::new(),
            reserved: 0,
            turn: 0,
            timer: None,
            dirty: true,
        };
        let before = self.consumers.insert(id, consumer);
        assert!(before.is_none(), "consumer {} was added twice", id.0);
        inbox
    }

    /// Looks whether room was made, and forgets consumers that are gone.
    pub(crate) fn look(&mut self, hub: &mut Hub) {
        self.consumers.retain(|_, consumer| {
            if consumer.inbox.take_news() {
                consumer.dirty = true;
                if consumer.inbox.is_abandoned() {
                    consumer.partitions.iter().for_each(|partition| hub.metadata.neglect(&partition.topic));
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

    pub(crate) fn fetch_answered(
        &mut self,
        now: Micros,
        hub: &mut Hub,
        flight: FetchFlight,
        answer: &Answer,
    ) {
        let Some(consumer) = self.consumers.get_mut(&flight.consumer) else { return };
        consumer.landed(&flight);
        let response = match decode::<FetchRequest>(answer) {
            Ok(response) if response.partitions.len() == flight.asked.len() => response,
            Ok(response) => {
                let (asked, answered) = (flight.asked.len(), response.partitions.len());
                let cause = format!("{asked} partitions asked for, {answered} answered");
                return consumer.fetch_failed(
                    now,
                    hub,
                    &flight,
                    &Error::new(ErrorKind::Corrupt, "fetch", cause),
                );
            }
            Err(error) => return consumer.fetch_failed(now, hub, &flight, &error),
        };
        for ((place, topic, asked), fetched) in flight.asked.iter().zip(response.partitions) {
            consumer.fetched(now, hub, *place, *topic, *asked, fetched);
        }
    }

    pub(crate) fn fetch_lost(&mut self, now: Micros, hub: &mut Hub, flight: &FetchFlight, error: &Error) {
        let Some(consumer) = self.consumers.get_mut(&flight.consumer) else { return };
        consumer.landed(flight);
        flight.asked.iter().for_each(|(place, ..)| consumer.try_again(now, hub, *place, error));
    }

    /// The client ends.
    pub(crate) fn close(&mut self) {
        for consumer in std::mem::take(&mut self.consumers).into_values() {
            consumer.inbox.put(Err(Error::closed("fetch")));
            consumer.inbox.end();
        }
    }
}

impl Consumer {
    fn pump(&mut self, now: Micros, hub: &mut Hub, id: ConsumerId) {
        let mut offsets: BTreeMap<Destination, (ConnectionId, Vec<Ask>)> = BTreeMap::new();
        let mut fetches: BTreeMap<Destination, (ConnectionId, Vec<Ask>)> = BTreeMap::new();
        let mut look_again: Option<Micros> = None;
        let count = self.partitions.len();
        for step in 0..count {
            let place = (self.turn + step) % count;
            if self.partitions[place].state != State::Idle {
                continue;
            }
            if self.partitions[place].not_before > now {
                let at = self.partitions[place].not_before;
                look_again = Some(look_again.map_or(at, |earliest| earliest.min(at)));
                continue;
            }
            if self.reached_end(place) {
                self.partitions[place].state = State::Done;
                continue;
            }
            let Partition { topic, index, .. } = &self.partitions[place];
            if let Some(error) =
                missing(now, hub, self.created_at, hub.settings.request_timeout, topic, *index)
            {
                self.give_up(place, error);
                continue;
            }
            let Some(route) = hub.route(topic, *index) else { continue };
            if *self.partitions[place].topic_id.get_or_insert(route.topic) != route.topic {
                let cause = "the topic was deleted and another one has its name; start anew to read that one";
                self.give_up(place, Error::new(ErrorKind::TopicNotFound, "fetch", cause));
                continue;
            }
            let Some(connection) = hub.ready(now, route.destination) else { continue };
            let wants_offsets = self.wants_offsets(place);
            if !wants_offsets && self.fetching.contains(&route.destination) {
                continue;
            }
            let by_destination = if wants_offsets { &mut offsets } else { &mut fetches };
            let (_, asks) =
                by_destination.entry(route.destination).or_insert_with(|| (connection, Vec::new()));
            asks.push(Ask { place, topic: route.topic });
        }
        for (connection, asks) in offsets.into_values() {
            self.ask_offsets(now, hub, id, connection, &asks);
        }
        for (destination, (connection, asks)) in fetches {
            self.ask_fetch(now, hub, id, destination, connection, &asks);
        }
        self.turn = (self.turn + 1) % count.max(1);
        if self.partitions.iter().all(|partition| partition.state == State::Done) {
            self.inbox.end();
        }
        if let Some(at) = look_again {
            self.set_timer(hub, id, at);
        }
    }

    fn wants_offsets(&self, place: usize) -> bool {
        let partition = &self.partitions[place];
        partition.position.is_none() || (self.settings.until_end && partition.stop_at.is_none())
    }

    fn reached_end(&self, place: usize) -> bool {
        let partition = &self.partitions[place];
        matches!((partition.position, partition.stop_at), (Some(position), Some(stop_at)) if position >= stop_at)
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

    fn ask_fetch(
        &mut self,
        now: Micros,
        hub: &mut Hub,
        id: ConsumerId,
        destination: Destination,
        connection: ConnectionId,
        asks: &[Ask],
    ) {
        let room = self.inbox.room().saturating_sub(self.reserved).min(self.settings.fetch_bytes_max);
        if room == 0 {
            // Looked at again when the owner has taken something out, or another answer came in smaller.
            return;
        }
        let max_bytes = u32::try_from(room).unwrap_or(u32::MAX);
        let mut asked = Vec::with_capacity(asks.len());
        let mut partitions = Vec::with_capacity(asks.len());
        for ask in asks {
            let partition = &mut self.partitions[ask.place];
            partition.state = State::Asked;
            let offset = partition.position.expect("positions are known before the fetch");
            asked.push((ask.place, ask.topic, offset));
            let index = partition.index;
            partitions.push(FetchPartition {
                topic: ask.topic,
                partition: index,
                offset,
                max_bytes,
                leader_epoch: None,
            });
        }
        let max_wait_ms = u32::try_from(self.settings.wait_max.as_millis()).unwrap_or(u32::MAX);
        let request = FetchRequest { max_wait_ms, min_bytes: 1, max_bytes, partitions };
        let timeout = hub.settings.request_timeout + self.settings.wait_max;
        let owner = Owner::Fetch(FetchFlight { consumer: id, destination, reserved: room, asked });
        match hub.send(now, connection, &request, Durability::Received, timeout, owner) {
            Ok(()) => {
                self.fetching.insert(destination);
                self.reserved += room;
            }
            Err((too_large, _)) => {
                asks.iter().for_each(|ask| self.give_up(ask.place, too_large.error("fetch")))
            }
        }
    }

    /// The session with that shard is free again.
    fn landed(&mut self, flight: &FetchFlight) {
        self.fetching.remove(&flight.destination);
        self.reserved -= flight.reserved;
        self.dirty = true;
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

    fn fetched(
        &mut self,
        now: Micros,
        hub: &mut Hub,
        place: usize,
        topic: TopicId,
        asked: Offset,
        fetched: FetchPartitionResponse,
    ) {
        let partition = &mut self.partitions[place];
        if (fetched.topic, fetched.partition) != (topic, partition.index) {
            let cause =
                format!("asked for partition {}, answered for {}", partition.index, fetched.partition);
            return self.failed(now, hub, place, &Error::new(ErrorKind::Corrupt, "fetch", cause));
        }
        if fetched.error == ErrorCode::OffsetOutOfRange
            && let Some(start) = partition.new_start(self.settings.out_of_range)
        {
            partition.start_at(start);
            return;
        }
        if fetched.error != ErrorCode::None {
            let error = Error::from_code(fetched.error, "fetch", fetched.message.as_deref());
            return self.failed(now, hub, place, &error);
        }
        partition.state = State::Idle;
        partition.failures = 0;
        partition.begun = true;
        for run in fetched.batches.into_iter().filter(|run| !run.is_empty()) {
            if let Err(error) = self.take_in(place, asked, run, fetched.high_watermark) {
                return self.damaged(now, hub, place, error);
            }
        }
        self.partitions[place].damaged = 0;
    }

    /// Takes the batches whose checks hold, up to the first whose do not.
    fn take_in(
        &mut self,
        place: usize,
        asked: Offset,
        run: Bytes,
        high_watermark: Offset,
    ) -> Result<(), Error> {
        let partition = &mut self.partitions[place];
        let from = partition.position.expect("positions are known before the fetch");
        let mut batches = Vec::new();
        let mut bytes = 0;
        let mut position = from;
        let mut fault = None;
        for batch in RecordBatches::new(run) {
            match batch.map_err(damage).and_then(|batch| follows(position, batch)) {
                Ok(batch) => {
                    position = batch.header().end_offset();
                    bytes += batch.bytes().len();
                    batches.push(batch);
                }
                Err(error) => {
                    fault = Some(error);
                    break;
                }
            }
        }
        if !batches.is_empty() {
            tracing::trace!(asked = asked.0, end = position.0, "fetched");
            partition.position = Some(position);
            self.inbox.put(Ok(Fetched {
                topic: partition.topic.clone(),
                partition: partition.index,
                batches: batches.into(),
                bytes,
                from,
                stop_at: partition.stop_at,
                high_watermark,
            }));
        }
        fault.map_or(Ok(()), Err)
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

    fn fetch_failed(&mut self, now: Micros, hub: &mut Hub, flight: &FetchFlight, error: &Error) {
        flight.asked.iter().for_each(|(place, ..)| self.failed(now, hub, *place, error));
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

/// A partition to ask about.
struct Ask {
    place: usize,
    topic: TopicId,
}

fn damage(error: BatchError) -> Error {
    Error::new(ErrorKind::Corrupt, "fetch", error.to_string())
}

/// The batch, if it holds offsets from `position` on. Only the first of an answer may begin before what was asked.
fn follows(position: Offset, batch: RecordBatch) -> Result<RecordBatch, Error> {
    let header = batch.header();
    if header.last_offset_delta < 0 || header.end_offset() <= position {
        let (base, end) = (header.base_offset, header.end_offset());
        let cause = format!("offset {position} is next, a batch of {base} to {end} was answered");
        return Err(Error::new(ErrorKind::Corrupt, "fetch", cause));
    }
    Ok(batch)
}
