//! The metadata of the cluster, decided on shard 0.
//!
//! A command is planned against the image, its records are appended to the metadata log as one batch,
//! and only when that batch is flushed on every in-sync replica does the image change and do the
//! shards hear of it. One command at a time, in the order of arrival.
//!
//! Crash story. (1) The batch is not flushed: the command never happened, its caller got no answer.
//! (2) The batch is flushed, the shards did not hear of it: the next start replays it and opens or
//! removes the logs. (3) The shards are done: the caller is answered. So a topic that was answered
//! for exists after any crash, and a log without a topic is garbage that the start removes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use corrente_protocol::compression::Compression;
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::frame::Durability;
use corrente_protocol::ids::{Offset, ShardId, TopicId, TopicPartition};
use corrente_protocol::record_batch::{RecordBatch, RecordBatchBuilder, RecordBatches};
use corrente_replication::controller::{Command, Context, Limits, PRODUCER_ID_BLOCK, plan};
use corrente_replication::metadata::{Change, Delta, Image, MetadataRecord};
use corrente_runtime::mailbox::{Receiver, Sender, mailbox};
use corrente_runtime::random::fill_random;
use corrente_runtime::sync::oneshot;
use corrente_runtime::timer::wall_clock_ms;

use crate::error::Refusal;
use crate::partition::Partition;
use crate::reconcile;
use crate::shard::Shard;
use crate::topology::{Directory, extend_homes};

/// Commands waiting while one is decided; more wait at their senders.
const QUEUE: usize = 64;

/// Most bytes of metadata read at once while the image is rebuilt.
const REPLAY_BYTES: usize = 1 << 20;

/// Lets any shard ask for a change of metadata.
#[derive(Clone)]
pub struct ControllerHandle {
    requests: Sender<Request>,
}

/// A change that a shard asks for.
pub struct Request {
    command: Command,
    validate_only: bool,
    reply: oneshot::Sender<Result<Image, Refusal>>,
}

/// The two ends between the shards and the controller.
pub fn channel() -> (ControllerHandle, Receiver<Request>) {
    let (requests, receiver) = mailbox(QUEUE);
    (ControllerHandle { requests }, receiver)
}

impl ControllerHandle {
    /// Has the command decided and carried out; with `validate_only`, decided alone.
    ///
    /// `Ok` means: flushed, and known to every shard of this node. Dropping the future does not stop
    /// a command that was sent.
    pub async fn execute(&self, command: Command, validate_only: bool) -> Result<(), Refusal> {
        self.ask(command, validate_only).await.map(|_| ())
    }

    /// The next block of producer ids, the caller's alone. Dropped before it is ready, or after a crash, a block may
    /// be given to nobody.
    pub async fn grant_producer_ids(&self) -> Result<Range<u64>, Refusal> {
        let image = self.ask(Command::GrantProducerIds, false).await?;
        let end = image.producer_ids_end();
        Ok(end - PRODUCER_ID_BLOCK..end)
    }

    /// The image as the command has left it: no other was decided in between.
    async fn ask(&self, command: Command, validate_only: bool) -> Result<Image, Refusal> {
        let stopping = || Refusal::new(ErrorCode::ShuttingDown, "the broker is shutting down");
        let (reply, answer) = oneshot::channel();
        let request = Request { command, validate_only, reply };
        self.requests.send(request).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}

/// Decides on shard 0.
pub struct Controller {
    shard: Rc<Shard>,
    metadata: Rc<Partition>,
}

impl Controller {
    /// A controller over the open metadata log.
    pub fn new(shard: Rc<Shard>, metadata: Rc<Partition>) -> Controller {
        Controller { shard, metadata }
    }

    /// Serves commands until every handle is gone.
    pub async fn run(self, mut requests: Receiver<Request>) {
        while let Some(Request { command, validate_only, reply }) = requests.recv().await {
            let outcome = self.execute(&command, validate_only).await;
            match &outcome {
                Ok(()) if validate_only => {}
                Ok(()) => tracing::info!(?command, "metadata changed"),
                Err(refusal) => tracing::debug!(?command, %refusal, "metadata command refused"),
            }
            // The asker may have gone; the command was decided all the same.
            let _ = reply.send(outcome.map(|()| self.shard.directory().image.clone()));
        }
    }

    /// See [`ControllerHandle::execute`].
    pub async fn execute(&self, command: &Command, validate_only: bool) -> Result<(), Refusal> {
        let before = self.shard.directory();
        let limits = Limits {
            partitions_max: u64::from(self.shard.config.topics.partitions_max),
            ..Limits::default()
        };
        let context = Context { nodes: &[self.shard.node], topic_id: random_topic_id(), limits };
        let records = plan(&before.image, command, &context)?;
        if validate_only || records.is_empty() {
            return Ok(());
        }
        let makes_logs = matches!(command, Command::CreateTopic { .. } | Command::AddPartitions { .. });
        if makes_logs && !self.shard.storage.has_room().await {
            let line =
                "no data directory has room for another log: delete records or topics, or give it more space";
            return Err(Refusal::new(ErrorCode::DiskFull, line));
        }
        self.commit(&records).await?;
        let (directory, delta) = self.advance(&before, &records);
        self.publish(directory, delta).await;
        Ok(())
    }

    async fn commit(&self, records: &[MetadataRecord]) -> Result<(), Refusal> {
        let storage = |line: String| Refusal::new(ErrorCode::StorageError, line);
        let appended =
            self.metadata.append(&encode(records), None).await.map_err(|error| storage(error.to_string()))?;
        let reached = self.metadata.acknowledged(appended.end_offset, Durability::IsrFlushed).await;
        reached.map(|_| ()).map_err(|fenced| storage(fenced.to_string()))
    }

    fn advance(&self, before: &Directory, records: &[MetadataRecord]) -> (Directory, Delta) {
        let mut image = before.image.clone();
        let delta = image.apply_batch(records).expect("planned against this very image");
        let end = self.metadata.high_watermark();
        assert_eq!(image.end_offset(), end, "the image and the metadata log end at different offsets");
        let homes = follow(&before.homes, &delta, self.shard.shard_count());
        (Directory { image, homes }, delta)
    }

    /// Tells every shard, and waits until each has opened and removed what it must.
    async fn publish(&self, directory: Directory, delta: Delta) {
        let (directory, delta) = (Arc::new(directory), Arc::new(delta));
        for shard in (0..self.shard.shard_count()).map(ShardId) {
            let (directory, delta) = (directory.clone(), delta.clone());
            let told = self.shard.run_at(shard, move |home| async move {
                reconcile::apply(&home, directory, &delta).await;
            });
            if let Err(stopped) = told.await {
                tracing::debug!(%stopped, "metadata not delivered; the next start replays it");
            }
        }
    }
}

/// The homes after a change: new partitions get one, removed ones lose theirs.
fn follow(
    homes: &Arc<BTreeMap<TopicPartition, ShardId>>,
    delta: &Delta,
    shards: u16,
) -> Arc<BTreeMap<TopicPartition, ShardId>> {
    let of = |wanted: Change| {
        let these = delta.partitions.iter().filter(move |(_, change)| **change == wanted);
        these.map(|(partition, _)| *partition)
    };
    let mut next = extend_homes(homes, of(Change::Appeared), shards);
    for partition in of(Change::Vanished) {
        next.remove(&partition);
    }
    Arc::new(next)
}

fn random_topic_id() -> TopicId {
    let mut random = [0; 16];
    fill_random(&mut random);
    TopicId::from_random(random)
}

fn encode(records: &[MetadataRecord]) -> Bytes {
    let now_ms = wall_clock_ms();
    let mut batch = RecordBatchBuilder::new(Compression::None);
    for record in records {
        let pushed = batch.push(now_ms, None, Some(&record.encode()), &[]);
        pushed.expect("a record of at most RECORD_LEN_MAX fits a batch");
    }
    batch.build()
}

/// Why the image could not be rebuilt from the metadata log.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The log cannot be read.
    #[error("the metadata log cannot be read at offset {offset}: {source}")]
    Read { offset: Offset, source: corrente_storage::ReadError },
    /// A batch or record in it makes no sense.
    #[error("the metadata log holds an invalid record at offset {offset}: {reason}")]
    Invalid { offset: Offset, reason: String },
}

/// Rebuilds the image from everything in the metadata log.
pub async fn replay(metadata: &Partition) -> Result<Image, ReplayError> {
    let mut image = Image::default();
    let mut next = metadata.log().log_start_offset();
    while next < metadata.high_watermark() {
        let read = metadata.read(next, REPLAY_BYTES).await;
        let records = read.map_err(|source| ReplayError::Read { offset: next, source })?;
        for batch in records.batches.into_iter().flat_map(RecordBatches::new) {
            let batch =
                batch.map_err(|error| ReplayError::Invalid { offset: next, reason: error.to_string() })?;
            next = apply_batch(&mut image, &batch, next)?;
        }
    }
    Ok(image)
}

fn apply_batch(image: &mut Image, batch: &RecordBatch, from: Offset) -> Result<Offset, ReplayError> {
    let invalid = |offset, reason: String| ReplayError::Invalid { offset, reason };
    let records = batch.records(REPLAY_BYTES).map_err(|error| invalid(from, error.to_string()))?;
    for record in records {
        let record = record.map_err(|error| invalid(from, error.to_string()))?;
        let value = record.value.unwrap_or_default();
        let decoded =
            MetadataRecord::decode(&value).map_err(|error| invalid(record.offset, error.to_string()))?;
        image.apply(&decoded).map_err(|error| invalid(record.offset, error.to_string()))?;
    }
    Ok(batch.header().end_offset())
}
