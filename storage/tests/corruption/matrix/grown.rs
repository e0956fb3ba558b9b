//! Data directories with known content, grown in a simulated world: several segments, a rewritten one among them, both
//! checkpoint files, a log start, indexes, extents of every size, some of them beyond the checkpoint.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corrente_protocol::compression::Compression;
use corrente_protocol::ids::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition};
use corrente_protocol::record_batch::RecordBatchBuilder;
use corrente_runtime::buffer::BLOCK;
use corrente_runtime::file;
use corrente_runtime::sim::{Node, World, WorldConfig};
use corrente_runtime::timer::{self, wall_clock_ms};
use corrente_storage::{CompactionPolicy, Log, LogId, LogPolicy, NodeLayout, StorageConfig};

use super::common::{append_bytes, data_dir, log_dir, log_id, names, open, small};
use super::image::{Block, Image};
use super::look::{Questions, Record, Records};
use super::map::{Extent, Kind, Map};

/// The log that is damaged most.
pub fn main_log() -> LogId {
    log_id(0)
}

/// A log at rest, of one record.
fn quiet_log() -> LogId {
    log_id(1)
}

/// The log of the metadata.
pub fn metadata_log() -> LogId {
    TopicPartition { topic: TopicId::METADATA, partition: PartitionIndex(0) }
}

/// The directory of a log.
pub fn dir_of(id: LogId) -> PathBuf {
    data_dir().join("topics").join(id.topic.to_string()).join(id.partition.to_string())
}

const SEGMENT: u64 = 48 * 1024;
/// A removed segment is worth keeping for another life from here on.
const RECYCLED_SEGMENT: u64 = 1024 * 1024;
/// As many as there will be segments in them.
const RECYCLED_SEGMENTS: usize = 10;
/// More deltas than the first checkpoint file has room for.
const CHECKPOINTS: usize = 270;
const EAGER: CompactionPolicy =
    CompactionPolicy { min_lag_ms: 0, max_lag_ms: u64::MAX, delete_retention_ms: 60_000, dirty_ratio_ppm: 0 };

/// How every directory of the matrix is opened: nothing happens by itself.
pub fn settings(config: &mut StorageConfig) {
    small(config);
    config.segment_bytes = SEGMENT;
    config.tail_ring_bytes = 1;
    config.checkpoint_interval = Duration::from_secs(3600);
    config.checkpoint_bytes = u64::MAX;
    config.idle_after = Duration::from_secs(3600);
    config.upkeep_interval = Duration::from_secs(3600);
}

/// What segments are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// New files.
    Fresh,
    /// Files that held another part of the log before: what is left of it lies behind the end.
    Recycled,
}

/// How the directory was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// In good order, twice: there is one checkpoint file, and everything lies below it.
    Closed,
    /// By a power cut, with extents beyond the checkpoint.
    Cut,
}

/// What is known of one log.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub start: u64,
    /// Everything below was acknowledged.
    pub end: u64,
    /// Everything below stands in the checkpoint.
    pub checkpointed: u64,
    /// What has to be there, and nothing else.
    pub records: Records,
    pub extents: Vec<Extent>,
}

/// A directory and all that is known of it.
#[derive(Debug)]
pub struct Grown {
    pub name: String,
    pub image: Arc<Image>,
    pub map: Map,
    pub logs: BTreeMap<LogId, Known>,
    /// What blocks held before, oldest first, as often as they were looked at.
    pub earlier_blocks: BTreeMap<Block, Vec<Vec<u8>>>,
    /// What whole files held before.
    pub earlier_files: BTreeMap<PathBuf, Vec<Vec<u8>>>,
    /// What files held in an earlier life.
    pub earlier_lives: BTreeMap<PathBuf, Vec<u8>>,
}

/// A world whose power cuts leave what was flushed and nothing else.
pub fn forgetful_world(seed: u64) -> (World, Node) {
    let mut config = WorldConfig::default();
    config.crash.keep_chance = Some(0.0);
    let world = World::new(seed, config);
    let node = world.node("north", [10, 0, 0, 1]);
    (world, node)
}

/// Runs `make` on the node to its end.
pub fn run<T: 'static, F: Future<Output = T> + 'static>(
    world: &World,
    node: &Node,
    make: impl FnOnce() -> F + 'static,
) -> T {
    world.run(node, Duration::from_secs(7200), make).unwrap_or_else(|error| panic!("{error}"))
}

/// Grows a directory.
pub fn grow(seed: u64, files: Files, left: Left) -> Grown {
    let (world, node) = forgetful_world(seed);
    let history = Rc::new(RefCell::new(History::new(seed)));
    let told = history.clone();
    run(&world, &node, move || async move { live(&told, files, left).await });
    match left {
        // The second start leaves one checkpoint file.
        Left::Closed => run(&world, &node, || async {
            let opened = open(settings).await;
            opened.storage.close().await.expect("a checkpoint");
        }),
        Left::Cut => node.crash(),
    }
    let image = run(&world, &node, Image::take);
    let checkpointed = run(&world, &node, || async {
        let layout = NodeLayout::open(&[data_dir()]).await.expect("the layout opens");
        let ends = layout
            .logs()
            .iter()
            .map(|log| (log.id, log.checkpoint.map_or(0, |entry| entry.flushed_offset.0)));
        ends.collect::<BTreeMap<LogId, u64>>()
    });
    let map = Map::draw(&image);
    drop((world, node));
    let mut history = Rc::into_inner(history).expect("the world is gone").into_inner();
    history.versions.forget_present(&image);
    let earlier_lives = history.earlier_lives(&map);
    let known = history.logs.into_iter().map(|(id, told)| {
        let known = Known {
            start: told.start,
            end: told.appended.last_key_value().map_or(0, |(offset, _)| offset + 1),
            checkpointed: checkpointed[&id],
            records: told.appended.into_iter().filter(|(offset, _)| *offset >= told.start).collect(),
            extents: map.extents_of(&dir_of(id)).into_iter().cloned().collect(),
        };
        (id, known)
    });
    let grown = Grown {
        name: format!("{files:?}-{left:?}").to_lowercase(),
        logs: known.collect(),
        image: Arc::new(image),
        map,
        earlier_blocks: history.versions.blocks,
        earlier_files: history.versions.files,
        earlier_lives,
    };
    grown.assert_holds_everything(files, left);
    grown
}

impl Grown {
    /// A matrix over less would prove less.
    fn assert_holds_everything(&self, files: Files, left: Left) {
        let count = |kind| self.map.files.values().filter(|file| file.kind == kind).count();
        let everywhere = [Kind::Rewritten, Kind::Metadata, Kind::Index, Kind::Checkpoint, Kind::LogStart];
        for kind in everywhere {
            assert!(count(kind) > 0, "no {kind} in {}", self.name);
        }
        assert!(count(Kind::Segment) > 2, "{} appended segments in {}", count(Kind::Segment), self.name);
        assert_eq!(count(Kind::OlderCheckpoint), usize::from(left == Left::Cut), "in {}", self.name);
        assert_eq!(self.earlier_lives.is_empty(), files == Files::Fresh, "in {}", self.name);
        let Known { end, checkpointed, .. } = self.logs[&main_log()];
        assert_eq!(end > checkpointed, left == Left::Cut, "{end}, {checkpointed} in the checkpoint");
    }

    /// What to ask of each log; the draw decides what is asked at random.
    pub fn questions(&self, rng: &mut fastrand::Rng) -> BTreeMap<LogId, Questions> {
        let of_log = |(id, known): (&LogId, &Known)| {
            let offsets: Vec<u64> = known.records.keys().copied().collect();
            let drawn = |rng: &mut fastrand::Rng| offsets[rng.usize(..offsets.len())];
            let questions = Questions {
                extents: known
                    .extents
                    .iter()
                    .map(|extent| extent.offsets.start.max(known.start)..extent.offsets.end)
                    .collect(),
                offsets: (0..8).map(|_| drawn(rng)).collect(),
                timestamps: (0..3).map(|_| known.records[&drawn(rng)].timestamp_ms).collect(),
            };
            (*id, questions)
        };
        self.logs.iter().map(of_log).collect()
    }
}

/// What was done to a directory while it grew.
struct History {
    rng: fastrand::Rng,
    logs: BTreeMap<LogId, Told>,
    versions: Versions,
    /// The files that were removed, whole, in the order in which they wait to be taken into use again.
    first_lives: Vec<Vec<u8>>,
    /// The segments that were made since, in order.
    second_lives: Vec<PathBuf>,
}

#[derive(Default)]
struct Told {
    appended: Records,
    start: u64,
}

impl History {
    fn new(seed: u64) -> History {
        History {
            rng: fastrand::Rng::with_seed(seed),
            logs: BTreeMap::new(),
            versions: Versions::default(),
            first_lives: Vec::new(),
            second_lives: Vec::new(),
        }
    }

    /// The first lives of the files that still are what they became then.
    fn earlier_lives(&self, map: &Map) -> BTreeMap<PathBuf, Vec<u8>> {
        // The first segment in the list is the one that was there already.
        let lives = self.second_lives.iter().skip(1).zip(&self.first_lives);
        let appended = |path: &Path| map.files.get(path).is_some_and(|file| file.kind == Kind::Segment);
        lives.filter(|(path, _)| appended(path)).map(|(path, life)| (path.clone(), life.clone())).collect()
    }
}

/// What blocks and files held, in order.
#[derive(Default)]
struct Versions {
    blocks: BTreeMap<Block, Vec<Vec<u8>>>,
    files: BTreeMap<PathBuf, Vec<Vec<u8>>>,
}

impl Versions {
    fn note_blocks(&mut self, image: &Image) {
        for (path, content) in &image.files {
            for (number, bytes) in content.chunks(BLOCK).enumerate() {
                let versions = self.blocks.entry(Block { path: path.clone(), number }).or_default();
                if versions.last().is_none_or(|last| last != bytes) {
                    versions.push(bytes.to_vec());
                }
            }
        }
    }

    fn note_files(&mut self, image: &Image) {
        for (path, content) in &image.files {
            let versions = self.files.entry(path.clone()).or_default();
            if versions.last().is_none_or(|last| last != content) {
                versions.push(content.clone());
            }
        }
    }

    /// What the image holds is no earlier version, and what is gone has none.
    fn forget_present(&mut self, image: &Image) {
        self.blocks.retain(|block, versions| {
            let present = image.block(block);
            versions.retain(|version| version != present);
            !present.is_empty() && !versions.is_empty()
        });
        self.files.retain(|path, versions| {
            let present = image.files.get(path);
            versions.retain(|version| Some(version) != present);
            present.is_some() && !versions.is_empty()
        });
    }
}

type Shared = Rc<RefCell<History>>;

async fn live(history: &Shared, files: Files, left: Left) {
    let opened = open(settings).await;
    let mut logs = BTreeMap::new();
    for id in [main_log(), quiet_log(), metadata_log()] {
        let log = opened.storage.create_log(id, 0).await.expect("a new log");
        history.borrow_mut().logs.insert(id, Told::default());
        logs.insert(id, log);
    }
    let main = &logs[&main_log()];
    main.set_policy(LogPolicy::keep_all(SEGMENT));
    let grower = |log: &Log| Grower { history: history.clone(), log: log.clone(), epoch: LeaderEpoch(1) };
    grower(&logs[&quiet_log()]).append(40, 1, 1).await;
    if files == Files::Recycled {
        grower(main).live_before().await;
    }
    // Both checkpoint files, and in the older one a segment that is gone by the end.
    grower(main).append_drawn(60 * 1024).await;
    opened.storage.checkpoint_now().await.expect("a checkpoint");
    let metadata = grower(&logs[&metadata_log()]);
    for _ in 0..CHECKPOINTS {
        metadata.append(30, 1, 1).await;
        opened.storage.checkpoint_now().await.expect("a checkpoint");
    }
    note(history).await;
    let after_epoch = Grower { epoch: LeaderEpoch(2), ..grower(main) };
    after_epoch.append_drawn(150 * 1024).await;
    after_epoch.compact(&opened.storage).await;
    note(history).await;
    after_epoch.append_drawn(100 * 1024).await;
    after_epoch.delete_some().await;
    note(history).await;
    opened.storage.checkpoint_now().await.expect("a checkpoint");
    for (len, records) in [(40, 1), (40, 1), (900, 3), (200, 1), (3000, 3), (100, 1)] {
        after_epoch.append(len, records, 1).await;
        metadata.append(30, 1, 1).await;
        let image = Image::take().await;
        history.borrow_mut().versions.note_blocks(&image);
    }
    if left == Left::Closed {
        opened.storage.close().await.expect("a checkpoint");
    }
}

async fn note(history: &Shared) {
    let image = Image::take().await;
    let versions = &mut history.borrow_mut().versions;
    versions.note_blocks(&image);
    versions.note_files(&image);
}

struct Grower {
    history: Shared,
    log: Log,
    epoch: LeaderEpoch,
}

impl Grower {
    /// Fills segments that are large enough to be kept and removes them; what the log holds afterwards lies in their
    /// files.
    async fn live_before(&self) {
        self.log.set_policy(LogPolicy::keep_all(RECYCLED_SEGMENT));
        while names(&log_dir(0), ".seg").await.len() <= RECYCLED_SEGMENTS {
            let len = if self.draw(..8) == 0 { 30_000 } else { 1 + self.draw(..12_000) };
            self.append(len, 1, 1).await;
        }
        self.log.set_policy(LogPolicy::keep_all(SEGMENT));
        // The next window is the active segment's last, the one after it the first of another.
        self.append(100, 1, 1).await;
        self.append(100, 1, 1).await;
        let image = Image::take().await;
        let mut lives: Vec<Vec<u8>> = image.files.into_iter().filter_map(is_segment_of_main).collect();
        lives.truncate(RECYCLED_SEGMENTS);
        self.history.borrow_mut().first_lives = lives;
        self.delete_before(self.log.flushed_offset()).await;
        let pooled = file::read_dir(&data_dir().join("pool")).await.expect("a pool");
        assert_eq!(pooled.len(), RECYCLED_SEGMENTS, "files wait for another life");
        let newest = self.history.borrow_mut().second_lives.pop();
        self.history.borrow_mut().second_lives = newest.into_iter().collect();
    }

    /// Appends about this much: extents of many sizes, some of several batches, keys that come again.
    async fn append_drawn(&self, bytes: u64) {
        let until = self.log.size_bytes() + bytes;
        while self.log.size_bytes() < until {
            let (len, records) = match self.draw(..10) {
                0 => (8000, 1),
                1..4 => (1500, 1 + self.draw(..2)),
                _ => (1 + self.draw(..400), 1 + self.draw(..4)),
            };
            self.append(len, records, 1 + self.draw(..3)).await;
            if self.draw(..4) == 0 {
                let image = Image::take().await;
                self.history.borrow_mut().versions.note_blocks(&image);
            }
        }
    }

    /// Appends batches of records of about this length, all in one extent, and waits until they are flushed.
    async fn append(&self, len: usize, records: usize, batches: usize) {
        let mut bytes = Vec::new();
        let mut appended = Vec::new();
        for batch in 0..batches {
            let codec = if batch % 2 == 0 { Compression::None } else { Compression::Lz4 };
            let mut builder = RecordBatchBuilder::new(codec);
            for _ in 0..records {
                let record = self.draw_record(len);
                builder
                    .push(record.timestamp_ms, record.key.as_deref(), record.value.as_deref(), &[])
                    .expect("small");
                appended.push(record);
            }
            bytes.extend_from_slice(&builder.build());
        }
        let placed = append_bytes(&self.log, self.epoch, &bytes).await.expect("appended");
        self.log.flushed_past(Offset(placed.end_offset.0 - 1)).await.expect("flushed");
        self.log.settle(self.log.flushed_offset());
        // Space is made ready ahead meanwhile.
        timer::sleep(Duration::from_millis(5)).await;
        self.told(|told| told.appended.extend((placed.base_offset.0..).zip(appended)));
        self.watch_births().await;
    }

    fn told<T>(&self, change: impl FnOnce(&mut Told) -> T) -> T {
        let mut history = self.history.borrow_mut();
        change(history.logs.get_mut(&self.log.id()).expect("a log of the directory"))
    }

    async fn watch_births(&self) {
        if self.log.id() != main_log() {
            return;
        }
        let names = names(&log_dir(0), ".seg").await;
        let newest = log_dir(0).join(names.last().expect("a log has a segment"));
        let mut history = self.history.borrow_mut();
        if history.second_lives.last() != Some(&newest) {
            history.second_lives.push(newest);
        }
    }

    fn draw_record(&self, len: usize) -> Record {
        let rng = &mut self.history.borrow_mut().rng;
        let key = format!("key {}", rng.u32(..40));
        let mut value = vec![0; len];
        rng.fill(&mut value);
        let timestamp_ms = wall_clock_ms() - rng.i64(0..40);
        Record { timestamp_ms, key: Some(Bytes::from(key)), value: Some(Bytes::from(value)) }
    }

    fn draw(&self, range: std::ops::RangeTo<usize>) -> usize {
        self.history.borrow_mut().rng.usize(range)
    }

    /// Has the sealed segments rewritten: of each key in them the last record stays.
    async fn compact(&self, storage: &corrente_storage::Storage) {
        let compacting = LogPolicy { compaction: Some(EAGER), ..LogPolicy::keep_all(SEGMENT) };
        self.log.set_policy(compacting);
        storage.upkeep_now().await;
        assert_eq!(storage.upkeep_done().failures, 0, "compaction met trouble");
        self.log.set_policy(LogPolicy::keep_all(SEGMENT));
        let newest = names(&log_dir(0), ".seg").await.pop().expect("a log has a segment");
        let active: u64 = newest.trim_end_matches(".seg").parse().expect("a base offset");
        self.told(|Told { appended, .. }| {
            let sealed = appended.range(..active);
            let latest: BTreeMap<_, u64> =
                sealed.map(|(offset, record)| (record.key.clone(), *offset)).collect();
            appended.retain(|offset, record| *offset >= active || latest.get(&record.key) == Some(offset));
        });
    }

    /// Deletes the beginning of the log, two segments and a part of another.
    async fn delete_some(&self) {
        let names = names(&log_dir(0), ".seg").await;
        let base = |name: &String| name.trim_end_matches(".seg").parse::<u64>().expect("a base offset");
        let (third, fourth) = (base(&names[2]), base(&names[3]));
        self.delete_before(Offset(third + (fourth - third) / 3)).await;
    }

    async fn delete_before(&self, offset: Offset) {
        let start = self.log.delete_records_before(offset).await.expect("deleted");
        self.told(|told| told.start = start.0);
    }
}

fn is_segment_of_main((path, content): (PathBuf, Vec<u8>)) -> Option<Vec<u8>> {
    let ours = path.starts_with(log_dir(0)) && path.extension().is_some_and(|ending| ending == "seg");
    ours.then_some(content)
}
