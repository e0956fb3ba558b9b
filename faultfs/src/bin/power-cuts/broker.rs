//! The broker as a process of the real binary: started and waited for, killed, stopped in order.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A start that takes longer has failed.
const START_MAX: Duration = Duration::from_secs(60);
/// The same for a stop in order.
const STOP_MAX: Duration = Duration::from_secs(60);
/// Between two looks at what is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(4);

/// How brokers are started.
#[derive(Clone, Debug)]
pub struct Setup {
    pub binary: PathBuf,
    /// Log and ready file are here, off the disk under test.
    pub home: PathBuf,
    pub shards: u32,
    /// How often logs are looked at for what may be compacted or removed.
    pub upkeep_ms: u64,
}

/// A running broker; killed when dropped.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    /// Where clients reach it.
    pub address: String,
    /// How long the start took.
    pub ready: Duration,
}

impl Setup {
    /// The file that brokers log to.
    pub fn log_file(&self) -> PathBuf {
        self.home.join("broker.log")
    }

    /// Starts a broker on `data` that listens at `listen`, of which port 0 takes any, and waits until it serves.
    pub fn start(&self, data: &Path, listen: &str) -> Result<Broker> {
        let began = Instant::now();
        fs::create_dir_all(&self.home)?;
        let ready_file = self.home.join("ready");
        let _ = fs::remove_file(&ready_file);
        let log = OpenOptions::new().create(true).append(true).open(self.log_file())?;
        // It must not outlive this process, however that ends: it would hold the mounts.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&self.binary)
            .arg("serve")
            .arg("--data-dir")
            .arg(data)
            .args(["--listen", listen])
            .arg("--ready-file")
            .arg(&ready_file)
            .args(["--shards", &self.shards.to_string(), "--placement", "unbound"])
            .env("CORRENTE__LOG__SEGMENT_BYTES", "1 MiB")
            .env("CORRENTE__MEMORY__PER_SHARD_BYTES", "64 MiB")
            .env("CORRENTE__SHARDS__IDLE", "park")
            .env("CORRENTE__LOG__UPKEEP_INTERVAL_MS", self.upkeep_ms.to_string())
            .env("CORRENTE__LOG__POOL_BYTES", "8 MiB")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.binary.display()))?;
        let mut broker = Broker { child, address: String::new(), ready: Duration::ZERO };
        while fs::metadata(&ready_file).map_or(0, |metadata| metadata.len()) == 0 {
            if let Some(status) = broker.child.try_wait()? {
                bail!("the broker ended while starting, with {status}: {}", self.last_words());
            }
            if began.elapsed() > START_MAX {
                bail!("the broker does not serve {START_MAX:?} after its start: {}", self.last_words());
            }
            thread::sleep(LOOK_EVERY);
        }
        let ready: serde_json::Value = serde_json::from_slice(&fs::read(&ready_file)?)?;
        broker.address = ready["native"].as_str().context("a ready file without an address")?.to_owned();
        broker.ready = began.elapsed();
        Ok(broker)
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.log_file()).unwrap_or_default();
        log.lines().last().unwrap_or("it logged nothing").to_owned()
    }
}

impl Broker {
    /// Ends it at once: nothing is flushed, no handler runs.
    pub fn kill(mut self) -> Result<()> {
        self.end()
    }

    /// Asks it to end in order, and waits until it has.
    pub fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process id")?;
        kill_process(pid, Signal::TERM)?;
        let asked = Instant::now();
        while asked.elapsed() < STOP_MAX {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("asked to stop, the broker ended with {status}"),
                None => thread::sleep(LOOK_EVERY),
            }
        }
        bail!("the broker did not end within {STOP_MAX:?} of being asked to")
    }

    fn end(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
