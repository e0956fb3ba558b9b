//! Kills a real broker under a mixed load, again and again, and judges what its clients saw.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a campaign over real processes and files"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use corrente_chaos::broker::{Broker, Home, free_addresses};
use corrente_chaos::plan::Plan;
use corrente_chaos::recorder::Recorder;
use corrente_chaos::workload::Workload;
use corrente_history::{Action, History, Outcome, Refusal, RefusalKind, Verdict, check};
use fastrand::Rng;

/// `kill -9` at random moments of a mixed load, a restart each time, and a verdict over all that clients saw.
#[derive(Debug, Parser)]
struct Options {
    /// How often the broker is killed.
    #[arg(long, default_value_t = 200)]
    kills: u32,
    /// Draws the load and the moments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long it lives on average.
    #[arg(long, default_value_t = 1_000, value_name = "MS")]
    mean_ms: u64,
    /// No kill begins later than this; what was done by then is judged.
    #[arg(long, default_value_t = 360, value_name = "S")]
    seconds: u64,
    /// The broker's program.
    #[arg(long, default_value = "target/release/corrente")]
    binary: PathBuf,
    /// Data, log and history of the run; what an earlier run left there is removed.
    #[arg(long, default_value = "target/kills")]
    directory: PathBuf,
}

/// The process in the history to which the kills belong.
const NEMESIS: u32 = 0;
/// Findings printed.
const FINDINGS_SHOWN: usize = 20;

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let began = Instant::now();
    let (history, figures) = runtime.block_on(run(&options))?;
    // What still reads has nothing more to say.
    runtime.shutdown_background();
    let verdict = check(&history);
    println!("{figures}");
    println!("wall time        {:.1} s", began.elapsed().as_secs_f64());
    let sound = conclude(&options, &figures, &verdict);
    let what = figures.row(&options, &verdict);
    let row = options.directory.join("ledger-row");
    fs::write(&row, format!("{what} | {}\n", if sound { "sound" } else { "**BROKEN**" }))
        .with_context(|| format!("write {}", row.display()))?;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run(options: &Options) -> Result<(History, Figures)> {
    let directory = &options.directory;
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("remove {}", directory.display()))?;
    }
    // No broker lives for long, and yet it has to remove what is not kept.
    let settings = vec![("log.upkeep_interval_ms".to_owned(), "200".to_owned())];
    let home = Home { binary: options.binary.clone(), directory: directory.clone(), settings };
    let mut rng = Rng::with_seed(options.seed);
    let broker = home.start(&free_addresses(&mut rng)?, 2)?.ready().await?;
    let plan = Plan::draw(options.seed);
    let command = format!("scripts/kills --kills {} --seed {}", options.kills, options.seed);
    let recorder = Recorder::create(&history_file(directory), plan.header(command))?;
    let workload = Workload::start(plan, broker.addresses.clone(), recorder.clone()).await?;
    let mut campaign =
        Campaign { options, home, recorder: recorder.clone(), workload, figures: Figures::default() };
    if let Err(error) = campaign.go(broker, &mut rng).await {
        let refusal = Refusal::new(RefusalKind::Other, format!("{error:#}"));
        recorder.note(NEMESIS, recorder.now_ns(), false, Outcome::Info(refusal), Action::Rest);
    }
    let Campaign { figures, workload, .. } = campaign;
    let figures = figures.with(&workload);
    drop(workload);
    let history = recorder.finish().context("the history could not be written")?;
    Ok((history, figures))
}

fn history_file(directory: &Path) -> PathBuf {
    directory.join("history.jsonl")
}

struct Campaign<'a> {
    options: &'a Options,
    home: Home,
    recorder: Recorder,
    workload: Workload,
    figures: Figures,
}

impl Campaign<'_> {
    async fn go(&mut self, mut broker: Broker, rng: &mut Rng) -> Result<()> {
        let began = Instant::now();
        while self.figures.kills < self.options.kills && began.elapsed().as_secs() < self.options.seconds {
            let mean_ms = self.options.mean_ms as f64;
            let lives_ms = -(1.0 - rng.f64()).ln() * mean_ms;
            tokio::time::sleep(Duration::from_secs_f64(lives_ms / 1_000.0)).await;
            broker = self.kill(broker, rng).await?;
            if self.figures.kills.is_multiple_of(20) {
                let acked = self.workload.counters().acked.load(Ordering::SeqCst);
                let seconds = began.elapsed().as_secs();
                eprintln!("{} kills, {acked} records acknowledged after {seconds} s", self.figures.kills);
            }
        }
        self.workload.stop().await;
        // What is read in the end is what a start found, not what a memory held.
        let _broker = self.kill(broker, rng).await?;
        self.workload.read_everything().await;
        Ok(())
    }

    /// Kills the broker, and starts it again where it was; sometimes killing it once more on its way up.
    async fn kill(&mut self, broker: Broker, rng: &mut Rng) -> Result<Broker> {
        let addresses = broker.addresses.clone();
        let begun = self.recorder.begin(NEMESIS, Action::Crash);
        broker.kill()?;
        // What the broker had answered by then is on its way: later nothing comes.
        let unacked = self.workload.unacked();
        self.figures.kills += 1;
        self.figures.kills_under_load += u32::from(unacked > 0);
        self.figures.unacked += unacked;
        if rng.bool() {
            tokio::time::sleep(Duration::from_millis(rng.u64(0..500))).await;
        }
        while rng.u8(..8) == 0 {
            let starting = self.home.start(&addresses, rng.u16(1..=4))?;
            tokio::time::sleep(Duration::from_micros(rng.u64(0..50_000))).await;
            starting.kill()?;
            self.figures.kills += 1;
            self.figures.kills_starting += 1;
        }
        let broker = self.home.start(&addresses, rng.u16(1..=4))?.ready().await?;
        self.recorder.complete(begun, Outcome::Ok, |_| {});
        self.figures.ready.push(broker.ready_after);
        Ok(broker)
    }
}

#[derive(Default)]
struct Figures {
    kills: u32,
    kills_under_load: u32,
    kills_starting: u32,
    /// Records unacknowledged at kills.
    unacked: u64,
    ready: Vec<Duration>,
    sent: u64,
    acked: u64,
    acked_to_librdkafka: u64,
    failed: u64,
    read: u64,
    topics: u64,
    offsets: u64,
    deletions: u64,
}

impl Figures {
    fn with(mut self, workload: &Workload) -> Figures {
        let counters = workload.counters();
        let [sent, acked, acked_to_librdkafka, failed, read, topics, offsets, deletions] = [
            &counters.sent,
            &counters.acked,
            &counters.acked_to_librdkafka,
            &counters.failed,
            &counters.read,
            &counters.topics,
            &counters.offsets,
            &counters.deletions,
        ]
        .map(|counter| counter.load(Ordering::SeqCst));
        self.ready.sort();
        Figures { sent, acked, acked_to_librdkafka, failed, read, topics, offsets, deletions, ..self }
    }

    /// Least, middle and greatest time to ready, in ms.
    fn ready_ms(&self) -> [u128; 3] {
        let last = self.ready.len().saturating_sub(1);
        [0, last / 2, last].map(|at| self.ready.get(at).map_or(0, Duration::as_millis))
    }

    fn row(&self, options: &Options, verdict: &Verdict) -> String {
        let [least, median, most] = self.ready_ms();
        format!(
            "kills | seed {}: {} kills, {} of them under load with {} records unacknowledged; {} acknowledged, \
             {} of them to librdkafka, \
             {} read, {} there in the end ({} copies), {} rightly removed; \
             ready after {least}/{median}/{most} ms (min/median/max)",
            options.seed,
            self.kills,
            self.kills_under_load,
            self.unacked,
            self.acked,
            self.acked_to_librdkafka,
            self.read,
            verdict.judged.final_records,
            verdict.judged.duplicates,
            verdict.judged.removed,
        )
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [least, median, most] = self.ready_ms();
        writeln!(f, "kills            {}, {} under load", self.kills, self.kills_under_load)?;
        writeln!(f, "                 {} of a broker that was still starting", self.kills_starting)?;
        writeln!(f, "                 {} records unacknowledged at kills", self.unacked)?;
        writeln!(
            f,
            "records          {} sent, {} acknowledged, {} given up",
            self.sent, self.acked, self.failed
        )?;
        writeln!(f, "                 {} acknowledged to librdkafka", self.acked_to_librdkafka)?;
        writeln!(f, "                 {} read, {} offsets told", self.read, self.offsets)?;
        writeln!(
            f,
            "topics           {} created meanwhile, records deleted {} times",
            self.topics, self.deletions
        )?;
        write!(f, "time to ready    {least} ms least, {median} ms median, {most} ms most")
    }
}

fn conclude(options: &Options, figures: &Figures, verdict: &Verdict) -> bool {
    let judged = &verdict.judged;
    println!(
        "judged           {} operations; {} records in the end, {} of them copies, {} rightly removed",
        judged.operations, judged.final_records, judged.duplicates, judged.removed
    );
    verdict.violations.iter().take(FINDINGS_SHOWN).for_each(|violation| println!("{violation}"));
    let file = history_file(&options.directory);
    if !verdict.is_sound() {
        println!("FAILED: {} findings: {:?}", verdict.violations.len(), verdict.classes());
        println!("again: cargo run -p corrente-history -- check {}", file.display());
        return false;
    }
    // Kills that hit nothing find nothing.
    if figures.kills_under_load * 2 < figures.kills - figures.kills_starting
        || figures.acked_to_librdkafka * 10 < figures.acked
    {
        println!(
            "proves too little: {} kills under load, {} of {} records acknowledged to librdkafka",
            figures.kills_under_load, figures.acked_to_librdkafka, figures.acked
        );
        return false;
    }
    println!("passed: {} kills, no promise is broken; the history: {}", figures.kills, file.display());
    true
}
