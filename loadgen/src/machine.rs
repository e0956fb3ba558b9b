//! What was measured where, so that a figure can be judged later.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A machine, in its own words; what cannot be learned is `unknown`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's own name.
    pub cpu: String,
    /// How many of them.
    pub cpus: usize,
    /// How the kernel chooses their frequency; `unknown` on most virtual machines.
    pub cpu_governor: String,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
    /// What its clock reads.
    pub clock_source: String,
}

impl Machine {
    /// Describes this one.
    pub fn describe() -> Machine {
        let memory = field("/proc/meminfo", "MemTotal");
        let kibibytes: u64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
        Machine {
            cpu: field("/proc/cpuinfo", "model name"),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            cpu_governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            memory_bytes: kibibytes * 1024,
            kernel: line("/proc/sys/kernel/osrelease"),
            clock_source: line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        }
    }
}

const UNKNOWN: &str = "unknown";

fn line(file: impl AsRef<Path>) -> String {
    fs::read_to_string(file).map_or_else(|_| UNKNOWN.to_owned(), |text| text.trim().to_owned())
}

fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_once(':').map_or_else(|| UNKNOWN.to_owned(), |(_, value)| value.trim().to_owned())
}

/// The file system that holds a path, with the device below it and that device's write cache, as in `ext4 on /dev/vda,
/// write back`.
pub fn file_system_of(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let (kind, device) = mount_of(&mounts, &path)?;
    let name = PathBuf::from(&device);
    let cache =
        name.file_name().map(|name| line(Path::new("/sys/class/block").join(name).join("queue/write_cache")));
    match cache {
        Some(cache) if cache != UNKNOWN => Some(format!("{kind} on {device}, {cache}")),
        _ => Some(format!("{kind} on {device}")),
    }
}

/// Kind and device of the mount with the longest path that holds `path`; of two at one place, the later hides the
/// earlier.
fn mount_of(mounts: &str, path: &Path) -> Option<(String, String)> {
    let holding = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (device, at, kind) = (fields.next()?, fields.next()?, fields.next()?);
        path.starts_with(at).then(|| (at.len(), (kind.to_owned(), device.to_owned())))
    });
    holding.max_by_key(|(length, _)| *length).map(|(_, mount)| mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_holds_a_path() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/vdb /tmp/x xfs rw 0 0\n";
        let of =
            |path: &str| mount_of(mounts, Path::new(path)).map(|(kind, device)| format!("{kind} {device}"));
        assert_eq!(of("/tmp/x/y").as_deref(), Some("xfs /dev/vdb"));
        assert_eq!(of("/tmp/xy").as_deref(), Some("tmpfs tmpfs"));
        assert_eq!(of("/home").as_deref(), Some("ext4 /dev/vda"));
    }

    #[test]
    fn this_machine_can_be_described() {
        let machine = Machine::describe();
        assert!(machine.cpus > 0 && machine.memory_bytes > 0, "{machine:?}");
        assert!(file_system_of(Path::new("/")).is_some());
    }
}
