//! The clients of a run: producers that remember what they sent, readers that note what they see.
//!
//! Everything goes into one [`History`], in virtual time. Nothing here judges, and nothing ends a client but the end
//! of the run: it rides through whatever happens to the broker.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use corrente_client::core::CoreSettings;
use corrente_client::core::accumulator::ProducerSettings;
use corrente_client::core::call::CallRequest;
use corrente_client::core::consume::ConsumerSettings;
use corrente_client::core::inbox::Fetched;
use corrente_client::{
    Error, ErrorKind, OutOfRange, PartitionIndex, Partitioner, Receipt, Record, RecordView, StartOffset,
    Ticket, TopicName,
};
use corrente_history::{
    Action, Begun, Header, History, LogId, Operation, Outcome, Place, Poll, ReadRecord, RecordId, Recording,
    Refusal, RefusalKind, SentRecord, Topic, content,
};
use corrente_protocol::api::CreateTopicRequest;
use corrente_protocol::partitioner::partition_for_key;
use corrente_runtime::executor::spawn;
use corrente_runtime::sync::{Budget, Permit};
use corrente_runtime::timer::{Instant, now, sleep, sleep_until, wall_clock_ms};
use fastrand::Rng;

use crate::client::{Client, Producer, Reader};
use crate::plan::{LoadPlan, ProducerPlan};

mod admin;

/// The topic of a run.
pub const TOPIC: &str = "ledger";
/// Any request of the administrator is tried for this long; no fault lasts as long.
const PATIENCE: Duration = Duration::from_secs(600);
/// A record is given up after this long; no fault lasts as long.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(1_200);
/// Of the topic, in the history.
const TOPIC_NUMBER: u32 = 0;
/// Processes of the history: producers have the numbers from 0 on, the others begin here.
const ADMINISTRATOR: u32 = 1_000;
/// Whoever switches the broker on and off.
const OPERATOR: u32 = 1_001;
const READERS: u32 = 10_000;
const FINAL_READERS: u32 = 1_000_000;
/// What a batch may decompress to.
const DECOMPRESSED_BYTES_MAX: usize = 16 << 20;

/// The clients of a run and what they have to tell. Clones are the same.
#[derive(Clone)]
pub struct Workload(Rc<Shared>);

struct Shared {
    plan: LoadPlan,
    topic: TopicName,
    broker: (Arc<str>, u16),
    recording: RefCell<Recording>,
    /// What the clock showed when the world began: the history counts from there.
    began: Cell<Instant>,
    /// Since when the broker is down.
    outages: RefCell<Vec<Begun>>,
    /// The administrator has asked his last question.
    administrator_done: Cell<bool>,
    sent: Cell<u64>,
    resolved: Cell<u64>,
    bytes: Cell<u64>,
    producers_running: Cell<usize>,
    /// Readers started.
    readers: Cell<u32>,
    pauses: RefCell<VecDeque<(u64, Duration)>>,
    paused_until: Cell<Instant>,
    /// What is known of where each log begins and ends.
    bounds: RefCell<BTreeMap<u32, (u64, u64)>>,
    /// Partitions the topic has by now.
    partitions: Cell<u32>,
}

impl Workload {
    /// A workload for the broker at this address; nothing is started yet.
    pub fn new(plan: LoadPlan, broker: (String, u16)) -> Workload {
        let header = Header { idempotent: true, in_order: true, patient: true, ..Header::default() };
        Workload(Rc::new(Shared {
            topic: TopicName::new(TOPIC).expect("a valid name"),
            broker: (broker.0.into(), broker.1),
            recording: RefCell::new(Recording::new(History::new(header))),
            bounds: RefCell::default(),
            began: Cell::new(Instant::from_nanos(0)),
            outages: RefCell::default(),
            administrator_done: Cell::new(false),
            sent: Cell::new(0),
            resolved: Cell::new(0),
            bytes: Cell::new(0),
            producers_running: Cell::new(plan.producers.len()),
            readers: Cell::new(0),
            pauses: RefCell::new(plan.pauses.iter().copied().collect()),
            paused_until: Cell::new(Instant::from_nanos(0)),
            partitions: Cell::new(plan.partitions),
            plan,
        }))
    }

    /// Records handed to producers.
    pub fn sent(&self) -> u64 {
        self.0.sent.get()
    }

    /// Records sent and neither acknowledged nor given up.
    pub fn unresolved(&self) -> u64 {
        self.0.sent.get() - self.0.resolved.get()
    }

    /// Bytes of the values sent.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.get()
    }

    /// Whether everything was sent and answered.
    pub fn is_done(&self) -> bool {
        self.0.producers_running.get() == 0 && self.unresolved() == 0
    }

    /// Notes that the broker goes down, at this moment of the world.
    pub fn note_down(&self, elapsed: Duration) {
        let begun = self.0.recording.borrow_mut().begin(nanos(elapsed), OPERATOR, false, Action::Crash);
        self.0.outages.borrow_mut().push(begun);
    }

    /// Notes that it serves again.
    pub fn note_up(&self, elapsed: Duration) {
        for begun in self.0.outages.take() {
            self.0.recording.borrow_mut().complete(nanos(elapsed), begun, Outcome::Ok, |_| {});
        }
    }

    /// The whole history of a run that this command repeats: how it ended, well or stuck, is its last word.
    pub fn finish(&self, run: String, elapsed: Duration, stuck: Option<String>) -> History {
        let outcome = match stuck {
            None => Outcome::Ok,
            Some(detail) => Outcome::Info(Refusal::new(RefusalKind::Other, detail)),
        };
        let mut recording = self.0.recording.take();
        let rest = recording.begin(nanos(elapsed), OPERATOR, true, Action::Rest);
        recording.complete(nanos(elapsed), rest, outcome, |_| {});
        let mut history = recording.finish();
        history.header.run = run;
        history
    }

    /// Creates the topic. To be run on the client's node, once, before everything else, now that the world is so old.
    pub async fn prepare(self, segment_bytes: u64, seed: u64, elapsed: Duration) -> Result<(), Error> {
        self.0.begin_clock(elapsed);
        let client = self.client(seed);
        let request = CreateTopicRequest {
            name: TOPIC.into(),
            partitions: self.0.plan.partitions,
            replication_factor: 0,
            configs: self.0.plan.topic.configs(segment_bytes),
            validate_only: false,
        };
        let begun =
            self.0.begin(ADMINISTRATOR, false, Action::CreateTopic(self.0.facts(self.0.plan.partitions)));
        let outcome = match client.call_within(CallRequest::CreateTopic(request), PATIENCE).await {
            // An attempt whose answer was lost has made it.
            Err(error) if error.kind() == ErrorKind::TopicAlreadyExists && error.maybe_applied() => Ok(()),
            outcome => outcome.map(drop),
        };
        self.0.complete(begun, outcome.as_ref().err(), |_| {});
        outcome
    }

    /// Starts all producers and readers. They go on until the node or the world ends.
    pub fn start(&self, seed: u64) {
        let plan = &self.0.plan;
        for (number, producer) in (0..).zip(plan.producers.clone()) {
            let seed = seed.wrapping_mul(31).wrapping_add(u64::from(number));
            spawn(self.clone().produce(number, producer, seed)).detach();
        }
        for number in 0..plan.early_readers + plan.tail_readers {
            let early = number < plan.early_readers;
            self.add_reader(if early { StartOffset::Earliest } else { StartOffset::Latest }, seed);
        }
        spawn(self.clone().administrate(seed.wrapping_mul(41))).detach();
    }

    /// Starts one more reader from the earliest record.
    pub fn read_again(&self, seed: u64) {
        self.add_reader(StartOffset::Earliest, seed);
    }

    fn add_reader(&self, from: StartOffset, seed: u64) {
        let client = self.client(seed.wrapping_mul(37).wrapping_add(u64::from(self.0.readers.get())));
        spawn(self.clone().follow(client, from)).detach();
    }

    /// Asks every partition for its bounds and reads it from end to end. To be run when nothing is sent any more.
    pub async fn read_everything(self, seed: u64) {
        while !self.0.administrator_done.get() {
            sleep(Duration::from_millis(1)).await;
        }
        let client = self.client(seed);
        let partitions = self.0.partitions.get();
        for partition in (0..partitions).map(PartitionIndex) {
            self.ask(&client, partition, true).await;
        }
        // The broker still removes what is too old: whatever it overtook is read anew.
        let mut wanted: Vec<u32> = (0..partitions).collect();
        for process in FINAL_READERS.. {
            let reader = client.reader(self.consumer_settings(&wanted, StartOffset::Earliest, true));
            wanted = self.read(process, true, reader).await;
            if wanted.is_empty() {
                break;
            }
        }
    }

    fn client(&self, seed: u64) -> Client {
        let mut settings = CoreSettings::new(vec![self.0.broker.clone()]);
        settings.request_timeout = self.0.plan.request_timeout;
        Client::start(settings, seed)
    }

    fn consumer_settings(&self, partitions: &[u32], from: StartOffset, until_end: bool) -> ConsumerSettings {
        let partitions =
            partitions.iter().map(|partition| (self.0.topic.clone(), PartitionIndex(*partition), from));
        ConsumerSettings {
            partitions: partitions.collect(),
            until_end,
            out_of_range: OutOfRange::Fail,
            prefetch_bytes: 1 << 20,
            answer_bytes_max: 256 << 10,
            heartbeat: Duration::from_millis(500),
        }
    }

    async fn produce(self, number: u32, plan: ProducerPlan, seed: u64) {
        let mut rng = Rng::with_seed(seed);
        let client = self.client(rng.u64(..));
        // A producer that keeps to the number of partitions it began with, so that keys keep their place.
        let partitions = self.0.plan.partitions;
        let producer = client.producer(self.producer_settings(&plan), partitions);
        let unacked = Budget::new(plan.unacked_max);
        for counter in 0..plan.records {
            self.pause().await;
            let permit = unacked.acquire(1).await;
            let id = RecordId { producer: number, counter };
            self.send(&producer, id, &plan, &mut rng, permit);
            if rng.bool() {
                sleep(Duration::from_nanos(rng.u64(nanos(plan.gap.start)..nanos(plan.gap.end)))).await;
            }
        }
        self.0.producers_running.set(self.0.producers_running.get() - 1);
        // The producer lives until everything of it is resolved.
        drop(unacked.acquire(plan.unacked_max).await);
    }

    fn send(&self, producer: &Producer, id: RecordId, plan: &ProducerPlan, rng: &mut Rng, permit: Permit) {
        let shared = &self.0;
        // Squared, so that some keys are much more frequent than others.
        let drawn = rng.f64() * rng.f64() * f64::from(shared.plan.keys);
        let key = drawn as u32;
        let seldom = rng.u8(..30) == 0;
        let filler = rng.usize(if seldom { plan.filler_seldom.clone() } else { plan.filler.clone() });
        let partition = PartitionIndex(partition_for_key(&content::key(key), shared.plan.partitions));
        let is_tombstone = shared.plan.topic.cleanup.compacts() && rng.u8(..8) == 0;
        let (record, bytes) = if is_tombstone {
            let header = content::tombstone(id, key);
            (Record::tombstone(content::key(key)).header(content::TOMBSTONE_HEADER, header), 0)
        } else {
            let value = content::value(id, key, filler);
            let bytes = value.len();
            (Record::value(value).key(content::key(key)), bytes)
        };
        shared.bytes.set(shared.bytes.get() + bytes as u64);
        // Some records come late: lookups by time must find them all the same.
        let late_ms = if rng.u8(..10) == 0 { rng.i64(0..1_000) } else { 0 };
        let timestamp_ms = wall_clock_ms() - late_ms;
        let sent = SentRecord {
            log: log(partition),
            id,
            key,
            is_tombstone,
            bytes: u32::try_from(bytes).expect("a record is smaller than 4 GiB"),
            timestamp_ms,
            acked: None,
        };
        let record = record.partition(partition.0).timestamp_ms(timestamp_ms);
        let begun = shared.begin(id.producer, false, Action::Send(vec![sent]));
        shared.sent.set(shared.sent.get() + 1);
        match producer.send(&record) {
            Ok(ticket) => spawn(self.clone().settle(begun, ticket, permit)).detach(),
            Err(error) => self.settled(begun, Err(error)),
        }
    }

    async fn settle(self, begun: Begun, ticket: Ticket, permit: Permit) {
        let outcome = ticket.await;
        if let Ok(receipt) = &outcome {
            self.0.know_end(receipt.partition, receipt.offset.0 + 1);
        }
        self.settled(begun, outcome);
        drop(permit);
    }

    fn settled(&self, begun: Begun, outcome: Result<Receipt, Error>) {
        self.0.complete(begun, outcome.as_ref().err(), |action| {
            if let (Action::Send(records), Ok(receipt)) = (action, &outcome) {
                records[0].acked = Some(Place { partition: receipt.partition, offset: receipt.offset.0 });
                records[0].timestamp_ms = receipt.timestamp_ms;
            }
        });
        self.0.resolved.set(self.0.resolved.get() + 1);
    }

    /// Waits while everybody pauses.
    async fn pause(&self) {
        let shared = &self.0;
        let due = shared.pauses.borrow().front().copied().filter(|(at, _)| shared.sent.get() >= *at);
        if let Some((_, pause)) = due {
            shared.pauses.borrow_mut().pop_front();
            shared.paused_until.set(now() + pause);
        }
        if shared.paused_until.get() > now() {
            sleep_until(shared.paused_until.get()).await;
        }
    }

    fn producer_settings(&self, plan: &ProducerPlan) -> ProducerSettings {
        ProducerSettings {
            idempotent: true,
            topic: self.0.topic.clone(),
            durability: plan.durability,
            linger: plan.linger,
            batch_bytes: plan.batch_bytes,
            batch_records: 10_000,
            compression: plan.compression,
            delivery_timeout: DELIVERY_TIMEOUT,
            partitioner: Partitioner::Sticky,
            record_bytes_max: 1 << 20,
        }
    }

    /// Reads on for ever. What was removed before it was read is begun anew, at the first record kept.
    async fn follow(self, client: Client, from: StartOffset) {
        let mut from = from;
        let mut wanted: Vec<u32> = (0..self.0.plan.partitions).collect();
        while !wanted.is_empty() {
            let process = READERS + self.0.readers.replace(self.0.readers.get() + 1);
            let reader = client.reader(self.consumer_settings(&wanted, from, false));
            let overtaken = self.read(process, false, reader).await;
            wanted = if overtaken.is_empty() { Vec::new() } else { wanted };
            from = StartOffset::Earliest;
        }
    }

    /// Notes everything a reader is given, to its end. The partitions in which the log start has overtaken it.
    async fn read(&self, process: u32, is_final: bool, source: Reader) -> Vec<u32> {
        let mut overtaken = Vec::new();
        let mut positions: BTreeMap<u32, u64> = BTreeMap::new();
        // It fetches ahead, so that any answer may be to a question asked as early as now.
        let invoked_ns = self.0.now_ns();
        while let Some(item) = source.next().await {
            let (poll, error) = match item {
                Ok(fetched) => read_all(fetched),
                Err(error) => (failed_poll(&error, &positions), Some(error)),
            };
            if let Some(poll) = &poll {
                let next = poll.records.last().map(|record| record.offset + 1);
                positions.extend(next.map(|next| (poll.log.partition, next)));
            }
            let was_overtaken = error.as_ref().filter(|error| error.kind() == ErrorKind::OffsetOutOfRange);
            overtaken.extend(was_overtaken.and_then(Error::concerns_partition));
            self.0.recording.borrow_mut().note(Operation {
                process,
                invoked_ns,
                completed_ns: Some(self.0.now_ns()),
                outcome: outcome_of(error.as_ref()),
                is_final,
                action: Action::Poll(poll.into_iter().collect()),
            });
            // One that reads for ever begins anew at once.
            if !is_final && !overtaken.is_empty() {
                break;
            }
        }
        overtaken
    }
}

impl Shared {
    fn begin_clock(&self, elapsed: Duration) {
        let elapsed_ms =
            i64::try_from(elapsed.as_millis()).expect("a virtual run ends before the clock does");
        self.began.set(Instant::from_nanos(now().as_nanos() - nanos(elapsed)));
        self.recording.borrow_mut().history_mut().header.epoch_ms = wall_clock_ms() - elapsed_ms;
    }

    /// Since the world began.
    fn now_ns(&self) -> u64 {
        nanos(now() - self.began.get())
    }

    fn facts(&self, partitions: u32) -> Topic {
        self.plan.topic.facts(TOPIC_NUMBER, TOPIC, partitions)
    }

    /// The first offset kept and one past the last, as far as is known.
    fn bounds(&self, partition: u32) -> (u64, u64) {
        let (start, end) = self.bounds.borrow().get(&partition).copied().unwrap_or_default();
        (start, end.max(start))
    }

    fn know_start(&self, partition: u32, start: u64) {
        let mut bounds = self.bounds.borrow_mut();
        let known = bounds.entry(partition).or_default();
        known.0 = known.0.max(start);
    }

    fn know_end(&self, partition: u32, end: u64) {
        let mut bounds = self.bounds.borrow_mut();
        let known = bounds.entry(partition).or_default();
        known.1 = known.1.max(end);
    }

    fn begin(&self, process: u32, is_final: bool, action: Action) -> Begun {
        self.recording.borrow_mut().begin(self.now_ns(), process, is_final, action)
    }

    fn complete(&self, begun: Begun, error: Option<&Error>, answer: impl FnOnce(&mut Action)) {
        let outcome = outcome_of(error);
        self.recording.borrow_mut().complete(self.now_ns(), begun, outcome, answer);
    }
}

/// All records of an answer, and what was wrong with it, if anything.
fn read_all(mut fetched: Fetched) -> (Option<Poll>, Option<Error>) {
    let mut records = Vec::new();
    let mut error = None;
    while let Some(batch) = fetched.next_batch(DECOMPRESSED_BYTES_MAX) {
        match batch {
            Ok(batch) => records.extend(batch.records.iter().map(|record| ReadRecord {
                offset: record.offset.0,
                timestamp_ms: record.timestamp_ms,
                content: content::read(record.key.as_deref(), record.value.as_deref(), header_of(record)),
            })),
            Err(cause) => {
                error = Some(cause);
                break;
            }
        }
    }
    let poll = Poll {
        log: log(fetched.partition),
        position: Some(fetched.from.0),
        high_watermark: Some(fetched.high_watermark.0),
        records,
    };
    (Some(poll), error)
}

fn log(partition: PartitionIndex) -> LogId {
    LogId { topic: TOPIC_NUMBER, partition: partition.0 }
}

/// What says which record a tombstone is.
fn header_of(record: &RecordView) -> Option<&[u8]> {
    let header = record.headers.iter().find(|header| header.key == content::TOMBSTONE_HEADER)?;
    header.value.as_deref()
}

/// The poll that an error stands for: of one partition, where it is about one.
fn failed_poll(error: &Error, positions: &BTreeMap<u32, u64>) -> Option<Poll> {
    let partition = error.concerns_partition()?;
    let position = positions.get(&partition).copied();
    Some(Poll { log: log(PartitionIndex(partition)), position, ..Poll::default() })
}

fn outcome_of(error: Option<&Error>) -> Outcome {
    let Some(error) = error else { return Outcome::Ok };
    let kind = match error.kind() {
        ErrorKind::TopicNotFound => RefusalKind::UnknownTopic,
        ErrorKind::TopicAlreadyExists => RefusalKind::TopicExists,
        ErrorKind::OffsetOutOfRange => RefusalKind::OutOfRange,
        ErrorKind::Timeout => RefusalKind::Timeout,
        _ => RefusalKind::Other,
    };
    let refusal = Refusal::new(kind, error.to_string());
    if error.maybe_applied() { Outcome::Info(refusal) } else { Outcome::Fail(refusal) }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
