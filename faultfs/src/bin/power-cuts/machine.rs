//! What the machine lends: loop devices, ext4, and whether there is all that a campaign takes.
//!
//! Mounts are made in this process's own mount namespace, and a loop device goes when its mount does, so that nothing
//! is left behind however the process ends.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

/// Programs that are run.
const TOOLS: [&str; 6] = ["mkfs.ext4", "e2fsck", "losetup", "mount", "umount", "setpriv"];

/// A file system is in use for longer than this only if somebody means to use it.
const BUSY_MAX: Duration = Duration::from_secs(30);

/// What is missing here for a campaign, if anything.
pub fn missing() -> Option<String> {
    if !geteuid().is_root() {
        return Some("mounting takes root".into());
    }
    for device in ["/dev/fuse", "/dev/loop-control"] {
        if !Path::new(device).exists() {
            return Some(format!("there is no {device}"));
        }
    }
    let missing = |tool: &&str| {
        !Command::new("sh")
            .args(["-c", &format!("command -v {tool}")])
            .output()
            .is_ok_and(|output| output.status.success())
    };
    TOOLS.iter().find(|tool| missing(tool)).map(|tool| format!("there is no {tool}"))
}

/// A fresh file system on an image file.
pub fn make_ext4(image: &Path) -> Result<()> {
    // Without the lazy parts the kernel would fill tables behind the broker's back, and cuts would hit those.
    let options = "nodiscard,lazy_itable_init=0,lazy_journal_init=0";
    run(Command::new("mkfs.ext4").args(["-q", "-F", "-E", options]).arg(image)).map(drop)
}

/// What the check of a file system came to.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Checked {
    /// Sound.
    Clean,
    /// Repaired.
    Repaired,
    /// Beyond repair without a person.
    Broken,
}

/// Has the kernel play the journal of the file system on `image`, mounting it at `at`, and then checks all of it.
///
/// In this order: e2fsck 1.47 takes a commit block torn at a sector for a damaged journal and wants a person, where the
/// kernel knows it for what it is.
pub fn recover_ext4(image: &Path, at: &Path) -> Result<(Checked, String)> {
    mount_ext4(image, at, false)?.unmount()?;
    let output = Command::new("e2fsck").args(["-f", "-p"]).arg(image).output().context("running e2fsck")?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned();
    let checked = match output.status.code() {
        Some(0) => Checked::Clean,
        Some(1) => Checked::Repaired,
        _ => Checked::Broken,
    };
    Ok((checked, said))
}

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub struct Mounted {
    at: PathBuf,
    mounted: bool,
}

/// Mounts the file system on `file` at the directory `at`, made if it is missing. Directly means past the page
/// cache, so that what the file's own disk is asked for is what the file system asks for.
pub fn mount_ext4(file: &Path, at: &Path, directly: bool) -> Result<Mounted> {
    std::fs::create_dir_all(at).with_context(|| format!("making {}", at.display()))?;
    let direct = if directly { "--direct-io=on" } else { "--direct-io=off" };
    let device = run(Command::new("losetup").args([direct, "--find", "--show"]).arg(file))?;
    let device = device.trim();
    ensure!(device.starts_with("/dev/loop"), "losetup named '{device}' as the device");
    let mounted = run(Command::new("mount").args(["-t", "ext4", device]).arg(at));
    // In use it only marks the device, which then goes with its last user; otherwise it goes now.
    let detached = run(Command::new("losetup").args(["-d", device]));
    mounted.and(detached)?;
    Ok(Mounted { at: at.to_owned(), mounted: true })
}

impl Mounted {
    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Unmounts it.
    pub fn unmount(mut self) -> Result<()> {
        self.mounted = false;
        unmount(&self.at)
    }
}

/// The files of a process that was killed stay open for a moment: the kernel ends its rings after the process.
fn unmount(at: &Path) -> Result<()> {
    let began = Instant::now();
    loop {
        match run(Command::new("umount").arg(at)) {
            Err(error) if error.to_string().contains("busy") && began.elapsed() < BUSY_MAX => {
                thread::sleep(Duration::from_millis(5));
            }
            outcome => return outcome.map(drop),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.mounted
            && let Err(error) = unmount(&self.at)
        {
            eprintln!("{error:#}");
        }
    }
}

fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("running {name}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{name} ended with {}: {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
