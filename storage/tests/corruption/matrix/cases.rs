//! Every case of the matrix for one directory, numbered; which ones depends on the directory and a seed alone.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use corrente_runtime::buffer::BLOCK;

use super::damage::{Damage, Kind};
use super::grown::Grown;
use super::image::Block;
use super::map::{self, MappedFile, Part};

/// Single bits turned over in the bodies of batches, and as many anywhere.
const BODY_BYTES: usize = 2000;
const ANY_BYTES: usize = 500;
/// Bits turned over without a checkpoint, and under a running broker.
const BYTES_BESIDE: usize = 500;
/// Cuts of segments, beside those of every other file.
const CUTS: usize = 200;
const SWAPS: usize = 200;
/// Blocks of one checkpoint file that are zeroed or stale.
const CHECKPOINT_BLOCKS: usize = 30;

/// One damage, where it counts.
pub struct Case {
    pub number: u64,
    pub file: map::Kind,
    pub part: Part,
    pub kind: Kind,
    pub damage: Damage,
}

/// All cases.
pub fn all(grown: &Grown, seed: u64) -> Vec<Case> {
    let mut cases = Cases { grown, rng: fastrand::Rng::with_seed(seed), cases: Vec::new() };
    cases.every_byte_of_headers();
    cases.bits();
    cases.cuts();
    cases.zeros();
    cases.swaps();
    cases.stale();
    cases.gone();
    cases.cases
}

/// At most `count` of every row of the table, drawn.
pub fn some(cases: Vec<Case>, count: usize, seed: u64) -> Vec<Case> {
    let mut cases = cases;
    fastrand::Rng::with_seed(seed).shuffle(&mut cases);
    let mut taken: BTreeMap<_, usize> = BTreeMap::new();
    cases.retain(|case| {
        let taken = taken.entry((case.file, case.part, case.kind)).or_default();
        *taken += 1;
        *taken <= count
    });
    cases
}

struct Cases<'a> {
    grown: &'a Grown,
    rng: fastrand::Rng,
    cases: Vec<Case>,
}

impl<'a> Cases<'a> {
    fn push(&mut self, path: &Path, part: Part, kind: Kind, damage: Damage) {
        let number = self.cases.len() as u64;
        let file = self.grown.map.files[path].kind;
        self.cases.push(Case { number, file, part, kind, damage });
    }

    fn files(&self) -> impl Iterator<Item = (&'a PathBuf, &'a MappedFile, &'a [u8])> + use<'a> {
        let image = &self.grown.image;
        self.grown.map.files.iter().map(|(path, file)| (path, file, image.files[path].as_slice()))
    }

    fn segments(&self) -> Vec<(&'a PathBuf, &'a MappedFile, &'a [u8])> {
        self.files().filter(|(_, file, _)| !file.extents.is_empty()).collect()
    }

    /// Bit flips, zeros and ones in every byte of what files, extents, batches, frames and entries begin with.
    fn every_byte_of_headers(&mut self) {
        for (path, file, _) in self.files() {
            for (part, range) in headers_of(file, self.checkpointed_to(path)) {
                for at in range {
                    self.push_byte_values(path, part, at);
                }
            }
        }
    }

    /// Where the part of a segment ends that stands in the checkpoint, in offsets.
    fn checkpointed_to(&self, path: &Path) -> u64 {
        let dir = path.parent().expect("a file lies in a directory");
        let known = self.grown.logs.iter().find(|(id, _)| super::grown::dir_of(**id) == dir);
        known.map_or(0, |(_, known)| known.checkpointed)
    }

    fn push_byte_values(&mut self, path: &Path, part: Part, at: usize) {
        let sound = self.grown.image.files[path][at];
        let bit = self.rng.u8(..7);
        let mut values = vec![sound ^ (1 << bit), sound ^ (1 << self.rng.u8(bit + 1..8)), 0x00, 0xff];
        values.retain(|value| *value != sound);
        values.sort_unstable();
        values.dedup();
        for value in values {
            self.push(path, part, Kind::Byte, Damage::Byte { path: path.to_owned(), at, value });
        }
    }

    /// Single bits at drawn places.
    fn bits(&mut self) {
        let segments = self.segments();
        for _ in 0..BODY_BYTES {
            let (path, file, _) = self.draw_from(&segments);
            let bodies: Vec<_> = file.stretches.iter().filter(|stretch| stretch.part == Part::Body).collect();
            let range = self.draw_from(&bodies).range.clone();
            let at = self.rng.usize(range);
            let damage = self.turn_bit(path, at);
            self.push(path, Part::Body, Kind::Byte, damage);
        }
        let files: Vec<_> = self.files().collect();
        for (kind, count) in [(Kind::Byte, ANY_BYTES), (Kind::WhileRunning, BYTES_BESIDE)] {
            for _ in 0..count {
                let (path, file, _) = self.draw_from(&files);
                let at = self.draw_byte(file);
                let damage = self.turn_bit(path, at);
                self.push(path, self.grown.map.part(path, at), kind, damage);
            }
        }
        let checkpoints = self.gone_checkpoints();
        for _ in 0..BYTES_BESIDE {
            let (path, file, _) = self.draw_from(&segments);
            let at = self.draw_byte(file);
            let damage = Damage::Several([vec![self.turn_bit(path, at)], checkpoints.clone()].concat());
            self.push(path, self.grown.map.part(path, at), Kind::WithoutCheckpoint, damage);
        }
    }

    fn turn_bit(&mut self, path: &Path, at: usize) -> Damage {
        let value = self.grown.image.files[path][at] ^ (1 << self.rng.u8(..8));
        Damage::Byte { path: path.to_owned(), at, value }
    }

    /// Any part of a file as likely as any other, whatever their lengths.
    fn draw_byte(&mut self, file: &MappedFile) -> usize {
        let parts: Vec<_> = file.stretches.iter().map(|stretch| stretch.part).collect();
        let part = self.draw_from(&parts);
        let of_part: Vec<_> = file.stretches.iter().filter(|stretch| stretch.part == part).collect();
        let range = self.draw_from(&of_part).range.clone();
        self.rng.usize(range)
    }

    fn draw_from<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.usize(..from.len())]
    }

    /// Files that end at the boundaries of extents, in the middle of them, and anywhere.
    fn cuts(&mut self) {
        let segments = self.segments();
        for _ in 0..CUTS {
            let (path, file, content) = self.draw_from(&segments);
            let extent = &file.extents[self.rng.usize(..file.extents.len())];
            let len = match self.rng.u8(..6) {
                0 => extent.range.start,
                1 => extent.range.end,
                2 => extent.range.end.next_multiple_of(64),
                3 => self.rng.usize(extent.range.clone()),
                4 => self.rng.usize(..content.len().div_ceil(BLOCK)) * BLOCK,
                _ => self.rng.usize(..content.len()),
            };
            self.push_cut(path, len, content);
        }
        for (path, _, content) in self.files() {
            for len in [0, 1, content.len() / 2, content.len().saturating_sub(BLOCK), content.len() - 1] {
                self.push_cut(path, len, content);
            }
        }
    }

    fn push_cut(&mut self, path: &Path, len: usize, content: &[u8]) {
        if len < content.len() {
            self.push(path, Part::Whole, Kind::Cut, Damage::Cut { path: path.to_owned(), len });
        }
    }

    fn zeros(&mut self) {
        for (path, file, _) in self.files() {
            let mut blocks = self.grown.image.blocks_of(path);
            blocks.retain(|block| self.holds_something_of(file, block));
            self.thin_checkpoint_blocks(file, &mut blocks);
            for block in blocks {
                self.push(path, Part::Whole, Kind::Zeros, Damage::Block { block, bytes: vec![0; BLOCK] });
            }
        }
    }

    /// Whether a block holds more than zeros, and anything but what lies behind the end.
    fn holds_something_of(&self, file: &MappedFile, block: &Block) -> bool {
        let start = block.number * BLOCK;
        let used = file.stretches.iter().rev().find(|stretch| stretch.part != Part::Behind);
        used.is_some_and(|last| start < last.range.end)
            && self.grown.image.block(block).iter().any(|byte| *byte != 0)
    }

    fn thin_checkpoint_blocks(&mut self, file: &MappedFile, blocks: &mut Vec<Block>) {
        if matches!(file.kind, map::Kind::Checkpoint | map::Kind::OlderCheckpoint) {
            let mut later = blocks.split_off(blocks.len().min(2));
            self.rng.shuffle(&mut later);
            later.truncate(CHECKPOINT_BLOCKS);
            blocks.append(&mut later);
        }
    }

    fn swaps(&mut self) {
        let mut blocks = Vec::new();
        for (path, file, _) in self.files() {
            let mut of_file = self.grown.image.blocks_of(path);
            of_file.retain(|block| self.holds_something_of(file, block));
            self.thin_checkpoint_blocks(file, &mut of_file);
            blocks.extend(of_file);
        }
        let mut left = 2 * SWAPS;
        while left > 0 {
            let (one, other) = (self.rng.choice(&blocks), self.rng.choice(&blocks));
            let (one, other) = (one.expect("blocks").clone(), other.expect("blocks").clone());
            let kind = if one.path == other.path { Kind::Swap } else { Kind::SwapAcross };
            // A file has few blocks: without this hardly a pair would be of one.
            let wanted = if left > SWAPS { Kind::Swap } else { Kind::SwapAcross };
            if kind == wanted && self.grown.image.block(&one) != self.grown.image.block(&other) {
                self.push(&one.path.clone(), Part::Whole, kind, Damage::Swap { one, other });
                left -= 1;
            }
        }
    }

    fn stale(&mut self) {
        for (path, file, _) in self.files() {
            let earlier = self
                .grown
                .earlier_blocks
                .range(first_block(path)..)
                .take_while(|(block, _)| block.path == *path);
            let mut blocks: Vec<Block> = earlier.map(|(block, _)| block.clone()).collect();
            self.thin_checkpoint_blocks(file, &mut blocks);
            for block in blocks {
                for bytes in &self.grown.earlier_blocks[&block] {
                    let damage = Damage::Block { block: block.clone(), bytes: bytes.clone() };
                    self.push(path, Part::Whole, Kind::StaleBlock, damage);
                }
            }
            for content in self.grown.earlier_files.get(path).into_iter().flatten() {
                let damage = Damage::File { path: path.clone(), content: content.clone() };
                self.push(path, Part::Whole, Kind::StaleFile, damage);
            }
            if let Some(life) = self.grown.earlier_lives.get(path) {
                for block in self.grown.image.blocks_of(path) {
                    let bytes = life.chunks(BLOCK).nth(block.number).unwrap_or_default().to_vec();
                    if self.holds_something_of(file, &block) && !bytes.is_empty() {
                        self.push(path, Part::Whole, Kind::EarlierLife, Damage::Block { block, bytes });
                    }
                }
            }
        }
    }

    fn gone(&mut self) {
        for (path, _, _) in self.files() {
            self.push(path, Part::Whole, Kind::Gone, Damage::Gone { path: path.clone() });
        }
        // Whole directories: of each log, of all logs, of the checkpoints.
        let below = |dir: &Path| {
            let files = self.files().filter(|(path, _, _)| path.starts_with(dir));
            files.map(|(path, _, _)| Damage::Gone { path: path.clone() }).collect::<Vec<_>>()
        };
        let mut dirs: Vec<PathBuf> = self.grown.logs.keys().map(|id| super::grown::dir_of(*id)).collect();
        dirs.push(super::common::data_dir().join("topics"));
        dirs.push(super::common::data_dir().join("checkpoint"));
        for damages in dirs.iter().map(|dir| below(dir)).collect::<Vec<_>>() {
            let Some(Damage::Gone { path }) = damages.first().cloned() else { continue };
            self.push(&path, Part::Whole, Kind::Gone, Damage::Several(damages));
        }
    }

    fn gone_checkpoints(&self) -> Vec<Damage> {
        let checkpoints = self
            .files()
            .filter(|(_, file, _)| matches!(file.kind, map::Kind::Checkpoint | map::Kind::OlderCheckpoint));
        checkpoints.map(|(path, _, _)| Damage::Gone { path: path.clone() }).collect()
    }
}

fn first_block(path: &Path) -> Block {
    Block { path: path.to_owned(), number: 0 }
}

/// The headers in a file whose every byte is tried: all of them, but of many of a kind the first, the middle and the
/// last, and those that are not in the checkpoint yet.
fn headers_of(file: &MappedFile, checkpointed_to: u64) -> Vec<(Part, Range<usize>)> {
    let mut chosen: Vec<(Part, Range<usize>)> = Vec::new();
    let of = |wanted: Part| -> Vec<Range<usize>> {
        let of_part = file.stretches.iter().filter(|stretch| stretch.part == wanted);
        of_part.map(|stretch| stretch.range.clone()).collect()
    };
    for part in [Part::Header, Part::Frame, Part::Entry] {
        chosen.extend(first_middle_last(&of(part)).into_iter().map(|range| (part, range)));
    }
    if file.kind == map::Kind::Index {
        chosen.extend(of(Part::Body).into_iter().map(|range| (Part::Body, range)));
    }
    let (settled, newest): (Vec<_>, Vec<_>) =
        file.extents.iter().partition(|extent| extent.offsets.end <= checkpointed_to);
    for extent in first_middle_last(&settled).into_iter().chain(newest) {
        let inside = |stretch: &&map::Stretch| extent.range.contains(&stretch.range.start);
        let mut stretches = file.stretches.iter().filter(inside);
        chosen.extend(stretches.next().map(|stretch| (stretch.part, stretch.range.clone())));
        chosen.extend(stretches.next().map(|stretch| (stretch.part, stretch.range.clone())));
    }
    chosen
}

fn first_middle_last<T: Clone>(items: &[T]) -> Vec<T> {
    let mut at = vec![0, items.len() / 2, items.len().saturating_sub(1)];
    at.dedup();
    at.into_iter().filter_map(|at| items.get(at).cloned()).collect()
}
