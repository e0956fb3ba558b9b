//! What it costs to make one small append durable in each of many logs: the ways there are, beside each other.
//!
//! The question of the design's section 6, answered in `docs/adr/0007-a-flush-for-each-log.md`.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a program of its own, outside the seam"
)]

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Parser;
use corrente_benches::figures::{Figure, Figures, three_digits};
use corrente_runtime::buffer::{AlignedBuf, BLOCK};
use corrente_runtime::executor::{Executors, ExecutorsConfig, Idle};
use corrente_runtime::file::{self, File, OpenOptions, Sync};
use futures_util::stream::{self, StreamExt, TryStreamExt};

/// Appends 4 KiB to each of many prewritten files and makes all of it durable, in several ways and several rounds.
#[derive(Parser)]
struct Arguments {
    /// Directory on the disk to measure; what is made in it is removed at the end.
    #[arg(long, value_name = "DIR", default_value = "target/dirty-logs")]
    dir: PathBuf,
    /// How many logs are dirty at once. Each takes two open files, which `ulimit -n` has to allow for.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,100,1000,9000")]
    logs: Vec<usize>,
    /// How often each is measured, in turn.
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (sender, receiver) = std::sync::mpsc::channel();
    let config = ExecutorsConfig { cpus: Some(vec![0]), idle: Idle::Poll, ..ExecutorsConfig::new(1) };
    let Arguments { dir, logs, rounds } = arguments;
    let mut executors = Executors::start(config, move |_| {
        let (sender, dir, logs) = (sender.clone(), dir.clone(), logs.clone());
        async move {
            // Who waits for it is told of its end by the channel, too.
            let _ = sender.send(measure(&dir, &logs, rounds).await);
        }
    })?;
    let figures = receiver.recv().context("the shard ended early")??;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(executors.stopped())?;
    println!("| logs | way | time until all is durable | appends/s |");
    println!("|---|---|---|---|");
    for (logs, way, figure) in figures {
        let rate = logs as f64 / (figure.median().unwrap_or(f64::NAN) / 1e3);
        println!("| {logs} | {way} | {figure} | {} |", three_digits(rate));
    }
    Ok(())
}

/// What a log is given at a time: 4 KiB, as a small append takes on disk.
const APPEND: usize = BLOCK;

/// Appends of a log before it begins anew: so long is what is written ahead.
const AHEAD: u64 = 4;

/// Writes that are on their way at once.
const AT_ONCE: usize = 256;

/// Bytes of the journal that one write takes, as a window does.
const WINDOW: usize = 1 << 20;

/// How to make an append to each of the logs durable.
#[derive(Clone, Copy)]
enum Way {
    /// A durable write to each, which makes its file longer.
    Growing,
    /// A durable write to each, in space that was written before.
    FlushOfEach,
    /// Writes to all, and then one flush, which is the device's.
    FlushOfDevice,
    /// All of them into one file, one after the other.
    Journal,
    /// The same, and then what the journal is there to put off: writes to all, and a flush before it is emptied.
    JournalDrained,
}

impl Way {
    const ALL: [Way; 5] =
        [Way::Growing, Way::FlushOfEach, Way::FlushOfDevice, Way::Journal, Way::JournalDrained];

    fn name(self) -> &'static str {
        match self {
            Way::Growing => "a durable write to each, at its end",
            Way::FlushOfEach => "a durable write to each, prewritten",
            Way::FlushOfDevice => "writes, then one flush of the device",
            Way::Journal => "one journal",
            Way::JournalDrained => "one journal, drained",
        }
    }
}

/// The rows of the table: how many logs, which way, how long.
type Rows = Vec<(usize, &'static str, Figure)>;

async fn measure(dir: &Path, logs: &[usize], rounds: usize) -> Result<Rows> {
    let mut figures = Figures::default();
    for count in logs {
        if *count == 0 {
            bail!("--logs 0: at least one");
        }
        let disk = Disk::create(dir, *count).await.with_context(|| format!("making {}", dir.display()))?;
        for round in 0..rounds {
            eprintln!("{count} logs, round {} of {rounds}", round + 1);
            for way in Way::ALL {
                let took = disk.append(way, round as u64).await.with_context(|| way.name())?;
                figures.add(&row(*count, way), "ms", took.as_secs_f64() * 1e3);
            }
        }
        drop(disk);
        file::remove_dir_all(dir).await?;
    }
    let rows = logs.iter().flat_map(|count| Way::ALL.map(|way| (*count, way)));
    let figure = |count, way| figures.get(&row(count, way)).cloned().context("it was measured");
    rows.map(|(count, way)| Ok((count, way.name(), figure(count, way)?))).collect()
}

fn row(count: usize, way: Way) -> String {
    format!("{count} {}", way.name())
}

/// The files: one for each log, and a journal.
struct Disk {
    logs: Vec<File>,
    /// Files that nothing was written ahead in.
    growing: Vec<File>,
    journal: File,
}

impl Disk {
    async fn create(dir: &Path, count: usize) -> io::Result<Disk> {
        file::create_dir_all(dir).await?;
        let path = |kind: &str, log: usize| dir.join(format!("{kind}-{log}"));
        let made = async |kind: &str, ahead: u64| -> io::Result<Vec<File>> {
            let files = (0..count).map(|log| prewritten(path(kind, log), ahead));
            stream::iter(files).buffered(AT_ONCE).try_collect().await
        };
        let journal_len = (count * APPEND).next_multiple_of(WINDOW) as u64;
        Ok(Disk {
            logs: made("log", AHEAD * APPEND as u64).await?,
            growing: made("growing", 0).await?,
            journal: prewritten(dir.join("journal"), journal_len).await?,
        })
    }

    async fn append(&self, way: Way, round: u64) -> io::Result<Duration> {
        let began = Instant::now();
        match way {
            Way::Growing => write_all(&self.growing, round * APPEND as u64, Sync::Data).await?,
            Way::FlushOfEach => write_all(&self.logs, round % AHEAD * APPEND as u64, Sync::Data).await?,
            Way::FlushOfDevice => self.flush_at_once(round).await?,
            Way::Journal => self.write_journal().await?,
            Way::JournalDrained => {
                self.write_journal().await?;
                self.flush_at_once(round).await?;
            }
        }
        Ok(began.elapsed())
    }

    async fn flush_at_once(&self, round: u64) -> io::Result<()> {
        write_all(&self.logs, round % AHEAD * APPEND as u64, Sync::No).await?;
        self.logs[0].sync_data().await
    }

    /// One write at a time, as a log has them: each proves that the one before it was flushed.
    async fn write_journal(&self) -> io::Result<()> {
        let mut at = 0;
        let end = self.logs.len() * APPEND;
        while at < end {
            let len = WINDOW.min(end - at);
            self.journal.write_at(filled(len), at as u64, Sync::Data).await?;
            at += len;
        }
        Ok(())
    }
}

async fn write_all(files: &[File], at: u64, sync: Sync) -> io::Result<()> {
    let data = filled(APPEND);
    let writes = files.iter().map(|file| file.write_at(data.clone(), at, sync));
    stream::iter(writes).buffer_unordered(AT_ONCE).try_collect().await
}

async fn prewritten(path: PathBuf, len: u64) -> io::Result<File> {
    let file = File::open(&path, OpenOptions::CREATE_NEW).await?;
    let mut at = 0;
    while at < len {
        let piece = (WINDOW as u64).min(len - at);
        file.write_at(filled(piece as usize), at, Sync::Data).await?;
        at += piece;
    }
    Ok(file)
}

fn filled(len: usize) -> Bytes {
    let mut buffer = AlignedBuf::with_capacity(len);
    buffer.extend_from_slice(&vec![7; len]);
    buffer.freeze()
}
