//! The broker: shards, the native listener, partitions.
//!
//! A produce request walks down these files and its answer back up: `native` cuts the frame,
//! `handlers/produce` finds the partition's home, `shard` makes the one possible hop between cores,
//! `partition` joins the log and the replica. Nothing below calls up.

mod acknowledgements;
mod awaiting_room;
mod boot;
pub mod byte_size;
mod call;
pub mod config;
mod connection;
mod connections;
mod controller;
mod error;
mod handlers;
mod histogram;
mod kafka;
mod listener;
mod memory;
mod meters;
mod native;
mod node;
pub mod offline;
mod optional_address;
mod outbox;
mod partition;
mod producer_ids;
mod reconcile;
mod report;
mod shard;
mod subscriptions;
mod topology;
pub mod trial;

#[doc(hidden)]
pub mod fuzz {
    //! Entries for fuzzing, by the names of their targets. Not part of the api; the rules are those of
    //! `corrente_protocol::fuzz`.
    use corrente_protocol::fuzz::Entry;

    pub use crate::config::fuzz_config as config;

    /// Every entry of this crate.
    pub const ENTRIES: &[Entry] = &[("config", config)];
}

pub use config::{Config, ConfigError, ConfigFile, Overrides, Placement};
pub use histogram::HistogramReport;
pub use meters::MetersReport;
pub use node::{Addresses, Endpoint, Node, ShutdownHandle, StartError};
pub use report::{DataDirReport, MemoryReport, NodeReport, PartitionCounts, ReportHandle, ShardReport};
