//! The load generator: open-loop schedules, latency from the intended send time.
//!
//! It reaches a broker through the SDK like any user, and owns what is measured: when a batch was due, when it was
//! sent, when its acknowledgement came. It never corrects a figure; what makes one doubtful stands in the report.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a load generator is a user of the broker: it has clocks, files and threads of its own"
)]

mod broker_process;
mod consume;
mod cpus;
mod drive;
mod live;
mod pacer;
mod payload;
pub mod plan;
mod produce;
mod recorder;
pub mod report;
mod schedule;
mod tail;
mod target;
mod usage;

use std::sync::Arc;

use anyhow::{Context, Result};

pub use live::Live;
use plan::{Plan, Work};
use report::Report;
use usage::Meter;

/// Runs a plan on the calling thread and, where the plan names several CPUs, on threads of its own.
///
/// Blocks until the run is over; `live` shows how far it is, and stops it. Errors of single batches are counted in the
/// report; an error here means that there was no run. A calling thread that the plan pins stays pinned.
pub fn run(plan: &Plan, live: &Arc<Live>) -> Result<Report> {
    plan.check()?;
    cpus::pin_this_thread(&plan.cpus)?;
    let mut builder = match plan.threads() {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    // Threads started from here on inherit the CPUs.
    let runtime =
        builder.worker_threads(plan.threads()).enable_all().build().context("starting the generator")?;
    runtime.block_on(async {
        let mut meter = Meter::new(plan);
        let (operation, recorder) = match &plan.work {
            Work::Produce(work) => ("produce", produce::produce(plan, work, &mut meter, live).await?),
            Work::Consume(work) => ("consume", consume::consume(plan, work, &mut meter, live).await?),
        };
        Ok(Report::new(plan, operation, &recorder, meter.usages()))
    })
}
