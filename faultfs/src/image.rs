//! A disk image as a sparse file: written in place, copied without its holes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, SeekFrom, copy_file_range, fallocate, seek};
use rustix::io::Errno;

/// An open image. Its length never changes.
#[derive(Debug)]
pub struct Image {
    file: File,
    path: PathBuf,
    len: u64,
}

impl Image {
    /// A new image of zeros, all of it a hole; an older file of that name is replaced.
    pub fn create(path: &Path, len: u64) -> io::Result<Image> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        file.set_len(len)?;
        Ok(Image { file, path: path.to_owned(), len })
    }

    /// An image that is there.
    pub fn open(path: &Path) -> io::Result<Image> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let len = file.metadata()?.len();
        Ok(Image { file, path: path.to_owned(), len })
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its path, as it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads exactly `into.len()` bytes at `offset`.
    pub fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.check_range(offset, into.len() as u64)?;
        self.file.read_exact_at(into, offset)
    }

    /// Writes all of `data` at `offset`.
    pub fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.check_range(offset, data.len() as u64)?;
        self.file.write_all_at(data, offset)
    }

    /// Makes `len` bytes at `offset` read as zeros, by a hole where the file system can make one.
    pub fn zero_at(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_range(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        match fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len) {
            Err(Errno::OPNOTSUPP) => {}
            answer => return Ok(answer?),
        }
        let zeros = vec![0; usize::try_from(len.min(1 << 20)).unwrap_or(1 << 20)];
        let mut at = offset;
        while at < offset + len {
            let part = usize::try_from(offset + len - at).map_or(zeros.len(), |left| left.min(zeros.len()));
            self.file.write_all_at(&zeros[..part], at)?;
            at += part as u64;
        }
        Ok(())
    }

    /// A copy at `path`, with the same holes.
    pub fn copy_to(&self, path: &Path) -> io::Result<Image> {
        let copy = Image::create(path, self.len)?;
        let mut at = 0;
        while at < self.len {
            let begin = match seek(&self.file, SeekFrom::Data(at)) {
                Ok(begin) => begin,
                // Nothing but a hole follows.
                Err(Errno::NXIO) => break,
                Err(error) => return Err(error.into()),
            };
            let end = seek(&self.file, SeekFrom::Hole(begin))?;
            copy_stretch(&self.file, &copy.file, begin, end)?;
            at = end;
        }
        Ok(copy)
    }

    fn check_range(&self, offset: u64, len: u64) -> io::Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => {
                let message = format!("{len} bytes at {offset}, the image has {}", self.len);
                Err(io::Error::new(io::ErrorKind::InvalidInput, message))
            }
        }
    }
}

fn copy_stretch(from: &File, to: &File, begin: u64, end: u64) -> io::Result<()> {
    let (mut read, mut written) = (begin, begin);
    while read < end {
        let left = usize::try_from(end - read).unwrap_or(usize::MAX);
        match copy_file_range(from, Some(&mut read), to, Some(&mut written), left) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            // Between file systems the kernel may leave the copying to us.
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL) => return copy_by_hand(from, to, read, end),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(from: &File, to: &File, begin: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut at = begin;
    while at < end {
        let part = usize::try_from(end - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        from.read_exact_at(&mut buffer[..part], at)?;
        to.write_all_at(&buffer[..part], at)?;
        at += part as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_copy_has_the_same_bytes_and_no_more_blocks_than_it_needs() {
        let dir = tempfile::tempdir().unwrap();
        let image = Image::create(&dir.path().join("a"), 64 << 20).unwrap();
        image.write_at(&[7; 10_000], 5 << 20).unwrap();
        image.write_at(b"end", (64 << 20) - 3).unwrap();
        let copy = image.copy_to(&dir.path().join("b")).unwrap();
        let mut read = vec![0; 10_002];
        copy.read_at(&mut read, (5 << 20) - 1).unwrap();
        assert_eq!((read[0], read[10_001]), (0, 0));
        assert_eq!(read[1..10_001], [7; 10_000]);
        let mut tail = [0; 3];
        copy.read_at(&mut tail, (64 << 20) - 3).unwrap();
        assert_eq!(&tail, b"end");
        let blocks = copy.path().metadata().unwrap().blocks();
        assert!(blocks * 512 < 1 << 20, "{blocks} blocks for 10 kB of content");
    }

    #[test]
    fn zeros_are_zeros_and_nothing_is_written_outside() {
        let dir = tempfile::tempdir().unwrap();
        let image = Image::create(&dir.path().join("a"), 1 << 20).unwrap();
        image.write_at(&[1; 3 * 4096], 4096).unwrap();
        image.zero_at(2 * 4096, 4096).unwrap();
        let mut read = vec![9; 5 * 4096];
        image.read_at(&mut read, 0).unwrap();
        let blocks: Vec<u8> = read.chunks(4096).map(|block| block[17]).collect();
        assert_eq!(blocks, [0, 1, 0, 1, 0]);
        for (offset, len) in [(1 << 20, 1), (u64::MAX, 2), ((1 << 20) - 1, 2)] {
            let error = image.zero_at(offset, len).unwrap_err();
            assert!(error.to_string().contains("the image has 1048576"), "{error}");
        }
    }
}
