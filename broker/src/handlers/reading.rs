//! What fetches and subscriptions share: reading one partition on its home, and waiting until that is worth while.

use std::cmp::Ordering;
use std::rc::Rc;

use bytes::Bytes;
use corrente_protocol::api::FetchPartitionResponse;
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{LeaderEpoch, Offset, TopicPartition};

use crate::error::Refusal;
use crate::partition::Records;
use crate::shard::{Place, Shard, Slot};

/// An answer never fills more than this part of the shard's memory for answers.
const SHARE_OF_MEMORY: usize = 4;

/// Room in a frame for what surrounds the batches.
const FRAME_OVERHEAD: usize = 64 * 1024;

/// The least that an answer takes of the memory for answers while it is made: a log gives at least one batch, however
/// little was asked for.
const BATCH_BYTES: usize = 1 << 20;

/// Bytes of batches that an answer may have, but for a first batch that is larger by itself.
pub fn bytes_affordable(shard: &Shard) -> usize {
    let frame = shard.frame_len_max() as usize - FRAME_OVERHEAD;
    frame.min(shard.memory.responses.total() / SHARE_OF_MEMORY)
}

/// What is taken of the memory for answers while one of up to so many bytes of batches is made.
pub fn memory_of_answer(shard: &Shard, bytes_max: usize) -> usize {
    bytes_max.max(BATCH_BYTES).min(bytes_affordable(shard))
}

/// Bytes of the batches in an answer, or in a part of it.
pub fn bytes_of<'a>(partitions: impl IntoIterator<Item = &'a FetchPartitionResponse>) -> usize {
    partitions.into_iter().flat_map(|part| &part.batches).map(Bytes::len).sum()
}

/// Where to read.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    /// In which partition.
    pub id: TopicPartition,
    /// The first record wanted.
    pub offset: Offset,
    /// The leader epoch that the client knows.
    pub leader_epoch: Option<LeaderEpoch>,
}

/// Reads up to `wanted` bytes, or only where the partition stands.
pub async fn read(shard: &Rc<Shard>, from: Position, wanted: Option<usize>) -> FetchPartitionResponse {
    let Position { id, offset, leader_epoch } = from;
    let read = shard.at_home(id, move |partition| async move {
        check_epoch(leader_epoch, partition.leader_epoch())?;
        match wanted {
            Some(bytes_max) => Ok(partition.read(offset, bytes_max).await?),
            None => Ok(partition.position(offset).await?),
        }
    });
    read.await.map(|found| found.respond(id)).unwrap_or_else(|refusal| refuse(id, refusal))
}

/// Waits until a read finds something or is refused. On another shard it is waited there, for as long as the answer
/// lives. Cancel-safe.
pub async fn news(shard: Rc<Shard>, id: TopicPartition, from: Offset) {
    match shard.place(id) {
        Place::Here(Slot::Serving(partition)) => partition.news_for(from).await,
        Place::There(home) => {
            let wait = shard.run_while_asked_at(home, move |home| async move {
                if let Place::Here(Slot::Serving(partition)) = home.place(id) {
                    partition.news_for(from).await;
                }
            });
            // A sibling that stopped has no news; the read that follows says so.
            let _ = wait.await;
        }
        Place::Here(Slot::Unavailable(_)) | Place::Unknown => {}
    }
}

/// A client that knows another leader epoch than this broker must learn of it before it reads on.
fn check_epoch(known: Option<LeaderEpoch>, current: Option<LeaderEpoch>) -> Result<(), Refusal> {
    let (Some(known), Some(current)) = (known, current) else { return Ok(()) };
    let code = match known.cmp(&current) {
        Ordering::Less => ErrorCode::FencedLeaderEpoch,
        Ordering::Equal => return Ok(()),
        Ordering::Greater => ErrorCode::UnknownLeaderEpoch,
    };
    Err(Refusal::new(code, format!("the request knows leader epoch {known}, the partition is at {current}")))
}

impl Records {
    fn respond(self, id: TopicPartition) -> FetchPartitionResponse {
        FetchPartitionResponse {
            topic: id.topic,
            partition: id.partition,
            error: ErrorCode::None,
            message: None,
            high_watermark: self.high_watermark,
            log_start_offset: self.log_start_offset,
            batches: self.batches,
        }
    }
}

fn refuse(id: TopicPartition, refusal: Refusal) -> FetchPartitionResponse {
    FetchPartitionResponse {
        topic: id.topic,
        partition: id.partition,
        error: refusal.code,
        message: Some(refusal.message),
        high_watermark: Offset(0),
        log_start_offset: Offset(0),
        batches: Vec::new(),
    }
}
