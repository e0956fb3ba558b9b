//! The same log on the real kernel and a real disk: grown, closed, opened, read.

mod common;

use std::path::PathBuf;

use common::{EPOCH, append_bytes, batch, log_id, read};
use corrente_protocol::ids::{Offset, ShardId};
use corrente_runtime::executor::{Executors, ExecutorsConfig, Placement};
use corrente_storage::{NodeLayout, Storage, StorageConfig};

async fn life(dir: PathBuf, life: u64) {
    let layout = NodeLayout::open(std::slice::from_ref(&dir)).await.expect("the layout opens");
    let mut config = StorageConfig::new(vec![dir], ShardId(0), layout.generation());
    config.segment_bytes = 4 * 1024 * 1024;
    config.tail_ring_bytes = 1024 * 1024;
    let storage = Storage::open(config).await.expect("the storage opens");
    let log = match layout.logs() {
        [] => storage.create_log(log_id(0), 0).await.expect("a new log"),
        [found, ..] => storage.open_log(found.clone()).await.expect("recovered").0,
    };
    assert_eq!(log.flushed_offset(), Offset(life * 300));
    for n in life * 300..(life + 1) * 300 {
        let value = vec![u8::try_from(n % 251).unwrap(); usize::try_from(n * 97 % 60_000).unwrap()];
        let appended = append_bytes(&log, EPOCH, &batch(&[value])).await.expect("appended");
        if n % 7 == 0 {
            log.flushed_past(appended.base_offset).await.expect("flushed");
        }
    }
    log.flushed_past(Offset((life + 1) * 300 - 1)).await.expect("flushed");
    let records = read(&log, Offset(0), log.flushed_offset(), 300_000).await.expect("readable");
    for (n, (offset, value)) in (0_u64..).zip(&records) {
        assert_eq!(*offset, n);
        assert_eq!(value.len() as u64, n * 97 % 60_000);
        assert!(value.iter().all(|byte| u64::from(*byte) == n % 251));
    }
    assert_eq!(records.len() as u64, (life + 1) * 300);
    storage.close().await.expect("closed");
}

#[test]
fn a_log_lives_through_restarts() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    for n in 0..3 {
        let dir = dir.path().to_owned();
        let (done, wait) = std::sync::mpsc::channel();
        let mut config = ExecutorsConfig::new(1);
        config.placement = Placement::Unbound;
        let main = move |_| {
            let (dir, done) = (dir.clone(), done.clone());
            async move {
                life(dir, n).await;
                done.send(()).expect("somebody waits");
            }
        };
        let executors = Executors::start(config, main).expect("started");
        wait.recv().expect("the shard came to its end");
        drop(executors);
    }
}
