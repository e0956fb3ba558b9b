//! A broker of the real binary as a process: started, killed without a last word, started again where it was.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fastrand::Rng;

/// How long a start may take; far beyond what is expected.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks whether it serves.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Where a broker lives, and how it is started.
#[derive(Clone, Debug)]
pub struct Home {
    /// The program.
    pub binary: PathBuf,
    /// Holds its data, its log and its ready file.
    pub directory: PathBuf,
    /// Settings that are not the usual ones, by key: `log.upkeep_interval_ms` and the like.
    pub settings: Vec<(String, String)>,
}

/// Where a broker serves: `HOST:PORT` each.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Our own protocol.
    pub native: String,
    /// Kafka's.
    pub kafka: String,
}

/// A broker that runs, and ends with its owner.
pub struct Broker {
    child: Child,
    /// Where it serves.
    pub addresses: Addresses,
    /// From its start to its ready file.
    pub ready_after: Duration,
}

/// A broker that was started and may not serve yet.
pub struct Starting {
    child: Child,
    ready_file: PathBuf,
    log: PathBuf,
    began: Instant,
}

impl Home {
    /// Starts a process that listens at these addresses.
    ///
    /// # Errors
    /// If there is no such program or the directory cannot be used.
    pub fn start(&self, listen: &Addresses, shards: u16) -> Result<Starting> {
        fs::create_dir_all(&self.directory)
            .with_context(|| format!("create {}", self.directory.display()))?;
        let ready_file = self.directory.join("ready.json");
        let log = self.directory.join("broker.log");
        let log_file = File::options().create(true).append(true).open(&log);
        let log_file = log_file.with_context(|| format!("open {}", log.display()))?;
        let began = Instant::now();
        let child = Command::new(&self.binary)
            .args(["serve", "--placement", "unbound", "--shards", &shards.to_string()])
            .args(["--listen", &listen.native, "--kafka", &listen.kafka])
            .arg("--data-dir")
            .arg(self.directory.join("data"))
            .arg("--ready-file")
            .arg(&ready_file)
            .envs(self.settings.iter().map(|(key, value)| (variable(key), value)))
            .env_remove("CORRENTE_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file)
            .spawn()
            .with_context(|| format!("start {}", self.binary.display()))?;
        Ok(Starting { child, ready_file, log, began })
    }
}

/// Addresses of this machine that are free now, and whose ports nobody is given while the broker is down: a client
/// that tries to connect then could be given the very port that it connects to, and meet itself there.
///
/// # Errors
/// If there are none.
pub fn free_addresses(rng: &mut Rng) -> Result<Addresses> {
    let ports = std::iter::repeat_with(|| rng.u16(15_000..30_000)).take(100);
    // Held until both are found, so that they differ.
    let mut free = ports.filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    let [native, kafka] =
        [free.next(), free.next()].map(|listener| listener.context("no two free ports from 15000 to 29999"));
    let (native, kafka) = (native?, kafka?);
    Ok(Addresses { native: native.local_addr()?.to_string(), kafka: kafka.local_addr()?.to_string() })
}

/// The name of a setting in the environment.
fn variable(key: &str) -> String {
    format!("CORRENTE__{}", key.replace('.', "__").to_uppercase())
}

impl Starting {
    /// Waits until requests are served.
    ///
    /// # Errors
    /// If the process ends instead, or time runs out; with the end of its log.
    pub async fn ready(mut self) -> Result<Broker> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the broker ended with {status} while starting: {}", last_lines(&self.log));
            }
            if let Some(addresses) = self.served_at() {
                return Ok(Broker { child: self.child, addresses, ready_after: self.began.elapsed() });
            }
            if self.began.elapsed() > PATIENCE {
                // Nobody else will.
                self.kill()?;
                bail!("the broker serves nothing {PATIENCE:?} after its start");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Ends it at once, wherever it is.
    ///
    /// # Errors
    /// If the system does not let us.
    pub fn kill(mut self) -> Result<()> {
        kill(&mut self.child)
    }

    /// The file of an earlier start names another process until it is replaced.
    fn served_at(&self) -> Option<Addresses> {
        let text = fs::read(&self.ready_file).ok()?;
        let ready: serde_json::Value = serde_json::from_slice(&text).ok()?;
        if ready["pid"] != u64::from(self.child.id()) {
            return None;
        }
        let address = |listener: &str| ready[listener].as_str().map(str::to_owned);
        Some(Addresses { native: address("native")?, kafka: address("kafka")? })
    }
}

impl Broker {
    /// `kill -9`: no time for last words.
    ///
    /// # Errors
    /// If it had ended by itself, or the system does not let us.
    pub fn kill(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the broker ended by itself, with {status}");
        }
        kill(&mut self.child)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Only a process that ended before cannot be killed.
        let _ = kill(&mut self.child);
    }
}

fn kill(child: &mut Child) -> Result<()> {
    child.kill().context("kill the broker")?;
    child.wait().context("wait for the broker")?;
    Ok(())
}

fn last_lines(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().rev().take(3).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}
