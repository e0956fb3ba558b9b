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

/// A broker that runs, and ends with its owner.
pub struct Broker {
    child: Child,
    /// Where it serves.
    pub address: String,
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
    /// Starts a process that listens at this address.
    ///
    /// # Errors
    /// If there is no such program or the directory cannot be used.
    pub fn start(&self, listen: &str, shards: u16) -> Result<Starting> {
        fs::create_dir_all(&self.directory)
            .with_context(|| format!("create {}", self.directory.display()))?;
        let ready_file = self.directory.join("ready.json");
        let log = self.directory.join("broker.log");
        let log_file = File::options().create(true).append(true).open(&log);
        let log_file = log_file.with_context(|| format!("open {}", log.display()))?;
        let began = Instant::now();
        let child = Command::new(&self.binary)
            .args(["serve", "--placement", "unbound", "--listen", listen, "--shards", &shards.to_string()])
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

/// An address of this machine that is free now, and whose port nobody is given while the broker is down: a client
/// that tries to connect then could be given the very port that it connects to, and meet itself there.
///
/// # Errors
/// If there is none.
pub fn free_address(rng: &mut Rng) -> Result<String> {
    let ports = std::iter::repeat_with(|| rng.u16(15_000..30_000)).take(100);
    let mut addresses = ports.map(|port| format!("127.0.0.1:{port}"));
    addresses.find(|address| TcpListener::bind(address).is_ok()).context("no free port from 15000 to 29999")
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
            if let Some(address) = self.served_at() {
                return Ok(Broker { child: self.child, address, ready_after: self.began.elapsed() });
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
    fn served_at(&self) -> Option<String> {
        let text = fs::read(&self.ready_file).ok()?;
        let ready: serde_json::Value = serde_json::from_slice(&text).ok()?;
        (ready["pid"] == u64::from(self.child.id())).then(|| ready["native"].as_str().map(str::to_owned))?
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
