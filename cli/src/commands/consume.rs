//! `corrente consume`: prints records in the order of their partitions.

use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use corrente_client::{Batch, Client, Offset, OffsetSpec, StartOffset};

use crate::args::Global;
use crate::format::Format;
use crate::json_record;
use crate::moment;
use crate::output::Output;
use crate::row::Row;

/// Print records.
///
/// Prints records as they come, those of a partition in order, until interrupted or until the end that was asked for.
///
/// Directives of a format: %k key, %v value, %h headers, %o offset, %p partition, %t timestamp in milliseconds, %% the
/// sign itself; escapes: \n \t \r \0 \\ \xHH. With json each record is an object on a line of its own, as `produce
/// --format json` reads it: keys and values are strings where they are UTF-8, {"base64":"..."} where they are not, and
/// null.
#[derive(Debug, Args)]
pub struct ConsumeArgs {
    /// The topic to read.
    topic: String,
    /// Where to begin: an offset, which counts in each partition; or the first record of a time or later, as @ and
    /// milliseconds since 1970, @2025-11-25T10:00:00Z, or @-15m for a while ago.
    #[arg(long, value_name = "earliest|latest|OFFSET|@TIME", default_value = "earliest", value_parser = parse_start)]
    from: StartOffset,
    /// End where the partitions end now.
    #[arg(long)]
    until_end: bool,
    /// Read this partition only.
    #[arg(long, value_name = "P")]
    partition: Option<u32>,
    /// What is printed for each record. Default: '%v\n', or json with -o json or -o jsonl
    #[arg(long, value_name = "FORMAT|json", value_parser = parse_printing)]
    format: Option<Printing>,
    /// End after so many records.
    #[arg(long, value_name = "N")]
    max_records: Option<u64>,
}

/// How a record is printed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Printing {
    Format(Format),
    Json,
}

pub async fn run(global: &Global, args: ConsumeArgs) -> Result<ExitCode> {
    let printing = args.format.clone().unwrap_or_else(|| Printing::default_for(global.output));
    let client = super::connect(global).await?;
    if let (StartOffset::At(offset), true) = (args.from, args.until_end) {
        refuse_beyond_the_end(&client, &args, offset).await?;
    }
    let mut builder = client.consumer().topic(&args.topic).from(args.from);
    if let Some(partition) = args.partition {
        builder = builder.partitions([partition]);
    }
    if args.until_end {
        builder = builder.until_end();
    }
    let mut consumer = builder.build().await?;
    let mut printer = Printer::new(printing, args.max_records);
    let mut interrupted = std::pin::pin!(super::interrupted());
    while !printer.is_done() {
        let next = tokio::select! {
            biased;
            _ = &mut interrupted => break,
            next = consumer.next_batch() => Some(next),
            // Nothing is waiting: show what was printed before waiting for more.
            () = std::future::ready(()), if printer.holds_something() => None,
        };
        let printed = match next {
            None => printer.flush(),
            Some(Ok(Some(batch))) => printer.print(&batch),
            Some(Ok(None)) => break,
            Some(Err(error)) => {
                let _ = printer.flush();
                return Err(error.into());
            }
        };
        if reader_left(&printed) {
            return Ok(ExitCode::SUCCESS);
        }
        printed?;
    }
    let flushed = printer.flush();
    if !reader_left(&flushed) {
        flushed?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Reading until the end from beyond it would print nothing and look like an empty topic.
async fn refuse_beyond_the_end(client: &Client, args: &ConsumeArgs, offset: Offset) -> Result<()> {
    let ends = client.admin().list_offsets(&args.topic, OffsetSpec::Latest).await?;
    let wanted = |partition| args.partition.is_none_or(|only| only == partition);
    match ends.iter().find(|end| wanted(end.partition) && end.offset < offset) {
        Some(end) => bail!(
            "offset {offset} is beyond the end of {}/{}, which is at {}",
            args.topic,
            end.partition,
            end.offset
        ),
        None => Ok(()),
    }
}

/// `corrente consume … | head` has seen enough: that is an end, not an error.
fn reader_left(printed: &io::Result<()>) -> bool {
    matches!(printed, Err(error) if error.kind() == ErrorKind::BrokenPipe)
}

impl Printing {
    fn default_for(output: Output) -> Printing {
        match output {
            Output::Table => Printing::Format("%v\\n".parse().expect("a constant format is valid")),
            Output::Json | Output::Jsonl => Printing::Json,
        }
    }
}

/// Prints to a buffered stdout and counts.
struct Printer {
    printing: Printing,
    out: BufWriter<StdoutLock<'static>>,
    left: Option<u64>,
}

impl Printer {
    fn new(printing: Printing, records_max: Option<u64>) -> Printer {
        Printer { printing, out: BufWriter::with_capacity(64 * 1024, io::stdout().lock()), left: records_max }
    }

    fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    fn holds_something(&self) -> bool {
        !self.out.buffer().is_empty()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn print(&mut self, batch: &Batch) -> io::Result<()> {
        for record in &batch.records {
            if self.is_done() {
                break;
            }
            let row = Row {
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &record.headers,
                timestamp_ms: record.timestamp_ms,
                partition: batch.partition,
                offset: record.offset.0,
            };
            match &self.printing {
                Printing::Format(format) => format.write(&row, &mut self.out)?,
                Printing::Json => json_record::write(&row, &mut self.out)?,
            }
            self.left = self.left.map(|left| left - 1);
        }
        Ok(())
    }
}

fn parse_start(text: &str) -> Result<StartOffset, String> {
    if let Some(at_ms) = moment::parse_at(text) {
        return at_ms.map(StartOffset::Timestamp);
    }
    match text {
        "earliest" => Ok(StartOffset::Earliest),
        "latest" => Ok(StartOffset::Latest),
        offset => match offset.parse() {
            Ok(offset) => Ok(StartOffset::At(Offset(offset))),
            Err(_) => Err("use earliest, latest, an offset or @TIME".to_owned()),
        },
    }
}

fn parse_printing(text: &str) -> Result<Printing, String> {
    match text {
        "json" => Ok(Printing::Json),
        format => format
            .parse()
            .map(Printing::Format)
            .map_err(|error: crate::format::FormatError| error.to_string()),
    }
}
