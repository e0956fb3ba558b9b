//! Which CPUs there are, and which shard keeps to which.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity};
use tracing::warn;

use crate::executor::{ExecutorsConfig, Placement, StartError};

/// The CPUs this process may run on, in order.
pub(crate) fn available() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// The CPU of each shard; `None` where the kernel decides.
pub(super) fn assign(config: &ExecutorsConfig) -> Result<Vec<Option<usize>>, StartError> {
    let shards = usize::from(config.shards);
    if config.placement == Placement::Unbound {
        return Ok(vec![None; shards]);
    }
    let available = available()
        .map_err(|error| StartError::Shard { shard: 0, reason: format!("cpus unknown: {error}") })?;
    let chosen = match &config.cpus {
        Some(cpus) if !cpus.is_empty() => cpus,
        _ => &available,
    };
    if let Some(&cpu) = chosen.iter().find(|cpu| !available.contains(cpu)) {
        return Err(StartError::NoSuchCpu { cpu, available: ranges(&available) });
    }
    if shards > chosen.len() {
        warn!(shards, cpus = chosen.len(), "more shards than cpus: some shards share one");
    }
    Ok(chosen.iter().copied().cycle().map(Some).take(shards).collect())
}

/// `0-3,8` for 0, 1, 2, 3 and 8.
fn ranges(cpus: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let parts = ranges.into_iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    parts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pinned(shards: u16, cpus: Option<Vec<usize>>) -> ExecutorsConfig {
        ExecutorsConfig { cpus, ..ExecutorsConfig::new(shards) }
    }

    #[test]
    fn more_shards_than_cpus_go_round() {
        let cpu = available().expect("a thread knows its cpus")[0];
        let assigned = assign(&pinned(3, Some(vec![cpu]))).expect("the cpu is there");
        assert_eq!(assigned, [Some(cpu); 3]);
    }

    #[test]
    fn a_cpu_that_is_not_there_is_named() {
        let refused = assign(&pinned(1, Some(vec![1000]))).expect_err("no machine here has it");
        let StartError::NoSuchCpu { cpu: 1000, available } = refused else {
            panic!("another refusal: {refused}");
        };
        assert!(!available.is_empty());
    }

    #[test]
    fn ranges_are_short() {
        assert_eq!(ranges(&[0, 1, 2, 3, 8, 10, 11]), "0-3,8,10-11");
    }
}
