//! What the Kafka listener does with requests that no well-behaved client sends, or not in this order.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use common::{batch, config, story_with};
use corrente_broker::Config;
use corrente_protocol::kafka::create_topics::{CreateTopicsRequest, NewTopic, NewTopicConfig};
use corrente_protocol::kafka::delete_topics::{DeleteTopicsRequest, DoomedTopic};
use corrente_protocol::kafka::fetch::{FetchPartition, FetchRequest, FetchTopic};
use corrente_protocol::kafka::list_offsets::{
    LATEST, ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use corrente_protocol::kafka::metadata::{MetadataRequest, MetadataRequestTopic};
use corrente_protocol::kafka::produce::{ProducePartition, ProduceRequest, ProduceTopic};
use corrente_protocol::kafka::{ApiKey, KafkaError, Message, Writer};
use corrente_protocol::wire;
use corrente_runtime::socket::Stream;
use corrente_runtime::timer::{now, timeout};

const LISTENER: ([u8; 4], u16) = ([10, 0, 0, 1], 9092);
const MINUTE: Duration = Duration::from_secs(60);

fn story<Fut: Future<Output = ()> + 'static>(told: impl FnOnce(Client) -> Fut + 'static) {
    let mut config: Config = config(2);
    config.listen.kafka = Some(SocketAddr::from(LISTENER));
    story_with(config, || async move { told(Client::connect().await).await });
}

/// A connection on which requests may be sent before the answers to earlier ones have come.
struct Client {
    stream: Stream,
    received: BytesMut,
}

impl Client {
    async fn connect() -> Client {
        let stream = Stream::connect(SocketAddr::from(LISTENER)).await.expect("the broker listens");
        Client { stream, received: BytesMut::new() }
    }

    async fn send<M: Message>(&mut self, version: i16, request: M) {
        self.say(frame(version, request)).await;
    }

    async fn say(&mut self, bytes: Vec<u8>) {
        self.stream.write_all(&[Bytes::from(bytes)]).await.unwrap();
    }

    /// The next answer, or `None` if the broker closes first.
    async fn receive<M: Message>(&mut self, version: i16) -> Option<M> {
        let frame = loop {
            if let Some(len) = self.received.first_chunk().map(|len| u32::from_be_bytes(*len) as usize)
                && self.received.len() >= 4 + len
            {
                self.received.advance(4);
                break self.received.split_to(len).freeze();
            }
            self.received.reserve(1 << 16);
            if timeout(2 * MINUTE, self.stream.read(&mut self.received)).await.expect("an answer").ok()? == 0
            {
                return None;
            }
        };
        let head = if M::API.is_flexible(version) && M::API != ApiKey::ApiVersions { 5 } else { 4 };
        Some(M::decode(version, frame.slice(head..)).expect("an answer that can be read"))
    }

    async fn call<Q: Message, R: Message>(&mut self, version: i16, request: Q) -> R {
        self.send(version, request).await;
        self.receive(version).await.expect("the broker stays")
    }

    async fn create(&mut self, name: &str, configs: Vec<NewTopicConfig>) -> i16 {
        let new = NewTopic {
            name: name.to_owned(),
            num_partitions: 1,
            replication_factor: 1,
            configs,
            ..NewTopic::default()
        };
        let request = CreateTopicsRequest { topics: vec![new], ..CreateTopicsRequest::default() };
        let created: corrente_protocol::kafka::create_topics::CreateTopicsResponse =
            self.call(5, request).await;
        created.topics[0].error
    }
}

fn frame<M: Message>(version: i16, request: M) -> Vec<u8> {
    let flexible = M::API.is_flexible(version);
    let mut head = Vec::new();
    head.extend(M::API.code().to_be_bytes());
    head.extend(version.to_be_bytes());
    head.extend(7_i32.to_be_bytes());
    // No client id, and no tagged fields.
    head.extend([0xff, 0xff]);
    head.extend(flexible.then_some(0));
    let mut writer = Writer::new(wire::Writer::new(), flexible);
    request.encode(version, &mut writer);
    let body = writer.finish().concat();
    let len = i32::try_from(head.len() + body.len()).unwrap();
    [len.to_be_bytes().to_vec(), head, body].concat()
}

fn fetch(topics: &[&str], max_wait_ms: i32) -> FetchRequest {
    let topic = |name: &&str| FetchTopic {
        name: (*name).to_owned(),
        partitions: vec![FetchPartition { max_bytes: 1 << 20, ..FetchPartition::default() }],
        ..FetchTopic::default()
    };
    let topics = topics.iter().map(topic).collect();
    FetchRequest { max_wait_ms, min_bytes: 1, max_bytes: 1 << 20, topics, ..FetchRequest::default() }
}

fn produce(topic: &str, acks: i16, records: Bytes) -> ProduceRequest {
    let partition = ProducePartition { index: 0, records: vec![records] };
    let topic =
        ProduceTopic { name: topic.to_owned(), partitions: vec![partition], ..ProduceTopic::default() };
    ProduceRequest { acks, topics: vec![topic], ..ProduceRequest::default() }
}

type Fetched = corrente_protocol::kafka::fetch::FetchResponse;
type Produced = corrente_protocol::kafka::produce::ProduceResponse;

#[test]
fn a_fetch_that_names_nothing_is_answered_at_once() {
    story(|mut client| async move {
        let begun = now();
        let fetched: Fetched = client.call(4, fetch(&[], 60_000)).await;
        assert!(fetched.topics.is_empty());
        assert!(begun.elapsed() < MINUTE);
    });
}

#[test]
fn a_long_poll_does_not_keep_the_requests_behind_it() {
    story(|mut client| async move {
        client.create("t", Vec::new()).await;
        let begun = now();
        client.send(4, fetch(&["t"], 60_000)).await;
        for _ in 0..3 {
            client.send(3, produce("t", -1, batch(&[b"a"]))).await;
        }
        let fetched: Fetched = client.receive(4).await.unwrap();
        assert_eq!(fetched.topics[0].partitions[0].error, 0);
        for offset in 0..3 {
            let produced: Produced = client.receive(3).await.unwrap();
            assert_eq!(produced.topics[0].partitions[0].base_offset, offset);
        }
        assert!(begun.elapsed() < MINUTE);
        // With nothing behind it, it waits as long as it was asked to.
        let mut later = fetch(&["t"], 5_000);
        later.topics[0].partitions[0].fetch_offset = 3;
        let begun = now();
        let _: Fetched = client.call(4, later).await;
        assert!(begun.elapsed() >= Duration::from_secs(5));
    });
}

#[test]
fn requests_that_come_at_once_leave_the_connection_open() {
    story(|mut client| async move {
        client.create("t", Vec::new()).await;
        for _ in 0..2 {
            let together = [frame(4, fetch(&["t"], 60_000)), frame(3, produce("t", -1, batch(&[b"a"])))];
            client.say(together.concat()).await;
            client.receive::<Fetched>(4).await.expect("the broker stays");
            client.receive::<Produced>(3).await.expect("the broker stays");
        }
    });
}

#[test]
fn a_topic_named_a_thousand_times_is_told_of_once() {
    story(|mut client| async move {
        client.create("t", Vec::new()).await;
        let named = MetadataRequestTopic { name: Some("t".to_owned()), ..MetadataRequestTopic::default() };
        let request = MetadataRequest { topics: Some(vec![named; 1_000]), ..MetadataRequest::default() };
        let told: corrente_protocol::kafka::metadata::MetadataResponse = client.call(1, request).await;
        assert_eq!(told.topics.len(), 1);
    });
}

#[test]
fn an_append_without_an_answer_that_is_refused_ends_the_connection() {
    story(|mut client| async move {
        client.create("t", Vec::new()).await;
        client.send(3, produce("t", 0, batch(&[b"a"]))).await;
        let produced: Produced = client.call(3, produce("t", 1, batch(&[b"b"]))).await;
        assert_eq!(produced.topics[0].partitions[0].base_offset, 1);
        client.send(3, produce("gone", 0, batch(&[b"c"]))).await;
        assert!(client.receive::<Produced>(3).await.is_none());
    });
}

#[test]
fn what_kafka_refuses_is_refused() {
    story(|mut client| async move {
        let without_value = NewTopicConfig { name: "retention.ms".to_owned(), value: None };
        assert_eq!(client.create("t", vec![without_value]).await, KafkaError::InvalidConfig.code());
        assert_eq!(client.create("t", Vec::new()).await, 0);

        let two = [batch(&[b"a"]), batch(&[b"b"])].concat();
        let produced: Produced = client.call(3, produce("t", -1, two.into())).await;
        assert_eq!(produced.topics[0].partitions[0].error, KafkaError::InvalidRecord.code());

        let known_epoch = ListOffsetsPartition { current_leader_epoch: 99, timestamp_ms: LATEST, index: 0 };
        let topic = ListOffsetsTopic { name: "t".to_owned(), partitions: vec![known_epoch] };
        let request = ListOffsetsRequest { topics: vec![topic], ..ListOffsetsRequest::default() };
        let found: corrente_protocol::kafka::list_offsets::ListOffsetsResponse =
            client.call(4, request).await;
        assert_eq!(found.topics[0].partitions[0].error, KafkaError::UnknownLeaderEpoch.code());

        let by_no_id: Fetched = client.call(13, fetch(&["t"], 0)).await;
        assert_eq!(by_no_id.topics[0].partitions[0].error, KafkaError::UnknownTopicId.code());

        let doomed = DoomedTopic { name: Some("t".to_owned()), ..DoomedTopic::default() };
        let request = DeleteTopicsRequest { topics: vec![doomed], ..DeleteTopicsRequest::default() };
        let deleted: corrente_protocol::kafka::delete_topics::DeleteTopicsResponse =
            client.call(6, request).await;
        assert_eq!(deleted.topics[0].error, 0);
        assert_ne!(deleted.topics[0].id, [0; 16]);
    });
}
