//! `corrente log dump`: shows what lies in a log.

use std::io::{BufWriter, Write};
use std::process::ExitCode;

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use corrente_broker::offline::{self, DumpRange, Dumped, FindingKind, Shown};
use corrente_client::Offset;
use serde_json::{Value, json};

use super::TargetArgs;
use super::verify::Found;
use crate::moment;
use crate::output::Output;

/// Show the segments, extents and batches of logs; what is damaged is shown as such and passed over.
///
/// May run beside a broker; what it shows is then a moment, and the end may look torn.
#[derive(Debug, Args)]
pub struct DumpArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Only the segment that begins with this offset.
    #[arg(long, value_name = "BASE")]
    segment: Option<u64>,
    /// From this offset on.
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    from: u64,
    /// At most this many batches, or records with --records.
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// Show each record: offset, timestamp, key and the size of its value.
    #[arg(long)]
    records: bool,
}

pub async fn run(output: Output, args: &DumpArgs) -> Result<ExitCode> {
    let range =
        DumpRange { segment: args.segment.map(Offset), from: Offset(args.from), records: args.records };
    let mut running = offline::dump(args.target.target()?, range)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut printer = Printer { output, first: true };
    let mut left = args.max.unwrap_or(u64::MAX);
    while let Some(shown) = running.next().await? {
        if let Shown::InUse(dir) = &shown {
            eprintln!("{} is in use by a broker: this is a moment, its end may look torn", dir.display());
            continue;
        }
        let counts = match &shown {
            Shown::Part(Dumped::Record { .. }) => args.records,
            Shown::Part(Dumped::Batch { .. }) => !args.records,
            _ => false,
        };
        if counts && left == 0 {
            break;
        }
        left -= u64::from(counts);
        printer.print(&mut out, &shown)?;
    }
    printer.end(&mut out)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Prints as it goes: a log may be larger than memory.
struct Printer {
    output: Output,
    first: bool,
}

impl Printer {
    fn print(&mut self, out: &mut impl Write, shown: &Shown) -> Result<()> {
        match self.output {
            Output::Table => writeln!(out, "{}", line(shown))?,
            Output::Jsonl => writeln!(out, "{}", object(shown))?,
            Output::Json => {
                write!(out, "{}\n  {}", if self.first { "[" } else { "," }, object(shown))?;
            }
        }
        self.first = false;
        Ok(())
    }

    fn end(&self, out: &mut impl Write) -> Result<()> {
        match (self.output, self.first) {
            (Output::Json, true) => writeln!(out, "[]")?,
            (Output::Json, false) => writeln!(out, "\n]")?,
            _ => {}
        }
        Ok(())
    }
}

fn line(shown: &Shown) -> String {
    let part = match shown {
        Shown::InUse(dir) => return format!("{} is in use", dir.display()),
        Shown::Log(log) => return format!("log {}  {}", log.id, log.dir.display()),
        Shown::Part(part) => part,
    };
    match part {
        Dumped::Segment { file, len, made } => {
            let made = made.as_ref().map_or_else(
                || "header lost".to_owned(),
                |made| format!("made {} by {}", moment::show(made.created_ms), made.by),
            );
            format!("segment {file}  {len} bytes  {made}")
        }
        Dumped::Extent { position, base_offset, end_offset, leader_epoch, body_len, verifies } => {
            let verifies = if *verifies { "" } else { "  DAMAGED" };
            format!(
                "  extent @{position}  {base_offset}..{end_offset}  epoch {leader_epoch}  {body_len} bytes{verifies}"
            )
        }
        Dumped::Batch { base_offset, end_offset, records, size, compression, max_timestamp_ms } => {
            let latest = if *records > 0 { moment::show(*max_timestamp_ms) } else { "empty".to_owned() };
            let codec = codec(*compression);
            format!(
                "    batch  {base_offset}..{end_offset}  {records} records  {size} bytes  {codec}  {latest}"
            )
        }
        Dumped::Record { offset, timestamp_ms, key, value_len } => {
            let key = key.as_ref().map_or_else(|| "null".to_owned(), |key| key.escape_ascii().to_string());
            let value = value_len.map_or_else(|| "null".to_owned(), |len| format!("{len} bytes"));
            format!("      record {offset}  {}  key {key}  value {value}", moment::show(*timestamp_ms))
        }
        Dumped::Finding(finding) => {
            let kind = match finding.kind {
                FindingKind::Damage => "DAMAGED",
                FindingKind::TornTail => "torn tail",
                FindingKind::Note => "note",
            };
            let position = finding.position.map_or_else(String::new, |position| format!(" @{position}"));
            let lost = finding.lost.as_ref().map(|lost| format!("  {}..{} lost", lost.start, lost.end));
            format!("  {kind} {}{position}{}: {}", finding.file, lost.unwrap_or_default(), finding.what)
        }
    }
}

/// Keys as text where they are, else as base64 under a name of its own.
fn object(shown: &Shown) -> Value {
    let part = match shown {
        Shown::InUse(dir) => return json!({ "kind": "in use", "path": dir }),
        Shown::Log(log) => return json!({ "kind": "log", "log": log.id.to_string(), "path": log.dir }),
        Shown::Part(part) => part,
    };
    match part {
        Dumped::Segment { file, len, made } => json!({
            "kind": "segment", "file": file, "bytes": len,
            "created_ms": made.map(|made| made.created_ms), "made_by": made.map(|made| made.by),
        }),
        Dumped::Extent { position, base_offset, end_offset, leader_epoch, body_len, verifies } => json!({
            "kind": "extent", "position": position, "base_offset": base_offset.0, "end_offset": end_offset.0,
            "leader_epoch": leader_epoch.0, "bytes": body_len, "verifies": verifies,
        }),
        Dumped::Batch { base_offset, end_offset, records, size, compression, max_timestamp_ms } => json!({
            "kind": "batch", "base_offset": base_offset.0, "end_offset": end_offset.0, "records": records,
            "bytes": size, "compression": codec(*compression), "max_timestamp_ms": max_timestamp_ms,
        }),
        Dumped::Record { offset, timestamp_ms, key, value_len } => {
            let mut object = json!({
                "kind": "record", "offset": offset.0, "timestamp_ms": timestamp_ms, "value_bytes": value_len,
            });
            match key.as_ref().map(|key| std::str::from_utf8(key).map_err(|_| key)) {
                None => object["key"] = Value::Null,
                Some(Ok(text)) => object["key"] = text.into(),
                Some(Err(bytes)) => object["key_base64"] = STANDARD.encode(bytes).into(),
            }
            object
        }
        Dumped::Finding(finding) => serde_json::to_value(Found::new(finding.clone())).unwrap_or(Value::Null),
    }
}

fn codec(compression: Result<&'static str, u16>) -> String {
    compression.map_or_else(|number| format!("codec {number}"), str::to_owned)
}
