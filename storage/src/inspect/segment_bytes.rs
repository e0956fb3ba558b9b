//! The bytes of one segment file, read from front to back, whatever state the disk is in.
//!
//! A block that the disk cannot read is taken for zeros and remembered: no extent verifies there, and what lies before
//! and behind it is still seen.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use corrente_runtime::buffer::{AlignedBuf, BLOCK};
use corrente_runtime::file::{File, OpenOptions};

use crate::error::{AtPath, PathError};
use crate::position::{BLOCK_BYTES, FilePosition, buffer_len, file_len};

/// Bytes read at one go, or one extent if that is longer.
const READ: usize = 1024 * 1024;

/// A segment file, and the piece of it that was read last.
pub(crate) struct SegmentBytes {
    path: PathBuf,
    file: File,
    len: u64,
    start: FilePosition,
    piece: Bytes,
    unreadable: Option<Unreadable>,
}

/// The first block that the disk could not read.
#[derive(Debug, Clone)]
pub(crate) struct Unreadable {
    pub(crate) at: FilePosition,
    pub(crate) reason: String,
}

impl SegmentBytes {
    pub(crate) async fn open(path: &Path) -> Result<SegmentBytes, PathError> {
        let file = File::open(path, OpenOptions::READ).await.at(path)?;
        let len = file.len().await.at(path)?;
        let (start, piece) = (FilePosition(0), Bytes::new());
        Ok(SegmentBytes { path: path.to_owned(), file, len, start, piece, unreadable: None })
    }

    /// The length of a file and its first block, or why that cannot be read.
    pub(crate) async fn first_block(path: &Path) -> Result<(u64, io::Result<AlignedBuf>), PathError> {
        let file = File::open(path, OpenOptions::READ).await.at(path)?;
        Ok((file.len().await.at(path)?, file.read_at(0, BLOCK).await))
    }

    /// How long the file is.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The first block that could not be read until now.
    pub(crate) fn unreadable(&self) -> Option<&Unreadable> {
        self.unreadable.as_ref()
    }

    /// The bytes from a position on: `wanted` or more, fewer only where the file ends.
    pub(crate) async fn at(&mut self, position: FilePosition, wanted: usize) -> Bytes {
        let there = self.from(position);
        if there.len() >= wanted || position.0 + file_len(there.len()) >= self.len {
            return there;
        }
        self.start = position.block_start();
        let left = self.len.saturating_sub(self.start.0).next_multiple_of(BLOCK_BYTES);
        let len = (position.in_block() + wanted).next_multiple_of(BLOCK).max(READ);
        // A header may state any length; what the file holds is the bound.
        let len = if file_len(len) > left { buffer_len(left) } else { len };
        self.piece = self.read(self.start, len).await;
        self.from(position)
    }

    fn from(&self, position: FilePosition) -> Bytes {
        match position.0.checked_sub(self.start.0).map(buffer_len) {
            Some(skip) if skip <= self.piece.len() => self.piece.slice(skip..),
            _ => Bytes::new(),
        }
    }

    async fn read(&mut self, start: FilePosition, len: usize) -> Bytes {
        if let Ok(bytes) = self.file.read_at(start.0, len).await {
            return bytes.freeze();
        }
        let mut piece = AlignedBuf::zeroed(len);
        let mut filled = 0;
        for (at, block) in (0..).step_by(BLOCK).zip(piece.chunks_exact_mut(BLOCK)) {
            let position = start + at;
            match self.file.read_at(position.0, BLOCK).await {
                Ok(bytes) => block[..bytes.len()].copy_from_slice(&bytes),
                Err(error) => {
                    tracing::warn!(path = %self.path.display(), %position, %error, "a block cannot be read");
                    let found = Unreadable { at: position, reason: error.to_string() };
                    self.unreadable.get_or_insert(found);
                }
            }
            filled = buffer_len(self.len.saturating_sub(start.0).min(at + BLOCK_BYTES));
        }
        piece.truncate(filled);
        piece.freeze()
    }
}
