//! Files through a shard's ring: what is written comes back, and nothing a caller drops is freed early.

mod shards;

use std::path::Path;

use bytes::Bytes;
use corrente_runtime::buffer::{AlignedBuf, BLOCK};
use corrente_runtime::file::{self, File, OpenOptions, Sync};
use futures_util::FutureExt;
use shards::on_one_shard;

fn filled(len: usize, byte: u8) -> Bytes {
    let mut buffer = AlignedBuf::zeroed(len);
    buffer.fill(byte);
    buffer.freeze()
}

fn in_directory<Fut: Future<Output = ()> + 'static>(story: fn(std::path::PathBuf) -> Fut) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_owned();
    on_one_shard(move || story(path.clone()));
}

async fn new_file(path: &Path) -> File {
    File::open(path, OpenOptions::CREATE_NEW).await.expect("a new file")
}

#[test]
fn what_is_written_is_read_back() {
    in_directory(|directory| async move {
        let file = new_file(&directory.join("a")).await;
        for (number, sync) in [(0_u8, Sync::No), (1, Sync::Data)] {
            let offset = u64::from(number) * 8192;
            file.write_at(filled(8192, number + 1), offset, sync).await.expect("a write");
        }
        file.sync_data().await.expect("a flush");
        assert_eq!(file.len().await.expect("a length"), 16384);
        let content = file.read_at(4096, 8192).await.expect("a read");
        assert_eq!(content.len(), 8192);
        assert!(content[..4096].iter().all(|&byte| byte == 1));
        assert!(content[4096..].iter().all(|&byte| byte == 2));
        file.close().await.expect("closed");
    });
}

#[test]
fn a_read_is_short_only_where_the_file_ends() {
    in_directory(|directory| async move {
        let path = directory.join("a");
        let file = new_file(&path).await;
        file.write_at(filled(3 * BLOCK, 7), 0, Sync::No).await.expect("a write");
        file.set_len(2 * BLOCK as u64 + 100).await.expect("cut");
        assert_eq!(file.read_at(0, 16 * BLOCK).await.expect("a read").len(), 2 * BLOCK + 100);
        assert_eq!(file.read_at(0, BLOCK).await.expect("a read").len(), BLOCK);
        assert_eq!(file.read_at(16 * BLOCK as u64, BLOCK).await.expect("a read").len(), 0);
        assert_eq!(file.read_at(0, 0).await.expect("a read").len(), 0);
    });
}

#[test]
fn reserved_space_reads_as_zeros() {
    in_directory(|directory| async move {
        let file = new_file(&directory.join("a")).await;
        match file.allocate(0, 4 * BLOCK as u64).await {
            Ok(()) => {}
            // Not every file system can.
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => return,
            Err(error) => panic!("{error}"),
        }
        assert_eq!(file.len().await.expect("a length"), 4 * BLOCK as u64);
        assert!(file.read_at(0, 4 * BLOCK).await.expect("a read").iter().all(|&byte| byte == 0));
    });
}

#[test]
fn a_file_that_is_not_there_or_already_there_is_refused() {
    in_directory(|directory| async move {
        let path = directory.join("a");
        let missing = File::open(&path, OpenOptions::READ).await.err().expect("refused");
        assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
        let file = new_file(&path).await;
        let again = File::open(&path, OpenOptions::CREATE_NEW).await.err().expect("refused");
        assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
        drop(file);
        let reader = File::open(&path, OpenOptions::READ).await.expect("opened");
        assert!(reader.write_at(filled(BLOCK, 1), 0, Sync::No).await.is_err());
    });
}

#[test]
fn a_dropped_operation_still_happens_and_its_memory_outlives_it() {
    in_directory(|directory| async move {
        let file = new_file(&directory.join("a")).await;
        for round in 0..64_u8 {
            let offset = u64::from(round) * BLOCK as u64;
            let _ = file.write_at(filled(BLOCK, round), offset, Sync::Data).now_or_never();
        }
        for _ in 0..64 {
            let _ = file.read_at(0, 64 * BLOCK).now_or_never();
        }
        // A write to the same file behind all others, and the flush of it, come after no particular one, so
        // the content is looked at until all is there.
        loop {
            let content = file.read_at(0, 64 * BLOCK).await.expect("a read");
            let there = |round: usize| content.get(round * BLOCK) == Some(&(round as u8));
            if content.len() == 64 * BLOCK && (0..64).all(there) {
                break;
            }
        }
    });
}

#[test]
fn many_operations_at_once_all_land() {
    in_directory(|directory| async move {
        let file = new_file(&directory.join("a")).await;
        let writes = (0..2000_u64).map(|number| {
            let file = file.clone();
            let byte = (number % 251) as u8;
            async move { file.write_at(filled(BLOCK, byte), number * BLOCK as u64, Sync::No).await }
        });
        for written in futures_util::future::join_all(writes).await {
            written.expect("a write");
        }
        let content = file.read_at(0, 2000 * BLOCK).await.expect("a read");
        assert!((0..2000).all(|number| content[number * BLOCK] == (number % 251) as u8));
    });
}

#[test]
fn names_come_move_and_go() {
    in_directory(|directory| async move {
        let deep = directory.join("x/y/z");
        file::create_dir_all(&deep).await.expect("made");
        file::create_dir_all(&deep).await.expect("there already");
        file::write_small(&deep.join("b"), b"hello".to_vec()).await.expect("written");
        file::write_small(&deep.join("b"), b"world".to_vec()).await.expect("written again");
        file::rename(&deep.join("b"), &deep.join("a")).await.expect("renamed");
        file::create_dir_all(&deep.join("d")).await.expect("made");
        file::sync_dir(&deep).await.expect("synced");

        let names: Vec<_> = file::read_dir(&deep).await.expect("listed");
        let names: Vec<_> = names.iter().map(|entry| (&*entry.name, entry.is_dir, entry.len)).collect();
        assert_eq!(names, [("a", false, 5), ("d", true, 0)]);

        assert_eq!(file::read_small(&deep.join("a"), 5).await.expect("read"), b"world");
        let refused = file::read_small(&deep.join("a"), 4).await.expect_err("too long");
        assert_eq!(refused.kind(), std::io::ErrorKind::InvalidData);

        file::remove_file(&deep.join("a")).await.expect("removed");
        assert!(!file::exists(&deep.join("a")).await.expect("looked"));
        file::remove_dir_all(&directory.join("x")).await.expect("removed");
        assert!(!file::exists(&deep).await.expect("looked"));
    });
}

#[test]
fn a_second_name_keeps_what_the_first_one_loses() {
    in_directory(|directory| async move {
        let (first, second) = (directory.join("first"), directory.join("second"));
        file::write_small(&first, b"hello".to_vec()).await.expect("written");
        file::link(&first, &second).await.expect("linked");
        let refused = file::link(&first, &second).await.expect_err("taken");
        assert_eq!(refused.kind(), std::io::ErrorKind::AlreadyExists);
        file::write_small(&first, b"world".to_vec()).await.expect("replaced");
        assert_eq!(file::read_small(&second, 5).await.expect("read"), b"hello");
        assert_eq!(file::read_small(&first, 5).await.expect("read"), b"world");
    });
}

#[test]
fn a_lock_has_one_holder() {
    in_directory(|directory| async move {
        let path = directory.join("lock");
        let lock = file::lock_exclusive(&path).await.expect("nobody holds it");
        let refused = file::lock_exclusive(&path).await.err().expect("held");
        assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock);
        drop(lock);
        file::lock_exclusive(&path).await.map(drop).expect("free again");
    });
}

#[test]
fn a_file_system_tells_its_room() {
    in_directory(|directory| async move {
        let space = file::space(&directory).await.expect("the room of the file system");
        assert!(space.total_bytes > 0, "{space:?}");
        assert!(space.available_bytes <= space.total_bytes, "{space:?}");
        let missing = file::space(&directory.join("missing")).await.expect_err("nothing is there");
        assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
    });
}
