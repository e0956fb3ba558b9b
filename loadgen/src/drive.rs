//! The sending loop of one worker: keeps the schedule, bounds what is in flight, records what comes back.
//!
//! It never waits for an answer before it sends what is due, except when the bound on batches in flight is reached.
//! Then the delay shows twice: as slip, and in the latency of every batch that had to wait.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};

use crate::live::Live;
use crate::pacer::Pacer;
use crate::recorder::{Completion, Recorder};
use crate::schedule::Schedule;

/// What one worker has to send.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// When every worker of the run began to count.
    pub start: Instant,
    /// The schedule of the whole run.
    pub schedule: Schedule,
    /// This worker sends the batches `first`, `first + step`, `first + 2·step`, …
    pub first: u64,
    /// The number of workers.
    pub step: u64,
    /// Batches this worker may have in flight; at least 1.
    pub in_flight_max: usize,
    /// When this worker is done.
    pub until: Until,
    /// Records in each batch.
    pub batch_records: u64,
    /// Payload bytes in each batch.
    pub batch_bytes: u64,
}

/// The end of a worker's share. Ends are exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Batches of the whole run with an index below this.
    Index(u64),
    /// So many batches of this worker's own beyond the warm-up.
    Measured(u64),
    /// This long after the start.
    Elapsed(Duration),
}

/// How many sends may go by, when behind schedule, before other tasks of this thread get their turn.
const SENDS_PER_TURN: u32 = 8;

/// Sends a share through `send`, which is given the index of the batch, and returns once every answer is in.
///
/// Stops sending early when `live` says so. An error of `send` is counted, not returned.
pub async fn drive<S, F, E>(share: Share, live: &Live, recorder: &mut Recorder, send: S) -> Result<()>
where
    S: Fn(u64) -> F,
    F: Future<Output = Result<(), E>>,
    E: Display,
{
    let pacer = Pacer::new()?;
    let mut flying = FuturesUnordered::new();
    let mut next = share.first;
    let mut measured = 0;
    let mut sends_in_turn = 0;
    loop {
        let now = share.start.elapsed();
        let due = share.schedule.due(next).unwrap_or(now);
        let more = !live.stopping() && !share.is_over(next, now, measured);
        if !more || flying.len() >= share.in_flight_max {
            match flying.next().await {
                Some(answer) => share.record(answer, live, recorder),
                None => return Ok(()),
            }
            continue;
        }
        if due > now {
            tokio::select! {
                biased;
                Some(answer) = flying.next(), if !flying.is_empty() => share.record(answer, live, recorder),
                waited = pacer.wait(due - now) => waited?,
            }
            sends_in_turn = 0;
            continue;
        }
        flying.push(timed(share.start, due, now, send(next)));
        measured += u64::from(recorder.measures(due));
        next += share.step;
        // A future does nothing until it is polled: this is the moment of sending.
        while let Some(Some(answer)) = flying.next().now_or_never() {
            share.record(answer, live, recorder);
        }
        sends_in_turn += 1;
        if sends_in_turn == SENDS_PER_TURN {
            sends_in_turn = 0;
            tokio::task::yield_now().await;
        }
    }
}

struct Answer<E> {
    due: Duration,
    sent: Duration,
    done: Duration,
    outcome: Result<(), E>,
}

async fn timed<E>(
    start: Instant,
    due: Duration,
    sent: Duration,
    sending: impl Future<Output = Result<(), E>>,
) -> Answer<E> {
    let outcome = sending.await;
    Answer { due, sent, done: start.elapsed(), outcome }
}

impl Share {
    fn is_over(&self, next: u64, now: Duration, measured: u64) -> bool {
        match self.until {
            Until::Index(end) => next >= end,
            Until::Measured(end) => measured >= end,
            Until::Elapsed(end) => now >= end,
        }
    }

    fn record<E: Display>(&self, answer: Answer<E>, live: &Live, recorder: &mut Recorder) {
        match answer.outcome {
            Ok(()) => {
                live.add(self.batch_records, self.batch_bytes);
                recorder.acknowledged(Completion {
                    due: answer.due,
                    sent: answer.sent,
                    done: answer.done,
                    records: self.batch_records,
                    bytes: self.batch_bytes,
                });
            }
            Err(error) => {
                live.add_errors(self.batch_records);
                recorder.failed(answer.done, self.batch_records, &error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::convert::Infallible;

    fn share(schedule: Schedule, until: Until, in_flight_max: usize) -> Share {
        Share {
            start: Instant::now(),
            schedule,
            first: 0,
            step: 1,
            in_flight_max,
            until,
            batch_records: 1,
            batch_bytes: 10,
        }
    }

    #[tokio::test]
    async fn a_target_that_stalls_shows_in_every_delayed_record() {
        let schedule = Schedule::Open { records_per_s: 1_000, batch_records: 1 };
        let share = share(schedule, Until::Index(100), 1);
        let stall_ends = share.start + Duration::from_millis(100);
        let mut recorder = Recorder::new(Duration::ZERO);
        // The first batch is answered when the stall ends; with one batch in flight, all others have to wait for it.
        let send = |_| async move {
            tokio::time::sleep_until(stall_ends.into()).await;
            Ok::<(), Infallible>(())
        };
        drive(share, &Live::default(), &mut recorder, send).await.unwrap();
        assert_eq!(recorder.records(), 100);
        // Batch j was due after j ms and answered after at least 100 ms: half of them waited 50 ms or more.
        assert!(recorder.latency_ns().count_between(50_000_000, u64::MAX) >= 50);
        assert!(recorder.slip_ns().max() >= 98_000_000);
    }

    #[tokio::test]
    async fn a_closed_loop_keeps_its_depth_and_has_no_slip() {
        let in_flight = Cell::new(0usize);
        let deepest = Cell::new(0usize);
        let share = share(Schedule::Closed, Until::Measured(50), 4);
        let mut recorder = Recorder::new(Duration::ZERO);
        let send = |_| {
            let (in_flight, deepest) = (&in_flight, &deepest);
            async move {
                in_flight.set(in_flight.get() + 1);
                deepest.set(deepest.get().max(in_flight.get()));
                tokio::task::yield_now().await;
                in_flight.set(in_flight.get() - 1);
                Ok::<(), Infallible>(())
            }
        };
        drive(share, &Live::default(), &mut recorder, send).await.unwrap();
        assert_eq!((recorder.records(), deepest.get()), (50, 4));
        assert_eq!(recorder.slip_ns().max(), 1);
    }

    #[tokio::test]
    async fn errors_are_counted_and_kept() {
        let live = Live::default();
        let share = share(Schedule::Closed, Until::Index(10), 2);
        let mut recorder = Recorder::new(Duration::ZERO);
        let send = |index| async move {
            if index % 2 == 0 { Ok(()) } else { Err(format!("batch {index} refused")) }
        };
        drive(share, &live, &mut recorder, send).await.unwrap();
        assert_eq!((recorder.records(), recorder.errors()), (5, 5));
        assert_eq!(live.errors(), 5);
        assert_eq!(recorder.first_errors()[0], "batch 1 refused");
    }

    #[tokio::test]
    async fn a_stop_ends_the_sending_and_keeps_what_was_sent() {
        let live = Live::default();
        let share = share(Schedule::Closed, Until::Elapsed(Duration::from_secs(3_600)), 3);
        let mut recorder = Recorder::new(Duration::ZERO);
        let send = |index| {
            if index == 20 {
                live.stop();
            }
            async { Ok::<(), Infallible>(()) }
        };
        drive(share, &live, &mut recorder, send).await.unwrap();
        assert_eq!(recorder.records(), 21);
    }
}
