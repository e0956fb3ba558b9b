//! What a start must not destroy, and what a stop must not keep waiting.

mod common;

use std::path::Path;
use std::time::Duration;

use common::{BROKER, Client, append, config, fetch, run, start, subscribe, tell};
use corrente_broker::byte_size::ByteSize;
use corrente_broker::{Config, Node as Broker};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{Offset, ShardId, TopicId};
use corrente_runtime::buffer::BLOCK;
use corrente_runtime::file::{File, OpenOptions, Sync, remove_dir_all};
use corrente_runtime::sim::{Node, World, WorldConfig};
use corrente_runtime::timer::{now, sleep};

fn two_drives() -> Config {
    let mut config = config(2);
    config.node.data_dirs = vec!["/first".into(), "/second".into()];
    config
}

async fn fill(partitions: u32) -> TopicId {
    let mut client = Client::connect(ShardId(0)).await;
    let topic = client.create_topic("kept", partitions).await;
    for partition in 0..partitions {
        let response = append(&mut client, topic, partition, &[b"acknowledged"]).await;
        assert_eq!(response.error, ErrorCode::None);
    }
    // Long enough for the checkpoint to know of it.
    sleep(Duration::from_millis(500)).await;
    topic
}

/// The refusal of a start, or `None` if it served.
fn refusal(world: &World, node: &Node, config: Config) -> Option<String> {
    tell(world, node, || async move { Broker::start(config).await.err().map(|error| error.to_string()) })
}

#[test]
fn logs_without_their_metadata_are_never_taken_for_garbage() {
    let world = World::new(11, WorldConfig::default());
    let (node, other) = (world.node("broker", BROKER.0), world.node("client", [10, 0, 0, 2]));
    start(&world, &node, two_drives());
    let topic = tell(&world, &other, || fill(4));
    node.crash();

    let mut without_first = two_drives();
    without_first.node.data_dirs.remove(0);
    let line = refusal(&world, &node, without_first).expect("refused");
    assert!(line.contains("is a data directory missing"), "{line}");

    let mut only_first = two_drives();
    only_first.node.data_dirs.remove(1);
    start(&world, &node, only_first);
    let errors = tell(&world, &other, move || async move {
        let mut client = Client::connect(ShardId(0)).await;
        let mut errors = Vec::new();
        for partition in 0..4 {
            errors.push(client.call(&fetch(topic, partition, 0, 0)).await.partitions[0].error);
        }
        errors
    });
    assert!(errors.contains(&ErrorCode::None), "those of the first drive are served: {errors:?}");
    assert!(
        errors.contains(&ErrorCode::Damaged),
        "those of the second are missed, not made anew: {errors:?}"
    );
    node.crash();

    start(&world, &node, two_drives());
    tell(&world, &other, move || async move {
        let mut client = Client::connect(ShardId(0)).await;
        for partition in 0..4 {
            let response = client.call(&fetch(topic, partition, 0, 0)).await;
            assert_eq!(response.partitions[0].high_watermark, Offset(1), "partition {partition}");
        }
    });
}

/// Turns some bits of a byte over; done twice, nothing has happened.
async fn rot(path: &Path, at: u64) {
    let file = File::open(path, OpenOptions::READ_WRITE).await.expect("there");
    let mut block = file.read_at(at - at % BLOCK as u64, BLOCK).await.expect("readable");
    block[usize::try_from(at).expect("small") % BLOCK] ^= 0x5a;
    file.write_at(block.freeze(), at - at % BLOCK as u64, Sync::Data).await.expect("writable");
    file.close().await.expect("closed");
}

#[test]
fn a_damaged_metadata_log_is_told_and_left_as_it_is() {
    let world = World::new(13, WorldConfig::default());
    let (node, other) = (world.node("broker", BROKER.0), world.node("client", [10, 0, 0, 2]));
    start(&world, &node, config(2));
    tell(&world, &other, || fill(4));
    node.crash();

    // The header of the segment, the header of its first extent, its first batch.
    for at in [20, 4096 + 20, 4096 + 100] {
        let segment = || {
            let topic = TopicId::METADATA.to_string();
            Path::new("/data/topics").join(topic).join("0").join("00000000000000000000.seg")
        };
        tell(&world, &node, move || async move { rot(&segment(), at).await });
        for _ in 0..2 {
            let line = refusal(&world, &node, config(2)).expect("refused");
            assert!(line.contains("damaged") && !line.contains('\n'), "byte {at}: {line}");
        }
        tell(&world, &node, move || async move { rot(&segment(), at).await });
    }
    start(&world, &node, config(2));
}

#[test]
fn a_partition_that_found_no_room_is_made_once_there_is_some() {
    let world = World::new(15, WorldConfig::default());
    let (node, other) = (world.node("broker", BROKER.0), world.node("client", [10, 0, 0, 2]));
    let mut config = config(1);
    config.log.reserve_bytes = ByteSize::mib(3);
    start(&world, &node, config.clone());
    let topic =
        tell(&world, &other, || async { Client::connect(ShardId(0)).await.create_topic("late", 1).await });
    node.crash();
    // As if the crash had come between the metadata and the log.
    tell(&world, &node, move || async move {
        remove_dir_all(&Path::new("/data/topics").join(topic.to_string())).await.expect("it is there");
        remove_dir_all(Path::new("/data/checkpoint")).await.expect("it is there");
    });
    // Enough for the checkpoint of a start, and less than the reserve with that.
    node.disk().set_capacity("/data", Some(node.disk().used_bytes("/data") + (3 << 20)));
    start(&world, &node, config);
    let refused = move || async move {
        let mut client = Client::connect(ShardId(0)).await;
        append(&mut client, topic, 0, &[b"too early"]).await.error
    };
    assert_eq!(tell(&world, &other, refused), ErrorCode::DiskFull);
    node.disk().set_capacity("/data", None);
    tell(&world, &other, move || async move {
        let mut client = Client::connect(ShardId(0)).await;
        while append(&mut client, topic, 0, &[b"in time"]).await.error == ErrorCode::DiskFull {
            sleep(Duration::from_millis(100)).await;
        }
        let response = client.call(&fetch(topic, 0, 0, 0)).await;
        assert_eq!(response.partitions[0].high_watermark, Offset(1));
    });
}

#[test]
fn a_stop_does_not_wait_for_those_who_wait_for_records() {
    let world = World::new(12, WorldConfig::default());
    let (node, other) = (world.node("broker", BROKER.0), world.node("client", [10, 0, 0, 2]));
    let mut stopped = node.spawn(|| async {
        let mut broker = Broker::start(config(2)).await.expect("starts");
        sleep(Duration::from_secs(5)).await;
        let begun = now();
        broker.shutdown_handle().shutdown().await;
        broker.stopped().await.expect("no shard panics");
        begun.elapsed()
    });
    let mut reading = other.spawn(|| async {
        sleep(Duration::from_secs(1)).await;
        let topic = fill(2).await;
        let mut client = Client::connect(ShardId(1)).await;
        for partition in 0..2 {
            client.send(&fetch(topic, partition, 1, 200_000)).await;
        }
        client.send(&subscribe(topic, 0..2, 0)).await;
        let mut answers = 0;
        while client.receive().await.is_some() {
            answers += 1;
        }
        answers
    });
    run(&world, || stopped.is_finished() && reading.is_finished());
    assert_eq!(reading.take_output(), Some(3), "what was under way is answered");
    assert!(stopped.take_output().expect("stopped") < Duration::from_secs(5));
}
