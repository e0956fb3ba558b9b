//! One cut: builds the image, checks and mounts its file system, lets a broker loose on it, and has it judged.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result};
use corrente_client::Client;
use corrente_faultfs::cut::Replayer;
use corrente_history::History;
use tokio::runtime::{Builder, Runtime};

use crate::broker::{Broker, Setup};
use crate::judge::{Finding, Found, Judged, judge};
use crate::machine::{self, Checked};
use crate::plan::Cut;
use crate::read_back;
use crate::totals::Outcome;

/// Longer than any examination: nothing that a start found goes while it is read.
const UPKEEP_MS: u64 = 3_600_000;

/// Examines cuts, one after the other, in a directory of its own.
pub struct Examiner {
    dir: PathBuf,
    binary: PathBuf,
    runtime: Runtime,
}

impl Examiner {
    pub fn new(dir: PathBuf, binary: PathBuf) -> Result<Examiner> {
        fs::create_dir_all(&dir)?;
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        Ok(Examiner { dir, binary, runtime })
    }

    /// What the broker logged on the cut examined last.
    pub fn broker_log(&self) -> PathBuf {
        self.setup(1).log_file()
    }

    /// Examines a cut where `replayer` stands; at `cut_ns`, in the history, that is.
    pub fn examine(
        &self,
        run: usize,
        number: usize,
        cut: Cut,
        replayer: &Replayer<'_>,
        history: &History,
        cut_ns: u64,
    ) -> Result<Outcome> {
        let image = self.dir.join("disk.img");
        let (_, fates) = replayer.cut(cut.mode, cut.seed, &image).context("building the image")?;
        let (file_system, said) = machine::recover_ext4(&image, &self.dir.join("fs"))
            .unwrap_or_else(|error| (Checked::Broken, format!("{error:#}")));
        let mut outcome = Outcome {
            run,
            number,
            cut,
            fates,
            file_system,
            judged: Judged::default(),
            findings: Vec::new(),
            torn_tails: 0,
            ready_ms: None,
        };
        let _ = fs::remove_file(self.broker_log());
        if file_system == Checked::Repaired {
            println!("run {run} cut {number}: e2fsck repaired something: {said}");
        }
        if file_system == Checked::Broken {
            outcome.findings.push(Finding::new("FileSystem", said));
        } else {
            match self.let_loose(&image, cut.shards, &mut outcome) {
                Ok((found, deaf)) => {
                    let (findings, judged) = judge(history, cut_ns, &found);
                    outcome.judged = judged;
                    outcome.findings.extend(findings);
                    outcome.findings.extend(deaf);
                }
                Err(finding) => outcome.findings.push(finding),
            }
        }
        let log = fs::read_to_string(self.broker_log()).unwrap_or_default();
        outcome.torn_tails = log.lines().filter(|line| line.contains("cut a torn tail")).count() as u64;
        fs::remove_file(&image)?;
        Ok(outcome)
    }

    /// Mounts the image and starts a broker on it: what that serves, and which partitions take no more.
    fn let_loose(
        &self,
        image: &Path,
        shards: u32,
        outcome: &mut Outcome,
    ) -> Result<(Found, Vec<Finding>), Finding> {
        let file_system =
            machine::mount_ext4(image, &self.dir.join("fs"), false).map_err(of("FileSystem"))?;
        let data = file_system.path().join("data");
        let broker = self.setup(shards).start(&data, "127.0.0.1:0").map_err(of("NotStarted"))?;
        outcome.ready_ms = u64::try_from(broker.ready.as_millis()).ok();
        let seen = self.runtime.block_on(look(&broker)).map_err(of("Refused"))?;
        broker.kill().and_then(|()| file_system.unmount()).map_err(of("FileSystem"))?;
        Ok(seen)
    }

    fn setup(&self, shards: u32) -> Setup {
        Setup { binary: self.binary.clone(), home: self.dir.clone(), shards, upkeep_ms: UPKEEP_MS }
    }
}

async fn look(broker: &Broker) -> Result<(Found, Vec<Finding>)> {
    let client = Client::builder([&broker.address]).client_id("judge").connect().await?;
    let found = read_back::read_everything(&client).await?;
    let deaf = read_back::append_everywhere(&client, &found).await;
    Ok((found, deaf))
}

/// Trouble as a finding of this class.
fn of(class: &str) -> impl Fn(Error) -> Finding + '_ {
    move |error| Finding::new(class, format!("{error:#}"))
}
