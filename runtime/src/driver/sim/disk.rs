//! The disk of one simulated node: what it keeps, and what a crash or a kill leaves of it.
//!
//! Names become durable by `sync_dir`, content by flushes; a crash draws for each change that is neither.

use super::{
    image::{Fate, WriteFate},
    operation::Verdict,
    trace::Mark,
    tree::{DirNode, FileNode, Tree},
    world::WorldState,
};
use crate::{buffer::BLOCK, file::Space};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// What a disk holds.
const CAPACITY_BYTES: u64 = 1 << 40;

/// What crashes have done to a disk, in writes and in changes of names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounters {
    /// Crashes so far.
    pub crashes: u64,
    /// Kills so far.
    pub kills: u64,
    /// Writes that were under way at a kill and of which something is there, not flushed.
    pub writes_left_by_kills: u64,
    /// Unflushed writes that survived whole.
    pub writes_kept: u64,
    /// Unflushed writes of which some sectors survived.
    pub writes_torn: u64,
    /// Unflushed writes that left nothing.
    pub writes_lost: u64,
    /// Unsynced names, renames, removals and lengths that survived.
    pub changes_kept: u64,
    /// Unsynced names, renames, removals and lengths that did not.
    pub changes_lost: u64,
}

/// See the module head.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) tree: Tree,
    /// Counts operations and completions: each number is given once.
    numbers: u64,
    locked: BTreeSet<u64>,
    /// When the last operation of each executor completes.
    quiet_at_ns: BTreeMap<u32, u64>,
    ignores_flush: bool,
    counters: DiskCounters,
}

impl Disk {
    pub(crate) fn ignore_flush(&mut self, ignore: bool) {
        self.ignores_flush = ignore;
    }

    pub(crate) fn counters(&self) -> DiskCounters {
        self.counters
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

    /// Makes the names in a directory durable.
    pub(crate) fn sync_dir(&mut self, dir: &DirNode) {
        if !self.ignores_flush {
            self.tree.sync_dir(dir);
        }
    }

    // Space.

    /// A file takes as much as it is long.
    pub(crate) fn space(&self) -> Space {
        let available_bytes = CAPACITY_BYTES.saturating_sub(self.tree.bytes());
        Space { total_bytes: CAPACITY_BYTES, available_bytes }
    }

    // Content.

    /// Ends a write that was begun under the number `operation`.
    pub(crate) fn complete_write(
        &mut self,
        world: &WorldState,
        file: &FileNode,
        operation: u64,
        durable: bool,
        verdict: Verdict,
    ) {
        let completed = self.next_number();
        let mut content = file.data.borrow_mut();
        let (offset, data) = content.end_write(operation);
        let durable = durable && !self.ignores_flush;
        let (data, durable) = match verdict {
            Verdict::Sound => (data, durable),
            Verdict::Killed => self.left_by_kill(world, data, durable),
        };
        content.write(completed, offset, data, durable);
    }

    /// What the machine still does of a write after the kill of its process: all of it, all but the flush, the
    /// first blocks, or nothing.
    fn left_by_kill(&mut self, world: &WorldState, data: Bytes, durable: bool) -> (Bytes, bool) {
        let (len, durable) = match world.draw_below(4) {
            0 => (0, false),
            1 => (data.len(), durable),
            2 => (data.len(), false),
            _ => (world.draw_below(data.len().div_ceil(BLOCK) as u64 + 1) as usize * BLOCK, false),
        };
        let left = data.slice(..len.min(data.len()));
        self.counters.writes_left_by_kills += u64::from(!left.is_empty() && !durable);
        (left, durable)
    }

    pub(crate) fn set_len(&mut self, file: &FileNode, len: u64) {
        let completed = self.next_number();
        file.data.borrow_mut().set_len(completed, len);
    }

    /// Makes durable what completed before the flush was submitted under the number `operation`.
    pub(crate) fn flush(&mut self, file: &FileNode, operation: u64) {
        if !self.ignores_flush {
            file.data.borrow_mut().flush(operation);
        }
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
        let keep_chance = world.config.crash.keep_chance.unwrap_or_else(|| draw_keep_chance(world));
        let mut draw = CrashDraw { world, keep_chance, counters: &mut self.counters };
        draw.counters.crashes += 1;
        self.tree.crash(|| draw.keeps_change());
        for file in self.tree.files() {
            file.data.borrow_mut().crash(&mut draw);
        }
        self.locked.clear();
        self.quiet_at_ns.clear();
        world.note(Mark::DiskCrash, self.counters.writes_kept, self.counters.writes_lost);
    }
}

/// One crash in four loses all that is pending, one in four keeps all, the others something between.
fn draw_keep_chance(world: &WorldState) -> f64 {
    match world.draw_below(4) {
        0 => 0.0,
        1 => 1.0,
        _ => world.draw_below(1_000) as f64 / 1_000.0,
    }
}

/// The draws of one crash.
struct CrashDraw<'a> {
    world: &'a WorldState,
    keep_chance: f64,
    counters: &'a mut DiskCounters,
}

impl CrashDraw<'_> {
    fn keeps_change(&mut self) -> bool {
        let kept = self.world.chance(self.keep_chance);
        self.count_changes(u64::from(kept), u64::from(!kept));
        kept
    }

    fn count_changes(&mut self, kept: u64, lost: u64) {
        self.counters.changes_kept += kept;
        self.counters.changes_lost += lost;
    }

    /// At least one sector is lost and at least one kept; half of the tears are clean cuts.
    fn tear(&mut self, sectors: usize) -> Vec<bool> {
        let cut = 1 + self.world.draw_below(sectors as u64 - 1) as usize;
        if self.world.chance(0.5) {
            return (0..sectors).map(|sector| sector < cut).collect();
        }
        let mut kept: Vec<bool> = (0..sectors).map(|_| self.world.chance(0.5)).collect();
        kept[cut - 1] = true;
        kept[cut] = false;
        kept
    }
}

impl Fate for CrashDraw<'_> {
    fn of_write(&mut self, sectors: usize) -> WriteFate {
        if !self.world.chance(self.keep_chance) {
            self.counters.writes_lost += 1;
            return WriteFate::Lost;
        }
        if sectors > 1 && self.world.chance(self.world.config.crash.tear_chance) {
            self.counters.writes_torn += 1;
            return WriteFate::Torn(self.tear(sectors));
        }
        self.counters.writes_kept += 1;
        WriteFate::Kept
    }

    fn surviving_prefix(&mut self, changes: usize) -> usize {
        let kept = (0..changes).take_while(|_| self.world.chance(self.keep_chance)).count();
        self.count_changes(kept as u64, (changes - kept) as u64);
        kept
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        self.world.shuffle(items);
    }
}
