//! Find offsets by what they mean.

use super::{ApiKey, Message, Request, put_message, read_error, read_message};
use crate::error_code::ErrorCode;
use crate::ids::{LeaderEpoch, Offset, PartitionIndex, TopicId};
use crate::wire::{DecodeError, Reader, Writer};

/// Which offset is wanted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum OffsetSpec {
    /// The log start offset.
    Earliest,
    /// The high watermark.
    Latest,
    /// The first record with this timestamp or a later one, in ms since 1970.
    Timestamp(i64),
    /// The record with the latest timestamp.
    MaxTimestamp,
}

/// Which offsets of which partitions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListOffsetsRequest {
    /// Each is answered by itself.
    pub partitions: Vec<ListOffsetsPartition>,
}

/// Which offset of one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListOffsetsPartition {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// The offset wanted.
    pub spec: OffsetSpec,
}

/// The offsets, in the order of the request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListOffsetsResponse {
    /// One for each in the request.
    pub partitions: Vec<ListOffsetsPartitionResponse>,
}

/// The offset of one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListOffsetsPartitionResponse {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// Why there is no offset, or [`ErrorCode::None`].
    pub error: ErrorCode,
    /// More about the error.
    pub message: Option<String>,
    /// The offset; where no record is late enough, the high watermark.
    pub offset: Offset,
    /// The timestamp of the record there, in ms since 1970, or -1 where none was looked at.
    pub timestamp_ms: i64,
    /// The leader epoch of the answer.
    pub leader_epoch: LeaderEpoch,
}

impl Request for ListOffsetsRequest {
    const API: ApiKey = ApiKey::ListOffsets;
    type Response = ListOffsetsResponse;
}

impl OffsetSpec {
    const LEN: usize = 1 + 8;

    fn encode(self, w: &mut Writer) {
        let (kind, timestamp_ms) = match self {
            OffsetSpec::Earliest => (0, 0),
            OffsetSpec::Latest => (1, 0),
            OffsetSpec::Timestamp(timestamp_ms) => (2, timestamp_ms),
            OffsetSpec::MaxTimestamp => (3, 0),
        };
        w.put_u8(kind);
        w.put_i64(timestamp_ms);
    }

    fn read(r: &mut Reader) -> Result<OffsetSpec, DecodeError> {
        let kind = r.u8()?;
        let timestamp_ms = r.i64()?;
        match kind {
            0 => Ok(OffsetSpec::Earliest),
            1 => Ok(OffsetSpec::Latest),
            2 => Ok(OffsetSpec::Timestamp(timestamp_ms)),
            3 => Ok(OffsetSpec::MaxTimestamp),
            other => Err(DecodeError::UnknownChoice { what: "kind of offset", number: other.into() }),
        }
    }
}

impl Message for ListOffsetsRequest {
    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_list(&self.partitions, |w, partition| partition.encode(w));
        writer.put_no_tags();
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<ListOffsetsRequest, DecodeError> {
        let partitions = reader.list(ListOffsetsPartition::LEN_MIN, ListOffsetsPartition::read)?;
        reader.tagged(|_, _| Ok(false))?;
        Ok(ListOffsetsRequest { partitions })
    }
}

impl ListOffsetsPartition {
    const LEN_MIN: usize = 16 + 4 + OffsetSpec::LEN + 2;

    fn encode(&self, w: &mut Writer) {
        w.put_uuid(self.topic.0);
        w.put_u32(self.partition.0);
        self.spec.encode(w);
        w.put_no_tags();
    }

    fn read(r: &mut Reader) -> Result<ListOffsetsPartition, DecodeError> {
        let partition = ListOffsetsPartition {
            topic: TopicId(r.uuid()?),
            partition: PartitionIndex(r.u32()?),
            spec: OffsetSpec::read(r)?,
        };
        r.tagged(|_, _| Ok(false))?;
        Ok(partition)
    }
}

impl Message for ListOffsetsResponse {
    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_list(&self.partitions, |w, partition| partition.encode(w));
        writer.put_no_tags();
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<ListOffsetsResponse, DecodeError> {
        let partitions =
            reader.list(ListOffsetsPartitionResponse::LEN_MIN, ListOffsetsPartitionResponse::read)?;
        reader.tagged(|_, _| Ok(false))?;
        Ok(ListOffsetsResponse { partitions })
    }
}

impl ListOffsetsPartitionResponse {
    const LEN_MIN: usize = 16 + 4 + 2 + 8 + 8 + 4 + 2;

    fn encode(&self, w: &mut Writer) {
        w.put_uuid(self.topic.0);
        w.put_u32(self.partition.0);
        w.put_u16(self.error.code());
        w.put_u64(self.offset.0);
        w.put_i64(self.timestamp_ms);
        w.put_u32(self.leader_epoch.0);
        put_message(self.message.as_deref(), w);
    }

    fn read(r: &mut Reader) -> Result<ListOffsetsPartitionResponse, DecodeError> {
        Ok(ListOffsetsPartitionResponse {
            topic: TopicId(r.uuid()?),
            partition: PartitionIndex(r.u32()?),
            error: read_error(r)?,
            offset: Offset(r.u64()?),
            timestamp_ms: r.i64()?,
            leader_epoch: LeaderEpoch(r.u32()?),
            message: read_message(r)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{any_error, any_message, any_topic, assert_survives};
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn any_spec() -> impl Strategy<Value = OffsetSpec> {
        prop_oneof![
            Just(OffsetSpec::Earliest),
            Just(OffsetSpec::Latest),
            any::<i64>().prop_map(OffsetSpec::Timestamp),
            Just(OffsetSpec::MaxTimestamp),
        ]
    }

    prop_compose! {
        fn any_partition()(topic in any_topic(), partition: u32, spec in any_spec()) -> ListOffsetsPartition {
            ListOffsetsPartition { topic, partition: PartitionIndex(partition), spec }
        }
    }

    prop_compose! {
        fn any_partition_response()(topic in any_topic(), partition: u32, error in any_error(),
            message in any_message(), offset: u64, timestamp_ms: i64, epoch: u32) -> ListOffsetsPartitionResponse
        {
            ListOffsetsPartitionResponse {
                topic, partition: PartitionIndex(partition), error, message, offset: Offset(offset), timestamp_ms,
                leader_epoch: LeaderEpoch(epoch),
            }
        }
    }

    proptest! {
        #[test]
        fn request_survives(partitions in vec(any_partition(), 0..4)) {
            assert_survives(&ListOffsetsRequest { partitions });
        }

        #[test]
        fn response_survives(partitions in vec(any_partition_response(), 0..4)) {
            assert_survives(&ListOffsetsResponse { partitions });
        }
    }
}
