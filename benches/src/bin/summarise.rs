//! Prints what `scripts/budgets` measured, as Markdown.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use corrente_benches::session::Session;

/// Reads `DIR/round-N/*.json` and prints medians, ranges and ratios to the floors of the same session.
#[derive(Parser)]
struct Arguments {
    /// The directory that the measuring script filled.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

fn main() -> Result<()> {
    print!("{}", Session::read(&Arguments::parse().directory)?);
    Ok(())
}
