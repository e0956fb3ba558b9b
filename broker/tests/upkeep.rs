//! What a topic is set to keep is what its partitions keep, from the moment it is set.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{BROKER, Client, START_MS, batch_at, client_node, config, start, tell, tell_within};
use corrente_protocol::api::OffsetSpec;
use corrente_protocol::compression::Compression;
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{Offset, ShardId, TopicId};
use corrente_protocol::record_batch::{RecordBatchBuilder, RecordBatches};
use corrente_runtime::sim::{World, WorldConfig};
use corrente_runtime::timer::{sleep, wall_clock_ms};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Tells a story that may take a month.
fn long_story<Fut>(client: impl FnOnce() -> Fut + 'static)
where
    Fut: Future<Output = ()> + 'static,
{
    let world = World::new(8, WorldConfig::default());
    let (node, other) = (world.node("broker", BROKER.0), client_node(&world));
    start(&world, &node, config(2));
    tell_within(&world, &other, DAY * 30, client);
}

async fn append_now(client: &mut Client, topic: TopicId, partition: u32) {
    let response = client.append(topic, partition, batch_at(&[wall_clock_ms()])).await;
    assert_eq!(response.error, ErrorCode::None, "{:?}", response.message);
}

async fn start_of(client: &mut Client, topic: TopicId, partition: u32) -> u64 {
    client.find(topic, partition, OffsetSpec::Earliest).await.offset.0
}

#[test]
fn records_go_when_they_are_too_old_and_not_before() {
    long_story(|| async {
        let mut client = Client::connect(ShardId(0)).await;
        let minutes = |retention| [("retention.ms", retention), ("segment.ms", "60000")];
        let ten = client.create_topic_with("ten", 2, &minutes("600000")).await;
        let week = client.create_topic("week", 1).await;
        let forever = client.create_topic_with("forever", 1, &minutes("-1")).await;
        for _ in 0..5 {
            for partition in 0..2 {
                append_now(&mut client, ten, partition).await;
            }
            append_now(&mut client, week, 0).await;
            append_now(&mut client, forever, 0).await;
            sleep(MINUTE).await;
        }
        assert_eq!(start_of(&mut client, ten, 0).await, 0, "five minutes old");
        sleep(MINUTE * 15).await;
        for partition in 0..2 {
            assert_eq!(start_of(&mut client, ten, partition).await, 5);
            let gone = client.read(ten, partition, 4).await;
            assert_eq!(gone.error, ErrorCode::OffsetOutOfRange, "{:?}", gone.message);
            append_now(&mut client, ten, partition).await;
            assert_eq!(client.read(ten, partition, 5).await.error, ErrorCode::None);
        }
        assert_eq!(start_of(&mut client, forever, 0).await, 0);
        client.alter_topic("forever", "retention.ms", "600000").await;
        sleep(MINUTE * 3).await;
        assert_eq!(start_of(&mut client, forever, 0).await, 5, "no longer");

        assert_eq!(start_of(&mut client, week, 0).await, 0);
        sleep(DAY * 8).await;
        assert_eq!(start_of(&mut client, week, 0).await, 5, "a week is the default");
    });
}

fn keyed(key: &str, value: Option<&str>) -> Bytes {
    let mut builder = RecordBatchBuilder::new(Compression::None);
    let pushed = builder.push(START_MS, Some(key.as_bytes()), value.map(str::as_bytes), &[]);
    pushed.expect("a short record");
    builder.build()
}

/// Offset, key and value of every record, fetched as a client has to: on from the end of the last batch.
async fn read_all(client: &mut Client, topic: TopicId) -> Vec<(u64, String, Option<String>)> {
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("text");
    let end = client.find(topic, 0, OffsetSpec::Latest).await.offset;
    let mut found = Vec::new();
    let mut next = Offset(0);
    while next < end {
        let response = client.read(topic, 0, next.0).await;
        assert_eq!(response.error, ErrorCode::None, "{:?}", response.message);
        let before = next;
        for batch in response.batches.into_iter().flat_map(RecordBatches::new) {
            let batch = batch.expect("a right checksum");
            next = batch.header().end_offset();
            for record in batch.records(1 << 20).expect("readable") {
                let record = record.expect("decodes");
                found.push((record.offset.0, text(record.key.expect("a key")), record.value.map(text)));
            }
        }
        assert!(next > before, "a fetch from {before} moves the reader");
    }
    found
}

async fn append_keyed(client: &mut Client, topic: TopicId, history: &[(&str, Option<&str>)]) {
    for (key, value) in history {
        assert_eq!(client.append(topic, 0, keyed(key, *value)).await.error, ErrorCode::None);
    }
}

#[test]
fn a_compacted_topic_keeps_the_last_record_of_each_key_at_its_offset() {
    let world = World::new(9, WorldConfig::default());
    let (node, other) = (world.node("broker", BROKER.0), client_node(&world));
    // What is in memory is served from there, superseded or not: a start forgets that.
    let start_anew = || {
        node.crash();
        start(&world, &node, config(1));
    };
    start(&world, &node, config(1));
    let topic = tell_within(&world, &other, DAY, || async {
        let mut client = Client::connect(ShardId(0)).await;
        let configs = [
            ("cleanup.policy", "compact"),
            ("segment.ms", "1000"),
            ("min.cleanable.dirty.ratio", "0"),
            ("delete.retention.ms", "3600000"),
        ];
        let topic = client.create_topic_with("state", 1, &configs).await;
        let (one, two, three) = (Some("1"), Some("2"), Some("3"));
        let history = [("a", one), ("b", one), ("a", two), ("c", one), ("b", None), ("a", three)];
        append_keyed(&mut client, topic, &history).await;
        assert_eq!(read_all(&mut client, topic).await.len(), 6);
        sleep(MINUTE).await;
        append_keyed(&mut client, topic, &[("d", one)]).await;
        sleep(MINUTE * 2).await;
        topic
    });
    start_anew();
    tell_within(&world, &other, DAY, move || async move {
        let mut client = Client::connect(ShardId(0)).await;
        let record =
            |offset, key: &str, value: Option<&str>| (offset, key.to_owned(), value.map(str::to_owned));
        let one = Some("1");
        let left =
            [record(3, "c", one), record(4, "b", None), record(5, "a", Some("3")), record(6, "d", one)];
        assert_eq!(read_all(&mut client, topic).await, left);
        assert_eq!(start_of(&mut client, topic, 0).await, 0, "compaction moves no bound");
        // An hour later nobody needs to hear any more that b was deleted.
        sleep(MINUTE * 61).await;
        append_keyed(&mut client, topic, &[("e", one)]).await;
        sleep(MINUTE * 2).await;
    });
    start_anew();
    tell(&world, &other, move || async move {
        let mut client = Client::connect(ShardId(0)).await;
        let left = read_all(&mut client, topic).await;
        let keys: Vec<&str> = left.iter().map(|(_, key, _)| key.as_str()).collect();
        assert_eq!(keys, ["c", "a", "d", "e"]);
    });
}
