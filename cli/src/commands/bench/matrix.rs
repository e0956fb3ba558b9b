//! `corrente bench matrix`: every combination of some settings, in turn, as often as asked.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser};
use corrente_loadgen::compare::{Metric, Spread};
use corrente_loadgen::plan::Plan;
use corrente_loadgen::report::Report;
use serde::{Deserialize, Serialize};

use super::BenchCommand;
use super::results::Results;
use super::running::Runner;
use super::target::{Broker, Target};
use crate::args::Global;

/// Run every combination of some settings, in turn.
///
/// FILE is TOML: `command` (produce, consume, e2e or mixed), `runs` of each combination (default 3), `[settings]` that
/// all of them have and `[axes]` with a list of values for each setting that is varied. Settings are the command's
/// flags without their dashes.
#[derive(Debug, Args)]
pub struct MatrixArgs {
    /// What to run.
    #[arg(value_name = "FILE.toml")]
    file: PathBuf,
    #[command(flatten)]
    results: Results,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Matrix {
    command: String,
    #[serde(default = "three")]
    runs: usize,
    #[serde(default)]
    settings: BTreeMap<String, Setting>,
    #[serde(default)]
    axes: BTreeMap<String, Vec<Setting>>,
}

fn three() -> usize {
    3
}

/// The value of a flag; `true` is a flag without one.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Setting {
    Switch(bool),
    Whole(i64),
    Fraction(f64),
    Text(String),
}

/// One combination: the values of its axes, and the plan they make.
struct Cell {
    name: String,
    plan: Plan,
    target: Target,
}

/// The runs of one combination.
#[derive(Debug, Serialize)]
struct Row {
    combination: String,
    runs: usize,
    invalid: usize,
    errors: u64,
    /// Runs whose verification failed.
    unverified: usize,
    /// Medians, least and greatest over the runs that are valid; latencies in microseconds.
    figures: Vec<(Metric, Spread)>,
}

/// Shown for people; a file given with --json has everything.
const SHOWN: [Metric; 6] =
    [Metric::RecordsPerS, Metric::BytesPerS, Metric::P50, Metric::P99, Metric::P999, Metric::BrokerCpuPerGb];

pub fn run(global: &Global, args: &MatrixArgs) -> Result<ExitCode> {
    let matrix = read(&args.file)?;
    let cells = matrix.cells(global)?;
    args.results.begin()?;
    let mut reports: Vec<Vec<Report>> = cells.iter().map(|_| Vec::new()).collect();
    let runner = Runner::new()?;
    for round in 1..=matrix.runs {
        for (cell, reports) in cells.iter().zip(&mut reports) {
            eprintln!("run {round} of {}: {}", matrix.runs, cell.name);
            let mut plan = cell.plan.clone();
            let broker = cell.target.start(global, &mut plan)?;
            let outcome = runner.run(&plan)?;
            broker.map_or(Ok(()), Broker::stop)?;
            ensure!(!runner.is_interrupted(), "interrupted");
            args.results.keep(&outcome)?;
            if let Some(fault) = outcome.report.fault() {
                eprintln!("run {round} of {}: {}: {fault}", matrix.runs, cell.name);
            }
            reports.push(outcome.report);
        }
    }
    let rows: Vec<Row> =
        cells.into_iter().zip(reports).map(|(cell, runs)| Row::new(cell.name, &runs)).collect();
    global.output.list(&header(), &rows, Row::cells)?;
    Ok(if rows.iter().all(Row::is_sound) { ExitCode::SUCCESS } else { ExitCode::from(super::INVALID) })
}

fn read(path: &Path) -> Result<Matrix> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let matrix: Matrix =
        toml::from_str(&text).with_context(|| format!("understanding {}", path.display()))?;
    ensure!(matrix.runs >= 1, "{}: runs = 0 measures nothing", path.display());
    Ok(matrix)
}

impl Matrix {
    /// Every combination, the last axis changing fastest.
    fn cells(&self, global: &Global) -> Result<Vec<Cell>> {
        let mut combinations: Vec<Vec<(&str, &Setting)>> = vec![Vec::new()];
        for (name, values) in &self.axes {
            ensure!(!values.is_empty(), "axis {name} has no values");
            combinations = combinations
                .iter()
                .flat_map(|combination| values.iter().map(|value| with(combination, name, value)))
                .collect();
        }
        combinations.iter().map(|combination| self.cell(global, combination)).collect()
    }

    fn cell(&self, global: &Global, axes: &[(&str, &Setting)]) -> Result<Cell> {
        let settings = self.settings.iter().map(|(name, value)| (name.as_str(), value));
        let flags = settings.chain(axes.iter().copied()).flat_map(|(name, value)| value.flag(name));
        let words = ["bench".to_owned(), self.command.clone()].into_iter().chain(flags);
        let name = axes.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ");
        let Line { command } = Line::try_parse_from(words)
            .with_context(|| if name.is_empty() { "settings".to_owned() } else { name.clone() })?;
        let (run, work) = match command {
            BenchCommand::Produce(args) => args.plan(),
            BenchCommand::Consume(args) => args.plan(),
            BenchCommand::E2e(args) => args.plan(),
            BenchCommand::Mixed(args) => args.plan(),
            _ => bail!("command = \"{}\": use produce, consume, e2e or mixed", self.command),
        };
        Ok(Cell { name, plan: run.plan(global, work), target: run.target })
    }
}

fn with<'m>(
    combination: &[(&'m str, &'m Setting)],
    name: &'m str,
    value: &'m Setting,
) -> Vec<(&'m str, &'m Setting)> {
    combination.iter().copied().chain([(name, value)]).collect()
}

/// A bench command by itself, as the command line has it.
#[derive(Debug, Parser)]
#[command(disable_help_flag = true)]
struct Line {
    #[command(subcommand)]
    command: BenchCommand,
}

impl Setting {
    fn flag(&self, name: &str) -> Vec<String> {
        match self {
            Setting::Switch(false) => Vec::new(),
            Setting::Switch(true) => vec![format!("--{name}")],
            value => vec![format!("--{name}"), value.to_string()],
        }
    }
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Setting::Switch(value) => value.fmt(f),
            Setting::Whole(value) => value.fmt(f),
            Setting::Fraction(value) => value.fmt(f),
            Setting::Text(value) => value.fmt(f),
        }
    }
}

impl Row {
    fn new(combination: String, runs: &[Report]) -> Row {
        let valid: Vec<&Report> = runs.iter().filter(|run| run.is_valid()).collect();
        let spread = |metric: Metric| {
            let values: Vec<f64> = valid.iter().filter_map(|run| metric.of(run)).collect();
            (!values.is_empty()).then(|| (metric, Spread::of(&values)))
        };
        Row {
            combination,
            runs: runs.len(),
            invalid: runs.len() - valid.len(),
            errors: runs.iter().map(|run| run.errors).sum(),
            unverified: runs.iter().filter(|run| run.fault().is_some()).count(),
            figures: SHOWN.into_iter().filter_map(spread).collect(),
        }
    }

    fn is_sound(&self) -> bool {
        self.invalid == 0 && self.errors == 0 && self.unverified == 0
    }

    fn cells(&self) -> Vec<String> {
        let of = |metric: Metric| {
            let figure = self.figures.iter().find(|(shown, _)| *shown == metric);
            figure.map_or_else(|| "-".to_owned(), |(_, spread)| spread_text(spread))
        };
        let counts = [self.runs.to_string(), self.invalid.to_string(), self.errors.to_string()];
        [self.combination.clone()].into_iter().chain(counts).chain(SHOWN.map(of)).collect()
    }
}

fn spread_text(spread: &Spread) -> String {
    let [median, min, max] = [spread.median, spread.min, spread.max]
        .map(|value| if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") });
    format!("{median} ({min} to {max})")
}

fn header() -> Vec<&'static str> {
    vec![
        "COMBINATION",
        "RUNS",
        "INVALID",
        "ERRORS",
        "RECORDS/S",
        "BYTES/S",
        "P50 µs",
        "P99 µs",
        "P99.9 µs",
        "CPU s/GB",
    ]
}
