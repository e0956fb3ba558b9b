//! The sending loop of one worker: keeps the schedule, bounds what is in flight, records what comes back.
//!
//! It never waits for an answer before it sends what is due, except when the bound on batches in flight is reached.
//! Then the delay is the broker's: it is in the latency of every batch that had to wait, and not in the slip, which is
//! what the generator itself was late by.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::task::unconstrained;

use crate::live::Live;
use crate::pacer::Pacer;
use crate::recorder::{Completion, Recorder};
use crate::schedule::Schedule;

/// What one worker has to send.
#[derive(Debug, Clone)]
pub struct Share {
    /// When every worker of the run began to count.
    pub start: Instant,
    /// When each of its batches is due. `None` in a closed loop: when an earlier one has made room for it.
    pub schedule: Option<Schedule>,
    /// Whether it may use a whole CPU to be on time.
    pub exact: bool,
    /// This worker sends the batches `first`, `first + step`, `first + 2·step`, …
    pub first: u64,
    /// The number of workers.
    pub step: u64,
    /// Batches this worker may have in flight; at least 1.
    pub in_flight_max: usize,
    /// When this worker is done.
    pub until: Until,
}

/// What a batch holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Records.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

/// The end of a worker's share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// So many batches of this worker's own beyond the warm-up.
    Measured(u64),
    /// Batches that are due before this, from the start.
    Due(Duration),
}

/// How many sends may go by, when behind schedule, before other tasks of this thread get their turn.
const SENDS_PER_TURN: u32 = 8;

/// Sends a share through `send`, which is given the number of the batch and when it was due and says what it holds, and
/// returns once every answer is in.
///
/// Stops sending early when `live` says so. An error of `send` is counted, not returned.
pub async fn drive<S, F, E>(mut share: Share, live: &Live, recorder: &mut Recorder, send: S) -> Result<()>
where
    S: Fn(u64, Duration) -> (Size, F),
    F: Future<Output = Result<(), E>>,
    E: Display,
{
    let pacer = Pacer::new(share.exact)?;
    let mut flying = FuturesUnordered::new();
    let mut index = share.first;
    let mut promised = share.next_due();
    let mut room_since = Duration::ZERO;
    let mut measured = 0;
    let mut sends_in_turn = 0;
    loop {
        let now = share.start.elapsed();
        let due = promised.unwrap_or(now);
        let more = !live.stopping() && !share.is_over(due, measured);
        if !more || flying.len() >= share.in_flight_max {
            match flying.next().await {
                Some(answer) => share.record(answer, live, recorder),
                None => return Ok(()),
            }
            room_since = share.start.elapsed();
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
        let (size, answer) = send(index, due);
        let sending = Sending { due, possible: due.max(room_since), sent: now, size };
        // Else tokio lets a batch wait whose turn comes when many answers were taken, and sends the next one before it.
        flying.push(unconstrained(timed(share.start, sending, answer)));
        measured += u64::from(recorder.measures(due));
        index += share.step;
        promised = share.next_due();
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

/// `due <= possible <= sent`, but that a closed loop's batch is due when it is sent.
struct Sending {
    due: Duration,
    /// When it was due and there was room for it.
    possible: Duration,
    sent: Duration,
    size: Size,
}

struct Answer<E> {
    sending: Sending,
    done: Duration,
    outcome: Result<(), E>,
}

async fn timed<E>(
    start: Instant,
    sending: Sending,
    answer: impl Future<Output = Result<(), E>>,
) -> Answer<E> {
    let outcome = answer.await;
    Answer { sending, done: start.elapsed(), outcome }
}

impl Share {
    fn next_due(&mut self) -> Option<Duration> {
        self.schedule.as_mut().map(Schedule::next_due)
    }

    fn is_over(&self, due: Duration, measured: u64) -> bool {
        match self.until {
            Until::Measured(end) => measured >= end,
            Until::Due(end) => due >= end,
        }
    }

    fn record<E: Display>(&self, answer: Answer<E>, live: &Live, recorder: &mut Recorder) {
        let Size { records, bytes } = answer.sending.size;
        match answer.outcome {
            Ok(()) => {
                live.add(records, bytes);
                recorder.acknowledged(Completion {
                    due: answer.sending.due,
                    possible: answer.sending.possible,
                    sent: answer.sending.sent,
                    done: answer.done,
                    records,
                    bytes,
                });
            }
            Err(error) => {
                live.add_errors(records);
                recorder.failed(answer.done, records, &error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Arrivals, Curve, Rate};
    use std::cell::{Cell, RefCell};
    use std::convert::Infallible;
    use tokio::sync::{Semaphore, oneshot};

    /// A batch of one record every millisecond.
    fn open_loop() -> Option<Schedule> {
        let curve = Curve::new(Rate::Constant(1_000), Duration::ZERO, Duration::ZERO);
        Some(Schedule::new(curve, Arrivals::Constant, 1.0, (0, 1), 1))
    }

    const SIZE: Size = Size { records: 1, bytes: 10 };

    fn share(schedule: Option<Schedule>, until: Until, in_flight_max: usize) -> Share {
        Share { start: Instant::now(), schedule, exact: false, first: 0, step: 1, in_flight_max, until }
    }

    #[tokio::test]
    async fn a_target_that_stalls_shows_in_every_delayed_record() {
        let share = share(open_loop(), Until::Due(Duration::from_millis(100)), 1);
        let mut recorder = Recorder::new(Duration::ZERO);
        // The first batch is answered after the stall; with one batch in flight, all others have to wait for it.
        let send = |index, _| {
            let answer = async move {
                if index == 0 {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Ok::<(), Infallible>(())
            };
            (SIZE, answer)
        };
        drive(share, &Live::default(), &mut recorder, send).await.unwrap();
        assert_eq!(recorder.records(), 100);
        // Batch j was due after j ms and answered after at least 100 ms: half of them waited 50 ms or more.
        assert!(recorder.latency_ns().count_between(50_000_000, u64::MAX) >= 50);
        assert_eq!(recorder.held(), 99);
    }

    #[tokio::test]
    async fn a_closed_loop_keeps_its_depth_and_has_no_slip() {
        let in_flight = Cell::new(0usize);
        let deepest = Cell::new(0usize);
        let share = share(None, Until::Measured(50), 4);
        let mut recorder = Recorder::new(Duration::ZERO);
        let send = |_, _| {
            let (in_flight, deepest) = (&in_flight, &deepest);
            let answer = async move {
                in_flight.set(in_flight.get() + 1);
                deepest.set(deepest.get().max(in_flight.get()));
                tokio::task::yield_now().await;
                in_flight.set(in_flight.get() - 1);
                Ok::<(), Infallible>(())
            };
            (SIZE, answer)
        };
        drive(share, &Live::default(), &mut recorder, send).await.unwrap();
        assert_eq!((recorder.records(), deepest.get()), (50, 4));
        assert_eq!(recorder.slip_ns().max(), 1);
    }

    #[tokio::test]
    async fn batches_leave_in_order_however_many_answers_come_at_once() {
        const ANSWERED_AT_ONCE: u64 = 300;
        let answers = RefCell::new(Vec::new());
        let left = RefCell::new(Vec::new());
        let door = Semaphore::new(1_000);
        let share = share(None, Until::Measured(ANSWERED_AT_ONCE + 20), 1_000);
        let send = |index, _| {
            let (left, door) = (&left, &door);
            let (answer, answered) = oneshot::channel();
            if index < ANSWERED_AT_ONCE {
                answers.borrow_mut().push(answer);
            } else {
                answers.take().into_iter().for_each(|answer| answer.send(()).unwrap());
                answer.send(()).unwrap();
            }
            let leaving = async move {
                let _through = door.acquire().await.unwrap();
                left.borrow_mut().push(index);
                answered.await
            };
            (SIZE, leaving)
        };
        drive(share, &Live::default(), &mut Recorder::new(Duration::ZERO), send).await.unwrap();
        assert_eq!(left.take(), (0..ANSWERED_AT_ONCE + 20).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn errors_are_counted_and_kept() {
        let live = Live::default();
        let share = share(None, Until::Measured(10), 2);
        let mut recorder = Recorder::new(Duration::ZERO);
        let send = |index, _| {
            let answer =
                async move { if index % 2 == 0 { Ok(()) } else { Err(format!("batch {index} refused")) } };
            (SIZE, answer)
        };
        drive(share, &live, &mut recorder, send).await.unwrap();
        assert_eq!((recorder.records(), recorder.errors()), (5, 5));
        assert_eq!(live.errors(), 5);
        assert_eq!(recorder.first_errors()[0], "batch 1 refused");
    }

    #[tokio::test]
    async fn a_stop_ends_the_sending_and_keeps_what_was_sent() {
        let live = Live::default();
        let share = share(None, Until::Due(Duration::from_secs(3_600)), 3);
        let mut recorder = Recorder::new(Duration::ZERO);
        let send = |index, _| {
            if index == 20 {
                live.stop();
            }
            (SIZE, async { Ok::<(), Infallible>(()) })
        };
        drive(share, &live, &mut recorder, send).await.unwrap();
        assert_eq!(recorder.records(), 21);
    }
}
