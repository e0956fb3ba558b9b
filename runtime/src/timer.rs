//! Clocks and timers.
//!
//! [`now`] is monotonic and means nothing outside this process (or this simulated world);
//! [`wall_clock_ms`] is for people and record timestamps and may jump.

use std::fmt;
use std::future::Future;
use std::ops::{Add, Sub};
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use thiserror::Error;

use crate::driver;

/// A point of the monotonic clock, in nanoseconds since an origin that belongs to the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// From nanoseconds since the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long ago this was; zero if it lies ahead.
    pub fn elapsed(self) -> Duration {
        now() - self
    }
}

/// Saturates at the end of the clock, some 584 years away.
impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(nanos))
    }
}

/// The time from the right to the left; zero if the right is later.
impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// The monotonic clock, now. Works on any thread.
pub fn now() -> Instant {
    if driver::simulated() { driver::sim::timer::now() } else { driver::uring::timer::now() }
}

/// Milliseconds since the Unix epoch by the clock on the wall. Works on any thread.
pub fn wall_clock_ms() -> i64 {
    if driver::simulated() {
        driver::sim::timer::wall_clock_ms()
    } else {
        driver::uring::timer::wall_clock_ms()
    }
}

/// Waits at least this long. Cancel-safe.
pub async fn sleep(duration: Duration) {
    sleep_until(now() + duration).await;
}

/// Waits until the clock has reached `deadline`. Cancel-safe.
pub async fn sleep_until(deadline: Instant) {
    if driver::simulated() {
        driver::sim::timer::sleep_until(deadline).await;
    } else {
        driver::uring::timer::sleep_until(deadline).await;
    }
}

/// The time given to [`timeout`] ran out; the future was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no answer within the time given")]
pub struct Elapsed;

/// Runs `future` for at most `duration`, then drops it. The future wins a tie.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    let future = pin!(future);
    let alarm = pin!(sleep(duration));
    match select(future, alarm).await {
        Either::Left((output, _)) => Ok(output),
        Either::Right(((), _)) => Err(Elapsed),
    }
}
