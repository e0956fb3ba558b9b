//! A log without traffic owns no file; a log whose write failed takes no more; a deleted log is gone.

mod common;

use std::time::Duration;

use common::*;
use corrente_protocol::ids::Offset;
use corrente_runtime::file::{self, File, OpenOptions};
use corrente_runtime::sim::{DiskFault, FaultRule, When};
use corrente_runtime::timer;
use corrente_storage::{AppendError, ReadError};

#[test]
fn a_log_without_traffic_gives_up_its_file_and_the_space_ahead() {
    let (world, node) = world(1);
    run(&world, &node, || async {
        let (opened, log) = open_one(|_| {}).await;
        assert!(log.is_at_rest());
        for n in 0..30_u8 {
            append_flushed(&log, &[[n; 100]]).await;
        }
        assert!(!log.is_at_rest());
        timer::sleep(Duration::from_millis(100)).await;
        let path = log_dir(0).join("00000000000000000000.seg");
        let len = || async { File::open(&path, OpenOptions::READ).await.unwrap().len().await.unwrap() };
        assert!(len().await > log.size_bytes().next_multiple_of(4096), "space ahead");
        timer::sleep(Duration::from_secs(3)).await;
        assert!(log.is_at_rest());
        assert_eq!(len().await, log.size_bytes().next_multiple_of(4096));
        append_flushed(&log, &[[30; 100]]).await;
        assert_eq!(read_all(&log, 200).await.len(), 31);
        // The story ends here, the log stays open.
        std::mem::forget((opened, log));
    });
    // At rest nothing of a log is scheduled, no timer and no task: only the shard's upkeep is left.
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.living_tasks(), 2);
}

#[test]
fn a_failed_write_fences_the_log_for_good() {
    let (world, node) = world(2);
    run(&world, &node, || async {
        let (opened, log) = open_one(|_| {}).await;
        append_flushed(&log, &["kept"]).await;
        timer::sleep(Duration::from_secs(3)).await;
        assert!(log.is_at_rest());
        // The file is opened anew for the next write, and cannot be.
        let path = log_dir(0).join("00000000000000000000.seg");
        file::rename(&path, &log_dir(0).join("elsewhere")).await.unwrap();
        let appended = append(&log, &["lost"]).await;
        let fenced = log.flushed_past(appended.base_offset).await.expect_err("never flushed");
        assert!(fenced.reason.contains(".seg"), "{fenced}");
        assert_eq!(log.is_fenced(), Some(fenced.clone()));
        file::rename(&log_dir(0).join("elsewhere"), &path).await.unwrap();
        let again = append_bytes(&log, EPOCH, &batch(&["refused"])).await;
        assert_eq!(again, Err(AppendError::Fenced(fenced)));
        assert_eq!(log.flushed_offset(), Offset(1));
        assert_eq!(read_all(&log, 100).await, ["kept"]);
        let beyond = log.read(Offset(1), Offset(2), 100).await.expect("nothing there yet");
        assert!(beyond.is_empty());
        opened.storage.close().await.expect("closed");
    });
    run(&world, &node, || async {
        let (_opened, log) = open_one(|_| {}).await;
        assert_eq!(read_all(&log, 100).await, ["kept"]);
        append_flushed(&log, &["again"]).await;
    });
}

#[test]
fn what_the_disk_refuses_is_not_acknowledged() {
    for (seed, fault) in [(8, DiskFault::WriteError), (9, DiskFault::FlushError)] {
        let (world, node) = world(seed);
        run(&world, &node, || async {
            let (opened, log) = open_one(|_| {}).await;
            append_flushed(&log, &["kept"]).await;
            timer::sleep(Duration::from_secs(3)).await;
            opened.storage.close().await.expect("closed");
        });
        let below = log_dir(0);
        node.disk().inject(FaultRule { fault, when: When::Nth(1), below });
        run(&world, &node, || async {
            let (_opened, log) = open_one(|_| {}).await;
            let appended = append(&log, &["lost"]).await;
            let fenced = log.flushed_past(appended.base_offset).await.expect_err("the disk refused it");
            assert!(fenced.reason.contains(".seg"), "{fenced}");
            assert_eq!(log.flushed_offset(), Offset(1));
            assert_eq!(read_all(&log, 100).await, ["kept"]);
        });
        node.crash();
        run(&world, &node, || async {
            let (_opened, log) = open_one(|_| {}).await;
            // What was refused may be there all the same.
            assert_eq!(read_all(&log, 100).await[0], "kept");
        });
    }
}

#[test]
fn an_append_that_waits_for_room_learns_of_the_fence() {
    let (world, node) = world(3);
    run(&world, &node, || async {
        let (_opened, log) = open_one(|_| {}).await;
        file::rename(&log_dir(0).join("00000000000000000000.seg"), &log_dir(0).join("elsewhere"))
            .await
            .unwrap();
        let mut refused = 0;
        for _ in 0..10 {
            let result = append_bytes(&log, EPOCH, &batch(&[[7; 10_000]])).await;
            refused += u32::from(matches!(result, Err(AppendError::Fenced(_))));
        }
        assert!(refused >= 8, "{refused} of 10 appends were refused");
    });
}

#[test]
fn a_deleted_log_is_gone_and_can_be_made_again() {
    let (world, node) = world(4);
    run(&world, &node, || async {
        let (opened, log) = open_one(|_| {}).await;
        append_flushed(&log, &["a"]).await;
        let waiting = log.flushed_past(Offset(7));
        opened.storage.delete_log(log_id(0)).await.expect("deleted");
        assert!(waiting.await.is_err());
        assert_eq!(append_bytes(&log, EPOCH, &batch(&["b"])).await, Err(AppendError::Closed));
        assert_eq!(log.read(Offset(0), Offset(1), 10).await, Err(ReadError::Closed));
        assert!(!file::exists(log_dir(0).parent().unwrap()).await.unwrap());
        let log = opened.storage.create_log(log_id(0), 0).await.expect("made again");
        append_flushed(&log, &["c"]).await;
        assert_eq!(read_all(&log, 10).await, ["c"]);
    });
}
