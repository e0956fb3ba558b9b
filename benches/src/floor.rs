//! The floors: what this machine's loopback and disk can do, with nothing of ours in between.
//!
//! Blocking threads and plain system calls, because a floor must not depend on how well we wrote it. Every part is
//! measured in every round, so that a noisy minute falls on all of them.

mod disk;
mod network;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::figures::Figures;

pub use disk::DiskFile;

/// Measures every floor once, for about `seconds` each, into `figures`.
pub fn measure_round(file: &DiskFile, seconds: Duration, figures: &mut Figures) -> Result<()> {
    network::ping_pong(seconds, figures)?;
    network::stream(seconds, figures)?;
    file.durable_writes(seconds, figures)?;
    file.sequential_writes(seconds, figures)?;
    file.sequential_reads(seconds, figures)?;
    Ok(())
}

/// The CPU of the answering side, where a broker would be, and that of the asking side.
const SERVER_CPU: usize = 0;
const CLIENT_CPU: usize = 1;

/// Keeps the calling thread on one CPU; on a machine with fewer it stays where it is.
fn pin_to(cpu: usize) -> Result<()> {
    let present = std::thread::available_parallelism().map_or(1, usize::from);
    if cpu < present {
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(None, &set)?;
    }
    Ok(())
}

/// CPU time of the calling thread since it began.
fn thread_cpu_time() -> Result<Duration> {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = schedstat.split(' ').next().unwrap_or_default().parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// What was measured where, so that a figure can be judged later.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Machine {
    /// The processor's own name.
    pub cpu: String,
    /// How many of them.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
    /// The file system and device under the measured directory, as `/proc/self/mounts` has them.
    pub file_system: String,
}

impl Machine {
    /// Describes this machine and the file system that holds `directory`; what cannot be learned is `unknown`.
    pub fn describe(directory: &Path) -> Machine {
        let field = |file: &str, name: &str| {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
        };
        let memory = field("/proc/meminfo", "MemTotal");
        let kibibytes: u64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
        Machine {
            cpu: field("/proc/cpuinfo", "model name"),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kibibytes * 1024,
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            file_system: file_system_of(directory).unwrap_or_else(|| "unknown".to_owned()),
        }
    }
}

/// The mount with the longest path that holds `directory`: `ext4 on /dev/vda`.
fn file_system_of(directory: &Path) -> Option<String> {
    let directory = directory.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mut held: Vec<(&str, String)> = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (device, at, kind) = (fields.next()?, fields.next()?, fields.next()?);
            directory.starts_with(at).then(|| (at, format!("{kind} on {device}")))
        })
        .collect();
    held.sort_by_key(|(at, _)| at.len());
    held.pop().map(|(_, description)| description)
}
