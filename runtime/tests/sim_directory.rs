//! Names are durable once their directory was synced, and not before.

use corrente_runtime::{
    file::{self, File, OpenOptions},
    sim::{Node, World, WorldConfig},
};
use std::{io, path::Path, time::Duration};

const LIMIT: Duration = Duration::from_secs(60);

fn world(seed: u64) -> (World, Node) {
    let world = World::new(seed, WorldConfig::default());
    let node = world.node("node", [10, 0, 0, 1]);
    (world, node)
}

fn names(world: &World, node: &Node) -> Vec<String> {
    let listed = world.run(node, LIMIT, || async { file::read_dir(Path::new("/data")).await.unwrap() });
    listed.unwrap().into_iter().map(|entry| entry.name).collect()
}

/// Renames `old` to `new` over an existing `new`, then cuts the power.
fn after_rename(seed: u64, synced: bool) -> (Vec<String>, Vec<u8>) {
    let (world, node) = world(seed);
    world
        .run(&node, LIMIT, move || async move {
            file::create_dir_all(Path::new("/data")).await.unwrap();
            file::write_small(Path::new("/data/new"), b"new before".to_vec()).await.unwrap();
            file::write_small(Path::new("/data/old"), b"old".to_vec()).await.unwrap();
            file::rename(Path::new("/data/old"), Path::new("/data/new")).await.unwrap();
            if synced {
                file::sync_dir(Path::new("/data")).await.unwrap();
            }
        })
        .unwrap();
    node.crash();
    let content = world
        .run(&node, LIMIT, || async { file::read_small(Path::new("/data/new"), 100).await.unwrap() })
        .unwrap();
    (names(&world, &node), content)
}

#[test]
fn a_synced_rename_survives() {
    for seed in 0..100 {
        assert_eq!(after_rename(seed, true), (vec!["new".to_owned()], b"old".to_vec()), "seed {seed}");
    }
}

#[test]
fn an_unsynced_rename_happened_or_not_but_never_by_half() {
    let mut vanished = 0;
    for seed in 0..100 {
        match after_rename(seed, false) {
            (names, content) if names == ["new"] => assert_eq!(content, b"old", "seed {seed}"),
            (names, content) => {
                assert_eq!(
                    (names, content),
                    (vec!["new".to_owned(), "old".to_owned()], b"new before".to_vec())
                );
                vanished += 1;
            }
        }
    }
    assert!((10..90).contains(&vanished), "{vanished} of 100 renames vanished");
}

#[test]
fn a_synced_second_name_survives_the_loss_of_the_first() {
    for seed in 0..100 {
        let (world, node) = world(seed);
        let linked = world.run(&node, LIMIT, || async {
            let (first, second) = (Path::new("/data/first"), Path::new("/data/aside/second"));
            file::create_dir_all(Path::new("/data/aside")).await.unwrap();
            file::write_small(first, b"old".to_vec()).await.unwrap();
            file::link(first, second).await.unwrap();
            let taken = file::link(first, second).await.unwrap_err();
            assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
            file::sync_dir(Path::new("/data/aside")).await.unwrap();
            file::write_small(first, b"new".to_vec()).await.unwrap();
        });
        linked.unwrap();
        node.crash();
        let contents = world.run(&node, LIMIT, || async {
            let second = file::read_small(Path::new("/data/aside/second"), 9).await.unwrap();
            (file::read_small(Path::new("/data/first"), 9).await.unwrap(), second)
        });
        assert_eq!(contents.unwrap(), (b"new".to_vec(), b"old".to_vec()), "seed {seed}");
    }
}

#[test]
fn a_small_file_is_replaced_whole_or_not_at_all() {
    let (mut before, mut after) = (0, 0);
    for seed in 0..200 {
        let (world, node) = world(seed);
        world
            .run(&node, LIMIT, || async {
                file::write_small(Path::new("/vote"), b"before".to_vec()).await.unwrap();
            })
            .unwrap();
        node.spawn(|| async {
            file::write_small(Path::new("/vote"), vec![b'a'; 9_000]).await.unwrap();
        })
        .detach();
        world.run_for(Duration::from_micros(seed * 5));
        node.crash();
        let found = world
            .run(&node, LIMIT, || async { file::read_small(Path::new("/vote"), 10_000).await.unwrap() })
            .unwrap();
        match found.as_slice() {
            b"before" => before += 1,
            content => {
                assert_eq!(content, vec![b'a'; 9_000], "seed {seed}");
                after += 1;
            }
        }
    }
    assert!(before > 0 && after > 0, "{before} power cuts came before the write and {after} after it");
}

#[test]
fn a_new_file_may_vanish_and_a_removed_one_return_until_the_directory_is_synced() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let (world, node) = world(seed);
        world
            .run(&node, LIMIT, || async {
                file::create_dir_all(Path::new("/data/sub")).await.unwrap();
                file::write_small(Path::new("/data/removed"), vec![1]).await.unwrap();
                file::remove_file(Path::new("/data/removed")).await.unwrap();
                let made = File::open(Path::new("/data/made"), OpenOptions::CREATE_NEW).await.unwrap();
                made.sync_data().await.unwrap();
            })
            .unwrap();
        node.crash();
        seen.insert(names(&world, &node).join(" "));
    }
    assert_eq!(Vec::from_iter(seen), ["made removed sub", "made sub", "removed sub", "sub"]);
}

#[test]
fn removing_a_directory_takes_everything_along() {
    let (world, node) = world(1);
    world
        .run(&node, LIMIT, || async {
            file::create_dir_all(Path::new("/data/topic/0")).await.unwrap();
            file::write_small(Path::new("/data/topic/0/segment"), vec![1]).await.unwrap();
            file::remove_dir_all(Path::new("/data/topic")).await.unwrap();
            file::sync_dir(Path::new("/data")).await.unwrap();
        })
        .unwrap();
    node.crash();
    assert!(names(&world, &node).is_empty());
}

#[test]
fn errors_are_those_of_a_file_system() {
    let (world, node) = world(1);
    let kinds = world.run(&node, LIMIT, || async {
        let data = Path::new("/data");
        let file = Path::new("/data/file");
        file::create_dir_all(data).await.unwrap();
        file::write_small(file, vec![0; 100]).await.unwrap();
        [
            File::open(Path::new("/data/none"), OpenOptions::READ).await.err(),
            File::open(file, OpenOptions::CREATE_NEW).await.err(),
            File::open(data, OpenOptions::READ).await.err(),
            File::open(Path::new("/data/file/below"), OpenOptions::READ).await.err(),
            file::read_small(file, 99).await.err(),
            file::remove_file(data).await.err(),
            file::create_dir_all(Path::new("/data/file/below")).await.err(),
        ]
        .map(|error| error.map(|error| error.kind()))
    });
    let expected = [
        io::ErrorKind::NotFound,
        io::ErrorKind::AlreadyExists,
        io::ErrorKind::IsADirectory,
        io::ErrorKind::NotADirectory,
        io::ErrorKind::InvalidData,
        io::ErrorKind::IsADirectory,
        io::ErrorKind::NotADirectory,
    ];
    assert_eq!(kinds.unwrap(), expected.map(Some));
}
