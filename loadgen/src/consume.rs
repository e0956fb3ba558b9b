//! Reads a topic back as fast as it comes.
//!
//! No latency is taken here: prepared batches carry the time of their making, not of their sending. Latency from end to
//! end is measured by `tail`, where one process sends and reads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::Watch;
use crate::broker::{Broker, Reader};
use crate::live::Live;
use crate::plan::{ConsumePlan, Extent, Plan};
use crate::produce;
use crate::recorder::Recorder;
use crate::tail::tail;

/// Runs the plan: beside a feed from end to end, and else as fast as it goes.
pub async fn consume(plan: &Plan, work: &ConsumePlan, watch: &mut Watch) -> Result<Recorder> {
    match &work.feed {
        Some(feed) => tail(plan, work, feed, watch).await,
        None => drain(plan, work, watch).await,
    }
}

/// Fills the topic if it is new, then reads it with each consumer.
async fn drain(plan: &Plan, work: &ConsumePlan, watch: &mut Watch) -> Result<Recorder> {
    let broker = Broker::connect(plan).await?;
    if let (true, Some(fill)) = (broker.created(), &work.fill) {
        // Counts of its own: what is shown and reported is the reading.
        produce::fill(broker, fill, &Arc::default()).await?;
    }
    let mut readers = Vec::new();
    for _ in 0..work.consumers {
        let until_end = work.extent.is_none();
        readers.push(Broker::connect(plan).await?.read(work.from, until_end).await?);
    }
    watch.meter.begin();
    let start = Instant::now();
    let reading: Vec<_> = readers
        .into_iter()
        .map(|reader| {
            let recorder = Recorder::with_timeline(Duration::ZERO, &watch.timeline);
            tokio::spawn(read(reader, start, work.extent, recorder, Arc::clone(&watch.live)))
        })
        .collect();
    let mut all = Recorder::new(Duration::ZERO);
    for reader in reading {
        all.merge(&reader.await.context("a reader of the load generator panicked")?);
    }
    watch.meter.end();
    Ok(all)
}

/// Reads until the extent, the end, an error or a stop; looks for a stop at least every 100 ms.
pub async fn read(
    mut reader: Reader,
    start: Instant,
    extent: Option<Extent>,
    mut recorder: Recorder,
    live: Arc<Live>,
) -> Recorder {
    const LOOK_UP: Duration = Duration::from_millis(100);
    while !live.stopping() && !is_over(extent, &recorder, start.elapsed()) {
        let Ok(next) = tokio::time::timeout(LOOK_UP, reader.next()).await else { continue };
        match next {
            Ok(Some(arrival)) => {
                live.add(arrival.records, arrival.bytes);
                recorder.consumed(start.elapsed(), arrival.records, arrival.bytes);
            }
            Ok(None) => break,
            Err(error) => {
                live.add_errors(1);
                recorder.failed(start.elapsed(), 1, &error);
                break;
            }
        }
    }
    recorder
}

fn is_over(extent: Option<Extent>, recorder: &Recorder, elapsed: Duration) -> bool {
    match extent {
        None => false,
        Some(Extent::Records(records)) => recorder.records() >= records,
        Some(Extent::Duration(duration)) => elapsed >= duration,
    }
}
