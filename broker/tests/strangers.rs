//! Bytes that make no sense get one clear answer, or none, and leave everybody else alone.

mod common;

use bytes::{Bytes, BytesMut};
use common::{BROKER, Client, batch, story};
use corrente_protocol::api::{
    ApiKey, FetchPartition, FetchRequest, MetadataRequest, ProducePartition, ProduceRequest,
};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::frame::{Durability, FRAME_HEADER_LEN, RequestHeader};
use corrente_protocol::hello::{CLIENT_HELLO_LEN, ClientHello, SERVER_HELLO_LEN, ServerHello};
use corrente_protocol::ids::{Offset, PartitionIndex, ShardId, TopicId};
use corrente_runtime::socket::Stream;
use corrente_runtime::timer::now;
use std::net::SocketAddr;
use std::time::Duration;

fn header(api: u16, body_len: u32) -> RequestHeader {
    RequestHeader {
        api: ApiKey::from_code(api),
        version: 0,
        flags: 0,
        correlation_id: 77,
        deadline_ms: 0,
        durability: Durability::IsrFlushed,
        body_len,
    }
}

async fn raw(first: &[u8]) -> (Stream, BytesMut) {
    let mut stream = Stream::connect(SocketAddr::from(BROKER)).await.expect("the broker listens");
    stream.write_all(&[Bytes::copy_from_slice(first)]).await.expect("sent");
    (stream, BytesMut::with_capacity(4096))
}

/// Everything the broker says until it closes.
async fn until_closed(stream: &mut Stream, heard: &mut BytesMut) {
    loop {
        heard.reserve(1024);
        if stream.read(heard).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

async fn serves(topic: TopicId) {
    let mut client = Client::connect(ShardId::ANY).await;
    let partition = PartitionIndex(0);
    let part = ProducePartition { topic, partition, expected_end_offset: None, batches: batch(&[b"fine"]) };
    let response = client.call(&ProduceRequest::new(vec![part])).await;
    assert_eq!(response.partitions[0].error, ErrorCode::None);
}

#[test]
fn another_protocol_is_told_so_and_closed() {
    story(2, || async {
        let topic = Client::connect(ShardId(0)).await.create_topic("t", 1).await;
        for greeting in [
            &b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"[..],
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03",
            b"C0RRENTE",
        ] {
            let (mut stream, mut heard) = raw(greeting).await;
            until_closed(&mut stream, &mut heard).await;
            let answer = ServerHello::decode(heard[..].try_into().expect("one hello")).expect("a hello");
            assert_eq!(answer.error, ErrorCode::InvalidRequest);
            assert!(answer.text.contains("not this protocol"), "{}", answer.text);
        }
        serves(topic).await;
    });
}

#[test]
fn a_hello_with_a_wrong_checksum_or_version_is_refused() {
    story(1, || async {
        let mut damaged = ClientHello::new("x", ShardId(0)).encode();
        damaged[20] ^= 1;
        let mut future = ClientHello::new("x", ShardId(0));
        (future.version_min, future.version_max) = (900, 901);
        for (hello, code) in
            [(damaged, ErrorCode::InvalidRequest), (future.encode(), ErrorCode::UnsupportedVersion)]
        {
            let (mut stream, mut heard) = raw(&hello).await;
            until_closed(&mut stream, &mut heard).await;
            assert_eq!(heard.len(), SERVER_HELLO_LEN);
            assert_eq!(
                ServerHello::decode(heard[..].try_into().expect("that long")).expect("a hello").error,
                code
            );
        }
    });
}

#[test]
fn silence_and_half_a_hello_are_closed_in_time() {
    story(1, || async {
        for part in [0, 8, CLIENT_HELLO_LEN - 1] {
            let begun = now();
            let (mut stream, mut heard) = raw(&ClientHello::new("slow", ShardId(0)).encode()[..part]).await;
            until_closed(&mut stream, &mut heard).await;
            assert!(heard.is_empty());
            assert!(begun.elapsed() < Duration::from_secs(10));
        }
    });
}

#[test]
fn an_oversized_frame_is_refused_before_its_body_comes() {
    story(1, || async {
        let mut client = Client::connect(ShardId(0)).await;
        let topic = client.create_topic("t", 1).await;
        client.send_bytes(header(1, u32::MAX).encode().to_vec()).await;
        let (code, line) = client.refusal().await;
        assert_eq!(code, ErrorCode::InvalidRequest);
        assert_eq!(line, "frame body of 4294967295 bytes is longer than the 16777216 bytes allowed");
        assert!(client.receive().await.is_none(), "closed: nothing behind it can be understood");
        serves(topic).await;
    });
}

#[test]
fn a_header_that_is_noise_is_refused_and_closed() {
    story(1, || async {
        let mut client = Client::connect(ShardId(0)).await;
        client.send_bytes(vec![0x5a; FRAME_HEADER_LEN]).await;
        let (code, line) = client.refusal().await;
        assert_eq!(code, ErrorCode::InvalidRequest);
        assert!(line.starts_with("frame header checksum is"), "{line}");
        assert!(client.receive().await.is_none());
    });
}

#[test]
fn half_a_frame_and_then_nothing_is_closed() {
    story(1, || async {
        let mut client = Client::connect(ShardId(0)).await;
        client.send_bytes(header(1, 1000).encode().to_vec()).await;
        client.send_bytes(vec![1; 10]).await;
        let begun = now();
        assert!(client.receive().await.is_none());
        assert!(begun.elapsed() < Duration::from_secs(60), "the stall time-out closes it");
    });
}

#[test]
fn bodies_that_never_come_do_not_keep_memory_from_others_for_long() {
    let mut config = common::config(1);
    config.memory.per_shard_bytes.0 = 64 << 20;
    common::story_with(config, || async {
        let topic = Client::connect(ShardId(0)).await.create_topic("t", 1).await;
        let mut strangers = Vec::new();
        for _ in 0..6 {
            let mut stranger = Client::connect(ShardId(0)).await;
            // One such body leaves no room for a second one.
            stranger.send_bytes(header(1, 16 << 20).encode().to_vec()).await;
            strangers.push(stranger);
        }
        let begun = now();
        serves(topic).await;
        let waited = begun.elapsed();
        assert!(waited < Duration::from_secs(6 * 10), "waited {waited:?}");
    });
}

#[test]
fn an_unknown_api_or_version_is_refused_and_the_connection_goes_on() {
    story(1, || async {
        let mut client = Client::connect(ShardId(0)).await;
        client.send_bytes(header(4711, 0).encode().to_vec()).await;
        assert_eq!(
            client.refusal().await,
            (ErrorCode::UnsupportedApi, "api 4711 is not known to this broker".into())
        );
        let mut newer = header(1, 0);
        newer.version = 99;
        client.send_bytes(newer.encode().to_vec()).await;
        let (code, line) = client.refusal().await;
        assert_eq!(code, ErrorCode::UnsupportedVersion);
        assert_eq!(line, "version 99 of produce is not spoken by this broker, the newest is 0");
        client.call(&MetadataRequest { topics: None }).await;
    });
}

#[test]
fn a_count_larger_than_its_body_is_refused_before_anything_is_allocated() {
    story(1, || async {
        let mut client = Client::connect(ShardId(0)).await;
        for api in [1, 2, 3, 4, 16, 17, 18, 19, 20] {
            let bomb = vec![0xff; 64];
            client.send_bytes(header(api, 64).encode().to_vec()).await;
            client.send_bytes(bomb).await;
            let (code, line) = client.refusal().await;
            assert_eq!(code, ErrorCode::InvalidRequest, "api {api}: {line}");
            assert!(!line.contains('\n'));
        }
        client.call(&MetadataRequest { topics: None }).await;
    });
}

#[test]
fn a_body_full_of_small_elements_does_not_become_many_times_its_size() {
    story(1, || async {
        let mut client = Client::connect(ShardId(0)).await;
        // A million topic names of one letter.
        let mut body = vec![1];
        body.extend_from_slice(&1_000_000_u32.to_le_bytes());
        body.extend(b"\x01\0\0\0t".repeat(1_000_000));
        body.extend_from_slice(&[0; 2]);
        let body_len = u32::try_from(body.len()).expect("5 MB");
        client.send_bytes(header(4, body_len).encode().to_vec()).await;
        client.send_bytes(body).await;
        let (code, line) = client.refusal().await;
        assert_eq!(code, ErrorCode::InvalidRequest);
        assert_eq!(line, "a list of 1000000 elements is longer than the 10000 allowed in a request");
        client.call(&MetadataRequest { topics: None }).await;
    });
}

#[test]
fn damaged_batches_are_refused_and_nothing_of_them_is_kept() {
    story(1, || async {
        let mut client = Client::connect(ShardId(0)).await;
        let topic = client.create_topic("t", 1).await;
        let good = batch(&[b"one", b"two"]);
        let damage = |at: usize, value: u8| {
            let mut bytes = good.to_vec();
            bytes[at] ^= value;
            Bytes::from(bytes)
        };
        let cases = [
            (damage(good.len() - 1, 1), ErrorCode::CorruptMessage, "record batch checksum is"),
            (damage(16, 3), ErrorCode::InvalidRecord, "record batch has magic"),
            (recounted(&good, 200), ErrorCode::InvalidRecord, "record batch states 200 records"),
            (good.slice(..good.len() - 5), ErrorCode::CorruptMessage, "record batch of"),
            (Bytes::new(), ErrorCode::InvalidRecord, "no record batch"),
        ];
        for (batches, code, line) in cases {
            let partition = PartitionIndex(0);
            let part = ProducePartition { topic, partition, expected_end_offset: None, batches };
            let refused = client.call(&ProduceRequest::new(vec![part])).await.partitions.remove(0);
            let message = refused.message.expect("a line");
            assert_eq!(refused.error, code, "{message}");
            assert!(message.starts_with(line), "{message}");
        }
        let empty = FetchRequest {
            max_wait_ms: 0,
            min_bytes: 0,
            max_bytes: 1 << 20,
            partitions: vec![FetchPartition {
                topic,
                partition: PartitionIndex(0),
                offset: Offset(0),
                max_bytes: 1 << 20,
                leader_epoch: None,
            }],
        };
        let found = client.call(&empty).await.partitions.remove(0);
        assert_eq!(found.high_watermark.0, 0);
        assert!(found.batches.is_empty());
    });
}

/// The batch with another record count and a checksum that fits it.
fn recounted(batch: &Bytes, count: u8) -> Bytes {
    let mut bytes = batch.to_vec();
    bytes[60] = count;
    let checksum = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    Bytes::from(bytes)
}

/// CRC32C, bit by bit: the tests need it once.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[test]
fn names_that_cannot_be_topics_are_refused_with_the_reason() {
    story(1, || async {
        let mut client = Client::connect(ShardId(0)).await;
        let long = "x".repeat(300);
        for name in ["../../etc", "", ".", "..", "a/b", "sp ace", "nul\0", long.as_str()] {
            let refused = client.try_create_topic(name, 1).await;
            assert_eq!(refused.error, ErrorCode::InvalidTopicName, "{name:?}");
            let line = refused.message.expect("a line");
            assert!(!line.is_empty() && !line.contains('\n') && line.len() < 400, "{line:?}");
        }
        client.create_topic(&"x".repeat(249), 1).await;
    });
}

#[test]
fn topics_that_do_not_exist_are_named() {
    story(2, || async {
        let mut client = Client::connect(ShardId(1)).await;
        let partition = PartitionIndex(0);
        let part = ProducePartition {
            topic: TopicId([9; 16]),
            partition,
            expected_end_offset: None,
            batches: batch(&[b"x"]),
        };
        let refused = client.call(&ProduceRequest::new(vec![part])).await.partitions.remove(0);
        assert_eq!(refused.error, ErrorCode::UnknownTopicOrPartition);
        assert!(refused.message.expect("a line").starts_with("no partition 09090909-"));
    });
}

#[test]
fn a_fetch_that_names_a_partition_twice_is_refused() {
    story(1, || async {
        let mut client = Client::connect(ShardId(0)).await;
        let topic = client.create_topic("t", 1).await;
        let part = FetchPartition {
            topic,
            partition: PartitionIndex(0),
            offset: Offset(0),
            max_bytes: 1,
            leader_epoch: None,
        };
        let partitions = vec![part.clone(), part];
        client.send(&FetchRequest { max_wait_ms: 60_000, min_bytes: 1, max_bytes: 1, partitions }).await;
        let (code, line) = client.refusal().await;
        assert_eq!(code, ErrorCode::InvalidRequest);
        assert!(line.ends_with("/0 is named twice"), "{line}");
    });
}
