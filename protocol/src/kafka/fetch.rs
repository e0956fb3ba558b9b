//! Read record batches, waiting a while for new ones if there are too few.

use bytes::Bytes;

use super::topic_name::walk_topic;
use super::{ApiKey, DecodeError, Fields, Message};

/// The session of a fetch that names every partition and wants none (KIP-227).
pub const NO_SESSION: i32 = 0;

/// What to read, from where, and how long to wait for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchRequest {
    /// -1 for a client.
    pub replica_id: i32,
    /// How long to wait for `min_bytes`, in ms.
    pub max_wait_ms: i32,
    /// What is worth an answer before that time is over.
    pub min_bytes: i32,
    /// What the answer may hold, but for a first batch that is larger.
    pub max_bytes: i32,
    /// 0: up to the high watermark; 1: up to the last stable offset.
    pub isolation_level: i8,
    /// The session that it belongs to, or 0.
    pub session_id: i32,
    /// 0 begins a session, -1 wants none or ends one.
    pub session_epoch: i32,
    /// By topic: all there is to read, or in a session what has changed.
    pub topics: Vec<FetchTopic>,
    /// What leaves the session.
    pub forgotten: Vec<ForgottenTopic>,
    /// Where the client is.
    pub rack_id: String,
}

/// One topic's part of it.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct FetchTopic {
    /// The topic's name, below version 13.
    pub name: String,
    /// The topic's id, from then on.
    pub id: [u8; 16],
    /// By partition.
    pub partitions: Vec<FetchPartition>,
}

/// One partition's part of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchPartition {
    /// Which one.
    pub index: i32,
    /// The leader epoch that the client knows, or -1.
    pub current_leader_epoch: i32,
    /// From where.
    pub fetch_offset: i64,
    /// The epoch of the last record that the client has, or -1.
    pub last_fetched_epoch: i32,
    /// Where a follower's log begins, or -1.
    pub log_start_offset: i64,
    /// What the answer may hold of this partition.
    pub max_bytes: i32,
}

/// Partitions that leave a session.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ForgottenTopic {
    /// The topic's name, below version 13.
    pub name: String,
    /// The topic's id, from then on.
    pub id: [u8; 16],
    /// Which ones.
    pub partitions: Vec<i32>,
}

/// What was read.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct FetchResponse {
    /// How long the broker held the answer back, in ms.
    pub throttle_ms: i32,
    /// What concerns the whole request.
    pub error: i16,
    /// The session that was begun or gone on with, or 0.
    pub session_id: i32,
    /// By topic.
    pub topics: Vec<FetchedTopic>,
}

/// One topic's part of it.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct FetchedTopic {
    /// As in the request.
    pub name: String,
    /// As in the request.
    pub id: [u8; 16],
    /// By partition.
    pub partitions: Vec<FetchedPartition>,
}

/// One partition's part of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchedPartition {
    /// Which one.
    pub index: i32,
    /// 0, or why nothing was read.
    pub error: i16,
    /// Everything below can be read, or -1.
    pub high_watermark: i64,
    /// Everything below is of decided transactions, or -1.
    pub last_stable_offset: i64,
    /// Where the log begins, or -1.
    pub log_start_offset: i64,
    /// Transactions whose records are to be dropped; null if the client reads those as well.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// The replica that the client had better ask, or -1.
    pub preferred_read_replica: i32,
    /// Whole batches; the first may begin before the offset asked for.
    pub records: Vec<Bytes>,
}

/// A transaction that was given up.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct AbortedTransaction {
    /// Whose.
    pub producer_id: i64,
    /// Where it began.
    pub first_offset: i64,
}

impl Default for FetchRequest {
    fn default() -> FetchRequest {
        FetchRequest {
            replica_id: -1,
            max_wait_ms: 0,
            min_bytes: 0,
            max_bytes: i32::MAX,
            isolation_level: 0,
            session_id: NO_SESSION,
            session_epoch: -1,
            topics: Vec::new(),
            forgotten: Vec::new(),
            rack_id: String::new(),
        }
    }
}

impl Default for FetchPartition {
    fn default() -> FetchPartition {
        FetchPartition {
            index: 0,
            current_leader_epoch: -1,
            fetch_offset: 0,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            max_bytes: 0,
        }
    }
}

impl Default for FetchedPartition {
    fn default() -> FetchedPartition {
        FetchedPartition {
            index: 0,
            error: 0,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            aborted_transactions: None,
            preferred_read_replica: -1,
            records: Vec::new(),
        }
    }
}

impl Message for FetchRequest {
    const API: ApiKey = ApiKey::Fetch;

    fn walk<F: Fields>(&mut self, version: i16, fields: &mut F) -> Result<(), DecodeError> {
        if version < 15 {
            fields.i32(&mut self.replica_id)?;
        }
        fields.i32(&mut self.max_wait_ms)?;
        fields.i32(&mut self.min_bytes)?;
        fields.i32(&mut self.max_bytes)?;
        fields.i8(&mut self.isolation_level)?;
        if version >= 7 {
            fields.i32(&mut self.session_id)?;
            fields.i32(&mut self.session_epoch)?;
        }
        fields.list(&mut self.topics, |topic, fields| {
            walk_topic(&mut topic.name, &mut topic.id, version, fields)?;
            fields.list(&mut topic.partitions, |partition, fields| partition.walk(version, fields))?;
            fields.tags()
        })?;
        if version >= 7 {
            fields.list(&mut self.forgotten, |topic, fields| {
                walk_topic(&mut topic.name, &mut topic.id, version, fields)?;
                fields.list(&mut topic.partitions, |index, fields| fields.i32(index))?;
                fields.tags()
            })?;
        }
        if version >= 11 {
            fields.string(&mut self.rack_id)?;
        }
        fields.tags()
    }
}

impl FetchPartition {
    fn walk<F: Fields>(&mut self, version: i16, fields: &mut F) -> Result<(), DecodeError> {
        fields.i32(&mut self.index)?;
        if version >= 9 {
            fields.i32(&mut self.current_leader_epoch)?;
        }
        fields.i64(&mut self.fetch_offset)?;
        if version >= 12 {
            fields.i32(&mut self.last_fetched_epoch)?;
        }
        if version >= 5 {
            fields.i64(&mut self.log_start_offset)?;
        }
        fields.i32(&mut self.max_bytes)?;
        fields.tags()
    }
}

impl Message for FetchResponse {
    const API: ApiKey = ApiKey::Fetch;

    fn walk<F: Fields>(&mut self, version: i16, fields: &mut F) -> Result<(), DecodeError> {
        fields.i32(&mut self.throttle_ms)?;
        if version >= 7 {
            fields.i16(&mut self.error)?;
            fields.i32(&mut self.session_id)?;
        }
        fields.list(&mut self.topics, |topic, fields| {
            walk_topic(&mut topic.name, &mut topic.id, version, fields)?;
            fields.list(&mut topic.partitions, |partition, fields| partition.walk(version, fields))?;
            fields.tags()
        })?;
        fields.tags()
    }
}

impl FetchedPartition {
    fn walk<F: Fields>(&mut self, version: i16, fields: &mut F) -> Result<(), DecodeError> {
        fields.i32(&mut self.index)?;
        fields.i16(&mut self.error)?;
        fields.i64(&mut self.high_watermark)?;
        fields.i64(&mut self.last_stable_offset)?;
        if version >= 5 {
            fields.i64(&mut self.log_start_offset)?;
        }
        fields.nullable_list(&mut self.aborted_transactions, |aborted, fields| {
            fields.i64(&mut aborted.producer_id)?;
            fields.i64(&mut aborted.first_offset)?;
            fields.tags()
        })?;
        if version >= 11 {
            fields.i32(&mut self.preferred_read_replica)?;
        }
        fields.records(&mut self.records)?;
        fields.tags()
    }
}
