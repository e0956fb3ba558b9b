//! `corrente bench max`: the highest rate at which latency objectives hold.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use corrente_loadgen::max::{Objective, Probe, Search, judge};
use corrente_loadgen::plan::{Extent, Pace, Plan, ProducePlan, Rate, Work};
use serde::Serialize;

use super::e2e::E2eArgs;
use super::mixed::MixedArgs;
use super::produce::ProduceArgs;
use super::running::Runner;
use super::shared::Run;
use super::target::Broker;
use crate::args::Global;
use crate::units::parse_share;

/// Find the highest rate at which latency objectives hold.
///
/// Runs at one rate after the other, each on the same topic: doubles it until one fails, then halves the gap. A rate
/// holds if every objective is met, no record failed and 99 % of the rate was reached; it fails when it failed twice.
#[derive(Debug, Args)]
pub struct MaxArgs {
    /// A latency that must not be exceeded, for example p99=2ms; may be given several times.
    #[arg(long, value_name = "FIGURE=D", required = true)]
    slo: Vec<Objective>,
    /// How far the answer may be from the limit.
    #[arg(long, value_name = "SHARE", value_parser = parse_share, default_value = "5%")]
    precision: f64,
    #[command(subcommand)]
    work: MaxWork,
}

/// What is sent; --rate is the rate to begin with, and --duration how long each run is, 5s by default.
#[derive(Debug, Subcommand)]
enum MaxWork {
    Produce(ProduceArgs),
    E2e(E2eArgs),
    Mixed(MixedArgs),
}

/// The search, for people and for scripts.
#[derive(Debug, Serialize)]
struct Answer {
    /// The highest rate that held, in records per second.
    records_per_s: Option<u64>,
    objectives: Vec<Objective>,
    runs: Vec<Tried>,
}

#[derive(Debug, Serialize)]
struct Tried {
    records_per_s: u64,
    outcome: Probe,
}

/// How long a run is if nothing is said: long enough for a p99.9 at a thousand batches a second.
const DEFAULT_DURATION: Duration = Duration::from_secs(5);

pub fn run(global: &Global, args: MaxArgs) -> Result<ExitCode> {
    let (run, work) = match args.work {
        MaxWork::Produce(args) => args.plan(),
        MaxWork::E2e(args) => args.plan(),
        MaxWork::Mixed(args) => args.plan(),
    };
    let mut plan = run.plan(global, work);
    let start = prepare(&mut plan, &run)?;
    run.results.begin()?;
    let mut search = Search::new(start, args.precision);
    let mut runs = Vec::new();
    let runner = Runner::new()?;
    let broker = run.target.start(global, &mut plan)?;
    while let Some(rate) = search.next() {
        sending(&mut plan)?.pace = at_rate(sending(&mut plan)?.pace, rate);
        let outcome = runner.run(&plan)?;
        if runner.is_interrupted() {
            bail!("interrupted; the highest rate that held so far: {:?}", search.holds());
        }
        run.results.keep(&outcome)?;
        let probe = judge(&outcome.report, rate, &args.slo);
        eprintln!("{rate} records/s: {}", said(&probe));
        search.record(&probe);
        runs.push(Tried { records_per_s: rate, outcome: probe });
    }
    broker.map_or(Ok(()), Broker::stop)?;
    let answer = Answer { records_per_s: search.holds(), objectives: args.slo, runs };
    global.output.one(&answer, text)?;
    Ok(if answer.records_per_s.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The rate to begin with, once it is sure that the plan has one that can be changed.
fn prepare(plan: &mut Plan, run: &Run) -> Result<u64> {
    let duration_is_given = run.extent().is_some();
    let sending = sending(plan)?;
    if !duration_is_given {
        sending.extent = Extent::Duration(DEFAULT_DURATION);
    }
    match sending.pace {
        Pace::OpenLoop { rate: Rate::Constant(rate), .. } => Ok(rate),
        Pace::OpenLoop { .. } => bail!("a search needs a constant rate to begin with"),
        Pace::ClosedLoop => bail!("a closed loop has no rate to search for"),
    }
}

fn sending(plan: &mut Plan) -> Result<&mut ProducePlan> {
    match &mut plan.work {
        Work::Produce(sending) => Ok(sending),
        Work::Mixed(mixed) => Ok(&mut mixed.feed),
        Work::Consume(consume) => consume.feed.as_mut().ok_or_else(|| anyhow::anyhow!("nothing is sent")),
    }
}

fn at_rate(pace: Pace, rate: u64) -> Pace {
    match pace {
        Pace::OpenLoop { arrivals, .. } => Pace::OpenLoop { rate: Rate::Constant(rate), arrivals },
        Pace::ClosedLoop => Pace::ClosedLoop,
    }
}

fn said(probe: &Probe) -> String {
    match probe {
        Probe::Holds => "holds".to_owned(),
        Probe::Fails(reason) => format!("fails: {reason}"),
        Probe::BeyondTheGenerator(reason) => format!("beyond the generator: {reason}"),
    }
}

fn text(answer: &Answer) -> String {
    let objectives: Vec<String> = answer.objectives.iter().map(Objective::to_string).collect();
    let objectives = objectives.join(", ");
    let beyond = |tried: &Tried| matches!(tried.outcome, Probe::BeyondTheGenerator(_));
    let limit = if answer.runs.iter().any(beyond) { "; the generator went no further" } else { "" };
    match answer.records_per_s {
        Some(rate) => format!("{rate} records/s is the highest rate that held {objectives}{limit}"),
        None => format!("no rate held {objectives}{limit}"),
    }
}
