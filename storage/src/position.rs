//! Where things lie in a segment file, and what ties a hash to its place.
//!
//! Pure: no I/O, no clock. A [`FilePosition`] counts bytes from the start of one segment file; it means
//! nothing without that file's [`Nonce`].

use std::fmt;
use std::ops::{Add, Sub};

use corrente_runtime::buffer::BLOCK;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// [`BLOCK`] as a length in a file.
pub(crate) const BLOCK_BYTES: u64 = BLOCK as u64;

/// A byte position in a segment file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FilePosition(pub u64);

impl FilePosition {
    /// The start of the block this position lies in.
    pub fn block_start(self) -> FilePosition {
        FilePosition(self.0 - self.0 % BLOCK_BYTES)
    }

    /// This position, or the start of the next block if it does not stand on one.
    pub fn block_end(self) -> FilePosition {
        FilePosition(self.0.next_multiple_of(BLOCK_BYTES))
    }

    /// How far into its block this position lies, below [`BLOCK`].
    pub fn in_block(self) -> usize {
        usize::try_from(self.0 % BLOCK_BYTES).expect("a block is small")
    }
}

impl Add<u64> for FilePosition {
    type Output = FilePosition;

    fn add(self, bytes: u64) -> FilePosition {
        FilePosition(self.0 + bytes)
    }
}

/// The bytes from the right to the left; the right must not lie beyond the left.
impl Sub for FilePosition {
    type Output = u64;

    fn sub(self, earlier: FilePosition) -> u64 {
        self.0 - earlier.0
    }
}

impl fmt::Debug for FilePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

impl fmt::Display for FilePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Drawn anew each time a file is taken into use as a segment. It never leaves the node, so no payload can
/// hold bytes that pass for an extent of this file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Nonce(pub u64);

impl Nonce {
    /// The seed of every hash whose bytes begin at `position` of this file: the same bytes elsewhere, or
    /// left over from another life of the file, do not verify.
    pub(crate) fn seed_at(self, position: FilePosition) -> u64 {
        xxh3_64_with_seed(&position.0.to_le_bytes(), self.0)
    }
}

/// The hash of a segment or extent header: what the next extent chains to.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HeaderHash(pub u64);

impl fmt::Debug for HeaderHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A buffer length as a length in a file.
pub(crate) fn file_len(len: usize) -> u64 {
    u64::try_from(len).expect("memory is smaller than files may be")
}

/// A stretch of a file as a buffer length; callers bound it first.
pub(crate) fn buffer_len(len: u64) -> usize {
    usize::try_from(len).expect("bounded by the caller")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_knows_its_block() {
        assert_eq!(FilePosition(4096).block_start(), FilePosition(4096));
        assert_eq!(FilePosition(4096).block_end(), FilePosition(4096));
        assert_eq!(FilePosition(4097).block_start(), FilePosition(4096));
        assert_eq!(FilePosition(4097).block_end(), FilePosition(8192));
        assert_eq!(FilePosition(4097).in_block(), 1);
    }

    #[test]
    fn a_seed_depends_on_nonce_and_place() {
        let seed = Nonce(7).seed_at(FilePosition(4096));
        assert_ne!(seed, Nonce(8).seed_at(FilePosition(4096)));
        assert_ne!(seed, Nonce(7).seed_at(FilePosition(8192)));
    }
}
