//! A run under way: the generator on threads of its own, and this one to watch it and to stop it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use corrente_loadgen::plan::Plan;
use corrente_loadgen::{Live, Outcome};

use crate::progress::Progress;

/// Blocks until the run is over; an interrupt ends it early, with what it has found by then.
pub fn run(plan: &Plan) -> Result<Outcome> {
    let live = Arc::new(Live::default());
    let generator = {
        let (plan, live) = (plan.clone(), live.clone());
        std::thread::Builder::new()
            .name("loadgen".to_owned())
            .spawn(move || corrente_loadgen::run(&plan, &live))?
    };
    stop_when_interrupted(live.clone())?;
    let progress = Progress::text();
    while !generator.is_finished() {
        progress.say(|| status(&live));
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(progress);
    generator.join().map_err(|_| anyhow::anyhow!("the load generator panicked"))?
}

fn status(live: &Live) -> String {
    format!("{} records, {:.1} MB, {} errors", live.records(), live.bytes() as f64 / 1e6, live.errors())
}

fn stop_when_interrupted(live: Arc<Live>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            while crate::commands::interrupted().await.is_ok() {
                if live.stopping() {
                    std::process::exit(130);
                }
                live.stop();
            }
        });
    })?;
    Ok(())
}
