//! A drive that is full refuses appends and nothing else, until there is room; one that fails takes its own logs down.

mod common;

use std::path::{Path, PathBuf};
use std::rc::Rc;

use common::*;
use corrente_protocol::ids::{Offset, ShardId};
use corrente_runtime::buffer::BLOCK;
use corrente_runtime::file::{create_dir_all, write_small};
use corrente_storage::{
    AppendError, CreateError, Health, Log, LogPolicy, NodeLayout, Storage, StorageConfig,
};

const MIB: u64 = 1 << 20;

fn dirs() -> Vec<PathBuf> {
    vec![PathBuf::from("/data"), PathBuf::from("/second")]
}

struct TwoDrives {
    layout: NodeLayout,
    storage: Rc<Storage>,
    logs: Vec<Log>,
}

async fn open_two() -> TwoDrives {
    let layout = NodeLayout::open(&dirs()).await.expect("the layout opens");
    let failed_dirs = layout.failed().iter().map(|failed| failed.index).collect();
    let config = StorageConfig::new(dirs(), ShardId(0), layout.generation());
    let mut config = StorageConfig { failed_dirs, ..config };
    small(&mut config);
    let storage = Storage::open(config).await.expect("the storage opens");
    let mut logs = Vec::new();
    for found in layout.logs().to_vec() {
        logs.push(storage.open_log(found).await.expect("the log opens").0);
    }
    for lost in layout.lost() {
        storage.keep_closed(lost);
    }
    storage.checkpoint_now().await.expect("a checkpoint");
    layout.retire_old_generations(&[ShardId(0)]).await.expect("old checkpoints go");
    TwoDrives { layout, storage, logs }
}

async fn try_append(log: &Log, len: usize) -> Result<(), AppendError> {
    let appended = append_bytes(log, EPOCH, &batch(&[vec![7; len]])).await?;
    log.flushed_past(Offset(appended.end_offset.0 - 1)).await?;
    log.settle(log.flushed_offset());
    Ok(())
}

/// Appends until it is refused; says how many records fitted.
async fn fill_up(log: &Log) -> u64 {
    loop {
        match try_append(log, 20_000).await {
            Ok(()) => {}
            Err(AppendError::DiskFull { available, reserve, .. }) => {
                assert!(available < reserve + 21_000, "{available} bytes are left, {reserve} are reserved");
                return log.flushed_offset().0;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_full_drive_refuses_appends_and_takes_them_again_once_there_is_room() {
    let (world, node) = world(1);
    node.disk().set_capacity("/data", Some(8 * MIB));
    run(&world, &node, || async {
        let change = |config: &mut StorageConfig| config.reserve_bytes = Some(2 * MIB);
        let (opened, log) = open_one(change).await;
        let deletions = opened.storage.create_log(log_id(1), 0).await.unwrap();
        deletions.set_policy(LogPolicy { uses_reserve: true, ..LogPolicy::keep_all(MIB) });
        let fitted = fill_up(&log).await;
        assert!(fitted > 100, "only {fitted} records fitted");
        // A checkpoint of a MiB may have come since, which the reserve is for.
        assert!(opened.storage.drives()[0].space.unwrap().available_bytes >= MIB / 2);
        assert_eq!(log.health(), Health::Sound);
        assert!(matches!(opened.storage.place_log(log_id(2)).await, Err(CreateError::NoRoom)));
        assert_eq!(read_all(&log, 100_000).await.len() as u64, fitted);
        try_append(&deletions, 1000).await.expect("the reserve is for this");
        log.delete_records_before(Offset(fitted / 2)).await.expect("deletes go on");
        corrente_runtime::timer::sleep(std::time::Duration::from_millis(200)).await;
        let again = fill_up(&log).await;
        assert!(again > fitted + fitted / 4, "{again} records, {fitted} before there was room again");
        opened.storage.close().await.unwrap();
    });
}

#[test]
fn a_drive_that_dies_takes_its_own_logs_down_and_is_left_alone() {
    let (world, node) = world(2);
    run(&world, &node, || async {
        let two = open_two().await;
        for partition in 0..4 {
            let log = two.storage.place_log(log_id(partition)).await.unwrap();
            try_append(&log, 500).await.unwrap();
        }
        let on_second = two.storage.logs().iter().filter(|log| log.dir().starts_with("/second")).count();
        assert_eq!(on_second, 2);
        two.storage.close().await.unwrap();
        drop(two.layout);
    });
    let (disk_node, disk_world) = (&node, &world);
    let opened = run(&world, &node, || async { open_two().await.logs.len() });
    assert_eq!(opened, 4);
    disk_node.crash();
    disk_node.disk().fail_below("/second");
    run(disk_world, disk_node, || async {
        let two = open_two().await;
        assert_eq!(two.layout.failed().len(), 1);
        assert_eq!((two.logs.len(), two.layout.lost().len()), (2, 2));
        for log in &two.logs {
            try_append(log, 500).await.expect("the first drive goes on");
        }
        for partition in 10..14 {
            let log = two.storage.place_log(log_id(partition)).await.unwrap();
            assert!(log.dir().starts_with(Path::new("/data")));
        }
        two.storage.close().await.unwrap();
    });
    disk_node.crash();
    disk_node.disk().heal();
    run(disk_world, disk_node, || async {
        let two = open_two().await;
        assert_eq!((two.layout.failed().len(), two.layout.lost().len(), two.logs.len()), (0, 0, 8));
        for log in two.logs.iter().filter(|log| log.dir().starts_with("/second")) {
            assert_eq!(read_all(log, 1000).await.len(), 1);
            try_append(log, 500).await.expect("the drive is back");
        }
    });
}

#[test]
fn a_drive_that_dies_under_way_fences_its_own_logs_alone() {
    let (world, node) = world(3);
    let two = std::cell::RefCell::new(None);
    let kept = Rc::new(two);
    let keep = kept.clone();
    run(&world, &node, move || async move {
        let two = open_two().await;
        for partition in 0..4 {
            let log = two.storage.place_log(log_id(partition)).await.unwrap();
            try_append(&log, 500).await.unwrap();
        }
        keep.replace(Some(two));
    });
    node.disk().fail_below("/second");
    let keep = kept.clone();
    run(&world, &node, move || async move {
        let two = keep.take().unwrap();
        for log in two.storage.logs() {
            let appended = try_append(&log, 500).await;
            let dead = log.dir().starts_with("/second");
            assert_eq!(appended.is_err(), dead, "{log:?}: {appended:?}");
            assert_eq!(matches!(log.health(), Health::Fenced(_)), dead);
            assert_eq!(read_all(&log, 1000).await.len(), if dead { 1 } else { 2 });
        }
        assert!(two.storage.drives()[1].failed.is_some());
        for partition in 10..13 {
            let log = two.storage.place_log(log_id(partition)).await.unwrap();
            assert!(log.dir().starts_with("/data"));
        }
    });
    drop(kept);
}

/// What a drive has of a log that it failed to make: its directory, a file without a name, or all but its name's flush.
#[derive(Clone, Copy)]
enum Remains {
    Directory,
    Unborn,
    Segment,
}

/// Leaves remains of every log in the directory that is not its own.
async fn leave(remains: Remains, logs: &[Log]) {
    for log in logs {
        let own = log.dir().ancestors().nth(3).expect("a data directory");
        let other = dirs().into_iter().find(|dir| dir != own).expect("another one");
        let beside = other.join(log.dir().strip_prefix(own).expect("below it"));
        create_dir_all(&beside).await.expect("made");
        let name = match remains {
            Remains::Directory => continue,
            Remains::Unborn => "00000000000000000000.new",
            Remains::Segment => "00000000000000000000.seg",
        };
        let mut header = vec![0; BLOCK];
        header[..8].copy_from_slice(b"of none.");
        write_small(&beside.join(name), header).await.expect("written");
    }
}

#[test]
fn what_a_failed_drive_has_of_a_log_that_was_never_made_is_no_second_log() {
    for remains in [Remains::Directory, Remains::Unborn, Remains::Segment] {
        for records in [0, 1] {
            let (world, node) = world(4);
            run(&world, &node, move || async move {
                let two = open_two().await;
                for partition in 0..2 {
                    let log = two.storage.place_log(log_id(partition)).await.unwrap();
                    for _ in 0..records {
                        try_append(&log, 500).await.unwrap();
                    }
                }
                two.storage.checkpoint_now().await.unwrap();
                leave(remains, &two.storage.logs()).await;
                two.storage.close().await.unwrap();
            });
            run(&world, &node, move || async move {
                let two = open_two().await;
                assert_eq!(two.logs.len(), 2);
                for log in &two.logs {
                    assert_eq!(log.health(), Health::Sound);
                    assert_eq!(read_all(log, 1000).await.len(), records);
                    try_append(log, 500).await.unwrap();
                }
            });
        }
    }
}
