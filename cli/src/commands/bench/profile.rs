//! `corrente bench profile`: what the records of a topic are like.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use corrente_loadgen::profile::{Distribution, Profile};

use super::running::Runner;
use crate::args::Global;
use crate::output::table;
use crate::units::parse_count;

/// Read a topic and say what its records are like, for bench produce --replay to send such ones again.
///
/// Distributions alone are kept: how many keys there are and how unequally they are used, sizes of keys, values and
/// batches, codecs, and the load over time. No key and no value is written anywhere.
#[derive(Debug, Args)]
pub struct ProfileArgs {
    /// The topic, read from its start up to where it ends now.
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// Read no more than about so many records, to whole batches. Default: all there are
    #[arg(long, value_name = "N", value_parser = parse_some)]
    records: Option<u64>,
    /// Write the profile to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub fn run(global: &Global, args: ProfileArgs) -> Result<ExitCode> {
    let ProfileArgs { topic, records, json } = args;
    // A file that cannot be written is told of before the time is spent.
    if let Some(path) = &json {
        fs::write(path, "").with_context(|| format!("writing {}", path.display()))?;
    }
    let brokers = global.brokers.clone();
    let profile =
        Runner::new()?.watch(move |live| corrente_loadgen::profile(&brokers, &topic, records, live))?;
    if let Some(path) = &json {
        fs::write(path, serde_json::to_vec_pretty(&profile)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    global.output.one(&profile, text)?;
    Ok(ExitCode::SUCCESS)
}

/// Reads what --json wrote.
pub fn read(path: &str) -> Result<Box<Profile>, String> {
    let path = Path::new(path);
    let json = fs::read(path).map_err(|error| error.to_string())?;
    let profile: Box<Profile> =
        serde_json::from_slice(&json).map_err(|error| format!("it holds no profile: {error}"))?;
    profile.check().map_err(|error| format!("it holds no profile: {error}"))?;
    Ok(profile)
}

fn parse_some(text: &str) -> Result<u64, String> {
    match parse_count(text)? {
        0 => Err("0 records say nothing".to_owned()),
        records => Ok(records),
    }
}

fn text(profile: &Profile) -> String {
    let mut rows = vec![
        row("records", profile.records.to_string()),
        row("value bytes", spread(&profile.value_sizes)),
        row("records of a batch", spread(&profile.batch_records)),
        row("batches by codec", codecs(profile)),
    ];
    if profile.null_values > 0 {
        rows.push(row("without a value", profile.null_values.to_string()));
    }
    match &profile.keys {
        Some(keys) => {
            let hottest = keys.hottest.first().copied().unwrap_or(0.0) * 100.0;
            let ten = keys.hottest.iter().take(10).sum::<f64>() * 100.0;
            rows.push(row("key bytes", spread(&keys.sizes)));
            rows.push(row("different keys", keys.distinct.to_string()));
            rows.push(row("use of keys", format!("zipf:{:.2}", keys.zipf_exponent)));
            rows.push(row("hottest key, ten", format!("{hottest:.2} %, {ten:.2} %")));
            rows.push(row("without a key", profile.null_keys.to_string()));
        }
        None => rows.push(row("keys", "none".to_owned())),
    }
    if let Some(arrivals) = &profile.arrivals {
        let most = arrivals.curve.iter().copied().fold(0.0, f64::max);
        let steps = arrivals.curve.len();
        rows.push(row("time", format!("{:.3} s in {steps} steps", arrivals.seconds())));
        rows.push(row("busiest step", format!("{most:.2} times the mean")));
    }
    if let Some(rate) = profile.records_per_s() {
        rows.push(row("records/s", format!("{rate:.0}")));
    }
    table(&["FIGURE", "FOUND"], rows.into_iter())
}

fn row(name: &str, found: String) -> Vec<String> {
    vec![name.to_owned(), found]
}

fn spread(sizes: &Distribution) -> String {
    match (sizes.min(), sizes.max()) {
        (Some(min), Some(max)) => {
            let quantile = |quantile| sizes.at(quantile);
            format!(
                "mean {:.1}, p50 {}, p99 {} ({min} to {max})",
                sizes.mean(),
                quantile(0.5),
                quantile(0.99)
            )
        }
        _ => "none".to_owned(),
    }
}

fn codecs(profile: &Profile) -> String {
    let codecs = profile.compression.iter().map(|(codec, count)| format!("{codec} {count}"));
    codecs.collect::<Vec<_>>().join(", ")
}
