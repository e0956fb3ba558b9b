//! Cuts the power under the real broker, over and over, and judges what it serves afterwards.
//!
//! The broker runs on ext4 on a disk that is recorded, under load. Then, at random moments of the recording, the disk
//! is rebuilt as a power cut could have left it; a broker starts on that, and everything acknowledged by then must be
//! there.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a campaign stands outside the broker: it has processes, mounts, files and a clock of its own"
)]

mod broker;
mod campaign;
mod examine;
mod judge;
mod machine;
mod plan;
mod read_back;
mod record;
mod recorder;
mod totals;
mod workload;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;

use campaign::{Campaign, Progress};
use totals::{Outcome, Totals};

/// Run me again: the time of this slice was over.
const UNFINISHED: u8 = 75;
/// This machine has not what it takes.
const SKIPPED: u8 = 77;
/// A cut that takes longer than its slice allows still ends; a run that is recorded takes half a minute.
const SLICE_SECONDS: u64 = 400;
/// Without the flush at least this part of all cuts has to lose acknowledged records. Not nearly all do: names and
/// small files are flushed still, and a flush covers whatever else was done.
const CONTROL_LOSES_MIN: f64 = 0.25;

/// Power cuts under the real broker on a real file system.
///
/// Ends with 0 if nothing was broken, 1 if something was, 75 if there is more to do (run it again), and 77 if this
/// machine has not what it takes.
#[derive(Debug, Parser)]
#[command(name = "power-cuts", max_term_width = 110)]
struct Options {
    /// How many cuts.
    #[arg(long, value_name = "N", default_value_t = 100)]
    cuts: usize,
    /// Draws runs and cuts.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Stop after so long, to be run again.
    #[arg(long, value_name = "N", default_value_t = SLICE_SECONDS)]
    slice_seconds: u64,
    /// The binary is the one without flushes: acknowledged records have to be lost.
    #[arg(long)]
    negative_control: bool,
    /// Judge one cut of a recorded run again.
    #[arg(long, value_name = "RUN:CUT", value_parser = run_and_cut)]
    only: Option<(usize, usize)>,
    /// The broker.
    #[arg(long, value_name = "FILE", default_value = "target/release/corrente")]
    binary: PathBuf,
    /// Where campaigns keep what they recorded and found.
    #[arg(long, value_name = "DIR", default_value = "target/power-cuts")]
    state: PathBuf,
}

fn run_and_cut(text: &str) -> Result<(usize, usize), String> {
    let parsed = text.split_once(':').and_then(|(run, cut)| Some((run.parse().ok()?, cut.parse().ok()?)));
    parsed.ok_or_else(|| format!("'{text}' is not RUN:CUT"))
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(missing) = machine::missing() {
        println!("skipped: {missing}");
        return ExitCode::from(SKIPPED);
    }
    match run(&options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode> {
    let began = Instant::now();
    fs::create_dir_all(&options.state)?;
    let kind = if options.negative_control { "control" } else { "cuts" };
    let dir = fs::canonicalize(&options.state)?.join(format!("{kind}-{}", options.seed));
    let binary = fs::canonicalize(&options.binary)
        .with_context(|| format!("there is no broker at {}", options.binary.display()))?;
    if let Some((run, cut)) = options.only {
        return Ok(tell(&Campaign::reopen(dir, binary)?.repeat(run, cut)?));
    }
    let programs = [fs::read(&binary)?, fs::read(std::env::current_exe()?)?].concat();
    let plan = plan::Campaign {
        seed: options.seed,
        cuts: options.cuts,
        negative_control: options.negative_control,
        programs: format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&programs)),
    };
    let mut campaign = Campaign::open(dir, binary, plan)?;
    let progress = campaign.go_on(began + Duration::from_secs(options.slice_seconds))?;
    let totals = Totals::of(&campaign.outcomes);
    if progress == Progress::Unfinished {
        println!(
            "{} of {} cuts after this slice, {} violating: run me again",
            totals.cuts, options.cuts, totals.violating
        );
        return Ok(ExitCode::from(UNFINISHED));
    }
    println!("{totals}");
    let verdict = verdict(options, &totals);
    println!("{verdict}");
    fs::write(options.state.join("ledger-row"), ledger_row(options, &totals, &verdict))?;
    Ok(if verdict.starts_with("passed") { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(outcome: &Outcome) -> ExitCode {
    println!("{outcome:#?}");
    if outcome.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn verdict(options: &Options, totals: &Totals) -> String {
    if options.negative_control {
        let losing = format!("{} of {} cuts lost acknowledged records", totals.losing, totals.cuts);
        let least = totals.cuts as f64 * CONTROL_LOSES_MIN;
        return match totals.losing as f64 >= least {
            true => format!("passed: without the flush {losing}"),
            false => format!("FAILED: without the flush only {losing}: the harness is void"),
        };
    }
    let shortfalls = totals.shortfalls();
    if totals.violating > 0 {
        format!("FAILED: {} of {} cuts broke a promise", totals.violating, totals.cuts)
    } else if !shortfalls.is_empty() {
        format!("FAILED: proves too little: {}", shortfalls.join("; "))
    } else {
        format!("passed: {} cuts, nothing acknowledged was lost", totals.cuts)
    }
}

/// What the script puts into the ledger, once the campaign is done.
fn ledger_row(options: &Options, totals: &Totals, verdict: &str) -> String {
    let name = if options.negative_control { "power cuts without the flush" } else { "power cuts" };
    let Totals { cuts, fates, judged, .. } = totals;
    let pending = format!(
        "{} writes pending, {} of them dropped, {} torn, {} before others they followed",
        fates.pending, fates.dropped, fates.torn, fates.overtook
    );
    format!(
        "{name} | seed {}: {cuts} cuts; {} records acknowledged by them, {} of those compacted or expired; {pending}; \
         {} torn tails cut | {verdict}\n",
        options.seed, judged.acked, judged.removed, totals.torn_tails
    )
}
