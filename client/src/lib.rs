//! The Rust client SDK of Corrente.
#![deny(missing_docs)]

mod admin;
mod client;
mod consumer;
pub mod core;
mod error;
mod producer;
mod record;
mod transport;

pub use admin::{Admin, NewTopic, PartitionOffset, TopicChanges, TopicDescription};
pub use client::{Client, ClientBuilder};
pub use consumer::{Batch, Consumer, ConsumerBuilder, Delivery};
pub use core::RetryPolicy;
pub use core::accumulator::{CloseReport, Partitioner};
pub use core::call::Produced;
pub use core::completion::{BatchTicket, Receipt, ReceiptRange, Ticket};
pub use core::fetch::{OutOfRange, StartOffset};
pub use corrente_protocol::api::{
    MetadataResponse, NodeEndpoint, OffsetSpec, PartitionDescription, PartitionMetadata, TopicConfigEntry,
    TopicMetadata,
};
pub use corrente_protocol::compression::Compression;
pub use corrente_protocol::error_code::ErrorCode;
pub use corrente_protocol::frame::Durability;
pub use corrente_protocol::ids::{NodeId, Offset, PartitionIndex, TopicId, TopicName};
pub use corrente_protocol::record::{Header, RecordView};
pub use corrente_protocol::record_batch::RecordBatchBuilder;
pub use error::{Error, ErrorKind};
pub use producer::{Producer, ProducerBuilder};
pub use record::Record;
