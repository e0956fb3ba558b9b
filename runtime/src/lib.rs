//! The one seam to kernel, clock and chance.
//!
//! Everything above this crate spawns, sleeps, reads, writes, connects and draws random numbers
//! through the concrete types here, and never learns whether a machine or a simulated world
//! answers. Two drivers stand below: `uring` runs shards on glommio executors with a ring of their
//! own for files; [`sim`] runs whole nodes in one thread, by one seed, in virtual time.
//!
//! Owns: executors and their task queues, clocks, timers, random numbers, aligned buffers, files,
//! sockets, mailboxes between shards, worker threads. Never knows what a record is.

pub mod buffer;
mod driver;
pub mod executor;
pub mod file;
pub mod host;
pub mod mailbox;
pub mod offload;
pub mod random;
pub mod sim;
pub mod socket;
pub mod sync;
pub mod timer;
