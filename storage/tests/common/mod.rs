//! What the stories share: a world with one node, logs in it, and a way to hurt its disk.

#![allow(dead_code, reason = "each story uses a part of it")]

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use corrente_protocol::compression::Compression;
use corrente_protocol::ids::{LeaderEpoch, Offset, PartitionIndex, ShardId, TopicId, TopicPartition};
use corrente_protocol::record_batch::{BatchLimits, RecordBatchBuilder, RecordBatches, validate_batches};
use corrente_runtime::buffer::BLOCK;
use corrente_runtime::executor::yield_now;
use corrente_runtime::file::{self, File, OpenOptions, Sync};
use corrente_runtime::random::random_u64;
use corrente_runtime::sim::{Node, World, WorldConfig};
use corrente_runtime::timer::{self, wall_clock_ms};
use corrente_storage::{
    Appended, CompactionPolicy, Health, Log, LogId, LogPolicy, NodeLayout, ReadError, Storage, StorageConfig,
};

pub const EPOCH: LeaderEpoch = LeaderEpoch(1);
const LIMIT: Duration = Duration::from_secs(600);

pub fn log_id(partition: u32) -> LogId {
    TopicPartition { topic: TopicId([9; 16]), partition: PartitionIndex(partition) }
}

pub fn data_dir() -> PathBuf {
    PathBuf::from("/data")
}

/// The directory of a log.
pub fn log_dir(partition: u32) -> PathBuf {
    data_dir().join("topics").join(log_id(partition).topic.to_string()).join(partition.to_string())
}

pub fn world(seed: u64) -> (World, Node) {
    let world = World::new(seed, WorldConfig::default());
    let node = world.node("north", [10, 0, 0, 1]);
    (world, node)
}

/// Runs `make` on the node to its end.
pub fn run<T: 'static, F: Future<Output = T> + 'static>(
    world: &World,
    node: &Node,
    make: impl FnOnce() -> F + 'static,
) -> T {
    match world.run(node, LIMIT, make) {
        Ok(output) => output,
        Err(error) => panic!("{error}"),
    }
}

/// The locks of the node, one shard's storage, and its logs as they were recovered.
pub struct Opened {
    pub layout: NodeLayout,
    pub storage: Rc<Storage>,
    pub logs: Vec<Log>,
}

/// Settings small enough that every mechanism comes into play.
pub fn small(config: &mut StorageConfig) {
    config.segment_bytes = 64 * 1024;
    config.window_bytes_max = 16 * 1024;
    config.append_bytes_max = 32 * 1024;
    config.tail_ring_bytes = 32 * 1024;
    config.read_ahead_bytes = 64 * 1024;
    config.checkpoint_bytes = 256 * 1024;
    config.idle_after = Duration::from_secs(1);
}

/// Opens the node's layout and every log in it, all of them sound.
pub async fn open(change: impl FnOnce(&mut StorageConfig)) -> Opened {
    let opened = open_as_it_is(change).await;
    for log in &opened.logs {
        assert_eq!(log.health(), Health::Sound, "{log:?}");
    }
    opened
}

/// Opens the node's layout and every log in it, whatever befell them.
pub async fn open_as_it_is(change: impl FnOnce(&mut StorageConfig)) -> Opened {
    let layout = NodeLayout::open(&[data_dir()]).await.expect("the layout opens");
    let mut config = StorageConfig::new(vec![data_dir()], ShardId(0), layout.generation());
    small(&mut config);
    change(&mut config);
    let storage = Storage::open(config).await.expect("the storage opens");
    let mut logs = Vec::new();
    for found in layout.logs().to_vec() {
        let (log, _) = storage.open_log(found).await.expect("the log is recovered");
        logs.push(log);
    }
    storage.checkpoint_now().await.expect("the first checkpoint");
    assert!(layout.retire_old_generations(&[ShardId(0)]).await.expect("old checkpoints go"));
    Opened { layout, storage, logs }
}

/// Opens everything and makes one log if there is none.
pub async fn open_one(change: impl FnOnce(&mut StorageConfig)) -> (Opened, Log) {
    let opened = open(change).await;
    let log = match opened.logs.first() {
        Some(log) => log.clone(),
        None => opened.storage.create_log(log_id(0), 0).await.expect("a new log"),
    };
    (opened, log)
}

/// Opens everything and gives the first log, which is damaged.
pub async fn open_damaged() -> (Opened, Log) {
    let opened = open_as_it_is(|_| {}).await;
    let log = opened.logs[0].clone();
    assert!(matches!(log.health(), Health::Quarantined(_)), "{log:?} is {:?}", log.health());
    (opened, log)
}

/// One batch of these values.
pub fn batch(values: &[impl AsRef<[u8]>]) -> Bytes {
    let mut builder = RecordBatchBuilder::new(Compression::None);
    for value in values {
        builder.push(1_790_000_000_000, None, Some(value.as_ref()), &[]).expect("small");
    }
    builder.build()
}

/// One batch of records with a key, a value or none, and a timestamp each.
pub fn keyed_batch(compression: Compression, records: &[(&str, Option<&str>, i64)]) -> Bytes {
    let mut builder = RecordBatchBuilder::new(compression);
    for (key, value, timestamp_ms) in records {
        let value = value.map(str::as_bytes);
        builder.push(*timestamp_ms, Some(key.as_bytes()), value, &[]).expect("small");
    }
    builder.build()
}

/// A record as a test compares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub offset: u64,
    pub timestamp_ms: i64,
    pub key: String,
    pub value: Option<String>,
}

/// Reads every record from `from` on, in reads of `max_bytes`, whatever offsets are missing.
pub async fn read_seen(log: &Log, from: Offset, max_bytes: usize) -> Result<Vec<Seen>, ReadError> {
    let mut seen = Vec::new();
    let mut next = from;
    while next < log.flushed_offset() {
        let chunks = log.read(next, log.flushed_offset(), max_bytes).await?;
        assert!(!chunks.is_empty(), "nothing was read at {next}, the log ends at {}", log.flushed_offset());
        for batch in chunks.into_iter().flat_map(RecordBatches::new) {
            let batch = batch.expect("whole batches with a good checksum");
            assert!(batch.header().end_offset() > next, "a batch below {next}");
            for record in batch.records(1 << 20).expect("records") {
                let record = record.expect("a record");
                if record.offset >= from {
                    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("text");
                    seen.push(Seen {
                        offset: record.offset.0,
                        timestamp_ms: record.timestamp_ms,
                        key: record.key.map(text).unwrap_or_default(),
                        value: record.value.map(text),
                    });
                }
            }
            next = batch.header().end_offset();
        }
    }
    Ok(seen)
}

/// Appends these bytes, waits for the flush and settles the log up to there.
pub async fn append_settled(log: &Log, bytes: &Bytes) -> Appended {
    let appended = append_bytes(log, EPOCH, bytes).await.expect("appended");
    log.flushed_past(Offset(appended.end_offset.0 - 1)).await.expect("flushed");
    log.settle(log.flushed_offset());
    appended
}

pub async fn append(log: &Log, values: &[impl AsRef<[u8]>]) -> Appended {
    append_bytes(log, EPOCH, &batch(values)).await.expect("appended")
}

pub async fn append_bytes(
    log: &Log,
    epoch: LeaderEpoch,
    bytes: &[u8],
) -> Result<Appended, corrente_storage::AppendError> {
    let batches = validate_batches(bytes, &BatchLimits { batch_bytes_max: 1 << 20 }).expect("valid");
    log.append(epoch, bytes, &batches).await
}

/// Appends and waits for the flush.
pub async fn append_flushed(log: &Log, values: &[impl AsRef<[u8]>]) -> Appended {
    let appended = append(log, values).await;
    let last = Offset(appended.end_offset.0 - 1);
    assert!(log.flushed_past(last).await.expect("flushed") >= appended.end_offset);
    appended
}

/// Reads `from..up_to` in steps of `max_bytes`; each record's offset and value.
pub async fn read(
    log: &Log,
    from: Offset,
    up_to: Offset,
    max_bytes: usize,
) -> Result<Vec<(u64, Bytes)>, ReadError> {
    let mut records = Vec::new();
    let mut next = from;
    while next < up_to {
        let chunks = log.read(next, up_to, max_bytes).await?;
        if chunks.is_empty() {
            // The batch at `next` goes on beyond `up_to`.
            assert!(up_to < log.flushed_offset(), "nothing was read at {next}, below {up_to}");
            break;
        }
        for chunk in chunks {
            for batch in RecordBatches::new(chunk) {
                let batch = batch.expect("whole batches with a good checksum");
                assert_eq!(batch.header().leader_epoch, log.last_epoch());
                for record in batch.records(1 << 20).expect("records") {
                    let record = record.expect("a record");
                    if record.offset >= from {
                        records.push((record.offset.0, record.value.expect("a value")));
                    }
                    next = Offset(record.offset.0 + 1);
                }
            }
        }
    }
    Ok(records)
}

/// Reads everything flushed, checks that offsets follow each other, and gives the values.
pub async fn read_all(log: &Log, max_bytes: usize) -> Vec<Bytes> {
    let start = log.log_start_offset();
    let records = read(log, start, log.flushed_offset(), max_bytes).await.expect("readable");
    for (expected, (offset, _)) in (start.0..).zip(&records) {
        assert_eq!(*offset, expected);
    }
    assert_eq!(start.0 + records.len() as u64, log.flushed_offset().0);
    records.into_iter().map(|(_, value)| value).collect()
}

/// A life of a log with all that can befall it: appends of many sizes and epochs, retention, compaction.
pub async fn live() {
    let compaction = CompactionPolicy {
        min_lag_ms: 0,
        max_lag_ms: u64::MAX,
        delete_retention_ms: 60_000,
        dirty_ratio_ppm: 0,
    };
    let (opened, log) = open_one(|_| {}).await;
    log.set_policy(LogPolicy { compaction: Some(compaction), ..LogPolicy::keep_all(32 * 1024) });
    let mut epoch = log.last_epoch();
    loop {
        if random_u64().is_multiple_of(20) {
            epoch = LeaderEpoch(epoch.0 + 1);
        }
        let key = format!("key-{}", random_u64() % 30);
        let value = "v".repeat(usize::try_from(random_u64() % 4000).unwrap());
        let batch = keyed_batch(Compression::None, &[(&key, Some(&value), wall_clock_ms())]);
        let Ok(appended) = append_bytes(&log, epoch, &batch).await else { return };
        match random_u64() % 40 {
            0 if random_u64().is_multiple_of(4) => {
                log.settle(log.flushed_offset());
                opened.storage.upkeep_now().await;
            }
            1 => {
                log.settle(log.flushed_offset());
                let (start, end) = (log.log_start_offset().0, log.flushed_offset().0);
                let keep_from = Offset(start + random_u64() % (end - start + 1));
                let _ = log.delete_records_before(keep_from).await;
            }
            2 => timer::sleep(Duration::from_millis(random_u64() % 4)).await,
            3..10 => {
                let _ = log.flushed_past(Offset(appended.end_offset.0 - 1)).await;
            }
            _ => yield_now().await,
        }
    }
}

/// The names in a directory that end in `suffix`.
pub async fn names(dir: &Path, suffix: &str) -> Vec<String> {
    let entries = file::read_dir(dir).await.expect("the directory is there");
    entries.into_iter().map(|entry| entry.name).filter(|name| name.ends_with(suffix)).collect()
}

/// Flips bits of one byte of a file.
pub async fn rot(path: &Path, at: u64) {
    let file = File::open(path, OpenOptions::READ_WRITE).await.expect("there");
    let block = at - at % BLOCK as u64;
    let mut bytes = file.read_at(block, BLOCK).await.expect("readable");
    bytes[usize::try_from(at - block).unwrap()] ^= 0x5A;
    bytes.truncate(bytes.len());
    assert_eq!(bytes.len(), BLOCK, "rot in a whole block");
    file.write_at(bytes.freeze(), block, Sync::Data).await.expect("writable");
    file.close().await.expect("closed");
}
