//! Verify against recovery: what a start takes for sound, verify calls sound, and what a start refuses, verify calls
//! damaged, whatever the disk went through.

mod common;

use std::time::Duration;

use common::*;
use corrente_protocol::ids::{Offset, ShardId};
use corrente_runtime::file::{self, File, OpenOptions};
use corrente_storage::inspect::{
    Beside, Dump, DumpRange, Dumped, FindingKind, InspectError, LogReport, OfflineDirs, verify,
};
use corrente_storage::{Health, NodeLayout, RecoveryError, Storage, StorageConfig, TailFound};

async fn verified() -> Option<LogReport> {
    let dirs = OfflineDirs::open(&[data_dir()], None, Beside::Nobody).await.expect("nobody is in the way");
    match dirs.logs().first() {
        Some(log) => Some(verify(log).await.expect("readable")),
        None => None,
    }
}

/// What a start makes of the log: whether it is sound, and where it ends.
async fn recovered() -> Option<(TailFound, u64)> {
    let layout = NodeLayout::open(&[data_dir()]).await.expect("the layout opens");
    let mut config = StorageConfig::new(vec![data_dir()], ShardId(0), layout.generation());
    small(&mut config);
    let storage = Storage::open(config).await.expect("the storage opens");
    let found = layout.logs().first()?.clone();
    let outcome = match storage.open_log(found).await {
        Ok((log, recovered)) => {
            let sound = log.health() == Health::Sound;
            assert_eq!(sound, recovered.tail != TailFound::Damaged);
            (recovered.tail, log.flushed_offset().0)
        }
        Err(RecoveryError::Damaged { .. }) => (TailFound::Damaged, 0),
        Err(error) => panic!("{error}"),
    };
    storage.close().await.expect("closed");
    layout.retire_old_generations(&[ShardId(0)]).await.expect("old checkpoints go");
    Some(outcome)
}

#[test]
fn no_crash_is_taken_for_damage() {
    let (mut torn, mut looked) = (0, 0);
    for seed in 0..60 {
        let (world, node) = world(seed);
        for life in 0..5 {
            node.spawn(live).detach();
            world.run_for(Duration::from_micros(20_000 + (seed * 3701 + life * 21_113) % 120_000));
            if (seed + life) % 4 == 0 {
                node.kill()
            } else {
                node.crash()
            }
            let report = run(&world, &node, verified);
            let outcome = run(&world, &node, recovered);
            let (Some(report), Some((tail, end))) = (report, outcome) else { continue };
            assert!(tail != TailFound::Damaged, "seed {seed}, life {life}: a start found damage: {report:?}");
            assert!(!report.is_damaged(), "seed {seed}, life {life}: {report:?}");
            let is_torn = report.findings.iter().any(|found| found.kind == FindingKind::TornTail);
            assert_eq!(is_torn, tail == TailFound::Torn, "seed {seed}, life {life}: {report:?}");
            if report.segments > 0 {
                assert_eq!(report.end_offset.0, end, "seed {seed}, life {life}: {report:?}");
            }
            looked += 1;
            torn += u32::from(is_torn);
        }
    }
    assert!(looked > 250 && torn > 10, "{torn} torn tails in {looked} lives");
}

/// With a disk that lies about its flushes there is something to find, and both find it.
#[test]
fn what_a_start_refuses_is_called_damaged() {
    let mut refused = 0;
    for seed in 0..120 {
        let (world, node) = world(500 + seed);
        node.spawn(live).detach();
        world.run_for(Duration::from_millis(20 + (seed * 37) % 100));
        node.disk().ignore_flush(true);
        world.run_for(Duration::from_millis(50));
        node.crash();
        node.disk().ignore_flush(false);
        let report = run(&world, &node, verified);
        let outcome = run(&world, &node, recovered);
        let (Some(report), Some((tail, _))) = (report, outcome) else { continue };
        let sound = tail != TailFound::Damaged;
        assert!(sound || report.is_damaged(), "seed {seed}: a start found damage, verify none: {report:?}");
        refused += u32::from(!sound);
    }
    assert!(refused > 20, "only {refused} logs were refused");
}

/// Every record of a sound log is shown once, and a damaged place is shown as such and passed over.
#[test]
fn a_dump_shows_everything_but_what_is_damaged() {
    let (world, node) = world(7);
    run(&world, &node, || async {
        let (opened, log) = open_one(|config| config.segment_bytes = 20 * 1024).await;
        for n in 0..100_u8 {
            append_flushed(&log, &[vec![n; 1000]]).await;
        }
        opened.storage.close().await.expect("closed");
        drop(opened);
        let shown = async |range: DumpRange| {
            let dirs = OfflineDirs::open(&[log_dir(0)], None, Beside::Broker).await.expect("found");
            let mut dump = Dump::begin(&dirs.logs()[0], range).await.expect("begun");
            let (mut records, mut damage) = (Vec::new(), Vec::new());
            while let Some(part) = dump.next().await.expect("readable") {
                match part {
                    Dumped::Record { offset, value_len, .. } => {
                        assert_eq!(value_len, Some(1000));
                        records.push(offset.0);
                    }
                    Dumped::Finding(found) if found.kind == FindingKind::Damage => damage.push(found.lost),
                    _ => {}
                }
            }
            (records, damage)
        };
        let all = DumpRange { records: true, ..DumpRange::default() };
        assert_eq!(shown(all).await, ((0..100).collect(), vec![]));
        assert_eq!(shown(DumpRange { from: Offset(77), ..all }).await, ((77..100).collect(), vec![]));
        assert_eq!(shown(DumpRange { segment: Some(Offset(15)), ..all }).await, ((15..30).collect(), vec![]));
        rot(&log_dir(0).join(&names(&log_dir(0), ".seg").await[1]), 4096 + 500).await;
        let without_15: Vec<u64> = (0..100).filter(|offset| *offset != 15).collect();
        assert_eq!(shown(all).await, (without_15, vec![Some(Offset(15)..Offset(16))]));
    });
}

#[test]
fn what_is_not_ours_and_what_is_in_use_is_refused() {
    let (world, node) = world(9);
    run(&world, &node, || async {
        let open = async |path, beside| OfflineDirs::open(&[path], None, beside).await;
        let (opened, log) = open_one(|_| {}).await;
        append_flushed(&log, &["one"]).await;
        let refused = open(data_dir(), Beside::Nobody).await.err();
        assert!(matches!(refused, Some(InspectError::Locked { .. })), "{refused:?}");
        let beside = open(log_dir(0), Beside::Broker).await.expect("it may look");
        assert!(beside.dirs()[0].in_use);
        opened.storage.close().await.expect("closed");
        drop(opened);
        for strange in [data_dir().join("topics"), log_dir(0).join("x"), "/".into(), "/nowhere".into()] {
            let refused = open(strange.clone(), Beside::Nobody).await.err();
            assert!(matches!(refused, Some(InspectError::NotOurs { .. })), "{strange:?}: {refused:?}");
        }
        let refused = open(log_dir(7), Beside::Nobody).await.err();
        assert!(matches!(refused, Some(InspectError::NoSuchLog { .. })), "{refused:?}");
    });
}

/// Rot in a checkpoint is told; which frames count is told from what was never finished.
#[test]
fn a_rotten_checkpoint_is_told() {
    let (world, node) = world(11);
    run(&world, &node, || async {
        let (opened, log) = open_one(|_| {}).await;
        for n in 0..5_u64 {
            append_flushed(&log, &[n.to_le_bytes()]).await;
            opened.storage.checkpoint_now().await.expect("a checkpoint");
        }
        opened.storage.close().await.expect("closed");
        drop(opened);
        let found = async || {
            let dirs = OfflineDirs::open(&[data_dir()], None, Beside::Nobody).await.expect("found");
            dirs.dirs()[0].findings.clone()
        };
        assert_eq!(found().await, vec![]);
        let dir = data_dir().join("checkpoint");
        let file = dir.join(&file::read_dir(&dir).await.expect("there")[0].name);
        let len = File::open(&file, OpenOptions::READ).await.unwrap().len().await.unwrap();
        assert!(len > 8192);
        rot(&file, 3 * 4096 + 30).await;
        let findings = found().await;
        assert!(findings.iter().any(|finding| finding.kind == FindingKind::Damage), "{findings:?}");
    });
}
