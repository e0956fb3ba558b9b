//! Where a producer's records gather: one lane per partition, each with an open batch and full ones behind it.
//!
//! Shared between the callers, who encode records into the open batch, and the core, which takes the oldest batch
//! of a lane when nothing of that lane is in flight. It never decides when or where to send, and it never counts
//! room: a caller has acquired the room for a record before it is pushed, and the core frees it with the batch.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use corrente_protocol::compression::Compression;
use corrente_protocol::frame::Durability;
use corrente_protocol::ids::{PartitionIndex, TopicName};
use corrente_protocol::partitioner::partition_for_key;
use corrente_protocol::record_batch::{RecordBatchBuilder, UnsealedBatch};

use super::completion::{BatchCompletion, BatchReceipt, Share, Ticket};
use super::time::Micros;
use crate::error::{Error, ErrorKind};
use crate::record::Record;

/// How records without a key and without a partition of their own are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Partitioner {
    /// Stay with one partition until its batch is sent, then take the next: fewest, fullest batches.
    #[default]
    Sticky,
    /// A partition after the other, record by record.
    RoundRobin,
}

/// What a producer was configured to do.
#[derive(Debug, Clone)]
pub struct ProducerSettings {
    /// The topic all records go to.
    pub topic: TopicName,
    /// When the broker may acknowledge.
    pub durability: Durability,
    /// How long an open batch may wait for more records while nothing of its partition is in flight.
    pub linger: Duration,
    /// A batch is full at this many encoded bytes; a single larger record is a batch of its own.
    pub batch_bytes: usize,
    /// A batch is full at this many records.
    pub batch_records: u32,
    /// How batches are compressed.
    pub compression: Compression,
    /// A batch that is not acknowledged this long after its first record is given up.
    pub delivery_timeout: Duration,
    /// How records without a key are spread.
    pub partitioner: Partitioner,
    /// Batches carry sequences, so that each is appended once however often it is sent.
    pub idempotent: bool,
    /// No record may be larger, in bytes of key, value and headers.
    pub record_bytes_max: usize,
}

/// What became of a producer's records so far.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CloseReport {
    /// Records acknowledged.
    pub acked: u64,
    /// Records that failed, whether or not their tickets were kept.
    pub failed: u64,
    /// Why the first of them failed.
    pub first_error: Option<Error>,
}

/// A batch that takes no more records, and who waits for it.
#[derive(Debug)]
pub(crate) struct FullBatch {
    id: u64,
    pub(crate) unsealed: UnsealedBatch,
    pub(crate) records: u32,
    /// Room its records hold, in bytes.
    pub(crate) room: usize,
    pub(crate) opened_at: Micros,
    completion: Arc<BatchCompletion>,
}

struct OpenBatch {
    id: u64,
    builder: RecordBatchBuilder,
    records: u32,
    room: usize,
    opened_at: Micros,
    completion: Arc<BatchCompletion>,
}

/// One partition's batches, oldest first: `full`, then `open`.
#[derive(Default)]
struct Lane {
    full: VecDeque<FullBatch>,
    open: Option<OpenBatch>,
    /// The core was told of this lane and has not emptied it since.
    announced: bool,
    /// The open batch must not linger.
    urgent: bool,
    /// Encoded bytes of the last batch: what to make room for in the next.
    bytes_expected: usize,
}

struct Inner {
    lanes: Vec<Lane>,
    /// The partition of the next record without a key.
    keyless: usize,
    /// Lanes with work the core has not been told of.
    news: Vec<PartitionIndex>,
    /// Batches begun and not settled, by id.
    unsettled: BTreeMap<u64, Arc<BatchCompletion>>,
    next_id: u64,
    report: CloseReport,
    /// The first failure no flush has told of yet.
    untold: Option<Error>,
    refusal: Option<Error>,
    detached: bool,
}

/// See the module. Locks are held for the encoding of a record at most, or of a batch that just became full.
pub struct Accumulator {
    settings: ProducerSettings,
    news: AtomicBool,
    inner: Mutex<Inner>,
}

/// What [`Accumulator::push`] did.
#[derive(Debug)]
pub struct Pushed<T> {
    /// The promise for what was pushed.
    pub ticket: T,
    /// The core has to be told, with `Event::Wake`.
    pub wake: bool,
}

/// What stands at the head of a lane.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) opened_at: Micros,
    /// It need not linger: it is full, or a flush wants it.
    pub(crate) due: bool,
}

/// Room a record takes in the bounds of memory, in bytes: its content and a share of the bookkeeping.
pub fn room_of(record: &Record) -> usize {
    const OVERHEAD: usize = 24;
    record.size() + OVERHEAD
}

impl Accumulator {
    /// `start` spreads the first partitions of several producers; any number will do.
    pub(crate) fn new(settings: ProducerSettings, partitions: u32, start: u64) -> Accumulator {
        assert!(partitions > 0, "a topic has at least one partition");
        let keyless = usize::try_from(start % u64::from(partitions)).unwrap_or(0);
        Accumulator {
            settings,
            news: AtomicBool::new(false),
            inner: Mutex::new(Inner {
                lanes: (0..partitions).map(|_| Lane::default()).collect(),
                keyless,
                news: Vec::new(),
                unsettled: BTreeMap::new(),
                next_id: 0,
                report: CloseReport::default(),
                untold: None,
                refusal: None,
                detached: false,
            }),
        }
    }

    /// What the producer was configured to do.
    pub fn settings(&self) -> &ProducerSettings {
        &self.settings
    }

    /// Encodes the record into the open batch of its partition. `now` is asked for only when a batch begins;
    /// `wall_ms` is the timestamp of a record that has none.
    pub fn push(
        &self,
        record: &Record,
        wall_ms: i64,
        now: impl Fn() -> Micros,
    ) -> Result<Pushed<Ticket>, Error> {
        let mut inner = self.lock();
        let place = inner.push(&self.settings, record, wall_ms, &now)?;
        let timestamp_ms = record.timestamp_ms.unwrap_or(wall_ms);
        let ticket = Ticket::new(place.completion, place.index, timestamp_ms);
        Ok(Pushed { ticket, wake: self.announce(&inner) })
    }

    /// Encodes all records, in order, under one lock. All are checked before the first is taken: either all are
    /// accepted or none.
    pub(crate) fn push_all(
        &self,
        records: &[Record],
        wall_ms: i64,
        now: impl Fn() -> Micros,
    ) -> Result<Pushed<Vec<Share>>, Error> {
        let mut inner = self.lock();
        for record in records {
            inner.check(&self.settings, record)?;
        }
        let mut shares: Vec<Share> = Vec::new();
        for record in records {
            let place = inner.push(&self.settings, record, wall_ms, &now)?;
            match shares.iter_mut().rev().find(|share| Arc::ptr_eq(&share.completion, &place.completion)) {
                Some(share) if share.first_index + share.records == place.index => share.records += 1,
                _ => {
                    shares.push(Share { completion: place.completion, first_index: place.index, records: 1 })
                }
            }
        }
        Ok(Pushed { ticket: shares, wake: self.announce(&inner) })
    }

    /// Everything pushed so far must go out without lingering. Returns what has to be settled for that.
    pub(crate) fn flush(&self) -> Vec<Arc<BatchCompletion>> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        for (lane, index) in inner.lanes.iter_mut().zip(0..) {
            if lane.open.is_some() {
                lane.urgent = true;
                inner.news.push(PartitionIndex(index));
            }
        }
        self.announce(inner);
        inner.unsettled.values().cloned().collect()
    }

    /// Refuses further records with this error; what was accepted is still sent.
    pub fn close(&self, refusal: Error) {
        self.lock().refusal.get_or_insert(refusal);
    }

    /// No caller is left; the core, told by `Event::Wake`, forgets this producer when it is empty.
    pub fn detach(&self) {
        self.close(Error::closed("produce"));
        self.lock().detached = true;
        self.news.store(true, Ordering::Release);
    }

    /// What became of the records settled so far.
    pub fn report(&self) -> CloseReport {
        self.lock().report.clone()
    }

    /// The first failure no flush has told of yet.
    pub(crate) fn take_untold(&self) -> Option<Error> {
        self.lock().untold.take()
    }

    /// Records accepted and neither acknowledged nor failed are in this many batches.
    pub(crate) fn unsettled_batches(&self) -> usize {
        self.lock().unsettled.len()
    }

    // The core's side.

    pub(crate) fn is_abandoned(&self) -> bool {
        let inner = self.lock();
        inner.detached && inner.unsettled.is_empty()
    }

    /// The lanes that got work since the last call.
    pub(crate) fn take_news(&self) -> Option<Vec<PartitionIndex>> {
        if !self.news.swap(false, Ordering::Acquire) {
            return None;
        }
        Some(std::mem::take(&mut self.lock().news))
    }

    /// The topic has grown. Partitions never vanish.
    pub(crate) fn grow(&self, partitions: usize) {
        let mut inner = self.lock();
        if inner.lanes.len() < partitions {
            inner.lanes.resize_with(partitions, Lane::default);
        }
    }

    pub(crate) fn head(&self, partition: PartitionIndex) -> Option<Head> {
        let mut inner = self.lock();
        let lane = inner.lane(partition)?;
        if let Some(full) = lane.full.front() {
            return Some(Head { opened_at: full.opened_at, due: true });
        }
        let urgent = lane.urgent;
        match &lane.open {
            Some(open) => Some(Head { opened_at: open.opened_at, due: urgent }),
            None => {
                lane.announced = false;
                None
            }
        }
    }

    /// The oldest batch of the lane, full or not.
    pub(crate) fn take(&self, partition: PartitionIndex) -> Option<FullBatch> {
        let open = {
            let mut inner = self.lock();
            let lane = inner.lane(partition)?;
            if let Some(full) = lane.full.pop_front() {
                return Some(full);
            }
            lane.urgent = false;
            let open = lane.open.take();
            match &open {
                Some(open) => lane.bytes_expected = open.builder.len_estimate(),
                None => lane.announced = false,
            }
            inner.leave(&self.settings, partition);
            open?
        };
        Some(open.fill_up())
    }

    /// Tells the callers, and counts.
    pub(crate) fn settle(&self, batch: &FullBatch, result: Result<BatchReceipt, Error>) {
        {
            let mut inner = self.lock();
            let records = u64::from(batch.records);
            inner.unsettled.remove(&batch.id);
            if inner.detached && inner.unsettled.is_empty() {
                self.news.store(true, Ordering::Release);
            }
            match &result {
                Ok(_) => inner.report.acked += records,
                Err(error) => {
                    inner.report.failed += records;
                    inner.report.first_error.get_or_insert_with(|| error.clone());
                    inner.untold.get_or_insert_with(|| error.clone());
                    tracing::error!(records, %error, "records were not acknowledged");
                }
            }
        }
        batch.completion.settle(result);
    }

    /// True if the core has to be woken. Only the first news since the core last looked wake it.
    fn announce(&self, inner: &Inner) -> bool {
        !inner.news.is_empty() && !self.news.swap(true, Ordering::AcqRel)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a record was put.
struct Place {
    completion: Arc<BatchCompletion>,
    index: u32,
}

impl Inner {
    fn check(&self, settings: &ProducerSettings, record: &Record) -> Result<(), Error> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone().topic(&settings.topic));
        }
        if record.size() > settings.record_bytes_max {
            let cause = format!(
                "a record of {} bytes exceeds the {} allowed",
                record.size(),
                settings.record_bytes_max
            );
            return Err(Error::new(ErrorKind::MessageTooLarge, "produce", cause).topic(&settings.topic));
        }
        match record.partition {
            Some(partition) if partition as usize >= self.lanes.len() => {
                let cause = format!("partition {partition} named, the topic has {}", self.lanes.len());
                Err(Error::invalid("produce", cause).topic(&settings.topic).partition(partition))
            }
            _ => Ok(()),
        }
    }

    fn push(
        &mut self,
        settings: &ProducerSettings,
        record: &Record,
        wall_ms: i64,
        now: &impl Fn() -> Micros,
    ) -> Result<Place, Error> {
        self.check(settings, record)?;
        let partition = self.choose(settings, record);
        let index = PartitionIndex(u32::try_from(partition).expect("partition counts are u32"));
        let room = room_of(record);
        if self.lanes[partition].open.as_ref().is_some_and(|open| !open.fits(settings, room)) {
            self.fill_up(settings, index);
        }
        let (next_id, lane) = (&mut self.next_id, &mut self.lanes[partition]);
        let open = lane.open.get_or_insert_with(|| {
            let id = *next_id;
            *next_id += 1;
            let completion = BatchCompletion::new(index.0);
            self.unsettled.insert(id, Arc::clone(&completion));
            OpenBatch {
                id,
                builder: RecordBatchBuilder::with_capacity(settings.compression, lane.bytes_expected),
                records: 0,
                room: 0,
                opened_at: now(),
                completion,
            }
        });
        let timestamp_ms = record.timestamp_ms.unwrap_or(wall_ms);
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        if let Err(error) = open.builder.push(timestamp_ms, key, value, &record.headers) {
            if open.records == 0 {
                self.unsettled.remove(&open.id);
                lane.open = None;
            }
            let error = Error::new(ErrorKind::MessageTooLarge, "produce", error.to_string());
            return Err(error.topic(&settings.topic));
        }
        let place = Place { completion: Arc::clone(&open.completion), index: open.records };
        open.records += 1;
        open.room += room;
        let full =
            open.records >= settings.batch_records || open.builder.len_estimate() >= settings.batch_bytes;
        if !lane.announced {
            lane.announced = true;
            self.news.push(index);
        }
        if full {
            self.fill_up(settings, index);
        }
        Ok(place)
    }

    fn choose(&mut self, settings: &ProducerSettings, record: &Record) -> usize {
        if let Some(partition) = record.partition {
            return partition as usize;
        }
        if let Some(key) = &record.key {
            let count = u32::try_from(self.lanes.len()).expect("partition counts are u32");
            return partition_for_key(key, count) as usize;
        }
        let chosen = self.keyless;
        if settings.partitioner == Partitioner::RoundRobin {
            self.keyless = (chosen + 1) % self.lanes.len();
        }
        chosen
    }

    /// Moves the open batch to the full ones. A core that lets it linger is told again.
    fn fill_up(&mut self, settings: &ProducerSettings, partition: PartitionIndex) {
        let lane = &mut self.lanes[partition.0 as usize];
        if let Some(open) = lane.open.take() {
            lane.bytes_expected = open.builder.len_estimate();
            lane.full.push_back(open.fill_up());
            if !settings.linger.is_zero() {
                self.news.push(partition);
            }
        }
        self.leave(settings, partition);
    }

    /// The batch of this partition is closed: keyless records move on, if they stuck to it.
    fn leave(&mut self, settings: &ProducerSettings, partition: PartitionIndex) {
        if settings.partitioner == Partitioner::Sticky && self.keyless == partition.0 as usize {
            self.keyless = (self.keyless + 1) % self.lanes.len();
        }
    }

    fn lane(&mut self, partition: PartitionIndex) -> Option<&mut Lane> {
        self.lanes.get_mut(partition.0 as usize)
    }
}

impl OpenBatch {
    fn fits(&self, settings: &ProducerSettings, room: usize) -> bool {
        self.builder.len_estimate() + room <= settings.batch_bytes
    }

    fn fill_up(mut self) -> FullBatch {
        FullBatch {
            id: self.id,
            unsealed: self.builder.finish(),
            records: self.records,
            room: self.room,
            opened_at: self.opened_at,
            completion: self.completion,
        }
    }
}
