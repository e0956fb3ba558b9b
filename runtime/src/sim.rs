//! Simulated worlds: nodes with disk and address, faults on demand, one seed.
//!
//! A [`World`] runs everything in the calling thread. Code spawned on its nodes uses this crate as it
//! would in production; the same seed, configuration and code make the same run, byte for byte, which
//! [`World::trace_hash`] proves. A panic of a task ends the run and names the seed.

mod config;
mod node;
mod world;

pub use config::{CrashConfig, Delay, DiskConfig, NetworkConfig, WorldConfig};
pub use node::{Disk, DiskCounters, Node, NodeTask};
pub use world::{RunError, World};
