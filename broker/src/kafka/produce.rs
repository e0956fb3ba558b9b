//! Produce: translated to the native request and back.

use std::rc::Rc;

use corrente_protocol::api::{ProducePartition, ProducePartitionResponse};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::frame::Durability;
use corrente_protocol::ids::{PartitionIndex, TopicId};
use corrente_protocol::kafka::produce::{
    ProduceRequest, ProduceResponse, ProduceTopic, ProducedPartition, ProducedTopic,
};
use corrente_protocol::kafka::{DecodeError, KafkaError, Message};
use corrente_runtime::executor::spawn;

use super::metadata::{Named, find_topic};
use super::{Answer, Request, Response};
use crate::handlers::produce::{Outcome, append_all};
use crate::shard::Shard;

/// Stands where there is no offset or time.
const NONE: i64 = -1;

/// Appends in the order of the request. Its memory is kept until the records are flushed.
pub async fn start(shard: &Rc<Shard>, request: Request) -> Result<Answer, DecodeError> {
    let Request { header, body, memory } = request;
    let request = ProduceRequest::decode(header.version, body)?;
    let durability = durability_of(request.acks);
    let mut plan = Plan::new(shard, request.topics, durability.is_none());
    let asked = std::mem::take(&mut plan.asked);
    let appends = append_all(shard, asked, durability.unwrap_or(Durability::Received), || None).await;
    let wants_answer = request.acks != 0;
    Ok(Box::pin(async move {
        let Outcome { partitions, unflushed, .. } = appends.acknowledged().await;
        spawn(async move {
            unflushed.flushed().await;
            drop(memory);
        })
        .detach();
        if wants_answer { Response::new(&header, plan.respond(partitions)) } else { Response::default() }
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
struct Plan {
    topics: Vec<ProducedTopic>,
    asked: Vec<ProducePartition>,
    /// Where in `topics` the outcome of each of `asked` goes.
    places: Vec<(usize, usize)>,
}

impl Plan {
    fn new(shard: &Shard, topics: Vec<ProduceTopic>, acks_are_wrong: bool) -> Plan {
        let mut plan =
            Plan { topics: Vec::with_capacity(topics.len()), asked: Vec::new(), places: Vec::new() };
        for topic in topics {
            let found = match acks_are_wrong {
                true => Err(KafkaError::InvalidRequiredAcks),
                false => find_topic(shard, Named::of_topic(&topic.name, topic.id)),
            };
            plan.add(topic, found);
        }
        plan
    }

    fn add(&mut self, topic: ProduceTopic, found: Result<TopicId, KafkaError>) {
        let mut produced = ProducedTopic { name: topic.name, id: topic.id, partitions: Vec::new() };
        for partition in topic.partitions {
            let place = (self.topics.len(), produced.partitions.len());
            let known = found.and_then(|id| Ok((id, index_of(partition.index)?)));
            produced.partitions.push(match known {
                Ok((topic, index)) => {
                    self.places.push(place);
                    let batches = partition.records.into_iter().next().unwrap_or_default();
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

/// A partition's number; Kafka's are signed.
pub(super) fn index_of(index: i32) -> Result<PartitionIndex, KafkaError> {
    u32::try_from(index).map(PartitionIndex).map_err(|_| KafkaError::UnknownTopicOrPartition)
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
