//! The load generator: open-loop schedules, latency from the intended send time.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a load generator is a user of the broker: it has clocks, files and threads of its own"
)]

mod broker_process;
mod cpus;
mod drive;
mod live;
mod pacer;
mod plan;
mod recorder;
mod report;
mod schedule;

pub use live::Live;
