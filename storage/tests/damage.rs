//! Rot, loss and lies on disk: what was flushed is never truncated, what cannot be verified is never shown.

mod common;

use common::*;
use corrente_protocol::ids::{Offset, ShardId};
use corrente_runtime::file::{self, File, OpenOptions, Sync};
use corrente_runtime::sim::{Node, World};
use corrente_runtime::timer;
use corrente_storage::{
    AppendError, FoundLog, Health, Log, NodeLayout, OpenError, ReadError, RecoveryError, Storage,
    StorageConfig, TailFound,
};
use std::path::PathBuf;
use std::time::Duration;

/// A log of 100 records of 1000 bytes, each flushed alone, in some segments; closed in good order.
fn grown(seed: u64) -> (World, Node) {
    let (world, node) = world(seed);
    run(&world, &node, || async {
        let (opened, log) = open_one(|_| {}).await;
        for n in 0..100_u8 {
            append_flushed(&log, &[vec![n; 1000]]).await;
        }
        opened.storage.close().await.expect("closed");
    });
    (world, node)
}

async fn segment(n: usize) -> PathBuf {
    log_dir(0).join(&names(&log_dir(0), ".seg").await[n])
}

async fn last_segment() -> PathBuf {
    log_dir(0).join(names(&log_dir(0), ".seg").await.last().expect("a segment"))
}

/// Tries to open the log; gives back why not.
async fn refused() -> String {
    let layout = NodeLayout::open(&[data_dir()]).await.expect("the layout opens");
    let mut config = StorageConfig::new(vec![data_dir()], ShardId(0), layout.generation());
    small(&mut config);
    let storage = Storage::open(config).await.expect("the storage opens");
    let found: FoundLog = layout.logs()[0].clone();
    let reason = match storage.open_log(found).await {
        Err(RecoveryError::Damaged { reason, .. }) => reason,
        Ok((log, recovered)) => {
            assert_eq!(recovered.tail, TailFound::Damaged);
            let Health::Quarantined(reason) = log.health() else { panic!("{log:?} is not in quarantine") };
            let refused = append_bytes(&log, EPOCH, &batch(&[b"more"])).await;
            assert!(matches!(refused, Err(AppendError::Quarantined { .. })), "{refused:?}");
            read_what_is_sound(&log).await;
            let end = log.log_end_offset();
            let beyond = log.read(end.saturating_add(3), end.saturating_add(4), 1).await;
            let told = matches!(beyond, Err(ReadError::Damaged { start, .. }) if start == end);
            assert!(told, "a reader that was further once is told {beyond:?}");
            reason.to_string()
        }
        Err(error) => panic!("{error} instead of damage"),
    };
    // What is known of it is kept for the next start.
    storage.close().await.expect("a checkpoint");
    layout.retire_old_generations(&[ShardId(0)]).await.expect("old checkpoints go");
    reason
}

/// Every offset of a grown log in quarantine is either right or told to be damaged; says how many are right.
async fn read_what_is_sound(log: &Log) -> usize {
    let mut sound = 0;
    let mut next = log.log_start_offset();
    while next < log.flushed_offset() {
        match read(log, next, Offset(next.0 + 1), 1).await {
            Ok(records) => {
                assert_eq!(records[0].1, vec![u8::try_from(next.0).unwrap(); 1000]);
                next = Offset(next.0 + 1);
                sound += 1;
            }
            Err(ReadError::Damaged { start, end, .. }) => {
                assert!(start <= next && next < end, "{next} is not in {start} to {end}");
                next = end;
            }
            Err(error) => panic!("{error}"),
        }
    }
    sound
}

#[test]
fn a_read_of_rotten_bytes_names_the_range_and_the_rest_is_read() {
    let (world, node) = grown(1);
    run(&world, &node, || async {
        rot(&segment(0).await, 20_000).await;
        let (_opened, log) = open_one(|_| {}).await;
        let mut found = Vec::new();
        let mut next = Offset(0);
        let mut damaged = Vec::new();
        while next < log.flushed_offset() {
            match read(&log, next, Offset(next.0 + 1), 1).await {
                Ok(records) => {
                    found.push(records[0].0);
                    assert_eq!(records[0].1, vec![u8::try_from(next.0).unwrap(); 1000]);
                    next = Offset(next.0 + 1);
                }
                Err(ReadError::Damaged { start, end, .. }) => {
                    damaged.push((start.0, end.0));
                    next = end;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(damaged.len(), 1, "{damaged:?}");
        assert_eq!(damaged[0].1 - damaged[0].0, 1);
        assert_eq!(found.len(), 99);
    });
}

#[test]
fn what_is_missing_below_the_checkpoint_is_damage_and_stays_so() {
    for (seed, hurt) in [(1, "cut"), (2, "rotten"), (3, "gone"), (4, "header"), (5, "middle")] {
        let (world, node) = grown(seed);
        let reason = run(&world, &node, move || async move {
            let path = last_segment().await;
            match hurt {
                "cut" => {
                    let file = File::open(&path, OpenOptions::READ_WRITE).await.unwrap();
                    file.set_len(4096).await.unwrap();
                    file.sync_data().await.unwrap();
                }
                "rotten" => {
                    let len = File::open(&path, OpenOptions::READ).await.unwrap().len().await.unwrap();
                    // The last extent of 1134 bytes and its header, wherever they begin in the last blocks.
                    for at in (len - 8192..len).step_by(64) {
                        rot(&path, at).await;
                    }
                }
                "gone" => file::remove_file(&path).await.unwrap(),
                "header" => rot(&path, 20).await,
                _ => file::remove_file(&segment(1).await).await.unwrap(),
            }
            refused().await
        });
        let again = run(&world, &node, refused);
        assert_eq!(reason, again, "{hurt}");
    }
}

#[test]
fn what_lay_in_a_first_segment_that_cannot_be_read_is_refused_by_name() {
    let (world, node) = grown(6);
    run(&world, &node, || async {
        rot(&segment(0).await, 20).await;
        let second = segment(1).await;
        let second = Offset(second.file_stem().unwrap().to_str().unwrap().parse().unwrap());
        let (_opened, log) = open_damaged().await;
        match log.read(Offset(0), log.flushed_offset(), 10_000).await {
            Err(ReadError::Damaged { start, end, .. }) => assert_eq!((start, end), (Offset(0), second)),
            other => panic!("{other:?} of a segment without a header"),
        }
        assert_eq!(read_what_is_sound(&log).await as u64, 100 - second.0);
    });
}

#[test]
fn a_torn_tail_is_left_behind_and_a_new_segment_goes_on() {
    let (world, node) = grown(9);
    run(&world, &node, || async {
        let path = last_segment().await;
        let file = File::open(&path, OpenOptions::READ_WRITE).await.unwrap();
        let len = file.len().await.unwrap();
        let mut torn = corrente_runtime::buffer::AlignedBuf::zeroed(8192);
        torn[5000..].fill(0xEE);
        file.write_at(torn.freeze(), len, Sync::Data).await.unwrap();
    });
    for life in 0..3 {
        run(&world, &node, move || async move {
            let layout = NodeLayout::open(&[data_dir()]).await.unwrap();
            let mut config = StorageConfig::new(vec![data_dir()], ShardId(0), layout.generation());
            small(&mut config);
            let storage = Storage::open(config).await.unwrap();
            let segments = names(&log_dir(0), ".seg").await.len();
            let (log, recovered) = storage.open_log(layout.logs()[0].clone()).await.expect("recovered");
            assert_eq!(recovered.tail == TailFound::Torn, life < 2, "life {life}: {recovered:?}");
            assert_eq!(log.flushed_offset(), Offset(if life < 2 { 100 } else { 101 }));
            if life == 1 {
                append_flushed(&log, &[vec![100; 1000]]).await;
                assert_eq!(names(&log_dir(0), ".seg").await.len(), segments + 1);
            }
            let all = read_all(&log, 3000).await;
            assert!((0..).zip(&all).all(|(n, value)| *value == vec![n; 1000]));
        });
    }
}

#[test]
fn rot_before_a_later_extent_is_damage_even_beyond_the_checkpoint() {
    let (world, node) = world(11);
    run(&world, &node, || async {
        let (opened, log) = open_one(|config| config.checkpoint_interval = Duration::from_secs(900)).await;
        for n in 0..20_u8 {
            append_flushed(&log, &[vec![n; 1000]]).await;
        }
        drop(opened);
    });
    node.crash();
    run(&world, &node, || async {
        rot(&last_segment().await, 4096 + 5000).await;
        let reason = refused().await;
        assert!(reason.contains("a later extent"), "{reason}");
    });
}

#[test]
fn in_quarantine_what_is_sound_behind_the_damage_is_read() {
    let (world, node) = world(13);
    run(&world, &node, || async {
        let (opened, log) = open_one(|config| config.checkpoint_interval = Duration::from_secs(900)).await;
        for n in 0..20_u8 {
            append_flushed(&log, &[vec![n; 1000]]).await;
        }
        drop(opened);
    });
    node.crash();
    run(&world, &node, || async {
        rot(&last_segment().await, 4096 + 5000).await;
        let (_opened, log) = open_damaged().await;
        assert_eq!(log.flushed_offset(), Offset(20));
        assert_eq!(read_what_is_sound(&log).await, 19);
    });
}

#[test]
fn a_rotten_header_is_no_reason_to_refuse_the_extent_behind_it() {
    let (world, node) = grown(7);
    run(&world, &node, || async {
        // Extents of one record each: 64 bytes, and about 1080 more, up to a multiple of 64.
        let path = segment(0).await;
        let content = file::read_small(&path, 1 << 20).await.unwrap();
        let headers: Vec<u64> = (4096..content.len() as u64 - 64)
            .step_by(64)
            .filter(|at| content[usize::try_from(*at).unwrap()..].starts_with(b"CEXT"))
            .collect();
        rot(&path, headers[7] + 9).await;
        let (_opened, log) = open_one(|_| {}).await;
        let before = read(&log, Offset(0), Offset(7), 3000).await.expect("sound");
        assert_eq!(before.len(), 7);
        match log.read(Offset(7), Offset(100), 3000).await {
            Err(ReadError::Damaged { start, end, reason }) => {
                assert_eq!((start, end), (Offset(7), Offset(8)));
                assert!(reason.contains(&headers[7].to_string()), "{reason} does not name {}", headers[7]);
            }
            other => panic!("{:?}", other.map(|batches| batches.len())),
        }
        assert_eq!(read_what_is_sound(&log).await, 99);
    });
}

#[test]
fn one_damaged_checkpoint_file_is_made_up_for_by_the_other() {
    for side in 0..2 {
        let (world, node) = world(12 + side);
        run(&world, &node, || async {
            let (opened, log) = open_one(|_| {}).await;
            // Enough deltas that the first file is full and the second takes over.
            for n in 0..400_u64 {
                append_flushed(&log, &[n.to_le_bytes()]).await;
                opened.storage.checkpoint_now().await.expect("a checkpoint");
            }
            timer::sleep(Duration::from_secs(2)).await;
        });
        node.crash();
        run(&world, &node, move || async move {
            let dir = data_dir().join("checkpoint");
            let ending = [".a", ".b"][usize::try_from(side).unwrap()];
            let files = names(&dir, ending).await;
            assert_eq!(files.len(), 1, "{files:?}");
            rot(&dir.join(&files[0]), 4096 + 30).await;
            let (_opened, log) = open_one(|_| {}).await;
            let all = read_all(&log, 1 << 20).await;
            assert!((0_u64..400).zip(&all).all(|(n, value)| *value == n.to_le_bytes()[..]));
            assert_eq!(all.len(), 400);
        });
    }
}

#[test]
fn a_second_broker_and_a_strange_directory_are_refused() {
    let (world, node) = grown(20);
    run(&world, &node, || async {
        let layout = NodeLayout::open(&[data_dir()]).await.unwrap();
        let second = NodeLayout::open(&[data_dir()]).await;
        assert!(matches!(second, Err(OpenError::Locked { .. })));
        drop(layout);
        let twice = NodeLayout::open(&[data_dir(), data_dir()]).await;
        assert!(matches!(twice, Err(OpenError::SameDir { .. })));
        assert!(matches!(NodeLayout::open(&[]).await, Err(OpenError::NoDataDir)));
        let identity = data_dir().join("identity");
        file::write_small(&identity, vec![1; 64]).await.unwrap();
        assert!(matches!(NodeLayout::open(&[data_dir()]).await, Err(OpenError::Identity { .. })));
        file::remove_file(&identity).await.unwrap();
        assert!(matches!(NodeLayout::open(&[data_dir()]).await, Err(OpenError::Identity { .. })));
    });
}
