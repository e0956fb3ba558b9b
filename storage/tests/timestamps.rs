//! Records are found by timestamp, whatever order those come in, in every part of a log.

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use common::*;
use corrente_protocol::compression::Compression;
use corrente_protocol::ids::Offset;
use corrente_runtime::executor::spawn;
use corrente_runtime::random::random_u64;
use corrente_runtime::timer::sleep;
use corrente_storage::{CompactionPolicy, Log, LogPolicy, ReadError};

/// What `offset_for_timestamp` and `offset_of_max_timestamp` should say of these records.
fn expected(records: &[Seen], at_ms: i64) -> Option<(u64, i64)> {
    records
        .iter()
        .find(|record| record.timestamp_ms >= at_ms)
        .map(|record| (record.offset, record.timestamp_ms))
}

fn expected_latest(records: &[Seen]) -> Option<(u64, i64)> {
    let latest = records.iter().map(|record| record.timestamp_ms).max()?;
    expected(records, latest)
}

async fn found(log: &Log, at_ms: i64, up_to: Offset) -> Option<(u64, i64)> {
    let found = log.offset_for_timestamp(at_ms, up_to).await.expect("sound");
    found.map(|found| (found.offset.0, found.timestamp_ms))
}

async fn found_latest(log: &Log, up_to: Offset) -> Option<(u64, i64)> {
    let found = log.offset_of_max_timestamp(up_to).await.expect("sound");
    found.map(|found| (found.offset.0, found.timestamp_ms))
}

async fn check(log: &Log, up_to: Offset) {
    let records = read_seen(log, log.log_start_offset(), 30_000).await.expect("sound");
    let readable: Vec<Seen> = records.into_iter().filter(|record| record.offset < up_to.0).collect();
    assert_eq!(found_latest(log, up_to).await, expected_latest(&readable));
    for at_ms in (0..1100).step_by(37) {
        assert_eq!(found(log, at_ms, up_to).await, expected(&readable, at_ms), "at {at_ms}");
    }
}

#[test]
fn records_are_found_in_any_order_and_part() {
    for seed in 0..8 {
        let (world, node) = world(seed);
        run(&world, &node, move || async move {
            let (opened, log) = open_one(|_| {}).await;
            assert_eq!((found(&log, 0, Offset(0)).await, found_latest(&log, Offset(0)).await), (None, None));
            let codecs = [Compression::None, Compression::Lz4, Compression::Zstd];
            for n in 0..300_u64 {
                let value = format!("{:>1$}", n, usize::try_from(random_u64() % 3000).unwrap());
                // Half of the logs are nearly in order.
                let base = if seed % 2 == 0 { n * 3 } else { random_u64() % 900 };
                let stamps: Vec<i64> = (0..1 + random_u64() % 4)
                    .map(|_| i64::try_from(base + random_u64() % 100).unwrap())
                    .collect();
                let records: Vec<_> = stamps.iter().map(|at| ("key", Some(value.as_str()), *at)).collect();
                let codec = codecs[usize::try_from(random_u64() % 3).unwrap()];
                append_settled(&log, &keyed_batch(codec, &records)).await;
            }
            check(&log, log.flushed_offset()).await;
            log.delete_records_before(Offset(123)).await.unwrap();
            check(&log, log.flushed_offset()).await;
            let middle = log.read(Offset(400), log.flushed_offset(), 1).await.unwrap();
            let header = corrente_protocol::record_batch::RecordBatchHeader::decode(&middle[0]).unwrap();
            check(&log, header.end_offset()).await;
            opened.storage.close().await.unwrap();
        });
        node.crash();
        run(&world, &node, || async {
            let (_opened, log) = open_one(|_| {}).await;
            check(&log, log.flushed_offset()).await;
        });
    }
}

/// Looks up times until told to stop. `kept` are the records that are never superseded, the latest one among them.
async fn look_up_until(done: Rc<Cell<bool>>, log: Log, kept: Vec<(u64, i64)>) {
    let latest = kept[kept.len() - 1];
    while !done.get() {
        let asked = i64::try_from(random_u64() >> 1).unwrap() % (latest.1 + 1);
        let first = kept.iter().find(|(_, at_ms)| *at_ms >= asked).expect("the latest is kept");
        let (offset, at_ms) = found(&log, asked, log.flushed_offset()).await.expect("one is kept");
        assert!(
            at_ms >= asked && offset <= first.0,
            "asked for {asked}, found {offset} at {at_ms}, not {first:?}"
        );
        let (_, at_ms) = found_latest(&log, log.flushed_offset()).await.expect("one is kept");
        assert!(at_ms >= latest.1, "the latest is of {at_ms}, {latest:?} is kept");
    }
}

/// Segments end early, so that compaction makes one of several.
fn eagerly_compacted() -> LogPolicy {
    let eager =
        CompactionPolicy { min_lag_ms: 0, max_lag_ms: u64::MAX, delete_retention_ms: 0, dirty_ratio_ppm: 0 };
    LogPolicy { segment_ms: 20, compaction: Some(eager), ..LogPolicy::keep_all(64 * 1024) }
}

#[test]
fn what_compaction_removed_is_in_no_memory_either() {
    let (world, node) = world(78);
    run(&world, &node, || async {
        let (opened, log) = open_one(|_| {}).await;
        log.set_policy(eagerly_compacted());
        for (key, at_ms) in [("first", 10), ("again", 900), ("again", 20), ("last", 30), ("open", 40)] {
            append_settled(&log, &keyed_batch(Compression::None, &[(key, Some("value"), at_ms)])).await;
            sleep(Duration::from_millis(25)).await;
        }
        opened.storage.upkeep_now().await;
        // Whoever looks for the latest now has to look into the compacted segment, for its first record is gone.
        log.delete_records_before(Offset(1)).await.expect("deleted");
        let times: Vec<i64> = read_seen(&log, Offset(1), 10_000)
            .await
            .expect("sound")
            .iter()
            .map(|record| record.timestamp_ms)
            .collect();
        assert_eq!(times, [20, 30, 40]);
        check(&log, log.flushed_offset()).await;
    });
}

#[test]
fn what_compaction_keeps_is_found_while_it_goes_on() {
    for seed in 0..6 {
        let (world, node) = world(seed);
        run(&world, &node, move || async move {
            let (opened, log) = open_one(|_| {}).await;
            log.set_policy(eagerly_compacted());
            // Among records that supersede each other, one in fifty is the only one of its key.
            let mut kept = Vec::new();
            for at_ms in 0..600_i64 {
                let only = format!("only-{at_ms}");
                let is_kept = at_ms % 50 == 49;
                let key = if is_kept { only.as_str() } else { "again" };
                let value = format!("{:>1$}", at_ms, usize::try_from(600 + random_u64() % 300).unwrap());
                let appended =
                    append_settled(&log, &keyed_batch(Compression::None, &[(key, Some(&value), at_ms)]))
                        .await;
                sleep(Duration::from_millis(random_u64() % 4)).await;
                if is_kept {
                    kept.push((appended.base_offset.0, at_ms));
                }
                if at_ms % 100 == 74 {
                    // The latest record is superseded by some that have an earlier time, and lies on disk alone.
                    for _ in 0..60 {
                        let early = [("again", Some(value.as_str()), 0)];
                        append_settled(&log, &keyed_batch(Compression::None, &early)).await;
                        sleep(Duration::from_millis(1)).await;
                    }
                    let done = Rc::new(Cell::new(false));
                    let readers: Vec<_> = (0..16)
                        .map(|_| spawn(look_up_until(Rc::clone(&done), log.clone(), kept.clone())))
                        .collect();
                    opened.storage.upkeep_now().await;
                    done.set(true);
                    for reader in readers {
                        reader.await;
                    }
                }
            }
        });
    }
}

/// Appends records of later and later times, until told to stop. Says whether it was.
async fn append_later_ones(done: Rc<Cell<bool>>, log: Log) -> bool {
    for at_ms in 1000..2000 {
        append_settled(&log, &keyed_batch(Compression::None, &[("key", Some("value"), at_ms)])).await;
        if done.get() {
            return true;
        }
    }
    false
}

#[test]
fn a_look_up_ends_though_appends_do_not() {
    let (world, node) = world(79);
    run(&world, &node, || async {
        let (_opened, log) = open_one(|_| {}).await;
        // So many that they are looked through more slowly than one is appended.
        log.set_policy(LogPolicy::keep_all(64 << 20));
        let value = format!("{:>1$}", "value", 20_000);
        for at_ms in [30, 10, 20].repeat(100) {
            append_settled(&log, &keyed_batch(Compression::None, &[("key", Some(&value), at_ms)])).await;
        }
        let up_to = log.flushed_offset();
        let done = Rc::new(Cell::new(false));
        let appending = spawn(append_later_ones(done.clone(), log.clone()));
        log.flushed_past(up_to).await.expect("appended");
        assert_eq!(found(&log, 31, up_to).await, None);
        assert_eq!(found_latest(&log, up_to).await, Some((0, 30)));
        done.set(true);
        assert!(appending.await, "the look-ups outlasted a thousand appends");
    });
}

#[test]
fn append_time_is_the_log_s_own_and_never_goes_back() {
    let (world, node) = world(77);
    run(&world, &node, || async {
        let (_opened, log) = open_one(|_| {}).await;
        log.set_policy(LogPolicy { append_time: true, ..LogPolicy::keep_all(64 * 1024) });
        let mut before = 0;
        for n in 0..50 {
            let records = [("a", Some("1"), 5_000 - n), ("b", Some("2"), -1)];
            let appended = append_settled(&log, &keyed_batch(Compression::Lz4, &records)).await;
            let at_ms = appended.append_time_ms.expect("the log gives its own time");
            assert!(at_ms >= before);
            before = at_ms;
            assert_eq!(found(&log, at_ms, log.flushed_offset()).await.map(|(_, at)| at), Some(at_ms));
        }
        let seen = read_seen(&log, Offset(0), 4000).await.unwrap();
        assert_eq!(seen.len(), 100);
        assert!(seen.iter().all(|record| record.timestamp_ms > 5_000));
    });
}

/// Rots the header of a segment of a log of 200 records, each later than the one before, and opens it.
fn with_a_rotten_header(which: fn(&[String]) -> usize, story: impl AsyncFnOnce(Log, u64, u64) + 'static) {
    let (world, node) = world(20);
    run(&world, &node, || async {
        let (opened, log) = open_one(|_| {}).await;
        for n in 0..200_i64 {
            let value = format!("{n:>1000}");
            append_settled(&log, &keyed_batch(Compression::None, &[("key", Some(&value), n)])).await;
        }
        opened.storage.close().await.expect("closed");
    });
    run(&world, &node, move || async move {
        let names = names(&log_dir(0), ".seg").await;
        let bases: Vec<u64> =
            names.iter().map(|name| name.trim_end_matches(".seg").parse().unwrap()).collect();
        let rotten = which(&names);
        rot(&log_dir(0).join(&names[rotten]), 50).await;
        let (_opened, log) = open_damaged().await;
        story(log, bases[rotten], bases.get(rotten + 1).copied().unwrap_or(200)).await;
    });
}

async fn is_refused(log: &Log, at_ms: u64, lies_in: std::ops::Range<u64>) {
    let found = log.offset_for_timestamp(i64::try_from(at_ms).unwrap(), log.flushed_offset()).await;
    let Err(ReadError::Damaged { start, end, .. }) = found else {
        panic!("{at_ms} was looked for: {found:?}")
    };
    let named = start.0..end.0;
    assert!(
        named.contains(&lies_in.start) && named.contains(&(lies_in.end - 1)),
        "{lies_in:?}, told {named:?}"
    );
}

#[test]
fn a_missing_beginning_is_not_passed_over() {
    with_a_rotten_header(
        |_| 0,
        async |log, base, end| {
            is_refused(&log, 7, base..end).await;
            is_refused(&log, end + 1, base..end).await;
            assert!(log.offset_of_max_timestamp(log.flushed_offset()).await.is_err());
        },
    );
}

#[test]
fn a_missing_middle_is_not_passed_over() {
    with_a_rotten_header(
        |names| names.len() / 2,
        async |log, base, end| {
            assert_eq!(found(&log, 7, log.flushed_offset()).await, Some((7, 7)));
            is_refused(&log, base + 1, base..end).await;
            assert!(log.offset_of_max_timestamp(log.flushed_offset()).await.is_err());
        },
    );
}

#[test]
fn a_missing_end_is_not_passed_over() {
    with_a_rotten_header(
        |names| names.len() - 1,
        async |log, base, end| {
            assert_eq!(found(&log, 7, log.flushed_offset()).await, Some((7, 7)));
            is_refused(&log, base + 1, base..end).await;
            assert!(log.offset_of_max_timestamp(log.flushed_offset()).await.is_err());
        },
    );
}
