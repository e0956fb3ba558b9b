//! Files and directories on the disk of a simulated node.

use super::{
    context::{self, Context, Life},
    counters::Harm,
    disk::{Disk, EndingWrite, input_output_error},
    fate,
    fault::DiskFault,
    image::own_copy,
    operation::{Kind, Operation, Request, Verdict, submit},
    trace::fingerprint,
    tree::{Entry, FileNode},
    world::WorldState,
};
use crate::{
    buffer::{AlignedBuf, BLOCK},
    file::{DirEntry, OpenOptions, Space, Sync},
};
use bytes::Bytes;
use std::{
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

/// What a new name needs of the disk.
const NAME_BYTES: u64 = 4096;

/// An open file. Clones share it.
#[derive(Clone)]
pub(crate) struct File {
    open: Rc<OpenFile>,
}

struct OpenFile {
    file: Rc<FileNode>,
    /// As it was opened.
    path: Rc<Path>,
    context: Context,
    options: OpenOptions,
}

impl File {
    pub(crate) async fn open(path: &Path, options: OpenOptions) -> io::Result<File> {
        let context = context::current();
        let owned = path.to_owned();
        let file = metadata(Kind::Change, "open", path, move |disk| open_node(disk, &owned, options)).await?;
        Ok(File { open: Rc::new(OpenFile { file, path: path.into(), context, options }) })
    }

    pub(crate) async fn read_at(&self, offset: u64, len: usize) -> io::Result<AlignedBuf> {
        allowed(self.open.options.read)?;
        let world = &self.open.context.world;
        let delay_ns = world.draw_delay_ns(&world.config.disk.read) + transfer_ns(world, len);
        let file = self.open.file.clone();
        let request = self.request(Kind::Read, delay_ns, offset ^ len as u64);
        let path = self.open.path.clone();
        submit(&self.open.context, request, move |world, disk, verdict| {
            let mut buffer = AlignedBuf::zeroed(len);
            let there = file.data.borrow().read(offset, &mut buffer);
            buffer.truncate(there);
            misread(world, disk, &Read { file: &file, path: &path, offset }, &mut buffer, verdict)?;
            Ok(buffer)
        })
        .await
    }

    pub(crate) async fn write_at(&self, data: Bytes, offset: u64, sync: Sync) -> io::Result<()> {
        allowed(self.open.options.write)?;
        let copy = own_copy(&data);
        drop(data);
        self.write(copy, offset, sync).await
    }

    /// Any length and position. The write is in flight once this returns.
    fn write(&self, data: Bytes, offset: u64, sync: Sync) -> Operation<()> {
        let world = &self.open.context.world;
        let durable = sync == Sync::Data;
        let flush_ns = if durable { world.draw_delay_ns(&world.config.disk.flush) } else { 0 };
        let write_ns = world.draw_delay_ns(&world.config.disk.write) + transfer_ns(world, data.len());
        let kind = if durable { Kind::DurableWrite } else { Kind::Write };
        let request = self.request(kind, write_ns + flush_ns, fingerprint(&data) ^ offset);
        let path = self.open.path.clone();
        let file = self.open.file.clone();
        let operation = self.next_number();
        if world.is_alive(self.open.context.life) {
            file.data.borrow_mut().begin_write(operation, offset, data);
        }
        submit(&self.open.context, request, move |world, disk, verdict| {
            let write = EndingWrite { file: &file, path: &path, operation, durable };
            disk.complete_write(world, &write, verdict)
        })
    }

    pub(crate) async fn sync_data(&self) -> io::Result<()> {
        let Context { world, life, .. } = &self.open.context;
        let ignored = world.nodes.borrow()[life.node].disk.ignores_sync_data();
        if ignored { Ok(()) } else { self.flush().await }
    }

    async fn flush(&self) -> io::Result<()> {
        let world = &self.open.context.world;
        let delay_ns = world.draw_delay_ns(&world.config.disk.flush);
        let file = self.open.file.clone();
        let operation = self.next_number();
        let request = self.request(Kind::Flush, delay_ns, operation);
        submit(&self.open.context, request, move |world, disk, verdict| {
            disk.flush(world, &file, operation, verdict)
        })
        .await
    }

    pub(crate) async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = offset.checked_add(len).ok_or(io::ErrorKind::FileTooLarge)?;
        let path = self.open.path.clone();
        self.change_len(move |disk, now| {
            disk.claim(&path, end.saturating_sub(now))?;
            Ok(now.max(end))
        })
        .await
    }

    pub(crate) async fn set_len(&self, len: u64) -> io::Result<()> {
        self.change_len(move |_, _| Ok(len)).await
    }

    async fn change_len(
        &self,
        len_after: impl FnOnce(&mut Disk, u64) -> io::Result<u64> + 'static,
    ) -> io::Result<()> {
        allowed(self.open.options.write)?;
        let file = self.open.file.clone();
        self.metadata(Kind::Change, move |disk| {
            let now = file.data.borrow().len();
            let len = len_after(disk, now)?;
            if len != now {
                disk.set_len(&file, len);
            }
            Ok(())
        })
        .await
    }

    pub(crate) async fn len(&self) -> io::Result<u64> {
        let file = self.open.file.clone();
        self.metadata(Kind::Recall, move |_| Ok(file.data.borrow().len())).await
    }

    pub(crate) async fn close(self) -> io::Result<()> {
        self.metadata(Kind::Recall, |_| Ok(())).await
    }

    fn metadata<T: 'static>(
        &self,
        kind: Kind,
        apply: impl FnOnce(&mut Disk) -> io::Result<T> + 'static,
    ) -> Operation<T> {
        let world = &self.open.context.world;
        let delay_ns = world.draw_delay_ns(&world.config.disk.metadata);
        let request = self.request(kind, delay_ns, delay_ns);
        submit(&self.open.context, request, move |_, disk, verdict| sound(verdict).and_then(|()| apply(disk)))
    }

    fn request(&self, kind: Kind, delay_ns: u64, fingerprint: u64) -> Request {
        Request { kind, path: self.open.path.clone(), delay_ns, fingerprint }
    }

    fn next_number(&self) -> u64 {
        let Context { world, life, .. } = &self.open.context;
        world.nodes.borrow_mut()[life.node].disk.next_number()
    }
}

fn open_node(disk: &mut Disk, path: &Path, options: OpenOptions) -> io::Result<Rc<FileNode>> {
    match disk.tree.lookup(path) {
        Ok(_) if options.create_new => Err(io::ErrorKind::AlreadyExists.into()),
        Ok(Entry::File(file)) => Ok(file),
        Ok(Entry::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && (options.create || options.create_new) => {
            let place = disk.tree.place(path)?;
            disk.claim(path, NAME_BYTES)?;
            Ok(disk.tree.create_file(place))
        }
        Err(error) => Err(error),
    }
}

/// Of an operation that a disk's failure keeps from happening.
fn sound(verdict: Verdict) -> io::Result<()> {
    match verdict {
        Verdict::Sound | Verdict::Killed => Ok(()),
        Verdict::Fault(..) => Err(input_output_error()),
    }
}

/// Makes of what a read has found what the verdict says.
fn misread(
    world: &WorldState,
    disk: &mut Disk,
    read: &Read<'_>,
    found: &mut [u8],
    verdict: Verdict,
) -> io::Result<()> {
    let fault = match verdict {
        Verdict::Fault(fault @ (DiskFault::FlippedRead | DiskFault::StaleRead), _) => fault,
        verdict => return sound(verdict),
    };
    let blocks = found.len().div_ceil(BLOCK) as u64;
    if blocks == 0 {
        return Ok(());
    }
    let start = world.draw_below(blocks) as usize * BLOCK;
    let end = found.len().min(start + BLOCK);
    let offset = read.offset + start as u64;
    if fault == DiskFault::StaleRead {
        read.file.data.borrow().read_before(offset, &mut found[start..end]);
    } else {
        fate::flip_bit(world, &mut found[start..end]);
    }
    disk.damaged(world, Harm::Misread, read.path, offset..offset + (end - start) as u64);
    Ok(())
}

/// Where a read looks.
struct Read<'a> {
    file: &'a FileNode,
    path: &'a Path,
    offset: u64,
}

/// What the kernel calls a bad descriptor.
fn allowed(by_options: bool) -> io::Result<()> {
    if by_options { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

fn transfer_ns(world: &WorldState, len: usize) -> u64 {
    len as u64 * world.config.disk.nanos_per_kib / 1024
}

/// An operation on names, which takes the time of one.
fn metadata<T: 'static>(
    kind: Kind,
    what: &str,
    path: &Path,
    apply: impl FnOnce(&mut Disk) -> io::Result<T> + 'static,
) -> Operation<T> {
    let context = context::current();
    let delay_ns = context.world.draw_delay_ns(&context.world.config.disk.metadata);
    let request = Request { kind, path: path.into(), delay_ns, fingerprint: name_print(what, path) };
    submit(&context, request, move |_, disk, verdict| sound(verdict).and_then(|()| apply(disk)))
}

fn name_print(what: &str, path: &Path) -> u64 {
    fingerprint(what.as_bytes()) ^ fingerprint(path.as_os_str().as_encoded_bytes())
}

/// Each step may be the last one before a crash. As on a machine the lowest name that is there is flushed too.
pub(crate) async fn create_dir_all(path: &Path) -> io::Result<()> {
    let above = path.parent().unwrap_or(Path::new(""));
    if !exists(path).await? {
        Box::pin(create_dir_all(above)).await?;
    }
    let owned = path.to_owned();
    metadata(Kind::Change, "create_dir", path, move |disk| {
        if disk.tree.lookup(&owned).is_err() {
            disk.claim(&owned, NAME_BYTES)?;
        }
        disk.tree.create_dir(&owned)
    })
    .await?;
    sync_dir(above).await
}

pub(crate) async fn read_dir(path: &Path) -> io::Result<Vec<DirEntry>> {
    let owned = path.to_owned();
    metadata(Kind::Look, "read_dir", path, move |disk| {
        let listed = disk.tree.lookup_dir(&owned)?.list();
        Ok(listed.into_iter().map(|(name, entry)| describe(name, &entry)).collect())
    })
    .await
}

fn describe(name: String, entry: &Entry) -> DirEntry {
    match entry {
        Entry::Dir(_) => DirEntry { name, is_dir: true, len: 0 },
        Entry::File(file) => DirEntry { name, is_dir: false, len: file.data.borrow().len() },
    }
}

pub(crate) async fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let owned = (from.to_owned(), to.to_owned());
    metadata(Kind::Change, "rename", to, move |disk| disk.tree.rename(&owned.0, &owned.1)).await
}

pub(crate) async fn link(from: &Path, to: &Path) -> io::Result<()> {
    let owned = (from.to_owned(), to.to_owned());
    metadata(Kind::Change, "link", to, move |disk| {
        disk.claim(&owned.1, NAME_BYTES)?;
        disk.tree.link(&owned.0, &owned.1)
    })
    .await
}

pub(crate) async fn remove_file(path: &Path) -> io::Result<()> {
    let owned = path.to_owned();
    metadata(Kind::Change, "remove_file", path, move |disk| disk.tree.remove_file(&owned)).await
}

/// Each step may be the last one before a crash.
pub(crate) async fn remove_dir_all(path: &Path) -> io::Result<()> {
    for entry in read_dir(path).await? {
        let path = path.join(entry.name);
        if entry.is_dir {
            Box::pin(remove_dir_all(&path)).await?;
        } else {
            remove_file(&path).await?;
        }
    }
    let owned = path.to_owned();
    metadata(Kind::Change, "remove_dir", path, move |disk| disk.tree.remove_dir(&owned)).await
}

pub(crate) async fn sync_dir(path: &Path) -> io::Result<()> {
    let context = context::current();
    let delay_ns = context.world.draw_delay_ns(&context.world.config.disk.flush);
    let owned: Rc<Path> = path.into();
    let fingerprint = name_print("sync_dir", path);
    let request = Request { kind: Kind::Flush, path: owned.clone(), delay_ns, fingerprint };
    submit(&context, request, move |world, disk, verdict| disk.sync_dir(world, &owned, verdict)).await
}

pub(crate) async fn exists(path: &Path) -> io::Result<bool> {
    let owned = path.to_owned();
    metadata(Kind::Look, "exists", path, move |disk| match disk.tree.lookup(&owned) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    })
    .await
}

pub(crate) async fn read_small(path: &Path, len_max: usize) -> io::Result<Vec<u8>> {
    let owned = path.to_owned();
    let context = context::current();
    let delay_ns = context.world.draw_delay_ns(&context.world.config.disk.metadata);
    let fingerprint = name_print("read_small", path);
    let request = Request { kind: Kind::Read, path: path.into(), delay_ns, fingerprint };
    submit(&context, request, move |world, disk, verdict| {
        let Entry::File(file) = disk.tree.lookup(&owned)? else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        let data = file.data.borrow();
        let len = usize::try_from(data.len()).unwrap_or(usize::MAX);
        if len > len_max {
            let message = format!("{} holds {len} bytes, more than {len_max}", owned.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let mut content = vec![0; len];
        data.read(0, &mut content);
        drop(data);
        misread(world, disk, &Read { file: &file, path: &owned, offset: 0 }, &mut content, verdict)?;
        Ok(content)
    })
    .await
}

/// Each step may be the last one before a crash, as on a real disk.
pub(crate) async fn write_small(path: &Path, content: Vec<u8>) -> io::Result<()> {
    let interim = interim_path(path)?;
    let options = OpenOptions { read: false, write: true, create: true, create_new: false };
    let file = File::open(&interim, options).await?;
    file.set_len(0).await?;
    file.write(Bytes::from(content), 0, Sync::No).await?;
    file.flush().await?;
    rename(&interim, path).await?;
    sync_dir(path.parent().unwrap_or(Path::new(""))).await
}

fn interim_path(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".tmp");
    Ok(path.with_file_name(name))
}

pub(crate) async fn space(path: &Path) -> io::Result<Space> {
    let owned = path.to_owned();
    metadata(Kind::Recall, "space", path, move |disk| disk.tree.lookup(&owned).map(|_| disk.space(&owned)))
        .await
}

/// Released when dropped, or by a crash.
pub(crate) struct DirLock {
    world: Rc<WorldState>,
    life: Life,
    lock: u64,
}

pub(crate) async fn lock_exclusive(path: &Path) -> io::Result<DirLock> {
    let Context { world, life, .. } = context::current();
    let owned = path.to_owned();
    metadata(Kind::Change, "lock_exclusive", path, move |disk| {
        let options = OpenOptions { read: true, write: true, create: true, create_new: false };
        let file = open_node(disk, &owned, options)?;
        let lock = disk.lock(&file).ok_or(io::ErrorKind::WouldBlock)?;
        Ok(DirLock { world, life, lock })
    })
    .await
}

impl Drop for DirLock {
    fn drop(&mut self) {
        if self.world.is_alive(self.life) {
            self.world.nodes.borrow_mut()[self.life.node].disk.unlock(self.lock);
        }
    }
}
