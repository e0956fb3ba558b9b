//! Where the figures of a run go: to the terminal, and into files.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use corrente_loadgen::report::Report;
use corrente_loadgen::{Outcome, hdr_log, html, table};

use crate::output::Output;

#[derive(Debug, Args)]
pub struct Results {
    /// Also write the report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Add the report to those that --json already holds, instead of writing it over them: runs to be compared.
    #[arg(long, requires = "json")]
    append: bool,
    /// Also write the latencies of each second to this file, as an HDR interval log in nanoseconds.
    #[arg(long, value_name = "FILE")]
    hdr: Option<PathBuf>,
    /// Also draw the run on a page, which any browser shows and which needs no other file; `corrente bench report`
    /// draws several.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Results {
    /// Before the first run: files that cannot be written are told of before the time is spent.
    pub fn begin(&self) -> Result<()> {
        let anew = self.json.iter().filter(|_| !self.append).chain(&self.hdr).chain(&self.html);
        for path in anew {
            File::create(path).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    /// Prints the figures of the one run, and keeps them.
    pub fn deliver(&self, output: Output, outcome: &Outcome) -> Result<()> {
        output.one(&outcome.report, table::table)?;
        self.keep(outcome)
    }

    /// Writes the figures of a run where they were asked for: reports one behind the other, the interval log and
    /// the page of the last.
    pub fn keep(&self, outcome: &Outcome) -> Result<()> {
        if let Some(path) = &self.json {
            append(path, &outcome.report.to_json()).with_context(|| format!("writing {}", path.display()))?;
        }
        if let Some(path) = &self.hdr {
            write_hdr(path, outcome).with_context(|| format!("writing {}", path.display()))?;
        }
        if let Some(path) = &self.html {
            write_html(path, std::slice::from_ref(&outcome.report))?;
        }
        Ok(())
    }
}

fn append(path: &Path, json: &str) -> Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    Ok(file.write_all(format!("{json}\n").as_bytes())?)
}

/// Writes a page of these reports; at least one.
pub fn write_html(path: &Path, reports: &[Report]) -> Result<()> {
    fs::write(path, html::page(reports)).with_context(|| format!("writing {}", path.display()))
}

fn write_hdr(path: &Path, outcome: &Outcome) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    hdr_log::write(&mut file, outcome.measured_from, &outcome.seconds)?;
    Ok(file.flush()?)
}

/// Reads what --json wrote, one report after the other; at least one.
pub fn read(path: &Path) -> Result<Vec<Report>> {
    let json = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let reports: Vec<Report> = serde_json::Deserializer::from_slice(&json)
        .into_iter()
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} does not hold reports of corrente bench", path.display()))?;
    ensure!(!reports.is_empty(), "{} holds no report", path.display());
    Ok(reports)
}
