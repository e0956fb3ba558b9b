//! `corrente produce`: a record a line, in order, until the last is acknowledged.
//!
//! A thread reads and cuts the input, the SDK batches and sends it. Between them lie a few blocks at most, and the SDK
//! bounds what is not acknowledged: an input of any size passes through the same memory.

use std::fs::{self, File};
use std::io::{self, Read};
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use corrente_client::{Durability, Producer, Record};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::args::Global;
use crate::input::{InputError, Lines};
use crate::json_record;
use crate::output::{Output, one_line, tell_of_retries};
use crate::progress::Progress;
use crate::units::{parse_bytes, parse_duration, parse_pair};

/// Send records, one a line, from stdin or a file.
///
/// Sends a record for each line and ends when all are acknowledged, or with an exit code other than 0 when one is not.
///
/// A line is sent as the bytes it holds, without its end. A broker that restarts is ridden through. The command stops
/// at the first trouble (a line that cannot be a record, a record that cannot be delivered), waits for what was sent
/// before it, and says how many were acknowledged.
#[derive(Debug, Args)]
pub struct ProduceArgs {
    /// The topic to send to.
    topic: String,
    /// Read this file. Default: stdin
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What a line is: a value (text), or a JSON object (json) like {"key":"k","value":"v","headers":[{"key":"h",
    /// "value":"w"}],"timestamp":0,"partition":0}. Keys and values are strings, null, or {"base64":"..."} for bytes
    /// that are not UTF-8; what is absent is null, and the timestamp is the time of sending. An "offset" is ignored.
    #[arg(long, value_enum, default_value_t = InputFormat::Text)]
    format: InputFormat,
    /// Key and value of a line are parted by the first D; without one the whole line is the value and the key is null.
    #[arg(long, value_name = "D", value_parser = parse_delimiter)]
    key_delimiter: Option<Delimiter>,
    /// A header for every record.
    #[arg(long = "header", value_name = "K=V", value_parser = parse_pair)]
    headers: Vec<(String, String)>,
    /// Send everything to this partition. Default: by the key, or in turn
    #[arg(long, value_name = "P")]
    partition: Option<u32>,
    /// What an acknowledgement promises: received, leader_flushed, replicated or isr_flushed. Default: isr_flushed
    #[arg(long, value_name = "LEVEL", value_parser = str::parse::<Durability>)]
    durability: Option<Durability>,
    /// Try so long to deliver a record before giving up.
    #[arg(long, value_name = "D", value_parser = parse_duration, default_value = "2m")]
    delivery_timeout: Duration,
    /// Bytes that may be unacknowledged at once.
    #[arg(long, value_name = "B", value_parser = parse_unacked, default_value = "32MiB")]
    max_unacked: usize,
    /// Keep {"sent":N,"acked":N,"failed":N} in this file, renewed every 100 ms.
    #[arg(long, value_name = "FILE")]
    stats_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum InputFormat {
    Text,
    Json,
}

/// Any bytes but none; `\t`, `\n` and `\0` may be written so.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Delimiter(Vec<u8>);

/// What the summary says.
#[derive(Debug, Serialize)]
struct Summary {
    acknowledged: u64,
    failed: u64,
    seconds: f64,
}

/// Records of one block of input.
struct Parsed {
    records: Vec<Record>,
    /// How many of them are handed to the SDK at once.
    group_records_max: usize,
    input_bytes: u64,
}

/// Blocks of input that may wait for the SDK.
const BLOCKS_WAITING_MAX: usize = 2;
/// Lines of text are alike: what refuses one refuses all, so many go at once. A JSON line may be refused for itself,
/// and those before it are to be sent.
const TEXT_GROUP_RECORDS_MAX: usize = 512;
const JSON_GROUP_RECORDS_MAX: usize = 1;
/// A group that takes more bytes is a single record.
const GROUP_BYTES_MAX: usize = 64 * 1024;
/// The least that may be unacknowledged: room for a group and for all that the SDK counts beside its bytes.
const UNACKED_BYTES_MIN: usize = 256 * 1024;
/// A line beyond this cannot be a record: it does not fit a frame of 16 MiB, the most that brokers take by default.
const LINE_BYTES_MAX: usize = 16 * 1024 * 1024 - 64 * 1024;
/// How many characters of JSON one byte of a record may take, as in \u0000.
const JSON_EXPANSION_MAX: usize = 6;

pub async fn run(global: &Global, args: ProduceArgs) -> Result<ExitCode> {
    tell_of_retries();
    let input = open(args.file.as_deref())?;
    let total = args.file.as_deref().and_then(|path| fs::metadata(path).ok()).map(|file| file.len());
    let client = super::connect(global).await?;
    let mut builder = client
        .producer(&args.topic)
        .delivery_timeout(args.delivery_timeout)
        .max_unacked_bytes(args.max_unacked);
    if let Some(durability) = args.durability {
        builder = builder.durability(durability);
    }
    let producer = builder.build().await?;

    let started = Instant::now();
    let sent = Arc::new(AtomicU64::new(0));
    let stats =
        args.stats_file.clone().map(|path| tokio::spawn(keep_stats(path, sent.clone(), producer.clone())));
    let (blocks, incoming) = mpsc::channel(BLOCKS_WAITING_MAX);
    let shape = RecordShape::new(&args);
    std::thread::Builder::new().name("input".to_owned()).spawn(move || read(input, &shape, &blocks))?;

    let progress = Progress::bytes(total);
    let trouble = tokio::select! {
        trouble = send_all(&producer, incoming, &sent, &progress) => trouble,
        _ = super::interrupted() => Some("interrupted: what was sent before is waited for".to_owned()),
    };
    let report = tokio::select! {
        report = producer.clone().close() => report?,
        _ = super::interrupted() => anyhow::bail!("interrupted again: what is in flight is unknown"),
    };
    drop(progress);
    if let (Some(stats), Some(path)) = (stats, &args.stats_file) {
        stats.abort();
        write_stats(path, sent.load(Ordering::Relaxed), report.acked, report.failed)?;
    }
    let summary = Summary {
        acknowledged: report.acked,
        failed: report.failed,
        seconds: started.elapsed().as_secs_f64(),
    };
    summary.print(global.output)?;
    let first_error = report.first_error.map(|error| error.to_string());
    match first_error.or(trouble) {
        Some(trouble) => anyhow::bail!("{}", one_line(&trouble)),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Hands every record to the SDK, in order. Returns what stopped it, if it was not the end of the input.
///
/// Cancel-safe: a record is handed over whole or not at all.
async fn send_all(
    producer: &Producer,
    mut incoming: mpsc::Receiver<Result<Parsed, InputError>>,
    sent: &AtomicU64,
    progress: &Progress,
) -> Option<String> {
    while let Some(block) = incoming.recv().await {
        let block = match block {
            Ok(block) => block,
            Err(error) => return Some(error.to_string()),
        };
        let mut records = block.records.into_iter().peekable();
        while records.peek().is_some() {
            let group = next_group(&mut records, block.group_records_max);
            let count = group.len() as u64;
            match producer.send_batch(group).await {
                // The producer itself counts what becomes of them.
                Ok(ticket) => drop(ticket),
                Err(error) => return Some(error.to_string()),
            }
            sent.fetch_add(count, Ordering::Relaxed);
        }
        progress.advance(block.input_bytes);
        progress.say(|| format!("{} acknowledged", producer.report().acked));
        if producer.report().failed > 0 {
            return Some("stopped at the first record that was not delivered".to_owned());
        }
    }
    None
}

/// At least one record, and no more than a small part of what may be unacknowledged.
fn next_group(records: &mut Peekable<impl Iterator<Item = Record>>, records_max: usize) -> Vec<Record> {
    let mut group = Vec::with_capacity(records_max);
    let mut bytes = 0;
    while group.len() < records_max && bytes < GROUP_BYTES_MAX {
        let fits = |record: &Record| group.is_empty() || bytes + record.size() <= GROUP_BYTES_MAX;
        let Some(record) = records.next_if(fits) else { break };
        bytes += record.size();
        group.push(record);
    }
    group
}

impl Summary {
    fn print(&self, output: Output) -> io::Result<()> {
        match output {
            Output::Table => eprintln!("{} records acknowledged, {} failed", self.acknowledged, self.failed),
            Output::Json | Output::Jsonl => output.one(self, |_| String::new())?,
        }
        Ok(())
    }
}

fn open(file: Option<&Path>) -> Result<Box<dyn Read + Send>> {
    match file {
        Some(path) => {
            let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
            Ok(Box::new(file))
        }
        None => Ok(Box::new(io::stdin())),
    }
}

/// How a line becomes a record.
struct RecordShape {
    format: InputFormat,
    key_delimiter: Option<Vec<u8>>,
    headers: Vec<(String, Bytes)>,
    partition: Option<u32>,
}

impl RecordShape {
    fn new(args: &ProduceArgs) -> RecordShape {
        let headers = args.headers.iter().map(|(key, value)| (key.clone(), Bytes::from(value.clone())));
        RecordShape {
            format: args.format,
            key_delimiter: args.key_delimiter.clone().map(|Delimiter(bytes)| bytes),
            headers: headers.collect(),
            partition: args.partition,
        }
    }

    fn record(&self, line: Bytes) -> Result<Record, String> {
        let mut record = match self.format {
            InputFormat::Json => json_record::parse(&line)?,
            InputFormat::Text => self.text_record(line),
        };
        for (key, value) in &self.headers {
            record = record.header(key.clone(), value.clone());
        }
        if let Some(partition) = self.partition {
            record = record.partition(partition);
        }
        Ok(record)
    }

    fn text_record(&self, line: Bytes) -> Record {
        let split = self
            .key_delimiter
            .as_ref()
            .and_then(|delimiter| Some((find(&line, delimiter)?, delimiter.len())));
        match split {
            Some((at, length)) => Record::value(line.slice(at + length..)).key(line.slice(..at)),
            None => Record::value(line),
        }
    }
}

fn find(line: &[u8], delimiter: &[u8]) -> Option<usize> {
    match delimiter {
        [byte] => line.iter().position(|other| other == byte),
        _ => line.windows(delimiter.len()).position(|window| window == delimiter),
    }
}

/// Reads until the end, the first trouble, or until nobody listens any more.
fn read(input: Box<dyn Read + Send>, shape: &RecordShape, blocks: &mpsc::Sender<Result<Parsed, InputError>>) {
    let mut lines = Lines::new(input, shape.line_bytes_max());
    let group_records_max = match shape.format {
        InputFormat::Text => TEXT_GROUP_RECORDS_MAX,
        InputFormat::Json => JSON_GROUP_RECORDS_MAX,
    };
    loop {
        let block = match lines.next_block() {
            Ok(Some(block)) => block,
            Ok(None) => return,
            Err(error) => {
                let _ = blocks.blocking_send(Err(error));
                return;
            }
        };
        let mut records = Vec::with_capacity(block.lines.len());
        let mut malformed = None;
        for (line, number) in block.lines.into_iter().zip(block.first_line..) {
            match shape.record(line) {
                Ok(record) => records.push(record),
                Err(what) => {
                    malformed = Some(InputError::Malformed { line: number, what });
                    break;
                }
            }
        }
        if blocks
            .blocking_send(Ok(Parsed { records, group_records_max, input_bytes: block.input_bytes }))
            .is_err()
        {
            return;
        }
        if let Some(error) = malformed {
            let _ = blocks.blocking_send(Err(error));
            return;
        }
    }
}

impl RecordShape {
    /// A line beyond this cannot be a record a broker takes.
    fn line_bytes_max(&self) -> usize {
        match self.format {
            InputFormat::Text => LINE_BYTES_MAX,
            InputFormat::Json => LINE_BYTES_MAX * JSON_EXPANSION_MAX,
        }
    }
}

async fn keep_stats(path: PathBuf, sent: Arc<AtomicU64>, producer: Producer) {
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    loop {
        tick.tick().await;
        let report = producer.report();
        if let Err(error) = write_stats(&path, sent.load(Ordering::Relaxed), report.acked, report.failed) {
            eprintln!("warning: {error:#}");
            return;
        }
    }
}

/// A reader sees the whole file.
fn write_stats(path: &Path, sent: u64, acked: u64, failed: u64) -> Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".tmp");
    let text = serde_json::json!({ "sent": sent, "acked": acked, "failed": failed }).to_string();
    fs::write(&unfinished, text).with_context(|| format!("writing {}", path.display()))?;
    fs::rename(&unfinished, path).with_context(|| format!("writing {}", path.display()))
}

fn parse_unacked(text: &str) -> Result<usize, String> {
    match parse_bytes(text)? {
        bytes if bytes < UNACKED_BYTES_MIN => {
            Err(format!("{bytes} bytes are fewer than {UNACKED_BYTES_MIN}"))
        }
        bytes => Ok(bytes),
    }
}

fn parse_delimiter(text: &str) -> Result<Delimiter, String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next() {
                Some(b't') => b'\t',
                Some(b'n') => b'\n',
                Some(b'0') => 0,
                Some(b'\\') => b'\\',
                _ => return Err("known escapes are \\t \\n \\0 and \\\\".to_owned()),
            },
            byte => byte,
        });
    }
    if bytes.is_empty() { Err("a delimiter is at least one byte".to_owned()) } else { Ok(Delimiter(bytes)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(delimiter: Option<&str>) -> RecordShape {
        RecordShape {
            format: InputFormat::Text,
            key_delimiter: delimiter.map(|text| parse_delimiter(text).unwrap().0),
            headers: vec![],
            partition: None,
        }
    }

    fn record(delimiter: Option<&str>, line: &'static [u8]) -> Record {
        shape(delimiter).record(Bytes::from_static(line)).unwrap()
    }

    #[test]
    fn the_first_delimiter_parts_key_and_value() {
        assert_eq!(record(Some(":"), b"k:v:w"), Record::value("v:w").key("k"));
        assert_eq!(record(Some("::"), b"k:::w"), Record::value(":w").key("k"));
        assert_eq!(record(Some("\\t"), b"k\tv"), Record::value("v").key("k"));
        assert_eq!(record(Some(":"), b":v"), Record::value("v").key(""));
    }

    #[test]
    fn without_a_delimiter_the_line_is_the_value() {
        assert_eq!(record(Some(":"), b"no key"), Record::value("no key"));
        assert_eq!(record(None, b"k:v"), Record::value("k:v"));
        assert_eq!(record(None, b""), Record::value(""));
    }

    #[test]
    fn headers_and_partition_are_added_to_all() {
        let mut shape = shape(None);
        shape.headers.push(("h".to_owned(), Bytes::from_static(b"1")));
        shape.partition = Some(3);
        assert_eq!(
            shape.record(Bytes::from_static(b"v")).unwrap(),
            Record::value("v").header("h", "1").partition(3)
        );
    }

    #[test]
    fn groups_are_bounded_in_records_and_bytes_and_keep_the_order() {
        let sizes = [10, 10, 10, 60_000, 10_000, 200_000, 1];
        let mut records = sizes.map(|size| Record::value(vec![b'x'; size])).into_iter().peekable();
        let mut groups = Vec::new();
        while records.peek().is_some() {
            groups.push(next_group(&mut records, 2).iter().map(Record::size).collect::<Vec<_>>());
        }
        assert_eq!(groups, [vec![10, 10], vec![10, 60_000], vec![10_000], vec![200_000], vec![1]]);
    }

    #[test]
    fn a_malformed_line_stops_after_those_before_it() {
        let mut shape = shape(None);
        shape.format = InputFormat::Json;
        let (blocks, mut incoming) = mpsc::channel(4);
        read(Box::new(&b"{\"value\":\"a\"}\n{}\nnonsense\n{}\n"[..]), &shape, &blocks);
        assert_eq!(incoming.try_recv().unwrap().unwrap().records.len(), 2);
        let error = incoming.try_recv().unwrap().err().unwrap().to_string();
        assert!(error.starts_with("line 3: "), "{error}");
    }
}
