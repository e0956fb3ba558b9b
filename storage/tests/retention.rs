//! What a log no longer keeps goes, durably and without a hole; its files are taken into use again.

mod common;

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use common::*;
use corrente_protocol::compression::Compression;
use corrente_protocol::ids::Offset;
use corrente_runtime::executor::spawn;
use corrente_runtime::file;
use corrente_runtime::random::random_u64;
use corrente_runtime::sim::{DiskFault, FaultRule, When};
use corrente_runtime::timer::{self, wall_clock_ms};
use corrente_storage::{DeleteRecordsError, Health, Log, LogPolicy, ReadError, StorageConfig};

const SEGMENT: u64 = 64 * 1024;

fn keep_for(retention_ms: u64) -> LogPolicy {
    LogPolicy { delete: true, retention_ms: Some(retention_ms), ..LogPolicy::keep_all(SEGMENT) }
}

/// Appends `count` records of about 1000 bytes, a batch each, at the time it is.
async fn grow(log: &Log, count: u32) {
    for n in 0..count {
        let value = format!("{n:>1000}");
        append_settled(log, &keyed_batch(Compression::None, &[("key", Some(&value), wall_clock_ms())])).await;
    }
}

async fn segments() -> usize {
    names(&log_dir(0), ".seg").await.len()
}

#[test]
fn old_segments_go_and_what_is_left_can_be_read() {
    let (world, node) = world(1);
    run(&world, &node, || async {
        let (opened, log) = open_one(|_| {}).await;
        log.set_policy(keep_for(60_000));
        grow(&log, 200).await;
        timer::sleep(Duration::from_secs(100)).await;
        grow(&log, 200).await;
        let before = segments().await;
        opened.storage.upkeep_now().await;
        let start = log.log_start_offset();
        assert!(start > Offset(100) && start <= Offset(200), "the log starts at {start}");
        assert!(segments().await < before);
        assert!(matches!(log.read(Offset(0), start, 1000).await, Err(ReadError::OutOfRange { .. })));
        assert_eq!(read_seen(&log, start, 5000).await.unwrap().len() as u64, 400 - start.0);
        opened.storage.close().await.unwrap();
    });
    run(&world, &node, || async {
        let (_opened, log) = open_one(|_| {}).await;
        assert!(log.log_start_offset() > Offset(100));
        assert_eq!(log.flushed_offset(), Offset(400));
    });
}

#[test]
fn a_log_without_traffic_ends_up_empty_and_goes_on() {
    let (world, node) = world(2);
    run(&world, &node, || async {
        let (opened, log) = open_one(|_| {}).await;
        log.set_policy(keep_for(60_000));
        grow(&log, 100).await;
        timer::sleep(Duration::from_secs(100)).await;
        opened.storage.upkeep_now().await;
        timer::sleep(Duration::from_secs(1)).await;
        opened.storage.upkeep_now().await;
        assert_eq!((log.log_start_offset(), log.flushed_offset()), (Offset(100), Offset(100)));
        assert_eq!(segments().await, 1);
        grow(&log, 3).await;
        assert_eq!(read_seen(&log, Offset(100), 5000).await.unwrap().len(), 3);
    });
    node.crash();
    run(&world, &node, || async {
        let (_opened, log) = open_one(|_| {}).await;
        assert_eq!((log.log_start_offset(), log.flushed_offset()), (Offset(100), Offset(103)));
    });
}

#[test]
fn a_large_log_keeps_its_newest_part() {
    let (world, node) = world(3);
    run(&world, &node, || async {
        let (opened, log) = open_one(|_| {}).await;
        let kept = 200 * 1024;
        let policy = LogPolicy { delete: true, retention_bytes: Some(kept), ..LogPolicy::keep_all(SEGMENT) };
        log.set_policy(policy);
        grow(&log, 600).await;
        opened.storage.upkeep_now().await;
        assert!(
            log.size_bytes() >= kept && log.size_bytes() < kept + 2 * SEGMENT,
            "{} bytes",
            log.size_bytes()
        );
    });
}

#[test]
fn records_are_deleted_to_the_offset_and_stay_so() {
    let (world, node) = world(4);
    run(&world, &node, || async {
        let (_opened, log) = open_one(|_| {}).await;
        grow(&log, 200).await;
        let before = segments().await;
        assert_eq!(log.delete_records_before(Offset(137)).await.unwrap(), Offset(137));
        assert_eq!(log.delete_records_before(Offset(5)).await.unwrap(), Offset(137));
        assert!(segments().await < before);
        let refused = log.delete_records_before(Offset(201)).await;
        assert!(matches!(refused, Err(DeleteRecordsError::OutOfRange { .. })), "{refused:?}");
        assert_eq!(read_seen(&log, Offset(137), 5000).await.unwrap()[0].offset, 137);
    });
    node.crash();
    run(&world, &node, || async {
        let (_opened, log) = open_one(|_| {}).await;
        assert_eq!(log.log_start_offset(), Offset(137));
        assert!(matches!(log.read(Offset(136), Offset(200), 1).await, Err(ReadError::OutOfRange { .. })));
        log.settle(log.flushed_offset());
        assert_eq!(log.delete_records_before(Offset(200)).await.unwrap(), Offset(200));
        grow(&log, 1).await;
        assert_eq!(read_seen(&log, Offset(200), 1).await.unwrap().len(), 1);
    });
}

#[test]
fn without_checkpoints_the_log_still_starts_where_it_did() {
    let (world, node) = world(5);
    run(&world, &node, || async {
        let (opened, log) = open_one(|_| {}).await;
        grow(&log, 200).await;
        log.delete_records_before(Offset(150)).await.unwrap();
        opened.storage.close().await.unwrap();
        drop(opened);
        file::remove_dir_all(&data_dir().join("checkpoint")).await.unwrap();
    });
    run(&world, &node, || async {
        let (_opened, log) = open_one(|_| {}).await;
        assert_eq!((log.log_start_offset(), log.flushed_offset()), (Offset(150), Offset(200)));
    });
}

#[test]
fn a_power_cut_right_after_removal_leaves_a_sound_log() {
    let (world, node) = world(7);
    run(&world, &node, || async {
        let never = |config: &mut StorageConfig| {
            config.checkpoint_interval = Duration::from_secs(3600);
            config.checkpoint_bytes = u64::MAX;
        };
        let (opened, log) = open_one(never).await;
        grow(&log, 30).await;
        opened.storage.checkpoint_now().await.unwrap();
        grow(&log, 120).await;
        assert_eq!(log.delete_records_before(Offset(140)).await.unwrap(), Offset(140));
    });
    node.crash();
    run(&world, &node, || async {
        let (_opened, log) = open_one(|_| {}).await;
        assert_eq!(log.health(), Health::Sound);
        assert_eq!((log.log_start_offset(), log.flushed_offset()), (Offset(140), Offset(150)));
        assert_eq!(read_seen(&log, Offset(140), 5000).await.unwrap().len(), 10);
    });
}

/// What is known of a log across its lives.
#[derive(Clone, Copy, Default)]
struct Promised {
    /// One past the last offset that was acknowledged.
    end: u64,
    /// Where the log was last said to start, and where it was last asked to.
    start: u64,
    asked: u64,
    /// Files that were put into the pool.
    pooled: usize,
}

/// Every record says where it stands.
fn value_at(offset: u64) -> String {
    let len = 1000 + usize::try_from(offset * 7919 % 29_000).unwrap();
    format!("{offset:>len$}")
}

async fn keep_promises(log: &Log, promised: &Cell<Promised>) {
    let Promised { end, start, asked, .. } = promised.get();
    let (found_start, found_end) = (log.log_start_offset().0, log.flushed_offset().0);
    assert!(found_end >= end, "the log ends at {found_end}, {end} were acknowledged");
    assert!(
        (start..=asked).contains(&found_start),
        "the log starts at {found_start}, not in {start} to {asked}"
    );
    let seen = read_seen(log, log.log_start_offset(), 200_000).await.expect("sound");
    assert_eq!(seen.len() as u64, found_end - found_start);
    for (offset, record) in (found_start..).zip(seen) {
        assert_eq!((record.offset, record.value), (offset, Some(value_at(offset))));
    }
    promised.set(Promised { end: found_end, start: found_start, asked: found_start, ..promised.get() });
}

async fn live_and_delete(promised: Rc<Cell<Promised>>) {
    // A file is worth keeping from 1 MiB on.
    let (_opened, log) = open_one(|config| config.segment_bytes = 1 << 20).await;
    keep_promises(&log, &promised).await;
    loop {
        let value = value_at(log.log_end_offset().0);
        let record = [("key", Some(value.as_str()), wall_clock_ms())];
        append_settled(&log, &keyed_batch(Compression::None, &record)).await;
        promised.set(Promised { end: log.flushed_offset().0, ..promised.get() });
        if random_u64().is_multiple_of(32) {
            let start = log.log_start_offset().0;
            let asked = start + random_u64() % (log.flushed_offset().0 - start + 1);
            promised.set(Promised { asked, ..promised.get() });
            let start = log.delete_records_before(Offset(asked)).await.expect("deleted").0;
            let pooled = match file::read_dir(Path::new("/data/pool")).await {
                Ok(files) => files.len(),
                Err(_) => 0,
            };
            let before = promised.get();
            promised.set(Promised { start, pooled: before.pooled.max(pooled), ..before });
        }
    }
}

#[test]
fn a_power_cut_at_any_step_leaves_no_hole() {
    let mut pooled = 0;
    for seed in 0..30 {
        let (world, node) = world(2000 + seed);
        let promised = Rc::new(Cell::new(Promised::default()));
        for life in 0..5_u64 {
            let promised = promised.clone();
            node.spawn(move || live_and_delete(promised)).detach();
            world.run_for(Duration::from_micros(20_000 + (seed * 7919 + life * 104_729) % 250_000));
            node.crash();
        }
        let last = promised.clone();
        run(&world, &node, || async move {
            let (_opened, log) = open_one(|config| config.segment_bytes = 1 << 20).await;
            keep_promises(&log, &last).await;
        });
        pooled += promised.get().pooled;
    }
    assert!(pooled > 10, "only {pooled} files were kept to be taken into use again");
}

#[test]
fn a_reader_whose_records_are_removed_meanwhile_is_told() {
    let (world, node) = world(8);
    let first = log_dir(0).join("00000000000000000000.seg");
    run(&world, &node, || async {
        let (opened, log) = open_one(|_| {}).await;
        grow(&log, 200).await;
        opened.storage.close().await.unwrap();
    });
    // The start opens it, asks for its length, reads its header and closes it; the reader opens it, and then takes
    // seconds to read.
    node.disk().inject(FaultRule { fault: DiskFault::Stall, when: When::Nth(6), below: first });
    run(&world, &node, || async {
        let (_opened, log) = open_one(|_| {}).await;
        log.settle(log.flushed_offset());
        let reader = log.clone();
        let reading = spawn(async move { reader.read(Offset(3), Offset(200), 100_000).await });
        timer::sleep(Duration::from_millis(200)).await;
        assert_eq!(log.delete_records_before(Offset(150)).await.unwrap(), Offset(150));
        let read = reading.await.map(|batches| batches.len());
        assert!(matches!(read, Err(ReadError::OutOfRange { asked: Offset(3), .. })), "{read:?}");
    });
    assert_eq!(node.disk().counters().stalls, 1);
}

/// Appends `count` records of 20 000 bytes.
async fn grow_by_large(log: &Log, count: usize) {
    let value = format!("{:>20000}", "large");
    for _ in 0..count {
        append_settled(log, &keyed_batch(Compression::None, &[("key", Some(&value), 0)])).await;
    }
}

#[test]
fn a_power_cut_gives_no_log_back_what_another_one_took_into_use() {
    let large = |config: &mut StorageConfig| config.segment_bytes = 2 << 20;
    for seed in 0..20 {
        let (world, node) = world(3000 + seed);
        run(&world, &node, move || async move {
            let (opened, log) = open_one(large).await;
            let other = opened.storage.create_log(log_id(1), 0).await.unwrap();
            for log in [&log, &other] {
                log.set_policy(LogPolicy::keep_all(2 << 20));
            }
            grow_by_large(&log, 250).await;
            opened.storage.checkpoint_now().await.unwrap();
            log.delete_records_before(log.flushed_offset()).await.unwrap();
            // Through the end of its first segment, into one that was the log's.
            grow_by_large(&other, 120).await;
        });
        node.crash();
        run(&world, &node, move || async move {
            let opened = open(large).await;
            let ends: Vec<u64> = opened.logs.iter().map(|log| log.flushed_offset().0).collect();
            assert_eq!(ends, [250, 120], "seed {seed}");
            let other = &opened.logs[1];
            assert_eq!(read_seen(other, Offset(0), 100_000).await.unwrap().len(), 120, "seed {seed}");
        });
    }
}

#[test]
fn a_removed_segment_is_taken_into_use_again() {
    let (world, node) = world(6);
    // A file is worth keeping from 1 MiB on.
    let large = |config: &mut StorageConfig| config.segment_bytes = 2 << 20;
    run(&world, &node, move || async move {
        let (opened, log) = open_one(large).await;
        log.set_policy(LogPolicy { segment_bytes: 2 << 20, ..keep_for(60_000) });
        grow(&log, 4200).await;
        assert_eq!(segments().await, 3);
        timer::sleep(Duration::from_secs(100)).await;
        opened.storage.upkeep_now().await;
        let pooled = || async { file::read_dir(Path::new("/data/pool")).await.unwrap().len() };
        assert_eq!(pooled().await, 2);
        let start = log.log_start_offset();
        grow(&log, 2500).await;
        assert_eq!(pooled().await, 1);
        assert_eq!(read_seen(&log, start, 100_000).await.unwrap().len() as u64, 6700 - start.0);
    });
    // What the file held before lies behind the end of the log now, and is never taken for its own.
    node.crash();
    run(&world, &node, move || async move {
        let (_opened, log) = open_one(large).await;
        assert_eq!(log.flushed_offset(), Offset(6700));
        grow(&log, 10).await;
        let start = log.log_start_offset();
        assert_eq!(read_seen(&log, start, 100_000).await.unwrap().len() as u64, 6710 - start.0);
        assert!(
            !file::exists(Path::new("/data/pool")).await.unwrap()
                || file::read_dir(Path::new("/data/pool")).await.unwrap().is_empty()
        );
    });
}
