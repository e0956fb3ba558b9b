//! Records go in at one connection and come out at another, on every shard and through every door.

mod common;

use bytes::Bytes;
use common::{Client, append, batch, fetch, produce, story, values};
use corrente_protocol::api::{
    FetchRequest, ListOffsetsPartition, ListOffsetsRequest, OffsetSpec, ProducePartition, StageTimes,
};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::frame::Durability;
use corrente_protocol::ids::{Offset, PartitionIndex, ShardId};
use corrente_runtime::executor::spawn;
use corrente_runtime::timer::{now, sleep};
use std::time::Duration;

#[test]
fn what_is_acknowledged_can_be_read_from_any_shard() {
    story(3, || async {
        let mut writer = Client::connect(ShardId(0)).await;
        let topic = writer.create_topic("orders", 4).await;
        for partition in 0..4 {
            let first = append(&mut writer, topic, partition, &[b"a", b"b"]).await;
            assert_eq!(
                (first.error, first.base_offset, first.end_offset),
                (ErrorCode::None, Offset(0), Offset(2))
            );
            assert_eq!(first.receipt, Durability::IsrFlushed);
            let second = append(&mut writer, topic, partition, &[b"c"]).await;
            assert_eq!((second.base_offset, second.end_offset), (Offset(2), Offset(3)));
        }
        for shard in 0..3 {
            let mut reader = Client::connect(ShardId(shard)).await;
            for partition in 0..4 {
                let response = reader.call(&fetch(topic, partition, 0, 0)).await;
                let expected: Vec<_> =
                    [b"a", b"b", b"c"].iter().map(|v| Bytes::from_static(*v)).enumerate().collect();
                let found: Vec<_> =
                    values(&response.partitions[0]).into_iter().map(|(o, v)| (o as usize, v)).collect();
                assert_eq!(found, expected, "shard {shard}, partition {partition}");
                assert_eq!(response.partitions[0].high_watermark, Offset(3));
            }
        }
    });
}

#[test]
fn a_fetch_at_the_end_waits_for_the_next_record_and_no_longer_than_asked() {
    story(2, || async {
        let mut writer = Client::connect(ShardId(0)).await;
        let topic = writer.create_topic("tail", 2).await;
        for partition in 0..2 {
            for shard in 0..2 {
                let end = append(&mut writer, topic, partition, &[b"before"]).await.end_offset.0;
                let mut reader = Client::connect(ShardId(shard)).await;
                let begun = now();
                let waited = reader.call(&fetch(topic, partition, end, 200)).await;
                assert!(waited.partitions[0].batches.is_empty());
                assert!(begun.elapsed() >= Duration::from_millis(200));

                let begun = now();
                let reading = spawn(async move { reader.call(&fetch(topic, partition, end, 60_000)).await });
                sleep(Duration::from_millis(50)).await;
                append(&mut writer, topic, partition, &[b"after"]).await;
                let found = reading.await;
                assert_eq!(values(&found.partitions[0]), [(end, Bytes::from_static(b"after"))]);
                assert!(begun.elapsed() < Duration::from_secs(60));
            }
        }
    });
}

#[test]
fn requests_sent_at_once_append_in_their_order() {
    story(2, || async {
        let mut writer = Client::connect(ShardId(0)).await;
        let topic = writer.create_topic("pipelined", 2).await;
        for partition in 0..2 {
            for n in 0..100_u32 {
                writer.send(&produce(topic, partition, batch(&[&n.to_be_bytes()]))).await;
            }
            for _ in 0..100 {
                writer.receive().await.expect("an answer");
            }
            let response = writer.call(&fetch(topic, partition, 0, 0)).await;
            let found: Vec<_> = values(&response.partitions[0]).into_iter().map(|(_, value)| value).collect();
            let sent: Vec<_> = (0..100_u32).map(|n| Bytes::copy_from_slice(&n.to_be_bytes())).collect();
            assert_eq!(found, sent);
        }
    });
}

#[test]
fn a_produce_says_where_its_time_went_if_asked() {
    story(2, || async {
        let mut writer = Client::connect(ShardId(0)).await;
        let topic = writer.create_topic("timed", 2).await;
        // On this shard, on the other one, and on both.
        for partitions in [vec![0], vec![1], vec![0, 1]] {
            let mut request = produce(topic, 0, batch(&[b"x"]));
            let part = request.partitions.remove(0);
            let at = |index| ProducePartition { partition: PartitionIndex(index), ..part.clone() };
            request.partitions = partitions.into_iter().map(at).collect();
            assert_eq!(writer.call(&request).await.stage_times, None, "nobody asked");

            request.wants_stage_times = true;
            let begun = now();
            let stages = writer.call(&request).await.stage_times.expect("asked for");
            let StageTimes { queue, disk, replication, send } = stages;
            assert!(disk > Duration::ZERO, "a flush takes time in this world: {stages:?}");
            assert!(queue + disk + replication + send <= begun.elapsed(), "{stages:?}");
        }
        let mut refused = produce(topic, 0, Bytes::from_static(b"no batch"));
        refused.wants_stage_times = true;
        assert_eq!(writer.call(&refused).await.stage_times, None, "nothing was appended");
    });
}

#[test]
fn an_append_can_demand_where_the_log_ends() {
    story(1, || async {
        let mut writer = Client::connect(ShardId(0)).await;
        let topic = writer.create_topic("guarded", 1).await;
        let mut request = produce(topic, 0, batch(&[b"x"]));
        request.partitions[0].expected_end_offset = Some(Offset(0));
        assert_eq!(writer.call(&request).await.partitions[0].error, ErrorCode::None);
        let refused = writer.call(&request).await.partitions.remove(0);
        assert_eq!(refused.error, ErrorCode::UnexpectedEndOffset);
        assert_eq!(refused.message.as_deref(), Some("the log ends at offset 1, the request expected 0"));
    });
}

#[test]
fn offsets_beyond_the_log_are_refused_with_its_bounds() {
    story(2, || async {
        let mut client = Client::connect(ShardId(0)).await;
        let topic = client.create_topic("short", 2).await;
        for partition in 0..2 {
            append(&mut client, topic, partition, &[b"only"]).await;
            let refused = client.call(&fetch(topic, partition, 9, 1000)).await.partitions.remove(0);
            assert_eq!(refused.error, ErrorCode::OffsetOutOfRange);
            assert_eq!(refused.message.as_deref(), Some("offset 9 is not in 0 to 1"));
            let partition = PartitionIndex(partition);
            let ask = |spec| ListOffsetsPartition { topic, partition, spec };
            let partitions = vec![ask(OffsetSpec::Earliest), ask(OffsetSpec::Latest)];
            let found = client.call(&ListOffsetsRequest { partitions }).await;
            let offsets: Vec<_> = found.partitions.iter().map(|part| part.offset.0).collect();
            assert_eq!(offsets, [0, 1]);
        }
    });
}

#[test]
fn a_fetch_keeps_to_its_limit_and_still_moves() {
    story(2, || async {
        let mut client = Client::connect(ShardId(0)).await;
        let topic = client.create_topic("large", 4).await;
        let value = vec![7; 300_000];
        for partition in 0..4 {
            for _ in 0..3 {
                append(&mut client, topic, partition, &[&value]).await;
            }
        }
        let all = |bytes_max| {
            let parts = (0..4).map(|partition| fetch(topic, partition, 0, 0).partitions.remove(0));
            FetchRequest { max_wait_ms: 0, min_bytes: 1, max_bytes: bytes_max, partitions: parts.collect() }
        };
        for (bytes_max, batches) in [(1, 1), (700_000, 2), (1_000_000, 3)] {
            let response = client.call(&all(bytes_max)).await;
            let found: usize = response.partitions.iter().map(|part| values(part).len()).sum();
            assert_eq!(found, batches, "{bytes_max} bytes");
            assert!(response.partitions.iter().all(|part| part.high_watermark == Offset(3)));
        }
    });
}

#[test]
fn a_fetch_that_names_nothing_is_answered_at_once() {
    story(1, || async {
        let mut reader = Client::connect(ShardId(0)).await;
        let begun = now();
        let nothing =
            FetchRequest { max_wait_ms: 60_000, min_bytes: 1, max_bytes: 1, partitions: Vec::new() };
        assert!(reader.call(&nothing).await.partitions.is_empty());
        assert!(begun.elapsed() < Duration::from_secs(60));
    });
}

#[test]
fn a_fetch_for_more_than_an_answer_holds_is_answered_with_what_it_holds() {
    let mut config = common::config(1);
    config.memory.per_shard_bytes = "64 MiB".parse().expect("a size");
    common::story_with(config, || async {
        let mut client = Client::connect(ShardId(0)).await;
        let topic = client.create_topic("t", 1).await;
        let record = vec![7; 500_000];
        for _ in 0..4 {
            append(&mut client, topic, 0, &[&record]).await;
        }
        let begun = now();
        let mut request = fetch(topic, 0, 0, 60_000);
        (request.min_bytes, request.max_bytes) = (u32::MAX, u32::MAX);
        request.partitions[0].max_bytes = u32::MAX;
        let found = client.call(&request).await;
        assert!(values(&found.partitions[0]).len() >= 2);
        assert!(begun.elapsed() < Duration::from_secs(60));
    });
}
