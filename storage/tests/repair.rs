//! Damage of every kind, then a repair, then a start: what verified is there, what did not is missing, nothing is
//! wrong.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::*;
use corrente_protocol::ids::Offset;
use corrente_protocol::record_batch::RecordBatches;
use corrente_runtime::file::{self, File, OpenOptions};
use corrente_runtime::sim::{DiskFault, FaultRule, Node, When, World};
use corrente_runtime::timer;
use corrente_storage::inspect::{Beside, LogReport, OfflineDirs, verify};
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

async fn cut(path: &Path, len: u64) {
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
        // Indexes that reads have made anew are still being written.
        timer::sleep(Duration::from_secs(1)).await;
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
        file::sync_dir(&log_dir(0)).await.unwrap();
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

/// Whatever rots, what is left is right, and nothing is lost that the plan did not name.
#[test]
fn whatever_rots_is_repaired() {
    let mut damaged = 0;
    for seed in 0..150 {
        let (world, node) = grown(1000 + seed);
        world.run_for(Duration::from_secs(10));
        node.disk().rot(log_dir(0), 1 + u32::try_from(seed % 12).unwrap(), Duration::from_secs(1));
        damaged += run(&world, &node, || async {
            let was_damaged = verified().await.is_damaged();
            let (plan, done) = repaired().await;
            assert_eq!(was_damaged, !plan.is_empty(), "{plan:?}");
            assert!(!verified().await.is_damaged());
            opens_whole(&lost_offsets(&done)).await;
            u32::from(was_damaged)
        });
    }
    assert!(damaged > 100, "only {damaged} of 150 logs were damaged");
}

/// A log that retention, compaction and leader epochs have left their marks on: what is read after rot and repair was
/// there before, and what is missing was told.
#[test]
fn a_log_with_a_past_is_repaired() {
    let mut damaged = 0;
    for seed in 0..80 {
        let (world, node) = world(6000 + seed);
        node.spawn(live).detach();
        world.run_for(Duration::from_micros(40_000 + seed * 1931));
        node.crash();
        let read_whole = || async {
            let (opened, log) = open_one(|_| {}).await;
            assert_eq!(log.health(), Health::Sound);
            let seen = read_seen(&log, log.log_start_offset(), 50_000).await.expect("sound");
            let end = (log.log_start_offset(), log.flushed_offset(), log.last_epoch());
            opened.storage.close().await.expect("closed");
            (seen, end)
        };
        let (before, end) = run(&world, &node, read_whole);
        world.run_for(Duration::from_secs(10));
        node.disk().rot(log_dir(0), 1 + u32::try_from(seed % 6).unwrap(), Duration::from_secs(1));
        let lost = run(&world, &node, || async {
            let was_damaged = verified().await.is_damaged();
            let (_, done) = repaired().await;
            assert!(!verified().await.is_damaged());
            was_damaged.then(|| lost_offsets(&done))
        });
        damaged += u32::from(lost.is_some());
        let lost = lost.unwrap_or_default();
        let (after, end_after) = run(&world, &node, read_whole);
        assert_eq!(end_after, end, "seed {seed}");
        let expected: Vec<Seen> = before.into_iter().filter(|seen| !lost.contains(&seen.offset)).collect();
        assert!(
            after == expected,
            "seed {seed}: {} records are left, {} expected",
            after.len(),
            expected.len()
        );
    }
    assert!(damaged > 50, "only {damaged} of 80 logs were damaged");
}

/// The power fails, or the process is killed, at any moment of a repair: what the next repair comes to is the same.
#[test]
fn a_repair_that_is_cut_short_is_done_again() {
    let mut unfinished = 0;
    for seed in 0..200_u64 {
        let kinds = ["a record in every segment", "two middle ones are gone", "two headers", "all are gone"];
        let kind = kinds[usize::try_from(seed).unwrap() % kinds.len()];
        let costs = KINDS.iter().find(|(name, _)| *name == kind).unwrap().1;
        let (world, node) = grown(2000 + seed);
        run(&world, &node, move || hurt(kind));
        let expected = run(&world, &node, || async {
            let dirs = offline().await;
            Repair::plan_for(&dirs, &dirs.logs()[0]).await.expect("a plan").plan().clone()
        });
        for cut in 1..4 {
            node.spawn(repaired).detach();
            world.run_for(Duration::from_micros((seed * 83 + cut * 1700) % 9000));
            if seed % 3 == 0 { node.kill() } else { node.crash() }
        }
        unfinished += run(&world, &node, move || async move {
            let (plan, done) = repaired().await;
            assert!(!verified().await.is_damaged());
            // What an earlier attempt has filled in is told as lost no more, but it is as lost.
            let lost: BTreeSet<u64> =
                expected.lost.iter().flat_map(|lost| lost.start.0..lost.end.0).collect();
            assert!(lost_offsets(&done).is_subset(&lost), "{kind}: {done:?}");
            assert_eq!(lost.len(), costs);
            opens_whole(&lost).await;
            // However often it was cut short, every original is still there.
            let aside = names(&log_dir(0).join("set-aside"), ".seg").await;
            let originals = match kind {
                "a record in every segment" => 7,
                "two headers" => 2,
                _ => 0,
            };
            assert_eq!(aside.len(), originals, "{kind}: {aside:?}");
            u32::from(!plan.is_empty())
        });
    }
    assert!(unfinished > 20, "only {unfinished} of 200 repairs were cut short");
}

/// A disk that cannot read some blocks: the rest is copied to blocks that it can.
#[test]
fn what_the_disk_cannot_read_is_lost_alone() {
    for seed in 0..20 {
        let (world, node) = grown(3000 + seed);
        let path = run(&world, &node, || async { segments().await.swap_remove(2) });
        let rule = FaultRule { fault: DiskFault::ReadError, when: When::Chance(0.3), below: path };
        node.disk().inject(rule);
        let lost = run(&world, &node, || async {
            let dirs = offline().await;
            let repair = Repair::plan_for(&dirs, &dirs.logs()[0]).await.expect("a plan");
            // Each read draws anew, so what is met when it is done may be other than what was planned.
            lost_offsets(&repair.apply().await.expect("repaired"))
        });
        node.disk().heal();
        assert!(lost.iter().all(|offset| (30..45).contains(offset)), "{lost:?}");
        run(&world, &node, move || async move { opens_whole(&lost).await });
    }
}

#[test]
fn a_log_start_that_rots_is_made_out_from_the_rest() {
    let (world, node) = grown(4000);
    run(&world, &node, || async {
        let (opened, log) = open_one(|_| {}).await;
        log.settle(log.flushed_offset());
        log.delete_records_before(Offset(40)).await.expect("deleted");
        opened.storage.close().await.expect("closed");
        drop(opened);
        let start = log_dir(0).join("start");
        let mut bytes = file::read_small(&start, 64).await.unwrap();
        bytes[40] ^= 1;
        file::write_small(&start, bytes).await.unwrap();
        assert!(verified().await.is_damaged());
        let (plan, done) = repaired().await;
        assert_eq!((plan.steps.len(), done.lost.len()), (1, 0), "{plan:?}");
        assert!(!verified().await.is_damaged());
        let (_opened, log) = open_one(|_| {}).await;
        assert_eq!((log.health(), log.log_start_offset()), (Health::Sound, Offset(40)));
        assert_eq!(served(&log).await, (40..100).collect());
    });
}

/// A log whose directory is gone is made anew only where it is asked for by its own path.
#[test]
fn a_log_that_is_gone_is_stood_in_for_if_it_is_named() {
    let (world, node) = grown(5000);
    run(&world, &node, || async {
        file::remove_dir_all(&log_dir(0)).await.unwrap();
        file::sync_dir(log_dir(0).parent().unwrap()).await.unwrap();
        let dirs = offline().await;
        assert_eq!(dirs.logs(), []);
        assert!(dirs.dirs()[0].findings[0].what.contains("offset 100"), "{:?}", dirs.dirs());
        drop(dirs);
        let dirs =
            OfflineDirs::open(&[log_dir(0)], None, Beside::Nobody).await.expect("a checkpoint knows it");
        let done =
            Repair::plan_for(&dirs, &dirs.logs()[0]).await.expect("a plan").apply().await.expect("repaired");
        drop(dirs);
        let lost = lost_offsets(&done);
        assert_eq!(lost, (0..100).collect());
        opens_whole(&lost).await;
    });
}

/// Without the node's checkpoints nobody knows how far a log reached.
#[test]
fn nothing_is_repaired_without_checkpoints() {
    let (world, node) = grown(5001);
    run(&world, &node, || async {
        hurt("a byte of a record").await;
        file::remove_dir_all(&data_dir().join("checkpoint")).await.unwrap();
        let dirs = offline().await;
        let repair = Repair::plan_for(&dirs, &dirs.logs()[0]).await.expect("a plan");
        assert!(repair.plan().refused.as_ref().is_some_and(|why| why.contains("checkpoints")));
    });
}
