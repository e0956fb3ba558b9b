//! Bytes and names of Corrente: record batches, frames, requests and responses, with no I/O.
//!
//! This crate owns what travels and what rests: the names of things ([`ids`]), the record batch that is the same on the
//! wire, on disk and in Kafka ([`record_batch`]), and the native protocol around it ([`hello`], [`frame`], [`api`]). It
//! never touches a socket, a file, a clock or a random source, and bytes from outside never make it panic or allocate
//! beyond what arrived. `docs/PROTOCOL.md` describes the same bytes for a stranger.

pub mod api;
pub mod compression;
pub mod error_code;
pub mod frame;
#[doc(hidden)]
pub mod fuzz;
pub mod hello;
pub mod ids;
pub mod kafka;
pub mod partitioner;
pub mod record;
pub mod record_batch;
pub mod wire;

pub use api::{ApiKey, ErrorResponse, Message, Request};
pub use compression::Compression;
pub use error_code::ErrorCode;
pub use frame::{Durability, RequestHeader, ResponseHeader};
pub use ids::{
    InvalidTopicName, LeaderEpoch, NodeId, Offset, PartitionIndex, ShardId, TopicId, TopicName,
    TopicPartition,
};
pub use wire::DecodeError;
