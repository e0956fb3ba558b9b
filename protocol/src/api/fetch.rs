//! Read record batches from partitions, waiting a while for new ones if there are too few.

use bytes::Bytes;

use super::{ApiKey, Message, Request, put_message, read_error, read_message};
use crate::error_code::ErrorCode;
use crate::ids::{LeaderEpoch, Offset, PartitionIndex, TopicId};
use crate::wire::{DecodeError, Reader, TaggedWriter, Writer};

/// Tag of [`FetchPartition::leader_epoch`].
const TAG_LEADER_EPOCH: u16 = 0;

/// Where to read and how much.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchRequest {
    /// How long to wait for `min_bytes`, in milliseconds; 0 answers at once.
    pub max_wait_ms: u32,
    /// Answer as soon as this many bytes of batches are there; 0 answers at once.
    pub min_bytes: u32,
    /// At most this many bytes of batches in the whole answer, but for the first batch, which always comes whole.
    pub max_bytes: u32,
    /// Served in this order while there is room.
    pub partitions: Vec<FetchPartition>,
}

/// Where to read in one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchPartition {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// The first record wanted.
    pub offset: Offset,
    /// At most this many bytes of batches from this partition, but for the first batch.
    pub max_bytes: u32,
    /// The leader epoch the client knows; the broker refuses if its own is another.
    pub leader_epoch: Option<LeaderEpoch>,
}

/// What was read, in the order of the request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchResponse {
    /// One for each in the request.
    pub partitions: Vec<FetchPartitionResponse>,
}

/// What was read from one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchPartitionResponse {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// Why nothing was read, or [`ErrorCode::None`].
    pub error: ErrorCode,
    /// More about the error.
    pub message: Option<String>,
    /// One past the last record that may be read at present.
    pub high_watermark: Offset,
    /// The first offset that the log still holds.
    pub log_start_offset: Offset,
    /// Whole record batches in order. The first may begin before the offset asked for. They are one run of bytes on the
    /// wire: written from several pieces, read as one (or none, where there is nothing).
    pub batches: Vec<Bytes>,
}

impl Request for FetchRequest {
    const API: ApiKey = ApiKey::Fetch;
    type Response = FetchResponse;
}

impl Message for FetchRequest {
    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_u32(self.max_wait_ms);
        writer.put_u32(self.min_bytes);
        writer.put_u32(self.max_bytes);
        writer.put_list(&self.partitions, |w, partition| partition.encode(w));
        writer.put_no_tags();
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<FetchRequest, DecodeError> {
        let request = FetchRequest {
            max_wait_ms: reader.u32()?,
            min_bytes: reader.u32()?,
            max_bytes: reader.u32()?,
            partitions: reader.list(FetchPartition::LEN_MIN, FetchPartition::read)?,
        };
        reader.tagged(|_, _| Ok(false))?;
        Ok(request)
    }
}

impl FetchPartition {
    const LEN_MIN: usize = 16 + 4 + 8 + 4 + 2;

    fn encode(&self, w: &mut Writer) {
        w.put_uuid(self.topic.0);
        w.put_u32(self.partition.0);
        w.put_u64(self.offset.0);
        w.put_u32(self.max_bytes);
        let mut tags = TaggedWriter::new();
        if let Some(epoch) = self.leader_epoch {
            tags.field(TAG_LEADER_EPOCH, |w| w.put_u32(epoch.0));
        }
        tags.finish(w);
    }

    fn read(r: &mut Reader) -> Result<FetchPartition, DecodeError> {
        let mut partition = FetchPartition {
            topic: TopicId(r.uuid()?),
            partition: PartitionIndex(r.u32()?),
            offset: Offset(r.u64()?),
            max_bytes: r.u32()?,
            leader_epoch: None,
        };
        r.tagged(|tag, value| {
            if tag == TAG_LEADER_EPOCH {
                partition.leader_epoch = Some(LeaderEpoch(value.u32()?));
            }
            Ok(tag == TAG_LEADER_EPOCH)
        })?;
        Ok(partition)
    }
}

impl Message for FetchResponse {
    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_list(&self.partitions, |w, partition| partition.encode(w));
        writer.put_no_tags();
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<FetchResponse, DecodeError> {
        let partitions = reader.list(FetchPartitionResponse::LEN_MIN, FetchPartitionResponse::read)?;
        reader.tagged(|_, _| Ok(false))?;
        Ok(FetchResponse { partitions })
    }
}

impl FetchPartitionResponse {
    const LEN_MIN: usize = 16 + 4 + 2 + 8 + 8 + 4 + 2;

    fn encode(&self, w: &mut Writer) {
        w.put_uuid(self.topic.0);
        w.put_u32(self.partition.0);
        w.put_u16(self.error.code());
        w.put_u64(self.high_watermark.0);
        w.put_u64(self.log_start_offset.0);
        w.put_bytes_joined(&self.batches);
        put_message(self.message.as_deref(), w);
    }

    fn read(r: &mut Reader) -> Result<FetchPartitionResponse, DecodeError> {
        Ok(FetchPartitionResponse {
            topic: TopicId(r.uuid()?),
            partition: PartitionIndex(r.u32()?),
            error: read_error(r)?,
            high_watermark: Offset(r.u64()?),
            log_start_offset: Offset(r.u64()?),
            batches: Some(r.bytes()?).filter(|run| !run.is_empty()).into_iter().collect(),
            message: read_message(r)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{any_error, any_message, any_payload, any_topic, assert_survives};
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    prop_compose! {
        fn any_partition()(topic in any_topic(), partition: u32, offset: u64, max_bytes: u32, epoch: Option<u32>)
            -> FetchPartition
        {
            let leader_epoch = epoch.map(LeaderEpoch);
            let partition = PartitionIndex(partition);
            FetchPartition { topic, partition, offset: Offset(offset), max_bytes, leader_epoch }
        }
    }

    prop_compose! {
        fn any_partition_response()(topic in any_topic(), partition: u32, error in any_error(),
            message in any_message(), high_watermark: u64, start: u64, run in any_payload()) -> FetchPartitionResponse
        {
            FetchPartitionResponse {
                topic, partition: PartitionIndex(partition), error, message, high_watermark: Offset(high_watermark),
                log_start_offset: Offset(start), batches: Some(run).filter(|run| !run.is_empty()).into_iter().collect(),
            }
        }
    }

    #[test]
    fn many_pieces_are_read_as_one_run() {
        let response = |batches| FetchResponse {
            partitions: vec![FetchPartitionResponse {
                topic: TopicId::NIL,
                partition: PartitionIndex(3),
                error: ErrorCode::None,
                message: None,
                high_watermark: Offset(9),
                log_start_offset: Offset::ZERO,
                batches,
            }],
        };
        let mut writer = Writer::new();
        response(vec![Bytes::from_static(b"one"), Bytes::from(vec![2; 3_000]), Bytes::from_static(b"three")])
            .encode(0, &mut writer);
        let read = FetchResponse::decode(0, Bytes::from(writer.finish().concat())).unwrap();
        let run = [&b"one"[..], &[2; 3_000], b"three"].concat();
        assert_eq!(read, response(vec![Bytes::from(run)]));
    }

    proptest! {
        #[test]
        fn request_survives(
            max_wait_ms: u32,
            min_bytes: u32,
            max_bytes: u32,
            partitions in vec(any_partition(), 0..4),
        ) {
            assert_survives(&FetchRequest { max_wait_ms, min_bytes, max_bytes, partitions });
        }

        #[test]
        fn response_survives(partitions in vec(any_partition_response(), 0..4)) {
            assert_survives(&FetchResponse { partitions });
        }
    }
}
