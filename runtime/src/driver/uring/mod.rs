//! The production driver: glommio runs the tasks, a ring of our own does the file I/O and waits for sockets, worker
//! threads do what would block.
//!
//! This is the only place of the house that may call the operating system.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the production driver is where clock, disk, network and threads are reached"
)]

pub(crate) mod cpu;
pub(crate) mod executor;
pub(crate) mod file;
pub(crate) mod offload;
mod path;
pub(crate) mod random;
mod readiness;
mod refusal;
mod ring;
mod slots;
pub(crate) mod socket;
mod tasks;
pub(crate) mod timer;
mod turn;
