//! Segment files that nobody needs any more, kept to be taken into use again: their blocks are written already, so
//! appends to them flush without a journal commit.
//!
//! Owns `pool/` in each data directory, and how much of it this shard has put there. What a file held means nothing
//! in its next life: every hash is seeded with a nonce drawn anew. A start begins with an empty pool.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use corrente_runtime::file;
use corrente_runtime::random::random_u64;

use crate::error::{AtPath, PathError};
use crate::layout::topics_dir;

/// Files shorter than this are not worth keeping.
const LEN_MIN: u64 = 1024 * 1024;

/// Where the files of a data directory wait.
pub(crate) fn pool_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("pool")
}

/// Invariant: `bytes` is the sum of the lengths of all `files`, and at most `bytes_max`.
#[derive(Debug)]
pub(crate) struct Pool {
    bytes_max: u64,
    bytes: Cell<u64>,
    files: RefCell<VecDeque<Pooled>>,
}

#[derive(Debug)]
struct Pooled {
    data_dir: PathBuf,
    path: PathBuf,
    len: u64,
}

impl Pool {
    pub(crate) fn new(bytes_max: u64) -> Pool {
        Pool { bytes_max, bytes: Cell::new(0), files: RefCell::default() }
    }

    /// Removes a file of `len` bytes from the directory of a log: into the pool if it is worth it, else for good.
    ///
    /// It is offered to others only once the directory has durably forgotten it: under its old name, after a crash,
    /// it would be taken for a damaged segment. Not cancel-safe: dropped, it may leave the file unused until a start.
    pub(crate) async fn retire(&self, data_dir: &Path, path: &Path, len: u64) -> Result<(), PathError> {
        if len < LEN_MIN || self.bytes.get() + len > self.bytes_max {
            return file::remove_file(path).await.at(path);
        }
        let dir = pool_dir(data_dir);
        file::create_dir_all(&dir).await.at(&dir)?;
        let pooled = dir.join(format!("{:016x}", random_u64()));
        file::rename(path, &pooled).await.at(path)?;
        self.bytes.set(self.bytes.get() + len);
        let log_dir = path.parent().expect("a segment lies in the directory of its log");
        if let Err(error) = file::sync_dir(log_dir).await.at(log_dir) {
            self.bytes.set(self.bytes.get() - len);
            return Err(error);
        }
        self.files.borrow_mut().push_back(Pooled { data_dir: data_dir.to_owned(), path: pooled, len });
        Ok(())
    }

    /// A file for a log that lies in `log_dir`, of the same data directory.
    pub(crate) fn take(&self, log_dir: &Path) -> Option<PathBuf> {
        let mut files = self.files.borrow_mut();
        let at = files.iter().position(|pooled| log_dir.starts_with(topics_dir(&pooled.data_dir)))?;
        let pooled = files.remove(at)?;
        self.bytes.set(self.bytes.get() - pooled.len);
        Some(pooled.path)
    }

    /// Gives all of one data directory back to the disk.
    pub(crate) async fn drain(&self, data_dir: &Path) -> Result<(), PathError> {
        while let Some(path) = self.take(&topics_dir(data_dir)) {
            file::remove_file(&path).await.at(&path)?;
        }
        Ok(())
    }
}

/// Empties the pool of a data directory at a start.
pub(crate) async fn clear(data_dir: &Path) -> Result<(), PathError> {
    let dir = pool_dir(data_dir);
    if !file::exists(&dir).await.at(&dir)? {
        return Ok(());
    }
    for entry in file::read_dir(&dir).await.at(&dir)? {
        let path = dir.join(&entry.name);
        file::remove_file(&path).await.at(&path)?;
    }
    Ok(())
}
