//! Names and directories, on threads that may wait for the disk.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::offload::on_disk_thread;
use crate::file::{DirEntry, Space};

pub(crate) async fn create_dir_all(path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    on_disk_thread(move || create_durably(&path)).await
}

/// A name is flushed before the next is made below it, so of what an earlier process has left only the lowest
/// name may not be durable.
fn create_durably(path: &Path) -> io::Result<()> {
    let above = above(path);
    if path.is_dir() {
        return match sync(&above) {
            // Who may not look into the directory above has not made this one.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            outcome => outcome,
        };
    }
    create_durably(&above)?;
    match fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(error) => return Err(error),
    }
    sync(&above)
}

/// The directory a name lies in.
fn above(path: &Path) -> PathBuf {
    match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above.to_owned(),
        Some(_) => PathBuf::from("."),
        None => PathBuf::from("/"),
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}

pub(crate) async fn read_dir(path: &Path) -> io::Result<Vec<DirEntry>> {
    let path = path.to_owned();
    on_disk_thread(move || list(&path)).await
}

fn list(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            // Removed since its name was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        let is_dir = metadata.is_dir();
        entries.push(DirEntry {
            name: entry.file_name().to_string_lossy().into_owned(),
            is_dir,
            len: if is_dir { 0 } else { metadata.len() },
        });
    }
    entries.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(entries)
}

pub(crate) async fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (from.to_owned(), to.to_owned());
    on_disk_thread(move || fs::rename(from, to)).await
}

pub(crate) async fn link(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (from.to_owned(), to.to_owned());
    on_disk_thread(move || fs::hard_link(from, to)).await
}

pub(crate) async fn remove_file(path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    on_disk_thread(move || fs::remove_file(path)).await
}

pub(crate) async fn remove_dir_all(path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    on_disk_thread(move || fs::remove_dir_all(path)).await
}

pub(crate) async fn sync_dir(path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    on_disk_thread(move || sync(&path)).await
}

pub(crate) async fn exists(path: &Path) -> io::Result<bool> {
    let path = path.to_owned();
    on_disk_thread(move || fs::exists(path)).await
}

pub(crate) async fn read_small(path: &Path, len_max: usize) -> io::Result<Vec<u8>> {
    let path = path.to_owned();
    on_disk_thread(move || read_bounded(&path, len_max)).await
}

fn read_bounded(path: &Path, len_max: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    // One byte more than allowed shows that there is more, however the file grows meanwhile.
    let len_seen_max = (len_max as u64).saturating_add(1);
    fs::File::open(path)?.take(len_seen_max).read_to_end(&mut content)?;
    if content.len() > len_max {
        let message = format!("{} is longer than {len_max} bytes", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(content)
}

pub(crate) async fn write_small(path: &Path, content: Vec<u8>) -> io::Result<()> {
    let path = path.to_owned();
    on_disk_thread(move || replace(&path, &content)).await
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut other = path.as_os_str().to_owned();
    other.push(".tmp");
    let mut file = fs::File::create(&other)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&other, path)?;
    sync(&above(path))
}

pub(crate) async fn space(path: &Path) -> io::Result<Space> {
    let path = path.to_owned();
    on_disk_thread(move || {
        let answer = rustix::fs::statvfs(&path)?;
        Ok(Space {
            total_bytes: answer.f_blocks.saturating_mul(answer.f_frsize),
            available_bytes: answer.f_bavail.saturating_mul(answer.f_frsize),
        })
    })
    .await
}

/// Holds an advisory lock, which the kernel gives up with the last descriptor of this opening.
pub(crate) struct DirLock {
    _file: fs::File,
}

pub(crate) async fn lock_exclusive(path: &Path) -> io::Result<DirLock> {
    let path = path.to_owned();
    on_disk_thread(move || lock(&path)).await
}

fn lock(path: &Path) -> io::Result<DirLock> {
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(DirLock { _file: file }),
        Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}
