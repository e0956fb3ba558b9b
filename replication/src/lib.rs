//! Decisions of replication and metadata as machines without I/O.
//!
//! Two halves. The **metadata plane** : commands become records, records
//! become an image that every shard reads. The **data plane** ([`replica`], [`isr`],
//! [`leader_epoch`]): one machine per replica is told what happened to its log and answers what may be
//! acknowledged and shown.
//!
//! Nothing in here reads a clock, draws a number, opens a file or waits: events go in, decisions come out,
//! and the same events give the same decisions.

pub mod isr;
pub mod leader_epoch;
pub mod replica;
