//! Find offsets by what they mean.

use super::{ApiKey, DecodeError, Fields, Message};

/// In the place of a timestamp: one past the last record.
pub const LATEST: i64 = -1;
/// In the place of a timestamp: the first record.
pub const EARLIEST: i64 = -2;
/// In the place of a timestamp: the record with the latest one (KIP-734).
pub const MAX_TIMESTAMP: i64 = -3;
/// In the place of a timestamp: the first record that is not in tiered storage (KIP-405).
pub const EARLIEST_LOCAL: i64 = -4;
/// In the place of a timestamp: the last record in tiered storage (KIP-1005).
pub const LATEST_TIERED: i64 = -5;

/// What to find.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ListOffsetsRequest {
    /// -1 for a client.
    pub replica_id: i32,
    /// 0: up to the high watermark; 1: up to the last stable offset.
    pub isolation_level: i8,
    /// By topic.
    pub topics: Vec<ListOffsetsTopic>,
    /// How long the client waits, in ms.
    pub timeout_ms: i32,
}

/// One topic's part of it.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ListOffsetsTopic {
    /// Its name.
    pub name: String,
    /// By partition.
    pub partitions: Vec<ListOffsetsPartition>,
}

/// One partition's part of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListOffsetsPartition {
    /// Which one.
    pub index: i32,
    /// The leader epoch that the client knows, or -1.
    pub current_leader_epoch: i32,
    /// A time in ms since 1970, or one of the constants above.
    pub timestamp_ms: i64,
}

impl Default for ListOffsetsPartition {
    fn default() -> ListOffsetsPartition {
        ListOffsetsPartition { index: 0, current_leader_epoch: -1, timestamp_ms: 0 }
    }
}

/// What was found.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ListOffsetsResponse {
    /// How long the broker held the answer back, in ms.
    pub throttle_ms: i32,
    /// By topic.
    pub topics: Vec<FoundTopic>,
}

/// One topic's part of it.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct FoundTopic {
    /// Its name.
    pub name: String,
    /// By partition.
    pub partitions: Vec<FoundPartition>,
}

/// One partition's part of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundPartition {
    /// Which one.
    pub index: i32,
    /// 0, or why nothing was found.
    pub error: i16,
    /// The record's time in ms, or -1.
    pub timestamp_ms: i64,
    /// The offset, or -1.
    pub offset: i64,
    /// The leader epoch of the record, or -1.
    pub leader_epoch: i32,
}

impl Default for FoundPartition {
    fn default() -> FoundPartition {
        FoundPartition { index: 0, error: 0, timestamp_ms: -1, offset: -1, leader_epoch: -1 }
    }
}

impl Message for ListOffsetsRequest {
    const API: ApiKey = ApiKey::ListOffsets;

    fn walk<F: Fields>(&mut self, version: i16, fields: &mut F) -> Result<(), DecodeError> {
        fields.i32(&mut self.replica_id)?;
        if version >= 2 {
            fields.i8(&mut self.isolation_level)?;
        }
        fields.list(&mut self.topics, |topic, fields| {
            fields.string(&mut topic.name)?;
            fields.list(&mut topic.partitions, |partition, fields| {
                fields.i32(&mut partition.index)?;
                if version >= 4 {
                    fields.i32(&mut partition.current_leader_epoch)?;
                }
                fields.i64(&mut partition.timestamp_ms)?;
                fields.tags()
            })?;
            fields.tags()
        })?;
        if version >= 10 {
            fields.i32(&mut self.timeout_ms)?;
        }
        fields.tags()
    }
}

impl Message for ListOffsetsResponse {
    const API: ApiKey = ApiKey::ListOffsets;

    fn walk<F: Fields>(&mut self, version: i16, fields: &mut F) -> Result<(), DecodeError> {
        if version >= 2 {
            fields.i32(&mut self.throttle_ms)?;
        }
        fields.list(&mut self.topics, |topic, fields| {
            fields.string(&mut topic.name)?;
            fields.list(&mut topic.partitions, |partition, fields| {
                fields.i32(&mut partition.index)?;
                fields.i16(&mut partition.error)?;
                fields.i64(&mut partition.timestamp_ms)?;
                fields.i64(&mut partition.offset)?;
                if version >= 4 {
                    fields.i32(&mut partition.leader_epoch)?;
                }
                fields.tags()
            })?;
            fields.tags()
        })?;
        fields.tags()
    }
}
