//! The clients of a run: producers that remember what they sent, readers that note what they see.
//!
//! Everything goes into one [`History`], in virtual time. Nothing here judges, and nothing ends a client but the end
//! of the run: it rides through whatever happens to the broker.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use corrente_client::core::CoreSettings;
use corrente_client::core::accumulator::ProducerSettings;
use corrente_client::core::call::{CallRequest, CallResponse};
use corrente_client::core::fetch::ConsumerSettings;
use corrente_client::core::inbox::Fetched;
use corrente_client::{
    Error, ErrorKind, OffsetSpec, OutOfRange, PartitionIndex, Partitioner, Receipt, Record, StartOffset,
    Ticket, TopicName,
};
use corrente_history::{
    Action, Begun, Header, History, LogId, OffsetAnswer, OffsetQuery, Operation, Outcome, Place, Poll,
    ReadRecord, RecordId, Recording, Refusal, RefusalKind, SentRecord, Topic, content,
};
use corrente_protocol::api::{AddPartitionsRequest, CreateTopicRequest};
use corrente_protocol::partitioner::partition_for_key;
use corrente_runtime::executor::spawn;
use corrente_runtime::sync::{Budget, Permit};
use corrente_runtime::timer::{Instant, now, sleep, sleep_until, wall_clock_ms};
use fastrand::Rng;

use crate::client::{Client, Producer, Reader};
use crate::plan::{LoadPlan, ProducerPlan};

/// The topic of a run.
pub const TOPIC: &str = "ledger";
/// Any request of the administrator is tried for this long; no fault lasts as long.
const PATIENCE: Duration = Duration::from_secs(600);
/// A record is given up after this long; no fault lasts as long.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(1_200);
/// Of the topic, in the history.
const TOPIC_NUMBER: u32 = 0;
/// Processes of the history: producers have the numbers from 0 on, the others begin here.
const READERS: u32 = 1_000;
const ADMINISTRATOR: u32 = 2_000;
const FINAL_READER: u32 = 2_001;
/// Whoever switches the broker on and off.
const OPERATOR: u32 = 2_002;
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
    /// Partitions the topic has by now.
    partitions: Cell<u32>,
}

impl Workload {
    /// A workload for the broker at this address; nothing is started yet.
    pub fn new(plan: LoadPlan, broker: (String, u16)) -> Workload {
        let header = Header { in_order: true, patient: true, ..Header::default() };
        Workload(Rc::new(Shared {
            topic: TopicName::new(TOPIC).expect("a valid name"),
            broker: (broker.0.into(), broker.1),
            recording: RefCell::new(Recording::new(History::new(header))),
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
            configs: vec![
                ("segment.bytes".into(), segment_bytes.to_string()),
                ("max.message.bytes".into(), (segment_bytes / 2).to_string()),
            ],
            validate_only: false,
        };
        let begun = self.0.begin(ADMINISTRATOR, false, Action::CreateTopic(facts(self.0.plan.partitions)));
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
        let number = self.0.readers.replace(self.0.readers.get() + 1);
        let client = self.client(seed.wrapping_mul(37).wrapping_add(u64::from(number)));
        let reader = client.reader(self.consumer_settings(self.0.plan.partitions, from, false));
        spawn(self.clone().follow(READERS + number, false, reader)).detach();
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
        let reader = client.reader(self.consumer_settings(partitions, StartOffset::Earliest, true));
        self.follow(FINAL_READER, true, reader).await;
    }

    fn client(&self, seed: u64) -> Client {
        let mut settings = CoreSettings::new(vec![self.0.broker.clone()]);
        settings.request_timeout = self.0.plan.request_timeout;
        Client::start(settings, seed)
    }

    fn consumer_settings(&self, partitions: u32, from: StartOffset, until_end: bool) -> ConsumerSettings {
        let partitions =
            (0..partitions).map(|partition| (self.0.topic.clone(), PartitionIndex(partition), from));
        ConsumerSettings {
            partitions: partitions.collect(),
            until_end,
            out_of_range: OutOfRange::Fail,
            prefetch_bytes: 1 << 20,
            fetch_bytes_max: 256 << 10,
            wait_max: Duration::from_millis(500),
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
        let value = content::value(id, key, filler);
        shared.bytes.set(shared.bytes.get() + value.len() as u64);
        let timestamp_ms = wall_clock_ms();
        let sent = SentRecord {
            log: log(partition),
            id,
            key,
            is_tombstone: false,
            bytes: u32::try_from(value.len()).expect("a record is smaller than 4 GiB"),
            timestamp_ms,
            acked: None,
        };
        let record = Record::value(value).key(content::key(key)).partition(partition.0);
        let record = record.timestamp_ms(timestamp_ms);
        let begun = shared.begin(id.producer, false, Action::Send(vec![sent]));
        shared.sent.set(shared.sent.get() + 1);
        match producer.send(&record) {
            Ok(ticket) => spawn(self.clone().settle(begun, ticket, permit)).detach(),
            Err(error) => self.settled(begun, Err(error)),
        }
    }

    async fn settle(self, begun: Begun, ticket: Ticket, permit: Permit) {
        let outcome = ticket.await;
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

    /// Notes everything a reader is given.
    async fn follow(self, process: u32, is_final: bool, source: Reader) {
        // It fetches ahead, so that any answer may be to a question asked as early as now.
        let invoked_ns = self.0.now_ns();
        while let Some(item) = source.next().await {
            let (poll, error) = match item {
                Ok(fetched) => read_all(fetched),
                Err(error) => (None, Some(error)),
            };
            self.0.recording.borrow_mut().note(Operation {
                process,
                invoked_ns,
                completed_ns: Some(self.0.now_ns()),
                outcome: outcome_of(error.as_ref()),
                is_final,
                action: Action::Poll(poll.into_iter().collect()),
            });
        }
    }

    /// Asks for the bounds of partitions now and then, and grows the topic half way.
    async fn administrate(self, seed: u64) {
        let mut rng = Rng::with_seed(seed);
        let client = self.client(rng.u64(..));
        let plan = &self.0.plan;
        let half: u64 = plan.producers.iter().map(|producer| u64::from(producer.records)).sum::<u64>() / 2;
        while !self.is_done() {
            sleep(Duration::from_micros(rng.u64(1..500_000))).await;
            let partition = PartitionIndex(rng.u32(..plan.partitions));
            self.ask(&client, partition, false).await;
            if self.sent() >= half && self.0.partitions.get() < plan.partitions_later {
                self.grow(&client, plan.partitions_later).await;
            }
        }
        self.0.administrator_done.set(true);
    }

    async fn grow(&self, client: &Client, total: u32) {
        let request = AddPartitionsRequest { name: TOPIC.into(), total, validate_only: false };
        let begun = self.0.begin(ADMINISTRATOR, false, Action::AlterTopic(facts(total)));
        let error = client.call_within(CallRequest::AddPartitions(request), PATIENCE).await.err();
        // An attempt whose answer was lost has done it already.
        self.0.complete(begun, error.filter(|error| !error.maybe_applied()).as_ref(), |_| {});
        self.0.partitions.set(total);
    }

    async fn ask(&self, client: &Client, partition: PartitionIndex, is_final: bool) {
        let bounds =
            [(OffsetQuery::Earliest, OffsetSpec::Earliest), (OffsetQuery::Latest, OffsetSpec::Latest)];
        for (query, spec) in bounds {
            let process = if is_final { FINAL_READER } else { ADMINISTRATOR };
            let question = Action::ListOffsets { log: log(partition), query, answer: None };
            let begun = self.0.begin(process, is_final, question);
            let request = CallRequest::ListOffsets { topic: self.0.topic.clone(), partition, spec };
            let told = client.call_within(request, PATIENCE).await;
            self.0.complete(begun, told.as_ref().err(), |action| {
                if let (Action::ListOffsets { answer, .. }, Ok(told)) = (action, &told) {
                    *answer = Some(offset_of(told));
                }
            });
        }
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
                content: content::read(record.key.as_deref(), record.value.as_deref(), None),
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

/// The topic of a run, with so many partitions. Nothing is ever removed from it.
fn facts(partitions: u32) -> Topic {
    Topic { topic: TOPIC_NUMBER, name: TOPIC.to_owned(), partitions, ..Topic::default() }
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

fn offset_of(told: &CallResponse) -> OffsetAnswer {
    match told {
        CallResponse::Offset(listed) => {
            OffsetAnswer { offset: listed.offset.0, timestamp_ms: listed.timestamp_ms }
        }
        other => panic!("list-offsets was answered with {other:?}"),
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
