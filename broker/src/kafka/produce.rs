//! Produce: translated to the native request and back.

use std::rc::Rc;

use corrente_protocol::api::{ProducePartition, ProducePartitionResponse};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::frame::Durability;
use corrente_protocol::ids::TopicId;
use corrente_protocol::kafka::produce::{
    ProduceRequest, ProduceResponse, ProduceTopic, ProducedPartition, ProducedTopic,
};
use corrente_protocol::kafka::{DecodeError, KafkaError, Message};
use corrente_runtime::executor::spawn;

use super::names::{Named, find_topic, index_of};
use super::{Answer, Client, Request, Response};
use crate::handlers::produce::{Outcome, append_all};
use crate::shard::Shard;

/// Stands where there is no offset or time.
const NONE: i64 = -1;

/// Appends in the order of the request. Its memory is kept until the records are flushed.
pub async fn start(shard: &Rc<Shard>, client: Client, request: Request) -> Result<Answer, DecodeError> {
    let Request { header, body, memory } = request;
    let request = ProduceRequest::decode(header.version, body)?;
    let Some(durability) = durability_of(request.acks) else {
        let refused = Plan::refusing(request.topics, KafkaError::InvalidRequiredAcks);
        return Ok(Box::pin(async move { Response::new(&header, refused.respond(Vec::new())) }));
    };
    let mut plan = Plan::new(shard, header.version, request.topics);
    let asked = std::mem::take(&mut plan.asked);
    let appends = append_all(shard, asked, durability, || None).await;
    let wants_answer = request.acks != 0;
    Ok(Box::pin(async move {
        let Outcome { partitions, unflushed, .. } = appends.acknowledged().await;
        spawn(async move {
            unflushed.flushed().await;
            drop(memory);
        })
        .detach();
        let response = plan.respond(partitions);
        if wants_answer {
            return Response::new(&header, response);
        }
        if let Some(error) = response.first_error() {
            // A client that wants no answers learns of a refusal by this alone, as from Kafka.
            let peer = client.connection.peer;
            tracing::info!(%peer, ?error, "connection closed: an append without an answer was refused");
            client.connection.start_draining();
        }
        Response::default()
    }))
}

/// What a client's acks come to: the topic's own level holds where it is higher.
fn durability_of(acks: i16) -> Option<Durability> {
    match acks {
        0 | 1 => Some(Durability::Received),
        -1 => Some(Durability::IsrFlushed),
        _ => None,
    }
}

/// A response in the making, and what is asked of the native handler for it.
#[derive(Default)]
struct Plan {
    topics: Vec<ProducedTopic>,
    asked: Vec<ProducePartition>,
    /// Where in `topics` the outcome of each of `asked` goes.
    places: Vec<(usize, usize)>,
}

impl Plan {
    fn new(shard: &Shard, version: i16, topics: Vec<ProduceTopic>) -> Plan {
        let mut plan = Plan::default();
        for topic in topics {
            let found = find_topic(shard, Named::in_version(version, &topic.name, topic.id));
            plan.add(topic, found);
        }
        plan
    }

    /// Nothing is asked of anybody.
    fn refusing(topics: Vec<ProduceTopic>, error: KafkaError) -> Plan {
        let mut plan = Plan::default();
        topics.into_iter().for_each(|topic| plan.add(topic, Err(error)));
        plan
    }

    fn add(&mut self, topic: ProduceTopic, found: Result<TopicId, KafkaError>) {
        let mut produced = ProducedTopic { name: topic.name, id: topic.id, partitions: Vec::new() };
        for partition in topic.partitions {
            let place = (self.topics.len(), produced.partitions.len());
            let batches = partition.records.into_iter().next().unwrap_or_default();
            let known = found.and_then(|id| {
                check_single(&batches)?;
                Ok((id, index_of(partition.index)?))
            });
            produced.partitions.push(match known {
                Ok((topic, index)) => {
                    self.places.push(place);
                    self.asked.push(ProducePartition {
                        topic,
                        partition: index,
                        expected_end_offset: None,
                        batches,
                    });
                    ProducedPartition { index: partition.index, ..ProducedPartition::default() }
                }
                Err(error) => refused(partition.index, error),
            });
        }
        self.topics.push(produced);
    }

    fn respond(mut self, outcomes: Vec<ProducePartitionResponse>) -> ProduceResponse {
        for ((topic, partition), outcome) in self.places.into_iter().zip(outcomes) {
            let place = &mut self.topics[topic].partitions[partition];
            *place = match outcome.error {
                ErrorCode::None => ProducedPartition {
                    index: place.index,
                    base_offset: outcome.base_offset.0.cast_signed(),
                    log_append_time_ms: outcome.log_append_time_ms,
                    log_start_offset: outcome.log_start_offset.0.cast_signed(),
                    ..ProducedPartition::default()
                },
                error => {
                    ProducedPartition { error_message: outcome.message, ..refused(place.index, error.into()) }
                }
            };
        }
        ProduceResponse { topics: self.topics, throttle_ms: 0 }
    }
}

/// A request has one batch for each partition, from version 3 on.
fn check_single(batches: &[u8]) -> Result<(), KafkaError> {
    const BEFORE_LENGTH: usize = 8;
    let Some(length) = batches.get(BEFORE_LENGTH..).and_then(|rest| rest.first_chunk()) else {
        return Ok(());
    };
    let rest = batches.len() - BEFORE_LENGTH - length.len();
    match usize::try_from(i32::from_be_bytes(*length)) {
        Ok(length) if length < rest => Err(KafkaError::InvalidRecord),
        // What is no batch is refused for what it is.
        _ => Ok(()),
    }
}

fn refused(index: i32, error: KafkaError) -> ProducedPartition {
    ProducedPartition {
        index,
        error: error.code(),
        base_offset: NONE,
        log_append_time_ms: NONE,
        log_start_offset: NONE,
        ..ProducedPartition::default()
    }
}
