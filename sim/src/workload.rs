//! The clients of a run: producers that remember what they sent, readers that note what they see.
//!
//! Everything goes into one [`History`]. Nothing here judges, and nothing ends a client but the end of the run:
//! it rides through whatever happens to the broker.

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
    Error, ErrorKind, Offset, OffsetSpec, OutOfRange, PartitionIndex, Partitioner, Record, StartOffset,
    Ticket, TopicName,
};
use corrente_protocol::api::{AddPartitionsRequest, CreateTopicRequest};
use corrente_protocol::partitioner::partition_for_key;
use corrente_runtime::executor::spawn;
use corrente_runtime::sync::{Budget, Permit};
use corrente_runtime::timer::{Instant, now, sleep, sleep_until};
use fastrand::Rng;

use crate::client::{Client, Producer, Reader};
use crate::content::{self, RecordId};
use crate::history::{Event, History, ReaderId};
use crate::plan::{LoadPlan, ProducerPlan};

/// The topic of a run.
pub const TOPIC: &str = "ledger";
/// Any request of the administrator is tried for this long; no fault lasts as long.
const PATIENCE: Duration = Duration::from_secs(600);
/// A record is given up after this long; no fault lasts as long.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(1_200);
/// What a batch may decompress to.
const DECOMPRESSED_BYTES_MAX: usize = 16 << 20;

/// The clients of a run and what they have to tell. Clones are the same.
#[derive(Clone)]
pub struct Workload(Rc<Shared>);

struct Shared {
    plan: LoadPlan,
    topic: TopicName,
    broker: (Arc<str>, u16),
    history: RefCell<History>,
    sent: Cell<u64>,
    resolved: Cell<u64>,
    bytes: Cell<u64>,
    producers_running: Cell<usize>,
    pauses: RefCell<VecDeque<(u64, Duration)>>,
    paused_until: Cell<Instant>,
    questions: Cell<u32>,
    /// Readers started.
    readers: Cell<u32>,
    /// Partitions the topic has by now.
    partitions: Cell<u32>,
}

impl Workload {
    /// A workload for the broker at this address; nothing is started yet.
    pub fn new(plan: LoadPlan, broker: (String, u16)) -> Workload {
        let history = History { partitions: plan.partitions, ..History::default() };
        Workload(Rc::new(Shared {
            topic: TopicName::new(TOPIC).expect("a valid name"),
            broker: (broker.0.into(), broker.1),
            history: RefCell::new(history),
            sent: Cell::new(0),
            resolved: Cell::new(0),
            bytes: Cell::new(0),
            producers_running: Cell::new(plan.producers.len()),
            pauses: RefCell::new(plan.pauses.iter().copied().collect()),
            paused_until: Cell::new(Instant::from_nanos(0)),
            questions: Cell::new(0),
            readers: Cell::new(0),
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

    /// Notes that the broker goes down.
    pub fn note_down(&self) {
        self.0.note(Event::Down);
    }

    /// The history so far.
    pub fn history(&self) -> History {
        self.0.history.borrow().clone()
    }

    /// Creates the topic. To be run on the client's node, once, before everything else.
    pub async fn prepare(self, segment_bytes: u64, seed: u64) -> Result<(), Error> {
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
        match client.call_within(CallRequest::CreateTopic(request), PATIENCE).await {
            // An attempt whose answer was lost has made it.
            Err(error) if error.kind() == ErrorKind::TopicAlreadyExists && error.maybe_applied() => Ok(()),
            outcome => outcome.map(drop),
        }
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
        spawn(self.clone().follow(ReaderId::During(number), reader)).detach();
    }

    /// Asks every partition for its bounds and reads it from end to end. To be run when nothing is sent any more.
    pub async fn read_everything(self, seed: u64) {
        let client = self.client(seed);
        let partitions = self.0.partitions.get();
        for partition in (0..partitions).map(PartitionIndex) {
            if let Err(error) = self.ask(&client, partition).await {
                self.0.note(Event::ReaderFailed { reader: ReaderId::Final, error: error.to_string() });
            }
        }
        let reader = client.reader(self.consumer_settings(partitions, StartOffset::Earliest, true));
        self.follow(ReaderId::Final, reader).await;
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
        let record = Record::value(value).key(content::key(key)).partition(partition.0);
        shared.note(Event::Sent { id, key, partition });
        shared.sent.set(shared.sent.get() + 1);
        match producer.send(&record) {
            Ok(ticket) => spawn(self.clone().settle(id, ticket, permit)).detach(),
            Err(error) => self.settled(id, Err(error)),
        }
    }

    async fn settle(self, id: RecordId, ticket: Ticket, permit: Permit) {
        let outcome = ticket.await.map(|receipt| (PartitionIndex(receipt.partition), receipt.offset));
        self.settled(id, outcome);
        drop(permit);
    }

    fn settled(&self, id: RecordId, outcome: Result<(PartitionIndex, Offset), Error>) {
        self.0.note(match outcome {
            Ok((partition, offset)) => Event::Acked { id, partition, offset },
            Err(error) => {
                Event::Failed { id, maybe_applied: error.maybe_applied(), error: error.to_string() }
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
    async fn follow(self, reader: ReaderId, source: Reader) {
        while let Some(item) = source.next().await {
            if let Err(error) = item.and_then(|fetched| self.note_read(reader, fetched)) {
                self.0.note(Event::ReaderFailed { reader, error: error.to_string() });
            }
        }
    }

    fn note_read(&self, reader: ReaderId, mut fetched: Fetched) -> Result<(), Error> {
        let (partition, end) = (fetched.partition, fetched.high_watermark);
        while let Some(batch) = fetched.next_batch(DECOMPRESSED_BYTES_MAX) {
            for record in batch?.records {
                let content = content::read(record.key.as_deref(), record.value.as_deref());
                self.0.note(Event::Read { reader, partition, offset: record.offset, content });
            }
        }
        self.0.note(Event::HighWatermark { partition, end });
        Ok(())
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
            // A question without an answer is none.
            let _ = self.ask(&client, partition).await;
            if self.sent() >= half && self.0.partitions.get() < plan.partitions_later {
                self.grow(&client, plan.partitions_later).await;
            }
        }
    }

    async fn grow(&self, client: &Client, total: u32) {
        let request = AddPartitionsRequest { name: TOPIC.into(), total, validate_only: false };
        let grown = client.call_within(CallRequest::AddPartitions(request), PATIENCE).await;
        match grown {
            // An attempt whose answer was lost has done it already.
            Err(error) if !error.maybe_applied() => {
                self.0.note(Event::ReaderFailed { reader: ReaderId::Final, error: error.to_string() });
            }
            _ => {}
        }
        self.0.partitions.set(total);
        self.0.history.borrow_mut().partitions = total;
    }

    async fn ask(&self, client: &Client, partition: PartitionIndex) -> Result<(), Error> {
        let shared = &self.0;
        let question = shared.questions.replace(shared.questions.get() + 1);
        shared.note(Event::Asked { question, partition });
        let [start, end] = [OffsetSpec::Earliest, OffsetSpec::Latest].map(|spec| {
            let topic = shared.topic.clone();
            client.call_within(CallRequest::ListOffsets { topic, partition, spec }, PATIENCE)
        });
        let (start, end) = (offset(start.await?), offset(end.await?));
        shared.note(Event::Answered { question, partition, start, end });
        Ok(())
    }
}

impl Shared {
    fn note(&self, event: Event) {
        self.history.borrow_mut().events.push(event);
    }
}

fn offset(response: CallResponse) -> Offset {
    match response {
        CallResponse::Offset(listed) => listed.offset,
        other => panic!("list-offsets was answered with {other:?}"),
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
