//! The one binary: starts a broker, manages topics, produces, consumes, measures.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the command line is a program of its own: it has files, threads and a clock like any user of the SDK"
)]

mod args;
mod commands;
mod confirm;
mod format;
mod http;
mod input;
mod json_record;
mod moment;
mod output;
mod progress;
mod row;
mod units;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    match commands::run(cli) {
        Ok(code) => code,
        Err(error) if output::reader_left(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", output::one_line(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}
