//! What the machine has, and how much of it this process may use.

use std::path::{Path, PathBuf};

use crate::driver;

/// How many CPUs this process may run on, at least one.
pub fn cpu_count() -> usize {
    if driver::simulated() {
        return driver::sim::host::cpu_count();
    }
    driver::uring::cpu::available().map_or(1, |cpus| cpus.len().max(1))
}

/// How much memory this process may use, in bytes: the smallest of the machine's and of the limits of
/// its control groups, of either version. `None` if the machine does not tell.
pub fn memory_limit_bytes() -> Option<u64> {
    if driver::simulated() {
        return Some(driver::sim::host::memory_limit_bytes());
    }
    let groups = read("/proc/self/cgroup").map(|groups| group_limit(Path::new("/sys/fs/cgroup"), &groups));
    let machine = read("/proc/meminfo").and_then(|meminfo| mem_total(&meminfo));
    [groups.flatten(), machine].into_iter().flatten().min()
}

#[expect(clippy::disallowed_methods, reason = "these files are answers of the kernel, not data")]
fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The smallest limit on the way from each group named in `groups` (the text of `/proc/self/cgroup`) up to
/// the root. Inside a container the path may name a place outside of it; then the root's own
/// limit counts.
fn group_limit(root: &Path, groups: &str) -> Option<u64> {
    groups.lines().filter_map(|line| limit_of_line(root, line)).min()
}

fn limit_of_line(root: &Path, line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':');
    let (hierarchy, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
    let (root, file) = match (hierarchy, controllers) {
        ("0", "") => (root.to_owned(), "memory.max"),
        (_, names) if names.split(',').any(|name| name == "memory") => {
            (root.join("memory"), "memory.limit_in_bytes")
        }
        _ => return None,
    };
    let group = root.join(group.trim_start_matches('/'));
    let up_to_root = group.ancestors().take_while(|place| place.starts_with(&root));
    // "max" is no number, and no limit.
    up_to_root.map(PathBuf::from).filter_map(|place| read(place.join(file))?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test lays out what the kernel would")]
    fn write(root: &Path, path: &str, content: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("below the root")).expect("a directory");
        std::fs::write(path, content).expect("a file");
    }

    #[test]
    fn the_smallest_limit_on_the_way_up_counts() {
        let root = tempfile::tempdir().expect("a directory");
        write(root.path(), "a/memory.max", "1000\n");
        write(root.path(), "a/b/memory.max", "max\n");
        write(root.path(), "a/b/c/memory.max", "2000\n");
        assert_eq!(group_limit(root.path(), "0::/a/b/c\n"), Some(1000));
        assert_eq!(group_limit(root.path(), "0::/elsewhere\n"), None);
    }

    #[test]
    fn the_older_version_is_read_as_well() {
        let root = tempfile::tempdir().expect("a directory");
        write(root.path(), "memory/a/memory.limit_in_bytes", "3000\n");
        let groups = "5:cpu,cpuacct:/a\n4:memory:/a\n0::/\n";
        assert_eq!(group_limit(root.path(), groups), Some(3000));
    }

    #[test]
    fn the_machine_has_memory_and_a_cpu() {
        assert_eq!(mem_total("MemFree: 1 kB\nMemTotal:       2048 kB\n"), Some(2 << 20));
        assert!(memory_limit_bytes().is_some_and(|bytes| bytes > 0));
        assert!(cpu_count() > 0);
    }
}
