//! `corrente top`: what one broker does now, from its metrics.
//!
//! It reads `/metrics` alone: the names there are promised, those of `/debug/shards` are not.

mod open_metrics;
mod scrape;
mod screen;
mod view;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use self::scrape::Scrape;
use self::view::View;
use super::interrupted;
use crate::args::Global;
use crate::output::Output;
use crate::units::parse_duration;

/// Show what a broker does now: requests, bytes, latencies, connections and memory of each shard, again and again.
///
/// The broker has to serve metrics: corrente serve --metrics HOST:PORT. Rates and latencies are of the interval between
/// two looks, everything else is what it is now, and failures count from the broker's start; what is not known shows as
/// -. Where the output is no terminal, intervals follow each other.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Where the broker serves its metrics.
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "CORRENTE__LISTEN__METRICS",
        default_value = "127.0.0.1:9400"
    )]
    control: String,
    /// How far two looks are apart.
    #[arg(long, value_name = "D", value_parser = parse_duration, default_value = "1s")]
    interval: Duration,
    /// Show one interval and end.
    #[arg(long)]
    once: bool,
}

/// Takes the cursor to the top left and clears what is there.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub async fn run(global: &Global, args: TopArgs) -> Result<ExitCode> {
    ensure!(!args.interval.is_zero(), "--interval has to be longer than nothing");
    tokio::select! {
        shown = show(global.output, &args) => shown?,
        signal = interrupted() => signal?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A broker that cannot be asked ends it at the start; later on it may be one that starts again, and is waited for.
async fn show(output: Output, args: &TopArgs) -> Result<()> {
    let clear = !args.once && output == Output::Table && io::stdout().is_terminal();
    let mut before = Some(Scrape::of(&args.control).await?);
    loop {
        tokio::time::sleep(args.interval).await;
        let after = match Scrape::of(&args.control).await {
            Ok(after) => after,
            Err(error) if args.once => return Err(error),
            Err(error) => {
                eprintln!("{}", crate::output::one_line(&format!("{error:#}")));
                before = None;
                continue;
            }
        };
        if let Some(before) = &before {
            let view = View::between(before, &after);
            if clear {
                io::stdout().write_all(CLEAR.as_bytes())?;
            }
            output.one(&view, screen::text)?;
        }
        if args.once {
            return Ok(());
        }
        before = Some(after);
    }
}
