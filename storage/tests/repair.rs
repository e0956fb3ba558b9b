//! Damage of every kind, then a repair, then a start: what verified is there, what did not is missing, nothing is
//! wrong.

mod common;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use common::*;
use corrente_protocol::ids::{LeaderEpoch, Offset};
use corrente_protocol::record_batch::RecordBatches;
use corrente_runtime::file::{self, File, OpenOptions};
use corrente_runtime::random::random_u64;
use corrente_runtime::sim::{DiskFault, FaultRule, Node, When, World};
use corrente_storage::inspect::{Beside, FindingKind, LogReport, OfflineDirs, verify};
use corrente_storage::repair::{Repair, RepairPlan, Repaired};
use corrente_storage::{Health, Log};

const RECORDS: u8 = 100;

/// A log of 100 records of 1000 bytes, each flushed alone, in some segments; closed in good order.
fn grown(seed: u64) -> (World, Node) {
    let (world, node) = world(seed);
    run(&world, &node, || async {
        let (opened, log) = open_one(|config| config.segment_bytes = 20 * 1024).await;
        for n in 0..RECORDS {
            append_flushed(&log, &[vec![n; 1000]]).await;
        }
        opened.storage.close().await.expect("closed");
    });
    (world, node)
}

/// The segments, in order.
async fn segments() -> Vec<PathBuf> {
    names(&log_dir(0), ".seg").await.iter().map(|name| log_dir(0).join(name)).collect()
}

async fn cut(path: &PathBuf, len: u64) {
    let file = File::open(path, OpenOptions::READ_WRITE).await.expect("there");
    file.set_len(len).await.expect("cut");
    file.sync_data().await.expect("flushed");
}

async fn offline() -> OfflineDirs {
    OfflineDirs::open(&[data_dir()], None, Beside::Nobody).await.expect("nobody is in the way")
}

async fn verified() -> LogReport {
    let dirs = offline().await;
    verify(&dirs.logs()[0]).await.expect("readable")
}

async fn repaired() -> (RepairPlan, Repaired) {
    let dirs = offline().await;
    let repair = Repair::plan_for(&dirs, &dirs.logs()[0]).await.expect("a plan");
    let plan = repair.plan().clone();
    assert_eq!(plan.refused, None);
    let done = repair.apply().await.expect("repaired");
    assert_eq!(done.lost, plan.lost, "the plan said otherwise");
    (plan, done)
}

/// Every value that the log serves is the one that was appended at its offset; the offsets it serves.
async fn served(log: &Log) -> BTreeSet<u64> {
    let mut next = log.log_start_offset();
    let mut served = BTreeSet::new();
    while next < log.flushed_offset() {
        let chunks = log.read(next, log.flushed_offset(), 5000).await.expect("everything can be read");
        assert!(!chunks.is_empty(), "nothing is served at {next}");
        for batch in chunks.into_iter().flat_map(RecordBatches::new) {
            let batch = batch.expect("whole batches");
            assert!(batch.header().base_offset >= next || served.is_empty(), "offsets go back at {next}");
            for record in batch.records(1 << 20).expect("records") {
                let record = record.expect("a record");
                let expected = vec![u8::try_from(record.offset.0).expect("appended here"); 1000];
                assert_eq!(record.value.as_deref(), Some(&expected[..]), "offset {}", record.offset);
                served.insert(record.offset.0);
            }
            next = batch.header().end_offset();
        }
    }
    served
}

/// The log opens sound, serves all but `lost`, takes more, and does so again after the next start.
async fn opens_whole(lost: &BTreeSet<u64>) {
    let mut expected: BTreeSet<u64> =
        (0..u64::from(RECORDS)).filter(|offset| !lost.contains(offset)).collect();
    for more in 0..2 {
        let (opened, log) = open_one(|_| {}).await;
        assert_eq!(log.health(), Health::Sound);
        assert_eq!(log.last_epoch(), EPOCH);
        assert_eq!(log.flushed_offset(), Offset(u64::from(RECORDS) + more));
        assert_eq!(served(&log).await, expected);
        let next = log.flushed_offset().0;
        append_flushed(&log, &[vec![u8::try_from(next).unwrap(); 1000]]).await;
        expected.insert(next);
        assert_eq!(served(&log).await, expected);
        opened.storage.close().await.expect("closed");
        drop(opened);
        let report = verified().await;
        assert!(!report.is_damaged(), "{report:?}");
    }
}

fn lost_offsets(done: &Repaired) -> BTreeSet<u64> {
    done.lost.iter().flat_map(|lost| lost.start.0..lost.end.0).collect()
}

/// How many offsets each kind of damage costs, of six segments that hold 15 records each and a last that
/// holds ten.
const KINDS: [(&str, usize); 21] = [
    ("a byte of a record", 1),
    ("a byte of the last record", 1),
    ("an extent header", 1),
    ("the last extent header", 1),
    ("a record in every segment", 7),
    ("the end of the first", 8),
    ("the end of a middle one", 8),
    ("the end of the last", 7),
    ("all of the last but its header", 10),
    ("the first is gone", 15),
    ("a middle one is gone", 15),
    ("two middle ones are gone", 30),
    ("the last is gone", 10),
    ("the two last are gone", 25),
    ("all but the last are gone", 90),
    ("all are gone", 100),
    ("a header", 0),
    ("a nonce that the index knows", 0),
    ("a nonce that the checkpoint knows", 0),
    ("a nonce that nobody knows", 15),
    ("two headers", 0),
];

async fn hurt(kind: &str) {
    let segments = segments().await;
    let [first, second, middle, .., last] = &segments[..] else { panic!("{segments:?}") };
    let indexes = names(&log_dir(0), ".idx").await;
    let remove = async |paths: &[PathBuf]| {
        for path in paths {
            file::remove_file(path).await.unwrap();
        }
    };
    match kind {
        "a byte of a record" => rot(middle, 4096 + 5000).await,
        "a byte of the last record" => rot(last, 4096 + 9 * EXTENT + 500).await,
        "an extent header" => rot(second, 4096 + EXTENT + 9).await,
        "the last extent header" => rot(last, 4096 + 9 * EXTENT + 20).await,
        "a record in every segment" => {
            for path in &segments {
                rot(path, 4096 + 5000).await;
            }
        }
        "the end of the first" => cut(first, 4096 + 7 * EXTENT + 500).await,
        "the end of a middle one" => cut(middle, 4096 + 7 * EXTENT + 500).await,
        "the end of the last" => cut(last, 4096 + 3 * EXTENT + 500).await,
        "all of the last but its header" => cut(last, 4096).await,
        "the first is gone" => remove(&segments[..1]).await,
        "a middle one is gone" => remove(&segments[2..3]).await,
        "two middle ones are gone" => remove(&segments[2..4]).await,
        "the last is gone" => remove(&segments[6..]).await,
        "the two last are gone" => remove(&segments[5..]).await,
        "all but the last are gone" => remove(&segments[..6]).await,
        "all are gone" => remove(&segments).await,
        "a header" => rot(middle, 60).await,
        "two headers" => {
            rot(middle, 60).await;
            rot(&segments[3], 60).await;
        }
        "a nonce that the index knows" => {
            // Only a sealed segment with an index; the rot takes its header whole.
            assert!(!indexes.is_empty(), "no index");
            for at in [0, 20, 41, 100] {
                rot(middle, at).await;
            }
        }
        "a nonce that the checkpoint knows" => rot(last, 41).await,
        "a nonce that nobody knows" => {
            for index in indexes {
                file::remove_file(&log_dir(0).join(index)).await.unwrap();
            }
            rot(middle, 41).await;
        }
        _ => panic!("{kind}"),
    }
}

/// What an extent with one record of 1000 bytes takes.
const EXTENT: u64 = 1152;

#[test]
fn what_verifies_is_served_after_a_repair_and_nothing_else() {
    for (seed, (kind, costs)) in (0..).zip(KINDS) {
        println!("{kind}");
        let (world, node) = grown(seed);
        run(&world, &node, move || async move {
            assert!(!verified().await.is_damaged());
            hurt(kind).await;
            let before = segments().await;
            let report = verified().await;
            assert!(report.is_damaged(), "{kind}: {report:?}");
            let told: u64 =
                report.findings.iter().flat_map(|f| &f.lost).map(|lost| lost.end.0 - lost.start.0).sum();
            assert_eq!(told, costs as u64, "{kind}: {report:?}");
            let (plan, done) = repaired().await;
            let lost = lost_offsets(&done);
            assert_eq!(lost.len(), costs, "{kind}: {plan:?}");
            let aside = names(&log_dir(0).join("set-aside"), "").await.len();
            assert_eq!(aside, done.set_aside.len());
            assert!(aside <= before.len());
            let report = verified().await;
            assert!(!report.is_damaged(), "{kind}: {report:?}");
            let (again, _) = repaired().await;
            assert!(again.is_empty(), "{kind}: {again:?}");
            opens_whole(&lost).await;
        });
    }
}
