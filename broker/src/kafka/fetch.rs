//! Fetch: translated to the native request and back.

use std::collections::BTreeSet;
use std::rc::Rc;

use corrente_protocol::api::{self, FetchPartitionResponse};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{LeaderEpoch, Offset, TopicId};
use corrente_protocol::kafka::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchedPartition, FetchedTopic,
};
use corrente_protocol::kafka::{DecodeError, KafkaError, Message};
use corrente_runtime::random::random_u64;

use super::names::{Named, find_topic, index_of};
use super::{Answer, Client, Request, Response};
use crate::handlers::fetch;
use crate::shard::Shard;

/// Reads up to the last stable offset, which without transactions is the high watermark.
const READ_COMMITTED: i8 = 1;

/// Waits for what is asked for when its turn has come.
pub fn start(shard: Rc<Shard>, client: Client, request: Request) -> Result<Answer, DecodeError> {
    let Request { header, body, memory: of_request } = request;
    let mut request = FetchRequest::decode(header.version, body)?;
    Ok(Box::pin(async move {
        let Client { connection, fetch_session: session } = client;
        let refuse = |error: KafkaError| {
            Response::new(&header, FetchResponse { error: error.code(), ..FetchResponse::default() })
        };
        if names_twice(&request) {
            tracing::debug!(peer = %connection.peer, "a fetch names a partition twice");
            return refuse(KafkaError::InvalidRequest);
        }
        let begun = session.borrow_mut().begin(&mut request, new_session_id(), &shard.memory.sessions);
        let mode = match begun {
            Ok(mode) => mode,
            Err(error) => return refuse(error),
        };
        let (plan, native) = Plan::new(&shard, header.version, request);
        let (found, memory) = fetch::answer(&shard, &connection, native).await;
        drop(of_request);
        let mut response = plan.respond(found.partitions);
        session.borrow_mut().end(&mut response, mode);
        Response { memory: memory.into(), ..Response::new(&header, response) }
    }))
}

/// Whether a partition is named more than once; a version has topics by name or by id.
fn names_twice(request: &FetchRequest) -> bool {
    let mut seen = BTreeSet::new();
    let mut named = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| (topic.name.as_str(), topic.id, partition.index))
    });
    named.any(|partition| !seen.insert(partition))
}

/// A number above 0.
fn new_session_id() -> i32 {
    const LARGEST: u64 = i32::MAX.unsigned_abs() as u64;
    i32::try_from(random_u64() % LARGEST).expect("less than the greatest") + 1
}

/// A response in the making.
struct Plan {
    topics: Vec<FetchedTopic>,
    /// Where in `topics` each of the partitions asked for goes.
    places: Vec<(usize, usize)>,
    tells_aborted: bool,
}

impl Plan {
    fn new(shard: &Shard, version: i16, request: FetchRequest) -> (Plan, api::FetchRequest) {
        let mut native = api::FetchRequest {
            max_wait_ms: unsigned(request.max_wait_ms),
            min_bytes: unsigned(request.min_bytes),
            max_bytes: unsigned(request.max_bytes),
            partitions: Vec::new(),
        };
        let mut plan = Plan {
            topics: Vec::with_capacity(request.topics.len()),
            places: Vec::new(),
            tells_aborted: request.isolation_level == READ_COMMITTED,
        };
        for topic in request.topics {
            let found = find_topic(shard, Named::in_version(version, &topic.name, topic.id));
            plan.add(topic, found, &mut native.partitions);
        }
        let asked_for: usize = plan.topics.iter().map(|topic| topic.partitions.len()).sum();
        if plan.places.len() < asked_for {
            // What was refused is worth an answer at once.
            native.max_wait_ms = 0;
        }
        (plan, native)
    }

    fn add(
        &mut self,
        topic: FetchTopic,
        found: Result<TopicId, KafkaError>,
        asked: &mut Vec<api::FetchPartition>,
    ) {
        let mut fetched = FetchedTopic { name: topic.name, id: topic.id, partitions: Vec::new() };
        for partition in topic.partitions {
            let place = (self.topics.len(), fetched.partitions.len());
            let known = found.and_then(|id| translate(id, &partition));
            fetched.partitions.push(match known {
                Ok(native) => {
                    self.places.push(place);
                    asked.push(native);
                    FetchedPartition { index: partition.index, ..FetchedPartition::default() }
                }
                Err(error) => FetchedPartition {
                    index: partition.index,
                    error: error.code(),
                    ..FetchedPartition::default()
                },
            });
        }
        self.topics.push(fetched);
    }

    fn respond(mut self, found: Vec<FetchPartitionResponse>) -> FetchResponse {
        for ((topic, partition), found) in self.places.into_iter().zip(found) {
            let place = &mut self.topics[topic].partitions[partition];
            if found.error != ErrorCode::None {
                place.error = KafkaError::from(found.error).code();
                continue;
            }
            place.high_watermark = found.high_watermark.0.cast_signed();
            place.last_stable_offset = place.high_watermark;
            place.log_start_offset = found.log_start_offset.0.cast_signed();
            place.aborted_transactions = self.tells_aborted.then(Vec::new);
            place.records = found.batches;
        }
        FetchResponse { topics: self.topics, ..FetchResponse::default() }
    }
}

fn translate(topic: TopicId, partition: &FetchPartition) -> Result<api::FetchPartition, KafkaError> {
    let offset = u64::try_from(partition.fetch_offset).map_err(|_| KafkaError::OffsetOutOfRange)?;
    Ok(api::FetchPartition {
        topic,
        partition: index_of(partition.index)?,
        offset: Offset(offset),
        max_bytes: unsigned(partition.max_bytes),
        leader_epoch: u32::try_from(partition.current_leader_epoch).ok().map(LeaderEpoch),
    })
}

/// Less than nothing counts as nothing.
fn unsigned(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}
