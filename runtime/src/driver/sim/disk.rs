//! The disk of one simulated node: what it keeps, and what crashes, kills and faults leave of it.
//!
//! Names become durable by `sync_dir`, content by flushes; a crash draws for each change that is neither. A
//! file takes as much of the disk as it is long.

use super::{
    counters::{Damage, DiskCounters, Harm},
    fate::{self, CrashDraw},
    fault::{DiskFault, FaultRule, Faults, When},
    image::FlushFate,
    operation::{Kind, Verdict},
    trace::Mark,
    tree::{FileNode, Tree},
    world::WorldState,
};
use crate::{buffer::BLOCK_U64, file::Space};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Range,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

/// What a disk holds unless told otherwise.
const CAPACITY_BYTES: u64 = 1 << 40;
/// What a stall adds.
const STALL_NS: Range<u64> = 1_000_000_000..10_000_000_000;

/// A write that comes to its end.
pub(crate) struct EndingWrite<'a> {
    pub(crate) file: &'a FileNode,
    pub(crate) path: &'a Path,
    /// The number it was begun under.
    pub(crate) operation: u64,
    pub(crate) durable: bool,
}

/// See the module head.
pub(crate) struct Disk {
    pub(crate) tree: Tree,
    faults: Faults,
    /// What fits below a path.
    capacities: BTreeMap<PathBuf, u64>,
    /// Counts operations and completions: each number is given once.
    numbers: u64,
    locked: BTreeSet<u64>,
    /// When the last operation of each executor completes.
    quiet_at_ns: BTreeMap<u32, u64>,
    ignores_flush: bool,
    ignores_sync_data: bool,
    retries_flushes: bool,
    counters: DiskCounters,
    damages: Vec<Damage>,
}

impl Disk {
    pub(crate) fn new(rules: Vec<FaultRule>) -> Self {
        Self {
            tree: Tree::default(),
            faults: Faults::new(rules),
            capacities: BTreeMap::new(),
            numbers: 0,
            locked: BTreeSet::new(),
            quiet_at_ns: BTreeMap::new(),
            ignores_flush: false,
            ignores_sync_data: false,
            retries_flushes: false,
            counters: DiskCounters::default(),
            damages: Vec::new(),
        }
    }

    pub(crate) fn counters(&self) -> DiskCounters {
        self.counters
    }

    pub(crate) fn damages(&self) -> &[Damage] {
        &self.damages
    }

    // Planted faults.

    pub(crate) fn ignore_flush(&mut self, ignore: bool) {
        self.ignores_flush = ignore;
    }

    pub(crate) fn ignore_sync_data(&mut self, ignore: bool) {
        self.ignores_sync_data = ignore;
    }

    pub(crate) fn ignores_sync_data(&self) -> bool {
        self.ignores_sync_data
    }

    pub(crate) fn retry_flushes(&mut self, retry: bool) {
        self.retries_flushes = retry;
    }

    // Faults.

    pub(crate) fn inject(&mut self, rule: FaultRule) {
        self.faults.add(rule);
    }

    pub(crate) fn fail_below(&mut self, below: &Path) {
        let every =
            [DiskFault::ReadError, DiskFault::WriteError, DiskFault::FlushError, DiskFault::NameError];
        for fault in every {
            self.faults.add(FaultRule { fault, when: When::Chance(1.0), below: below.to_owned() });
        }
    }

    pub(crate) fn slow_down(&mut self, factor: u32) {
        self.faults.slow_down(factor);
    }

    pub(crate) fn heal(&mut self) {
        self.faults.heal();
    }

    /// How long an operation that begins now takes, instead of `delay_ns`.
    pub(crate) fn slowed_ns(&mut self, world: &WorldState, kind: Kind, path: &Path, delay_ns: u64) -> u64 {
        let slowness = self.faults.slowness();
        self.counters.slowed += u64::from(slowness > 1);
        let mut slowed_ns = delay_ns.saturating_mul(u64::from(slowness));
        if self.faults.stalls(world, kind, path) {
            self.counters.stalls += 1;
            slowed_ns = slowed_ns.saturating_add(world.draw_in(STALL_NS));
        }
        slowed_ns
    }

    /// What comes of an operation that completes now, and how often that was so.
    pub(crate) fn judge(&mut self, world: &WorldState, kind: Kind, path: &Path) -> Verdict {
        let Some((fault, below)) = self.faults.judge(world, kind, path) else { return Verdict::Sound };
        let counter = match fault {
            DiskFault::ReadError => &mut self.counters.read_errors,
            DiskFault::WriteError => &mut self.counters.write_errors,
            DiskFault::FlushError => &mut self.counters.flush_errors,
            DiskFault::NameError => &mut self.counters.name_errors,
            DiskFault::Stall => &mut self.counters.stalls,
            DiskFault::LostWrite => &mut self.counters.writes_never_made,
            DiskFault::MisdirectedWrite => &mut self.counters.writes_misdirected,
            DiskFault::FlippedRead => &mut self.counters.reads_flipped,
            DiskFault::StaleRead => &mut self.counters.reads_stale,
        };
        *counter += 1;
        Verdict::Fault(fault, below)
    }

    /// An operation of this executor completes then.
    pub(crate) fn busy_until(&mut self, executor: u32, at_ns: u64) {
        let quiet_at_ns = self.quiet_at_ns.entry(executor).or_default();
        *quiet_at_ns = at_ns.max(*quiet_at_ns);
    }

    pub(crate) fn quiet_at_ns(&self, executor: u32) -> u64 {
        self.quiet_at_ns.get(&executor).copied().unwrap_or(0)
    }

    /// A number larger than all before: it orders completions and names operations.
    pub(crate) fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    // Space.

    pub(crate) fn set_capacity(&mut self, below: &Path, bytes: Option<u64>) {
        match bytes {
            Some(bytes) => self.capacities.insert(below.to_owned(), bytes),
            None => self.capacities.remove(below),
        };
    }

    /// The room where `path` lies, whether or not anything is there.
    pub(crate) fn space(&self, path: &Path) -> Space {
        let lowest = path.ancestors().find_map(|above| self.capacities.get_key_value(above));
        let (total_bytes, used) = match lowest {
            Some((below, bytes)) => (*bytes, self.tree.bytes_below(below)),
            None => (CAPACITY_BYTES, self.tree.bytes_below(Path::new("/"))),
        };
        Space { total_bytes, available_bytes: total_bytes.saturating_sub(used) }
    }

    /// How much of `bytes` more still fits where `path` lies; all of it costs nothing to say of a large disk.
    fn fits(&self, path: &Path, bytes: u64) -> u64 {
        if self.capacities.is_empty() { bytes } else { bytes.min(self.space(path).available_bytes) }
    }

    /// Refuses what does not fit.
    pub(crate) fn claim(&mut self, path: &Path, bytes: u64) -> io::Result<()> {
        if self.fits(path, bytes) == bytes {
            return Ok(());
        }
        self.counters.refused_as_full += 1;
        Err(io::ErrorKind::StorageFull.into())
    }

    // Content.

    /// Ends a write as the verdict says. Of one that does not fit the first blocks may be there.
    pub(crate) fn complete_write(
        &mut self,
        world: &WorldState,
        write: &EndingWrite<'_>,
        verdict: Verdict,
    ) -> io::Result<()> {
        let EndingWrite { file, path, operation, durable } = *write;
        let (offset, data) = file.data.borrow_mut().end_write(operation);
        let end = offset + data.len() as u64;
        let growth = end.saturating_sub(file.data.borrow().len());
        if let Err(full) = self.claim(path, growth) {
            let fitting = (end - growth + self.fits(path, growth)).saturating_sub(offset);
            let left = fate::first_blocks(world, &data.slice(..fitting as usize));
            self.put(world, file, offset, left, false);
            return Err(full);
        }
        match verdict {
            Verdict::Sound => self.put(world, file, offset, data, durable),
            Verdict::Killed => {
                let (left, durable) = fate::left_by_kill(world, data, durable);
                self.counters.writes_left_by_kills += u64::from(!left.is_empty() && !durable);
                self.put(world, file, offset, left, durable);
            }
            Verdict::Fault(DiskFault::FlushError, _) => {
                self.put(world, file, offset, data, false);
                return self.fail_flush(world, file, u64::MAX);
            }
            Verdict::Fault(DiskFault::LostWrite, _) => self.never_write(world, write, offset..end),
            Verdict::Fault(DiskFault::MisdirectedWrite, below) => {
                self.never_write(world, write, offset..end);
                self.misdirect(world, &below, &data, durable);
            }
            Verdict::Fault(..) => {
                let left = fate::of_failed_write(world, &data);
                for (at, piece) in left.pieces(offset, &data) {
                    self.put(world, file, at, piece, false);
                }
                return Err(input_output_error());
            }
        }
        Ok(())
    }

    fn put(&mut self, world: &WorldState, file: &FileNode, offset: u64, data: Bytes, durable: bool) {
        let completed = self.next_number();
        let durable = durable && !self.ignores_flush;
        file.data.borrow_mut().write(completed, world.now_ns(), offset, data, durable);
    }

    /// Of a write that never comes the file is as long as if it had.
    fn never_write(&mut self, world: &WorldState, write: &EndingWrite<'_>, range: Range<u64>) {
        if range.end > write.file.data.borrow().len() {
            self.set_len(write.file, range.end);
        }
        self.damaged(world, Harm::NeverWritten, write.path, range);
    }

    /// Puts a write at blocks of a file that reaches so far.
    fn misdirect(&mut self, world: &WorldState, below: &Path, data: &Bytes, durable: bool) {
        let blocks = |file: &FileNode| file.data.borrow().len().saturating_sub(data.len() as u64) / BLOCK_U64;
        let files: Vec<_> =
            self.tree.files_below(below).into_iter().filter(|(_, file)| blocks(file) > 0).collect();
        if let Some((path, file)) = fate::choose(world, &files) {
            let offset = world.draw_below(blocks(file)) * BLOCK_U64;
            self.put(world, file, offset, data.clone(), durable);
            self.damaged(world, Harm::Overwritten, path, offset..offset + data.len() as u64);
        }
    }

    /// Takes a damaged place to the account.
    pub(crate) fn damaged(&mut self, world: &WorldState, harm: Harm, path: &Path, range: Range<u64>) {
        let at = Duration::from_nanos(world.elapsed_ns());
        self.damages.push(Damage { harm, path: path.to_owned(), range, at });
    }

    /// Turns bits over at and below a path, where nothing was written for so long: of any file as likely as of any
    /// other.
    pub(crate) fn rot(&mut self, world: &WorldState, below: &Path, bits: u32, unwritten_ns: u64) {
        for _ in 0..bits {
            let Some(since_ns) = world.now_ns().checked_sub(unwritten_ns) else { return };
            let at_rest = |(path, file): (PathBuf, Rc<FileNode>)| {
                let pages = file.data.borrow().at_rest_since(since_ns);
                (!pages.is_empty()).then_some((path, file, pages))
            };
            let files: Vec<_> = self.tree.files_below(below).into_iter().filter_map(at_rest).collect();
            let Some((path, file, pages)) = fate::choose(world, &files) else { return };
            let offset = *fate::choose(world, pages).expect("pages at rest");
            file.data.borrow_mut().rot(offset, |page| fate::flip_bit(world, page));
            self.damaged(world, Harm::Rotten, path, offset..offset + BLOCK_U64);
            self.counters.bits_rotten += 1;
        }
    }

    pub(crate) fn set_len(&mut self, file: &FileNode, len: u64) {
        let completed = self.next_number();
        file.data.borrow_mut().set_len(completed, len);
    }

    /// Makes durable what completed before the flush was submitted under the number `operation`.
    pub(crate) fn flush(
        &mut self,
        world: &WorldState,
        file: &FileNode,
        operation: u64,
        verdict: Verdict,
    ) -> io::Result<()> {
        match verdict {
            Verdict::Sound | Verdict::Killed if !self.ignores_flush => {
                file.data.borrow_mut().flush(operation)
            }
            Verdict::Sound | Verdict::Killed => {}
            Verdict::Fault(..) => return self.fail_flush(world, file, operation),
        }
        Ok(())
    }

    fn fail_flush(&mut self, world: &WorldState, file: &FileNode, end: u64) -> io::Result<()> {
        let mut given_up = 0;
        file.data.borrow_mut().fail_flush(end, || {
            let fate = fate::of_failed_flush(world);
            given_up += u64::from(fate == FlushFate::GivenUp);
            fate
        });
        self.counters.writes_given_up += given_up;
        if self.retries_flushes {
            file.data.borrow_mut().flush(end);
            return Ok(());
        }
        Err(input_output_error())
    }

    /// Makes the names in a directory durable. If that fails, each may be so or not.
    pub(crate) fn sync_dir(&mut self, world: &WorldState, path: &Path, verdict: Verdict) -> io::Result<()> {
        let dir = self.tree.lookup_dir(path)?;
        match verdict {
            Verdict::Sound | Verdict::Killed if !self.ignores_flush => self.tree.sync_dir(&dir, || true),
            Verdict::Sound | Verdict::Killed => {}
            Verdict::Fault(..) => {
                self.tree.sync_dir(&dir, || world.chance(0.5));
                return Err(input_output_error());
            }
        }
        Ok(())
    }

    // Locks.

    /// Takes the lock of a file; None if somebody holds it.
    pub(crate) fn lock(&mut self, file: &FileNode) -> Option<u64> {
        self.locked.insert(file.id).then_some(file.id)
    }

    pub(crate) fn unlock(&mut self, lock: u64) {
        self.locked.remove(&lock);
    }

    // Crashes and kills.

    /// The process ends and what it had under way has been settled; what is not flushed stays so.
    pub(crate) fn kill(&mut self) {
        self.counters.kills += 1;
        self.locked.clear();
        self.quiet_at_ns.clear();
    }

    /// The power fails. Afterwards names and content are what the platter holds.
    pub(crate) fn crash(&mut self, world: &WorldState) {
        self.counters.crashes += 1;
        let mut draw = CrashDraw::new(world, &mut self.counters);
        self.tree.crash(|| draw.keeps_change());
        for (_, file) in self.tree.files_below(Path::new("/")) {
            file.data.borrow_mut().crash(&mut draw);
        }
        self.locked.clear();
        self.quiet_at_ns.clear();
        world.note(Mark::DiskCrash, self.counters.writes_kept, self.counters.writes_lost);
    }
}

/// What the kernel says of a disk that fails.
pub(crate) fn input_output_error() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}
