//! A disk that fails: what the caller is told, what is left, and what a caller loses who flushes again.

use bytes::Bytes;
use corrente_runtime::{
    buffer::{AlignedBuf, BLOCK},
    file,
    file::{File, OpenOptions, Sync},
    sim::{DiskFault, FaultRule, Node, When, World, WorldConfig},
    timer,
};
use std::{cell::RefCell, io, path::Path, rc::Rc, time::Duration};

const LIMIT: Duration = Duration::from_secs(600);
const LOG: &str = "/log";
const BLOCKS: usize = 40;
/// What Linux says of a disk that fails.
const EIO: Option<i32> = Some(5);

fn blocks(count: usize, byte: u8) -> Bytes {
    let mut buffer = AlignedBuf::zeroed(count * BLOCK);
    buffer.fill(byte);
    buffer.freeze()
}

fn rule(fault: DiskFault, when: When) -> FaultRule {
    FaultRule { fault, when, below: LOG.into() }
}

/// A node with a durable log of zeros.
fn world(seed: u64) -> (World, Node) {
    let world = World::new(seed, WorldConfig::default());
    let node = world.node("node", [10, 0, 0, 1]);
    world
        .run(&node, LIMIT, || async {
            let log = File::open(Path::new(LOG), OpenOptions::CREATE_NEW).await.unwrap();
            log.write_at(blocks(BLOCKS, 0), 0, Sync::Data).await.unwrap();
            file::sync_dir(Path::new("/")).await.unwrap();
        })
        .unwrap();
    (world, node)
}

async fn open() -> File {
    File::open(Path::new(LOG), OpenOptions::READ_WRITE).await.unwrap()
}

fn read_back(world: &World, node: &Node) -> Vec<u8> {
    let read = || async { open().await.read_at(0, BLOCKS * BLOCK).await.unwrap().to_vec() };
    world.run(node, LIMIT, read).unwrap()
}

#[test]
fn a_failed_write_leaves_old_new_or_torn_bytes() {
    let [mut old, mut new, mut torn] = [0; 3];
    for seed in 0..300 {
        let (world, node) = world(seed);
        node.disk().inject(rule(DiskFault::WriteError, When::Chance(1.0)));
        let write = || async { open().await.write_at(blocks(2, 7), 0, Sync::Data).await.unwrap_err() };
        assert_eq!(world.run(&node, LIMIT, write).unwrap().raw_os_error(), EIO);
        assert_eq!(node.disk().counters().write_errors, 1);
        match read_back(&world, &node)[..2 * BLOCK].iter().filter(|&&byte| byte == 7).count() {
            0 => old += 1,
            all if all == 2 * BLOCK => new += 1,
            some => {
                assert_eq!(some % 512, 0, "seed {seed}: a sector was torn");
                torn += 1;
            }
        }
    }
    for (what, count) in [("old", old), ("new", new), ("torn", torn)] {
        assert!(count > 50, "{count} of 300 failed writes left {what} bytes");
    }
}

/// What a caller does about a flush that failed.
#[derive(Clone, Copy, PartialEq)]
enum Caller {
    /// Gives the file up.
    Stops,
    /// Flushes again and believes the second answer.
    FlushesAgain,
    /// Knows of no failure: somebody below it has flushed again.
    IsNotTold,
}

/// Writes blocks and flushes each, on a disk on which some flushes fail, until the power goes. Returns whether all
/// the caller took for durable is there.
fn acknowledged_blocks_survive(seed: u64, caller: Caller) -> bool {
    let (world, node) = world(seed);
    node.disk().inject(rule(DiskFault::FlushError, When::Chance(0.1)));
    node.disk().retry_flushes(caller == Caller::IsNotTold);
    let acknowledged = Rc::new(RefCell::new(0_usize));
    let counting = acknowledged.clone();
    node.spawn(move || async move {
        let log = open().await;
        for number in 1..BLOCKS {
            let offset = (number * BLOCK) as u64;
            let mut flushed = if number.is_multiple_of(2) {
                log.write_at(blocks(1, 7), offset, Sync::Data).await
            } else {
                log.write_at(blocks(1, 7), offset, Sync::No).await.unwrap();
                log.sync_data().await
            };
            while flushed.is_err() {
                match caller {
                    Caller::Stops => return,
                    Caller::FlushesAgain => flushed = log.sync_data().await,
                    Caller::IsNotTold => panic!("told of a failure"),
                }
            }
            *counting.borrow_mut() = number;
        }
    })
    .detach();
    world.run_for(LIMIT);
    node.crash();
    node.disk().heal();
    let found = read_back(&world, &node);
    let acknowledged = *acknowledged.borrow();
    (1..=acknowledged).all(|number| found[number * BLOCK..(number + 1) * BLOCK].iter().all(|&byte| byte == 7))
}

#[test]
fn who_stops_at_a_failed_flush_loses_nothing() {
    for seed in 0..200 {
        assert!(acknowledged_blocks_survive(seed, Caller::Stops), "seed {seed} lost what was flushed");
    }
}

#[test]
fn who_flushes_again_loses_what_was_given_up() {
    for caller in [Caller::FlushesAgain, Caller::IsNotTold] {
        let lost = (0..100).filter(|&seed| !acknowledged_blocks_survive(seed, caller)).count();
        assert!(lost > 50, "{lost} of 100 callers who flushed again lost something");
    }
}

#[test]
fn the_nth_operation_fails_and_no_other() {
    let (world, node) = world(1);
    node.disk().inject(rule(DiskFault::ReadError, When::Nth(3)));
    let reads = || async {
        let log = open().await;
        let mut failed = Vec::new();
        for number in 1..=6 {
            if log.read_at(0, BLOCK).await.is_err() {
                failed.push(number);
            }
        }
        failed
    };
    assert_eq!(world.run(&node, LIMIT, reads), Ok(vec![3]));
    assert_eq!(node.disk().counters().read_errors, 1);
}

#[test]
fn a_name_that_fails_has_not_changed() {
    let (world, node) = world(1);
    node.disk().inject(FaultRule { fault: DiskFault::NameError, when: When::Nth(1), below: "/".into() });
    let rename = || async {
        let error = file::rename(Path::new(LOG), Path::new("/other")).await.unwrap_err();
        (error.raw_os_error(), file::exists(Path::new(LOG)).await.unwrap())
    };
    assert_eq!(world.run(&node, LIMIT, rename), Ok((EIO, true)));
    assert_eq!(node.disk().counters().name_errors, 1);
}

#[test]
fn of_two_drives_one_dies_and_is_replaced() {
    let (world, node) = world(5);
    let small = |path: &'static str| {
        move || async move {
            file::create_dir_all(Path::new(path)).await?;
            file::write_small(&Path::new(path).join("small"), b"content".to_vec()).await?;
            file::read_small(&Path::new(path).join("small"), 100).await?;
            file::read_dir(Path::new(path)).await
        }
    };
    let held = world.run(&node, LIMIT, || async {
        file::create_dir_all(Path::new("/dead")).await.unwrap();
        File::open(Path::new("/dead/log"), OpenOptions::CREATE_NEW).await.unwrap()
    });
    let held = held.unwrap();
    node.disk().fail_below("/dead");
    assert!(world.run(&node, LIMIT, small("/alive")).unwrap().is_ok());
    assert_eq!(world.run(&node, LIMIT, small("/dead")).unwrap().unwrap_err().raw_os_error(), EIO);
    let all_fails = move || async move {
        let write = held.write_at(blocks(1, 1), 0, Sync::No).await;
        let (read, flush) = (held.read_at(0, BLOCK).await.map(drop), held.sync_data().await);
        let names = file::sync_dir(Path::new("/dead")).await;
        [write, read, flush, names].map(|outcome| outcome.map_err(|error| error.raw_os_error()))
    };
    assert_eq!(world.run(&node, LIMIT, all_fails), Ok([Err(EIO); 4]));
    node.disk().heal();
    assert!(world.run(&node, LIMIT, small("/dead")).unwrap().is_ok());
}

#[test]
fn a_slow_disk_takes_its_time_and_a_stall_takes_seconds() {
    let took = |prepare: fn(&Node)| {
        let (world, node) = world(9);
        prepare(&node);
        let read = || async {
            let log = open().await;
            let began = timer::now();
            for _ in 0..100 {
                log.read_at(0, BLOCK).await.unwrap();
            }
            timer::now() - began
        };
        world.run(&node, LIMIT, read).unwrap()
    };
    let healthy = took(|_| {});
    let slow = took(|node| node.disk().slow_down(50));
    assert!(slow > healthy * 20, "{slow:?} for a hundred slow reads, {healthy:?} for healthy ones");
    let stalled = took(|node| node.disk().inject(rule(DiskFault::Stall, When::Nth(7))));
    assert!(stalled > Duration::from_secs(1) && stalled < Duration::from_secs(11), "{stalled:?}");
    let healed = took(|node| {
        node.disk().slow_down(50);
        node.disk().inject(rule(DiskFault::Stall, When::Chance(1.0)));
        node.disk().heal();
    });
    assert_eq!(healed, healthy);
}

#[test]
fn flushes_that_are_left_out_are_those_asked_for_by_themselves() {
    let [mut lost_by_flush, mut lost_by_write] = [0; 2];
    for seed in 0..100 {
        let (world, node) = world(seed);
        node.disk().ignore_sync_data(true);
        let write = || async {
            let log = open().await;
            log.write_at(blocks(1, 7), 0, Sync::No).await?;
            log.sync_data().await?;
            log.write_at(blocks(1, 7), BLOCK as u64, Sync::Data).await?;
            io::Result::Ok(())
        };
        world.run(&node, LIMIT, write).unwrap().unwrap();
        node.crash();
        let found = read_back(&world, &node);
        lost_by_flush += u32::from(found[0] != 7);
        lost_by_write += u32::from(found[BLOCK] != 7);
    }
    assert!(lost_by_flush > 20 && lost_by_write == 0, "{lost_by_flush} and {lost_by_write} lost");
}

#[test]
fn a_world_may_be_made_with_disks_that_fail() {
    let mut config = WorldConfig::default();
    config.disk.faults =
        vec![FaultRule { fault: DiskFault::FlushError, when: When::Chance(0.5), below: "/".into() }];
    let told = |seed| {
        let world = World::new(seed, config.clone());
        let node = world.node("node", [10, 0, 0, 1]);
        let write = || async { file::write_small(Path::new("/small"), b"x".to_vec()).await.is_ok() };
        (world.run(&node, LIMIT, write).unwrap(), world.trace_hash())
    };
    let written = (0..100).filter(|&seed| told(seed).0).count();
    assert!((10..50).contains(&written), "{written} of 100 small files were written with two flushes each");
    assert_eq!(told(7), told(7));
}
