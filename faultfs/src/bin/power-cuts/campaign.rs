//! A campaign and its state on disk: which runs are recorded, which cuts are judged, and what to do next.
//!
//! ```text
//! target/power-cuts/<kind>-<seed>/campaign.json     what was asked for, and of which binary
//!                                 cuts.jsonl        what came of each cut, as soon as it is judged
//!                                 run-000/          base, recording and history of a run; run.json once it is whole
//!                                 cut/              the broker's home while a cut is judged
//!                                 evidence/         logs of cuts that broke something
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use corrente_faultfs::cut::Replayer;
use corrente_faultfs::image::Image;
use corrente_faultfs::recording::Recording;
use corrente_history::{Action, History, Topic};
use serde::{Deserialize, Serialize};

use crate::examine::Examiner;
use crate::judge::{as_of, go_on};
use crate::machine::{self, Checked};
use crate::plan::{self, Run};
use crate::record::{self, RunDir};
use crate::recorder;
use crate::totals::Outcome;

const PLAN: &str = "campaign.json";

/// What is known of a run once it is recorded.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Recorded {
    /// Events of its recording.
    events: usize,
    /// The moment at which the run before it lost its power, if this one goes on from there.
    parent_cut_ns: Option<u64>,
}

/// A campaign under way.
pub struct Campaign {
    dir: PathBuf,
    plan: plan::Campaign,
    examiner: Examiner,
    binary: PathBuf,
    pub outcomes: Vec<Outcome>,
}

/// How far a campaign came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Progress {
    /// All cuts are judged.
    Done,
    /// The time was over first.
    Unfinished,
}

impl Campaign {
    /// Takes up the campaign that lies in `dir`. If that is another one, it is put aside and this one begun.
    pub fn open(dir: PathBuf, binary: PathBuf, plan: plan::Campaign) -> Result<Campaign> {
        if read_plan(&dir).ok().as_ref() != Some(&plan) {
            if dir.exists() {
                let aside = dir.with_extension("before");
                let _ = fs::remove_dir_all(&aside);
                fs::rename(&dir, &aside).with_context(|| format!("putting {} aside", dir.display()))?;
            }
            fs::create_dir_all(&dir)?;
            fs::write(dir.join(PLAN), serde_json::to_vec(&plan)?)?;
        }
        let outcomes = read_outcomes(&dir.join("cuts.jsonl"))?;
        let examiner = Examiner::new(dir.join("cut"), binary.clone())?;
        Ok(Campaign { dir, plan, examiner, binary, outcomes })
    }

    /// The campaign that lies in `dir`, whatever it was made with, to look at a cut of it with this broker.
    pub fn reopen(dir: PathBuf, binary: PathBuf) -> Result<Campaign> {
        let plan = read_plan(&dir)?;
        let examiner = Examiner::new(dir.join("cut"), binary.clone())?;
        Ok(Campaign { dir, plan, examiner, binary, outcomes: Vec::new() })
    }

    /// Records and judges until all is done, or the time is over.
    pub fn go_on(&mut self, until: Instant) -> Result<Progress> {
        for run in self.plan.runs() {
            let done = self.outcomes.iter().filter(|outcome| outcome.run == run.number).count();
            if done == run.cuts {
                continue;
            }
            if Instant::now() >= until {
                return Ok(Progress::Unfinished);
            }
            if self.recorded(run.number)?.is_none() {
                self.record(&run)?;
            }
            if self.judge_run(&run, done, until)? == Progress::Unfinished {
                return Ok(Progress::Unfinished);
            }
        }
        Ok(Progress::Done)
    }

    /// Judges one cut again, and keeps nothing of it but the broker's log.
    pub fn repeat(&self, run: usize, number: usize) -> Result<Outcome> {
        let run = self.plan.runs().into_iter().nth(run).context("there is no such run")?;
        self.recorded(run.number)?.context("the run is not recorded")?;
        let recording = Recording::open(&self.run_dir(run.number).recording())?;
        let cuts = run.cuts(&recording);
        let cut = *cuts.get(number).context("the run has no such cut")?;
        let mut replayer = self.replayer(run.number, &recording)?;
        replayer.advance(cut.event)?;
        let history = self.history(run.number)?;
        self.examiner.examine(run.number, number, cut, &replayer, &history, moment(&recording, cut.event))
    }

    fn run_dir(&self, number: usize) -> RunDir {
        RunDir(self.dir.join(format!("run-{number:03}")))
    }

    fn recorded(&self, number: usize) -> Result<Option<Recorded>> {
        let file = self.run_dir(number).0.join("run.json");
        fs::read(&file).ok().map(|bytes| Ok(serde_json::from_slice(&bytes)?)).transpose()
    }

    fn record(&self, run: &Run) -> Result<()> {
        let dir = self.run_dir(run.number);
        if dir.0.exists() {
            fs::remove_dir_all(&dir.0)?;
        }
        fs::create_dir_all(&dir.0)?;
        let parent_cut_ns = if run.continues { Some(self.inherit(run, &dir)?) } else { None };
        if parent_cut_ns.is_none() {
            record::make_base(&dir.base())?;
        }
        let began = Instant::now();
        let inherited = match parent_cut_ns {
            Some(cut_ns) => topics_of(&as_of(&self.history(run.number - 1)?, cut_ns)),
            None => Vec::new(),
        };
        let events = record::record(&dir, run, &self.binary, &inherited, self.command())
            .with_context(|| format!("recording run {}", run.number))?;
        let recorded = Recorded { events: usize::try_from(events)?, parent_cut_ns };
        let own = recorder::read(&dir.history())?;
        let is_acked =
            |action: &Action| matches!(action, Action::Send(records) if records[0].acked.is_some());
        let acked = own.operations.iter().filter(|operation| is_acked(&operation.action)).count();
        println!(
            "run {}: {events} events and {acked} acknowledged records in {:.1} s{}",
            run.number,
            began.elapsed().as_secs_f64(),
            if run.continues { ", on what a cut of the run before left" } else { "" }
        );
        fs::write(dir.0.join("run.json"), serde_json::to_vec(&recorded)?)?;
        Ok(())
    }

    /// Makes the base of a run from a cut of the run before, in the second half of it; returns the moment of the cut.
    fn inherit(&self, run: &Run, dir: &RunDir) -> Result<u64> {
        let before = run.number - 1;
        let recorded = self.recorded(before)?.context("the run before is not recorded")?;
        let recording = Recording::open(&self.run_dir(before).recording())?;
        let mut chance = fastrand::Rng::with_seed(run.seed ^ 2);
        let event = chance.usize(recorded.events / 2..=recorded.events);
        let mut replayer = self.replayer(before, &recording)?;
        replayer.advance(event)?;
        replayer.cut(corrente_faultfs::cut::Mode::Shuffled, chance.u64(..), &dir.base())?;
        let (checked, said) = machine::recover_ext4(&dir.base(), &dir.0.join("fs"))?;
        ensure!(checked != Checked::Broken, "the file system to go on from is broken: {said}");
        Ok(moment(&recording, event))
    }

    fn replayer<'a>(&self, run: usize, recording: &'a Recording) -> Result<Replayer<'a>> {
        let covered = self.dir.join("covered.img");
        let base = Image::open(&self.run_dir(run).base()).and_then(|base| base.copy_to(&covered))?;
        Ok(Replayer::new(recording, base))
    }

    /// What clients did and were told in a run, and in those that it goes on from.
    fn history(&self, run: usize) -> Result<History> {
        let recorded = self.recorded(run)?.context("the run is not recorded")?;
        let own = recorder::read(&self.run_dir(run).history())?;
        match recorded.parent_cut_ns {
            Some(cut_ns) => Ok(go_on(as_of(&self.history(run - 1)?, cut_ns), cut_ns, own)),
            None => Ok(own),
        }
    }

    /// The command that repeats the campaign.
    fn command(&self) -> String {
        let plan::Campaign { seed, cuts, .. } = self.plan;
        let control = if self.plan.negative_control { " --negative-control" } else { "" };
        format!("scripts/power-cuts --seed {seed} --cuts {cuts}{control}")
    }

    fn judge_run(&mut self, run: &Run, done: usize, until: Instant) -> Result<Progress> {
        let recording = Recording::open(&self.run_dir(run.number).recording())?;
        let mut replayer = self.replayer(run.number, &recording)?;
        let history = self.history(run.number)?;
        for (number, cut) in run.cuts(&recording).into_iter().enumerate().skip(done) {
            if Instant::now() >= until {
                return Ok(Progress::Unfinished);
            }
            replayer.advance(cut.event)?;
            let cut_ns = moment(&recording, cut.event);
            let outcome = self.examiner.examine(run.number, number, cut, &replayer, &history, cut_ns)?;
            self.keep(outcome)?;
        }
        Ok(Progress::Done)
    }

    fn keep(&mut self, outcome: Outcome) -> Result<()> {
        let path = self.dir.join("cuts.jsonl");
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        writeln!(file, "{}", serde_json::to_string(&outcome)?)?;
        if !outcome.findings.is_empty() && !self.plan.negative_control {
            let (run, number) = (outcome.run, outcome.number);
            println!("run {run} cut {number} ({:?}):", outcome.cut);
            outcome.findings.iter().for_each(|finding| println!("  {finding}"));
            let evidence = self.dir.join("evidence");
            fs::create_dir_all(&evidence)?;
            // There is none if no broker was started.
            let _ = fs::copy(
                self.examiner.broker_log(),
                evidence.join(format!("run-{run}-cut-{number}-broker.log")),
            );
            println!("  replay: {} --only {run}:{number}", self.command());
        }
        self.outcomes.push(outcome);
        Ok(())
    }
}

/// The last moment before the event that a cut behind `event` events prevents: whatever clients were told by then rests
/// on what the disk had done.
fn moment(recording: &Recording, event: usize) -> u64 {
    recording.events.get(event).map_or_else(
        || recording.events.last().map_or(0, |last| last.at_ns),
        |prevented| prevented.at_ns.saturating_sub(1),
    )
}

/// Topics that are there for sure.
fn topics_of(history: &History) -> Vec<Topic> {
    let mut topics: Vec<Topic> = Vec::new();
    for operation in &history.operations {
        match &operation.action {
            Action::CreateTopic(topic) if operation.is_ok() => topics.push(topic.clone()),
            Action::DeleteTopic { topic } => topics.retain(|alive| alive.topic != *topic),
            _ => {}
        }
    }
    topics
}

fn read_plan(dir: &Path) -> Result<plan::Campaign> {
    let bytes =
        fs::read(dir.join(PLAN)).with_context(|| format!("there is no campaign in {}", dir.display()))?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn read_outcomes(path: &Path) -> Result<Vec<Outcome>> {
    let Ok(file) = File::open(path) else { return Ok(Vec::new()) };
    BufReader::new(file).lines().map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}
