//! The load generator: open-loop schedules, latency from the intended send time.
//!
//! It reaches a broker through the SDK like any user, and owns what is measured: when a batch was due, when it was
//! sent, when its acknowledgement came. It never corrects a figure; what makes one doubtful stands in the report.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a load generator is a user of the broker: it has clocks, files and threads of its own"
)]

mod broker;
mod broker_process;
pub mod compare;
mod consume;
mod cpus;
mod drive;
pub mod hdr_log;
pub mod html;
mod kafka;
mod live;
pub mod machine;
pub mod max;
mod mixed;
pub mod null_broker;
mod pacer;
mod payload;
pub mod plan;
mod produce;
pub mod profile;
mod recorder;
pub mod report;
mod schedule;
pub mod stages;
pub mod table;
mod tail;
pub mod timeline;
mod usage;
mod verdict;
pub mod verify;

use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result};

pub use live::Live;
use plan::{Plan, Work};
use profile::Profile;
use report::{Consumed, Report};
use stages::Stages;
use timeline::{Seconds, Timeline};
use usage::Meter;
use verify::Outcomes;

/// How the names of the generator's threads begin. Whoever runs a plan beside a broker in one process calls the thread
/// so that it is run on, as their CPU seconds are told apart by that.
pub const THREADS: &str = "loadgen";

/// What a run found.
#[derive(Debug)]
pub struct Outcome {
    /// The figures.
    pub report: Report,
    /// The histogram of each second.
    pub seconds: Seconds,
    /// The end of the warm-up, from which seconds are counted.
    pub measured_from: SystemTime,
}

/// What looks at a run while it goes on.
struct Watch {
    meter: Meter,
    timeline: Timeline,
    live: Arc<Live>,
    /// What there is to verify after the run.
    outcomes: Option<Arc<Outcomes>>,
    /// Where the time of batches goes, if the broker is asked.
    stages: Option<Arc<Stages>>,
    /// What was read beside the sending.
    consumed: Option<Consumed>,
}

/// Runs a plan on the calling thread and, where the plan names several CPUs, on threads of its own.
///
/// Blocks until the run is over; `live` shows how far it is, and stops it. Errors of single batches are counted in the
/// report; an error here means that there was no run. A calling thread that the plan pins stays pinned.
pub fn run(plan: &Plan, live: &Arc<Live>) -> Result<Outcome> {
    plan.check()?;
    cpus::pin_this_thread(&plan.cpus)?;
    // Threads started from here on inherit the CPUs.
    let (timeline, keeper) = Timeline::start(live)?;
    let mut watch = Watch {
        meter: Meter::new(plan),
        timeline,
        live: Arc::clone(live),
        outcomes: None,
        stages: None,
        consumed: None,
    };
    let runtime = runtime(plan)?;
    let recorder = runtime.block_on(async {
        match &plan.work {
            Work::Produce(work) => produce::produce(plan, work, &mut watch).await,
            Work::Consume(work) => consume::consume(plan, work, &mut watch).await,
            Work::Mixed(work) => mixed::mixed(plan, work, &mut watch).await,
        }
    })?;
    let Watch { meter, timeline, outcomes, stages, consumed, .. } = watch;
    drop(timeline);
    let seconds = keeper.finish()?;
    let measured_from = SystemTime::now() - recorder.measured();
    let mut report = Report::new(plan, &recorder, &seconds, meter.usages(), consumed);
    report.stages_us = stages.map(|stages| stages.latencies());
    if let Some(outcomes) = outcomes {
        report.verification = Some(runtime.block_on(verify::verify(plan, &outcomes))?);
    }
    Ok(Outcome { report, seconds, measured_from })
}

/// Reads a topic on the calling thread and says what its records are like: all there are now, or the first so many, to
/// whole batches. `live` shows how far it is, and ends it early.
pub fn profile(brokers: &[String], topic: &str, records_max: Option<u64>, live: &Live) -> Result<Profile> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().context("starting the reader")?;
    runtime.block_on(profile::take(brokers, topic, records_max, live))
}

fn runtime(plan: &Plan) -> Result<tokio::runtime::Runtime> {
    let mut builder = match plan.threads() {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder
        .worker_threads(plan.threads())
        .thread_name(THREADS)
        .enable_all()
        .build()
        .context("starting the generator")
}
