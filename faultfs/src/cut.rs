//! Cuts the power: builds the image that a disk could hold if everything stopped behind an event of a recording.
//!
//! A flush covers the writes that were done before it was received, once it is done itself. What is covered is on the
//! disk, in order. Every other write that was received is *pending*: a disk may hold all of it, nothing, or some of
//! its sectors, whatever became of the others. Which of those is chosen by a mode and by chance, and chance by a seed.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::event::{Event, Stamped};
use crate::image::Image;
use crate::recording::Recording;

/// What a disk writes whole or not at all.
pub const SECTOR: u64 = 512;

/// A kept write is torn with this probability, where the mode tears.
const TORN: f64 = 0.3;

/// What becomes of the pending writes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// None is kept.
    AllLost,
    /// All are kept, whole.
    AllKept,
    /// Some are kept, in their order, some of those torn.
    Subset,
    /// Some are kept, in any order, some of those torn.
    Shuffled,
    /// Only the one received last is kept, perhaps torn.
    LastOnly,
}

/// All modes.
pub const MODES: [Mode; 5] = [Mode::AllLost, Mode::AllKept, Mode::Subset, Mode::Shuffled, Mode::LastOnly];

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::AllLost => "all-lost",
            Mode::AllKept => "all-kept",
            Mode::Subset => "subset",
            Mode::Shuffled => "shuffled",
            Mode::LastOnly => "last-only",
        })
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Mode, String> {
        let found = MODES.into_iter().find(|mode| mode.to_string() == text);
        found.ok_or_else(|| {
            format!("unknown mode '{text}'; known are {}", MODES.map(|mode| mode.to_string()).join(", "))
        })
    }
}

/// What became of the writes that were pending at one cut, or at many together.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Fates {
    /// All that were pending.
    pub pending: u64,
    /// Those of which nothing is there.
    pub dropped: u64,
    /// Those of which a part is there.
    pub torn: u64,
    /// Those that are there, or a part of them, though one received before is not there in whole.
    pub overtook: u64,
}

impl Fates {
    /// Adds those of another cut.
    pub fn add(&mut self, other: Fates) {
        self.pending += other.pending;
        self.dropped += other.dropped;
        self.torn += other.torn;
        self.overtook += other.overtook;
    }
}

#[derive(Clone, Copy, Debug)]
struct Write {
    offset: u64,
    len: u64,
    payload: Option<u64>,
}

/// How many writes are pending at a cut behind no event of a recording, behind the first, and so on behind all.
pub fn pending_counts(events: &[Stamped]) -> Vec<u64> {
    let (mut received, mut done, mut covered) = (0, 0, 0);
    let mut flushes: BTreeMap<u64, u64> = BTreeMap::new();
    let mut counts = vec![0];
    for stamped in events {
        match stamped.event {
            Event::Write { .. } => received += 1,
            Event::Wrote { .. } => done += 1,
            Event::Flush { id } => drop(flushes.insert(id, done)),
            Event::Flushed { id } => {
                covered = flushes.remove(&id).map_or(covered, |covers| covered.max(covers))
            }
        }
        counts.push(received - covered);
    }
    counts
}

/// Walks forward through a recording, keeping in an image what is on the disk for sure.
///
/// Invariants: `covered` holds exactly the writes that a flush done by now covers; every other one received by now is
/// in `pending`; `done` names pending writes, in the order they were done.
#[derive(Debug)]
pub struct Replayer<'a> {
    recording: &'a Recording,
    covered: Image,
    /// How many events have been walked over.
    at: usize,
    pending: BTreeMap<u64, Write>,
    /// Done and not covered: how many were done before each, and its id.
    done: VecDeque<(u64, u64)>,
    done_count: u64,
    /// Flushes under way: how many writes were done when each was received.
    flushes: BTreeMap<u64, u64>,
}

impl<'a> Replayer<'a> {
    /// At the start of a recording that began on a disk with the content of `base`, which is changed from now on.
    pub fn new(recording: &'a Recording, base: Image) -> Replayer<'a> {
        Replayer {
            recording,
            covered: base,
            at: 0,
            pending: BTreeMap::new(),
            done: VecDeque::new(),
            done_count: 0,
            flushes: BTreeMap::new(),
        }
    }

    /// How many events have been walked over.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Walks on until `event` events are behind.
    ///
    /// # Panics
    /// If that many are behind already and more, or are not there at all.
    pub fn advance(&mut self, event: usize) -> io::Result<()> {
        let len = self.recording.events.len();
        assert!((self.at..=len).contains(&event), "from event {} to {event} of {len}", self.at);
        for at in self.at..event {
            self.take(self.recording.events[at].event)?;
            self.at = at + 1;
        }
        Ok(())
    }

    fn take(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Write { id, offset, len, payload } => {
                self.pending.insert(id, Write { offset, len, payload });
            }
            Event::Wrote { id } => {
                self.done.push_back((self.done_count, id));
                self.done_count += 1;
            }
            Event::Flush { id } => {
                self.flushes.insert(id, self.done_count);
            }
            Event::Flushed { id } => {
                let covers =
                    self.flushes.remove(&id).ok_or_else(|| damaged("a flush done, never received"))?;
                self.cover(covers)?;
            }
        }
        Ok(())
    }

    /// The first `count` writes that were done are on the disk for sure.
    fn cover(&mut self, count: u64) -> io::Result<()> {
        while let Some((before, id)) = self.done.front().copied()
            && before < count
        {
            let write = self.pending.remove(&id).ok_or_else(|| damaged("a write done, never received"))?;
            self.apply(&self.covered, write, 0..write.len)?;
            self.done.pop_front();
        }
        Ok(())
    }

    /// Builds the image at `path` as a cut here could have left it.
    pub fn cut(&self, mode: Mode, seed: u64, path: &Path) -> io::Result<(Image, Fates)> {
        let image = self.covered.copy_to(path)?;
        let mut chance = fastrand::Rng::with_seed(seed);
        let order = self.pending_in_order();
        let kept = choose(mode, order.len(), &mut chance);
        let mut fates = Fates { pending: order.len() as u64, ..Fates::default() };
        let mut whole = vec![false; order.len()];
        let mut there = vec![false; order.len()];
        for place in kept {
            let write = self.pending[&order[place]];
            let tears = !matches!(mode, Mode::AllKept) && write.len > SECTOR && chance.f64() < TORN;
            there[place] = true;
            if tears {
                fates.torn += 1;
                for part in torn(write.len, &mut chance) {
                    self.apply(&image, write, part)?;
                }
            } else {
                whole[place] = true;
                self.apply(&image, write, 0..write.len)?;
            }
        }
        fates.dropped = there.iter().filter(|there| !**there).count() as u64;
        if let Some(first_gap) = whole.iter().position(|whole| !*whole) {
            fates.overtook = there[first_gap + 1..].iter().filter(|there| **there).count() as u64;
        }
        Ok((image, fates))
    }

    /// Ids of pending writes: those done in the order they were done, then those under way as they were received.
    fn pending_in_order(&self) -> Vec<u64> {
        let mut order: Vec<u64> = self.done.iter().map(|(_, id)| *id).collect();
        let done: std::collections::BTreeSet<u64> = order.iter().copied().collect();
        order.extend(self.pending.keys().filter(|id| !done.contains(id)));
        order
    }

    /// Puts a part of a write, in bytes from its beginning, onto an image.
    fn apply(&self, image: &Image, write: Write, part: std::ops::Range<u64>) -> io::Result<()> {
        let (at, len) = (write.offset + part.start, part.end - part.start);
        let Some(payload) = write.payload else { return image.zero_at(at, len) };
        let mut data = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        self.recording.read_payload(&mut data, payload + part.start)?;
        image.write_at(&data, at)
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the recording is damaged: {what}"))
}

/// Which of `count` pending writes are kept, in the order in which they reach the disk.
fn choose(mode: Mode, count: usize, chance: &mut fastrand::Rng) -> Vec<usize> {
    let some = |chance: &mut fastrand::Rng| -> Vec<usize> {
        let kept = chance.f64();
        (0..count).filter(|_| chance.f64() < kept).collect()
    };
    match mode {
        Mode::AllLost => Vec::new(),
        Mode::AllKept => (0..count).collect(),
        Mode::Subset => some(chance),
        Mode::Shuffled => {
            let mut kept = some(chance);
            chance.shuffle(&mut kept);
            kept
        }
        Mode::LastOnly => count.checked_sub(1).into_iter().collect(),
    }
}

/// What is left of a write of `len` bytes: its first sectors, its last, or any; never none, never all.
fn torn(len: u64, chance: &mut fastrand::Rng) -> Vec<std::ops::Range<u64>> {
    let sectors = len.div_ceil(SECTOR);
    let boundary = chance.u64(1..sectors);
    let kept: Vec<u64> = match chance.u8(..4) {
        0 => (0..boundary).collect(),
        1 => (boundary..sectors).collect(),
        _ => {
            let missing = chance.u64(..sectors);
            let present = (missing + boundary) % sectors;
            (0..sectors)
                .filter(|sector| *sector == present || (*sector != missing && chance.bool()))
                .collect()
        }
    };
    kept.into_iter().map(|sector| sector * SECTOR..((sector + 1) * SECTOR).min(len)).collect()
}

#[cfg(test)]
mod tests;
