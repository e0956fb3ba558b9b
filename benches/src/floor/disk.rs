//! Direct I/O on one prewritten file: durable small writes, and sequential transfer.

use std::fs::{self, File, OpenOptions};
use std::io::IoSlice;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::fs::OFlags;
use rustix::io::{ReadWriteFlags, pread, pwritev2};

use crate::figures::{Figures, Samples};

/// The unit of direct I/O.
const BLOCK: usize = 4096;
const MIB: usize = 1024 * 1024;
/// Transfers in flight when asking what the disk can do at most; one is what a single log does.
const DEPTHS: [usize; 2] = [1, 8];

/// A file in the measured directory, written once from end to end; removed when dropped.
#[derive(Debug)]
pub struct DiskFile {
    path: PathBuf,
    file: File,
    len: u64,
}

impl DiskFile {
    /// Makes the file, with `mebibytes` of bytes that are not zero, flushed.
    pub fn create(directory: &Path, mebibytes: u64) -> Result<DiskFile> {
        ensure!(mebibytes >= 1, "the file needs at least 1 MiB, not {mebibytes}");
        let path = directory.join(format!("floor-{}.tmp", std::process::id()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .custom_flags(i32::try_from(OFlags::DIRECT.bits())?)
            .open(&path)
            .with_context(|| format!("open {} for direct I/O", path.display()))?;
        let file = DiskFile { path, file, len: mebibytes * MIB as u64 };
        let mut block = filled(MIB);
        for position in (0..file.len).step_by(MIB) {
            file.write(block.bytes(), position, ReadWriteFlags::empty())?;
        }
        file.file.sync_all()?;
        Ok(file)
    }

    /// 4 KiB, flushed with the write itself, one at a time, each behind the one before.
    pub(super) fn durable_writes(&self, seconds: Duration, figures: &mut Figures) -> Result<()> {
        let mut block = filled(BLOCK);
        let mut samples = Samples::default();
        let began = Instant::now();
        for position in (0..self.len).step_by(BLOCK).cycle() {
            let sent = Instant::now();
            self.write(block.bytes(), position, ReadWriteFlags::DSYNC)?;
            samples.push(sent.elapsed());
            if began.elapsed() >= seconds {
                break;
            }
        }
        samples.add_to(figures, "disk_durable_write_4_kib");
        Ok(())
    }

    /// 1 MiB each, in order; the flush at the end counts as well.
    pub(super) fn sequential_writes(&self, seconds: Duration, figures: &mut Figures) -> Result<()> {
        for depth in DEPTHS {
            let buffers = || filled(MIB);
            let rate = self.transfer(depth, seconds, buffers, |buffer, position| {
                self.write(buffer, position, ReadWriteFlags::empty())
            })?;
            figures.add(&format!("disk_write_1_mib_depth_{depth}"), "MB/s", rate);
        }
        let rate = self.transfer(
            1,
            seconds,
            || filled(MIB),
            |buffer, position| self.write(buffer, position, ReadWriteFlags::DSYNC),
        )?;
        figures.add("disk_durable_write_1_mib_depth_1", "MB/s", rate);
        Ok(())
    }

    /// 1 MiB each, in order.
    pub(super) fn sequential_reads(&self, seconds: Duration, figures: &mut Figures) -> Result<()> {
        for depth in DEPTHS {
            let rate = self.transfer(
                depth,
                seconds,
                || Aligned::zeroed(MIB),
                |buffer, position| {
                    let read = pread(&self.file, &mut *buffer, position)?;
                    ensure!(read == MIB, "read {read} bytes of {MIB} at {position}");
                    Ok(())
                },
            )?;
            figures.add(&format!("disk_read_1_mib_depth_{depth}"), "MB/s", rate);
        }
        Ok(())
    }

    /// `depth` threads take the next mebibyte in turn; returns 10⁶ bytes per second, until all is flushed.
    fn transfer(
        &self,
        depth: usize,
        seconds: Duration,
        buffer: impl Fn() -> Aligned,
        one: impl Fn(&mut [u8], u64) -> Result<()> + Sync,
    ) -> Result<f64> {
        let taken = AtomicU64::new(0);
        let blocks = self.len / MIB as u64;
        let buffers: Vec<Aligned> = (0..depth).map(|_| buffer()).collect();
        let began = Instant::now();
        let worker = |mut buffer: Aligned| -> Result<()> {
            loop {
                let block = taken.fetch_add(1, Ordering::Relaxed);
                one(buffer.bytes(), block % blocks * MIB as u64)?;
                if began.elapsed() >= seconds {
                    return Ok(());
                }
            }
        };
        let worker = &worker;
        thread::scope(|scope| -> Result<()> {
            let workers: Vec<_> =
                buffers.into_iter().map(|buffer| scope.spawn(move || worker(buffer))).collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().map_err(|_| anyhow!("a disk thread panicked"))?)
        })?;
        self.file.sync_data()?;
        Ok(taken.into_inner() as f64 * MIB as f64 / 1e6 / began.elapsed().as_secs_f64())
    }

    fn write(&self, data: &[u8], position: u64, flags: ReadWriteFlags) -> Result<()> {
        let written = pwritev2(&self.file, &[IoSlice::new(data)], position, flags)?;
        ensure!(written == data.len(), "wrote {written} bytes of {} at {position}", data.len());
        Ok(())
    }
}

impl Drop for DiskFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            eprintln!("could not remove {}: {error}", self.path.display());
        }
    }
}

/// Memory that direct I/O accepts: it begins at a multiple of [`BLOCK`].
struct Aligned {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    fn zeroed(len: usize) -> Aligned {
        let memory = vec![0; len + BLOCK];
        let start = memory.as_ptr().align_offset(BLOCK);
        Aligned { memory, start, len }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

/// Bytes that no layer below can take for a hole.
fn filled(len: usize) -> Aligned {
    let mut buffer = Aligned::zeroed(len);
    buffer.bytes().iter_mut().zip((1..=251_u8).cycle()).for_each(|(byte, value)| *byte = value);
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_measures_something_and_the_file_goes() {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory");
        let mut figures = Figures::default();
        let file = DiskFile::create(directory.path(), 2).expect("a file system with direct I/O");
        let instant = Duration::from_millis(2);
        file.durable_writes(instant, &mut figures).expect("durable writes");
        file.sequential_writes(instant, &mut figures).expect("writes");
        file.sequential_reads(instant, &mut figures).expect("reads");
        drop(file);
        for name in ["disk_durable_write_4_kib.p50", "disk_write_1_mib_depth_8", "disk_read_1_mib_depth_1"] {
            assert!(figures.median(name).is_some_and(|median| median > 0.0), "{name}: {figures:?}");
        }
        assert_eq!(fs::read_dir(directory.path()).expect("the directory").count(), 0);
    }
}
