//! Where the time of each batch went, as the broker tells in its answers.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use corrente_client::{Durability, StageTimes};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::broker::Broker;
use crate::recorder::{histogram, nanos};
use crate::report::Latency;

/// Each stage by itself, one value a batch, from the sending on; they do not add up but for the means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageLatencies {
    /// In the broker, until the records were in its log in memory.
    pub queue: Latency,
    /// In the broker, until they were as durable as asked for on its disk.
    pub disk: Latency,
    /// In the broker, until the other in-sync replicas had them as well.
    pub replication: Latency,
    /// In the broker, until the answer was made.
    pub send: Latency,
    /// What is left: the client, the network both ways, and the waits in the broker before a request is read and after
    /// its answer is made.
    pub outside: Latency,
}

impl StageLatencies {
    /// The stages by name, in their order.
    pub fn named(&self) -> [(&'static str, &Latency); 5] {
        let StageLatencies { queue, disk, replication, send, outside } = self;
        [("queue", queue), ("disk", disk), ("replication", replication), ("send", send), ("outside", outside)]
    }
}

/// The stages of a run under way.
#[derive(Debug)]
pub struct Stages {
    /// Batches due before this belong to the warm-up.
    measure_from: Duration,
    /// In the order of [`StageLatencies::named`].
    histograms: Mutex<[Histogram<u64>; 5]>,
}

impl Stages {
    /// Of nothing so far.
    pub fn new(measure_from: Duration) -> Stages {
        Stages { measure_from, histograms: Mutex::new([(); 5].map(|()| histogram())) }
    }

    /// Sends a batch and takes in where its time went; its offsets, of which the end is exclusive.
    pub async fn produce(
        &self,
        broker: &Broker,
        (partition, batch): (u32, Bytes),
        durability: Durability,
        due: Duration,
    ) -> Result<(u64, u64)> {
        let sent = Instant::now();
        let (offsets, times) = broker.produce_timed(partition, batch, durability).await?;
        if due >= self.measure_from {
            self.record(times, sent.elapsed());
        }
        Ok(offsets)
    }

    fn record(&self, times: StageTimes, answered: Duration) {
        let StageTimes { queue, disk, replication, send } = times;
        let outside = answered.saturating_sub(queue + disk + replication + send);
        let stages = [queue, disk, replication, send, outside];
        for (histogram, stage) in self.histograms().iter_mut().zip(stages) {
            histogram.saturating_record(nanos(stage));
        }
    }

    /// What was found.
    pub fn latencies(&self) -> StageLatencies {
        let [queue, disk, replication, send, outside] = self.histograms().each_ref().map(Latency::of);
        StageLatencies { queue, disk, replication, send, outside }
    }

    fn histograms(&self) -> MutexGuard<'_, [Histogram<u64>; 5]> {
        self.histograms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_broker_does_not_account_for_is_outside() {
        const US: Duration = Duration::from_micros(1);
        let stages = Stages::new(Duration::ZERO);
        let times = StageTimes { queue: 10 * US, disk: 100 * US, replication: Duration::ZERO, send: 5 * US };
        stages.record(times, 150 * US);
        let found = stages.latencies();
        for (latency, expected) in [(&found.queue, 10.0), (&found.disk, 100.0), (&found.outside, 35.0)] {
            let p50 = latency.p50.expect("a value");
            assert!((expected * 0.99..expected * 1.01).contains(&p50), "{p50} is not about {expected}");
        }
    }
}
