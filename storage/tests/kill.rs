//! A process is killed at any moment while it makes a segment; the next one appends and acknowledges; then the
//! power fails and takes everything that nobody has flushed. What was acknowledged is there.

mod common;

use std::time::Duration;

use common::*;
use corrente_protocol::ids::ShardId;
use corrente_runtime::sim::{Node, World, WorldConfig};
use corrente_runtime::timer;
use corrente_storage::{NodeLayout, Storage, StorageConfig};

fn forgetful_world(seed: u64) -> (World, Node) {
    let mut config = WorldConfig::default();
    config.crash.keep_chance = Some(0.0);
    let world = World::new(seed, config);
    let node = world.node("north", [10, 0, 0, 1]);
    (world, node)
}

/// Opens the log or makes it, appends 30 KB, and acknowledges.
async fn acknowledge_thirty() {
    let (opened, log) = open_one(|_| {}).await;
    for n in 0..30_u8 {
        append_flushed(&log, &[vec![n; 1000]]).await;
    }
    drop(opened);
}

async fn acknowledged() -> usize {
    let (_opened, log) = open_one(|_| {}).await;
    read_all(&log, 10_000).await.len()
}

#[test]
fn while_the_log_is_made() {
    for seed in 0..300 {
        let (world, node) = forgetful_world(seed);
        node.spawn(acknowledge_thirty).detach();
        world.run_for(Duration::from_micros(seed * 20));
        node.kill();
        run(&world, &node, acknowledge_thirty);
        node.crash();
        let found = run(&world, &node, acknowledged);
        assert!(found >= 30, "seed {seed}: {found} of 30 acknowledged records are there");
    }
}

#[test]
fn while_a_segment_follows_another() {
    for seed in 0..300 {
        let (world, node) = forgetful_world(seed);
        run(&world, &node, || async {
            acknowledge_thirty().await;
            timer::sleep(Duration::from_secs(2)).await;
        });
        node.kill();
        // The second segment begins somewhere in these.
        node.spawn(|| async {
            acknowledge_thirty().await;
            acknowledge_thirty().await;
        })
        .detach();
        world.run_for(Duration::from_micros(seed * 60));
        node.kill();
        run(&world, &node, acknowledge_thirty);
        node.crash();
        let found = run(&world, &node, acknowledged);
        assert!(found >= 60, "seed {seed}: {found} of 60 acknowledged records are there");
    }
}

#[test]
fn a_log_that_was_never_finished_is_made_anew() {
    let mut unfinished = 0;
    for seed in 0..300 {
        let (world, node) = forgetful_world(seed);
        node.spawn(acknowledge_thirty).detach();
        world.run_for(Duration::from_micros(seed * 20));
        node.kill();
        unfinished += run(&world, &node, || async {
            let layout = NodeLayout::open(&[data_dir()]).await.expect("the layout opens");
            let Some(found) = layout.logs().first().cloned() else { return 0 };
            let left = names(&log_dir(0), ".new").await.len();
            let config = StorageConfig::new(vec![data_dir()], ShardId(0), layout.generation());
            let storage = Storage::open(config).await.expect("the storage opens");
            let (log, _) = storage.open_log(found).await.expect("the log is recovered");
            assert_eq!(log.health(), corrente_storage::Health::Sound);
            assert!(names(&log_dir(0), ".new").await.is_empty());
            left
        });
    }
    assert!(unfinished > 5, "only {unfinished} kills left a segment without its name");
}
