//! Prints what this machine can do without us; every published figure of ours stands beside one of these.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a program of its own, outside the seam"
)]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use corrente_benches::figures::Figures;
use corrente_benches::floor::{DiskFile, Site, measure_round};
use corrente_loadgen::machine::Machine;
use serde::Serialize;

/// Measures loopback and disk with plain system calls: several rounds, all parts in each, medians at the end.
#[derive(Parser)]
struct Arguments {
    /// Directory on the disk to measure; the file in it is removed at the end.
    #[arg(long, value_name = "DIR", default_value = "target")]
    dir: PathBuf,
    /// How long each part runs in each round.
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    seconds: f64,
    /// How often everything is measured.
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u32,
    /// Size of the prewritten file.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    file_mib: u64,
    /// Also write every value of every round to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    machine: Site,
    figures: Figures,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    fs::create_dir_all(&arguments.dir).with_context(|| format!("create {}", arguments.dir.display()))?;
    let seconds = Duration::try_from_secs_f64(arguments.seconds).context("--seconds")?;

    let file = DiskFile::create(&arguments.dir, arguments.file_mib)?;
    let mut figures = Figures::default();
    for round in 1..=arguments.rounds {
        eprintln!("round {round} of {}", arguments.rounds);
        measure_round(&file, seconds, &mut figures)?;
    }
    drop(file);

    let machine = Site::describe(&arguments.dir);
    let Site { machine: Machine { cpus, cpu, kernel, .. }, file_system } = &machine;
    println!("{cpus} × {cpu}, kernel {kernel}, {file_system}");
    println!("median (least..greatest) of {} rounds", arguments.rounds);
    for (name, figure) in figures.iter() {
        println!("{name:<34} {figure}");
    }
    if let Some(path) = arguments.json {
        let json = serde_json::to_vec_pretty(&Report { machine, figures })?;
        fs::write(&path, json).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}
