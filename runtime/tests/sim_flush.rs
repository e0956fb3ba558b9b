//! What was flushed survives a power cut; what was not is kept, lost or torn.

use bytes::Bytes;
use corrente_runtime::{
    buffer::{AlignedBuf, BLOCK},
    executor, file,
    file::{File, OpenOptions, Sync},
    sim::{DiskCounters, Node, World, WorldConfig},
    timer,
};
use std::{cell::RefCell, path::Path, rc::Rc, time::Duration};

const LIMIT: Duration = Duration::from_secs(60);
const LOG: &str = "/log";

fn block(byte: u8) -> Bytes {
    let mut buffer = AlignedBuf::zeroed(BLOCK);
    buffer.fill(byte);
    buffer.freeze()
}

fn world(seed: u64) -> (World, Node) {
    let world = World::new(seed, WorldConfig::default());
    let node = world.node("node", [10, 0, 0, 1]);
    (world, node)
}

async fn create() -> File {
    let log = File::open(Path::new(LOG), OpenOptions::CREATE_NEW).await.unwrap();
    file::sync_dir(Path::new("/")).await.unwrap();
    log
}

fn read_back(world: &World, node: &Node, blocks: usize) -> Vec<u8> {
    let read = world.run(node, LIMIT, move || async move {
        let log = File::open(Path::new(LOG), OpenOptions::READ).await?;
        log.read_at(0, blocks * BLOCK).await.map(|buffer| buffer.to_vec())
    });
    read.unwrap().unwrap_or_default()
}

/// Appends blocks, waiting for durability by turns of DSYNC and flush, until the power goes; the blocks
/// acknowledged before must be there afterwards. Returns whether they were.
fn acknowledged_blocks_survive(seed: u64, honest: bool) -> bool {
    let (world, node) = world(seed);
    let acknowledged = Rc::new(RefCell::new(0_u8));
    let counting = acknowledged.clone();
    world.run(&node, LIMIT, || async { drop(create().await) }).unwrap();
    node.disk().ignore_flush(!honest);
    node.spawn(move || async move {
        let log = File::open(Path::new(LOG), OpenOptions::READ_WRITE).await.unwrap();
        for number in 1..=100_u8 {
            let offset = u64::from(number - 1) * BLOCK as u64;
            if number.is_multiple_of(2) {
                log.write_at(block(number), offset, Sync::Data).await.unwrap();
            } else {
                log.write_at(block(number), offset, Sync::No).await.unwrap();
                log.sync_data().await.unwrap();
            }
            *counting.borrow_mut() = number;
        }
    })
    .detach();
    world.run_for(Duration::from_micros(500 + seed * 37 % 20_000));
    node.crash();
    let acknowledged = *acknowledged.borrow();
    let found = read_back(&world, &node, 100);
    (1..=acknowledged).all(|number| {
        let start = (usize::from(number) - 1) * BLOCK;
        found.get(start..start + BLOCK).is_some_and(|bytes| bytes.iter().all(|&byte| byte == number))
    })
}

#[test]
fn flushed_writes_survive_every_power_cut() {
    for seed in 0..300 {
        assert!(acknowledged_blocks_survive(seed, true), "seed {seed} lost what was flushed");
    }
}

#[test]
fn a_disk_that_ignores_flushes_is_caught() {
    let survived = (0..100).filter(|&seed| acknowledged_blocks_survive(seed, false)).count();
    assert!(survived < 60, "{survived} of 100 power cuts lost nothing though no flush was done");
}

#[test]
fn unflushed_writes_are_kept_lost_and_torn() {
    let mut sum = DiskCounters::default();
    for seed in 0..200 {
        let (world, node) = world(seed);
        world
            .run(&node, LIMIT, || async {
                let log = create().await;
                log.allocate(0, 16 * BLOCK as u64).await.unwrap();
                log.sync_data().await.unwrap();
                for number in 1..=8_u8 {
                    let offset = u64::from(number) * BLOCK as u64;
                    log.write_at(block(number), offset, Sync::No).await.unwrap();
                }
            })
            .unwrap();
        node.crash();
        let found = read_back(&world, &node, 16);
        assert_eq!(found.len(), 16 * BLOCK, "seed {seed}: a flushed length was lost");
        for (sector, bytes) in found.chunks(512).enumerate() {
            let number = u8::try_from(sector * 512 / BLOCK).unwrap();
            let whole = bytes.iter().all(|&byte| byte == bytes[0]);
            assert!(whole, "seed {seed}: sector {sector} is torn");
            assert!(bytes[0] == 0 || bytes[0] == number, "seed {seed}: sector {sector} is another's");
        }
        let counters = node.disk().counters();
        sum.writes_kept += counters.writes_kept;
        sum.writes_lost += counters.writes_lost;
        sum.writes_torn += counters.writes_torn;
    }
    assert_eq!(sum.writes_kept + sum.writes_lost + sum.writes_torn, 200 * 8);
    for (what, count) in [("kept", sum.writes_kept), ("lost", sum.writes_lost), ("torn", sum.writes_torn)] {
        assert!(count >= 50, "only {count} writes {what}");
    }
}

#[test]
fn a_flush_does_not_cover_writes_still_in_flight() {
    let mut lost = 0;
    for seed in 0..100 {
        let (world, node) = world(seed);
        world
            .run(&node, LIMIT, || async {
                let log = create().await;
                log.allocate(0, BLOCK as u64).await.unwrap();
                log.sync_data().await.unwrap();
                let late = log.clone();
                executor::spawn(async move { late.write_at(block(7), 0, Sync::No).await.unwrap() }).detach();
                log.sync_data().await.unwrap();
                timer::sleep(Duration::from_secs(1)).await;
            })
            .unwrap();
        node.crash();
        lost += usize::from(read_back(&world, &node, 1)[0] == 0);
    }
    assert!(lost > 0, "a flush covered every write submitted around it");
}

#[test]
fn writes_in_flight_at_once_land_in_any_order() {
    let mut last = [0; 3];
    for seed in 0..100 {
        let (world, node) = world(seed);
        world
            .run(&node, LIMIT, || async {
                let log = create().await;
                let first = log.write_at(block(1), 0, Sync::No);
                let second = log.write_at(block(2), 0, Sync::No);
                let (first, second) = futures_util::future::join(first, second).await;
                first.and(second).unwrap();
            })
            .unwrap();
        last[usize::from(read_back(&world, &node, 1)[0])] += 1;
    }
    assert!(last[1] > 10 && last[2] > 10, "the order was always the same: {last:?}");
}

#[test]
fn a_dropped_write_still_happens() {
    let (world, node) = world(3);
    world
        .run(&node, LIMIT, || async {
            let log = create().await;
            {
                let write = std::pin::pin!(log.write_at(block(5), 0, Sync::Data));
                assert!(futures_util::poll!(write).is_pending());
            }
            timer::sleep(Duration::from_secs(1)).await;
        })
        .unwrap();
    assert_eq!(read_back(&world, &node, 1), vec![5; BLOCK]);
}
