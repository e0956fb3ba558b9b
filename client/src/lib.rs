//! The Rust client SDK of Corrente.
//!
//! One [`Client`] connects to a cluster and speaks straight to the core that leads each partition. From it come
//! [`Producer`]s, [`Consumer`]s and the [`Admin`]. All of them bound their memory, connect again by themselves, and
//! report trouble as the one [`Error`], on one line that says everything.
//!
//! ```no_run
//! use corrente_client::{Client, NewTopic, Record, StartOffset};
//! use futures_util::StreamExt;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), corrente_client::Error> {
//! let client = Client::builder(["127.0.0.1:7400"]).client_id("billing").connect().await?;
//! client.admin().create_topic(NewTopic::new("orders", 8)).await?;
//!
//! let orders = client.producer("orders").build().await?;
//! let ticket = orders.send(Record::value("two coffees").key("table 7")).await?; // waits for room only
//! let receipt = ticket.await?; // flushed on every in-sync replica
//! println!("stands in partition {} at offset {}", receipt.partition, receipt.offset);
//! let report = orders.close().await?; // sends what is left
//! assert_eq!(report.failed, 0);
//!
//! let mut consumer = client.consumer().topic("orders").from(StartOffset::Earliest).until_end().build().await?;
//! while let Some(delivery) = consumer.next().await {
//!     let delivery = delivery?;
//!     println!("{:?} at {}", delivery.value, delivery.offset);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! * A [`Ticket`] resolves to a receipt only when the broker has reached the durability that was asked for; the default
//!   is [`Durability::IsrFlushed`].
//! * Records of one partition are appended in the order they were sent. A batch whose acknowledgement was lost is sent
//!   again and still appended once, unless [`idempotent`](ProducerBuilder::idempotent) is off.
//! * Checksums of fetched batches are verified before any record is handed out.
//! * Every method says whether it is safe to cancel.
//!
//! # Inside
//!
//! [`core`] is the whole client without I/O, for simulators and other runtimes; this crate drives it on tokio.
#![deny(missing_docs)]

mod admin;
mod client;
mod consumer;
pub mod core;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod producer;
mod record;
mod transport;

pub use admin::{Admin, NewTopic, PartitionOffset, TopicChanges, TopicDescription};
pub use client::{Client, ClientBuilder};
pub use consumer::{Consumer, ConsumerBuilder, Delivery};
pub use core::RetryPolicy;
pub use core::accumulator::{CloseReport, Partitioner};
pub use core::call::Produced;
pub use core::completion::{BatchTicket, Receipt, ReceiptRange, Ticket};
pub use core::consume::{OutOfRange, StartOffset};
pub use core::inbox::Batch;
pub use corrente_protocol::api::{
    DeleteBefore, MetadataResponse, NodeEndpoint, OffsetSpec, PartitionDescription, PartitionMetadata,
    PartitionState, StageTimes, TopicConfigEntry, TopicMetadata,
};
pub use corrente_protocol::compression::Compression;
pub use corrente_protocol::error_code::ErrorCode;
pub use corrente_protocol::frame::Durability;
pub use corrente_protocol::ids::{NodeId, Offset, PartitionIndex, TopicId, TopicName};
pub use corrente_protocol::partitioner::partition_for_key;
pub use corrente_protocol::record::{Header, RecordView};
pub use corrente_protocol::record_batch::RecordBatchBuilder;
pub use error::{Error, ErrorKind};
pub use producer::{Producer, ProducerBuilder};
pub use record::Record;

/// The example in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
