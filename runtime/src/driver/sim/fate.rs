//! The draws: what chance makes of writes and changes that a disk has not, or not wholly, made durable.

use super::{
    counters::DiskCounters,
    image::{Fate, FlushFate, SECTOR, WriteFate},
    world::WorldState,
};
use crate::buffer::BLOCK;
use bytes::Bytes;

/// The draws of one crash.
pub(crate) struct CrashDraw<'a> {
    world: &'a WorldState,
    keep_chance: f64,
    counters: &'a mut DiskCounters,
}

impl<'a> CrashDraw<'a> {
    pub(crate) fn new(world: &'a WorldState, counters: &'a mut DiskCounters) -> Self {
        let keep_chance = world.config.crash.keep_chance.unwrap_or_else(|| draw_keep_chance(world));
        Self { world, keep_chance, counters }
    }

    pub(crate) fn keeps_change(&mut self) -> bool {
        let kept = self.world.chance(self.keep_chance);
        self.count_changes(u64::from(kept), u64::from(!kept));
        kept
    }

    fn count_changes(&mut self, kept: u64, lost: u64) {
        self.counters.changes_kept += kept;
        self.counters.changes_lost += lost;
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

impl Fate for CrashDraw<'_> {
    fn of_write(&mut self, sectors: usize) -> WriteFate {
        if !self.world.chance(self.keep_chance) {
            self.counters.writes_lost += 1;
            return WriteFate::Lost;
        }
        if sectors > 1 && self.world.chance(self.world.config.crash.tear_chance) {
            self.counters.writes_torn += 1;
            return WriteFate::Torn(tear(self.world, sectors));
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

/// At least one sector is lost and at least one kept; half of the tears are clean cuts.
fn tear(world: &WorldState, sectors: usize) -> Vec<bool> {
    let cut = 1 + world.draw_below(sectors as u64 - 1) as usize;
    if world.chance(0.5) {
        return (0..sectors).map(|sector| sector < cut).collect();
    }
    let mut kept: Vec<bool> = (0..sectors).map(|_| world.chance(0.5)).collect();
    kept[cut - 1] = true;
    kept[cut] = false;
    kept
}

/// The first blocks of a write, none and all of them included.
pub(crate) fn first_blocks(world: &WorldState, data: &Bytes) -> Bytes {
    let blocks = data.len().div_ceil(BLOCK) as u64;
    let len = world.draw_below(blocks + 1) as usize * BLOCK;
    data.slice(..len.min(data.len()))
}

/// What the machine still does of a write after the kill of its process: all of it, all but the flush, the
/// first blocks, or nothing.
pub(crate) fn left_by_kill(world: &WorldState, data: Bytes, durable: bool) -> (Bytes, bool) {
    match world.draw_below(4) {
        0 => (Bytes::new(), false),
        1 => (data, durable),
        2 => (data, false),
        _ => (first_blocks(world, &data), false),
    }
}

/// What a write that fails leaves: old bytes, new ones, or some sectors of each.
pub(crate) fn of_failed_write(world: &WorldState, data: &Bytes) -> WriteFate {
    let sectors = data.len().div_ceil(SECTOR);
    match world.draw_below(3) {
        0 => WriteFate::Lost,
        1 if sectors > 1 => WriteFate::Torn(tear(world, sectors)),
        _ => WriteFate::Kept,
    }
}

/// What a flush that fails has done with a write.
pub(crate) fn of_failed_flush(world: &WorldState) -> FlushFate {
    match world.draw_below(3) {
        0 => FlushFate::Durable,
        1 => FlushFate::Pending,
        _ => FlushFate::GivenUp,
    }
}

/// Turns one bit over; of nothing there is none.
pub(crate) fn flip_bit(world: &WorldState, bytes: &mut [u8]) {
    if !bytes.is_empty() {
        let bit = world.draw_below(bytes.len() as u64 * 8);
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    }
}

/// One of so many things; None of none.
pub(crate) fn choose<'a, T>(world: &WorldState, of: &'a [T]) -> Option<&'a T> {
    (!of.is_empty()).then(|| &of[world.draw_below(of.len() as u64) as usize])
}
