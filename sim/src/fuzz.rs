//! Entry for fuzzing: a whole broker in a simulated world, a client, and a stranger who says what the bytes say. Not
//! part of the api; the rules are those of `corrente_protocol::fuzz`, but for the memory of a world.
//!
//! Whatever the stranger says, the broker answers each request at most once and in its own words, serves on, starts
//! again after a stop or a power cut, and holds what it has acknowledged to the client.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use corrente_broker::{Config, Node as Broker, ShutdownHandle, byte_size::ByteSize};
use corrente_client::core::CoreSettings;
use corrente_client::core::accumulator::{Partitioner, ProducerSettings};
use corrente_client::core::call::CallRequest;
use corrente_client::core::consume::{ConsumerSettings, OutOfRange, StartOffset};
use corrente_client::{
    Compression, Durability, ErrorCode, Offset, PartitionIndex, Record, TopicId, TopicName,
};
use corrente_protocol::api::*;
use corrente_protocol::frame::{Cut, RequestHeader, cut_response, request_frame};
use corrente_protocol::fuzz::{Choices, Entry};
use corrente_protocol::hello::{ClientHello, SERVER_HELLO_LEN, ServerHello};
use corrente_protocol::ids::ShardId;
use corrente_protocol::record_batch::RecordBatchBuilder;
use corrente_runtime::sim::{Node, World, WorldConfig};
use corrente_runtime::socket::Stream;
use corrente_runtime::timer::{now, sleep, timeout};

use crate::client::Client;

mod kafka;

/// Every entry of this crate.
pub const ENTRIES: &[Entry] = &[("broker", broker), ("broker_kafka", broker_kafka)];

const BROKER: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 7400);
/// Virtual time in which each part of a session must come to its end.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long the stranger waits for anything.
const STRANGER_WAITS: Duration = Duration::from_millis(100);
/// How long the stranger listens to one that goes on talking.
const STRANGER_LISTENS: Duration = Duration::from_secs(2);
const HEARTBEAT_MS: u32 = 1000;
const READ_BLOCK: usize = 16 << 10;
const HONEST: &str = "honest";
const RECORDS: usize = 3;

/// Entry for fuzzing: see the module.
pub fn broker(bytes: &[u8]) {
    beside_a_client(bytes, |said| Stranger::default().converse(said));
}

/// The same, with a stranger who speaks Kafka's protocol.
pub fn broker_kafka(bytes: &[u8]) {
    beside_a_client(bytes, kafka::converse);
}

/// The first of the bytes says how the broker's first life ends, the rest is for the stranger.
fn beside_a_client<F: Future<Output = ()> + 'static>(
    bytes: &[u8],
    converse: impl FnOnce(Vec<u8>) -> F + 'static,
) {
    // Who names the client's topic may delete it, and has every right to.
    if bytes.windows(HONEST.len()).any(|window| window == HONEST.as_bytes()) {
        return;
    }
    let world = World::new(7, WorldConfig::default());
    let server = world.node("broker", BROKER.ip());
    let client = world.node("client", [10, 0, 0, 2]);
    let stranger = world.node("stranger", [10, 0, 0, 3]);
    let (end, said) = bytes.split_first().unwrap_or((&0, &[]));
    let ends_by_a_cut = end & 1 == 1;

    let life = Life::begin(&world, &server);
    world.run(&client, PATIENCE, produce).expect("the client is served");
    let said = said.to_vec();
    world.run(&stranger, PATIENCE, move || converse(said)).expect("the stranger is left alone");
    if ends_by_a_cut {
        server.crash();
    } else {
        life.end(&world, &server);
    }
    let life = Life::begin(&world, &server);
    world.run(&client, PATIENCE, read).expect("the client is served again");
    life.end(&world, &server);
}

/// One start of the broker.
struct Life(Rc<RefCell<Option<ShutdownHandle>>>);

impl Life {
    fn begin(world: &World, server: &Node) -> Life {
        let shutdown = Rc::new(RefCell::new(None));
        let serving = shutdown.clone();
        server
            .spawn(move || async move {
                let mut broker = Broker::start(config()).await.expect("the broker starts");
                serving.replace(Some(broker.shutdown_handle()));
                broker.stopped().await.expect("no shard panics");
                serving.replace(None);
            })
            .detach();
        world.run_until(|| shutdown.borrow().is_some(), PATIENCE).expect("the broker serves");
        Life(shutdown)
    }

    fn end(self, world: &World, server: &Node) {
        let shutdown = self.0.borrow().clone().expect("it serves");
        server.spawn(move || async move { shutdown.shutdown().await }).detach();
        world.run_until(|| self.0.borrow().is_none(), PATIENCE).expect("the broker stops");
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config.listen.native = BROKER;
    config.listen.kafka = Some(kafka::LISTENER);
    config.node.data_dirs = vec!["/data".into()];
    config.shards.count = 2;
    config.memory.per_shard_bytes = ByteSize::mib(48);
    config.log.window_bytes_max = ByteSize(64 << 10);
    config
}

// The client.

fn honest_client() -> Client {
    let host = Arc::from(BROKER.ip().to_string().as_str());
    Client::start(CoreSettings::new(vec![(host, BROKER.port())]), 7)
}

fn honest() -> TopicName {
    TopicName::new(HONEST).expect("a topic name")
}

async fn produce() {
    let client = honest_client();
    let create = CreateTopicRequest {
        name: HONEST.to_owned(),
        partitions: 1,
        replication_factor: 1,
        configs: Vec::new(),
        validate_only: false,
    };
    client.call(CallRequest::CreateTopic(create)).await.expect("the topic is created");
    let settings = ProducerSettings {
        idempotent: true,
        topic: honest(),
        durability: Durability::IsrFlushed,
        linger: Duration::ZERO,
        batch_bytes: 1 << 16,
        batch_records: 1,
        compression: Compression::None,
        delivery_timeout: PATIENCE,
        partitioner: Partitioner::Sticky,
        record_bytes_max: 1 << 20,
    };
    let producer = client.producer(settings, 1);
    for number in 0..RECORDS {
        let ticket = producer.send(&Record::value(number.to_string())).expect("room for a record");
        ticket.await.expect("a record is acknowledged");
    }
}

async fn read() {
    let client = honest_client();
    let reader = client.reader(ConsumerSettings {
        partitions: vec![(honest(), PartitionIndex(0), StartOffset::At(Offset(0)))],
        until_end: true,
        out_of_range: OutOfRange::Fail,
        prefetch_bytes: 1 << 16,
        answer_bytes_max: 1 << 16,
        heartbeat: Duration::from_millis(100),
    });
    let mut values = Vec::new();
    while let Some(fetched) = reader.next().await {
        let mut fetched = fetched.expect("what was acknowledged can be read");
        while let Some(batch) = fetched.next_batch(1 << 16) {
            let records = batch.expect("what was acknowledged is whole").records;
            values.extend(records.into_iter().map(|record| record.value.expect("every record has a value")));
        }
    }
    let sent: Vec<Bytes> = (0..RECORDS).map(|number| Bytes::from(number.to_string())).collect();
    assert_eq!(values.get(..RECORDS), Some(&sent[..]), "acknowledged records are lost or altered");
}

// The stranger.

/// What it has learnt, and what it still waits for on its connection.
#[derive(Default)]
struct Stranger {
    stream: Option<Stream>,
    greeted: bool,
    /// It has said something on this connection that was no request of its own making.
    babbled: bool,
    received: BytesMut,
    asked: BTreeMap<u64, ApiKey>,
    last_correlation: u64,
    topics: Vec<TopicId>,
}

impl Stranger {
    async fn converse(mut self, said: Vec<u8>) {
        let mut choices = Choices::new(&said);
        while !choices.is_empty() {
            match choices.u8() % 8 {
                0 => self.connect(&mut choices).await,
                1 => {
                    self.babbled = true;
                    self.say(&[Bytes::copy_from_slice(choices.bytes())]).await;
                }
                2 => {
                    let api = ApiKey::from_code(choices.u8().into());
                    let body = Bytes::copy_from_slice(choices.bytes());
                    self.ask(api, &mut choices, |writer| writer.put_shared(body)).await;
                }
                3 => self.hear().await,
                4 => sleep(Duration::from_micros(choices.u16().into())).await,
                _ => self.ask_plausibly(&mut choices).await,
            }
        }
        self.hear().await;
    }

    async fn connect(&mut self, choices: &mut Choices<'_>) {
        let topics = std::mem::take(&mut self.topics);
        let last_correlation = self.last_correlation;
        *self = Stranger { topics, last_correlation, ..Stranger::default() };
        self.stream = timeout(PATIENCE, Stream::connect(BROKER)).await.ok().and_then(Result::ok);
        let shard = match choices.u8() {
            255 => ShardId::ANY,
            shard => ShardId(shard.into()),
        };
        let hello = ClientHello::new("stranger", shard).encode();
        self.say(&[Bytes::copy_from_slice(&hello)]).await;
    }

    async fn say(&mut self, chunks: &[Bytes]) {
        let Some(stream) = &mut self.stream else { return };
        if !matches!(timeout(STRANGER_WAITS, stream.write_all(chunks)).await, Ok(Ok(()))) {
            self.stream = None;
        }
    }

    async fn ask(
        &mut self,
        api: ApiKey,
        choices: &mut Choices<'_>,
        body: impl FnOnce(&mut corrente_protocol::wire::Writer),
    ) {
        self.last_correlation += 1;
        let header = RequestHeader {
            api,
            version: u16::from(choices.u8() == 255),
            flags: 0,
            correlation_id: self.last_correlation,
            deadline_ms: choices.u8().into(),
            durability: Durability::ALL[usize::from(choices.u8() % 4)],
            body_len: 0,
        };
        self.asked.insert(self.last_correlation, api);
        self.say(&request_frame(header, body)).await;
    }

    /// Takes in what has come, until nothing comes for a while, or nothing but heartbeats.
    async fn hear(&mut self) {
        let until = now() + STRANGER_LISTENS;
        while let Some(stream) = self.stream.as_mut().filter(|_| now() < until) {
            self.received.reserve(READ_BLOCK);
            let read = timeout(STRANGER_WAITS, stream.read(&mut self.received)).await;
            match read {
                Ok(Ok(1..)) => self.understand(),
                Ok(_) => self.stream = None,
                Err(_) => return,
            }
        }
    }

    fn understand(&mut self) {
        if !self.greeted {
            let Some(hello) = self.received.first_chunk::<SERVER_HELLO_LEN>() else { return };
            ServerHello::decode(hello).expect("the broker says hello");
            self.received.advance(SERVER_HELLO_LEN);
            self.greeted = true;
        }
        loop {
            let cut = cut_response(&mut self.received, 1 << 30).expect("the broker sends whole frames");
            let Cut::Frame(header, body) = cut else { return };
            match self.asked.remove(&header.correlation_id) {
                Some(api) => {
                    assert_eq!(header.api, api, "an answer to another request");
                    if header.has_more() {
                        assert_eq!(
                            api,
                            ApiKey::Subscribe,
                            "a second answer to come, which was not asked for"
                        );
                        self.asked.insert(header.correlation_id, api);
                    }
                }
                None => assert!(self.babbled, "an answer to {}, which was not asked", header.correlation_id),
            }
            let read =
                if header.is_error() { decoded::<ErrorResponse>(body) } else { self.read(header.api, body) };
            read.unwrap_or_else(|error| panic!("an answer of {} cannot be read: {error}", header.api));
        }
    }

    fn read(&mut self, api: ApiKey, body: Bytes) -> Result<(), corrente_protocol::DecodeError> {
        match api {
            ApiKey::Produce => decoded::<ProduceResponse>(body),
            ApiKey::Fetch => decoded::<FetchResponse>(body),
            ApiKey::ListOffsets => decoded::<ListOffsetsResponse>(body),
            ApiKey::Metadata => decoded::<MetadataResponse>(body),
            ApiKey::Subscribe => decoded::<FetchResponse>(body),
            ApiKey::AdjustSubscription => decoded::<AdjustSubscriptionResponse>(body),
            ApiKey::CreateTopic => CreateTopicResponse::decode(0, body).map(|response| {
                if response.error == ErrorCode::None {
                    self.topics.push(response.id);
                }
            }),
            ApiKey::DeleteTopic => decoded::<DeleteTopicResponse>(body),
            ApiKey::AlterTopic => decoded::<AlterTopicResponse>(body),
            ApiKey::DescribeTopic => decoded::<DescribeTopicResponse>(body),
            ApiKey::AddPartitions => decoded::<AddPartitionsResponse>(body),
            ApiKey::InitProducerId => decoded::<InitProducerIdResponse>(body),
            api => panic!("{api} is not served, and was answered without an error"),
        }
    }

    /// A request that could be meant, about topics of its own.
    async fn ask_plausibly(&mut self, choices: &mut Choices<'_>) {
        const APIS: usize = ApiKey::ALL.len();
        let api = ApiKey::ALL[usize::from(choices.u8()) % APIS];
        let name = ["a", "b", ".", ""][usize::from(choices.u8() % 4)].to_owned();
        let place = usize::from(choices.u8()).checked_rem(self.topics.len());
        let topic = place.map_or(TopicId::METADATA, |place| self.topics[place]);
        let partition = PartitionIndex(u32::from(choices.u8() % 4));
        let offset = Offset(choices.u8().into());
        let configs = vec![("segment.bytes".to_owned(), (u32::from(choices.u8()) << 16).to_string())];
        let validate_only = choices.u8() == 255;
        let number = u32::from(choices.u8());
        let batches = batches(choices);
        match api {
            ApiKey::Produce => {
                let expected_end_offset = offset.0.checked_sub(1).map(Offset);
                let partition = ProducePartition { topic, partition, expected_end_offset, batches };
                let request = ProduceRequest::new(vec![partition]);
                self.ask(api, choices, |writer| request.encode(0, writer)).await;
            }
            ApiKey::Fetch => {
                let max_bytes = number << 8;
                let partition = FetchPartition { topic, partition, offset, max_bytes, leader_epoch: None };
                let (max_wait_ms, min_bytes) = (number, u32::from(validate_only));
                let request = FetchRequest { max_wait_ms, min_bytes, max_bytes, partitions: vec![partition] };
                self.ask(api, choices, |writer| request.encode(0, writer)).await;
            }
            ApiKey::Subscribe => {
                let (leader_epoch, end) = (None, validate_only.then(|| offset.saturating_add(number.into())));
                let partitions = vec![SubscribePartition { topic, partition, offset, leader_epoch, end }];
                let (credit, max_bytes) = (number << 6, number << 8);
                let request = SubscribeRequest { heartbeat_ms: HEARTBEAT_MS, credit, max_bytes, partitions };
                self.ask(api, choices, |writer| request.encode(0, writer)).await;
            }
            ApiKey::AdjustSubscription => {
                let subscriptions = self.asked.iter().filter(|(_, api)| **api == ApiKey::Subscribe);
                let subscription = subscriptions.map(|(id, _)| *id).next_back().unwrap_or(offset.0);
                let request =
                    AdjustSubscriptionRequest { subscription, credit: number << 6, ends: validate_only };
                self.ask(api, choices, |writer| request.encode(0, writer)).await;
            }
            ApiKey::ListOffsets => {
                let specs = [OffsetSpec::Earliest, OffsetSpec::Latest, OffsetSpec::Timestamp(7)];
                let spec = specs[number as usize % specs.len()];
                let request =
                    ListOffsetsRequest { partitions: vec![ListOffsetsPartition { topic, partition, spec }] };
                self.ask(api, choices, |writer| request.encode(0, writer)).await;
            }
            ApiKey::Metadata => {
                let topics = TopicName::new(&name).ok().map(|name| vec![name]);
                let request = MetadataRequest { topics };
                self.ask(api, choices, |writer| request.encode(0, writer)).await;
            }
            ApiKey::CreateTopic => {
                let (partitions, replication_factor) = (number % 8, u16::from(validate_only));
                let configs = if offset.0 > 0 { configs } else { Vec::new() };
                let request =
                    CreateTopicRequest { name, partitions, replication_factor, configs, validate_only };
                self.ask(api, choices, |writer| request.encode(0, writer)).await;
            }
            ApiKey::DeleteTopic => {
                let request = DeleteTopicRequest { name };
                self.ask(api, choices, |writer| request.encode(0, writer)).await;
            }
            ApiKey::AlterTopic => {
                let unset = vec!["segment.bytes".to_owned(); usize::from(offset.0 > 0)];
                let set = if offset.0 > 0 { Vec::new() } else { configs };
                let request = AlterTopicRequest { name, set, unset, validate_only };
                self.ask(api, choices, |writer| request.encode(0, writer)).await;
            }
            ApiKey::DescribeTopic => {
                let request = DescribeTopicRequest { name };
                self.ask(api, choices, |writer| request.encode(0, writer)).await;
            }
            ApiKey::InitProducerId => {
                self.ask(api, choices, |writer| InitProducerIdRequest.encode(0, writer)).await;
            }
            _ => {
                let request = AddPartitionsRequest { name, total: number, validate_only };
                self.ask(ApiKey::AddPartitions, choices, |writer| request.encode(0, writer)).await;
            }
        }
    }
}

/// Sound batches, or bytes that are none.
fn batches(choices: &mut Choices<'_>) -> Bytes {
    let kind = usize::from(choices.u8());
    let value = choices.bytes();
    match Compression::ALL.get(kind) {
        None => Bytes::copy_from_slice(value),
        Some(compression) => {
            let mut builder = RecordBatchBuilder::new(*compression);
            builder.push(1, None, Some(value), &[]).expect("a small record");
            builder.build()
        }
    }
}

fn decoded<M: Message>(body: Bytes) -> Result<(), corrente_protocol::DecodeError> {
    M::decode(0, body).map(drop)
}
