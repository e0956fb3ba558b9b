//! The room of a simulated disk: what files are long is taken, what is removed or cut is free again.

use bytes::Bytes;
use corrente_runtime::{
    buffer::AlignedBuf,
    file::{self, File, OpenOptions, Sync},
    sim::{World, WorldConfig},
};
use std::{future::Future, io, path::Path, time::Duration};

const LIMIT: Duration = Duration::from_secs(60);

fn run<Fut: Future<Output = io::Result<()>> + 'static>(story: impl FnOnce() -> Fut + 'static) {
    let world = World::new(1, WorldConfig::default());
    let node = world.node("node", [10, 0, 0, 1]);
    world.run(&node, LIMIT, story).expect("the story ends").expect("no operation fails");
}

fn zeros(len: usize) -> Bytes {
    AlignedBuf::zeroed(len).freeze()
}

async fn available() -> io::Result<u64> {
    Ok(file::space(Path::new("/data")).await?.available_bytes)
}

#[test]
fn what_is_written_is_taken_and_what_is_removed_is_free_again() {
    run(|| async {
        file::create_dir_all(Path::new("/data")).await?;
        let empty = file::space(Path::new("/data")).await?;
        assert_eq!(empty.available_bytes, empty.total_bytes);
        let path = Path::new("/data/segment");
        let segment = File::open(path, OpenOptions::CREATE_NEW).await?;
        segment.allocate(0, 1 << 20).await?;
        assert_eq!(available().await?, empty.total_bytes - (1 << 20));
        segment.set_len(4096).await?;
        assert_eq!(available().await?, empty.total_bytes - 4096);
        file::remove_file(path).await?;
        assert_eq!(available().await?, empty.total_bytes);
        let missing = file::space(path).await.expect_err("nothing is there");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        Ok(())
    });
}

#[test]
fn a_full_disk_refuses_to_grow_until_something_is_freed() {
    let world = World::new(1, WorldConfig::default());
    let node = world.node("node", [10, 0, 0, 1]);
    node.disk().set_capacity("/data", Some(64 * 1024));
    let full = world.run(&node, LIMIT, || async {
        file::create_dir_all(Path::new("/data")).await.unwrap();
        file::create_dir_all(Path::new("/other")).await.unwrap();
        let log = File::open(Path::new("/data/log"), OpenOptions::CREATE_NEW).await.unwrap();
        log.allocate(0, 60 * 1024).await.unwrap();
        assert_eq!(available().await.unwrap(), 4096);
        let refused = [
            log.allocate(60 * 1024, 8192).await.unwrap_err(),
            log.write_at(zeros(8192), 60 * 1024, Sync::No).await.unwrap_err(),
        ];
        // What is there already can be written.
        log.write_at(zeros(8192), 0, Sync::Data).await.unwrap();
        log.set_len(64 * 1024).await.unwrap();
        let name = File::open(Path::new("/data/new"), OpenOptions::CREATE_NEW).await.map(drop).unwrap_err();
        let small = file::write_small(Path::new("/data/small"), vec![1]).await.unwrap_err();
        let dir = file::create_dir_all(Path::new("/data/dir")).await.unwrap_err();
        // Another file system has room.
        file::write_small(Path::new("/other/small"), vec![1]).await.unwrap();
        log.set_len(4096).await.unwrap();
        file::write_small(Path::new("/data/small"), vec![1]).await.unwrap();
        let [allocated, written] = refused;
        [allocated, written, name, small, dir].map(|error| error.kind())
    });
    assert_eq!(full, Ok([io::ErrorKind::StorageFull; 5]));
    assert_eq!(node.disk().counters().refused_as_full, 5);
    node.disk().set_capacity("/data", None);
    let total = || async { file::space(Path::new("/data")).await.unwrap().total_bytes };
    assert!(world.run(&node, LIMIT, total).unwrap() > 1 << 30);
}

#[test]
fn of_a_write_that_does_not_fit_the_first_blocks_may_be_there() {
    let mut lens = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let world = World::new(seed, WorldConfig::default());
        let node = world.node("node", [10, 0, 0, 1]);
        node.disk().set_capacity("/", Some(5 * 4096));
        let len = world.run(&node, LIMIT, || async {
            let log = File::open(Path::new("/log"), OpenOptions::CREATE_NEW).await.unwrap();
            log.write_at(zeros(8 * 4096), 0, Sync::Data).await.unwrap_err();
            log.len().await.unwrap()
        });
        lens.insert(len.unwrap() / 4096);
    }
    assert_eq!(lens, (0..=5).collect());
}
