//! `corrente topic offsets`: where partitions begin and end, or where a time stands in them.

use anyhow::Result;
use clap::Args;
use corrente_client::{Admin, OffsetSpec, PartitionOffset};
use serde::Serialize;

use crate::moment;
use crate::output::Output;

/// Show where the partitions of a topic begin and end, or where a time stands in them.
///
/// The offset of a time is that of the first record that carries it or a later one, whatever follows: producers set
/// timestamps and need not keep them in order. Where no record is late enough it is the end.
#[derive(Debug, Args)]
pub struct OffsetsArgs {
    /// The topic.
    name: String,
    /// The time to look for: @ and milliseconds since 1970, @2025-11-25T10:00:00Z, or @-15m for a while ago; or the
    /// record with the latest timestamp.
    #[arg(long, value_name = "@TIME|max-timestamp", value_parser = parse_at)]
    at: Option<At>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Time(i64),
    MaxTimestamp,
}

/// Ends are exclusive.
#[derive(Debug, Serialize)]
struct Bounds {
    partition: u32,
    start: u64,
    end: u64,
}

#[derive(Debug, Serialize)]
struct Found {
    partition: u32,
    offset: u64,
    timestamp_ms: Option<i64>,
}

pub async fn run(output: Output, admin: &Admin, args: OffsetsArgs) -> Result<()> {
    let spec = match args.at {
        None => return bounds(output, admin, &args.name).await,
        Some(At::Time(at_ms)) => OffsetSpec::Timestamp(at_ms),
        Some(At::MaxTimestamp) => OffsetSpec::MaxTimestamp,
    };
    let found = admin.list_offsets(&args.name, spec).await?;
    let found: Vec<Found> = found.into_iter().map(Found::from).collect();
    Ok(output.list(&["PARTITION", "OFFSET", "TIMESTAMP"], &found, Found::row)?)
}

async fn bounds(output: Output, admin: &Admin, topic: &str) -> Result<()> {
    let starts = admin.list_offsets(topic, OffsetSpec::Earliest).await?;
    let ends = admin.list_offsets(topic, OffsetSpec::Latest).await?;
    let bounds = starts.iter().zip(&ends).map(|(start, end)| Bounds {
        partition: start.partition,
        start: start.offset.0,
        end: end.offset.0,
    });
    let bounds: Vec<Bounds> = bounds.collect();
    let row = |bounds: &Bounds| {
        vec![bounds.partition.to_string(), bounds.start.to_string(), bounds.end.to_string()]
    };
    Ok(output.list(&["PARTITION", "START", "END"], &bounds, row)?)
}

impl From<PartitionOffset> for Found {
    fn from(found: PartitionOffset) -> Found {
        Found { partition: found.partition, offset: found.offset.0, timestamp_ms: found.timestamp_ms }
    }
}

impl Found {
    fn row(&self) -> Vec<String> {
        let timestamp = self.timestamp_ms.map_or_else(|| "none".to_owned(), moment::show);
        vec![self.partition.to_string(), self.offset.to_string(), timestamp]
    }
}

fn parse_at(text: &str) -> Result<At, String> {
    match moment::parse_at(text) {
        Some(at_ms) => at_ms.map(At::Time),
        None if text == "max-timestamp" => Ok(At::MaxTimestamp),
        None => Err("use @TIME or max-timestamp".to_owned()),
    }
}
