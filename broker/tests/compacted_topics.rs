//! A compacted topic takes only records that compaction can tell apart: readable ones with a key.

mod common;

use bytes::Bytes;
use common::{Client, START_MS, batch, story};
use corrente_protocol::compression::Compression;
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{Offset, ShardId};
use corrente_protocol::record_batch::{HEADER_LEN, RecordBatchBuilder};

fn keyed(compression: Compression, keys: &[Option<&[u8]>], value: &[u8]) -> Bytes {
    let mut builder = RecordBatchBuilder::new(compression);
    for key in keys {
        builder.push(START_MS, *key, Some(value), &[]).expect("a record that fits");
    }
    builder.build()
}

#[test]
fn records_without_a_key_are_refused_and_the_first_is_named() {
    story(2, || async {
        let mut client = Client::connect(ShardId(0)).await;
        for policy in ["compact", "compact,delete"] {
            let configs = [("cleanup.policy", policy)];
            let topic = client.create_topic_with(&policy.replace(',', "-"), 2, &configs).await;
            for partition in 0..2 {
                let mut end = 0;
                for compression in Compression::ALL {
                    // Short and long: looked at on the shard, and on a worker thread.
                    for value in [&[7; 100][..], &[7; 50_000]] {
                        let good = keyed(compression, &[Some(b"a"), Some(b""), Some(b"b")], value);
                        let bad = keyed(compression, &[Some(b"a"), Some(b"b"), None, None], value);
                        let refused = client.append(topic, partition, bad.clone()).await;
                        assert_eq!(refused.error, ErrorCode::InvalidRecord, "{compression}");
                        let line = refused.message.expect("a line for people");
                        assert_eq!(line, "batch 0: record 2 has no key, and the topic is compacted");

                        // One bad batch keeps the others of its request out.
                        let both = Bytes::from([&good[..], &bad[..]].concat());
                        let line = client.append(topic, partition, both).await.message.expect("a line");
                        assert!(line.starts_with("batch 1: record 2 "), "{line}");

                        let taken = client.append(topic, partition, good).await;
                        assert_eq!((taken.error, taken.base_offset), (ErrorCode::None, Offset(end)));
                        end += 3;
                    }
                }
            }
        }
    });
}

#[test]
fn what_cannot_be_read_is_refused_where_it_would_be_compacted() {
    story(1, || async {
        let mut client = Client::connect(ShardId(0)).await;
        let mut nonsense = keyed(Compression::None, &[Some(b"a")], b"value").to_vec();
        nonsense[HEADER_LEN] = 0x7f;
        let crc = crc32c(&nonsense[21..]);
        nonsense[17..21].copy_from_slice(&crc.to_be_bytes());
        let nonsense = Bytes::from(nonsense);

        let compacted = client.create_topic_with("compacted", 1, &[("cleanup.policy", "compact")]).await;
        let refused = client.append(compacted, 0, nonsense.clone()).await;
        assert_eq!(refused.error, ErrorCode::InvalidRecord, "{:?}", refused.message);
        let plain = client.create_topic("plain", 1).await;
        assert_eq!(client.append(plain, 0, nonsense).await.error, ErrorCode::None, "nobody looks there");
    });
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

#[test]
fn a_topic_that_becomes_compacted_takes_keys_from_then_on() {
    story(1, || async {
        let mut client = Client::connect(ShardId(0)).await;
        let topic = client.create_topic("turned", 1).await;
        assert_eq!(client.append(topic, 0, batch(&[b"no key"])).await.error, ErrorCode::None);
        client.alter_topic("turned", "cleanup.policy", "compact").await;
        assert_eq!(client.append(topic, 0, batch(&[b"no key"])).await.error, ErrorCode::InvalidRecord);
        client.alter_topic("turned", "cleanup.policy", "delete").await;
        assert_eq!(client.append(topic, 0, batch(&[b"no key"])).await.base_offset, Offset(1));
    });
}
