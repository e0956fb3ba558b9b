//! Sends on a schedule while consumers read the same topic from its start: what catching up costs those who send.
//!
//! A consumer that has reached the end as it was when it began goes back to the start, so that all of the run is read
//! against. Latency is the sender's; what was read is counted beside it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::Watch;
use crate::broker::Broker;
use crate::consume;
use crate::live::Live;
use crate::plan::{Begin, MixedPlan, Plan};
use crate::produce::{self, Sender};
use crate::recorder::Recorder;
use crate::report::Consumed;

/// Fills the topic if it is new, then runs the plan.
pub async fn mixed(plan: &Plan, work: &MixedPlan, watch: &mut Watch) -> Result<Recorder> {
    let broker = Broker::connect(plan).await?;
    if broker.created() {
        // Counts of its own: what is shown and reported is the run.
        produce::fill(broker, &work.fill, &Arc::default()).await?;
    }
    let sender = Sender::prepare(plan, &work.feed).await?;
    let reading = Arc::new(Live::default());
    let start = Instant::now();
    let readers: Vec<_> = (0..work.consumers)
        .map(|_| tokio::spawn(read(plan.clone(), start, work.feed.warmup, Arc::clone(&reading))))
        .collect();
    let sent = sender.send(start, &[], watch).await;
    reading.stop();
    let mut read = Recorder::new(work.feed.warmup);
    let mut passes = 0;
    for reader in readers {
        let (recorder, whole) = reader.await.context("a reader of the load generator panicked")?;
        read.merge(&recorder);
        passes += whole;
    }
    let mut all = sent?;
    all.adopt_slip_and_errors(&read);
    watch.consumed = Some(Consumed::of(&read, passes));
    Ok(all)
}

/// Reads the topic again and again until it is told to stop, or an error; how often to its end.
async fn read(plan: Plan, start: Instant, warmup: Duration, reading: Arc<Live>) -> (Recorder, u64) {
    let mut recorder = Recorder::new(warmup);
    let mut passes = 0;
    while !reading.stopping() {
        let reader = match begin(&plan).await {
            Ok(reader) => reader,
            Err(error) => {
                recorder.failed(start.elapsed(), 1, &error);
                break;
            }
        };
        recorder = consume::read(reader, start, None, recorder, Arc::clone(&reading)).await;
        if recorder.errors() > 0 {
            break;
        }
        passes += u64::from(!reading.stopping());
    }
    (recorder, passes)
}

async fn begin(plan: &Plan) -> Result<crate::broker::Reader> {
    Broker::connect(plan).await?.read(Begin::Earliest, true).await
}
