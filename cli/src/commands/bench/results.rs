//! Where the figures of a run go: to the terminal, and into files.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use corrente_loadgen::{Outcome, hdr_log, table};

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
}

impl Results {
    /// Prints the figures, and writes them where they were asked for.
    pub fn deliver(&self, output: Output, outcome: &Outcome) -> Result<()> {
        output.one(&outcome.report, table::table)?;
        if let Some(path) = &self.json {
            self.write_json(path, &outcome.report.to_json())
                .with_context(|| format!("writing {}", path.display()))?;
        }
        if let Some(path) = &self.hdr {
            write_hdr(path, outcome).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    fn write_json(&self, path: &Path, json: &str) -> Result<()> {
        if !self.append {
            return Ok(fs::write(path, format!("{json}\n"))?);
        }
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(file.write_all(format!("{json}\n").as_bytes())?)
    }
}

fn write_hdr(path: &Path, outcome: &Outcome) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    hdr_log::write(&mut file, outcome.measured_from, &outcome.seconds)?;
    Ok(file.flush()?)
}
