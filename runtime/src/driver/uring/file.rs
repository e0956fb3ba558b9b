//! Files by direct I/O through the shard's ring.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use io_uring::{opcode, squeue, types};
use rustix::fs::{Mode, OFlags};
use tracing::warn;

use super::executor;
use super::offload::on_disk_thread;
pub(crate) use super::path::{
    DirLock, create_dir_all, exists, link, lock_exclusive, read_dir, read_small, remove_dir_all, remove_file,
    rename, space, sync_dir, write_small,
};
use super::ring::Ring;
use super::slots::{Hold, Memory};
use crate::buffer::{AlignedBuf, BLOCK};
use crate::file::{OpenOptions, Sync};

/// The most one operation moves, in bytes: well below what the kernel takes at once.
const OPERATION_BYTES_MAX: usize = 1 << 30;

/// PLANTED FAULT: this build says that it flushed, and lies. A test of the tests; see `scripts/power-cuts`.
pub(super) const PLANTED_NO_FLUSH: bool = cfg!(feature = "planted-no-flush");

#[derive(Clone)]
pub(crate) struct File {
    ring: Rc<Ring>,
    descriptor: Arc<OwnedFd>,
}

impl File {
    pub(crate) async fn open(path: &Path, options: OpenOptions) -> io::Result<File> {
        let ring = executor::ring();
        let path = path.to_owned();
        let descriptor = on_disk_thread(move || open_direct(&path, options)).await?;
        Ok(File { ring, descriptor: Arc::new(descriptor) })
    }

    pub(crate) async fn read_at(&self, offset: u64, len: usize) -> io::Result<AlignedBuf> {
        let mut buffer = AlignedBuf::with_capacity(len);
        while buffer.len() < len {
            let filled = buffer.len();
            let (answer, memory) = self.read_once(buffer, offset + filled as u64, len - filled).await;
            let Memory::Target(returned) = memory else { unreachable!("a read comes back with its target") };
            buffer = returned;
            let read = match answer {
                Ok(read) => read as usize,
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(error),
            };
            #[expect(unsafe_code, reason = "the kernel has filled what was not initialised")]
            // SAFETY: the kernel wrote `read` bytes right behind those already there.
            unsafe {
                buffer.set_len(filled + read);
            }
            // Within a block only the end of the file stops a direct read.
            if read == 0 || !read.is_multiple_of(BLOCK) {
                break;
            }
        }
        Ok(buffer)
    }

    async fn read_once(&self, buffer: AlignedBuf, offset: u64, len: usize) -> (io::Result<u32>, Memory) {
        let filled = buffer.len();
        assert!(filled + len <= buffer.capacity(), "{filled} + {len} beyond {}", buffer.capacity());
        let target = buffer.start().wrapping_add(filled);
        let entry = opcode::Read::new(self.fd(), target, operation_len(len)).offset(offset).build();
        self.operate(entry, Memory::Target(buffer)).await
    }

    pub(crate) async fn write_at(&self, data: Bytes, offset: u64, sync: Sync) -> io::Result<()> {
        let flags = match sync {
            Sync::No => 0,
            Sync::Data if PLANTED_NO_FLUSH => 0,
            Sync::Data => libc::RWF_DSYNC,
        };
        let mut written = 0;
        while written < data.len() {
            let rest = &data[written..];
            let entry = opcode::Write::new(self.fd(), rest.as_ptr(), operation_len(rest.len()))
                .offset(offset + written as u64)
                .rw_flags(flags)
                .build();
            let (answer, _) = self.operate(entry, Memory::Source(data.clone())).await;
            match answer {
                // What is not whole blocks is written again: direct I/O starts at blocks only.
                Ok(part) if part as usize >= BLOCK || part as usize == rest.len() => {
                    written += part as usize / BLOCK * BLOCK;
                }
                Ok(part) => return Err(stuck(part, rest.len())),
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(crate) async fn sync_data(&self) -> io::Result<()> {
        if PLANTED_NO_FLUSH {
            return Ok(());
        }
        let entry = opcode::Fsync::new(self.fd()).flags(types::FsyncFlags::DATASYNC).build();
        let (answer, _) = self.operate(entry, Memory::None).await;
        answer.map(drop)
    }

    pub(crate) async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        loop {
            let entry = opcode::Fallocate::new(self.fd(), len).offset(offset).build();
            let (answer, _) = self.operate(entry, Memory::None).await;
            match answer {
                Err(error) if is_passing(&error) => {}
                answer => return answer.map(drop),
            }
        }
    }

    pub(crate) async fn set_len(&self, len: u64) -> io::Result<()> {
        let descriptor = self.descriptor.clone();
        on_disk_thread(move || Ok(rustix::fs::ftruncate(&descriptor, len)?)).await
    }

    pub(crate) async fn len(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstat(&self.descriptor)?;
        u64::try_from(stat.st_size).map_err(io::Error::other)
    }

    pub(crate) async fn close(self) -> io::Result<()> {
        match Arc::try_unwrap(self.descriptor) {
            Ok(descriptor) => on_disk_thread(move || drop(descriptor)).await,
            Err(shared) => drop(shared),
        }
        Ok(())
    }

    fn fd(&self) -> types::Fd {
        types::Fd(self.descriptor.as_raw_fd())
    }

    async fn operate(&self, entry: squeue::Entry, memory: Memory) -> (io::Result<u32>, Memory) {
        let hold = Hold { _file: self.descriptor.clone(), memory };
        #[expect(unsafe_code, reason = "the kernel works on memory it is given by address")]
        // SAFETY: the callers above build each entry from this descriptor and from the very memory they
        // pass, within its bounds; moving a buffer or `Bytes` does not move what it points to.
        let operation = unsafe { self.ring.submit(entry, hold) };
        operation.await
    }
}

fn operation_len(len: usize) -> u32 {
    u32::try_from(len.min(OPERATION_BYTES_MAX)).expect("1 GiB fits into 32 bits")
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN))
}

fn stuck(part: u32, len: usize) -> io::Error {
    let message = format!("the file took {part} of {len} bytes, less than a block");
    io::Error::new(io::ErrorKind::WriteZero, message)
}

/// A file system without direct I/O is served through the page cache, which costs speed and memory but
/// no durability: `RWF_DSYNC` and `fdatasync` mean the same there.
fn open_direct(path: &Path, options: OpenOptions) -> io::Result<OwnedFd> {
    static WARNED: AtomicBool = AtomicBool::new(false);

    match rustix::fs::open(path, flags(options) | OFlags::DIRECT, MODE) {
        Err(rustix::io::Errno::INVAL) => {
            if !WARNED.swap(true, Ordering::Relaxed) {
                warn!(path = %path.display(), "this file system has no direct I/O: using the page cache");
            }
            Ok(rustix::fs::open(path, flags(options), MODE)?)
        }
        opened => Ok(opened?),
    }
}

const MODE: Mode = Mode::from_raw_mode(0o644);

fn flags(options: OpenOptions) -> OFlags {
    let mut flags = OFlags::CLOEXEC;
    flags |= match (options.read, options.write) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        (_, false) => OFlags::RDONLY,
    };
    if options.create || options.create_new {
        flags |= OFlags::CREATE;
    }
    if options.create_new {
        flags |= OFlags::EXCL;
    }
    flags
}
