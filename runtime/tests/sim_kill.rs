//! A kill ends everything on its node and leaves the disk to the machine: what was not flushed is there for the
//! next life, and a later power cut may still lose it.

use bytes::Bytes;
use corrente_runtime::{
    buffer::{AlignedBuf, BLOCK},
    file,
    file::{File, OpenOptions, Sync},
    sim::{Node, World, WorldConfig},
    socket::Listener,
    timer,
};
use std::{io, net::SocketAddr, path::Path, time::Duration};

const LIMIT: Duration = Duration::from_secs(60);
const LOG: &str = "/log";

fn blocks(count: usize, byte: u8) -> Bytes {
    let mut buffer = AlignedBuf::zeroed(count * BLOCK);
    buffer.fill(byte);
    buffer.freeze()
}

fn world(seed: u64) -> (World, Node) {
    let world = World::new(seed, WorldConfig::default());
    let node = world.node("node", [10, 0, 0, 1]);
    world
        .run(&node, LIMIT, || async {
            let log = File::open(Path::new(LOG), OpenOptions::CREATE_NEW).await.unwrap();
            log.write_at(blocks(8, 0), 0, Sync::Data).await.unwrap();
            file::sync_dir(Path::new("/")).await.unwrap();
        })
        .unwrap();
    (world, node)
}

async fn open() -> File {
    File::open(Path::new(LOG), OpenOptions::READ_WRITE).await.unwrap()
}

fn read_back(world: &World, node: &Node) -> Vec<u8> {
    world.run(node, LIMIT, || async { open().await.read_at(0, 8 * BLOCK).await.unwrap().to_vec() }).unwrap()
}

/// Writes without a flush, kills, perhaps flushes in the next life, cuts the power. What was there before the
/// cut, and what after it.
fn seen_then_left(seed: u64, flushed_by_next: bool) -> (Vec<u8>, Vec<u8>) {
    let (world, node) = world(seed);
    world
        .run(&node, LIMIT, || async { open().await.write_at(blocks(8, 7), 0, Sync::No).await.unwrap() })
        .unwrap();
    node.kill();
    let seen = read_back(&world, &node);
    if flushed_by_next {
        world.run(&node, LIMIT, || async { open().await.sync_data().await.unwrap() }).unwrap();
    }
    node.crash();
    (seen, read_back(&world, &node))
}

#[test]
fn what_a_kill_leaves_unflushed_is_seen_and_lost_by_a_later_power_cut() {
    let mut lost = 0;
    for seed in 0..100 {
        let (seen, left) = seen_then_left(seed, false);
        assert_eq!(seen, vec![7; 8 * BLOCK], "seed {seed}: a completed write was gone after a kill");
        lost += u32::from(left != seen);
    }
    assert!((20..100).contains(&lost), "{lost} of 100 power cuts lost something");
}

#[test]
fn the_next_life_can_flush_it() {
    for seed in 0..100 {
        let (seen, left) = seen_then_left(seed, true);
        assert_eq!(seen, left, "seed {seed}: the power cut lost what was flushed");
    }
}

#[test]
fn of_a_durable_write_under_way_anything_may_be_left() {
    let [mut nothing, mut part, mut whole, mut lost_later] = [0; 4];
    for seed in 0..400 {
        let (world, node) = world(seed);
        node.spawn(|| async { open().await.write_at(blocks(8, 7), 0, Sync::Data).await.unwrap() }).detach();
        world.run_for(Duration::from_micros(30 + seed % 200));
        node.kill();
        let left = read_back(&world, &node);
        match left.iter().filter(|&&byte| byte == 7).count() {
            0 => nothing += 1,
            all if all == left.len() => whole += 1,
            some => {
                assert_eq!(some % BLOCK, 0, "seed {seed}: a block was torn by a kill");
                part += 1;
            }
        }
        node.crash();
        lost_later += u32::from(read_back(&world, &node) != left);
    }
    for (what, count) in [("nothing", nothing), ("a part", part), ("all", whole)] {
        assert!(count >= 40, "{what} was left of {count} writes of 400");
    }
    assert!(lost_later >= 40, "{lost_later} of 400 power cuts lost something that the kill had left");
}

#[test]
fn so_do_names() {
    for (synced_by_next, lost_at_most) in [(false, 99), (true, 0)] {
        let mut lost = 0;
        for seed in 0..100 {
            let (world, node) = world(seed);
            let rename = || async { file::rename(Path::new(LOG), Path::new("/renamed")).await.unwrap() };
            world.run(&node, LIMIT, rename).unwrap();
            node.kill();
            let seen = || async { file::exists(Path::new("/renamed")).await.unwrap() };
            assert!(world.run(&node, LIMIT, seen).unwrap(), "seed {seed}: a rename was gone after a kill");
            if synced_by_next {
                world.run(&node, LIMIT, || async { file::sync_dir(Path::new("/")).await.unwrap() }).unwrap();
            }
            node.crash();
            lost += u32::from(!world.run(&node, LIMIT, seen).unwrap());
        }
        assert!(lost <= lost_at_most, "{lost} of 100 renames lost, though flushed: {synced_by_next}");
        assert!(synced_by_next || lost > 10, "{lost} of 100 renames lost without a flush");
    }
}

#[test]
fn a_directory_that_a_killed_process_has_made_is_durable_once_it_was_asked_for_again() {
    let deep = || async { file::create_dir_all(Path::new("/a/b/c")).await.unwrap() };
    let mut met = 0;
    for seed in 0..200 {
        let (world, node) = world(seed);
        node.spawn(deep).detach();
        world.run_for(Duration::from_micros(50 + seed * 17 % 1_500));
        node.kill();
        let seen = || async { file::exists(Path::new("/a")).await.unwrap() };
        met += u32::from(world.run(&node, LIMIT, seen).unwrap());
        world.run(&node, LIMIT, deep).unwrap();
        node.crash();
        let left = || async { file::read_dir(Path::new("/a/b")).await.map(|found| found.len()) };
        let left = world.run(&node, LIMIT, left).unwrap();
        assert!(matches!(left, Ok(1)), "seed {seed}: {left:?}");
    }
    assert!((50..200).contains(&met), "{met} of 200 kills left a directory");
}

#[test]
fn tasks_ports_and_locks_go_with_the_process() {
    let (world, node) = world(3);
    let address = SocketAddr::new(node.address(), 7400);
    let serve = move || async move {
        let listener = Listener::bind(address).await?;
        let lock = file::lock_exclusive(Path::new("/lock")).await?;
        timer::sleep(LIMIT).await;
        drop((listener, lock));
        io::Result::Ok(())
    };
    for _ in 0..3 {
        let served = node.spawn(serve);
        world.run_for(Duration::from_secs(1));
        assert!(!served.is_finished(), "the port or the lock was still taken");
        node.kill();
        assert!(served.is_finished());
        assert_eq!(world.living_tasks(), 0);
    }
    assert_eq!(node.disk().counters().kills, 3);
}

#[test]
fn the_same_seed_leaves_the_same() {
    let tell = |seed| {
        let (world, node) = world(seed);
        node.spawn(|| async { open().await.write_at(blocks(8, 7), 0, Sync::Data).await.unwrap() }).detach();
        world.run_for(Duration::from_micros(60));
        node.kill();
        (read_back(&world, &node), world.trace_hash())
    };
    for seed in 0..20 {
        assert_eq!(tell(seed), tell(seed), "seed {seed}");
    }
}
