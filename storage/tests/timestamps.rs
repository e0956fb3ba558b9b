//! Records are found by timestamp, whatever order those come in, in every part of a log.

mod common;

use common::*;
use corrente_protocol::compression::Compression;
use corrente_protocol::ids::Offset;
use corrente_runtime::random::random_u64;
use corrente_storage::{Log, LogPolicy};

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
