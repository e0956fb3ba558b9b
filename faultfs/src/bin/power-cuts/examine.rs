//! One cut: builds the image, checks and mounts its file system, lets a broker loose on it, and has it judged.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result};
use corrente_client::Client;
use corrente_faultfs::cut::Replayer;
use tokio::runtime::{Builder, Runtime};

use crate::broker::{Broker, Setup};
use crate::history::Stamped;
use crate::judge::{Class, Found, Judged, Violation, judge};
use crate::machine::{self, Checked};
use crate::plan::Cut;
use crate::read_back;
use crate::totals::Outcome;

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

    /// Examines a cut where `replayer` stands; `deeds` end there too.
    pub fn examine(
        &self,
        run: usize,
        number: usize,
        cut: Cut,
        replayer: &Replayer<'_>,
        deeds: &[Stamped],
    ) -> Result<Outcome> {
        let image = self.dir.join("disk.img");
        let (_, fates) = replayer.cut(cut.mode, cut.seed, &image).context("building the image")?;
        let (file_system, said) = machine::check_ext4(&image)?;
        let mut outcome = Outcome {
            run,
            number,
            cut,
            fates,
            file_system,
            judged: Judged::default(),
            violations: Vec::new(),
            torn_tails: 0,
            ready_ms: None,
        };
        let _ = fs::remove_file(self.broker_log());
        if file_system == Checked::Repaired {
            println!("run {run} cut {number}: e2fsck repaired something: {said}");
        }
        if file_system == Checked::Broken {
            outcome.violations.push(Violation { class: Class::FileSystem, detail: said });
        } else {
            match self.let_loose(&image, cut.shards, &mut outcome) {
                Ok((found, deaf)) => {
                    let (violations, judged) = judge(deeds, &found);
                    outcome.judged = judged;
                    outcome.violations.extend(violations);
                    outcome.violations.extend(deaf);
                }
                Err(violation) => outcome.violations.push(violation),
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
    ) -> Result<(Found, Vec<Violation>), Violation> {
        let file_system =
            machine::mount_ext4(image, &self.dir.join("fs"), false).map_err(of(Class::FileSystem))?;
        let data = file_system.path().join("data");
        let broker = self.setup(shards).start(&data, "127.0.0.1:0").map_err(of(Class::NotStarted))?;
        outcome.ready_ms = u64::try_from(broker.ready.as_millis()).ok();
        let seen = self.runtime.block_on(look(&broker)).map_err(of(Class::Refused))?;
        broker.kill().and_then(|()| file_system.unmount()).map_err(of(Class::FileSystem))?;
        Ok(seen)
    }

    fn setup(&self, shards: u32) -> Setup {
        Setup { binary: self.binary.clone(), home: self.dir.clone(), shards }
    }
}

async fn look(broker: &Broker) -> Result<(Found, Vec<Violation>)> {
    let client = Client::builder([&broker.address]).client_id("judge").connect().await?;
    let found = read_back::read_everything(&client).await?;
    let deaf = read_back::append_everywhere(&client, &found).await;
    Ok((found, deaf))
}

/// Trouble as a finding of this class.
fn of(class: Class) -> impl Fn(Error) -> Violation {
    move |error| Violation { class, detail: format!("{error:#}") }
}
