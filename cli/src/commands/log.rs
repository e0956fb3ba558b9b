//! `corrente log`: the files of a broker that does not run.

mod dump;
mod repair;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use corrente_broker::offline::{Lost, Target};
use serde::Serialize;

use crate::args::Global;

#[derive(Debug, Subcommand)]
pub enum LogCommand {
    Verify(verify::VerifyArgs),
    Dump(dump::DumpArgs),
    Repair(repair::RepairArgs),
}

/// Which files.
#[derive(Debug, Args)]
struct TargetArgs {
    /// A data directory with all its logs, or one log: DATA-DIR/topics/TOPIC-ID/PARTITION
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The node's first data directory, where its checkpoints lie, if PATH lies in another.
    #[arg(long, value_name = "DIR")]
    first_data_dir: Option<PathBuf>,
}

impl TargetArgs {
    fn target(&self) -> Result<Target> {
        let absolute = |path: &Path| std::path::absolute(path).with_context(|| path.display().to_string());
        Ok(Target {
            paths: self.paths.iter().map(|path| absolute(path)).collect::<Result<_>>()?,
            first_data_dir: self.first_data_dir.as_deref().map(absolute).transpose()?,
        })
    }
}

/// Offsets as they are printed; the end is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Offsets {
    start: u64,
    end: u64,
}

impl From<&Lost> for Offsets {
    fn from(lost: &Lost) -> Offsets {
        Offsets { start: lost.start.0, end: lost.end.0 }
    }
}

impl Offsets {
    fn text(self) -> String {
        format!("{}..{}", self.start, self.end)
    }

    fn count(self) -> u64 {
        self.end - self.start
    }
}

pub async fn run(global: &Global, command: LogCommand) -> Result<ExitCode> {
    match command {
        LogCommand::Verify(args) => Ok(verify::run(global.output, &args).await),
        LogCommand::Dump(args) => dump::run(global.output, &args).await,
        LogCommand::Repair(args) => repair::run(global.output, &args).await,
    }
}
