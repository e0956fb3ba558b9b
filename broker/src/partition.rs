//! One partition on its home shard: the only place that knows both the log and the replica.
//!
//! The log says what is appended and what is flushed; the replica, a machine without I/O, says what
//! that means: how far the high watermark reaches and which acknowledgements may leave. This file
//! carries news from the one to the other and lets requests wait for the outcome.
//!
//! A partition never answers for another one, never crosses cores and keeps no file, socket or timer
//! of its own; an idle one is a few hundred bytes.

use std::cell::RefCell;
use std::future;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use corrente_protocol::api::DeleteBefore;
use corrente_protocol::compression::Compression;
use corrente_protocol::frame::Durability;
use corrente_protocol::ids::{LeaderEpoch, NodeId, Offset, TopicPartition};
use corrente_protocol::record_batch::{self, BatchError, BatchLimits, KeyError, ValidBatch};
use corrente_replication::leader_epoch::LeaderEpochs;
use corrente_replication::replica::{Event, Replica};
use corrente_replication::topic_config::TopicConfig;
use corrente_runtime::executor::{Queue, Task, spawn_in};
use corrente_runtime::offload::offload;
use corrente_runtime::sync::{Budget, Watch, oneshot};
use corrente_runtime::timer::now;
use corrente_storage::{
    AppendError, Appended, DECOMPRESSED_BATCH_BYTES_MAX, DeleteRecordsError, Fenced, Health, Log, LogPolicy,
    ReadError,
};

use crate::acknowledgements::{Acknowledgements, ForgetWaiting, Tell};

/// Records of uncompressed batches up to this many bytes are looked at on the shard; that takes less than it does to
/// ask a worker thread.
const WALK_HERE_BYTES_MAX: usize = 64 * 1024;

/// A partition that is open on this shard.
pub struct Partition {
    /// Its topic and index.
    pub id: TopicPartition,
    log: Log,
    replica: RefCell<Replica>,
    config: RefCell<TopicConfig>,
    /// The largest batch that every fetch can still carry in one frame.
    batch_bytes_max: usize,
    /// Wakes those who wait for records to become readable.
    high_watermark: Watch<Offset>,
    acknowledgements: Rc<Acknowledgements>,
    /// One append at a time, first come first served: an expected end offset is compared and the
    /// append made with nobody in between.
    appending: Budget,
    /// Ends with the partition.
    _following: RefCell<Option<Task<()>>>,
}

/// What a partition is led under.
pub struct Terms {
    /// Its topic and index.
    pub id: TopicPartition,
    /// This node.
    pub node: NodeId,
    /// The epoch that the controller decided.
    pub epoch: LeaderEpoch,
    /// The topic's configuration.
    pub config: TopicConfig,
    /// The largest batch that every fetch can still carry in one frame.
    pub batch_bytes_max: usize,
}

/// Why records were not appended; nothing of the request is in the log.
#[derive(Debug, thiserror::Error)]
pub enum AppendRefusal {
    /// The bytes are no valid record batches.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The topic is compacted, and a batch does not fit that. Batches count from 0.
    #[error("batch {batch}: {error}")]
    Unkeyed { batch: usize, error: KeyError },
    /// The writer expected another end of the log.
    #[error("the log ends at offset {actual}, the request expected {expected}")]
    UnexpectedEnd { expected: Offset, actual: Offset },
    /// The topic asks for more in-sync replicas than there are.
    #[error("fewer replicas are in sync than the topic's min.insync.replicas")]
    NotEnoughReplicas,
    /// This replica does not lead.
    #[error("this broker does not lead the partition")]
    NotLeader,
    /// The log takes no more records.
    #[error(transparent)]
    Log(#[from] AppendError),
}

/// Why no record was deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteRefusal {
    /// The last record of each key is kept for ever.
    #[error("cleanup.policy of the topic is compact alone, so the last record of every key is kept")]
    OnlyCompacted,
    /// Records that nobody could read yet.
    #[error("offset {asked} is beyond the high watermark {high_watermark}")]
    BeyondHighWatermark { asked: Offset, high_watermark: Offset },
    /// This replica does not lead.
    #[error("this broker does not lead the partition")]
    NotLeader,
    /// The log is damaged.
    #[error("the log is in quarantine: {reason}")]
    Quarantined { reason: Arc<str> },
    /// The log takes no more changes.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// The log refused, or its disk did.
    #[error(transparent)]
    Log(#[from] DeleteRecordsError),
}

/// What a read found.
pub struct Records {
    /// Whole record batches; the first may begin before the offset asked for.
    pub batches: Vec<Bytes>,
    /// Everything below is flushed on every in-sync replica.
    pub high_watermark: Offset,
    /// The first offset still kept.
    pub log_start_offset: Offset,
}

impl Partition {
    /// Takes over an open log as leader of `epoch` and begins to follow its flushes.
    pub fn lead(log: Log, terms: Terms) -> Rc<Partition> {
        let Terms { id, node, epoch, config, batch_bytes_max } = terms;
        let min_insync = config.min_insync_replicas(1);
        let mut replica = Replica::new(node, min_insync, LeaderEpochs::new(), log.log_end_offset());
        replica.step(now().as_nanos(), Event::BecomeLeader { epoch, log_end: log.log_end_offset() });
        log.settle(replica.high_watermark());
        let partition = Rc::new(Partition {
            id,
            high_watermark: Watch::new(replica.high_watermark()),
            acknowledgements: Rc::default(),
            log,
            replica: RefCell::new(replica),
            config: RefCell::new(config),
            batch_bytes_max,
            appending: Budget::new(1),
            _following: RefCell::default(),
        });
        let forget = ForgetWaiting(partition.acknowledgements.clone());
        let following = follow_flushes(Rc::downgrade(&partition), partition.log.clone(), forget);
        let following = spawn_in(Queue::Network, following);
        partition._following.replace(Some(following));
        partition
    }

    /// Checks the batches and appends them in the order of arrival.
    ///
    /// Returns once the log has them in memory; [`Partition::acknowledged`] waits for more. Cancel-safe:
    /// a dropped future has appended everything or nothing.
    pub async fn append(
        &self,
        bytes: &Bytes,
        expected_end: Option<Offset>,
    ) -> Result<Appended, AppendRefusal> {
        let limits = BatchLimits { batch_bytes_max: self.largest_batch() };
        let batches = record_batch::validate_batches(bytes, &limits)?;
        let compacted = self.config.borrow().cleanup.compact;
        if compacted {
            check_keys(bytes, &batches).await?;
        }
        if !self.replica.borrow().has_enough_in_sync() {
            return Err(AppendRefusal::NotEnoughReplicas);
        }
        self.append_valid(bytes, &batches, expected_end).await
    }

    async fn append_valid(
        &self,
        bytes: &[u8],
        batches: &[ValidBatch],
        expected_end: Option<Offset>,
    ) -> Result<Appended, AppendRefusal> {
        let turn = self.appending.acquire(1).await;
        let actual = self.log.log_end_offset();
        if let Some(expected) = expected_end.filter(|expected| *expected != actual) {
            return Err(AppendRefusal::UnexpectedEnd { expected, actual });
        }
        if let Some(fenced) = self.log.is_fenced() {
            return Err(AppendError::from(fenced).into());
        }
        let epoch = self.leader_epoch().ok_or(AppendRefusal::NotLeader)?;
        let appended = self.log.append(epoch, bytes, batches).await?;
        self.observe_log();
        drop(turn);
        Ok(appended)
    }

    fn largest_batch(&self) -> usize {
        let of_topic = usize::try_from(self.config.borrow().max_message_bytes).unwrap_or(usize::MAX);
        of_topic.min(self.batch_bytes_max)
    }

    /// Tells once what was appended below `end` has reached the durability that both the request and the topic ask for,
    /// at once where it has. The records stay appended whoever listens.
    pub fn when_acknowledged(&self, end: Offset, requested: Durability, tell: Tell) {
        let wanted = self.config.borrow().required_durability(requested);
        let reached = self.replica.borrow().receipt_for(end).filter(|reached| *reached >= wanted);
        match reached {
            Some(reached) => tell(Ok(reached), now()),
            // Closed when the log is fenced: nothing further will be flushed.
            None if self.high_watermark.is_closed() => tell(Err(self.why_closed()), now()),
            None => self.acknowledgements.add(end, tell),
        }
    }

    /// The same for who can wait. Cancel-safe.
    pub async fn acknowledged(&self, end: Offset, requested: Durability) -> Result<Durability, Fenced> {
        let (tell, told) = oneshot::channel();
        // Who gave up waiting is not told.
        self.when_acknowledged(end, requested, Box::new(move |reached, _| drop(tell.send(reached))));
        told.await.unwrap_or_else(|_| Err(self.why_closed()))
    }

    /// Waits until everything below `end` is flushed, whatever the request asked for: until then the
    /// log holds the records in memory.
    pub async fn flushed(&self, end: Offset) -> Result<(), Fenced> {
        while self.log.flushed_offset() < end {
            self.log.flushed_past(self.log.flushed_offset()).await?;
        }
        Ok(())
    }

    /// Reads whole batches from the one that holds `from` up to the high watermark.
    pub async fn read(&self, from: Offset, bytes_max: usize) -> Result<Records, ReadError> {
        let high_watermark = self.high_watermark();
        let unreadable_yet = from >= high_watermark && from <= self.log.log_end_offset();
        let batches = match unreadable_yet {
            true => Vec::new(),
            false => self.log.read(from, high_watermark, bytes_max).await?,
        };
        Ok(Records { batches, high_watermark, log_start_offset: self.log.log_start_offset() })
    }

    /// What a read from there would say of the partition, without its records.
    pub async fn position(&self, from: Offset) -> Result<Records, ReadError> {
        let (start, end) = (self.log.log_start_offset(), self.log.log_end_offset());
        if from < start || from > end {
            // Refused, before anything is read.
            return self.read(from, 0).await;
        }
        Ok(Records { batches: Vec::new(), high_watermark: self.high_watermark(), log_start_offset: start })
    }

    /// Deletes the records below an offset, and says where the log begins now. Below the log start nothing
    /// changes. Not cancel-safe: dropped, the log may begin at either offset.
    pub async fn delete_records(&self, before: DeleteBefore) -> Result<Offset, DeleteRefusal> {
        let high_watermark = self.high_watermark();
        let before = match before {
            DeleteBefore::Offset(asked) if asked > high_watermark => {
                return Err(DeleteRefusal::BeyondHighWatermark { asked, high_watermark });
            }
            DeleteBefore::Offset(asked) => asked,
            DeleteBefore::HighWatermark => high_watermark,
        };
        if !self.config.borrow().cleanup.delete {
            return Err(DeleteRefusal::OnlyCompacted);
        }
        if self.leader_epoch().is_none() {
            return Err(DeleteRefusal::NotLeader);
        }
        match self.log.health() {
            Health::Sound => {}
            Health::Fenced(reason) => return Err(Fenced { reason }.into()),
            Health::Quarantined(reason) => return Err(DeleteRefusal::Quarantined { reason }),
        }
        let from = self.log.log_start_offset();
        let start = self.log.delete_records_before(before).await?;
        if start > from {
            tracing::info!(partition = %self.id, %from, to = %start, "records were deleted on request");
        }
        Ok(start)
    }

    /// Whether a read from `from` would find something or be refused, that is, need not wait.
    pub fn has_news_for(&self, from: Offset) -> bool {
        from < self.high_watermark() || from > self.log.log_end_offset()
    }

    /// Waits until the high watermark lies beyond `from`: for ever, if the log is fenced. Cancel-safe.
    pub async fn news_for(&self, from: Offset) {
        if !self.has_news_for(from) && self.high_watermark.past(from).await.is_none() {
            // Nothing will come any more; that is no news, and whoever asks has a deadline.
            future::pending::<()>().await;
        }
    }

    /// Everything below is flushed on every in-sync replica, and readable.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark.get()
    }

    /// The epoch under which this replica leads, if it does.
    pub fn leader_epoch(&self) -> Option<LeaderEpoch> {
        self.replica.borrow().leader_epoch()
    }

    /// Follows an election that this replica won.
    pub fn become_leader(&self, epoch: LeaderEpoch) {
        self.observe_log();
        let log_end = self.log.log_end_offset();
        self.replica.borrow_mut().step(now().as_nanos(), Event::BecomeLeader { epoch, log_end });
    }

    /// The log beneath, for reports.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Follows a change of the topic's configuration.
    pub fn set_config(&self, config: TopicConfig, policy: LogPolicy) {
        self.log.set_policy(policy);
        self.config.replace(config);
    }

    /// Tells the replica where the log ends. A flush may overtake the task that appended, so both call
    /// this and the replica never hears of a flush before the append.
    fn observe_log(&self) {
        let end = self.log.log_end_offset();
        let mut replica = self.replica.borrow_mut();
        if end > replica.log_end() {
            replica.step(now().as_nanos(), Event::Appended { end });
        }
    }

    fn observe_flush(&self, flushed: Offset) {
        self.observe_log();
        let actions = self.replica.borrow_mut().step(now().as_nanos(), Event::Flushed { end: flushed });
        if let Some(high_watermark) = actions.high_watermark {
            self.log.settle(high_watermark);
            self.high_watermark.set(high_watermark);
            let receipt_for = |end| self.replica.borrow().receipt_for(end).unwrap_or(Durability::Received);
            self.acknowledgements.reached(high_watermark, receipt_for);
        }
        self.invariants();
    }

    /// Panics, with both numbers, if the positions are out of order.
    fn invariants(&self) {
        let (start, end) = (self.log.log_start_offset(), self.log.log_end_offset());
        let high_watermark = self.high_watermark();
        assert!(
            start <= high_watermark,
            "log start offset {start} passes the high watermark {high_watermark}"
        );
        assert!(high_watermark <= end, "high watermark {high_watermark} passes the log end offset {end}");
    }

    fn observe_fence(&self, reason: &Fenced) {
        tracing::error!(partition = %self.id, %reason, "the log is fenced: it takes no more records, reads go on");
        let event = Event::Fenced { reason: reason.to_string() };
        self.replica.borrow_mut().step(now().as_nanos(), event);
        self.end_waits();
    }

    /// Nothing will be flushed any more.
    fn end_waits(&self) {
        self.high_watermark.close();
        self.acknowledgements.refuse(&self.why_closed());
    }

    fn why_closed(&self) -> Fenced {
        self.log.is_fenced().unwrap_or_else(closed)
    }
}

/// Whether every record can be compacted. Decompressing takes a core for itself, away from the shard; so no more
/// memory is taken for it at a time than there are such cores.
async fn check_keys(bytes: &Bytes, batches: &[ValidBatch]) -> Result<(), AppendRefusal> {
    let compressed = |batch: &ValidBatch| batch.header.attributes.compression() != Ok(Compression::None);
    let slices: Vec<Bytes> = batches.iter().map(|batch| bytes.slice(batch.range.clone())).collect();
    let walk = move || {
        slices.iter().enumerate().try_for_each(|(batch, slice)| {
            record_batch::check_keys(slice, DECOMPRESSED_BATCH_BYTES_MAX)
                .map_err(|error| AppendRefusal::Unkeyed { batch, error })
        })
    };
    match bytes.len() > WALK_HERE_BYTES_MAX || batches.iter().any(compressed) {
        true => offload(walk).await,
        false => walk(),
    }
}

/// The watch closes when the log is fenced or closed; this is the second case.
fn closed() -> Fenced {
    Fenced { reason: "the partition is closed".into() }
}

/// Carries the log's flushes to the replica until the log is fenced or the partition is gone.
async fn follow_flushes(partition: std::rc::Weak<Partition>, log: Log, _forget: ForgetWaiting) {
    let mut seen = log.flushed_offset();
    loop {
        let flushed = log.flushed_past(seen).await;
        let Some(partition) = partition.upgrade() else { return };
        match flushed {
            Ok(flushed) => {
                partition.observe_flush(flushed);
                seen = flushed;
            }
            // The log is closed, as when its topic is deleted: no fault, and nothing comes any more.
            Err(_) if log.is_fenced().is_none() => return partition.end_waits(),
            Err(reason) => return partition.observe_fence(&reason),
        }
    }
}
