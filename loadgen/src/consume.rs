//! Reads a topic back as fast as it comes.
//!
//! No latency is taken here: prepared batches carry the time of their making, not of their sending. Latency from end to
//! end is measured by `tail`, where one process sends and reads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use corrente_client::{Client, Consumer, StartOffset};

use crate::Watch;
use crate::live::Live;
use crate::plan::{Begin, ConsumePlan, Extent, Plan};
use crate::produce;
use crate::recorder::Recorder;
use crate::tail::tail;
use crate::target;

/// Runs the plan: beside a feed from end to end, and else as fast as it goes.
pub async fn consume(plan: &Plan, work: &ConsumePlan, watch: &mut Watch) -> Result<Recorder> {
    match &work.feed {
        Some(feed) => tail(plan, work, feed, watch).await,
        None => drain(plan, work, watch).await,
    }
}

/// Fills the topic if it is new, then reads it with each consumer.
async fn drain(plan: &Plan, work: &ConsumePlan, watch: &mut Watch) -> Result<Recorder> {
    let client = target::connect(plan).await?;
    let target = target::prepare(&client, plan).await?;
    if let (true, Some(fill)) = (target.created, &work.fill) {
        // Counts of its own: what is shown and reported is the reading.
        produce::fill(plan, &client, target.partitions, fill, &Arc::default()).await?;
    }
    let mut consumers = Vec::new();
    for _ in 0..work.consumers {
        let client = target::connect(plan).await?;
        consumers.push(consumer(&client, plan, work).await?);
    }
    watch.meter.begin();
    let start = Instant::now();
    let readers: Vec<_> = consumers
        .into_iter()
        .map(|consumer| {
            let recorder = Recorder::with_timeline(Duration::ZERO, &watch.timeline);
            tokio::spawn(read(consumer, start, work.extent, recorder, Arc::clone(&watch.live)))
        })
        .collect();
    let mut all = Recorder::new(Duration::ZERO);
    for reader in readers {
        all.merge(&reader.await.context("a reader of the load generator panicked")?);
    }
    watch.meter.end();
    Ok(all)
}

async fn consumer(client: &Client, plan: &Plan, work: &ConsumePlan) -> Result<Consumer> {
    let from = match work.from {
        Begin::Earliest => StartOffset::Earliest,
        Begin::Latest => StartOffset::Latest,
    };
    let builder = client.consumer().topic(&plan.topic).from(from);
    let builder = if work.extent.is_none() { builder.until_end() } else { builder };
    Ok(builder.build().await?)
}

/// Reads until the extent, the end, an error or a stop; looks for a stop at least every 100 ms.
async fn read(
    mut consumer: Consumer,
    start: Instant,
    extent: Option<Extent>,
    mut recorder: Recorder,
    live: Arc<Live>,
) -> Recorder {
    const LOOK_UP: Duration = Duration::from_millis(100);
    while !live.stopping() && !is_over(extent, &recorder, start.elapsed()) {
        let Ok(next) = tokio::time::timeout(LOOK_UP, consumer.next_batch()).await else { continue };
        match next {
            Ok(Some(batch)) => {
                let bytes: usize =
                    batch.records.iter().map(|record| length(&record.key) + length(&record.value)).sum();
                let (records, bytes) = (batch.records.len() as u64, bytes as u64);
                live.add(records, bytes);
                recorder.consumed(start.elapsed(), records, bytes);
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

fn length(bytes: &Option<bytes::Bytes>) -> usize {
    bytes.as_ref().map_or(0, bytes::Bytes::len)
}
