//! Writes as a log writes, on trial: direct, a block at a time, each durable before the next.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use super::check::Check;

/// What is written at once. Direct writes of this size suit every drive, at places and from memory aligned to it.
const BLOCK: usize = 4096;
/// The file is written whole before anything is measured, so that no flush has to find room for it.
const FILE_BYTES: usize = 256 * BLOCK;

const WRITES_MAX: usize = 200;
const TIME_MAX: Duration = Duration::from_secs(2);

/// A drive whose cache survives a loss of power takes a tenth of this.
const P50_WANTED: Duration = Duration::from_millis(1);

/// A file without a name: nobody sees it, and it is gone with its owner, however that ends.
#[derive(Debug)]
pub struct TrialFile {
    buffered: File,
    direct: io::Result<File>,
}

/// How long single writes took, in ascending order; at least one.
#[derive(Debug)]
struct Took(Vec<Duration>);

impl TrialFile {
    /// Fails if nothing can be written to this directory. That there is no direct I/O is told by a check.
    pub fn create(dir: &Path) -> io::Result<TrialFile> {
        let path = dir.join(format!(".corrente-doctor-{:016x}", fastrand::u64(..)));
        let buffered = open(&path, OFlags::CREATE | OFlags::EXCL)?;
        let direct = open(&path, OFlags::DIRECT);
        fs::remove_file(&path)?;
        let direct = direct.and_then(|file| file.write_all_at(Aligned::new(BLOCK).bytes(), 0).map(|()| file));
        Ok(TrialFile { buffered, direct })
    }

    pub fn checks(&self) -> Vec<Check> {
        let file = self.direct.as_ref().unwrap_or(&self.buffered);
        vec![judge_direct_io(&self.direct), judge_latency(&measure(file))]
    }
}

/// What is written is durable when the write returns.
fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    let always = OFlags::RDWR | OFlags::CLOEXEC | OFlags::DSYNC;
    Ok(File::from(rustix::fs::open(path, always | flags, Mode::RUSR | Mode::WUSR)?))
}

fn measure(file: &File) -> io::Result<Took> {
    let content = Aligned::new(FILE_BYTES);
    file.write_all_at(content.bytes(), 0)?;
    let mut took = Vec::with_capacity(WRITES_MAX);
    let began = Instant::now();
    while took.len() < WRITES_MAX && (took.is_empty() || began.elapsed() < TIME_MAX) {
        let at = took.len() * BLOCK % FILE_BYTES;
        let write_began = Instant::now();
        file.write_all_at(&content.bytes()[..BLOCK], at as u64)?;
        took.push(write_began.elapsed());
    }
    took.sort_unstable();
    Ok(Took(took))
}

impl Took {
    /// The least that at least `percent` of the writes did not exceed.
    fn percentile(&self, percent: usize) -> Duration {
        self.0[(self.0.len() * percent).div_ceil(100).max(1) - 1]
    }
}

/// Memory that begins at a multiple of [`BLOCK`], filled by chance: no drive can make little of it.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Aligned {
        let mut memory = vec![0; len + BLOCK];
        fastrand::fill(&mut memory);
        let start = memory.as_ptr().align_offset(BLOCK);
        assert!(start < BLOCK, "{start} bytes to the next multiple of {BLOCK}");
        Aligned { memory, start, len }
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..][..self.len]
    }
}

fn judge_direct_io<T>(direct: &io::Result<T>) -> Check {
    const NAME: &str = "direct-io";
    match direct {
        Ok(_) => Check::ok(NAME, format!("a block of {BLOCK} bytes was written past the page cache")),
        Err(error) => Check::warn(
            NAME,
            format!("refused: {error}"),
            "put the data on ext4 or XFS; else writes go through the page cache, no less durable but slower",
        ),
    }
}

fn judge_latency(took: &io::Result<Took>) -> Check {
    const NAME: &str = "flush-latency";
    let took = match took {
        Ok(took) => took,
        Err(error) => {
            return Check::fail(
                NAME,
                format!("a durable write failed: {error}"),
                "look at the drive and its space",
            );
        }
    };
    let ms = |took: Duration| took.as_secs_f64() * 1e3;
    let (p50, p99, writes) = (took.percentile(50), took.percentile(99), took.0.len());
    let found = format!("p50 {:.2} ms, p99 {:.2} ms of {writes} durable writes", ms(p50), ms(p99));
    if p50 <= P50_WANTED {
        return Check::ok(NAME, found);
    }
    let mend = "use a local NVMe drive with power-loss protection, shared with nobody: durable appends wait for this";
    Check::warn(NAME, found, mend)
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict;
    use super::*;

    #[test]
    fn a_trial_leaves_nothing_behind() {
        let home = tempfile::tempdir().unwrap();
        let file = TrialFile::create(home.path()).unwrap();
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
        let names: Vec<&str> = file.checks().iter().map(|check| check.name).collect();
        assert_eq!(names, ["direct-io", "flush-latency"]);
        assert_eq!(file.buffered.metadata().unwrap().len(), FILE_BYTES as u64);
    }

    #[test]
    fn where_nothing_can_be_written_there_is_no_trial() {
        let home = tempfile::tempdir().unwrap();
        assert!(TrialFile::create(&home.path().join("missing")).is_err());
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let took = |ms: std::ops::RangeInclusive<u64>| Took(ms.map(Duration::from_millis).collect());
        let ms = |took: &Took, percent| took.percentile(percent).as_millis();
        assert_eq!((ms(&took(1..=200), 50), ms(&took(1..=200), 99)), (100, 198));
        assert_eq!((ms(&took(1..=3), 50), ms(&took(1..=3), 99)), (2, 3));
        assert_eq!((ms(&took(7..=7), 50), ms(&took(7..=7), 99)), (7, 7));
    }

    #[test]
    fn the_usual_write_is_judged_and_not_the_slowest() {
        let judge = |us: [u64; 3]| judge_latency(&Ok(Took(us.map(Duration::from_micros).to_vec())));
        let fast = judge([100, 1_000, 90_000]);
        assert_eq!(fast, Check::ok("flush-latency", "p50 1.00 ms, p99 90.00 ms of 3 durable writes"));
        assert_eq!(judge([100, 1_001, 1_002]).verdict, Verdict::Warn);
        assert_eq!(judge_latency(&Err(io::ErrorKind::StorageFull.into())).verdict, Verdict::Fail);
    }

    #[test]
    fn without_direct_io_there_is_a_warning() {
        assert_eq!(judge_direct_io(&Ok(())).verdict, Verdict::Ok);
        let refused = judge_direct_io::<()>(&Err(io::ErrorKind::InvalidInput.into()));
        assert_eq!(refused.verdict, Verdict::Warn);
    }

    #[test]
    fn memory_is_aligned() {
        for len in [BLOCK, FILE_BYTES] {
            let aligned = Aligned::new(len);
            assert_eq!(aligned.bytes().as_ptr().addr() % BLOCK, 0);
            assert_eq!(aligned.bytes().len(), len);
        }
    }
}
