//! Keeping the generator's threads on named CPUs, so that it and the broker do not share one by chance.

use anyhow::{Context, Result, bail};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Keeps the calling thread, and threads it starts later, on `cpus`. An empty list changes nothing.
pub fn pin_this_thread(cpus: &[usize]) -> Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for &cpu in cpus {
        if cpu >= CpuSet::MAX_CPU {
            bail!("cpu {cpu} is beyond the highest possible, {}", CpuSet::MAX_CPU - 1);
        }
        set.set(cpu);
    }
    sched_setaffinity(None, &set).with_context(|| format!("keeping the generator on cpus {cpus:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_pinned_or_told_why_not() {
        std::thread::spawn(|| {
            pin_this_thread(&[]).unwrap();
            let first = rustix::thread::sched_getaffinity(None).unwrap();
            let cpu = (0..CpuSet::MAX_CPU).find(|&cpu| first.is_set(cpu)).unwrap();
            pin_this_thread(&[cpu]).unwrap();
            assert_eq!(rustix::thread::sched_getaffinity(None).unwrap().count(), 1);
            let error = pin_this_thread(&[CpuSet::MAX_CPU]).unwrap_err().to_string();
            assert!(error.contains("beyond the highest"), "{error}");
        })
        .join()
        .unwrap();
    }
}
