//! Have record batches sent as they come: one request, and answers to it for as long as the subscription goes on.
//!
//! Every answer is a [`FetchResponse`] with the partitions that have something new. All but the last carry
//! [`crate::frame::FLAG_MORE`]. How much may be on its way is the client's to say, in bytes of *credit*
//! ([`super::AdjustSubscriptionRequest`]): flow control by credits as links of AMQP 1.0 have it (section 2.6.7).

use std::ops::RangeInclusive;

use super::{ApiKey, FetchResponse, Message, Request};
use crate::ids::{LeaderEpoch, Offset, PartitionIndex, TopicId};
use crate::wire::{DecodeError, Reader, TaggedWriter, Writer};

/// Tag of [`SubscribePartition::leader_epoch`].
const TAG_LEADER_EPOCH: u16 = 0;

/// Tag of [`SubscribePartition::end`].
const TAG_END: u16 = 1;

/// Silences that a broker keeps, in milliseconds; others are moved to the nearer end.
pub const HEARTBEAT_MS: RangeInclusive<u32> = 100..=60_000;

/// From where on to send what comes, and how much.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubscribeRequest {
    /// The longest silence, in milliseconds, within [`HEARTBEAT_MS`]: after it comes an answer without a partition.
    pub heartbeat_ms: u32,
    /// Bytes of batches that may be sent before there is more credit. Batches are sent whole as long as any is left, so
    /// that the last one may overdraw it.
    pub credit: u32,
    /// At most this many bytes of batches in one answer, but for the first batch, which always comes whole.
    pub max_bytes: u32,
    /// They take turns; one that fails ends the subscription for all.
    pub partitions: Vec<SubscribePartition>,
}

/// Where to read in one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubscribePartition {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// The first record wanted.
    pub offset: Offset,
    /// The leader epoch the client knows; the broker refuses if its own is another.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Nothing that begins at this offset or later is wanted: once it is reached the partition is done.
    pub end: Option<Offset>,
}

impl Request for SubscribeRequest {
    const API: ApiKey = ApiKey::Subscribe;
    type Response = FetchResponse;
}

impl Message for SubscribeRequest {
    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_u32(self.heartbeat_ms);
        writer.put_u32(self.credit);
        writer.put_u32(self.max_bytes);
        writer.put_list(&self.partitions, |w, partition| partition.encode(w));
        writer.put_no_tags();
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<SubscribeRequest, DecodeError> {
        let request = SubscribeRequest {
            heartbeat_ms: reader.u32()?,
            credit: reader.u32()?,
            max_bytes: reader.u32()?,
            partitions: reader.list(SubscribePartition::LEN_MIN, SubscribePartition::read)?,
        };
        reader.tagged(|_, _| Ok(false))?;
        Ok(request)
    }
}

impl SubscribePartition {
    const LEN_MIN: usize = 16 + 4 + 8 + 2;

    fn encode(&self, w: &mut Writer) {
        w.put_uuid(self.topic.0);
        w.put_u32(self.partition.0);
        w.put_u64(self.offset.0);
        let mut tags = TaggedWriter::new();
        if let Some(epoch) = self.leader_epoch {
            tags.field(TAG_LEADER_EPOCH, |w| w.put_u32(epoch.0));
        }
        if let Some(end) = self.end {
            tags.field(TAG_END, |w| w.put_u64(end.0));
        }
        tags.finish(w);
    }

    fn read(r: &mut Reader) -> Result<SubscribePartition, DecodeError> {
        let mut partition = SubscribePartition {
            topic: TopicId(r.uuid()?),
            partition: PartitionIndex(r.u32()?),
            offset: Offset(r.u64()?),
            leader_epoch: None,
            end: None,
        };
        r.tagged(|tag, value| {
            match tag {
                TAG_LEADER_EPOCH => partition.leader_epoch = Some(LeaderEpoch(value.u32()?)),
                TAG_END => partition.end = Some(Offset(value.u64()?)),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(partition)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{any_topic, assert_survives};
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    prop_compose! {
        fn any_partition()(topic in any_topic(), partition: u32, offset: u64, epoch: Option<u32>, end: Option<u64>)
            -> SubscribePartition
        {
            let leader_epoch = epoch.map(LeaderEpoch);
            let partition = PartitionIndex(partition);
            SubscribePartition { topic, partition, offset: Offset(offset), leader_epoch, end: end.map(Offset) }
        }
    }

    proptest! {
        #[test]
        fn request_survives(
            heartbeat_ms: u32,
            credit: u32,
            max_bytes: u32,
            partitions in vec(any_partition(), 0..4),
        ) {
            assert_survives(&SubscribeRequest { heartbeat_ms, credit, max_bytes, partitions });
        }
    }
}
