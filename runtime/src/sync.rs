//! What the tasks of one shard use to wait for each other.
//!
//! Nothing here crosses threads, so nothing here is atomic: between two awaits a task sees and
//! changes state that no other task can touch. Across shards there is [`crate::mailbox`], and
//! [`oneshot`], which does both.

mod budget;
mod notify;
mod watch;

pub use budget::{Budget, Permit};
pub use futures_channel::oneshot;
pub use notify::{Notified, Notify};
pub use watch::Watch;
