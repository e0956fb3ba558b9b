//! Fetch: read record batches below the high watermark, or wait for some.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use corrente_protocol::api::{FetchPartition, FetchPartitionResponse, FetchRequest, FetchResponse};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{LeaderEpoch, Offset, ShardId, TopicPartition};
use corrente_runtime::sync::Permit;
use corrente_runtime::timer::{Instant, now, sleep_until};
use futures_util::future::{select, select_all};

use crate::connection::Connection;
use crate::error::Refusal;
use crate::partition::Records;
use crate::shard::{Place, Shard, Slot};

/// A response never fills more than this part of the shard's memory for responses.
const SHARE_OF_MEMORY: usize = 4;

/// Room in a frame for what surrounds the batches.
const FRAME_OVERHEAD: usize = 64 * 1024;

/// The longest wait served; longer ones are cut to it.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// The least that an answer takes of the memory for answers while it is made: a log gives at least one batch, however
/// little was asked for.
const BATCH_BYTES: usize = 1 << 20;

/// A partition that the request names more than once, if any.
pub fn named_twice(request: &FetchRequest) -> Option<TopicPartition> {
    let mut seen = BTreeSet::new();
    request.partitions.iter().map(id_of).find(|id| !seen.insert(*id))
}

/// Reads what the request asks for, waiting until there is enough of it.
///
/// The permits stand for the memory of the batches: the connection's part of it, and the shard's. Cancel-safe.
pub async fn answer(
    shard: &Rc<Shard>,
    connection: &Connection,
    request: FetchRequest,
) -> (FetchResponse, [Permit; 2]) {
    let wait = Duration::from_millis(u64::from(request.max_wait_ms)).min(WAIT_MAX);
    let deadline = now() + wait;
    let room = Room::of(shard, &request);
    loop {
        let asked = request.partitions.iter().map(|part| (id_of(part), part.offset));
        wait_for_news(shard, connection, asked, deadline).await;
        let mut part = connection.answer_memory(room.memory).await;
        let mut memory = shard.memory.responses.acquire(room.memory).await;
        let partitions = read(shard, &request, room.bytes_max).await;
        let bytes: usize = partitions.iter().flat_map(|part| &part.batches).map(Bytes::len).sum();
        let refused = partitions.iter().any(|part| part.error != ErrorCode::None);
        // Where no partition is named there is nothing to wait for.
        let no_longer = partitions.is_empty() || now() >= deadline || !connection.may_wait();
        if refused || no_longer || bytes >= room.enough {
            part.shrink_to(bytes);
            memory.shrink_to(bytes);
            shard.meters.fetched(bytes);
            return (FetchResponse { partitions }, [part, memory]);
        }
        drop((part, memory));
        // Something is there, and less than asked for: only what comes on top of it is news.
        let seen: Vec<_> =
            partitions.iter().map(|part| (id_of_response(part), part.high_watermark)).collect();
        drop(partitions);
        wait_for_news(shard, connection, seen.into_iter(), deadline).await;
    }
}

/// What an answer may and shall hold, in bytes of batches.
struct Room {
    /// At most, but for a first batch that is larger by itself.
    bytes_max: usize,
    /// What need not be waited beyond.
    enough: usize,
    /// What is taken of the memory for answers.
    memory: usize,
}

impl Room {
    fn of(shard: &Shard, request: &FetchRequest) -> Room {
        let frame = shard.frame_len_max() as usize - FRAME_OVERHEAD;
        let affordable = frame.min(shard.memory.responses.total() / SHARE_OF_MEMORY);
        let bytes_max = (request.max_bytes as usize).min(affordable);
        // Half of what this broker affords is sent however much more was asked for: as batches are sent whole, an
        // answer need never get fuller.
        let enough = (request.min_bytes as usize).min(bytes_max).min(affordable / 2);
        Room { bytes_max, enough, memory: bytes_max.max(BATCH_BYTES).min(affordable) }
    }
}

fn id_of(part: &FetchPartition) -> TopicPartition {
    TopicPartition { topic: part.topic, partition: part.partition }
}

fn id_of_response(part: &FetchPartitionResponse) -> TopicPartition {
    TopicPartition { topic: part.topic, partition: part.partition }
}

/// Reads every partition in the order of the request, as long as there is room; of the others it says where they stand.
///
/// A log gives at least one batch, however large. Only the first one found may pass the limit so: that
/// keeps a reader of large batches going, and the response within a frame.
async fn read(shard: &Rc<Shard>, request: &FetchRequest, bytes_max: usize) -> Vec<FetchPartitionResponse> {
    let mut bytes = 0;
    let mut is_full = false;
    let mut responses = Vec::with_capacity(request.partitions.len());
    for part in &request.partitions {
        let room = bytes_max.saturating_sub(bytes);
        let wanted = (!is_full).then_some(room.min(part.max_bytes as usize));
        let mut response = read_one(shard, part, wanted).await;
        let found = response.batches.iter().map(Bytes::len).sum::<usize>();
        if bytes > 0 && found > room {
            response.batches.clear();
            is_full = true;
        } else {
            bytes += found;
        }
        responses.push(response);
    }
    responses
}

/// Reads up to `wanted` bytes, or only where the partition stands.
async fn read_one(shard: &Rc<Shard>, part: &FetchPartition, wanted: Option<usize>) -> FetchPartitionResponse {
    let id = id_of(part);
    let (from, known_epoch) = (part.offset, part.leader_epoch);
    let read = shard.at_home(id, move |partition| async move {
        check_epoch(known_epoch, partition.leader_epoch())?;
        match wanted {
            Some(bytes_max) => Ok(partition.read(from, bytes_max).await?),
            None => Ok(partition.position(from).await?),
        }
    });
    read.await.map(|found| found.respond(id)).unwrap_or_else(|refusal| refuse(id, refusal))
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

/// Waits until any of the partitions has something beyond the offset named, or needs no waiting because it will be
/// refused, or until the deadline, the end of the connection, or other answers that wait for this one.
async fn wait_for_news(
    shard: &Rc<Shard>,
    connection: &Connection,
    positions: impl Iterator<Item = (TopicPartition, Offset)>,
    deadline: Instant,
) {
    let mut waits: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
    for (id, from) in positions {
        match shard.place(id) {
            Place::Here(Slot::Serving(partition)) => {
                if partition.has_news_for(from) {
                    return;
                }
                waits.push(Box::pin(async move { partition.news_for(from).await }));
            }
            Place::There(home) => waits.push(Box::pin(wait_there(shard.clone(), home, id, from, deadline))),
            Place::Here(Slot::Unavailable(_)) | Place::Unknown => return,
        }
    }
    let hurry = pin!(connection.hurry());
    if waits.is_empty() || now() >= deadline || !connection.may_wait() {
        return;
    }
    let alarm = pin!(sleep_until(deadline));
    select(select_all(waits), select(alarm, hurry)).await;
}

/// Waits on the shard that owns the partition; there the wait ends by the deadline, or when nobody asks any more.
async fn wait_there(shard: Rc<Shard>, home: ShardId, id: TopicPartition, from: Offset, deadline: Instant) {
    let wait = shard.run_while_asked_at(home, move |home| async move {
        if let Place::Here(Slot::Serving(partition)) = home.place(id) {
            let news = pin!(partition.news_for(from));
            let alarm = pin!(sleep_until(deadline));
            select(news, alarm).await;
        }
    });
    // A sibling that stopped has no news; the read that follows says so.
    let _ = wait.await;
}
