//! Segment files that nobody needs any more, kept to be taken into use again: their blocks are written already, so
//! appends to them flush without a journal commit.
//!
//! Owns `pool/` in each data directory, and how much of it this shard has put there. What a file held means nothing
//! in its next life: every hash is seeded with a nonce drawn anew. A start begins with an empty pool.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use corrente_runtime::file::{self, File, OpenOptions};
use corrente_runtime::random::random_u64;

use crate::drives::Drive;
use crate::error::{AtPath, PathError};
use crate::layout::topics_dir;

/// Files shorter than this are not worth keeping.
const LEN_MIN: u64 = 1024 * 1024;
/// Of longer files than this the rest goes: many segments begin well rather than one whole, and a start has no more
/// than this to look through.
const LEN_MAX: u64 = 16 * 1024 * 1024;

/// Where the files of a data directory wait.
pub(crate) fn pool_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("pool")
}

/// Invariant: `bytes` is the sum of the lengths of all `files` and of those on their way in, and at most `bytes_max`.
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
    pub(crate) async fn retire(
        self: &Rc<Self>,
        drive: &Rc<Drive>,
        path: &Path,
        len: u64,
    ) -> Result<(), PathError> {
        let kept = len.min(LEN_MAX);
        let file = File::open(path, OpenOptions::READ_WRITE).await.at(path)?;
        if kept < LEN_MIN || self.bytes.get() + kept > self.bytes_max {
            file::remove_file(path).await.at(path)?;
            forget_name(path).await?;
            drive.release(file, len, 0, || {});
            return Ok(());
        }
        // Before anything is awaited: others count as well.
        self.bytes.set(self.bytes.get() + kept);
        let pooled = match move_in(drive.path(), path, kept).await {
            Ok(pooled) => pooled,
            Err(error) => {
                self.bytes.set(self.bytes.get() - kept);
                return Err(error);
            }
        };
        if len == kept {
            self.files.borrow_mut().push_back(pooled);
            return Ok(());
        }
        let pool = self.clone();
        drive.release(file, len, kept, move || pool.files.borrow_mut().push_back(pooled));
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

    /// Gives all of one data directory back to the disk; says how many files that were.
    pub(crate) async fn drain(&self, data_dir: &Path) -> Result<usize, PathError> {
        let mut drained = 0;
        while let Some(path) = self.take(&topics_dir(data_dir)) {
            file::remove_file(&path).await.at(&path)?;
            drained += 1;
        }
        Ok(drained)
    }
}

/// Gives a file a name in the pool, of which `kept` bytes will be left.
async fn move_in(data_dir: &Path, path: &Path, kept: u64) -> Result<Pooled, PathError> {
    let dir = pool_dir(data_dir);
    file::create_dir_all(&dir).await.at(&dir)?;
    let pooled = dir.join(format!("{:016x}", random_u64()));
    file::rename(path, &pooled).await.at(path)?;
    forget_name(path).await?;
    Ok(Pooled { data_dir: data_dir.to_owned(), path: pooled, len: kept })
}

/// Makes durable that the directory of a log no longer holds a name.
async fn forget_name(path: &Path) -> Result<(), PathError> {
    let log_dir = path.parent().expect("a segment lies in the directory of its log");
    file::sync_dir(log_dir).await.at(log_dir)
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
