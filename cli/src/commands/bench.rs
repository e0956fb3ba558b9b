//! `corrente bench`: plans runs of the load generator, shows how far they are, prints and draws what they found.

mod compare;
mod consume;
mod e2e;
mod matrix;
mod max;
mod mixed;
mod produce;
mod profile;
mod report;
mod results;
mod running;
mod shared;
mod target;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use self::compare::CompareArgs;
use self::consume::ConsumeArgs;
use self::e2e::E2eArgs;
use self::matrix::MatrixArgs;
use self::max::MaxArgs;
use self::mixed::MixedArgs;
use self::produce::ProduceArgs;
use self::profile::ProfileArgs;
use self::report::ReportArgs;
use self::running::Runner;
use self::target::Broker;
use crate::args::Global;

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    Produce(ProduceArgs),
    Consume(ConsumeArgs),
    E2e(E2eArgs),
    Mixed(MixedArgs),
    Max(MaxArgs),
    Matrix(MatrixArgs),
    Compare(CompareArgs),
    Report(ReportArgs),
    Profile(ProfileArgs),
}

/// What a run whose figures are not to be believed ends with.
const INVALID: u8 = 3;

pub fn run(global: &Global, command: BenchCommand) -> Result<ExitCode> {
    let (run, work) = match command {
        BenchCommand::Produce(args) => args.plan(),
        BenchCommand::Consume(args) => args.plan(),
        BenchCommand::E2e(args) => args.plan(),
        BenchCommand::Mixed(args) => args.plan(),
        BenchCommand::Max(args) => return max::run(global, args),
        BenchCommand::Matrix(args) => return matrix::run(global, &args),
        BenchCommand::Compare(args) => return compare::run(global, &args),
        BenchCommand::Report(args) => return report::run(&args),
        BenchCommand::Profile(args) => return profile::run(global, args),
    };
    run.results.begin()?;
    let mut plan = run.plan(global, work);
    let runner = Runner::new()?;
    let broker = run.target.start(global, &mut plan)?;
    let outcome = runner.run(&plan)?;
    run.results.deliver(global.output, &outcome)?;
    broker.map_or(Ok(()), Broker::stop)?;
    let report = &outcome.report;
    for error in &report.first_errors {
        eprintln!("failed: {}", crate::output::one_line(error));
    }
    if let Some(fault) = report.fault() {
        anyhow::bail!(fault);
    }
    if report.errors > 0 {
        anyhow::bail!("{} records failed", report.errors);
    }
    Ok(if report.is_valid() { ExitCode::SUCCESS } else { ExitCode::from(INVALID) })
}
