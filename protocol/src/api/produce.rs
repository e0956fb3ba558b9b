//! Append record batches to partitions. How safe they must be before the answer leaves is in the frame header.

use bytes::Bytes;

use super::{ApiKey, Message, Request, StageTimes, put_message, read_error, read_message};
use crate::error_code::ErrorCode;
use crate::frame::Durability;
use crate::ids::{Offset, PartitionIndex, TopicId};
use crate::wire::{DecodeError, Reader, TaggedWriter, Writer};

/// Tag of [`ProducePartition::expected_end_offset`].
const TAG_EXPECTED_END_OFFSET: u16 = 0;

/// Tag of [`ProduceRequest::wants_stage_times`], which has no value.
const TAG_WANTS_STAGE_TIMES: u16 = 0;

/// Tag of [`ProduceResponse::stage_times`].
const TAG_STAGE_TIMES: u16 = 0;

/// Record batches for some partitions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProduceRequest {
    /// Each succeeds or fails by itself. A partition that stands here twice is appended to in this order.
    pub partitions: Vec<ProducePartition>,
    /// The answer is to say where its time went.
    pub wants_stage_times: bool,
}

/// Record batches for one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProducePartition {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// Append only if the log ends here.
    pub expected_end_offset: Option<Offset>,
    /// At least one record batch, back to back; see [`crate::record_batch`]. Appended whole or not at all.
    pub batches: Bytes,
}

/// What became of each partition, in the order of the request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProduceResponse {
    /// One for each in the request.
    pub partitions: Vec<ProducePartitionResponse>,
    /// Where the time went, if that was asked for and anything was appended.
    pub stage_times: Option<StageTimes>,
}

/// What became of one partition's batches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProducePartitionResponse {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// Why they were not appended, or [`ErrorCode::None`].
    pub error: ErrorCode,
    /// More about the error.
    pub message: Option<String>,
    /// Offset of the first record; [`Offset::ZERO`] with an error.
    pub base_offset: Offset,
    /// One past the offset of the last record; with [`ErrorCode::UnexpectedEndOffset`] the end of the log instead.
    pub end_offset: Offset,
    /// The time the broker gave to the records, in ms since 1970, or -1 where they kept the producer's.
    pub log_append_time_ms: i64,
    /// The first offset that the log still holds.
    pub log_start_offset: Offset,
    /// What was reached when the answer left.
    pub receipt: Durability,
}

impl Request for ProduceRequest {
    const API: ApiKey = ApiKey::Produce;
    type Response = ProduceResponse;
}

impl ProduceRequest {
    /// Of these, without stage times.
    pub fn new(partitions: Vec<ProducePartition>) -> ProduceRequest {
        ProduceRequest { partitions, wants_stage_times: false }
    }
}

impl ProduceResponse {
    /// Of these, without stage times.
    pub fn new(partitions: Vec<ProducePartitionResponse>) -> ProduceResponse {
        ProduceResponse { partitions, stage_times: None }
    }
}

impl Message for ProduceRequest {
    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_list(&self.partitions, |w, partition| partition.encode(w));
        let mut tags = TaggedWriter::new();
        if self.wants_stage_times {
            tags.field(TAG_WANTS_STAGE_TIMES, |_| {});
        }
        tags.finish(writer);
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<ProduceRequest, DecodeError> {
        let partitions = reader.list(ProducePartition::LEN_MIN, ProducePartition::read)?;
        let mut wants_stage_times = false;
        reader.tagged(|tag, _| {
            wants_stage_times |= tag == TAG_WANTS_STAGE_TIMES;
            Ok(tag == TAG_WANTS_STAGE_TIMES)
        })?;
        Ok(ProduceRequest { partitions, wants_stage_times })
    }
}

impl ProducePartition {
    const LEN_MIN: usize = 16 + 4 + 4 + 2;

    fn encode(&self, w: &mut Writer) {
        w.put_uuid(self.topic.0);
        w.put_u32(self.partition.0);
        w.put_bytes(self.batches.clone());
        let mut tags = TaggedWriter::new();
        if let Some(offset) = self.expected_end_offset {
            tags.field(TAG_EXPECTED_END_OFFSET, |w| w.put_u64(offset.0));
        }
        tags.finish(w);
    }

    fn read(r: &mut Reader) -> Result<ProducePartition, DecodeError> {
        let mut partition = ProducePartition {
            topic: TopicId(r.uuid()?),
            partition: PartitionIndex(r.u32()?),
            batches: r.bytes()?,
            expected_end_offset: None,
        };
        r.tagged(|tag, value| {
            if tag == TAG_EXPECTED_END_OFFSET {
                partition.expected_end_offset = Some(Offset(value.u64()?));
            }
            Ok(tag == TAG_EXPECTED_END_OFFSET)
        })?;
        Ok(partition)
    }
}

impl Message for ProduceResponse {
    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_list(&self.partitions, |w, partition| partition.encode(w));
        let mut tags = TaggedWriter::new();
        if let Some(stage_times) = &self.stage_times {
            tags.field(TAG_STAGE_TIMES, |w| stage_times.encode(w));
        }
        tags.finish(writer);
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<ProduceResponse, DecodeError> {
        let partitions = reader.list(ProducePartitionResponse::LEN_MIN, ProducePartitionResponse::read)?;
        let mut stage_times = None;
        reader.tagged(|tag, value| {
            if tag == TAG_STAGE_TIMES {
                stage_times = Some(StageTimes::read(value)?);
            }
            Ok(tag == TAG_STAGE_TIMES)
        })?;
        Ok(ProduceResponse { partitions, stage_times })
    }
}

impl ProducePartitionResponse {
    const LEN_MIN: usize = 16 + 4 + 2 + 8 + 8 + 8 + 8 + 1 + 2;

    fn encode(&self, w: &mut Writer) {
        w.put_uuid(self.topic.0);
        w.put_u32(self.partition.0);
        w.put_u16(self.error.code());
        w.put_u64(self.base_offset.0);
        w.put_u64(self.end_offset.0);
        w.put_i64(self.log_append_time_ms);
        w.put_u64(self.log_start_offset.0);
        w.put_u8(self.receipt.code());
        put_message(self.message.as_deref(), w);
    }

    fn read(r: &mut Reader) -> Result<ProducePartitionResponse, DecodeError> {
        Ok(ProducePartitionResponse {
            topic: TopicId(r.uuid()?),
            partition: PartitionIndex(r.u32()?),
            error: read_error(r)?,
            base_offset: Offset(r.u64()?),
            end_offset: Offset(r.u64()?),
            log_append_time_ms: r.i64()?,
            log_start_offset: Offset(r.u64()?),
            receipt: read_durability(r)?,
            message: read_message(r)?,
        })
    }
}

fn read_durability(r: &mut Reader) -> Result<Durability, DecodeError> {
    let number = r.u8()?;
    Durability::from_code(number)
        .ok_or(DecodeError::UnknownChoice { what: "durability", number: number.into() })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{any_error, any_message, any_payload, any_topic, assert_survives};
    use super::*;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;
    use std::time::Duration;

    prop_compose! {
        fn any_partition()(topic in any_topic(), partition: u32, end: Option<u64>, batches in any_payload())
            -> ProducePartition
        {
            let expected_end_offset = end.map(Offset);
            ProducePartition { topic, partition: PartitionIndex(partition), expected_end_offset, batches }
        }
    }

    prop_compose! {
        fn any_partition_response()(topic in any_topic(), partition: u32, error in any_error(),
            message in any_message(), base: u64, end: u64, log_append_time_ms: i64, start: u64,
            receipt in 0_u8..4) -> ProducePartitionResponse
        {
            ProducePartitionResponse {
                topic, partition: PartitionIndex(partition), error, message, base_offset: Offset(base),
                end_offset: Offset(end), log_append_time_ms, log_start_offset: Offset(start),
                receipt: Durability::from_code(receipt).unwrap(),
            }
        }
    }

    #[test]
    fn batches_are_slices_of_the_body() {
        let batches = Bytes::from(vec![1; 5_000]);
        let partition = ProducePartition {
            topic: TopicId::NIL,
            partition: PartitionIndex(0),
            expected_end_offset: None,
            batches: batches.clone(),
        };
        let mut writer = Writer::new();
        ProduceRequest::new(vec![partition]).encode(0, &mut writer);
        let chunks = writer.finish();
        assert_eq!(chunks[1].as_ptr(), batches.as_ptr(), "written without a copy");
        let body = Bytes::from(chunks.concat());
        let read = ProduceRequest::decode(0, body.clone()).unwrap();
        assert_eq!(read.partitions[0].batches.as_ptr(), body[28..].as_ptr(), "read without a copy");
    }

    proptest! {
        #[test]
        fn request_survives(partitions in vec(any_partition(), 0..4), wants_stage_times: bool) {
            assert_survives(&ProduceRequest { partitions, wants_stage_times });
        }

        #[test]
        fn response_survives(partitions in vec(any_partition_response(), 0..4),
            stages in option::of(any::<[u64; 4]>()))
        {
            let stage_times = stages.map(|stages| {
                let [queue, disk, replication, send] = stages.map(Duration::from_nanos);
                StageTimes { queue, disk, replication, send }
            });
            assert_survives(&ProduceResponse { partitions, stage_times });
        }
    }
}
