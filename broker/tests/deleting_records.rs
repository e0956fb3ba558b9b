//! Records are deleted on request: no reader sees them again, not even after a power cut.

mod common;

use common::{BROKER, Client, append, client_node, config, start, story, tell, values};
use corrente_protocol::api::{
    DeleteBefore, DeleteRecordsPartition, DeleteRecordsRequest, DescribeTopicRequest, OffsetSpec,
};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{Offset, PartitionIndex, ShardId, TopicId};
use corrente_runtime::sim::{World, WorldConfig};

async fn fill(client: &mut Client, topic: TopicId, partition: u32, records: u8) {
    for n in 0..records {
        assert_eq!(append(client, topic, partition, &[&[n]]).await.error, ErrorCode::None);
    }
}

fn offsets(found: Vec<(u64, bytes::Bytes)>) -> Vec<u64> {
    found.into_iter().map(|(offset, _)| offset).collect()
}

#[test]
fn what_was_deleted_is_gone_for_every_reader_on_every_shard() {
    story(3, || async {
        let mut client = Client::connect(ShardId(0)).await;
        let topic = client.create_topic("shortened", 4).await;
        for partition in 0..4 {
            fill(&mut client, topic, partition, 10).await;
        }
        for (partition, shard) in (0..4).zip([0, 1, 2, 0]) {
            let mut other = Client::connect(ShardId(shard)).await;
            let deleted = other.delete_records(topic, partition, DeleteBefore::Offset(Offset(4))).await;
            assert_eq!((deleted.error, deleted.log_start_offset), (ErrorCode::None, Offset(4)));
            assert_eq!(client.find(topic, partition, OffsetSpec::Earliest).await.offset, Offset(4));
            assert_eq!(client.find(topic, partition, OffsetSpec::Latest).await.offset, Offset(10));
            let kept = client.read(topic, partition, 4).await;
            assert_eq!(kept.log_start_offset, Offset(4));
            assert_eq!(offsets(values(&kept)), (4..10).collect::<Vec<_>>());
            let gone = client.read(topic, partition, 3).await;
            assert_eq!(gone.error, ErrorCode::OffsetOutOfRange);
            assert_eq!(gone.message.as_deref(), Some("offset 3 is not in 4 to 10"));
        }
    });
}

#[test]
fn each_partition_of_a_request_has_its_own_outcome() {
    story(2, || async {
        let mut client = Client::connect(ShardId(0)).await;
        let topic = client.create_topic("mixed", 3).await;
        for partition in 0..3 {
            fill(&mut client, topic, partition, 5).await;
        }
        let ask = |partition, before| DeleteRecordsPartition {
            topic,
            partition: PartitionIndex(partition),
            before,
        };
        let partitions = vec![
            ask(0, DeleteBefore::Offset(Offset(6))),
            ask(1, DeleteBefore::HighWatermark),
            ask(9, DeleteBefore::HighWatermark),
            ask(2, DeleteBefore::Offset(Offset(3))),
            ask(2, DeleteBefore::Offset(Offset(1))),
        ];
        let response = client.call(&DeleteRecordsRequest { partitions }).await;
        let outcomes: Vec<_> =
            response.partitions.iter().map(|part| (part.error, part.log_start_offset.0)).collect();
        let expected = [
            (ErrorCode::OffsetOutOfRange, 0),
            (ErrorCode::None, 5),
            (ErrorCode::UnknownTopicOrPartition, 0),
            (ErrorCode::None, 3),
            (ErrorCode::None, 3),
        ];
        assert_eq!(outcomes, expected);
        let line = response.partitions[0].message.as_deref();
        assert_eq!(line, Some("offset 6 is beyond the high watermark 5"));
        assert_eq!(client.find(topic, 0, OffsetSpec::Earliest).await.offset, Offset(0), "left alone");

        let ends = client.call(&DescribeTopicRequest { name: "mixed".to_owned() }).await.partitions;
        let starts: Vec<u64> = ends.iter().map(|part| part.log_start_offset.0).collect();
        assert_eq!(starts, [0, 5, 3]);
        assert!(ends.iter().all(|part| part.error == ErrorCode::None && part.reason.is_none()));

        // An emptied partition goes on where it was.
        assert_eq!(append(&mut client, topic, 1, &[b"next"]).await.base_offset, Offset(5));
        assert_eq!(offsets(values(&client.read(topic, 1, 5).await)), [5]);
    });
}

#[test]
fn a_topic_that_is_only_compacted_keeps_the_last_record_of_every_key() {
    story(1, || async {
        let mut client = Client::connect(ShardId(0)).await;
        let topic = client.create_topic_with("state", 1, &[("cleanup.policy", "compact")]).await;
        let refused = client.delete_records(topic, 0, DeleteBefore::HighWatermark).await;
        assert_eq!(refused.error, ErrorCode::PolicyViolation);
        client.alter_topic("state", "cleanup.policy", "compact,delete").await;
        let deleted = client.delete_records(topic, 0, DeleteBefore::HighWatermark).await;
        assert_eq!((deleted.error, deleted.log_start_offset), (ErrorCode::None, Offset(0)));
    });
}

#[test]
fn an_answered_deletion_survives_a_power_cut_at_once() {
    for seed in 0..20 {
        let world = World::new(seed, WorldConfig::default());
        let (node, other) = (world.node("broker", BROKER.0), client_node(&world));
        start(&world, &node, config(2));
        let topic = tell(&world, &other, || async {
            let mut client = Client::connect(ShardId(0)).await;
            let topic = client.create_topic("cut", 1).await;
            fill(&mut client, topic, 0, 8).await;
            let deleted = client.delete_records(topic, 0, DeleteBefore::Offset(Offset(6))).await;
            assert_eq!((deleted.error, deleted.log_start_offset), (ErrorCode::None, Offset(6)));
            topic
        });
        node.crash();
        start(&world, &node, config(2));
        tell(&world, &other, move || async move {
            let mut client = Client::connect(ShardId(1)).await;
            assert_eq!(client.find(topic, 0, OffsetSpec::Earliest).await.offset, Offset(6), "seed {seed}");
            assert_eq!(client.read(topic, 0, 5).await.error, ErrorCode::OffsetOutOfRange, "seed {seed}");
            assert_eq!(offsets(values(&client.read(topic, 0, 6).await)), [6, 7], "seed {seed}");
        });
    }
}
