//! Damage to the files of a data directory, as a change of their image.

use std::fmt;
use std::path::PathBuf;

use corrente_runtime::buffer::BLOCK;

use super::image::{Block, Image};

/// What kind of damage, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A byte holds another value.
    Byte,
    /// The file ends too soon.
    Cut,
    /// A block holds zeros.
    Zeros,
    /// Two blocks of a file hold each other's bytes.
    Swap,
    /// Two blocks of two files do.
    SwapAcross,
    /// A block holds what it held before.
    StaleBlock,
    /// A block holds what it held in an earlier life of the file.
    EarlierLife,
    /// The whole file is an earlier one.
    StaleFile,
    /// The file is gone.
    Gone,
    /// A byte holds another value, and both checkpoint files are gone.
    WithoutCheckpoint,
    /// A byte comes to hold another value while the broker runs.
    WhileRunning,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Byte => "byte",
            Kind::Cut => "cut",
            Kind::Zeros => "zeroed block",
            Kind::Swap => "swap in the file",
            Kind::SwapAcross => "swap with another file",
            Kind::StaleBlock => "stale block",
            Kind::EarlierLife => "block of an earlier life",
            Kind::StaleFile => "stale file",
            Kind::Gone => "gone",
            Kind::WithoutCheckpoint => "byte, no checkpoint",
            Kind::WhileRunning => "byte, while running",
        })
    }
}

/// One change.
#[derive(Clone)]
pub enum Damage {
    Byte { path: PathBuf, at: usize, value: u8 },
    Cut { path: PathBuf, len: usize },
    Block { block: Block, bytes: Vec<u8> },
    Swap { one: Block, other: Block },
    File { path: PathBuf, content: Vec<u8> },
    Gone { path: PathBuf },
    Several(Vec<Damage>),
}

impl Damage {
    /// The image with this damage.
    pub fn apply(&self, sound: &Image) -> Image {
        let mut image = sound.clone();
        self.apply_to(&mut image);
        image
    }

    fn apply_to(&self, image: &mut Image) {
        match self {
            Damage::Byte { path, at, value } => content(image, path)[*at] = *value,
            Damage::Cut { path, len } => content(image, path).truncate(*len),
            Damage::Block { block, bytes } => put_block(image, block, bytes),
            Damage::Swap { one, other } => {
                let (first, second) = (image.block(one).to_vec(), image.block(other).to_vec());
                put_block(image, one, &second);
                put_block(image, other, &first);
            }
            Damage::File { path, content: earlier } => content(image, path).clone_from(earlier),
            Damage::Gone { path } => drop(image.files.remove(path)),
            Damage::Several(damages) => damages.iter().for_each(|damage| damage.apply_to(image)),
        }
    }
}

fn content<'a>(image: &'a mut Image, path: &PathBuf) -> &'a mut Vec<u8> {
    image.files.get_mut(path).expect("damage is done to files that are there")
}

fn put_block(image: &mut Image, block: &Block, bytes: &[u8]) {
    let content = content(image, &block.path);
    let start = block.number * BLOCK;
    let len = bytes.len().min(content.len() - start);
    content[start..start + len].copy_from_slice(&bytes[..len]);
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let block = |block: &Block| format!("block {} of {}", block.number, block.path.display());
        match self {
            Damage::Byte { path, at, value } => write!(f, "byte {at} of {} is {value:#04x}", path.display()),
            Damage::Cut { path, len } => write!(f, "{} ends at {len}", path.display()),
            Damage::Block { block: at, bytes } if bytes.iter().all(|byte| *byte == 0) => {
                write!(f, "{} holds zeros", block(at))
            }
            Damage::Block { block: at, .. } => write!(f, "{} holds what it held before", block(at)),
            Damage::Swap { one, other } => write!(f, "{} and {} are swapped", block(one), block(other)),
            Damage::File { path, .. } => write!(f, "{} is an earlier one", path.display()),
            Damage::Gone { path } => write!(f, "{} is gone", path.display()),
            Damage::Several(damages) => {
                let lines: Vec<String> = damages.iter().map(Damage::to_string).collect();
                f.write_str(&lines.join("; "))
            }
        }
    }
}
