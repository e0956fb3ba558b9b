//! Records are found by their timestamps, in whatever order producers gave them, or carry the broker's own.

mod common;

use std::time::Duration;

use common::{BROKER, Client, START_MS, batch_at, client_node, config, start, story, tell};
use corrente_protocol::api::{DeleteBefore, ListOffsetsPartitionResponse, OffsetSpec};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{Offset, ShardId, TopicId};
use corrente_protocol::record_batch::RecordBatches;
use corrente_runtime::sim::{World, WorldConfig};
use corrente_runtime::timer::sleep;

/// Out of order within batches and between them.
const BATCHES: [&[i64]; 5] = [&[10, 50, 20], &[5], &[40, 70, 60, 70], &[30], &[65, 1]];

fn times() -> Vec<i64> {
    BATCHES.concat().iter().map(|time| START_MS + time).collect()
}

async fn fill(client: &mut Client, topic: TopicId, partition: u32) {
    for times in BATCHES {
        let times: Vec<i64> = times.iter().map(|time| START_MS + time).collect();
        assert_eq!(client.append(topic, partition, batch_at(&times)).await.error, ErrorCode::None);
    }
}

fn found(response: &ListOffsetsPartitionResponse) -> (u64, i64) {
    assert_eq!(response.error, ErrorCode::None, "{:?}", response.message);
    (response.offset.0, response.timestamp_ms)
}

/// What looking at one record after the other finds, from `start` on.
fn expected(start: usize, at_ms: i64) -> (u64, i64) {
    let times = times();
    let first = (start..times.len()).find(|offset| times[*offset] >= at_ms);
    first.map_or((times.len() as u64, -1), |offset| (offset as u64, times[offset]))
}

#[test]
fn the_first_record_that_is_late_enough_is_found_whatever_follows_it() {
    story(2, || async {
        let mut client = Client::connect(ShardId(0)).await;
        let topic = client.create_topic("timed", 2).await;
        for partition in 0..2 {
            fill(&mut client, topic, partition).await;
            for at in [i64::MIN, -1, 0, START_MS].into_iter().chain((0..75).map(|time| START_MS + time)) {
                let answer = client.find(topic, partition, OffsetSpec::Timestamp(at)).await;
                assert_eq!(found(&answer), expected(0, at), "at {at}");
            }
            let latest = client.find(topic, partition, OffsetSpec::MaxTimestamp).await;
            assert_eq!(found(&latest), (5, START_MS + 70), "the first of the latest two");
        }
    });
}

#[test]
fn what_was_deleted_is_not_found() {
    story(1, || async {
        let mut client = Client::connect(ShardId(0)).await;
        let topic = client.create_topic("timed", 1).await;
        fill(&mut client, topic, 0).await;
        client.delete_records(topic, 0, DeleteBefore::Offset(Offset(6))).await;
        for at in (0..75).map(|time| START_MS + time) {
            let answer = client.find(topic, 0, OffsetSpec::Timestamp(at)).await;
            assert_eq!(found(&answer), expected(6, at), "at {at}");
        }
        let latest = client.find(topic, 0, OffsetSpec::MaxTimestamp).await;
        assert_eq!(found(&latest), (7, START_MS + 70));
    });
}

#[test]
fn an_empty_partition_has_no_time_and_only_an_end() {
    story(1, || async {
        let mut client = Client::connect(ShardId(0)).await;
        let topic = client.create_topic("empty", 1).await;
        for spec in [OffsetSpec::Timestamp(0), OffsetSpec::Timestamp(i64::MAX), OffsetSpec::MaxTimestamp] {
            assert_eq!(found(&client.find(topic, 0, spec).await), (0, -1));
        }
        let unknown = client.find(topic, 7, OffsetSpec::MaxTimestamp).await;
        assert_eq!((unknown.error, unknown.timestamp_ms), (ErrorCode::UnknownTopicOrPartition, -1));
    });
}

#[test]
fn times_are_found_after_a_power_cut() {
    let world = World::new(5, WorldConfig::default());
    let (node, other) = (world.node("broker", BROKER.0), client_node(&world));
    start(&world, &node, config(1));
    let topic = tell(&world, &other, || async {
        let mut client = Client::connect(ShardId(0)).await;
        let topic = client.create_topic("timed", 1).await;
        fill(&mut client, topic, 0).await;
        topic
    });
    node.crash();
    start(&world, &node, config(1));
    tell(&world, &other, move || async move {
        let mut client = Client::connect(ShardId(0)).await;
        for at in (0..75).map(|time| START_MS + time) {
            let answer = client.find(topic, 0, OffsetSpec::Timestamp(at)).await;
            assert_eq!(found(&answer), expected(0, at), "at {at}");
        }
    });
}

#[test]
fn a_topic_can_give_records_the_time_at_which_they_were_appended() {
    story(2, || async {
        let mut client = Client::connect(ShardId(0)).await;
        let configs = [("message.timestamp.type", "LogAppendTime")];
        let topic = client.create_topic_with("stamped", 2, &configs).await;
        for partition in 0..2 {
            let mut given = Vec::new();
            for _ in 0..3 {
                sleep(Duration::from_millis(10)).await;
                let receipt = client.append(topic, partition, batch_at(&[5, 4, 3])).await;
                assert_eq!(receipt.error, ErrorCode::None);
                assert!(receipt.log_append_time_ms >= START_MS, "{}", receipt.log_append_time_ms);
                given.extend([receipt.log_append_time_ms; 3]);
            }
            assert!(given[0] < given[3] && given[3] < given[6], "{given:?}");
            let batches = client.read(topic, partition, 0).await.batches;
            let records = batches
                .into_iter()
                .flat_map(RecordBatches::new)
                .flat_map(|batch| batch.expect("a right checksum").records(1 << 20).expect("readable"));
            let carried: Vec<i64> = records.map(|record| record.expect("decodes").timestamp_ms).collect();
            assert_eq!(carried, given);
            let second = client.find(topic, partition, OffsetSpec::Timestamp(given[3])).await;
            assert_eq!(found(&second), (3, given[3]));
        }
        let usual = client.create_topic("usual", 1).await;
        assert_eq!(client.append(usual, 0, batch_at(&[START_MS])).await.log_append_time_ms, -1);
    });
}
