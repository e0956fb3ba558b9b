//! The device as the one file of a FUSE mount: receives in order on one thread, does on several.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, Session, WriteFlags,
};
use rustix::io::Errno;

use crate::device::{Device, PendingFlush, PendingRead, PendingWrite};

/// The name of the file.
pub const DISK: &str = "disk";

const DISK_INODE: INodeNo = INodeNo(2);
/// Operations done at the same time; a disk has a queue too.
const WORKERS: usize = 16;
/// The kernel keeps this many requests under way; its default of 12 would make every queue shallow.
const IN_FLIGHT_MAX: u16 = 512;
/// Nothing ever changes but the content, which the kernel does not cache.
const FOREVER: Duration = Duration::from_secs(86_400);

/// A mounted disk. Unmounted when dropped, if nobody uses it any more.
#[derive(Debug)]
pub struct Mount {
    session: Option<BackgroundSession>,
    workers: Vec<JoinHandle<()>>,
    disk: PathBuf,
}

impl Mount {
    /// Mounts `device` at the directory `at`.
    pub fn new(device: Arc<Device>, at: &Path) -> io::Result<Mount> {
        let (jobs, inbox) = mpsc::channel();
        let inbox = Arc::new(Mutex::new(inbox));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("faultfs".into()), MountOption::NoAtime];
        let files = Files { device: Arc::clone(&device), jobs };
        let session = Session::new(files, at, &config)?.spawn()?;
        let worker = |_| {
            let (device, inbox) = (Arc::clone(&device), Arc::clone(&inbox));
            thread::spawn(move || work(&device, &inbox))
        };
        let workers = (0..WORKERS).map(worker).collect();
        Ok(Mount { session: Some(session), workers, disk: at.join(DISK) })
    }

    /// The path of the one file.
    pub fn disk(&self) -> &Path {
        &self.disk
    }

    /// Waits until somebody else has unmounted it.
    pub fn wait(mut self) -> io::Result<()> {
        self.session.take().map_or(Ok(()), BackgroundSession::join)
    }

    /// Unmounts it; fails while the file is in use.
    pub fn unmount(mut self) -> io::Result<()> {
        self.session.take().map_or(Ok(()), BackgroundSession::umount_and_join)?;
        for worker in self.workers.drain(..) {
            worker.join().map_err(|_| io::Error::other("a worker of the disk panicked"))?;
        }
        Ok(())
    }
}

/// What is left to do after it was received, and where the answer goes.
enum Job {
    Read(PendingRead, ReplyData),
    Write(PendingWrite, ReplyWrite),
    Flush(PendingFlush, ReplyEmpty),
}

fn work(device: &Device, inbox: &Mutex<Receiver<Job>>) {
    loop {
        let job = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        // The senders are gone: the mount is.
        let Ok(job) = job else { return };
        match job {
            Job::Read(pending, reply) => {
                thread::sleep(pending.delay);
                match device.read(pending) {
                    Ok(data) => reply.data(&data),
                    Err(errno) => reply.error(of_fuse(errno)),
                }
            }
            Job::Write(pending, reply) => {
                thread::sleep(pending.delay);
                match device.write(pending) {
                    Ok(taken) => reply.written(taken),
                    Err(errno) => reply.error(of_fuse(errno)),
                }
            }
            Job::Flush(pending, reply) => {
                thread::sleep(pending.delay);
                match device.flush(pending) {
                    Ok(()) => reply.ok(),
                    Err(errno) => reply.error(of_fuse(errno)),
                }
            }
        }
    }
}

fn of_fuse(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.raw_os_error())
}

/// A directory with one file.
struct Files {
    device: Arc<Device>,
    jobs: Sender<Job>,
}

impl Files {
    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let (kind, perm, size, nlink) = match inode {
            INodeNo::ROOT => (FileType::Directory, 0o700, 0, 2),
            DISK_INODE => (FileType::RegularFile, 0o600, self.device.len(), 1),
            _ => return None,
        };
        Some(FileAttr {
            ino: inode,
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    /// Workers outlive the session that calls this; without them the dropped reply answers with an error.
    fn queue(&self, job: Job) {
        let _ = self.jobs.send(job);
    }
}

impl Filesystem for Files {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Without it a direct write would wait for the one before, and no cut would find several under way.
        config
            .add_capabilities(InitFlags::FUSE_ASYNC_DIO)
            .map_err(|_| io::Error::other("this kernel's FUSE has no asynchronous direct I/O"))?;
        let refused = |bound: u16| io::Error::other(format!("FUSE takes a background of {bound}"));
        config.set_max_background(IN_FLIGHT_MAX).map_err(refused)?;
        config.set_congestion_threshold(IN_FLIGHT_MAX).map_err(refused)?;
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.attributes(DISK_INODE) {
            Some(disk) if parent == INodeNo::ROOT && name == DISK => {
                reply.entry(&FOREVER, &disk, Generation(0));
            }
            _ => reply.error(fuser::Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(attributes) => reply.attr(&FOREVER, &attributes),
            None => reply.error(fuser::Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let direct = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        reply.opened(FileHandle(0), direct);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.queue(Job::Read(self.device.receive_read(offset, size), reply));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.queue(Job::Write(self.device.receive_write(offset, data), reply));
    }

    /// Somebody closed the file: nothing of the disk's concern.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.queue(Job::Flush(self.device.receive_flush(), reply));
    }

    /// The disk has no discard and cannot write zeros by itself: the kernel writes them out, and they are recorded.
    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, _: u64, _: i32, reply: ReplyEmpty) {
        reply.error(fuser::Errno::EOPNOTSUPP);
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        if inode != INodeNo::ROOT {
            return reply.error(fuser::Errno::ENOTDIR);
        }
        let entries = [
            (INodeNo::ROOT, FileType::Directory, "."),
            (INodeNo::ROOT, FileType::Directory, ".."),
            (DISK_INODE, FileType::RegularFile, DISK),
        ];
        for (next, (inode, kind, name)) in (1..).zip(entries).skip(usize::try_from(offset).unwrap_or(3)) {
            if reply.add(inode, next, kind, name) {
                break;
            }
        }
        reply.ok();
    }
}
