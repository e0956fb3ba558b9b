//! Runs under way: the generator on threads of its own, and this one to watch it and to stop it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use corrente_loadgen::plan::Plan;
use corrente_loadgen::{Live, Outcome};

use crate::commands::interrupted;
use crate::progress::Progress;

/// Runs plans, one after the other, until it is interrupted.
pub struct Runner {
    interrupted: Arc<AtomicBool>,
}

impl Runner {
    /// Catches interrupts from now on; a second one ends the process at once.
    pub fn new() -> Result<Runner> {
        let stop = Arc::new(AtomicBool::new(false));
        set_when_interrupted(Arc::clone(&stop))?;
        Ok(Runner { interrupted: stop })
    }

    /// Blocks until the run is over; an interrupt ends it early, with what it has found by then.
    pub fn run(&self, plan: &Plan) -> Result<Outcome> {
        let plan = plan.clone();
        self.watch(move |live| corrente_loadgen::run(&plan, live))
    }

    /// The same for anything that says how far it is, and ends when it is told to.
    pub fn watch<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Live>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let live = Arc::new(Live::stopped_by(Arc::clone(&self.interrupted)));
        let generator = {
            let live = live.clone();
            std::thread::Builder::new()
                .name(corrente_loadgen::THREADS.to_owned())
                .spawn(move || work(&live))?
        };
        let progress = Progress::text();
        while !generator.is_finished() {
            progress.say(|| status(&live));
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(progress);
        generator.join().map_err(|_| anyhow::anyhow!("the load generator panicked"))?
    }

    /// Whether what was run last, or is to be run next, was cut short.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

/// What there is so far, and how the last second was.
fn status(live: &Live) -> String {
    let (records, megabytes, errors) = (live.records(), live.bytes() as f64 / 1e6, live.errors());
    let so_far = format!("{records} records, {megabytes:.1} MB, {errors} errors");
    let Some(second) = live.second() else { return so_far };
    let megabytes = second.bytes as f64 / 1e6;
    let mut lines = format!("{so_far}\n  {} records/s, {megabytes:.1} MB/s", second.records);
    let latency = &second.latency_us;
    let quantiles =
        [("p50", latency.p50), ("p99", latency.p99), ("p99.9", latency.p999), ("max", latency.max)];
    for (name, us) in quantiles {
        if let Some(us) = us {
            lines.push_str(&format!(", {name} {us:.0} µs"));
        }
    }
    lines
}

fn set_when_interrupted(stop: Arc<AtomicBool>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            while interrupted().await.is_ok() {
                if stop.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
            }
        });
    })?;
    Ok(())
}
