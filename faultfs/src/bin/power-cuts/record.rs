//! Records one run: the real broker on ext4 on a recorded disk, under load, killed once and stopped once on the way.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use corrente_faultfs::device::Device;
use corrente_faultfs::fault::Faults;
use corrente_faultfs::image::Image;
use corrente_faultfs::mount::Mount;
use corrente_faultfs::recording::Recorder;
use corrente_history::Topic;
use tokio::runtime::Builder;

use crate::broker::Setup;
use crate::machine;
use crate::plan::Run;
use crate::recorder;
use crate::workload::Workload;

/// The disk's size in bytes.
const DISK_BYTES: u64 = 512 << 20;
/// Load between two disruptions: until so many bytes are acknowledged, or for so long.
const STRETCH_BYTES: u64 = 16 << 20;
const STRETCH_TIME: Duration = Duration::from_secs(5);

/// Often, so that cuts fall into compactions and removals.
const UPKEEP_MS: u64 = 150;

/// Where the parts of a recorded run lie.
#[derive(Clone, Debug)]
pub struct RunDir(pub PathBuf);

impl RunDir {
    /// The disk as it was when the recording began.
    pub fn base(&self) -> PathBuf {
        self.0.join("base.img")
    }

    /// What the disk was asked for.
    pub fn recording(&self) -> PathBuf {
        self.0.join("recording")
    }

    /// What clients did and were told.
    pub fn history(&self) -> PathBuf {
        self.0.join("history.jsonl")
    }

    fn disk(&self) -> PathBuf {
        self.0.join("disk.img")
    }
}

/// A base without anything on it but a file system.
pub fn make_base(path: &Path) -> Result<()> {
    Image::create(path, DISK_BYTES).with_context(|| format!("creating {}", path.display()))?;
    machine::make_ext4(path)
}

/// Records a run on the base that lies in `dir`; returns how many events the disk saw.
pub fn record(dir: &RunDir, run: &Run, binary: &Path, inherited: &[Topic], command: String) -> Result<u64> {
    let image =
        Image::open(&dir.base()).and_then(|base| base.copy_to(&dir.disk())).context("copying the base")?;
    let recorder = Recorder::create(&dir.recording()).context("recording")?;
    let mut faults = Faults::none(run.seed);
    faults.slow(run.latency)?;
    let device = Arc::new(Device::new(image, Some(recorder), faults));
    let fuse = dir.0.join("fuse");
    fs::create_dir_all(&fuse)?;
    let mount = Mount::new(Arc::clone(&device), &fuse).context("mounting the disk")?;
    let file_system = machine::mount_ext4(mount.disk(), &dir.0.join("fs"), true)?;

    let history = Arc::new(recorder::Recorder::new(command)?);
    let setup =
        Setup { binary: binary.to_owned(), home: dir.0.clone(), shards: run.shards, upkeep_ms: UPKEEP_MS };
    let stage = Stage { run, setup, data: file_system.path().join("data"), history, device };
    let events = stage.play(inherited)?;
    stage.history.finish(&dir.history())?;

    file_system.unmount()?;
    mount.unmount().context("unmounting the disk")?;
    fs::remove_file(dir.disk())?;
    Ok(events)
}

/// The recorded disk is there, with a file system on it.
struct Stage<'a> {
    run: &'a Run,
    setup: Setup,
    data: PathBuf,
    history: Arc<recorder::Recorder>,
    device: Arc<Device>,
}

impl Stage<'_> {
    /// Load, a kill, load, a stop in order, load, and the power goes in the middle of it.
    fn play(&self, inherited: &[Topic]) -> Result<u64> {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let broker = self.setup.start(&self.data, "127.0.0.1:0")?;
        let address = broker.address.clone();
        let Run { number, seed, .. } = *self.run;
        let number = u32::try_from(number)?;
        let history = Arc::clone(&self.history);
        let mut workload = runtime.block_on(Workload::start(&address, history, inherited, number, seed))?;
        let mut stretch = || runtime.block_on(workload.until(STRETCH_BYTES, STRETCH_TIME));
        stretch()?;
        broker.kill()?;
        let broker = self.setup.start(&self.data, &address)?;
        stretch()?;
        broker.stop()?;
        let broker = self.setup.start(&self.data, &address)?;
        stretch()?;
        let events = self.device.stop_recording().context("the recording is not whole")?;
        // All clients end with their runtime.
        drop(workload);
        runtime.shutdown_timeout(Duration::from_secs(10));
        broker.kill()?;
        Ok(events)
    }
}
