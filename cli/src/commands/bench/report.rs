//! `corrente bench report`: runs that were kept, as a page.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::results::{read, write_html};

/// Draw the runs of a file on a page.
///
/// The file is what --json wrote. Of several runs, as --append keeps them, the latencies are drawn over each other.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Runs as --json keeps them.
    #[arg(value_name = "FILE.json")]
    file: PathBuf,
    /// The page, which any browser shows and which needs no other file.
    #[arg(long, value_name = "FILE")]
    html: PathBuf,
}

pub fn run(args: &ReportArgs) -> Result<ExitCode> {
    write_html(&args.html, &read(&args.file)?)?;
    Ok(ExitCode::SUCCESS)
}
