//! Runs the scenario over many seeds, or over one, and says what came of it.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "each seed runs in a thread of its own, and the report names the time on the wall"
)]

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use corrente_history::Class;
use corrente_runtime::timer::now;
use corrente_sim::campaign::Totals;
use corrente_sim::plan::Plan;
use corrente_sim::power_cut::{self, Planted, Report};
use corrente_sim::trouble::Mode;
use tracing_subscriber::fmt::{format::Writer, time::FormatTime};

const USAGE: &str = "usage: sim [--seeds N] [--from SEED] [--damage] [--plant FAULT | --negative-control]
           [--seed S [--history FILE]]

  --seeds N            how many seeds, 1000 unless told
  --from SEED          the first of them, 0 unless told
  --damage             disks that rot, lose and mislay what was flushed instead of disks that fail: damage must be
                       told of and never served
  --plant FAULT        a fault whose consequences the checker must find:
                         ignored-flushes      the disk says it has flushed, and has not
                         unflushed-recovery   a start does not flush what it has found
                         retried-flushes      a flush that fails is made again, and its success believed
  --negative-control   the same as --plant ignored-flushes
  --seed S             this seed alone, twice, with its plan and everything that was found
  --history FILE       what its clients did and saw, for 'history check'";

/// Runs at the same time.
const WORKERS: usize = 2;
/// Findings printed of one seed of a campaign.
const FINDINGS_SHOWN: usize = 3;

/// Where a campaign leaves its row for the ledger.
const LEDGER_ROW: &str = "target/sim/ledger-row";
/// Seeds between two signs of life.
const PROGRESS_EVERY: u64 = 100;

struct Options {
    from: u64,
    seeds: u64,
    alone: bool,
    history: Option<PathBuf>,
    mode: Mode,
    planted: Planted,
}

impl Options {
    /// What its disks do.
    fn what(&self) -> &'static str {
        match (self.planted, self.mode) {
            (Planted::Nothing, Mode::Failing) => "disks that fail",
            (Planted::Nothing, Mode::Lying) => "disks that lie",
            (Planted::IgnoredFlushes, _) => "flushes that are ignored",
            (Planted::UnflushedRecovery, _) => "starts that do not flush",
            (Planted::RetriedFlushes, _) => "flushes made again",
        }
    }
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let good = if options.alone { examine(&options) } else { campaign(&options) };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        from: 0,
        seeds: 1_000,
        alone: false,
        history: None,
        mode: Mode::Failing,
        planted: Planted::Nothing,
    };
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let value = arguments.next().ok_or(format!("{argument} needs a number"))?;
            value.parse::<u64>().map_err(|_| format!("{argument} needs a number, not '{value}'"))
        };
        match argument.as_str() {
            "--seeds" => options.seeds = number()?,
            "--from" => options.from = number()?,
            "--seed" => {
                options.from = number()?;
                options.alone = true;
            }
            "--history" => {
                options.history = Some(arguments.next().ok_or("--history needs a file")?.into());
            }
            "--damage" => options.mode = Mode::Lying,
            "--negative-control" => options.planted = Planted::IgnoredFlushes,
            "--plant" => options.planted = parse_planted(arguments.next())?,
            other => return Err(format!("unknown argument '{other}'")),
        }
    }
    Ok(options)
}

fn parse_planted(name: Option<String>) -> Result<Planted, String> {
    match name.as_deref() {
        Some("ignored-flushes") => Ok(Planted::IgnoredFlushes),
        Some("unflushed-recovery") => Ok(Planted::UnflushedRecovery),
        Some("retried-flushes") => Ok(Planted::RetriedFlushes),
        other => Err(format!("--plant needs a fault, not '{}'", other.unwrap_or_default())),
    }
}

/// A run that panicked has no report; the panic has been printed.
type Outcome = (u64, Option<Report>);

/// One seed, in a thread of its own so that a panic ends nothing else.
fn run(seed: u64, mode: Mode, planted: Planted) -> Outcome {
    (seed, thread::spawn(move || power_cut::run(seed, mode, planted)).join().ok())
}

fn campaign(options: &Options) -> bool {
    let began = Instant::now();
    let next = AtomicU64::new(options.from);
    let end = options.from + options.seeds;
    let (outcomes, inbox) = mpsc::channel::<Outcome>();
    let mut totals = Totals::default();
    let mut failing = Vec::new();
    let mut done = 0;
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            let (outcomes, next) = (outcomes.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || outcomes.send(run(seed, options.mode, options.planted)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(outcomes);
        for (seed, report) in inbox {
            if let Some(report) = &report {
                totals.add(report);
                if let Some(why) = &report.refused_start {
                    println!("seed {seed}: did not start on a damaged disk: {why}");
                }
            }
            if report.as_ref().is_none_or(|report| !report.violations.is_empty()) {
                if options.planted == Planted::Nothing {
                    print_failure(seed, options.mode, report.as_ref());
                }
                failing.push((seed, report));
            }
            done += 1;
            if done % PROGRESS_EVERY == 0 {
                eprintln!("{done} of {} seeds after {:.0} s", options.seeds, began.elapsed().as_secs_f64());
            }
        }
    });
    println!("{totals}");
    println!("wall time        {:.1} s", began.elapsed().as_secs_f64());
    failing.sort_by_key(|(seed, _)| *seed);
    let (good, verdict) = match options.planted {
        Planted::Nothing => verdict(options, &totals, &failing),
        _ => negative_verdict(options, &failing),
    };
    println!("{verdict}");
    let row = ledger_row(options, &totals, &verdict);
    if let Err(error) = fs::create_dir_all("target/sim").and_then(|()| fs::write(LEDGER_ROW, row)) {
        eprintln!("error: {LEDGER_ROW}: {error}");
        return false;
    }
    good
}

fn ledger_row(options: &Options, totals: &Totals, verdict: &str) -> String {
    let Totals { befell, disk, acked, removed, damage_told, in_window, .. } = totals;
    let disks = match options.mode {
        Mode::Failing => format!(
            "{} errors in reads, writes and flushes",
            disk.read_errors + disk.write_errors + disk.flush_errors
        ),
        Mode::Lying => format!("{damage_told} partitions told of damage, {in_window} in the window"),
    };
    let (first, last) = (options.from, options.from + options.seeds - 1);
    format!(
        "simulated {} | seeds {first} to {last}: {} power cuts, {} kills; {} unflushed writes lost, {} torn; {disks}; \
         {acked} records acknowledged, {removed} rightly removed | {verdict}\n",
        options.what(),
        befell.cuts,
        befell.kills,
        disk.writes_lost,
        disk.writes_torn,
    )
}

/// Whether all is well, and the last line.
fn verdict(options: &Options, totals: &Totals, failing: &[Outcome]) -> (bool, String) {
    let shortfalls = totals.shortfalls(options.mode);
    for shortfall in &shortfalls {
        println!("proves too little: {shortfall}");
    }
    let seeds = options.seeds;
    if !failing.is_empty() {
        (false, format!("FAILED: {} of {seeds} seeds", failing.len()))
    } else if shortfalls.is_empty() {
        (true, format!("passed: {seeds} seeds, nothing that was promised was lost"))
    } else {
        (false, format!("FAILED: {seeds} seeds prove too little"))
    }
}

/// With a planted fault seeds must fail, and for the right reason.
fn negative_verdict(options: &Options, failing: &[Outcome]) -> (bool, String) {
    let panicked = failing.iter().filter(|(_, report)| report.is_none()).count();
    println!(
        "caught           {} of {} seeds, {panicked} of them by an assertion",
        failing.len(),
        options.seeds
    );
    let found = |class| {
        let seeds = failing.iter().filter_map(|(_, report)| report.as_ref());
        seeds.filter(|report| report.violations.iter().any(|found| found.class == class)).count()
    };
    for class in Class::ALL.into_iter().filter(|class| found(*class) > 0) {
        println!("                 {} as {class:?}", found(class));
    }
    if let Some((first, _)) = failing.first() {
        println!("the first        seed {first}, after {} seeds", first - options.from + 1);
    }
    let lost = Class::ALL.into_iter().any(|class| {
        let is_loss = class.is_loss() || class == Class::LostRead;
        is_loss && found(class) > 0
    });
    let verdict = if lost {
        format!(
            "passed: records are lost by the planted fault, {} of {} seeds say so",
            failing.len(),
            options.seeds
        )
    } else {
        "FAILED: a fault was planted, and nothing was found missing".to_owned()
    };
    (lost, verdict)
}

fn print_failure(seed: u64, mode: Mode, report: Option<&Report>) {
    match report {
        None => println!("seed {seed}: panicked, see above"),
        Some(report) => {
            println!("seed {seed}: {} findings", report.violations.len());
            report.violations.iter().take(FINDINGS_SHOWN).for_each(|violation| println!("  {violation}"));
        }
    }
    println!("  replay: {}", Plan::draw(seed, mode).command());
}

/// One seed with all there is to say, and again: the same seed must give the same run.
fn examine(options: &Options) -> bool {
    trace_to_stderr();
    println!("{:#?}", Plan::draw(options.from, options.mode));
    let (_, Some(first)) = run(options.from, options.mode, options.planted) else { return false };
    first.violations.iter().for_each(|violation| println!("{violation}"));
    println!("{:#?}", Report { violations: Vec::new(), ..first.clone() });
    println!("{} findings", first.violations.len());
    if let Some(file) = &options.history
        && let Err(error) = write_history(options, file)
    {
        eprintln!("error: {}: {error}", file.display());
        return false;
    }
    let (_, second) = run(options.from, options.mode, options.planted);
    let same = second.is_some_and(|second| second.trace_hash == first.trace_hash);
    println!("the same seed again: {}", if same { "the same trace" } else { "ANOTHER TRACE" });
    same && first.violations.is_empty() == (options.planted == Planted::Nothing)
}

fn write_history(options: &Options, file: &Path) -> std::io::Result<()> {
    let (plan, planted) = (Plan::draw(options.from, options.mode), options.planted);
    let told = thread::spawn(move || power_cut::run_and_tell(&plan, planted)).join();
    let (_, history) = told.map_err(|_| std::io::Error::other("the run panicked"))?;
    let mut file = BufWriter::new(File::create(file)?);
    history.lines().try_for_each(|line| writeln!(file, "{line}"))?;
    file.flush()
}

/// What the broker and the client log, if `RUST_LOG` asks for it.
fn trace_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let format = tracing_subscriber::fmt().with_env_filter(filter).with_timer(VirtualTime).with_ansi(false);
    format.with_writer(std::io::stderr).init();
}

/// Stamps what is logged with the clock of the simulated world.
struct VirtualTime;

impl FormatTime for VirtualTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        write!(writer, "{:?}", now())
    }
}
