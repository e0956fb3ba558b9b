//! Sends prepared record batches on a plan's schedule, over one or more clients.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use corrente_client::Durability;

use crate::Watch;
use crate::broker::Broker;
use crate::drive::{Share, Until, drive};
use crate::live::Live;
use crate::payload::Payload;
use crate::plan::{Extent, Fill, Pace, Plan, ProducePlan, Rate};
use crate::recorder::Recorder;
use crate::schedule::{Curve, Schedule};
use crate::stages::Stages;
use crate::tail::Ledger;
use crate::verify::Outcomes;

/// Runs the plan on a schedule that starts when everything is connected and prepared.
pub async fn produce(plan: &Plan, work: &ProducePlan, watch: &mut Watch) -> Result<Recorder> {
    let sender = Sender::prepare(plan, work).await?;
    sender.send(Instant::now(), &[], watch).await
}

/// Clients that are connected and batches that are made: all that costs time before the schedule starts.
pub struct Sender<'a> {
    plan: &'a Plan,
    work: &'a ProducePlan,
    brokers: Vec<Broker>,
    created: bool,
    payload: Arc<Payload>,
}

impl<'a> Sender<'a> {
    /// Connects, creates the topic if it is missing, makes the batches.
    pub async fn prepare(plan: &'a Plan, work: &'a ProducePlan) -> Result<Sender<'a>> {
        let mut brokers = vec![Broker::connect(plan).await?];
        let created = brokers[0].created();
        while brokers.len() < work.connections {
            brokers.push(Broker::connect(plan).await?);
        }
        let partitions = brokers[0].partitions();
        let payload = match &work.replay {
            Some(profile) => Payload::replayed(profile, &work.shape, partitions, wall_clock_ms())?,
            None => Payload::new(&work.shape, partitions, wall_clock_ms())?,
        };
        Ok(Sender { plan, work, brokers, created, payload: Arc::new(payload) })
    }

    /// Partitions of the topic it sends to.
    pub fn partitions(&self) -> u32 {
        self.brokers[0].partitions()
    }

    /// Whether that topic was missing.
    pub fn created(&self) -> bool {
        self.created
    }

    /// Sends everything. The meter reads the processes when the warm-up is over and when the last answer is in; each
    /// ledger is told what was acknowledged. Where the plan verifies, the watch is left what became of each batch.
    pub async fn send(self, start: Instant, ledgers: &[Arc<Ledger>], watch: &mut Watch) -> Result<Recorder> {
        let work = self.work;
        watch.outcomes = work.verify.then(|| Arc::new(Outcomes::new(&self.payload, work.connections)));
        watch.stages = work.stages.then(|| Arc::new(Stages::new(work.warmup)));
        let mut workers = Vec::new();
        for (worker, broker) in self.brokers.into_iter().enumerate() {
            // Where records are read, the reader's figures are the run's, and what is shown meanwhile.
            let (recorder, live) = match ledgers {
                [] => (Recorder::with_timeline(work.warmup, &watch.timeline), Arc::clone(&watch.live)),
                _ => (Recorder::new(work.warmup), Arc::new(Live::following(&watch.live))),
            };
            let worker = Worker {
                broker,
                durability: work.durability,
                payload: Arc::clone(&self.payload),
                share: share(self.plan, work, self.payload.batch_records(), start, worker),
                ledgers: ledgers.to_vec(),
                outcomes: watch.outcomes.clone(),
                stages: watch.stages.clone(),
            };
            workers.push(tokio::spawn(worker.run(recorder, live)));
        }
        tokio::time::sleep(work.warmup.saturating_sub(start.elapsed())).await;
        watch.meter.begin();
        let mut all = Recorder::new(work.warmup);
        for worker in workers {
            all.merge(&worker.await.context("a worker of the load generator panicked")??);
        }
        watch.meter.end();
        Ok(all)
    }
}

/// Fills a new topic as fast as it takes it.
pub async fn fill(broker: Broker, fill: &Fill, live: &Arc<Live>) -> Result<()> {
    /// Deep enough to keep a disk busy, shallow enough for any broker's memory.
    const IN_FLIGHT: usize = 16;
    let partitions = broker.partitions();
    let worker = Worker {
        broker,
        durability: Durability::IsrFlushed,
        payload: Arc::new(Payload::new(&fill.shape, partitions, wall_clock_ms())?),
        share: Share {
            start: Instant::now(),
            schedule: None,
            exact: false,
            first: 0,
            step: 1,
            in_flight_max: IN_FLIGHT,
            until: Until::Measured(fill.shape.batches_for(fill.records)),
        },
        ledgers: Vec::new(),
        outcomes: None,
        stages: None,
    };
    let recorder = worker.run(Recorder::new(Duration::ZERO), Arc::clone(live)).await?;
    match recorder.first_errors().first() {
        Some(error) => anyhow::bail!("filling the topic: {error}"),
        None => Ok(()),
    }
}

/// One client and what it has to send.
struct Worker {
    broker: Broker,
    durability: Durability,
    payload: Arc<Payload>,
    share: Share,
    ledgers: Vec<Arc<Ledger>>,
    outcomes: Option<Arc<Outcomes>>,
    stages: Option<Arc<Stages>>,
}

impl Worker {
    async fn run(self, mut recorder: Recorder, live: Arc<Live>) -> Result<Recorder> {
        let Worker { broker, durability, payload, share, ledgers, outcomes, stages } = self;
        let (broker, payload, ledgers) = (&broker, &payload, &ledgers);
        let (outcomes, stages) = (&outcomes, &stages);
        let send = |index: u64, due: Duration| {
            let (partition, batch, size) = payload.batch(index);
            let answer = async move {
                let answer = match stages {
                    Some(stages) => stages.produce(broker, (partition, batch), durability, due).await,
                    None => broker.produce(partition, batch, durability).await,
                };
                if let Some(outcomes) = outcomes {
                    outcomes.answered(partition, index, answer.as_ref().ok());
                }
                let (base, end) = answer?;
                ledgers.iter().for_each(|ledger| ledger.acknowledged(partition, base, end, due));
                Ok::<(), anyhow::Error>(())
            };
            (size, answer)
        };
        drive(share, &live, &mut recorder, send).await?;
        Ok(recorder)
    }
}

/// Batches go to the workers in turn; they hold `batch_records` in the mean.
fn share(plan: &Plan, work: &ProducePlan, batch_records: f64, start: Instant, worker: usize) -> Share {
    let (worker_index, workers) = (worker as u64, work.connections as u64);
    let schedule = match work.pace {
        Pace::OpenLoop { rate, arrivals } => {
            let turn = (worker_index, workers);
            Some(Schedule::new(curve(work, rate), arrivals, batch_records, turn, work.shape.seed))
        }
        Pace::ClosedLoop => None,
    };
    let until = match work.extent {
        // The first workers take one batch more where they do not come out even.
        Extent::Records(records) => {
            let batches = (records as f64 / batch_records).ceil() as u64;
            Until::Measured((batches + workers - 1 - worker_index) / workers)
        }
        Extent::Duration(duration) => Until::Due(work.warmup + duration),
    };
    let extra = usize::from(worker < work.in_flight_max % work.connections);
    Share {
        start,
        schedule,
        exact: plan.exact(),
        first: worker_index,
        step: workers,
        in_flight_max: work.in_flight_max / work.connections + extra,
        until,
    }
}

/// What is due by when: as the plan says, or as it was recorded.
fn curve(work: &ProducePlan, rate: Rate) -> Curve {
    let recorded = work.replay.as_ref().and_then(|profile| profile.arrivals.as_ref());
    match (rate, recorded, work.extent) {
        (Rate::Constant(mean), Some(recorded), extent) => {
            let mean = mean as f64;
            let measured = match extent {
                Extent::Duration(duration) => duration,
                Extent::Records(records) => Duration::from_secs_f64(records as f64 / mean),
            };
            Curve::recorded(mean, &recorded.curve, work.warmup, measured)
        }
        (_, _, Extent::Duration(duration)) => Curve::new(rate, work.warmup, duration),
        (_, _, Extent::Records(_)) => Curve::new(rate, work.warmup, Duration::ZERO),
    }
}

fn wall_clock_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Work;
    use crate::plan::tests::produce_plan;

    fn shares(change: impl Fn(&mut ProducePlan)) -> Vec<Share> {
        let plan = produce_plan();
        let Work::Produce(mut work) = plan.work.clone() else { unreachable!() };
        work.connections = 3;
        work.in_flight_max = 8;
        change(&mut work);
        let batch_records = f64::from(work.shape.batch_records);
        (0..3).map(|worker| share(&plan, &work, batch_records, Instant::now(), worker)).collect()
    }

    #[test]
    fn workers_share_depth_and_batches_and_leave_none_out() {
        let closed = shares(|work| work.pace = Pace::ClosedLoop);
        assert_eq!(closed.iter().map(|share| share.in_flight_max).collect::<Vec<_>>(), [3, 3, 2]);
        let measured: Vec<Until> = closed.iter().map(|share| share.until).collect();
        assert_eq!(measured, [Until::Measured(334), Until::Measured(334), Until::Measured(333)]);
    }

    #[test]
    fn a_duration_begins_behind_the_warm_up() {
        let timed = shares(|work| work.extent = Extent::Duration(Duration::from_secs(2)));
        assert_eq!(timed[2].until, Until::Due(Duration::from_secs(3)));
    }
}
