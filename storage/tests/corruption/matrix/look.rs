//! Opens a data directory as a broker does and reads all there is, in more than one way.
//!
//! Says what was seen and judges nothing.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use corrente_protocol::ids::{Offset, ShardId};
use corrente_protocol::record_batch::RecordBatches;
use corrente_storage::{Health, Log, LogId, NodeLayout, ReadError, Storage, StorageConfig};

use super::common::data_dir;
use super::grown::settings;

/// The most a batch of a grown log decompresses to.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Bytes read at one go, on the way from the beginning to the end.
const READ_BYTES: usize = 40 * 1024;

/// A record but for its offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub timestamp_ms: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
}

/// Records by their offsets.
pub type Records = BTreeMap<u64, Record>;

/// What a search by time came to: offset and timestamp of a record; an error is damage.
pub type Found = Result<Option<(u64, i64)>, String>;

/// What is to be asked of one log, besides everything.
#[derive(Clone, Debug, Default)]
pub struct Questions {
    /// What extents hold: asked for, one by one, where a longer read was refused.
    pub extents: Vec<Range<u64>>,
    /// Asked for one by one.
    pub offsets: Vec<u64>,
    /// Looked for.
    pub timestamps: Vec<i64>,
}

/// What a start and the reads after it came to.
#[derive(Debug)]
pub enum Seen {
    /// The node does not start, and says why.
    Refused(String),
    Started(BTreeMap<LogId, LogSeen>),
}

/// What became of one log.
#[derive(Debug)]
pub enum LogSeen {
    /// It is not opened, and that is said.
    Refused(String),
    Opened(Opened),
}

/// What can be seen of a log that was opened.
#[derive(Debug, Default)]
pub struct Opened {
    /// Why it is in quarantine, if it is.
    pub quarantined: Option<String>,
    pub start: u64,
    pub end: u64,
    /// Where the log ended by the checkpoint that the start could read.
    pub checkpointed: u64,
    pub records: Records,
    /// Ranges that reads refused: from, to, why.
    pub damaged: Vec<(u64, u64, String)>,
    /// What was found for each timestamp.
    pub found: Vec<(i64, Found)>,
    /// The first of the latest records.
    pub latest: Option<Found>,
    /// What should never happen, whatever is on the disk.
    pub strange: Vec<String>,
}

/// A data directory that was opened.
pub struct Directory {
    layout: NodeLayout,
    storage: Rc<Storage>,
    /// The logs, or why they could not be opened.
    logs: BTreeMap<LogId, Result<Log, String>>,
    /// What the start had to go by.
    checkpointed: BTreeMap<LogId, u64>,
}

impl Directory {
    /// Opens the directory and every log in it, writes the first checkpoint and retires the old ones.
    pub async fn open() -> Result<Directory, String> {
        let dirs = [data_dir()];
        let layout = NodeLayout::open(&dirs).await.map_err(|error| error.to_string())?;
        let mut config = StorageConfig::new(dirs.to_vec(), ShardId(0), layout.generation());
        settings(&mut config);
        let storage = Storage::open(config).await.map_err(|error| error.to_string())?;
        let mut logs = BTreeMap::new();
        for lost in layout.lost() {
            storage.keep_closed(lost);
            logs.insert(lost.id, Err("no data directory holds it".to_owned()));
        }
        let mut checkpointed = BTreeMap::new();
        for found in layout.logs() {
            checkpointed.insert(found.id, found.checkpoint.map_or(0, |entry| entry.flushed_offset.0));
            let opened = storage.open_log(found.clone()).await;
            logs.insert(found.id, opened.map(|(log, _)| log).map_err(|error| error.to_string()));
        }
        storage.checkpoint_now().await.map_err(|error| error.to_string())?;
        let retired = layout.retire_old_generations(&[ShardId(0)]).await;
        assert!(retired.map_err(|error| error.to_string())?, "a checkpoint was just written");
        Ok(Directory { layout, storage, logs, checkpointed })
    }

    /// A log that takes records.
    pub fn sound_log(&self, id: LogId) -> Option<&Log> {
        let log = self.logs.get(&id)?.as_ref().ok()?;
        (log.health() == Health::Sound).then_some(log)
    }

    /// The storage the logs belong to.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Asks everything of every log.
    pub async fn see(&self, questions: &BTreeMap<LogId, Questions>) -> Seen {
        let mut seen = BTreeMap::new();
        for (id, log) in &self.logs {
            let of_log = match log {
                Ok(log) => {
                    let mut opened = see_log(log, &questions.get(id).cloned().unwrap_or_default()).await;
                    opened.checkpointed = self.checkpointed[id];
                    LogSeen::Opened(opened)
                }
                Err(reason) => LogSeen::Refused(reason.clone()),
            };
            seen.insert(*id, of_log);
        }
        Seen::Started(seen)
    }

    /// Ends in good order.
    pub async fn close(self) {
        self.storage.close().await.expect("a checkpoint");
        drop(self.layout);
    }
}

async fn see_log(log: &Log, questions: &Questions) -> Opened {
    let mut opened = Opened {
        quarantined: match log.health() {
            Health::Quarantined(reason) => Some(reason.to_string()),
            Health::Sound | Health::Fenced(_) => None,
        },
        start: log.log_start_offset().0,
        end: log.flushed_offset().0,
        ..Opened::default()
    };
    if let Health::Fenced(reason) = log.health() {
        opened.strange.push(format!("fenced: {reason}"));
    }
    opened.read_through(log, questions).await;
    let within = opened.start..opened.end;
    for offset in questions.offsets.iter().filter(|offset| within.contains(offset)) {
        opened.read_one(log, *offset).await;
    }
    for at_ms in &questions.timestamps {
        let found = log.offset_for_timestamp(*at_ms, log.flushed_offset()).await;
        let found = found.map(|found| found.map(|found| (found.offset.0, found.timestamp_ms)));
        opened.found.push((*at_ms, found.map_err(|error| error.to_string())));
    }
    let latest = log.offset_of_max_timestamp(log.flushed_offset()).await;
    let latest = latest.map(|latest| latest.map(|latest| (latest.offset.0, latest.timestamp_ms)));
    opened.latest = Some(latest.map_err(|error| error.to_string()));
    opened
}

impl Opened {
    /// Reads from the beginning to the end. What is refused is asked for again, extent by extent.
    async fn read_through(&mut self, log: &Log, questions: &Questions) {
        let mut next = self.start;
        while next < self.end {
            next = match self.read(log, next, READ_BYTES).await {
                Ok(after) => after,
                Err(refused_to) => {
                    let refused = next + 1..refused_to.min(self.end);
                    for extent in questions.extents.iter().filter(|extent| refused.contains(&extent.start)) {
                        self.read_extent(log, extent).await;
                    }
                    refused_to
                }
            };
        }
    }

    async fn read_extent(&mut self, log: &Log, extent: &Range<u64>) {
        let mut next = extent.start;
        while next < extent.end {
            next = match self.read(log, next, READ_BYTES).await {
                Ok(after) | Err(after) => after,
            };
        }
    }

    async fn read_one(&mut self, log: &Log, offset: u64) {
        // What is refused has been taken note of.
        let _ = self.read(log, offset, 1).await;
    }

    /// Reads from an offset on; says where what was read, or refused, ends.
    async fn read(&mut self, log: &Log, from: u64, max_bytes: usize) -> Result<u64, u64> {
        let chunks = match log.read(Offset(from), Offset(self.end), max_bytes).await {
            Ok(chunks) => chunks,
            Err(ReadError::Damaged { start, end, reason }) => {
                if !(start.0..end.0).contains(&from) {
                    self.strange.push(format!("{from} was asked for and {start} to {end} refused"));
                }
                self.damaged.push((start.0, end.0, reason.to_string()));
                return Err(end.0.max(from + 1));
            }
            Err(error) => {
                self.strange.push(format!("offset {from}: {error}"));
                return Err(self.end);
            }
        };
        let mut next = from;
        for batch in chunks.into_iter().flat_map(RecordBatches::new) {
            match batch {
                Ok(batch) if batch.header().end_offset().0 > next => {
                    next = batch.header().end_offset().0;
                    match batch.records(BATCH_BYTES_MAX) {
                        Ok(records) => records.for_each(|record| self.take(record, next)),
                        Err(error) => self.strange.push(format!("a batch up to {next} was served: {error}")),
                    }
                }
                Ok(batch) => {
                    let end = batch.header().end_offset();
                    self.strange.push(format!("a batch up to {end} was served behind {next}"));
                }
                Err(error) => self.strange.push(format!("bytes behind {next} were served: {error}")),
            }
        }
        if next == from {
            self.strange.push(format!("nothing was served at {from}, and no reason given"));
            return Err(self.end);
        }
        Ok(next)
    }

    fn take<E: std::fmt::Display>(
        &mut self,
        record: Result<corrente_protocol::record::RecordView, E>,
        batch_end: u64,
    ) {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                return self.strange.push(format!("a record below {batch_end} was served: {error}"));
            }
        };
        let offset = record.offset.0;
        if offset < self.start {
            return;
        }
        let record = Record { timestamp_ms: record.timestamp_ms, key: record.key, value: record.value };
        if let Some(before) = self.records.insert(offset, record.clone())
            && before != record
        {
            self.strange.push(format!("offset {offset} reads as this and as that"));
        }
    }
}
