//! The most used Kafka client, as it is, against the real binary: what it writes the SDK reads, byte for byte, and the
//! other way round.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "stories run beside a real process, and a proxy before it"
)]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use common::*;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::json;

const KAFKA: [&str; 6] = ["--listen", "127.0.0.1:0", "--kafka", "127.0.0.1:0", "--shards", "2"];

fn client(broker: &Broker) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.kafka.as_ref().expect("it listens for Kafka's clients"));
    config
}

fn producer(broker: &Broker, settings: &[(&str, &str)]) -> BaseProducer {
    let mut config = client(broker);
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config.create().unwrap()
}

/// A consumer of one partition, from this offset on.
fn consumer(broker: &Broker, topic: &str, partition: i32, from: Offset) -> BaseConsumer {
    let mut config = client(broker);
    config.set("group.id", "none").set("enable.auto.commit", "false").set("fetch.wait.max.ms", "100");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut assigned = TopicPartitionList::new();
    assigned.add_partition_offset(topic, partition, from).unwrap();
    consumer.assign(&assigned).unwrap();
    consumer
}

/// A record as `consume -o jsonl` prints it, but for what differs between topics.
fn told(message: &impl Message) -> serde_json::Value {
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    json!({
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": message.timestamp().to_millis(),
        "key": text(message.key()),
        "value": text(message.payload()),
        "headers": headers.map(|header| json!({"key": header.key, "value": text(header.value)})).collect::<Vec<_>>(),
    })
}

fn read(consumer: &BaseConsumer, count: usize) -> Vec<serde_json::Value> {
    let message = || consumer.poll(Duration::from_millis(10)).map(|polled| told(&polled.unwrap()));
    (0..count).map(|_| wait_for("a record", message)).collect()
}

fn consumed(broker: &Broker, topic: &str) -> Vec<serde_json::Value> {
    let printed = broker.output(["consume", topic, "--until-end", "-o", "jsonl"]);
    lines(&printed).into_iter().map(|line| serde_json::from_slice(line).unwrap()).collect()
}

#[test]
fn what_librdkafka_writes_the_sdk_reads_in_every_codec() {
    let home = scratch();
    let broker = Broker::start_with(home.path(), &KAFKA);
    for codec in ["none", "snappy", "lz4", "zstd"] {
        let producer = producer(&broker, &[("compression.type", codec), ("linger.ms", "20")]);
        let value = "value ".repeat(50);
        for n in 0..50_i64 {
            let headers = OwnedHeaders::new()
                .insert(Header { key: "codec", value: Some(codec) })
                .insert(Header { key: "codec", value: None::<&str> });
            let key = format!("key-{n}");
            let record = BaseRecord::to(codec).key(&key).headers(headers).timestamp(1_700_000_000_000 + n);
            // Every tenth is a tombstone.
            let record = if n % 10 == 9 { record } else { record.payload(&value) };
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
        let seen_by_librdkafka = read(&consumer(&broker, codec, 0, Offset::Beginning), 50);
        assert_eq!(seen_by_librdkafka[9]["value"], serde_json::Value::Null);
        assert_eq!(
            seen_by_librdkafka[3]["headers"],
            json!([{"key": "codec", "value": codec}, {"key": "codec", "value": null}])
        );
        assert_eq!(seen_by_librdkafka[3]["timestamp"], 1_700_000_000_003_i64);
        let seen_by_the_sdk = consumed(&broker, codec);
        assert_eq!(seen_by_the_sdk.len(), 50);
        for (sdk, librdkafka) in seen_by_the_sdk.iter().zip(&seen_by_librdkafka) {
            assert_eq!(sdk, librdkafka, "{codec}");
        }
    }
}

#[test]
fn what_the_sdk_writes_librdkafka_reads_from_any_offset_and_time() {
    let home = scratch();
    let broker = Broker::start_with(home.path(), &KAFKA);
    broker.output(["topic", "create", "t", "--partitions", "2"]);
    let lines: String = (0..100).map(|n| format!("line {n}\n")).collect();
    broker.produce(["t", "--partition", "1"], lines.as_bytes());
    let written = consumed(&broker, "t");
    assert_eq!(read(&consumer(&broker, "t", 1, Offset::Beginning), 100), written);
    assert_eq!(read(&consumer(&broker, "t", 1, Offset::Offset(57)), 43), written[57..]);
    assert_eq!(read(&consumer(&broker, "t", 1, Offset::OffsetTail(5)), 5), written[95..]);

    let consumer = consumer(&broker, "t", 1, Offset::Beginning);
    assert_eq!(consumer.fetch_watermarks("t", 1, PATIENCE).unwrap(), (0, 100));
    assert_eq!(consumer.fetch_watermarks("t", 0, PATIENCE).unwrap(), (0, 0));
    let at = |time_ms: i64| {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset("t", 1, Offset::Offset(time_ms)).unwrap();
        consumer.offsets_for_times(asked, PATIENCE).unwrap().elements()[0].offset()
    };
    assert_eq!(at(0), Offset::Offset(0));
    let time_of_50 = written[50]["timestamp"].as_i64().unwrap();
    let first_of_it = written.iter().position(|record| record["timestamp"] == time_of_50).unwrap();
    assert_eq!(at(time_of_50), Offset::Offset(i64::try_from(first_of_it).unwrap()));
    assert_eq!(at(i64::MAX / 2), Offset::End);
}

#[test]
fn a_fetch_waits_for_what_is_not_there_yet() {
    let home = scratch();
    let broker = Broker::start_with(home.path(), &KAFKA);
    broker.output(["topic", "create", "t", "--partitions", "1"]);
    let consumer = consumer(&broker, "t", 0, Offset::Beginning);
    assert!(consumer.poll(Duration::from_millis(300)).is_none());
    broker.produce(["t"], b"awaited\n");
    assert_eq!(read(&consumer, 1)[0]["value"], "awaited");
}

#[tokio::test]
async fn topics_come_and_go() {
    let home = scratch();
    let broker = Broker::start_with(home.path(), &KAFKA);
    let admin: AdminClient<DefaultClientContext> = client(&broker).create().unwrap();
    let options = AdminOptions::new();
    let new = [
        NewTopic::new("kept", 3, TopicReplication::Fixed(1)).set("retention.ms", "60000"),
        NewTopic::new("gone", 1, TopicReplication::Fixed(1)),
        NewTopic::new("no such config", 1, TopicReplication::Fixed(1)),
        NewTopic::new("refused", 1, TopicReplication::Fixed(1)).set("no.such.config", "1"),
        NewTopic::new("too-many", 1, TopicReplication::Fixed(3)),
    ];
    let created = admin.create_topics(&new, &options).await.unwrap();
    let errors: Vec<_> =
        created.iter().map(|result| result.as_ref().err().map(|(_, error)| *error)).collect();
    let expected = [
        None,
        None,
        Some(RDKafkaErrorCode::InvalidTopic),
        Some(RDKafkaErrorCode::InvalidConfig),
        Some(RDKafkaErrorCode::InvalidReplicationFactor),
    ];
    assert_eq!(errors, expected);
    let deleted = admin.delete_topics(&["gone", "never"], &options).await.unwrap();
    assert!(deleted[0].is_ok());
    assert_eq!(deleted[1].as_ref().unwrap_err().1, RDKafkaErrorCode::UnknownTopicOrPartition);

    let metadata = admin.inner().fetch_metadata(None, PATIENCE).unwrap();
    let topics: Vec<_> =
        metadata.topics().iter().map(|topic| (topic.name(), topic.partitions().len())).collect();
    assert_eq!(topics, [("kept", 3)]);
    let described: serde_json::Value =
        serde_json::from_slice(&broker.output(["topic", "describe", "kept", "-o", "json"])).unwrap();
    let retention =
        described["configs"].as_array().unwrap().iter().find(|config| config["key"] == "retention.ms");
    assert_eq!(retention.unwrap()["value"], "60000");
}

#[test]
fn a_topic_is_made_for_who_produces_to_it_unless_that_is_off() {
    let home = scratch();
    {
        let broker = Broker::start_with(home.path(), &KAFKA);
        let producer = producer(&broker, &[]);
        producer.send(BaseRecord::<(), _>::to("made").payload("first")).map_err(|(error, _)| error).unwrap();
        producer.flush(PATIENCE).unwrap();
        let seen = consumed(&broker, "made");
        assert_eq!(seen[0]["value"], "first");
    }
    let config = home.path().join("config.toml");
    std::fs::write(&config, "[kafka]\nauto_create_topics = false\n").unwrap();
    let flags = KAFKA.iter().copied().chain(["--config", config.to_str().unwrap()]);
    let broker = Broker::start_with(home.path(), &flags.collect::<Vec<_>>());
    let producer = producer(&broker, &[]);
    let metadata = producer.client().fetch_metadata(Some("missing"), PATIENCE).unwrap();
    let unknown = rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    assert_eq!(metadata.topics()[0].error(), Some(unknown));
    let topics = String::from_utf8(broker.output(["topic", "list"])).unwrap();
    assert!(topics.contains("made") && !topics.contains("missing"), "{topics}");
}

/// Idempotent, with small batches and little patience, so that much happens in a short time.
const ONCE: [(&str, &str); 7] = [
    ("enable.idempotence", "true"),
    ("batch.num.messages", "10"),
    ("linger.ms", "1"),
    ("reconnect.backoff.ms", "10"),
    ("reconnect.backoff.max.ms", "100"),
    ("retry.backoff.ms", "10"),
    ("retry.backoff.max.ms", "100"),
];

/// Sends the number to partition 0 of topic `once`, when there is room for it.
fn send_number(producer: &BaseProducer, n: usize) {
    let value = n.to_string();
    let mut record = BaseRecord::<(), str>::to("once").payload(&value).partition(0);
    while let Err((error, again)) = producer.send(record) {
        assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull));
        producer.poll(Duration::from_millis(10));
        record = again;
    }
    producer.poll(Duration::ZERO);
}

fn expect_numbers_once(broker: &Broker, count: usize) {
    let seen = consumed(broker, "once");
    let values: Vec<&str> = seen.iter().map(|record| record["value"].as_str().unwrap()).collect();
    let sent: Vec<String> = (0..count).map(|n| n.to_string()).collect();
    assert_eq!(values, sent);
}

/// Stands before the broker and passes bytes on, but for some answers, which are lost with their connections.
struct LossyProxy {
    address: SocketAddr,
    /// Where it passes bytes on to.
    broker: Arc<OnceLock<String>>,
    /// Answers that are still to be lost: every 30th until then.
    to_lose: Arc<AtomicUsize>,
}

impl LossyProxy {
    /// A proxy, and a broker that sends Kafka's clients to it.
    fn start(home: &Path) -> (LossyProxy, Broker) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = LossyProxy {
            address: listener.local_addr().unwrap(),
            broker: Arc::default(),
            to_lose: Arc::default(),
        };
        let (broker, to_lose) = (proxy.broker.clone(), proxy.to_lose.clone());
        // Ends with the process.
        thread::spawn(move || {
            let answers = Arc::new(AtomicUsize::new(0));
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(broker.wait()) else { continue };
                let (mut asks, mut asked) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = std::io::copy(&mut asks, &mut asked);
                    let _ = asked.shutdown(Shutdown::Both);
                });
                let (answers, to_lose) = (answers.clone(), to_lose.clone());
                thread::spawn(move || pass_answers(server, client, &answers, &to_lose));
            }
        });
        let broker = proxy.start_broker(home, "127.0.0.1:0");
        proxy.broker.set(broker.kafka.clone().unwrap()).unwrap();
        (proxy, broker)
    }

    fn start_broker(&self, home: &Path, kafka: &str) -> Broker {
        let advertised = self.address.to_string();
        let flags = ["--listen", "127.0.0.1:0", "--kafka", kafka, "--shards", "2"];
        Broker::start_with(home, &[&flags[..], &["--advertise-kafka", &advertised]].concat())
    }
}

fn pass_answers(mut server: TcpStream, mut client: TcpStream, answers: &AtomicUsize, to_lose: &AtomicUsize) {
    let mut bytes = [0; 64 * 1024];
    while let Ok(len @ 1..) = server.read(&mut bytes) {
        let is_next = answers.fetch_add(1, Relaxed) % 30 == 29;
        let one_less = |left: usize| left.checked_sub(1);
        if (is_next && to_lose.fetch_update(Relaxed, Relaxed, one_less).is_ok())
            || client.write_all(&bytes[..len]).is_err()
        {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}

#[test]
fn an_idempotent_producer_whose_answers_are_lost_writes_once_and_in_order() {
    const RECORDS: usize = 20_000;
    let home = scratch();
    let (proxy, broker) = LossyProxy::start(home.path());
    proxy.to_lose.store(30, Relaxed);
    let producer = producer(&broker, &ONCE);
    (0..RECORDS).for_each(|n| send_number(&producer, n));
    producer.flush(PATIENCE).unwrap();
    assert_eq!(proxy.to_lose.load(Relaxed), 0, "answers that were not lost");
    expect_numbers_once(&broker, RECORDS);
}

/// The broker is killed when an answer was lost, so that the next life has to tell what the one before has appended.
#[test]
fn an_idempotent_producer_writes_once_and_in_order_though_the_broker_is_killed() {
    const KILLS: usize = 5;
    let home = scratch();
    let (proxy, mut broker) = LossyProxy::start(home.path());
    let kafka = broker.kafka.clone().unwrap();
    let producer = producer(&broker, &ONCE);
    let mut sent = 0;
    for _ in 0..KILLS {
        proxy.to_lose.store(1, Relaxed);
        while proxy.to_lose.load(Relaxed) > 0 {
            send_number(&producer, sent);
            sent += 1;
        }
        broker.kill_9();
        broker = proxy.start_broker(home.path(), &kafka);
    }
    producer.flush(PATIENCE).unwrap();
    expect_numbers_once(&broker, sent);
}

#[test]
fn a_transactional_producer_is_told_at_once_that_there_are_no_transactions() {
    let home = scratch();
    let broker = Broker::start_with(home.path(), &KAFKA);
    let producer = producer(&broker, &[("transactional.id", "t")]);
    let Err(KafkaError::Transaction(refusal)) = producer.init_transactions(PATIENCE) else {
        panic!("transactions were begun");
    };
    assert_eq!(refusal.code(), RDKafkaErrorCode::TransactionalIdAuthorizationFailed, "{refusal}");
    assert!(refusal.is_fatal());
}
