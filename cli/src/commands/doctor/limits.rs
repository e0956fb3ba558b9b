//! What this process may take: locked memory, open files, connections that wait to be accepted.

use corrente_broker::trial::StartError;

use super::check::Check;
use super::machine::Machine;

const MIB: u64 = 1 << 20;

/// What the rings of a shard may lock, with room to spare.
const LOCKED_PER_SHARD: u64 = MIB;

/// The logs of a few hundred partitions alone take as many files.
const FILES_NEEDED: u64 = 1024;
/// Each connection and each log takes one.
const FILES_WANTED: u64 = 65_536;

/// Clients that connect again all at once after a restart wait in this queue.
const BACKLOG_WANTED: u64 = 1024;

/// A limit without a bound is `u64::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limit {
    soft: u64,
    hard: u64,
}

pub fn checks(machine: &Machine, shards: u16, trial: &Result<(), StartError>) -> Vec<Check> {
    let limits = machine.read("proc/self/limits").unwrap_or_default();
    vec![
        judge_locked_memory(limit(&limits, "Max locked memory"), shards, trial),
        judge_open_files(limit(&limits, "Max open files")),
        judge_backlog(machine.number("proc/sys/net/core/somaxconn")),
    ]
}

/// A line of `/proc/self/limits`: its name, the soft and the hard limit, the unit.
fn limit(limits: &str, name: &str) -> Option<Limit> {
    let value = |text: &str| if text == "unlimited" { Some(u64::MAX) } else { text.parse().ok() };
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    let mut values = line.split_whitespace();
    Some(Limit { soft: value(values.next()?)?, hard: value(values.next()?)? })
}

/// The hard limit counts: a broker raises the soft one to it when it starts.
fn judge_locked_memory(limit: Option<Limit>, shards: u16, trial: &Result<(), StartError>) -> Check {
    const NAME: &str = "locked-memory";
    let wanted = LOCKED_PER_SHARD * u64::from(shards);
    let mend =
        "`LimitMEMLOCK=infinity` in its unit, `ulimit -l unlimited`, or --ulimit memlock=-1 of a container";
    let needs = format!("{shards} shards want {} MiB", wanted / MIB);
    if let Err(StartError::MemlockTooLow { limit_kib, .. }) = trial {
        return Check::fail(NAME, format!("a start is refused at {limit_kib} KiB; {needs}"), mend);
    }
    match limit {
        None => Check::warn(NAME, "not told", format!("see that `ulimit -Hl` allows {} KiB", wanted / 1024)),
        Some(Limit { hard: u64::MAX, .. }) => Check::ok(NAME, format!("unlimited; {needs}")),
        Some(Limit { hard, .. }) => {
            let found = format!("at most {} KiB; {needs}", hard / 1024);
            if hard < wanted { Check::warn(NAME, found, mend) } else { Check::ok(NAME, found) }
        }
    }
}

/// The soft limit counts: a broker leaves it as it is.
fn judge_open_files(limit: Option<Limit>) -> Check {
    const NAME: &str = "open-files";
    let mend = format!("`LimitNOFILE=1048576` in its unit, or `ulimit -n`: {FILES_WANTED} at least");
    match limit {
        None => Check::warn(NAME, "not told", mend),
        Some(Limit { soft: u64::MAX, .. }) => Check::ok(NAME, "unlimited"),
        Some(Limit { soft, .. }) if soft < FILES_NEEDED => Check::fail(NAME, format!("at most {soft}"), mend),
        Some(Limit { soft, .. }) if soft < FILES_WANTED => Check::warn(NAME, format!("at most {soft}"), mend),
        Some(Limit { soft, .. }) => Check::ok(NAME, format!("at most {soft}")),
    }
}

fn judge_backlog(somaxconn: Option<u64>) -> Check {
    const NAME: &str = "somaxconn";
    match somaxconn {
        None => Check::ok(NAME, "not told"),
        Some(waiting) if waiting < BACKLOG_WANTED => {
            Check::warn(NAME, format!("{waiting} connections may wait"), "`sysctl net.core.somaxconn=4096`")
        }
        Some(waiting) => Check::ok(NAME, format!("{waiting} connections may wait")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict;
    use super::super::machine::made_up;
    use super::*;

    const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units     \n\
Max cpu time              unlimited            unlimited            seconds   \n\
Max open files            1024                 524288               files     \n\
Max locked memory         8388608              unlimited            bytes     \n";

    #[test]
    fn limits_are_read() {
        assert_eq!(limit(LIMITS, "Max open files"), Some(Limit { soft: 1024, hard: 524_288 }));
        assert_eq!(limit(LIMITS, "Max locked memory"), Some(Limit { soft: 8_388_608, hard: u64::MAX }));
        assert_eq!(limit(LIMITS, "Max wishes"), None);
        assert_eq!(limit("Max open files few many files", "Max open files"), None);
    }

    #[test]
    fn locked_memory_is_held_against_the_shards() {
        let limit = |hard| Some(Limit { soft: 0, hard });
        let verdict = |limit, shards| judge_locked_memory(limit, shards, &Ok(())).verdict;
        assert_eq!(verdict(limit(u64::MAX), 64), Verdict::Ok);
        assert_eq!(verdict(limit(8 * MIB), 8), Verdict::Ok);
        assert_eq!(verdict(limit(8 * MIB), 9), Verdict::Warn);
        assert_eq!(verdict(None, 1), Verdict::Warn);
        let refused = Err(StartError::MemlockTooLow { limit_kib: 64, needed_kib: 896, shards: 2 });
        let check = judge_locked_memory(limit(64 << 10), 2, &refused);
        assert_eq!(check.verdict, Verdict::Fail);
        assert!(check.found.contains("64 KiB") && check.found.contains("2 MiB"), "{}", check.found);
    }

    #[test]
    fn files_and_backlog_have_a_least() {
        let files = |soft| judge_open_files(Some(Limit { soft, hard: u64::MAX })).verdict;
        assert_eq!((files(256), files(1024), files(65_536)), (Verdict::Fail, Verdict::Warn, Verdict::Ok));
        assert_eq!(files(u64::MAX), Verdict::Ok);
        assert_eq!(judge_backlog(Some(128)).verdict, Verdict::Warn);
        assert_eq!(judge_backlog(Some(4096)), Check::ok("somaxconn", "4096 connections may wait"));
        assert_eq!(judge_backlog(None).verdict, Verdict::Ok);
    }

    #[test]
    fn all_are_read_from_the_machine() {
        let (_home, machine) =
            made_up(&[("proc/self/limits", LIMITS), ("proc/sys/net/core/somaxconn", "128\n")]);
        let verdicts: Vec<Verdict> = checks(&machine, 2, &Ok(())).iter().map(|check| check.verdict).collect();
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Warn, Verdict::Warn]);
    }
}
