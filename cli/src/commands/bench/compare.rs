//! `corrente bench compare`: two sets of runs, and whether they differ.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use corrente_loadgen::compare::{Comparison, Condition, Finding, Row, compare};

use super::results::read;
use crate::args::Global;
use crate::output::table;

/// Compare the runs of one file with those of another.
///
/// Runs are added to a file with --json FILE --append. From three runs a side on, made in turn, a figure is called
/// better or worse where 95 of 100 bootstrap resamplings of the runs say so. Exit code: 0; 1 if a --fail-if holds; 3 if
/// one was given and the runs decide nothing.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Runs as they were before.
    #[arg(value_name = "A.json")]
    a: PathBuf,
    /// Runs as they are now.
    #[arg(value_name = "B.json")]
    b: PathBuf,
    /// Fail if the median of a figure changed by more, for example p99>+5% or records/s<-3%; may be given several
    /// times.
    #[arg(long, value_name = "FIGURE>+N%")]
    fail_if: Vec<Condition>,
}

/// What a comparison that decides nothing ends with, if it was to decide.
const UNDECIDABLE: u8 = 3;

pub fn run(global: &Global, args: &CompareArgs) -> Result<ExitCode> {
    let comparison = compare(&read(&args.a)?, &read(&args.b)?)?;
    global.output.one(&comparison, text)?;
    if !args.fail_if.is_empty() && !comparison.undecidable.is_empty() {
        return Ok(ExitCode::from(UNDECIDABLE));
    }
    let failing = comparison.failing(&args.fail_if);
    for condition in &failing {
        eprintln!("failed: {condition}");
    }
    Ok(if failing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(comparison: &Comparison) -> String {
    let header = ["FIGURE", "A", "B", "CHANGE", "95 OF 100", "B IS"];
    let mut text = table(&header, comparison.rows.iter().map(cells));
    let told = comparison.undecidable.iter().map(|reason| format!("undecidable: {reason}"));
    for line in told.chain(comparison.remarks.iter().cloned()) {
        text.push('\n');
        text.push_str(&line);
    }
    text
}

fn cells(row: &Row) -> Vec<String> {
    let spread = |spread: &corrente_loadgen::compare::Spread| {
        format!("{:.1} ({:.1} to {:.1}, {} runs)", spread.median, spread.min, spread.max, spread.runs)
    };
    let finding = match row.finding {
        Finding::Better => "better",
        Finding::Worse => "worse",
        Finding::NoDifference => "not shown to differ",
        Finding::Undecidable => "undecidable",
    };
    vec![
        row.metric.to_string(),
        spread(&row.a),
        spread(&row.b),
        format!("{:+.1} %", row.change * 100.0),
        format!("{:+.1} to {:+.1} %", row.interval.0 * 100.0, row.interval.1 * 100.0),
        finding.to_owned(),
    ]
}
