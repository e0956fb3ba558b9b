//! Files and directories, by direct I/O.
//!
//! A [`File`] belongs to the shard that opened it. Positions, lengths and buffers are multiples of
//! [`BLOCK`]; nothing passes through the page cache. Every error is the kernel's; a write reports
//! whole or failed, never part. After a failed flush the state of the file on disk is unknown:
//! callers give the file up and never try again.
//!
//! Dropping any future here is safe: the operation may still happen, and its memory lives until the
//! kernel is done with it.

use std::io;
use std::path::Path;

use bytes::Bytes;

use crate::buffer::{AlignedBuf, BLOCK, BLOCK_U64};
use crate::driver;

/// How to open a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// Make it if it is not there.
    pub create: bool,
    /// Make it, and fail with `AlreadyExists` if it is there.
    pub create_new: bool,
}

impl OpenOptions {
    /// Read an existing file.
    pub const READ: Self = Self { read: true, write: false, create: false, create_new: false };
    /// Read and write an existing file.
    pub const READ_WRITE: Self = Self { read: true, write: true, create: false, create_new: false };
    /// Read and write a file that must not exist yet.
    pub const CREATE_NEW: Self = Self { read: true, write: true, create: false, create_new: true };
}

/// Whether a write is durable once it has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Durable after the next [`File::sync_data`] that begins later.
    No,
    /// Durable on return, with what is needed to read it back; says nothing about other writes.
    Data,
}

/// An open file. Clones share it; the last one closes it.
#[derive(Clone)]
pub struct File(driver::File);

impl File {
    /// Opens `path`. A new name is durable only after [`sync_dir`] on its directory.
    pub async fn open(path: &Path, options: OpenOptions) -> io::Result<File> {
        if driver::simulated() {
            let file = driver::sim::file::File::open(path, options).await?;
            Ok(File(driver::File::Sim(file)))
        } else {
            let file = driver::uring::file::File::open(path, options).await?;
            Ok(File(driver::File::Uring(file)))
        }
    }

    /// Reads up to `len` bytes at `offset`, both multiples of [`BLOCK`]. The buffer is shorter than `len`
    /// only where the file ends.
    pub async fn read_at(&self, offset: u64, len: usize) -> io::Result<AlignedBuf> {
        assert!(offset.is_multiple_of(BLOCK_U64), "read at {offset}, not a multiple of {BLOCK}");
        assert!(len.is_multiple_of(BLOCK), "read of {len} bytes, not a multiple of {BLOCK}");
        match &self.0 {
            driver::File::Uring(file) => file.read_at(offset, len).await,
            driver::File::Sim(file) => file.read_at(offset, len).await,
        }
    }

    /// Writes all of `data` at `offset`; pointer, length and offset are multiples of [`BLOCK`]. The file
    /// grows as needed. Overlapping writes in flight land in any order.
    pub async fn write_at(&self, data: Bytes, offset: u64, sync: Sync) -> io::Result<()> {
        assert!(offset.is_multiple_of(BLOCK_U64), "write at {offset}, not a multiple of {BLOCK}");
        assert!(data.len().is_multiple_of(BLOCK), "write of {} bytes, not a multiple of {BLOCK}", data.len());
        assert!(data.as_ptr().addr().is_multiple_of(BLOCK), "write from memory not aligned to {BLOCK}");
        match &self.0 {
            driver::File::Uring(file) => file.write_at(data, offset, sync).await,
            driver::File::Sim(file) => file.write_at(data, offset, sync).await,
        }
    }

    /// Makes every write that has returned durable, with the length needed to read it back.
    pub async fn sync_data(&self) -> io::Result<()> {
        match &self.0 {
            driver::File::Uring(file) => file.sync_data().await,
            driver::File::Sim(file) => file.sync_data().await,
        }
    }

    /// Reserves space for `len` bytes at `offset` and grows the file to hold them; they read as zeros. A
    /// file system that cannot reserve answers `Unsupported`.
    pub async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        match &self.0 {
            driver::File::Uring(file) => file.allocate(offset, len).await,
            driver::File::Sim(file) => file.allocate(offset, len).await,
        }
    }

    /// Cuts the file to `len` bytes, or grows it with zeros.
    pub async fn set_len(&self, len: u64) -> io::Result<()> {
        match &self.0 {
            driver::File::Uring(file) => file.set_len(len).await,
            driver::File::Sim(file) => file.set_len(len).await,
        }
    }

    /// The length in bytes.
    pub async fn len(&self) -> io::Result<u64> {
        match &self.0 {
            driver::File::Uring(file) => file.len().await,
            driver::File::Sim(file) => file.len().await,
        }
    }

    /// Whether the file holds nothing.
    pub async fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len().await? == 0)
    }

    /// Gives up this clone and waits until the file is closed, if it was the last one and nothing is in
    /// flight. Flushes nothing.
    pub async fn close(self) -> io::Result<()> {
        match self.0 {
            driver::File::Uring(file) => file.close().await,
            driver::File::Sim(file) => file.close().await,
        }
    }
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The last part of the path; what is not UTF-8 in it is replaced, so it matches no name of ours.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// The length in bytes; 0 for a directory.
    pub len: u64,
}

/// Makes a directory and those above it that are missing; content with one that is there. Its name is
/// durable on return with those above it that were made by this function, now or by an earlier process that was
/// killed before it had flushed them.
pub async fn create_dir_all(path: &Path) -> io::Result<()> {
    if driver::simulated() {
        driver::sim::file::create_dir_all(path).await
    } else {
        driver::uring::file::create_dir_all(path).await
    }
}

/// What lies in a directory, ordered by name.
pub async fn read_dir(path: &Path) -> io::Result<Vec<DirEntry>> {
    if driver::simulated() {
        driver::sim::file::read_dir(path).await
    } else {
        driver::uring::file::read_dir(path).await
    }
}

/// Gives `from` the name `to`, replacing a file of that name at one stroke. Durable after [`sync_dir`] on
/// both directories.
pub async fn rename(from: &Path, to: &Path) -> io::Result<()> {
    if driver::simulated() {
        driver::sim::file::rename(from, to).await
    } else {
        driver::uring::file::rename(from, to).await
    }
}

/// Gives the file `from` a second name, which must be free, in the same file system. Durable after [`sync_dir`] on
/// the directory of `to`.
pub async fn link(from: &Path, to: &Path) -> io::Result<()> {
    if driver::simulated() {
        driver::sim::file::link(from, to).await
    } else {
        driver::uring::file::link(from, to).await
    }
}

/// Removes a file. Durable after [`sync_dir`] on its directory.
pub async fn remove_file(path: &Path) -> io::Result<()> {
    if driver::simulated() {
        driver::sim::file::remove_file(path).await
    } else {
        driver::uring::file::remove_file(path).await
    }
}

/// Removes a directory and all that lies in it; not one stroke. Durable after [`sync_dir`] on the
/// directory above.
pub async fn remove_dir_all(path: &Path) -> io::Result<()> {
    if driver::simulated() {
        driver::sim::file::remove_dir_all(path).await
    } else {
        driver::uring::file::remove_dir_all(path).await
    }
}

/// Makes the names in a directory durable as they are now.
pub async fn sync_dir(path: &Path) -> io::Result<()> {
    if driver::simulated() {
        driver::sim::file::sync_dir(path).await
    } else {
        driver::uring::file::sync_dir(path).await
    }
}

/// Whether anything has this name.
pub async fn exists(path: &Path) -> io::Result<bool> {
    if driver::simulated() {
        driver::sim::file::exists(path).await
    } else {
        driver::uring::file::exists(path).await
    }
}

/// Reads a whole small file; one longer than `len_max` is refused with `InvalidData`, unread.
pub async fn read_small(path: &Path, len_max: usize) -> io::Result<Vec<u8>> {
    if driver::simulated() {
        driver::sim::file::read_small(path, len_max).await
    } else {
        driver::uring::file::read_small(path, len_max).await
    }
}

/// Replaces a whole small file at one stroke: written under another name, flushed, renamed, the directory
/// flushed. Durable on return; after a crash either the old or the new content is there.
pub async fn write_small(path: &Path, content: Vec<u8>) -> io::Result<()> {
    if driver::simulated() {
        driver::sim::file::write_small(path, content).await
    } else {
        driver::uring::file::write_small(path, content).await
    }
}

/// The room of the file system a path lies in, as an ordinary process may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What it holds at most.
    pub total_bytes: u64,
    /// What may still be written; another process may take it first.
    pub available_bytes: u64,
}

/// The room of the file system that `path`, which must be there, lies in.
pub async fn space(path: &Path) -> io::Result<Space> {
    if driver::simulated() {
        driver::sim::file::space(path).await
    } else {
        driver::uring::file::space(path).await
    }
}

/// The lock of a directory, held until dropped or until the process ends.
#[must_use = "the lock is released when dropped"]
pub struct DirLock {
    _lock: driver::DirLock,
}

/// Takes the one lock of the file `path`, making the file if it is missing. A second holder, in this
/// process or another, gets `WouldBlock`.
pub async fn lock_exclusive(path: &Path) -> io::Result<DirLock> {
    let lock = if driver::simulated() {
        driver::DirLock::Sim(driver::sim::file::lock_exclusive(path).await?)
    } else {
        driver::DirLock::Uring(driver::uring::file::lock_exclusive(path).await?)
    };
    Ok(DirLock { _lock: lock })
}
