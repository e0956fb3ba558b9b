//! The simulated driver: whole nodes in one thread, by one seed, in virtual time.
//!
//! `executor`, `file`, `socket`, `timer`, `random`, `offload` and `host` mirror the production driver.
//! Under them stand `world` (clock, chance, scheduling, trace), `network` and `disk`. Faults are
//! controlled from [`crate::sim`]; nothing here looks at the real clock, disk, network or entropy.
//!
//! One rule keeps re-entrance harmless: no waker is woken, no task polled and nothing of a user
//! dropped while a cell of the world is borrowed.

pub(crate) mod context;
pub(crate) mod counters;
pub(crate) mod disk;
pub(crate) mod executor;
pub(crate) mod fate;
pub(crate) mod fault;
pub(crate) mod file;
pub(crate) mod host;
pub(crate) mod image;
pub(crate) mod network;
pub(crate) mod offload;
pub(crate) mod operation;
pub(crate) mod pipe;
pub(crate) mod random;
pub(crate) mod socket;
pub(crate) mod task;
pub(crate) mod timer;
pub(crate) mod trace;
pub(crate) mod tree;
pub(crate) mod world;
