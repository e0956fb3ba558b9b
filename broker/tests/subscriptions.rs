//! Records come without being asked for, as far as there is credit, until there is nothing more to come.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Client, append, batch, config, produce, story, story_with, subscribe, values};
use corrente_broker::byte_size::ByteSize;
use corrente_protocol::api::{
    AdjustSubscriptionRequest, DeleteTopicRequest, FetchPartitionResponse, FetchResponse, Message, Request,
    SubscribeRequest,
};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::frame::{Cut, cut_response};
use corrente_protocol::ids::{LeaderEpoch, Offset, PartitionIndex, ShardId};
use corrente_runtime::timer::{now, sleep};

/// More than any story appends.
const PLENTY: u32 = 1 << 24;

/// The next answer of a subscription, and whether more follow.
async fn pushed(client: &mut Client, subscription: u64) -> (Vec<FetchPartitionResponse>, bool) {
    let (header, body) = client.receive().await.expect("an answer");
    assert!(!header.is_error(), "refused");
    assert_eq!((header.api, header.correlation_id), (SubscribeRequest::API, subscription));
    (FetchResponse::decode(0, body).expect("it decodes").partitions, header.has_more())
}

/// Answers until so many records are there, which come in the order of their offsets.
async fn records(client: &mut Client, subscription: u64, count: usize) -> Vec<Bytes> {
    let mut found = Vec::new();
    while found.len() < count {
        let (partitions, has_more) = pushed(client, subscription).await;
        assert!(has_more, "it ended after {} records", found.len());
        for part in &partitions {
            for (offset, value) in values(part) {
                assert_eq!(offset, found.len() as u64, "the next one");
                found.push(value);
            }
        }
    }
    assert_eq!(found.len(), count);
    found
}

async fn adjust(client: &mut Client, subscription: u64, credit: u32, ends: bool) -> bool {
    let id = client.send(&AdjustSubscriptionRequest { subscription, credit, ends }).await;
    let (header, body) = client.receive().await.expect("an answer");
    assert_eq!(header.correlation_id, id, "the answer is to the adjustment");
    <AdjustSubscriptionRequest as Request>::Response::decode(0, body).expect("it decodes").found
}

#[test]
fn records_come_from_whatever_shard_they_are_on() {
    story(3, || async {
        let mut writer = Client::connect(ShardId(0)).await;
        let topic = writer.create_topic("orders", 4).await;
        for shard in 0..3 {
            let mut reader = Client::connect(ShardId(shard)).await;
            let id = reader.send(&subscribe(topic, 0..4, PLENTY)).await;
            let mut next = [0_u64; 4];
            for round in 1..=5 {
                for partition in 0..4 {
                    append(&mut writer, topic, partition, &[b"a", b"b"]).await;
                }
                let ends = 10 * u64::from(shard) + 2 * round;
                while next.iter().any(|next| *next < ends) {
                    let (partitions, has_more) = pushed(&mut reader, id).await;
                    assert!(has_more);
                    assert!(!partitions.is_empty(), "an answer without news, long before the heartbeat");
                    for part in &partitions {
                        let place = part.partition.0 as usize;
                        for (offset, _) in values(part) {
                            assert_eq!(offset, next[place], "partition {place}, shard {shard}");
                            next[place] += 1;
                        }
                        assert!(part.high_watermark.0 >= next[place]);
                    }
                }
            }
        }
    });
}

#[test]
fn no_more_comes_than_there_is_credit_for() {
    story(1, || async {
        let mut writer = Client::connect(ShardId(0)).await;
        let topic = writer.create_topic("t", 1).await;
        let value = [7; 1000];
        for _ in 0..10 {
            append(&mut writer, topic, 0, &[&value]).await;
        }
        let len = u32::try_from(batch(&[&value]).len()).unwrap();
        let mut reader = Client::connect(ShardId(0)).await;
        let request = SubscribeRequest { heartbeat_ms: 1000, ..subscribe(topic, [0], 3 * len - 1) };
        let id = reader.send(&request).await;
        // A byte is left after two, so that a third comes whole.
        let mut found = 0;
        while found < 3 {
            let (partitions, _) = pushed(&mut reader, id).await;
            found += partitions.iter().map(|part| values(part).len()).sum::<usize>();
        }
        assert_eq!(found, 3);
        for _ in 0..3 {
            let begun = now();
            let (partitions, has_more) = pushed(&mut reader, id).await;
            assert!(has_more && partitions.is_empty(), "nothing but heartbeats");
            assert!(begun.elapsed() >= Duration::from_millis(900), "one a second");
        }
        // What was overdrawn comes off: that byte alone gives nothing.
        assert!(adjust(&mut reader, id, 1, false).await);
        let (partitions, _) = pushed(&mut reader, id).await;
        assert!(partitions.is_empty(), "there is no credit yet");
        assert!(adjust(&mut reader, id, 1, false).await);
        let (partitions, _) = pushed(&mut reader, id).await;
        assert_eq!(values(&partitions[0])[0].0, 3);
    });
}

#[test]
fn a_subscription_with_an_end_ends_there() {
    story(2, || async {
        let mut writer = Client::connect(ShardId(0)).await;
        let topic = writer.create_topic("t", 2).await;
        let mut request = subscribe(topic, 0..2, PLENTY);
        request.partitions[0].end = Some(Offset(3));
        request.partitions[1].end = Some(Offset(0));
        let mut reader = Client::connect(ShardId(0)).await;
        let id = reader.send(&request).await;
        for _ in 0..5 {
            append(&mut writer, topic, 0, &[b"a"]).await;
            append(&mut writer, topic, 1, &[b"b"]).await;
        }
        let mut end = 0;
        loop {
            let (partitions, has_more) = pushed(&mut reader, id).await;
            for part in &partitions {
                assert_eq!((part.partition, part.error), (PartitionIndex(0), ErrorCode::None));
                end = values(part).last().expect("records").0 + 1;
            }
            assert_eq!(has_more, end < 3, "the last answer brings the last record");
            if !has_more {
                break;
            }
        }
        assert!(!adjust(&mut reader, id, PLENTY, false).await, "there is nothing to adjust any more");
    });
}

#[test]
fn it_ends_when_the_client_wants_no_more() {
    story(1, || async {
        let mut writer = Client::connect(ShardId(0)).await;
        let topic = writer.create_topic("t", 1).await;
        let mut reader = Client::connect(ShardId(0)).await;
        let id = reader.send(&subscribe(topic, [0], PLENTY)).await;
        append(&mut writer, topic, 0, &[b"a"]).await;
        records(&mut reader, id, 1).await;
        assert!(adjust(&mut reader, id, 0, true).await);
        assert_eq!(pushed(&mut reader, id).await, (Vec::new(), false));

        // Shutting the sending side says the same.
        let id = reader.send(&subscribe(topic, [0], PLENTY)).await;
        records(&mut reader, id, 1).await;
        let Client { stream, mut buffer, .. } = reader;
        let (mut receiving, mut sending) = stream.into_split();
        sending.shutdown().await.expect("it is open");
        while receiving.read(&mut buffer).await.expect("the broker answers and closes") > 0 {
            buffer.reserve(1024);
        }
        let Ok(Cut::Frame(last, _)) = cut_response(&mut buffer, 1 << 20) else { panic!("no last answer") };
        assert_eq!((last.correlation_id, last.has_more()), (id, false));
        assert!(buffer.is_empty(), "nothing comes behind the last answer");
    });
}

#[test]
fn a_partition_that_fails_ends_it_with_its_error() {
    story(1, || async {
        let mut writer = Client::connect(ShardId(0)).await;
        let topic = writer.create_topic("t", 2).await;
        let mut reader = Client::connect(ShardId(0)).await;
        let mut request = subscribe(topic, 0..2, PLENTY);
        request.partitions[1].offset = Offset(9);
        let id = reader.send(&request).await;
        let (partitions, has_more) = pushed(&mut reader, id).await;
        assert!(!has_more);
        assert_eq!(partitions.last().expect("the partition").error, ErrorCode::OffsetOutOfRange);

        let request = SubscribeRequest { heartbeat_ms: 500, ..subscribe(topic, 0..2, PLENTY) };
        let id = reader.send(&request).await;
        writer.call(&DeleteTopicRequest { name: "t".to_owned() }).await;
        let begun = now();
        let (partitions, has_more) = loop {
            let (partitions, has_more) = pushed(&mut reader, id).await;
            if !has_more {
                break (partitions, has_more);
            }
        };
        assert!(!has_more && begun.elapsed() <= Duration::from_secs(1), "by the next heartbeat");
        assert_eq!(partitions[0].error, ErrorCode::UnknownTopicOrPartition);
    });
}

#[test]
fn subscriptions_leave_room_for_the_requests_that_adjust_them() {
    let mut config = config(1);
    config.connection.requests_in_flight_max = 4;
    story_with(config, || async {
        let mut client = Client::connect(ShardId(0)).await;
        let topic = client.create_topic("t", 1).await;
        let first = client.send(&subscribe(topic, [0], PLENTY)).await;
        client.send(&subscribe(topic, [0], PLENTY)).await;
        client.send(&subscribe(topic, [0], PLENTY)).await;
        let (code, line) = client.refusal().await;
        assert_eq!(code, ErrorCode::Busy);
        assert_eq!(line, "the connection has 2 subscriptions open, the most that it may have");
        assert!(adjust(&mut client, first, 0, true).await);
        assert_eq!(pushed(&mut client, first).await, (Vec::new(), false));
        client.send(&subscribe(topic, [0], PLENTY)).await;
        client.send(&subscribe(topic, [0, 0], PLENTY)).await;
        let (code, line) = client.refusal().await;
        assert_eq!(code, ErrorCode::InvalidRequest);
        assert!(line.ends_with("/0 is named twice"), "{line}");
    });
}

#[test]
fn a_reader_that_stands_still_keeps_no_one_else_waiting() {
    story(1, || async {
        let mut writer = Client::connect(ShardId(0)).await;
        let topic = writer.create_topic("t", 1).await;
        let mut idle = Client::connect(ShardId(0)).await;
        // It asks again and again, with credit for everything, and takes nothing.
        for _ in 0..16 {
            idle.send(&subscribe(topic, [0], u32::MAX)).await;
        }
        let mut reader = Client::connect(ShardId(0)).await;
        let id = reader.send(&subscribe(topic, [0], u32::MAX)).await;
        let value = vec![1; 100_000];
        for n in 0..300 {
            let appended = writer.call(&produce(topic, 0, batch(&[&value]))).await;
            assert_eq!(appended.partitions[0].error, ErrorCode::None, "append {n}");
        }
        assert_eq!(records(&mut reader, id, 300).await.len(), 300);
    });
}

#[test]
fn partitions_take_turns_whatever_fits() {
    for count in 2..=5_u32 {
        story(1, move || async move {
            let mut writer = Client::connect(ShardId(0)).await;
            let topic = writer.create_topic("t", count).await;
            for _ in 0..10 {
                for partition in 0..count {
                    append(&mut writer, topic, partition, &[&[7; 1000]]).await;
                }
            }
            let mut reader = Client::connect(ShardId(0)).await;
            // Room for two batches and a half.
            let request = SubscribeRequest { max_bytes: 2_700, ..subscribe(topic, 0..count, PLENTY) };
            let id = reader.send(&request).await;
            let mut ends = vec![0; count as usize];
            while ends.iter().any(|end| *end < 10) {
                let (partitions, _) = pushed(&mut reader, id).await;
                let mut bytes = 0;
                for part in &partitions {
                    ends[part.partition.0 as usize] += values(part).len();
                    bytes += part.batches.iter().map(Bytes::len).sum::<usize>();
                }
                assert!(bytes <= 2_700, "{bytes} bytes in an answer");
                let (least, most) = (ends.iter().min().unwrap(), ends.iter().max().unwrap());
                assert!(most - least <= 4, "{ends:?} of {count} partitions were sent");
            }
        });
    }
}

#[test]
fn an_answer_brings_what_several_partitions_have() {
    story(1, || async {
        let mut writer = Client::connect(ShardId(0)).await;
        let topic = writer.create_topic("t", 8).await;
        for partition in 0..8 {
            append(&mut writer, topic, partition, &[b"a"]).await;
        }
        let mut reader = Client::connect(ShardId(0)).await;
        let id = reader.send(&subscribe(topic, 0..8, PLENTY)).await;
        assert_eq!(pushed(&mut reader, id).await.0.len(), 8);

        let mut request = subscribe(topic, 0..8, PLENTY);
        request.partitions.iter_mut().for_each(|part| part.offset = Offset(9));
        let id = reader.send(&request).await;
        let (failed, has_more) = pushed(&mut reader, id).await;
        assert!(!has_more && failed.iter().all(|part| part.error == ErrorCode::OffsetOutOfRange));
        assert_eq!(failed.len(), 8, "who subscribes again knows of all of them");
    });
}

#[test]
fn a_deletion_is_told_beside_a_busy_partition() {
    story(1, || async {
        let mut writer = Client::connect(ShardId(0)).await;
        let topic = writer.create_topic("t", 1).await;
        let busy = writer.create_topic("busy", 1).await;
        let mut reader = Client::connect(ShardId(0)).await;
        let mut request = subscribe(topic, [0], PLENTY);
        request.partitions.extend(subscribe(busy, [0], PLENTY).partitions);
        let id = reader.send(&request).await;
        writer.call(&DeleteTopicRequest { name: "t".to_owned() }).await;
        let begun = now();
        loop {
            append(&mut writer, busy, 0, &[b"a"]).await;
            let (partitions, has_more) = pushed(&mut reader, id).await;
            if !has_more {
                assert_eq!(partitions[0].error, ErrorCode::UnknownTopicOrPartition);
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(1), "it was not told");
            sleep(Duration::from_millis(100)).await;
        }
    });
}

#[test]
fn an_epoch_that_is_not_the_brokers_is_refused() {
    story(1, || async {
        let mut client = Client::connect(ShardId(0)).await;
        let topic = client.create_topic("t", 1).await;
        let mut request = subscribe(topic, [0], PLENTY);
        request.partitions[0].leader_epoch = Some(LeaderEpoch(99));
        append(&mut client, topic, 0, &[b"a"]).await;
        let id = client.send(&request).await;
        let (partitions, has_more) = pushed(&mut client, id).await;
        assert_eq!((partitions[0].error, has_more), (ErrorCode::UnknownLeaderEpoch, false));
    });
}

#[test]
fn lists_that_are_too_long_to_remember_are_refused() {
    let mut config = config(1);
    config.memory.per_shard_bytes = ByteSize(64 << 20);
    story_with(config, || async {
        let mut client = Client::connect(ShardId(0)).await;
        let topic = client.create_topic("t", 1).await;
        client.send(&subscribe(topic, 0..10_000, PLENTY)).await;
        let (code, line) = client.refusal().await;
        assert_eq!(code, ErrorCode::Busy);
        assert!(line.starts_with("10000 partitions take 10244096 bytes to remember"), "{line}");
        // Nothing of it is kept.
        let id = client.send(&subscribe(topic, 0..1_000, PLENTY)).await;
        let (partitions, has_more) = pushed(&mut client, id).await;
        assert_eq!((partitions[0].error, has_more), (ErrorCode::UnknownTopicOrPartition, false));
    });
}
