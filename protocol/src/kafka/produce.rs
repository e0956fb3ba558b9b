//! Append record batches.

use bytes::Bytes;

use super::topic_name::walk_topic;
use super::{ApiKey, DecodeError, Fields, Message};

/// Record batches for some partitions.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ProduceRequest {
    /// The transaction that the records belong to.
    pub transactional_id: Option<String>,
    /// When to answer: 0 not at all, 1 when the leader has them, -1 when every in-sync replica has.
    pub acks: i16,
    /// How long the client waits, in ms.
    pub timeout_ms: i32,
    /// By topic.
    pub topics: Vec<ProduceTopic>,
}

/// One topic's part of it.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ProduceTopic {
    /// The topic's name, below version 13.
    pub name: String,
    /// The topic's id, from then on.
    pub id: [u8; 16],
    /// By partition.
    pub partitions: Vec<ProducePartition>,
}

/// One partition's part of it.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ProducePartition {
    /// Which one.
    pub index: i32,
    /// The batches, one behind the other.
    pub records: Vec<Bytes>,
}

/// What became of them.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ProduceResponse {
    /// By topic.
    pub topics: Vec<ProducedTopic>,
    /// How long the broker held the answer back, in ms.
    pub throttle_ms: i32,
}

/// One topic's part of it.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ProducedTopic {
    /// As in the request.
    pub name: String,
    /// As in the request.
    pub id: [u8; 16],
    /// By partition.
    pub partitions: Vec<ProducedPartition>,
}

/// One partition's part of it.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ProducedPartition {
    /// Which one.
    pub index: i32,
    /// 0, or why nothing was appended.
    pub error: i16,
    /// The offset of the first record, or -1.
    pub base_offset: i64,
    /// The time the broker gave to the records in ms, or -1.
    pub log_append_time_ms: i64,
    /// Where the log begins, or -1.
    pub log_start_offset: i64,
    /// Batches that were the reason, of which none is told of.
    pub record_errors: Vec<RecordError>,
    /// One line about the error.
    pub error_message: Option<String>,
}

/// What is wrong with one batch.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct RecordError {
    /// Which, from 0.
    pub batch_index: i32,
    /// One line about it.
    pub message: Option<String>,
}

impl Message for ProduceRequest {
    const API: ApiKey = ApiKey::Produce;

    fn walk<F: Fields>(&mut self, version: i16, fields: &mut F) -> Result<(), DecodeError> {
        fields.nullable_string(&mut self.transactional_id)?;
        fields.i16(&mut self.acks)?;
        fields.i32(&mut self.timeout_ms)?;
        fields.list(&mut self.topics, |topic, fields| {
            walk_topic(&mut topic.name, &mut topic.id, version, fields)?;
            fields.list(&mut topic.partitions, |partition, fields| {
                fields.i32(&mut partition.index)?;
                fields.records(&mut partition.records)?;
                fields.tags()
            })?;
            fields.tags()
        })?;
        fields.tags()
    }
}

impl ProduceResponse {
    /// The code of the first refusal, if any append was refused.
    pub fn first_error(&self) -> Option<i16> {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.map(|partition| partition.error).find(|code| *code != 0)
    }
}

impl Message for ProduceResponse {
    const API: ApiKey = ApiKey::Produce;

    fn walk<F: Fields>(&mut self, version: i16, fields: &mut F) -> Result<(), DecodeError> {
        fields.list(&mut self.topics, |topic, fields| {
            walk_topic(&mut topic.name, &mut topic.id, version, fields)?;
            fields.list(&mut topic.partitions, |partition, fields| partition.walk(version, fields))?;
            fields.tags()
        })?;
        fields.i32(&mut self.throttle_ms)?;
        fields.tags()
    }
}

impl ProducedPartition {
    fn walk<F: Fields>(&mut self, version: i16, fields: &mut F) -> Result<(), DecodeError> {
        fields.i32(&mut self.index)?;
        fields.i16(&mut self.error)?;
        fields.i64(&mut self.base_offset)?;
        fields.i64(&mut self.log_append_time_ms)?;
        if version >= 5 {
            fields.i64(&mut self.log_start_offset)?;
        }
        if version >= 8 {
            fields.list(&mut self.record_errors, |error, fields| {
                fields.i32(&mut error.batch_index)?;
                fields.nullable_string(&mut error.message)?;
                fields.tags()
            })?;
            fields.nullable_string(&mut self.error_message)?;
        }
        fields.tags()
    }
}
