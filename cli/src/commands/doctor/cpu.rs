//! The CPUs: how many there are for a broker, how fast they are kept, which clock they read.

use std::collections::BTreeMap;

use super::check::Check;
use super::machine::Machine;
use crate::units::{CpuList, parse_cpus};

const CLOCK: &str = "sys/devices/system/clocksource/clocksource0";

/// Clocks that are read without entering the kernel, or the host of a virtual machine.
const FAST_CLOCKS: [&str; 5] =
    ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter", "riscv_clocksource"];

/// The CPUs that this process may run on; none if the machine does not tell.
pub fn allowed(machine: &Machine) -> Vec<usize> {
    machine.read("proc/self/status").and_then(|status| allowed_in(&status)).unwrap_or_default()
}

fn allowed_in(status: &str) -> Option<Vec<usize>> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let CpuList(cpus) = parse_cpus(list.trim()).ok()?;
    Some(cpus)
}

pub fn checks(machine: &Machine, cpus: &[usize]) -> Vec<Check> {
    let governor = |cpu| machine.read(&format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"));
    let governors: Vec<String> = cpus.iter().filter_map(governor).collect();
    let clock = machine.read(&format!("{CLOCK}/current_clocksource"));
    let others = machine.read(&format!("{CLOCK}/available_clocksource")).unwrap_or_default();
    vec![judge_count(cpus.len()), judge_governors(&governors), judge_clock(clock.as_deref(), &others)]
}

fn judge_count(cpus: usize) -> Check {
    const NAME: &str = "cpus";
    match cpus {
        0 => Check::warn(NAME, "not told", "mount /proc, or give --shards and --cpus when it is served"),
        1 => Check::warn(
            NAME,
            "1 may be used: one shard, beside all else that runs here",
            "give it 2 or more, and leave one to interrupts and the rest: `corrente serve --cpus`",
        ),
        _ => Check::ok(NAME, format!("{cpus} may be used: {cpus} shards unless told otherwise")),
    }
}

/// The governors of the CPUs that have one.
fn judge_governors(governors: &[String]) -> Check {
    const NAME: &str = "cpu-governor";
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for governor in governors {
        *counts.entry(governor).or_default() += 1;
    }
    let counted = |(governor, count): (&&str, &usize)| format!("{governor} on {count} cpus");
    let found = counts.iter().map(counted).collect::<Vec<_>>().join(", ");
    if governors.is_empty() {
        return Check::ok(NAME, "not exposed, as in most virtual machines: their host decides");
    }
    if counts.keys().all(|governor| *governor == "performance") {
        return Check::ok(NAME, found);
    }
    Check::warn(NAME, found, "`cpupower frequency-set -g performance`: a core that slept wakes slowly")
}

/// `others` is what may be chosen instead, divided by blanks.
fn judge_clock(clock: Option<&str>, others: &str) -> Check {
    const NAME: &str = "clock-source";
    let Some(clock) = clock else {
        return Check::ok(NAME, "not exposed");
    };
    if FAST_CLOCKS.contains(&clock) {
        return Check::ok(NAME, clock);
    }
    let mend = match others.split_whitespace().find(|other| FAST_CLOCKS.contains(other)) {
        Some(fast) => {
            format!("`echo {fast} > /{CLOCK}/current_clocksource`, and see in `dmesg` why it was left")
        }
        None => "see in `dmesg` why the kernel does not trust its fast clock (tsc)".to_owned(),
    };
    Check::warn(NAME, format!("{clock}, which is slow to read"), mend)
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict;
    use super::super::machine::made_up;
    use super::*;

    #[test]
    fn cpus_are_those_that_are_allowed() {
        let status = "Name:\tcorrente\nCpus_allowed:\tf1\nCpus_allowed_list:\t0,4-7\nMems_allowed:\t1\n";
        assert_eq!(allowed_in(status), Some(vec![0, 4, 5, 6, 7]));
        assert_eq!(allowed_in("Name:\tcorrente\n"), None);
        assert_eq!(
            (judge_count(0).verdict, judge_count(1).verdict, judge_count(2).verdict),
            (Verdict::Warn, Verdict::Warn, Verdict::Ok)
        );
    }

    #[test]
    fn one_sleepy_cpu_is_enough_for_a_warning() {
        let judge = |governors: &[&str]| {
            judge_governors(&governors.iter().map(|&governor| governor.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(judge(&["performance"; 2]), Check::ok("cpu-governor", "performance on 2 cpus"));
        let mixed = judge(&["performance", "powersave", "performance"]);
        assert_eq!(mixed.verdict, Verdict::Warn);
        assert_eq!(mixed.found, "performance on 2 cpus, powersave on 1 cpus");
        assert_eq!(judge(&[]).verdict, Verdict::Ok);
    }

    #[test]
    fn a_slow_clock_is_exchanged_if_there_is_a_faster_one() {
        assert_eq!(judge_clock(Some("tsc"), "tsc hpet"), Check::ok("clock-source", "tsc"));
        assert_eq!(judge_clock(Some("kvm-clock"), "").verdict, Verdict::Ok);
        assert_eq!(judge_clock(None, "").verdict, Verdict::Ok);
        for (others, mend) in [("hpet tsc acpi_pm", "`echo tsc >"), ("hpet acpi_pm", "dmesg")] {
            let check = judge_clock(Some("hpet"), others);
            assert_eq!(check.verdict, Verdict::Warn);
            assert!(check.row()[3].contains(mend), "{check:?}");
        }
    }

    #[test]
    fn all_are_read_from_the_machine() {
        let (_home, machine) = made_up(&[
            ("proc/self/status", "Cpus_allowed_list:\t0-1\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "schedutil\n"),
            ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "schedutil\n"),
            ("sys/devices/system/cpu/cpu2/cpufreq/scaling_governor", "performance\n"),
            ("sys/devices/system/clocksource/clocksource0/current_clocksource", "acpi_pm\n"),
            ("sys/devices/system/clocksource/clocksource0/available_clocksource", "acpi_pm \n"),
        ]);
        let cpus = allowed(&machine);
        let checks = checks(&machine, &cpus);
        let found: Vec<&str> = checks.iter().map(|check| check.found.as_str()).collect();
        assert_eq!(
            found,
            [
                "2 may be used: 2 shards unless told otherwise",
                "schedutil on 2 cpus",
                "acpi_pm, which is slow to read"
            ]
        );
    }
}
