//! The floors: what this machine's loopback and disk can do, with nothing of ours in between.
//!
//! Blocking threads and plain system calls, because a floor must not depend on how well we wrote it. Every part is
//! measured in every round, so that a noisy minute falls on all of them.

mod disk;
mod network;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use corrente_loadgen::machine::{Machine, file_system_of};
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
pub struct Site {
    /// The machine.
    #[serde(flatten)]
    pub machine: Machine,
    /// The file system under the measured directory, and the device below it.
    pub file_system: String,
}

impl Site {
    /// This machine, and the file system that holds `directory`.
    pub fn describe(directory: &Path) -> Site {
        let file_system = file_system_of(directory).unwrap_or_else(|| "unknown".to_owned());
        Site { machine: Machine::describe(), file_system }
    }
}
