//! The latest value of each key stays, at its offset, whatever happens while the rest goes.

mod common;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use common::*;
use corrente_protocol::compression::Compression;
use corrente_protocol::ids::Offset;
use corrente_runtime::executor::spawn;
use corrente_runtime::random::random_u64;
use corrente_runtime::timer::{self, wall_clock_ms};
use corrente_storage::{CompactionPolicy, Log, LogPolicy, ReadError, StorageConfig};

const EAGER: CompactionPolicy =
    CompactionPolicy { min_lag_ms: 0, max_lag_ms: u64::MAX, delete_retention_ms: 60_000, dirty_ratio_ppm: 0 };

fn compacted() -> LogPolicy {
    LogPolicy { compaction: Some(EAGER), ..LogPolicy::keep_all(64 * 1024) }
}

/// Everything that was ever appended to a log, in order.
type Appends = Vec<Seen>;

fn codec() -> Compression {
    match random_u64() % 3 {
        0 => Compression::Lz4,
        1 => Compression::Zstd,
        _ => Compression::None,
    }
}

/// A batch of some records over a few keys; one in five deletes its key.
fn draw(keys: u64) -> Vec<(String, Option<String>)> {
    let record = |_| {
        let key = format!("key-{}", random_u64() % keys);
        let len = usize::try_from(random_u64() % 900).unwrap();
        let value = (!random_u64().is_multiple_of(5)).then(|| format!("{:>len$}", random_u64()));
        (key, value)
    };
    (0..1 + random_u64() % 5).map(record).collect()
}

async fn append_drawn(log: &Log, keys: u64) -> Appends {
    let drawn = draw(keys);
    let now_ms = wall_clock_ms();
    let records: Vec<_> = drawn.iter().map(|(key, value)| (key.as_str(), value.as_deref(), now_ms)).collect();
    let appended = append_settled(log, &keyed_batch(codec(), &records)).await;
    let seen = (appended.base_offset.0..).zip(drawn);
    seen.map(|(offset, (key, value))| Seen { offset, timestamp_ms: now_ms, key, value }).collect()
}

/// Whatever was read is as it was appended, in order, and nothing is missing that is not superseded, or a tombstone.
fn check(read: &[Seen], appended: &Appends, from: u64) {
    let by_offset: BTreeMap<u64, &Seen> = appended.iter().map(|record| (record.offset, record)).collect();
    let mut last: BTreeMap<&str, &Seen> = BTreeMap::new();
    for record in appended {
        last.insert(&record.key, record);
    }
    assert!(read.windows(2).all(|pair| pair[0].offset < pair[1].offset), "offsets out of order");
    for record in read {
        assert_eq!(by_offset.get(&record.offset), Some(&record), "offset {}", record.offset);
    }
    let found: BTreeMap<u64, &Seen> = read.iter().map(|record| (record.offset, record)).collect();
    for latest in last.values().filter(|latest| latest.value.is_some() && latest.offset >= from) {
        assert!(
            found.contains_key(&latest.offset),
            "the latest value of {} at {} is gone",
            latest.key,
            latest.offset
        );
    }
}

async fn check_everywhere(log: &Log, appended: &Appends) {
    let end = log.flushed_offset().0;
    let appended: Appends = appended.iter().filter(|record| record.offset < end).cloned().collect();
    for from in (0..end).step_by(usize::try_from(end / 4 + 1).unwrap()) {
        let max_bytes = 1 + usize::try_from(random_u64() % 50_000).unwrap();
        check(&read_seen(log, Offset(from), max_bytes).await.expect("sound"), &appended, from);
    }
}

#[test]
fn what_is_superseded_goes_and_the_rest_stays_at_its_offset() {
    for seed in 0..6 {
        let (world, node) = world(seed);
        run(&world, &node, move || async move {
            // The second half has so little memory that its keys are taken in parts.
            let change = move |config: &mut StorageConfig| {
                config.compaction_bytes = if seed < 3 { 1 << 20 } else { 64 * 16 };
            };
            let (opened, log) = open_one(change).await;
            log.set_policy(compacted());
            let mut appended = Vec::new();
            for _ in 0..3 {
                for _ in 0..200 {
                    appended.extend(append_drawn(&log, 60).await);
                }
                let before = log.size_bytes();
                opened.storage.upkeep_now().await;
                assert_eq!(opened.storage.upkeep_done().failures, 0);
                assert!(log.size_bytes() < before * 3 / 4, "{} of {before} bytes are left", log.size_bytes());
                check_everywhere(&log, &appended).await;
            }
            let done = opened.storage.upkeep_done();
            opened.storage.upkeep_now().await;
            assert_eq!(opened.storage.upkeep_done(), done, "a clean log was compacted again");
            opened.storage.close().await.unwrap();
            drop((opened, log));
            let (_opened, log) = open_one(change).await;
            check_everywhere(&log, &appended).await;
        });
    }
}

#[test]
fn a_tombstone_stays_for_its_time_and_goes_after_it() {
    let (world, node) = world(9);
    run(&world, &node, || async {
        let (opened, log) = open_one(|_| {}).await;
        log.set_policy(compacted());
        let put = |key: &'static str, value: Option<&'static str>| {
            keyed_batch(Compression::None, &[(key, value, wall_clock_ms())])
        };
        append_settled(&log, &put("gone", Some("1"))).await;
        append_settled(&log, &put("gone", None)).await;
        append_settled(&log, &put("kept", Some("2"))).await;
        let fill = || async {
            for _ in 0..100 {
                let filler = format!("{:>1000}", 7);
                append_settled(
                    &log,
                    &keyed_batch(Compression::None, &[("filler", Some(&filler), wall_clock_ms())]),
                )
                .await;
            }
            opened.storage.upkeep_now().await;
        };
        let offsets_of = |key: &'static str| {
            let log = log.clone();
            async move {
                let seen = read_seen(&log, Offset(0), 5000).await.unwrap();
                seen.into_iter()
                    .filter(|record| record.key == key)
                    .map(|record| record.offset)
                    .collect::<Vec<_>>()
            }
        };
        fill().await;
        assert_eq!((offsets_of("gone").await, offsets_of("kept").await), (vec![1], vec![2]));
        timer::sleep(Duration::from_secs(50)).await;
        fill().await;
        assert_eq!(offsets_of("gone").await, [1]);
        timer::sleep(Duration::from_secs(20)).await;
        fill().await;
        assert_eq!((offsets_of("gone").await, offsets_of("kept").await), (vec![], vec![2]));
    });
}

/// Keys are taken in parts, and a stop comes between two of them: the tombstone's horizon, stamped by then, passes
/// before the part that its key is in has its turn.
#[test]
fn a_deleted_key_never_comes_back() {
    let mut interrupted = 0;
    for seed in 0..24 {
        let (world, node) = world(500 + seed);
        let little = |config: &mut StorageConfig| config.compaction_bytes = 104 * 8;
        run(&world, &node, move || async move {
            let (opened, log) = open_one(little).await;
            for n in 0..20 {
                let key = format!("key-{n}");
                append_settled(
                    &log,
                    &keyed_batch(Compression::None, &[(&key, Some("old"), wall_clock_ms())]),
                )
                .await;
                append_settled(&log, &keyed_batch(Compression::None, &[(&key, None, wall_clock_ms())])).await;
            }
            for _ in 0..80 {
                let filler = format!("{:>1000}", 7);
                append_settled(
                    &log,
                    &keyed_batch(Compression::None, &[("filler", Some(&filler), wall_clock_ms())]),
                )
                .await;
            }
            opened.storage.close().await.unwrap();
        });
        node.spawn(move || async move {
            let (opened, log) = open_one(little).await;
            log.set_policy(compacted());
            log.settle(log.flushed_offset());
            opened.storage.upkeep_now().await;
            timer::sleep(Duration::from_secs(1)).await;
        })
        .detach();
        world.run_for(Duration::from_micros(8_000 + seed * 1_500));
        node.crash();
        interrupted += run(&world, &node, move || async move {
            timer::sleep(Duration::from_secs(120)).await;
            let (opened, log) = open_one(little).await;
            let stamped = tombstones(&log).await > 0;
            log.set_policy(compacted());
            log.settle(log.flushed_offset());
            opened.storage.upkeep_now().await;
            timer::sleep(Duration::from_secs(120)).await;
            opened.storage.upkeep_now().await;
            let mut last: BTreeMap<String, Seen> = BTreeMap::new();
            for record in read_seen(&log, Offset(0), 5000).await.unwrap() {
                last.insert(record.key.clone(), record);
            }
            last.remove("filler");
            assert!(last.values().all(|record| record.value.is_none()), "came back: {last:?}");
            u32::from(stamped)
        });
    }
    assert!(interrupted > 3, "only {interrupted} compactions were interrupted between two parts");
}

/// Tombstones whose batch says until when they stay.
async fn tombstones(log: &Log) -> usize {
    let chunks = log.read(Offset(0), log.flushed_offset(), 1 << 20).await.unwrap();
    let batches = chunks.into_iter().flat_map(corrente_protocol::record_batch::RecordBatches::new);
    batches.map(|batch| batch.unwrap()).filter(|batch| batch.header().delete_horizon_ms().is_some()).count()
}

#[test]
fn a_young_part_is_left_alone_and_an_old_one_does_not_wait() {
    let (world, node) = world(10);
    run(&world, &node, || async {
        let (opened, log) = open_one(|_| {}).await;
        let lazy =
            CompactionPolicy { min_lag_ms: 60_000, max_lag_ms: 300_000, dirty_ratio_ppm: 1_000_000, ..EAGER };
        log.set_policy(LogPolicy { compaction: Some(lazy), ..compacted() });
        for _ in 0..100 {
            append_drawn(&log, 5).await;
        }
        let before = log.size_bytes();
        opened.storage.upkeep_now().await;
        assert_eq!(log.size_bytes(), before, "compacted too soon");
        timer::sleep(Duration::from_secs(370)).await;
        opened.storage.upkeep_now().await;
        timer::sleep(Duration::from_secs(1)).await;
        opened.storage.upkeep_now().await;
        assert!(log.size_bytes() < before / 2, "{} of {before} bytes are left", log.size_bytes());
    });
}

/// What is known of a log across its lives: what was acknowledged, and what may be there besides.
#[derive(Clone, Default)]
struct Known {
    /// One past the last offset that was acknowledged.
    acknowledged: u64,
    handed_over: Appends,
}

#[test]
fn a_crash_at_any_step_leaves_the_latest_values() {
    let mut compactions = 0;
    for seed in 0..40 {
        let (world, node) = world(1000 + seed);
        let known = Rc::new(RefCell::new(Known::default()));
        for life in 0..4_u64 {
            let known = known.clone();
            let done = Rc::new(RefCell::new(0));
            let counted = done.clone();
            node.spawn(move || live(known, counted)).detach();
            world.run_for(Duration::from_micros(30_000 + (seed * 7919 + life * 104_729) % 200_000));
            compactions += *done.borrow();
            node.crash();
        }
        let known = known.clone();
        run(&world, &node, || async move {
            let (_opened, log) = open_one(|_| {}).await;
            check_life(&log, &known).await;
        });
    }
    assert!(compactions > 40, "only {compactions} compactions took place");
}

async fn check_life(log: &Log, known: &RefCell<Known>) {
    let end = log.flushed_offset().0;
    let sure = known.borrow().acknowledged;
    assert!(end >= sure, "the log ends at {end}, {sure} were acknowledged");
    known.borrow_mut().handed_over.retain(|record| record.offset < end);
    let handed_over = known.borrow().handed_over.clone();
    check_everywhere(log, &handed_over).await;
    known.borrow_mut().acknowledged = end;
}

async fn live(known: Rc<RefCell<Known>>, compactions: Rc<RefCell<u64>>) {
    let (opened, log) = open_one(|config| config.pool_bytes_max = 0).await;
    log.set_policy(compacted());
    check_life(&log, &known).await;
    let storage = opened.storage.clone();
    spawn(async move {
        loop {
            let before = storage.upkeep_done();
            storage.upkeep_now().await;
            *compactions.borrow_mut() += u64::from(storage.upkeep_done() != before);
            assert_eq!(storage.upkeep_done().failures, 0);
            timer::sleep(Duration::from_micros(random_u64() % 20_000)).await;
        }
    })
    .detach();
    loop {
        let drawn = draw(20);
        let now_ms = wall_clock_ms();
        let records: Vec<_> =
            drawn.iter().map(|(key, value)| (key.as_str(), value.as_deref(), now_ms)).collect();
        let appended = append_bytes(&log, EPOCH, &keyed_batch(codec(), &records)).await.expect("appended");
        let seen = (appended.base_offset.0..).zip(drawn);
        let seen = seen.map(|(offset, (key, value))| Seen { offset, timestamp_ms: now_ms, key, value });
        known.borrow_mut().handed_over.extend(seen);
        if random_u64().is_multiple_of(3) {
            log.flushed_past(Offset(appended.end_offset.0 - 1)).await.expect("flushed");
            log.settle(log.flushed_offset());
            known.borrow_mut().acknowledged = log.flushed_offset().0;
            timer::sleep(Duration::from_micros(random_u64() % 3_000)).await;
        }
    }
}

#[test]
fn what_has_rotted_is_not_compacted_away() {
    let (world, node) = world(11);
    run(&world, &node, || async {
        let (opened, log) = open_one(|config| config.tail_ring_bytes = 1).await;
        let mut appended = Vec::new();
        for _ in 0..300 {
            appended.extend(append_drawn(&log, 60).await);
        }
        let segments = names(&log_dir(0), ".seg").await;
        rot(&log_dir(0).join(&segments[1]), 20_000).await;
        log.set_policy(compacted());
        opened.storage.upkeep_now().await;
        assert_eq!(opened.storage.upkeep_done().failures, 1, "the rot was passed over");
        assert!(names(&log_dir(0), ".seg").await.contains(&segments[1]), "the segment is gone");
        assert!(names(&log_dir(0), ".new").await.is_empty(), "a segment was left unfinished");
        let second: u64 = segments[1].trim_end_matches(".seg").parse().unwrap();
        let third: u64 = segments[2].trim_end_matches(".seg").parse().unwrap();
        let refused = read_seen(&log, Offset(second), 50_000).await;
        assert!(matches!(refused, Err(ReadError::Damaged { .. })), "{:?}", refused.map(|seen| seen.len()));
        check(&read_seen(&log, Offset(third), 50_000).await.expect("sound"), &appended, third);
    });
}
