//! A broker and a client without any cleverness, both in a simulated world.

#![allow(dead_code, reason = "each story uses its part")]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use corrente_broker::{Config, Node as Broker};
use corrente_protocol::api::{
    AlterTopicRequest, CreateTopicRequest, CreateTopicResponse, DeleteBefore, DeleteRecordsPartition,
    DeleteRecordsPartitionResponse, DeleteRecordsRequest, ErrorResponse, FetchPartition,
    FetchPartitionResponse, FetchRequest, ListOffsetsPartition, ListOffsetsPartitionResponse,
    ListOffsetsRequest, Message, OffsetSpec, ProducePartition, ProducePartitionResponse, ProduceRequest,
    Request, SubscribePartition, SubscribeRequest,
};
use corrente_protocol::compression::Compression;
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::frame::{self, Cut, Durability, RequestHeader, ResponseHeader, request_frame};
use corrente_protocol::hello::{ClientHello, SERVER_HELLO_LEN, ServerHello};
use corrente_protocol::ids::{Offset, PartitionIndex, ShardId, TopicId};
use corrente_protocol::record_batch::{RecordBatchBuilder, RecordBatches};
use corrente_runtime::sim::{Node, World, WorldConfig};
use corrente_runtime::socket::Stream;

/// Where the broker listens.
pub const BROKER: ([u8; 4], u16) = ([10, 0, 0, 1], 7400);

const FRAME_MAX: u32 = 64 << 20;

/// A configuration for the simulated node.
pub fn config(shards: u16) -> Config {
    let mut config = Config::default();
    config.listen.native = SocketAddr::from(BROKER);
    config.node.data_dirs = vec!["/data".into()];
    config.shards.count = shards;
    config
}

/// Starts a broker on `node`; the world runs on until it serves.
pub fn start(world: &World, node: &Node, config: Config) {
    let mut started = node.spawn(|| async move {
        let broker = Broker::start(config).await.map_err(|error| error.to_string())?;
        corrente_runtime::executor::spawn(async move {
            let mut broker = broker;
            broker.stopped().await.expect("no shard panics");
        })
        .detach();
        Ok::<(), String>(())
    });
    run(world, || started.is_finished());
    started.take_output().expect("the node was not crashed").expect("the broker starts");
}

/// Runs the world until `done`.
pub fn run(world: &World, done: impl FnMut() -> bool) {
    run_within(world, Duration::from_secs(300), done);
}

/// Runs the world until `done`, for so long at most.
pub fn run_within(world: &World, limit: Duration, done: impl FnMut() -> bool) {
    world.run_until(done, limit).unwrap_or_else(|error| panic!("{error}"));
}

/// A machine of its own beside the broker's.
pub fn client_node(world: &World) -> Node {
    world.node("client", [10, 0, 0, 2])
}

/// Tells a part of a story on a machine, within so much virtual time.
pub fn tell_within<T: 'static, Fut>(
    world: &World,
    node: &Node,
    limit: Duration,
    what: impl FnOnce() -> Fut + 'static,
) -> T
where
    Fut: Future<Output = T> + 'static,
{
    let mut told = node.spawn(what);
    run_within(world, limit, || told.is_finished());
    told.take_output().expect("told to its end")
}

/// Tells a part of a story on a machine.
pub fn tell<T: 'static, Fut>(world: &World, node: &Node, what: impl FnOnce() -> Fut + 'static) -> T
where
    Fut: Future<Output = T> + 'static,
{
    tell_within(world, node, Duration::from_secs(300), what)
}

/// Tells a story: a broker with `shards` shards, and `client` talking to it from another machine.
pub fn story<Fut>(shards: u16, client: impl FnOnce() -> Fut + 'static)
where
    Fut: Future<Output = ()> + 'static,
{
    story_with(config(shards), client);
}

/// Tells a story with a broker that is set up otherwise.
pub fn story_with<Fut>(config: Config, client: impl FnOnce() -> Fut + 'static)
where
    Fut: Future<Output = ()> + 'static,
{
    let world = World::new(7, WorldConfig::default());
    let node = world.node("broker", BROKER.0);
    let other = client_node(&world);
    start(&world, &node, config);
    tell(&world, &other, client);
}

/// One connection that speaks frame by frame.
pub struct Client {
    pub stream: Stream,
    pub buffer: BytesMut,
    next_correlation_id: u64,
}

impl Client {
    /// Connects and says hello to a shard.
    pub async fn connect(shard: ShardId) -> Client {
        let mut stream = Stream::connect(SocketAddr::from(BROKER)).await.expect("the broker listens");
        let hello = ClientHello::new("story", shard).encode();
        stream.write_all(&[Bytes::copy_from_slice(&hello)]).await.expect("the hello is sent");
        let mut client = Client { stream, buffer: BytesMut::new(), next_correlation_id: 1 };
        let answer = client.read_exactly(SERVER_HELLO_LEN).await.expect("the hello is answered");
        let answer = ServerHello::decode(answer[..].try_into().expect("that long")).expect("a hello");
        assert_eq!(answer.error, ErrorCode::None, "{}", answer.text);
        client
    }

    /// Reads so many bytes; `None` if the broker closes first.
    pub async fn read_exactly(&mut self, len: usize) -> Option<Bytes> {
        while self.buffer.len() < len {
            self.more().await?;
        }
        Some(self.buffer.split_to(len).freeze())
    }

    async fn more(&mut self) -> Option<()> {
        self.buffer.reserve(64 * 1024);
        let read = self.stream.read(&mut self.buffer).await.unwrap_or(0);
        (read > 0).then_some(())
    }

    /// Sends raw bytes.
    pub async fn send_bytes(&mut self, bytes: impl Into<Bytes>) {
        // A broker that has closed already is what some stories are about.
        let _ = self.stream.write_all(&[bytes.into()]).await;
    }

    /// Sends a request and returns its correlation id.
    pub async fn send<R: Request>(&mut self, request: &R) -> u64 {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id += 1;
        let header = RequestHeader {
            api: R::API,
            version: 0,
            flags: 0,
            correlation_id,
            deadline_ms: 0,
            durability: Durability::IsrFlushed,
            body_len: 0,
        };
        let frame = request_frame(header, |writer| request.encode(0, writer));
        self.stream.write_all(&frame).await.expect("the request is sent");
        correlation_id
    }

    /// The next response, whatever it answers; `None` if the broker closed.
    pub async fn receive(&mut self) -> Option<(ResponseHeader, Bytes)> {
        loop {
            match frame::cut_response(&mut self.buffer, FRAME_MAX).expect("the broker sends frames") {
                Cut::Frame(header, body) => return Some((header, body)),
                Cut::Need(_) => self.more().await?,
            }
        }
    }

    /// Asks and waits for the answer.
    pub async fn call<R: Request>(&mut self, request: &R) -> R::Response {
        let correlation_id = self.send(request).await;
        let (header, body) = self.receive().await.expect("an answer");
        assert_eq!(header.correlation_id, correlation_id);
        assert!(!header.is_error(), "{:?}", ErrorResponse::decode(0, body.clone()));
        R::Response::decode(0, body).expect("the response decodes")
    }

    /// Waits for a response that is nothing but an error.
    pub async fn refusal(&mut self) -> (ErrorCode, String) {
        let (header, body) = self.receive().await.expect("an answer");
        assert!(header.is_error(), "refused, not answered with {:?}", header.api);
        let refusal = ErrorResponse::decode(0, body).expect("an error response");
        (refusal.error, refusal.message.expect("a line for people"))
    }

    /// Creates a topic and returns its id.
    pub async fn create_topic(&mut self, name: &str, partitions: u32) -> TopicId {
        let response = self.try_create_topic(name, partitions).await;
        assert_eq!(response.error, ErrorCode::None, "{:?}", response.message);
        response.id
    }

    /// Creates a topic with configs and returns its id.
    pub async fn create_topic_with(
        &mut self,
        name: &str,
        partitions: u32,
        configs: &[(&str, &str)],
    ) -> TopicId {
        let configs = configs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let request = CreateTopicRequest {
            name: name.to_owned(),
            partitions,
            replication_factor: 0,
            configs: configs.collect(),
            validate_only: false,
        };
        let response = self.call(&request).await;
        assert_eq!(response.error, ErrorCode::None, "{:?}", response.message);
        response.id
    }

    /// Sets one config of a topic.
    pub async fn alter_topic(&mut self, name: &str, key: &str, value: &str) {
        let request = AlterTopicRequest {
            name: name.to_owned(),
            set: vec![(key.to_owned(), value.to_owned())],
            unset: Vec::new(),
            validate_only: false,
        };
        let response = self.call(&request).await;
        assert_eq!(response.error, ErrorCode::None, "{:?}", response.message);
    }

    /// Appends batches to one partition.
    pub async fn append(
        &mut self,
        topic: TopicId,
        partition: u32,
        batches: Bytes,
    ) -> ProducePartitionResponse {
        self.call(&produce(topic, partition, batches)).await.partitions.remove(0)
    }

    /// Reads from one partition without waiting.
    pub async fn read(&mut self, topic: TopicId, partition: u32, offset: u64) -> FetchPartitionResponse {
        self.call(&fetch(topic, partition, offset, 0)).await.partitions.remove(0)
    }

    /// Finds one offset of one partition.
    pub async fn find(
        &mut self,
        topic: TopicId,
        partition: u32,
        spec: OffsetSpec,
    ) -> ListOffsetsPartitionResponse {
        let part = ListOffsetsPartition { topic, partition: PartitionIndex(partition), spec };
        self.call(&ListOffsetsRequest { partitions: vec![part] }).await.partitions.remove(0)
    }

    /// Deletes the oldest records of one partition.
    pub async fn delete_records(
        &mut self,
        topic: TopicId,
        partition: u32,
        before: DeleteBefore,
    ) -> DeleteRecordsPartitionResponse {
        let part = DeleteRecordsPartition { topic, partition: PartitionIndex(partition), before };
        self.call(&DeleteRecordsRequest { partitions: vec![part] }).await.partitions.remove(0)
    }

    /// Asks for a topic.
    pub async fn try_create_topic(&mut self, name: &str, partitions: u32) -> CreateTopicResponse {
        let name = name.to_owned();
        let configs = Vec::new();
        self.call(&CreateTopicRequest {
            name,
            partitions,
            replication_factor: 0,
            configs,
            validate_only: false,
        })
        .await
    }
}

/// What the wall clock of a simulated world shows at its beginning.
pub const START_MS: i64 = 1_767_225_600_000;

/// One batch of records without keys.
pub fn batch(values: &[&[u8]]) -> Bytes {
    let mut builder = RecordBatchBuilder::new(Compression::None);
    for value in values {
        builder.push(START_MS, None, Some(value), &[]).expect("a short record");
    }
    builder.build()
}

/// One batch of records without keys, each at a time of its own.
pub fn batch_at(times_ms: &[i64]) -> Bytes {
    let mut builder = RecordBatchBuilder::new(Compression::None);
    for time_ms in times_ms {
        builder.push(*time_ms, None, Some(b"timed"), &[]).expect("a short record");
    }
    builder.build()
}

/// A request that appends to one partition.
pub fn produce(topic: TopicId, partition: u32, batches: Bytes) -> ProduceRequest {
    let partition = PartitionIndex(partition);
    ProduceRequest {
        wants_stage_times: false,
        partitions: vec![ProducePartition { topic, partition, expected_end_offset: None, batches }],
    }
}

/// Appends records without keys.
pub async fn append(
    client: &mut Client,
    topic: TopicId,
    partition: u32,
    values: &[&[u8]],
) -> ProducePartitionResponse {
    client.append(topic, partition, batch(values)).await
}

/// A request that reads from one partition.
pub fn fetch(topic: TopicId, partition: u32, offset: u64, max_wait_ms: u32) -> FetchRequest {
    let part = FetchPartition {
        topic,
        partition: PartitionIndex(partition),
        offset: Offset(offset),
        max_bytes: 1 << 20,
        leader_epoch: None,
    };
    FetchRequest { max_wait_ms, min_bytes: 1, max_bytes: 1 << 20, partitions: vec![part] }
}

/// A subscription to partitions of one topic from their beginnings, with a heartbeat longer than most stories.
pub fn subscribe(topic: TopicId, partitions: impl IntoIterator<Item = u32>, credit: u32) -> SubscribeRequest {
    let part = |partition| SubscribePartition {
        topic,
        partition: PartitionIndex(partition),
        offset: Offset(0),
        leader_epoch: None,
        end: None,
    };
    let partitions = partitions.into_iter().map(part).collect();
    SubscribeRequest { heartbeat_ms: 60_000, credit, max_bytes: 1 << 20, partitions }
}

/// Offsets and values of the records that came.
pub fn values(response: &FetchPartitionResponse) -> Vec<(u64, Bytes)> {
    let batches = response.batches.iter().cloned().flat_map(RecordBatches::new);
    let records = batches.flat_map(|batch| batch.expect("intact").records(1 << 20).expect("readable"));
    records
        .map(|record| record.expect("decodes"))
        .map(|r| (r.offset.0, r.value.unwrap_or_default()))
        .collect()
}
