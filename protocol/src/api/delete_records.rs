//! Raise the log start offset of partitions: the records before it are gone for every reader.

use super::{ApiKey, Message, Request, put_message, read_error, read_message};
use crate::error_code::ErrorCode;
use crate::ids::{Offset, PartitionIndex, TopicId};
use crate::wire::{DecodeError, Reader, Writer};

/// Up to where records are deleted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DeleteBefore {
    /// Those with smaller offsets.
    Offset(Offset),
    /// All that may be read when the request is served.
    HighWatermark,
}

/// Which records of which partitions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteRecordsRequest {
    /// Each succeeds or fails by itself.
    pub partitions: Vec<DeleteRecordsPartition>,
}

/// Which records of one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteRecordsPartition {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// Where the records to be kept begin.
    pub before: DeleteBefore,
}

/// What became of each partition, in the order of the request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteRecordsResponse {
    /// One for each in the request.
    pub partitions: Vec<DeleteRecordsPartitionResponse>,
}

/// What became of one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteRecordsPartitionResponse {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// Why nothing was deleted, or [`ErrorCode::None`].
    pub error: ErrorCode,
    /// More about the error.
    pub message: Option<String>,
    /// The first offset that the log still holds, flushed; [`Offset::ZERO`] with an error. Beyond the one asked for, if
    /// the log began later already.
    pub log_start_offset: Offset,
}

impl Request for DeleteRecordsRequest {
    const API: ApiKey = ApiKey::DeleteRecords;
    type Response = DeleteRecordsResponse;
}

impl DeleteBefore {
    const LEN: usize = 1 + 8;

    fn encode(self, w: &mut Writer) {
        let (kind, offset) = match self {
            DeleteBefore::Offset(offset) => (0, offset),
            DeleteBefore::HighWatermark => (1, Offset::ZERO),
        };
        w.put_u8(kind);
        w.put_u64(offset.0);
    }

    fn read(r: &mut Reader) -> Result<DeleteBefore, DecodeError> {
        let kind = r.u8()?;
        let offset = Offset(r.u64()?);
        match kind {
            0 => Ok(DeleteBefore::Offset(offset)),
            1 => Ok(DeleteBefore::HighWatermark),
            other => Err(DecodeError::UnknownChoice { what: "end of a deletion", number: other.into() }),
        }
    }
}

impl Message for DeleteRecordsRequest {
    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_list(&self.partitions, |w, partition| partition.encode(w));
        writer.put_no_tags();
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<DeleteRecordsRequest, DecodeError> {
        let partitions = reader.list(DeleteRecordsPartition::LEN_MIN, DeleteRecordsPartition::read)?;
        reader.tagged(|_, _| Ok(false))?;
        Ok(DeleteRecordsRequest { partitions })
    }
}

impl DeleteRecordsPartition {
    const LEN_MIN: usize = 16 + 4 + DeleteBefore::LEN + 2;

    fn encode(&self, w: &mut Writer) {
        w.put_uuid(self.topic.0);
        w.put_u32(self.partition.0);
        self.before.encode(w);
        w.put_no_tags();
    }

    fn read(r: &mut Reader) -> Result<DeleteRecordsPartition, DecodeError> {
        let partition = DeleteRecordsPartition {
            topic: TopicId(r.uuid()?),
            partition: PartitionIndex(r.u32()?),
            before: DeleteBefore::read(r)?,
        };
        r.tagged(|_, _| Ok(false))?;
        Ok(partition)
    }
}

impl Message for DeleteRecordsResponse {
    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_list(&self.partitions, |w, partition| partition.encode(w));
        writer.put_no_tags();
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<DeleteRecordsResponse, DecodeError> {
        let partitions =
            reader.list(DeleteRecordsPartitionResponse::LEN_MIN, DeleteRecordsPartitionResponse::read)?;
        reader.tagged(|_, _| Ok(false))?;
        Ok(DeleteRecordsResponse { partitions })
    }
}

impl DeleteRecordsPartitionResponse {
    const LEN_MIN: usize = 16 + 4 + 2 + 8 + 2;

    fn encode(&self, w: &mut Writer) {
        w.put_uuid(self.topic.0);
        w.put_u32(self.partition.0);
        w.put_u16(self.error.code());
        w.put_u64(self.log_start_offset.0);
        put_message(self.message.as_deref(), w);
    }

    fn read(r: &mut Reader) -> Result<DeleteRecordsPartitionResponse, DecodeError> {
        Ok(DeleteRecordsPartitionResponse {
            topic: TopicId(r.uuid()?),
            partition: PartitionIndex(r.u32()?),
            error: read_error(r)?,
            log_start_offset: Offset(r.u64()?),
            message: read_message(r)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{any_error, any_message, any_topic, assert_survives};
    use super::*;
    use bytes::Bytes;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn any_before() -> impl Strategy<Value = DeleteBefore> {
        prop_oneof![
            any::<u64>().prop_map(|offset| DeleteBefore::Offset(Offset(offset))),
            Just(DeleteBefore::HighWatermark),
        ]
    }

    prop_compose! {
        fn any_partition()(topic in any_topic(), partition: u32, before in any_before()) -> DeleteRecordsPartition {
            DeleteRecordsPartition { topic, partition: PartitionIndex(partition), before }
        }
    }

    prop_compose! {
        fn any_partition_response()(topic in any_topic(), partition: u32, error in any_error(),
            message in any_message(), start: u64) -> DeleteRecordsPartitionResponse
        {
            let partition = PartitionIndex(partition);
            DeleteRecordsPartitionResponse { topic, partition, error, message, log_start_offset: Offset(start) }
        }
    }

    #[test]
    fn an_end_that_is_none_is_refused() {
        let request = DeleteRecordsRequest {
            partitions: vec![DeleteRecordsPartition {
                topic: TopicId::NIL,
                partition: PartitionIndex(0),
                before: DeleteBefore::HighWatermark,
            }],
        };
        let mut writer = Writer::new();
        request.encode(0, &mut writer);
        let mut body = writer.finish().concat();
        assert_eq!(body[24], 1);
        body[24] = 2;
        let error = DeleteRecordsRequest::decode(0, Bytes::from(body)).unwrap_err();
        assert_eq!(error, DecodeError::UnknownChoice { what: "end of a deletion", number: 2 });
    }

    proptest! {
        #[test]
        fn request_survives(partitions in vec(any_partition(), 0..4)) {
            assert_survives(&DeleteRecordsRequest { partitions });
        }

        #[test]
        fn response_survives(partitions in vec(any_partition_response(), 0..4)) {
            assert_survives(&DeleteRecordsResponse { partitions });
        }
    }
}
