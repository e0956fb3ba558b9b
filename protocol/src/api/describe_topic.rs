//! All that is known of one topic: its configuration, and for each partition where it lies and how far it reaches.

use std::fmt;

use super::{ApiKey, Message, Request, put_message, read_error, read_message};
use crate::error_code::ErrorCode;
use crate::ids::{LeaderEpoch, NodeId, Offset, PartitionIndex, ShardId, TopicId};
use crate::wire::{DecodeError, Reader, TaggedWriter, Writer};

/// Tag of [`PartitionDescription::state`]; left out where it is online.
const TAG_STATE: u16 = 0;
/// Tag of [`PartitionDescription::reason`].
const TAG_REASON: u16 = 1;

/// The topic to describe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribeTopicRequest {
    /// Its name.
    pub name: String,
}

/// The topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribeTopicResponse {
    /// Why it is not described, or [`ErrorCode::None`].
    pub error: ErrorCode,
    /// More about the error.
    pub message: Option<String>,
    /// Its id; [`TopicId::NIL`] with an error.
    pub id: TopicId,
    /// Every known configuration key, in order of the keys.
    pub configs: Vec<TopicConfigEntry>,
    /// Its partitions, in order of their index.
    pub partitions: Vec<PartitionDescription>,
}

/// One configuration key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicConfigEntry {
    /// The key.
    pub key: String,
    /// The value in force.
    pub value: String,
    /// Whether that is the default, not set for this topic.
    pub is_default: bool,
}

/// One partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionDescription {
    /// Its number within the topic.
    pub index: PartitionIndex,
    /// The node that leads it, or [`NodeId::NONE`].
    pub leader: NodeId,
    /// The shard of that node.
    pub shard: ShardId,
    /// The leadership.
    pub leader_epoch: LeaderEpoch,
    /// The first offset that the log still holds.
    pub log_start_offset: Offset,
    /// One past the last record that may be read at present.
    pub high_watermark: Offset,
    /// One past the last record in the log.
    pub log_end_offset: Offset,
    /// Bytes of record batches in the log.
    pub size_bytes: u64,
    /// The directory of the leader that holds it.
    pub data_dir: String,
    /// Why it cannot be used at present, or [`ErrorCode::None`].
    pub error: ErrorCode,
    /// What it can be used for.
    pub state: PartitionState,
    /// Why it is not online, in one line.
    pub reason: Option<String>,
}

impl PartitionDescription {
    /// Online, with nothing in it and led by nobody.
    pub fn nothing_known(index: PartitionIndex) -> PartitionDescription {
        PartitionDescription {
            index,
            leader: NodeId::NONE,
            shard: ShardId::ANY,
            leader_epoch: LeaderEpoch(0),
            log_start_offset: Offset::ZERO,
            high_watermark: Offset::ZERO,
            log_end_offset: Offset::ZERO,
            size_bytes: 0,
            data_dir: String::new(),
            error: ErrorCode::None,
            state: PartitionState::Online,
            reason: None,
        }
    }
}

/// What a partition can be used for at present.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[non_exhaustive]
pub enum PartitionState {
    /// Everything.
    #[default]
    Online,
    /// Reading: a write failed, and until a restart nothing is appended.
    Fenced,
    /// Reading what is whole: records are damaged, and nothing is appended.
    Quarantined,
    /// Nothing.
    Offline,
    /// A state that this build does not know.
    Unknown(u8),
}

impl PartitionState {
    /// The number on the wire.
    pub const fn code(self) -> u8 {
        match self {
            PartitionState::Online => 0,
            PartitionState::Fenced => 1,
            PartitionState::Quarantined => 2,
            PartitionState::Offline => 3,
            PartitionState::Unknown(number) => number,
        }
    }

    /// The state with this number.
    pub const fn from_code(number: u8) -> PartitionState {
        match number {
            0 => PartitionState::Online,
            1 => PartitionState::Fenced,
            2 => PartitionState::Quarantined,
            3 => PartitionState::Offline,
            _ => PartitionState::Unknown(number),
        }
    }

    /// The name used in output.
    pub const fn name(self) -> &'static str {
        match self {
            PartitionState::Online => "online",
            PartitionState::Fenced => "fenced",
            PartitionState::Quarantined => "quarantined",
            PartitionState::Offline => "offline",
            PartitionState::Unknown(_) => "unknown",
        }
    }
}

impl fmt::Display for PartitionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Request for DescribeTopicRequest {
    const API: ApiKey = ApiKey::DescribeTopic;
    type Response = DescribeTopicResponse;
}

impl Message for DescribeTopicRequest {
    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_str(&self.name);
        writer.put_no_tags();
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<DescribeTopicRequest, DecodeError> {
        let name = reader.string()?;
        reader.tagged(|_, _| Ok(false))?;
        Ok(DescribeTopicRequest { name })
    }
}

impl Message for DescribeTopicResponse {
    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_u16(self.error.code());
        writer.put_uuid(self.id.0);
        writer.put_list(&self.configs, |w, config| config.encode(w));
        writer.put_list(&self.partitions, |w, partition| partition.encode(w));
        put_message(self.message.as_deref(), writer);
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<DescribeTopicResponse, DecodeError> {
        Ok(DescribeTopicResponse {
            error: read_error(reader)?,
            id: TopicId(reader.uuid()?),
            configs: reader.list(TopicConfigEntry::LEN_MIN, TopicConfigEntry::read)?,
            partitions: reader.list(PartitionDescription::LEN_MIN, PartitionDescription::read)?,
            message: read_message(reader)?,
        })
    }
}

impl TopicConfigEntry {
    const LEN_MIN: usize = 4 + 4 + 1 + 2;

    fn encode(&self, w: &mut Writer) {
        w.put_str(&self.key);
        w.put_str(&self.value);
        w.put_bool(self.is_default);
        w.put_no_tags();
    }

    fn read(r: &mut Reader) -> Result<TopicConfigEntry, DecodeError> {
        let config = TopicConfigEntry { key: r.string()?, value: r.string()?, is_default: r.bool()? };
        r.tagged(|_, _| Ok(false))?;
        Ok(config)
    }
}

impl PartitionDescription {
    const LEN_MIN: usize = 4 + 4 + 2 + 4 + 8 + 8 + 8 + 8 + 4 + 2 + 2;

    fn encode(&self, w: &mut Writer) {
        w.put_u32(self.index.0);
        w.put_u32(self.leader.0);
        w.put_u16(self.shard.0);
        w.put_u32(self.leader_epoch.0);
        w.put_u64(self.log_start_offset.0);
        w.put_u64(self.high_watermark.0);
        w.put_u64(self.log_end_offset.0);
        w.put_u64(self.size_bytes);
        w.put_str(&self.data_dir);
        w.put_u16(self.error.code());
        let mut tags = TaggedWriter::new();
        if self.state != PartitionState::Online {
            tags.field(TAG_STATE, |w| w.put_u8(self.state.code()));
        }
        if let Some(reason) = &self.reason {
            tags.field(TAG_REASON, |w| w.put_str(reason));
        }
        tags.finish(w);
    }

    fn read(r: &mut Reader) -> Result<PartitionDescription, DecodeError> {
        let mut partition = PartitionDescription {
            index: PartitionIndex(r.u32()?),
            leader: NodeId(r.u32()?),
            shard: ShardId(r.u16()?),
            leader_epoch: LeaderEpoch(r.u32()?),
            log_start_offset: Offset(r.u64()?),
            high_watermark: Offset(r.u64()?),
            log_end_offset: Offset(r.u64()?),
            size_bytes: r.u64()?,
            data_dir: r.string()?,
            error: read_error(r)?,
            state: PartitionState::Online,
            reason: None,
        };
        r.tagged(|tag, value| {
            match tag {
                TAG_STATE => partition.state = PartitionState::from_code(value.u8()?),
                TAG_REASON => partition.reason = Some(value.string()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(partition)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{any_error, any_message, any_text, any_topic, assert_survives};
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    prop_compose! {
        fn any_config()(key in any_text(), value in any_text(), is_default: bool) -> TopicConfigEntry {
            TopicConfigEntry { key, value, is_default }
        }
    }

    prop_compose! {
        fn any_partition()(index: u32, leader: u32, shard: u16, epoch: u32, start: u64, high_watermark: u64, end: u64,
            size_bytes: u64, data_dir in any_text(), error in any_error(), state: u8, reason in any_message())
            -> PartitionDescription
        {
            PartitionDescription {
                index: PartitionIndex(index), leader: NodeId(leader), shard: ShardId(shard),
                leader_epoch: LeaderEpoch(epoch), log_start_offset: Offset(start),
                high_watermark: Offset(high_watermark), log_end_offset: Offset(end), size_bytes, data_dir, error,
                state: PartitionState::from_code(state), reason,
            }
        }
    }

    #[test]
    fn every_state_survives() {
        for number in 0..=u8::MAX {
            assert_eq!(PartitionState::from_code(number).code(), number);
        }
    }

    proptest! {
        #[test]
        fn request_survives(name in any_text()) {
            assert_survives(&DescribeTopicRequest { name });
        }

        #[test]
        fn response_survives(error in any_error(), message in any_message(), id in any_topic(),
            configs in vec(any_config(), 0..3), partitions in vec(any_partition(), 0..3))
        {
            assert_survives(&DescribeTopicResponse { error, message, id, configs, partitions });
        }
    }
}
