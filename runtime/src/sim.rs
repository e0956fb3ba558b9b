//! Simulated worlds: nodes with disk and address, faults on demand, one seed.
//!
//! A [`World`] runs everything in the calling thread. Code spawned on its nodes uses this crate as it
//! would in production; the same seed, configuration and code make the same run, byte for byte, which
//! [`World::trace_hash`] proves. A panic of a task ends the run and names the seed.
//!
//! ```
//! use corrente_runtime::{file, sim::{World, WorldConfig}, timer};
//! use std::{path::Path, time::Duration};
//!
//! let world = World::new(42, WorldConfig::default());
//! let node = world.node("north", [10, 0, 0, 1]);
//! node.spawn(|| async {
//!     file::write_small(Path::new("/vote"), b"epoch 3".to_vec()).await?;
//!     timer::sleep(Duration::from_secs(3600)).await;
//!     std::io::Result::Ok(())
//! })
//! .detach();
//! world.run_for(Duration::from_secs(60));
//! node.crash();
//! let limit = Duration::from_secs(1);
//! let vote = world.run(&node, limit, || async { file::read_small(Path::new("/vote"), 100).await });
//! assert_eq!(vote?.expect("what was flushed is there"), b"epoch 3");
//! # Ok::<(), corrente_runtime::sim::RunError>(())
//! ```

mod config;
mod node;
mod world;

pub use config::{CrashConfig, Delay, DiskConfig, NetworkConfig, WorldConfig};
pub use node::{Damage, Disk, DiskCounters, DiskFault, FaultRule, Harm, Node, NodeTask, When};
pub use world::{RunError, World};
