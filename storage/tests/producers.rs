//! Batches of idempotent producers stand in the log once, whatever becomes of the broker in between.

mod common;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use common::{
    EPOCH, Opened, append_bytes, data_dir, log_id, names, open, open_as_it_is, open_one, read_seen, rot, run,
    small, world,
};
use corrente_protocol::compression::Compression;
use corrente_protocol::ids::Offset;
use corrente_protocol::record_batch::{BatchSequence, RecordBatchBuilder};
use corrente_runtime::file;
use corrente_runtime::sim::{DiskFault, FaultRule, When, World, WorldConfig};
use corrente_runtime::timer;
use corrente_storage::{AppendError, Appended, CompactionPolicy, Log, LogPolicy, SequenceRefusal};

/// The batch number `nth` of a producer whose batches have ten records each, of 100 bytes.
fn batch_of(producer_id: i64, nth: i32) -> Bytes {
    let mut builder = RecordBatchBuilder::new(Compression::None);
    for n in 0..10 {
        let key = format!("{producer_id}-{}", n % 2);
        builder.push(1_790_000_000_000, Some(key.as_bytes()), Some(&[7; 100]), &[]).expect("small");
    }
    builder.finish().seal(BatchSequence { producer_id, producer_epoch: 0, base_sequence: nth * 10 })
}

async fn try_send(log: &Log, producer_id: i64, nth: i32) -> Result<Appended, AppendError> {
    append_bytes(log, EPOCH, &batch_of(producer_id, nth)).await
}

/// Sends a batch and waits for its flush; the offset it stands at.
async fn send(log: &Log, producer_id: i64, nth: i32) -> u64 {
    let appended = try_send(log, producer_id, nth).await.expect("appended");
    log.flushed_past(Offset(appended.end_offset.0 - 1)).await.expect("flushed");
    appended.base_offset.0
}

fn refused(expected: i32, given: i32) -> Result<Appended, AppendError> {
    Err(SequenceRefusal::OutOfOrder { producer_id: 1, epoch: 0, expected, given }.into())
}

/// What three lives of the log have sent: 60 batches of one producer, mixed with those of another.
async fn send_sixty(log: &Log) {
    for nth in 0..60 {
        assert_eq!(send(log, 1, nth).await, u64::try_from(nth).unwrap() * 20);
        send(log, 2, nth).await;
    }
}

/// The last five are told, the sixth is not, and the next one goes on.
async fn expect_sixty(log: &Log) {
    for nth in 55..60 {
        assert_eq!(send(log, 1, nth).await, u64::try_from(nth).unwrap() * 20, "batch {nth}");
    }
    assert_eq!(try_send(log, 1, 54).await, refused(600, 540));
    assert_eq!(try_send(log, 1, 61).await, refused(600, 610));
    assert_eq!(log.log_end_offset(), Offset(1200));
}

#[test]
fn after_a_stop() {
    let (world, node) = world(1);
    run(&world, &node, || async {
        let (opened, log) = open_one(|_| {}).await;
        send_sixty(&log).await;
        opened.storage.close().await.expect("closed");
    });
    run(&world, &node, || async {
        let (_opened, log) = open_one(|_| {}).await;
        expect_sixty(&log).await;
        assert_eq!(send(&log, 1, 60).await, 1200);
    });
}

#[test]
fn after_a_power_cut_with_and_without_a_file_written_in_between() {
    for checkpoint_bytes in [16 * 1024, 64 * 1024, 1 << 40] {
        let (world, node) = world(checkpoint_bytes);
        run(&world, &node, move || async move {
            let (_opened, log) = open_one(|config| config.checkpoint_bytes = checkpoint_bytes).await;
            send_sixty(&log).await;
            timer::sleep(Duration::from_secs(1)).await;
        });
        node.crash();
        // The same again: what was made anew is written and found as well.
        for _ in 0..2 {
            run(&world, &node, || async {
                let (_opened, log) = open_one(|_| {}).await;
                expect_sixty(&log).await;
            });
            node.crash();
        }
    }
}

/// Power cuts and kills at any moment: what was acknowledged stands once, and what was not is appended once.
#[test]
fn whenever_the_broker_dies() {
    let mut appended = 0;
    for seed in 0..300_u64 {
        let mut config = WorldConfig::default();
        config.crash.keep_chance = Some(0.5);
        let world = World::new(seed, config);
        let node = world.node("north", [10, 0, 0, 1]);
        let sends_on = || async {
            let (_opened, log) = open_one(|config| config.checkpoint_bytes = 20_000).await;
            // A producer has up to five batches under way, and sends those again that were not acknowledged.
            let acknowledged = i32::try_from(log.flushed_offset().0 / 10).unwrap();
            let mut nth = (acknowledged - 3).max(0);
            loop {
                let mut last = None;
                for under_way in 0..5 {
                    last = try_send(&log, 1, nth + under_way).await.ok();
                }
                let Some(last) = last else { return };
                let Ok(_) = log.flushed_past(Offset(last.end_offset.0 - 1)).await else { return };
                nth += 5;
            }
        };
        for life in 0..4 {
            node.spawn(sends_on).detach();
            world.run_for(Duration::from_micros(2_000 + (seed * 7919 + life * 104_729) % 30_000));
            if (seed + life).is_multiple_of(3) { node.kill() } else { node.crash() }
        }
        let (sequences, ends) = run(&world, &node, || async {
            let (_opened, log) = open_one(|_| {}).await;
            let end = log.flushed_offset();
            let mut sequences = Vec::new();
            let mut next = log.log_start_offset();
            while next < end {
                for chunk in log.read(next, end, 1 << 20).await.expect("readable") {
                    for header in corrente_protocol::record_batch::headers(&chunk) {
                        let (_, header) = header.expect("a batch");
                        sequences.push(header.base_sequence);
                        next = header.end_offset();
                    }
                }
            }
            (sequences, end.0)
        });
        let expected: Vec<i32> = (0..i32::try_from(ends / 10).unwrap()).map(|nth| nth * 10).collect();
        assert_eq!(sequences, expected, "seed {seed}");
        appended += sequences.len();
    }
    assert!(appended > 30_000, "only {appended} batches in 300 histories");
}

#[test]
fn a_batch_that_the_power_took_is_no_duplicate() {
    for seed in 0..100 {
        let mut config = WorldConfig::default();
        config.crash.keep_chance = Some(0.0);
        let world = World::new(seed, config);
        let node = world.node("north", [10, 0, 0, 1]);
        run(&world, &node, || async {
            let (_opened, log) = open_one(|config| config.checkpoint_bytes = 1).await;
            send(&log, 1, 0).await;
        });
        node.kill();
        node.spawn(|| async {
            let (_opened, log) = open_one(|config| config.checkpoint_bytes = 1).await;
            for nth in 1..200 {
                if try_send(&log, 1, nth).await.is_err() {
                    return;
                }
                timer::sleep(Duration::from_micros(20)).await;
            }
        })
        .detach();
        world.run_for(Duration::from_micros(1_000 + seed * 50));
        node.crash();
        run(&world, &node, || async {
            let (_opened, log) = open_one(|_| {}).await;
            let end = log.flushed_offset();
            let nth = i32::try_from(end.0 / 10).unwrap();
            assert_eq!(send(&log, 1, nth).await, end.0, "it is new");
        });
    }
}

async fn producers_file() -> PathBuf {
    let dir = data_dir().join("checkpoint");
    let files = names(&dir, ".producers").await;
    assert_eq!(files.len(), 1, "{files:?}");
    dir.join(&files[0])
}

#[test]
fn without_the_file_the_log_says_it_all() {
    for is_rotten in [true, false] {
        let (world, node) = world(3);
        run(&world, &node, || async {
            let (opened, log) = open_one(|_| {}).await;
            send_sixty(&log).await;
            opened.storage.close().await.expect("closed");
        });
        run(&world, &node, move || async move {
            let path = producers_file().await;
            if is_rotten {
                let bytes = file::read_small(&path, 1 << 20).await.expect("there");
                let flipped = bytes.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 40)).collect();
                file::write_small(&path, flipped).await.expect("written");
            } else {
                file::remove_file(&path).await.expect("removed");
            }
        });
        run(&world, &node, || async {
            let (_opened, log) = open_one(|_| {}).await;
            expect_sixty(&log).await;
        });
    }
}

fn rarely(config: &mut corrente_storage::StorageConfig) {
    config.checkpoint_bytes = 1 << 40;
}

/// Sixty batches of the first producer, then others, then what `take` takes of the log, then a power cut.
fn remembers_what_goes<F: Future<Output = ()> + 'static>(take: fn(Opened, Log) -> F) {
    let (world, node) = world(4);
    run(&world, &node, move || async move {
        let (opened, log) = open_one(rarely).await;
        send_sixty(&log).await;
        for nth in 0..60 {
            send(&log, 3, nth).await;
        }
        log.settle(log.flushed_offset());
        take(opened, log).await;
    });
    node.crash();
    run(&world, &node, move || async move {
        let (_opened, log) = open_one(rarely).await;
        for nth in 55..60 {
            assert_eq!(send(&log, 1, nth).await, u64::try_from(nth).unwrap() * 20, "batch {nth}");
        }
        assert_eq!(try_send(&log, 1, 61).await, refused(600, 610));
    });
}

#[test]
fn what_retention_takes_is_remembered() {
    remembers_what_goes(|opened, log| async move {
        log.set_policy(LogPolicy::keep_all(16 * 1024));
        log.delete_records_before(Offset(1600)).await.expect("deleted");
        timer::sleep(Duration::from_secs(1)).await;
        drop(opened);
    });
}

#[test]
fn what_compaction_takes_is_remembered() {
    remembers_what_goes(|opened, log| async move {
        let compaction = CompactionPolicy {
            min_lag_ms: 0,
            max_lag_ms: u64::MAX,
            delete_retention_ms: 0,
            dirty_ratio_ppm: 0,
        };
        log.set_policy(LogPolicy { compaction: Some(compaction), ..LogPolicy::keep_all(32 * 1024) });
        opened.storage.upkeep_now().await;
        let kept = read_seen(&log, log.log_start_offset(), 1 << 20).await.expect("readable");
        assert!(kept.len() < 1200, "{} records are left", kept.len());
        timer::sleep(Duration::from_secs(1)).await;
    });
}

#[test]
fn a_log_that_was_deleted_and_one_in_quarantine_leave_no_confusion() {
    let (world, node) = world(5);
    run(&world, &node, || async {
        let (opened, log) = open_one(|_| {}).await;
        send_sixty(&log).await;
        let other = opened.storage.create_log(log_id(1), 0).await.expect("made");
        send(&other, 1, 0).await;
        opened.storage.delete_log(log_id(1)).await.expect("deleted");
        let again = opened.storage.create_log(log_id(1), 0).await.expect("made");
        assert_eq!(send(&again, 1, 7).await, 0, "of the log before nothing is known");
        opened.storage.close().await.expect("closed");
    });
    // A start with the log damaged carries what was written of it to the next file.
    run(&world, &node, || async {
        let dir = common::log_dir(0);
        let mut segments = names(&dir, ".seg").await;
        segments.sort();
        let last = dir.join(segments.last().expect("one"));
        let sound = file::read_small(&last, 1 << 22).await.expect("there");
        rot(&last, 100).await;
        let opened = open_as_it_is(|_| {}).await;
        opened.storage.close().await.expect("closed");
        drop(opened);
        file::write_small(&last, sound).await.expect("mended");
    });
    run(&world, &node, || async {
        let Opened { logs, storage: _storage, layout: _layout } = open(small).await;
        expect_sixty(&logs[0]).await;
        assert_eq!(send(&logs[1], 1, 7).await, 0);
    });
}

/// The file only spares reading: nothing fails for want of it, and what an older one says holds on.
#[test]
fn a_start_and_a_stop_do_without_the_file_if_the_disk_refuses_it() {
    let (world, node) = world(6);
    run(&world, &node, || async {
        let (opened, log) = open_one(|_| {}).await;
        send_sixty(&log).await;
        opened.storage.close().await.expect("closed");
    });
    let below = data_dir().join("checkpoint/0000000002-shard-0000.producers.tmp");
    for fault in [DiskFault::WriteError, DiskFault::FlushError] {
        node.disk().inject(FaultRule { fault, when: When::Chance(1.0), below: below.clone() });
    }
    run(&world, &node, || async {
        let (opened, log) = open_one(|_| {}).await;
        assert!(producers_file().await.ends_with("0000000001-shard-0000.producers"), "it was kept");
        expect_sixty(&log).await;
        opened.storage.close().await.expect("closed");
    });
    run(&world, &node, || async {
        let (_opened, log) = open_one(|_| {}).await;
        assert!(producers_file().await.ends_with("0000000003-shard-0000.producers"), "it was replaced");
        expect_sixty(&log).await;
    });
}

#[test]
fn a_start_does_without_a_file_that_cannot_be_read() {
    let (world, node) = world(8);
    run(&world, &node, || async {
        let (opened, log) = open_one(|_| {}).await;
        send_sixty(&log).await;
        opened.storage.close().await.expect("closed");
    });
    let below = data_dir().join("checkpoint/0000000001-shard-0000.producers");
    node.disk().inject(FaultRule { fault: DiskFault::ReadError, when: When::Chance(1.0), below });
    run(&world, &node, || async {
        let (_opened, log) = open_one(|_| {}).await;
        expect_sixty(&log).await;
    });
}

/// A fenced log gives no state to be written, and its records may be deleted all the same.
#[test]
fn a_producer_whose_last_batches_went_unnoticed_goes_on() {
    let (world, node) = world(7);
    run(&world, &node, || async {
        let (opened, log) = open_one(|_| {}).await;
        for nth in 0..3 {
            send(&log, 1, nth).await;
        }
        opened.storage.close().await.expect("closed");
    });
    // A flush fails once the first producer has sent everything.
    let below = common::log_dir(0);
    node.disk().inject(FaultRule { fault: DiskFault::FlushError, when: When::Nth(100), below });
    run(&world, &node, || async {
        let (_opened, log) = open_one(rarely).await;
        for nth in 3..60 {
            send(&log, 1, nth).await;
        }
        let mut nth = 0;
        while let Ok(appended) = try_send(&log, 2, nth).await {
            let _ = log.flushed_past(appended.base_offset).await;
            nth += 1;
        }
        assert!(nth > 10, "fenced after {nth} batches");
        log.settle(log.flushed_offset());
        log.delete_records_before(log.flushed_offset()).await.expect("deleted");
    });
    node.kill();
    run(&world, &node, || async {
        let (_opened, log) = open_one(rarely).await;
        let end = log.log_end_offset().0;
        assert_eq!(send(&log, 1, 60).await, end, "of batches 3 to 59 nobody knows any more");
    });
}
