//! A data directory: the file system below it, the room on it, the drive under that.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::check::Check;
use super::flush::TrialFile;
use super::machine::Machine;
use super::mount::{Mount, mount_of};

const GIB: u64 = 1 << 30;

/// What a broker leaves free unless told otherwise: this, or a twentieth of the file system where that is less.
const RESERVE_MAX: u64 = GIB;
/// Beyond the reserve, ten segments of the size that they have by default.
const ROOM_WANTED: u64 = 10 * GIB;

/// A data directory that is there, or the place where it would be made.
#[derive(Debug)]
pub struct DataDir {
    /// As it was asked for.
    named: PathBuf,
    /// It, or its nearest parent that exists. Absolute and without links.
    existing: PathBuf,
    is_there: bool,
}

impl DataDir {
    /// Makes nothing. Fails if a file is in the way.
    pub fn find(named: &Path) -> Result<DataDir> {
        let absolute =
            std::path::absolute(named).with_context(|| format!("--data-dir {}", named.display()))?;
        for (above, place) in absolute.ancestors().enumerate() {
            match fs::metadata(place) {
                Ok(metadata) if !metadata.is_dir() => {
                    bail!("--data-dir {}: {} is not a directory", named.display(), place.display())
                }
                Ok(_) => {
                    let existing = fs::canonicalize(place).with_context(|| place.display().to_string())?;
                    return Ok(DataDir { named: named.to_owned(), existing, is_there: above == 0 });
                }
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(error).with_context(|| format!("--data-dir {}", place.display())),
            }
        }
        bail!("--data-dir {}: nothing on the way to it exists", named.display())
    }
}

pub fn checks(machine: &Machine, dir: &DataDir) -> Vec<Check> {
    let mount = machine.read("proc/self/mountinfo").and_then(|mounts| mount_of(&mounts, &dir.existing));
    let trial = TrialFile::create(&dir.existing);

    let mut checks = vec![
        judge_directory(dir, &trial),
        judge_file_system(mount.as_ref()),
        judge_free_space(&space(&dir.existing)),
    ];
    checks.extend(drive_checks(machine, mount.as_ref()));
    checks.extend(trial.iter().flat_map(TrialFile::checks));
    checks.into_iter().map(|check| check.of(dir.named.display().to_string())).collect()
}

fn judge_directory<T>(dir: &DataDir, trial: &io::Result<T>) -> Check {
    const NAME: &str = "data-dir";
    let found = match dir.is_there {
        true => dir.existing.display().to_string(),
        false => format!("does not exist yet: looked at {}", dir.existing.display()),
    };
    match trial {
        Ok(_) => Check::ok(NAME, found),
        Err(error) => Check::fail(
            NAME,
            format!("{found}: no file can be made there: {error}"),
            "`chown` it to the broker's user, or ask the doctor as that user",
        ),
    }
}

fn judge_file_system(mount: Option<&Mount>) -> Check {
    const NAME: &str = "file-system";
    let Some(mount) = mount else {
        return Check::warn(NAME, "not told", "see with `findmnt -T` that it is ext4 or XFS");
    };
    let Mount { kind, source, options, .. } = mount;
    let found = format!("{kind} of {source}");
    if let Some(option) = options.split(',').find(|option| ["nobarrier", "barrier=0"].contains(option)) {
        let mend = format!("mount it without {option}: flushes do not reach the drive");
        return Check::fail(NAME, format!("{found}, mounted with {option}"), mend);
    }
    let mend = match kind.as_str() {
        "ext4" | "xfs" => return Check::ok(NAME, found),
        "tmpfs" | "ramfs" => {
            return Check::fail(NAME, found, "put the data on a drive: memory forgets what was acknowledged");
        }
        "btrfs" | "zfs" | "bcachefs" => {
            "use ext4 or XFS: a file system that copies on write does more at each flush"
        }
        "overlay" => "mount a volume there: a container's own layer is slow, and goes with the container",
        kind if is_remote(kind) => {
            "use ext4 or XFS on a local drive: a flush is only as good as whoever serves this"
        }
        _ => "use ext4 or XFS, which are what is known to do well",
    };
    Check::warn(NAME, found, mend)
}

/// Served by another machine, the host of a virtual one, or a process.
fn is_remote(kind: &str) -> bool {
    ["nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "virtiofs"].contains(&kind) || kind.starts_with("fuse")
}

/// Bytes of a file system.
#[derive(Debug, Clone, Copy)]
struct Space {
    total: u64,
    available: u64,
}

fn space(path: &Path) -> io::Result<Space> {
    let answer = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(answer.f_frsize);
    Ok(Space { total: bytes(answer.f_blocks), available: bytes(answer.f_bavail) })
}

fn judge_free_space(space: &io::Result<Space>) -> Check {
    const NAME: &str = "free-space";
    let Space { total, available } = match space {
        Ok(space) => *space,
        Err(error) => return Check::fail(NAME, format!("not told: {error}"), "look at the drive"),
    };
    let gib = |bytes: u64| bytes as f64 / GIB as f64;
    let reserve = RESERVE_MAX.min(total / 20);
    let found = format!("{:.1} of {:.1} GiB, {:.1} kept free", gib(available), gib(total), gib(reserve));
    if available <= reserve {
        let mend = "make room, or give it a larger drive: appends are refused";
        return Check::fail(NAME, found, mend);
    }
    if available - reserve < ROOM_WANTED {
        let mend = format!(
            "give it {} GiB more than is kept free, or keep less: `retention.bytes`",
            ROOM_WANTED / GIB
        );
        return Check::warn(NAME, found, mend);
    }
    Check::ok(NAME, found)
}

/// A drive as its queue in `/sys` tells of it.
#[derive(Debug, Default)]
struct Drive {
    rotates: bool,
    /// `write back` or `write through`.
    write_cache: Option<String>,
    /// The one in use.
    scheduler: Option<String>,
}

fn drive_checks(machine: &Machine, mount: Option<&Mount>) -> [Check; 2] {
    let drive = mount.and_then(|mount| drive(machine, &mount.device));
    [judge_drive(drive.as_ref()), judge_scheduler(drive.as_ref())]
}

/// A partition has its queue in the directory above its own.
fn drive(machine: &Machine, device: &str) -> Option<Drive> {
    let queues = ["queue", "../queue"].map(|queue| format!("sys/dev/block/{device}/{queue}"));
    queues.iter().find_map(|queue| {
        let rotates = machine.number(&format!("{queue}/rotational"))? == 1;
        let write_cache = machine.read(&format!("{queue}/write_cache"));
        let scheduler =
            machine.read(&format!("{queue}/scheduler")).map(|choices| in_use(&choices).to_owned());
        Some(Drive { rotates, write_cache, scheduler })
    })
}

/// `mq-deadline` of `none [mq-deadline] kyber`; a drive without a choice names the one it has.
fn in_use(choices: &str) -> &str {
    choices.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or(choices, |(chosen, _)| chosen)
}

/// A write cache is told, not judged: what it costs is in the flush latency.
fn judge_drive(drive: Option<&Drive>) -> Check {
    const NAME: &str = "drive";
    let Some(Drive { rotates, write_cache, .. }) = drive else {
        return Check::ok(NAME, "not exposed: no block device of this file system is in /sys");
    };
    let cache = match write_cache.as_deref() {
        Some("write back") => "write back: a flush empties its cache",
        Some("write through") => "write through: a flush finds nothing in its cache",
        Some(other) => other,
        None => "write cache not told",
    };
    if *rotates {
        let mend = "use an SSD; virtual drives may say so wrongly: trust flush-latency then";
        return Check::warn(NAME, format!("says that it rotates; {cache}"), mend);
    }
    Check::ok(NAME, format!("does not rotate; {cache}"))
}

fn judge_scheduler(drive: Option<&Drive>) -> Check {
    const NAME: &str = "io-scheduler";
    match drive.and_then(|drive| drive.scheduler.as_deref()) {
        None => Check::ok(NAME, "not exposed"),
        Some(scheduler @ ("bfq" | "cfq")) => Check::warn(
            NAME,
            format!("{scheduler}, which holds writes back to be fair"),
            "`echo none > /sys/block/NAME/queue/scheduler`, kept by a udev rule",
        ),
        Some(scheduler) => Check::ok(NAME, scheduler),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict;
    use super::super::machine::made_up;
    use super::*;

    fn mount(kind: &str, options: &str) -> Mount {
        let (device, source) = ("259:1".to_owned(), "/dev/nvme0n1p1".to_owned());
        Mount { device, kind: kind.to_owned(), source, options: options.to_owned() }
    }

    #[test]
    fn a_directory_that_is_missing_is_looked_for_further_up() {
        let home = tempfile::tempdir().unwrap();
        let existing = fs::canonicalize(home.path()).unwrap();
        let there = DataDir::find(home.path()).unwrap();
        assert_eq!((&there.existing, there.is_there), (&existing, true));
        let missing = home.path().join("a/b");
        let dir = DataDir::find(&missing).unwrap();
        assert_eq!((&dir.existing, dir.is_there), (&existing, false));
        let check = judge_directory(&dir, &Ok(()));
        assert!(check.found.contains("does not exist yet") && check.verdict == Verdict::Ok, "{check:?}");
        assert!(!home.path().join("a").exists());
        assert_eq!(
            judge_directory::<()>(&dir, &Err(io::ErrorKind::PermissionDenied.into())).verdict,
            Verdict::Fail
        );
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        fs::write(&file, "").unwrap();
        for named in [file.clone(), file.join("data")] {
            let error = DataDir::find(&named).unwrap_err().to_string();
            assert!(error.contains(&format!("{} is not a directory", file.display())), "{error}");
        }
    }

    #[test]
    fn file_systems_are_told_apart() {
        let verdict = |kind| judge_file_system(Some(&mount(kind, "rw,relatime"))).verdict;
        assert_eq!((verdict("ext4"), verdict("xfs")), (Verdict::Ok, Verdict::Ok));
        for kind in ["btrfs", "zfs", "overlay", "nfs4", "fuse.sshfs", "fuseblk", "minix"] {
            assert_eq!(verdict(kind), Verdict::Warn, "{kind}");
        }
        assert_eq!(verdict("tmpfs"), Verdict::Fail);
        assert_eq!(judge_file_system(None).verdict, Verdict::Warn);
        assert_eq!(judge_file_system(Some(&mount("ext4", "rw,nobarrier"))).verdict, Verdict::Fail);
        assert_eq!(judge_file_system(Some(&mount("ext4", "rw,barrier=0"))).verdict, Verdict::Fail);
    }

    #[test]
    fn room_is_held_against_the_reserve() {
        let judge = |total, available| judge_free_space(&Ok(Space { total: total * GIB, available }));
        assert_eq!(judge(100, GIB).verdict, Verdict::Fail);
        assert_eq!(judge(100, GIB + 1).verdict, Verdict::Warn);
        assert_eq!(judge(100, 11 * GIB), Check::ok("free-space", "11.0 of 100.0 GiB, 1.0 kept free"));
        // A twentieth of ten.
        assert_eq!(judge(10, GIB / 2).verdict, Verdict::Fail);
        assert_eq!(judge(10, GIB / 2 + 1).verdict, Verdict::Warn);
        assert_eq!(judge_free_space(&Err(io::ErrorKind::NotFound.into())).verdict, Verdict::Fail);
    }

    #[test]
    fn a_drive_is_read_from_its_queue_or_that_of_the_whole() {
        let (home, machine) = made_up(&[
            ("sys/devices/vda/queue/rotational", "1\n"),
            ("sys/devices/vda/queue/write_cache", "write back\n"),
            ("sys/devices/vda/queue/scheduler", "none mq-deadline [bfq]\n"),
            ("sys/devices/vda/vda1/partition", "1\n"),
            ("sys/devices/dm/queue/rotational", "0\n"),
            ("sys/dev/block/README", ""),
        ]);
        for (number, target) in [("254:0", "vda"), ("254:1", "vda/vda1"), ("253:0", "dm")] {
            let link = home.path().join("sys/dev/block").join(number);
            std::os::unix::fs::symlink(format!("../../devices/{target}"), link).unwrap();
        }
        for device in ["254:0", "254:1"] {
            let checks =
                drive_checks(&machine, Some(&Mount { device: device.to_owned(), ..mount("ext4", "rw") }));
            assert_eq!((checks[0].verdict, checks[1].verdict), (Verdict::Warn, Verdict::Warn), "{checks:?}");
            assert!(checks[0].found.contains("write back") && checks[1].found.contains("bfq"), "{checks:?}");
        }
        let mapped =
            drive_checks(&machine, Some(&Mount { device: "253:0".to_owned(), ..mount("xfs", "rw") }));
        assert_eq!(mapped[0], Check::ok("drive", "does not rotate; write cache not told"));
        for mount in [Some(&mount("overlay", "rw")), None] {
            let checks = drive_checks(&machine, mount);
            assert_eq!((checks[0].verdict, checks[1].verdict), (Verdict::Ok, Verdict::Ok), "{checks:?}");
        }
    }

    #[test]
    fn the_scheduler_in_use_is_the_one_in_brackets() {
        assert_eq!(in_use("none [mq-deadline] kyber"), "mq-deadline");
        assert_eq!(in_use("none"), "none");
    }

    #[test]
    fn a_directory_has_a_line_for_each_check() {
        let home = tempfile::tempdir().unwrap();
        let (_proc, machine) = made_up(&[("proc/self/mountinfo", "27 1 254:0 / / rw - ext4 /dev/vda rw\n")]);
        let checks = checks(&machine, &DataDir::find(home.path()).unwrap());
        let names: Vec<&str> = checks.iter().map(|check| check.name).collect();
        let expected =
            ["data-dir", "file-system", "free-space", "drive", "io-scheduler", "direct-io", "flush-latency"];
        assert_eq!(names, expected);
        assert_eq!(checks[1].found, "ext4 of /dev/vda");
        assert!(checks.iter().all(|check| check.row()[0].ends_with(&home.path().display().to_string())));
    }
}
