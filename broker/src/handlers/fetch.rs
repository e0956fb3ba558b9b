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
    loop {
        let asked = request.partitions.iter().map(|part| (id_of(part), part.offset));
        wait_for_news(shard, connection, asked, deadline).await;
        let bytes_max = bytes_max(shard, &request);
        let mut part = connection.answer_memory(bytes_max).await;
        let mut memory = shard.memory.responses.acquire(bytes_max).await;
        let partitions = read(shard, &request, bytes_max).await;
        let bytes: usize = partitions.iter().flat_map(|part| &part.batches).map(Bytes::len).sum();
        let refused = partitions.iter().any(|part| part.error != ErrorCode::None);
        let no_longer = now() >= deadline || connection.is_ended();
        if refused || no_longer || bytes >= request.min_bytes as usize {
            part.shrink_to(bytes);
            memory.shrink_to(bytes);
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

fn bytes_max(shard: &Shard, request: &FetchRequest) -> usize {
    let frame = shard.frame_len_max() as usize - FRAME_OVERHEAD;
    let memory = shard.memory.responses.total() / SHARE_OF_MEMORY;
    (request.max_bytes as usize).min(frame).min(memory)
}

fn id_of(part: &FetchPartition) -> TopicPartition {
    TopicPartition { topic: part.topic, partition: part.partition }
}

fn id_of_response(part: &FetchPartitionResponse) -> TopicPartition {
    TopicPartition { topic: part.topic, partition: part.partition }
}

/// Reads every partition in the order of the request, as long as there is room.
///
/// A log gives at least one batch, however large. Only the first one found may pass the limit so: that
/// keeps a reader of large batches going, and the response within a frame.
async fn read(shard: &Rc<Shard>, request: &FetchRequest, bytes_max: usize) -> Vec<FetchPartitionResponse> {
    let mut bytes = 0;
    let mut responses = Vec::with_capacity(request.partitions.len());
    for part in &request.partitions {
        let room = bytes_max.saturating_sub(bytes);
        let mut response = read_one(shard, part, room.min(part.max_bytes as usize)).await;
        let found = response.batches.iter().map(Bytes::len).sum::<usize>();
        if bytes > 0 && found > room {
            response.batches.clear();
        } else {
            bytes += found;
        }
        responses.push(response);
    }
    responses
}

async fn read_one(shard: &Rc<Shard>, part: &FetchPartition, bytes_max: usize) -> FetchPartitionResponse {
    let id = id_of(part);
    let (from, known_epoch) = (part.offset, part.leader_epoch);
    let read = shard.at_home(id, move |partition| async move {
        check_epoch(known_epoch, partition.leader_epoch())?;
        Ok(partition.read(from, bytes_max).await?)
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

/// Waits until any of the partitions has something beyond the offset named, or needs no waiting
/// because it will be refused, or until the deadline or the end of the connection.
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
    let ended = pin!(connection.ended());
    if waits.is_empty() || now() >= deadline || connection.is_ended() {
        return;
    }
    let alarm = pin!(sleep_until(deadline));
    select(select_all(waits), select(alarm, ended)).await;
}

/// Waits on the shard that owns the partition; there the wait ends by the deadline even if nobody
/// asks any more.
async fn wait_there(shard: Rc<Shard>, home: ShardId, id: TopicPartition, from: Offset, deadline: Instant) {
    let wait = shard.run_at(home, move |home| async move {
        if let Place::Here(Slot::Serving(partition)) = home.place(id) {
            let news = pin!(partition.news_for(from));
            let alarm = pin!(sleep_until(deadline));
            select(news, alarm).await;
        }
    });
    // A sibling that stopped has no news; the read that follows says so.
    let _ = wait.await;
}
