//! What the kernel says about the broker's process.

use std::fs;

use anyhow::{Context, Result};

/// Resident memory of a process, in MiB.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// At present.
    pub resident_mib: u64,
    /// The most since the start or [`forget_peak`].
    pub peak_mib: u64,
}

/// Reads `/proc/PID/status`; an error means that the process is gone.
pub fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("the broker is gone: {path}"))?;
    let mib = |name: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024)
    };
    Ok(Memory {
        resident_mib: mib("VmRSS:").with_context(|| format!("{path}: VmRSS"))?,
        peak_mib: mib("VmHWM:").with_context(|| format!("{path}: VmHWM"))?,
    })
}

/// Lets the peak begin at what is resident now.
pub fn forget_peak(pid: u32) -> Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").with_context(|| format!("resetting the peak: {path}"))
}
