//! Fetch: read record batches below the high watermark, or wait for some.

use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use corrente_protocol::api::{FetchPartition, FetchPartitionResponse, FetchRequest, FetchResponse};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{Offset, TopicPartition};
use corrente_runtime::sync::Permit;
use corrente_runtime::timer::{Instant, now, sleep_until};
use futures_util::future::{select, select_all};

use super::reading::{self, Position};
use crate::connection::Connection;
use crate::shard::{Place, Shard, Slot};

/// The longest wait served; longer ones are cut to it.
const WAIT_MAX: Duration = Duration::from_secs(300);

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
        let bytes = reading::bytes_of(&partitions);
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
        let affordable = reading::bytes_affordable(shard);
        let bytes_max = (request.max_bytes as usize).min(affordable);
        // Half of what this broker affords is sent however much more was asked for: as batches are sent whole, an
        // answer need never get fuller.
        let enough = (request.min_bytes as usize).min(bytes_max).min(affordable / 2);
        Room { bytes_max, enough, memory: reading::memory_of_answer(shard, bytes_max) }
    }
}

/// Which partition is asked for.
pub fn id_of(part: &FetchPartition) -> TopicPartition {
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
        let from = Position { id: id_of(part), offset: part.offset, leader_epoch: part.leader_epoch };
        let mut response = reading::read(shard, from, wanted).await;
        let found = reading::bytes_of([&response]);
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
            Place::Here(Slot::Serving(partition)) if partition.has_news_for(from) => return,
            Place::Here(Slot::Unavailable(_)) | Place::Unknown => return,
            _ => waits.push(Box::pin(reading::news(shard.clone(), id, from))),
        }
    }
    let hurry = pin!(connection.hurry());
    if waits.is_empty() || now() >= deadline || !connection.may_wait() {
        return;
    }
    let alarm = pin!(sleep_until(deadline));
    select(select_all(waits), select(alarm, hurry)).await;
}
