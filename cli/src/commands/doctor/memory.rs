//! Memory: how large its pages are, and whether it is lent to a drive.

use super::check::Check;
use super::machine::Machine;

/// What the swap areas hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Swap {
    size_kib: u64,
    used_kib: u64,
}

pub fn checks(machine: &Machine) -> Vec<Check> {
    let pages = machine.read("sys/kernel/mm/transparent_hugepage/enabled");
    let swap = machine.read("proc/swaps").map(|swaps| swap(&swaps));
    vec![judge_huge_pages(pages.as_deref()), judge_swap(swap, machine.number("proc/sys/vm/swappiness"))]
}

/// Told, not judged: a broker takes its memory early and keeps it, so that each setting does.
fn judge_huge_pages(enabled: Option<&str>) -> Check {
    let chosen = enabled.and_then(|choices| choices.split_once('[')?.1.split_once(']'));
    Check::ok("transparent-huge-pages", chosen.map_or("not exposed", |(chosen, _)| chosen))
}

/// `/proc/swaps`: a header, then for each area its name (of any form), type, size, use and priority.
fn swap(swaps: &str) -> Swap {
    let areas = swaps.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace().rev().skip(1);
        let (used, size) = (fields.next()?.parse::<u64>().ok()?, fields.next()?.parse::<u64>().ok()?);
        Some((size, used))
    });
    areas.fold(Swap { size_kib: 0, used_kib: 0 }, |sum, (size, used)| Swap {
        size_kib: sum.size_kib + size,
        used_kib: sum.used_kib + used,
    })
}

fn judge_swap(swap: Option<Swap>, swappiness: Option<u64>) -> Check {
    const NAME: &str = "swap";
    let swappiness = swappiness.map_or_else(String::new, |value| format!("; vm.swappiness is {value}"));
    match swap {
        None => Check::ok(NAME, format!("not told{swappiness}")),
        Some(Swap { size_kib: 0, .. }) => Check::ok(NAME, format!("none{swappiness}")),
        Some(Swap { size_kib, used_kib }) => {
            let found = format!("{} of {} MiB used{swappiness}", used_kib.div_ceil(1024), size_kib / 1024);
            if used_kib == 0 {
                return Check::ok(NAME, found);
            }
            let mend = "`swapoff -a`, or `sysctl vm.swappiness=1`: a shard that waits for swapped memory serves nobody";
            Check::warn(NAME, found, mend)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict;
    use super::super::machine::made_up;
    use super::*;

    const HEADER: &str = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";

    #[test]
    fn swap_areas_are_added_up() {
        let swaps = format!("{HEADER}/dev/sda2 partition 2048 0 -2\n/swap\\040file file 4096 1500 -3\n");
        assert_eq!(swap(&swaps), Swap { size_kib: 6144, used_kib: 1500 });
        assert_eq!(swap(HEADER.trim()), Swap { size_kib: 0, used_kib: 0 });
    }

    #[test]
    fn only_swap_that_is_used_hurts() {
        let judge = |size_kib, used_kib| judge_swap(Some(Swap { size_kib, used_kib }), Some(60));
        assert_eq!(judge(0, 0), Check::ok("swap", "none; vm.swappiness is 60"));
        assert_eq!(judge(2048, 0), Check::ok("swap", "0 of 2 MiB used; vm.swappiness is 60"));
        assert_eq!(judge(2048, 1).verdict, Verdict::Warn);
        assert_eq!(judge_swap(None, None).verdict, Verdict::Ok);
    }

    #[test]
    fn both_are_read_from_the_machine() {
        let (_home, machine) = made_up(&[
            ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
            ("proc/swaps", HEADER),
        ]);
        let expected = [Check::ok("transparent-huge-pages", "madvise"), Check::ok("swap", "none")];
        assert_eq!(checks(&machine), expected);
    }
}
