//! The files of a data directory as bytes, off the disk and onto it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use corrente_runtime::buffer::BLOCK;
use corrente_runtime::file::{self, File, OpenOptions, Sync};

use super::common::data_dir;

/// No file of a grown directory is longer.
const FILE_LEN_MAX: usize = 16 << 20;
/// What a start locks or empties: it holds nothing.
const NOT_KEPT: [&str; 2] = ["lock", "pool"];

/// Every file, by its path.
#[derive(Clone, Debug, Default)]
pub struct Image {
    pub files: BTreeMap<PathBuf, Vec<u8>>,
}

/// A block of a file, by its number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block {
    pub path: PathBuf,
    pub number: usize,
}

impl Image {
    /// Reads the data directory of the node this runs on.
    pub async fn take() -> Image {
        let mut image = Image::default();
        let mut below = vec![data_dir()];
        while let Some(dir) = below.pop() {
            for entry in file::read_dir(&dir).await.expect("a directory just listed") {
                let path = dir.join(&entry.name);
                if NOT_KEPT.contains(&entry.name.as_str()) {
                    continue;
                }
                if entry.is_dir {
                    below.push(path);
                } else {
                    let content = file::read_small(&path, FILE_LEN_MAX).await.expect("a small file");
                    image.files.insert(path, content);
                }
            }
        }
        image
    }

    /// Puts every file onto the disk of the node this runs on.
    pub async fn put(&self) {
        for (path, content) in &self.files {
            let dir = path.parent().expect("a file lies in a directory");
            file::create_dir_all(dir).await.expect("a directory");
            file::write_small(path, content.clone()).await.expect("a file");
        }
    }

    /// Brings what differs in another image onto the disk, where this one is, under whoever has the files open.
    pub async fn rot_into(&self, other: &Image) {
        let differs = |(path, content): &(&PathBuf, &Vec<u8>)| other.files.get(*path) != Some(*content);
        for (path, content) in self.files.iter().filter(differs).filter(|(_, content)| content.len() < BLOCK)
        {
            assert_eq!(other.files[path].len(), content.len(), "{} rots", path.display());
            file::write_small(path, other.files[path].clone()).await.expect("a file");
        }
        for block in self.differing(other) {
            let file = File::open(&block.path, OpenOptions::READ_WRITE).await.expect("a file of the image");
            let at = (block.number * BLOCK) as u64;
            let mut bytes = file.read_at(at, BLOCK).await.expect("readable");
            if bytes.len() < BLOCK {
                continue;
            }
            let (sound, rotten) = (self.block(&block), other.block(&block));
            for (to, (sound, rotten)) in bytes.iter_mut().zip(sound.iter().zip(rotten)) {
                *to ^= sound ^ rotten;
            }
            file.write_at(bytes.freeze(), at, Sync::Data).await.expect("writable");
            file.close().await.expect("closed");
        }
    }

    /// The bytes of a block, short where the file ends.
    pub fn block(&self, block: &Block) -> &[u8] {
        let content = self.files.get(&block.path).map(Vec::as_slice).unwrap_or_default();
        content.chunks(BLOCK).nth(block.number).unwrap_or_default()
    }

    /// Every block of a file.
    pub fn blocks_of(&self, path: &Path) -> Vec<Block> {
        let count = self.files.get(path).map_or(0, |content| content.len().div_ceil(BLOCK));
        (0..count).map(|number| Block { path: path.to_owned(), number }).collect()
    }

    /// The blocks of files in both that do not hold the same.
    fn differing(&self, other: &Image) -> Vec<Block> {
        let mut found = Vec::new();
        for (path, content) in &self.files {
            if other.files.get(path).is_some_and(|theirs| theirs != content) {
                let differs = |block: &Block| self.block(block) != other.block(block);
                found.extend(self.blocks_of(path).into_iter().filter(differs));
            }
        }
        found
    }
}
