//! The kernel: how old it is, and whether it gives rings.

use corrente_broker::trial::StartError;

use super::check::Check;
use super::machine::Machine;

/// Without these a ring lacks what a shard asks of it.
const VERSION_NEEDED: Version = (5, 19);
/// The first long-term kernel that has them: those between get no repairs any more, and rings have needed some.
const VERSION_WANTED: Version = (6, 1);

/// Major and minor.
type Version = (u32, u32);

pub fn checks(machine: &Machine, shards: u16, trial: &Result<(), StartError>) -> Vec<Check> {
    let release = machine.read("proc/sys/kernel/osrelease");
    let disabled = machine.number("proc/sys/kernel/io_uring_disabled");
    vec![judge_version(release.as_deref()), judge_io_uring(disabled, shards, trial)]
}

fn judge_version(release: Option<&str>) -> Check {
    const NAME: &str = "kernel";
    let Some(release) = release else {
        return Check::warn(
            NAME,
            "not told",
            "mount /proc, or see `uname -r`: Linux 5.19 or later is needed",
        );
    };
    let found = format!("Linux {release}");
    match version(release) {
        None => Check::warn(NAME, found, "see that it is Linux 5.19 or later: its number cannot be read"),
        Some(version) if version < VERSION_NEEDED => {
            Check::fail(NAME, found, "boot Linux 6.1 or later; 5.19 is the least that works")
        }
        Some(version) if version < VERSION_WANTED => {
            Check::warn(NAME, found, "boot Linux 6.1 or later: this one gets no repairs of io_uring any more")
        }
        Some(_) => Check::ok(NAME, found),
    }
}

/// `6.1.0-18-amd64` and `6.18-rc3` are 6.1 and 6.18.
fn version(release: &str) -> Option<Version> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// `disabled` is `kernel.io_uring_disabled`, which kernels before 6.6 do not have.
fn judge_io_uring(disabled: Option<u64>, shards: u16, trial: &Result<(), StartError>) -> Check {
    const NAME: &str = "io-uring";
    const ALLOW: &str = "`sysctl kernel.io_uring_disabled=0`; in a container, allow io_uring_setup, io_uring_enter and \
                         io_uring_register in its seccomp profile";
    let switch = match disabled {
        Some(value) => format!("kernel.io_uring_disabled is {value}"),
        None => "there is no kernel.io_uring_disabled".to_owned(),
    };
    match trial {
        Ok(()) if disabled.is_some_and(|value| value > 0) => Check::warn(
            NAME,
            format!("this user may make rings, but {switch}"),
            "`sysctl kernel.io_uring_disabled=0`, or see that the broker's user is in kernel.io_uring_group",
        ),
        Ok(()) => Check::ok(NAME, format!("{shards} shards started on trial; {switch}")),
        Err(StartError::IoUringRefused { reason }) => Check::fail(NAME, format!("refused: {reason}"), ALLOW),
        Err(StartError::MemlockTooLow { .. }) => Check::warn(
            NAME,
            format!("not tried for want of locked memory; {switch}"),
            "mend locked-memory first",
        ),
        Err(error) => Check::fail(NAME, format!("{error}; {switch}"), ALLOW),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict;
    use super::super::machine::made_up;
    use super::*;

    #[test]
    fn versions_are_read_from_releases() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("6.18-rc3"), Some((6, 18)));
        assert_eq!(version("5.19"), Some((5, 19)));
        assert_eq!((version("six"), version("6"), version("")), (None, None, None));
    }

    #[test]
    fn an_old_kernel_is_warned_of_and_an_older_one_fails() {
        let verdict = |release| judge_version(Some(release)).verdict;
        assert_eq!(verdict("5.18.19"), Verdict::Fail);
        assert_eq!(verdict("5.19.0-50-generic"), Verdict::Warn);
        assert_eq!(verdict("6.0.19"), Verdict::Warn);
        assert_eq!(verdict("6.1.0"), Verdict::Ok);
        assert_eq!(verdict("10.0"), Verdict::Ok);
        assert_eq!(verdict("unheard of"), Verdict::Warn);
        assert_eq!(judge_version(None).verdict, Verdict::Warn);
    }

    #[test]
    fn a_trial_decides_whether_rings_are_given() {
        let verdict = |disabled, trial: &Result<(), StartError>| judge_io_uring(disabled, 2, trial).verdict;
        let refused = Err(StartError::IoUringRefused { reason: "a filter forbids it".to_owned() });
        let too_low = Err(StartError::MemlockTooLow { limit_kib: 64, needed_kib: 896, shards: 2 });
        assert_eq!(verdict(Some(0), &Ok(())), Verdict::Ok);
        assert_eq!(verdict(None, &Ok(())), Verdict::Ok);
        assert_eq!(verdict(Some(1), &Ok(())), Verdict::Warn);
        assert_eq!(verdict(Some(0), &refused), Verdict::Fail);
        assert_eq!(verdict(Some(0), &too_low), Verdict::Warn);
        assert!(judge_io_uring(Some(0), 2, &refused).found.contains("a filter forbids it"));
    }

    #[test]
    fn both_are_read_from_the_machine() {
        let (_home, machine) = made_up(&[
            ("proc/sys/kernel/osrelease", "6.6.1\n"),
            ("proc/sys/kernel/io_uring_disabled", "2\n"),
        ]);
        let checks = checks(&machine, 1, &Ok(()));
        assert_eq!(checks[0], Check::ok("kernel", "Linux 6.6.1"));
        assert!(checks[1].found.ends_with("kernel.io_uring_disabled is 2"), "{}", checks[1].found);
    }
}
