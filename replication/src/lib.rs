//! Decisions of replication and metadata as machines without I/O.
//!
//! Two halves. The **metadata plane** ([`metadata`], [`controller`]): commands become records, records
//! become an [`Image`](metadata::Image) that every shard reads. The **data plane** ([`replica`], [`isr`],
//! [`leader_epoch`]): one machine per replica is told what happened to its log and answers what may be
//! acknowledged and shown.
//!
//! Nothing in here reads a clock, draws a number, opens a file or waits: events go in, decisions come out,
//! and the same events give the same decisions.

pub mod controller;
#[doc(hidden)]
pub mod fuzz;
pub mod isr;
pub mod leader_epoch;
pub mod metadata;
pub mod replica;
pub mod topic_config;
