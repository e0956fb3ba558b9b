//! Waiting for a moment more exactly than the runtime's millisecond timer does.
//!
//! A `timerfd` is a high-resolution kernel timer that wakes the runtime's own poll loop: late by tens of microseconds,
//! and idle until then. A generator with CPUs of its own sleeps until shortly before the moment and then looks at the
//! clock; one that shares a CPU with the broker must not, as it would take it away.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// One timer of one worker.
pub struct Pacer {
    timer: AsyncFd<OwnedFd>,
    /// How long before the moment it stops to sleep and begins to look.
    looks_ahead: Duration,
}

/// More than a sleeping CPU takes to wake.
const WAKE_UP: Duration = Duration::from_micros(150);

impl Pacer {
    /// Makes the timer; needs a tokio runtime with I/O. `exact` costs up to the whole CPU.
    pub fn new(exact: bool) -> io::Result<Pacer> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "the one safe constructor; it is unsound only if somebody else closes the descriptor, which is \
                      owned here"
        )]
        let timer = AsyncFd::new(timer)?;
        Ok(Pacer { timer, looks_ahead: if exact { WAKE_UP } else { Duration::ZERO } })
    }

    /// Waits for `delay`, at once when it is zero. Safe to cancel: the next wait arms the timer anew.
    pub async fn wait(&self, delay: Duration) -> io::Result<()> {
        let began = Instant::now();
        self.sleep(delay.saturating_sub(self.looks_ahead)).await?;
        while began.elapsed() < delay {
            // The kernel's own work on this CPU goes first, of which completing a durable write may be a part: the
            // scheduler would else let it wait for this thread until its next tick, which is milliseconds.
            std::thread::yield_now();
            // Answers are looked for, and other tasks run, between two looks.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn sleep(&self, delay: Duration) -> io::Result<()> {
        if delay.is_zero() {
            return Ok(());
        }
        let spec = Itimerspec { it_interval: timespec(Duration::ZERO), it_value: timespec(delay) };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &spec)?;
        loop {
            let mut guard = self.timer.readable().await?;
            let mut expirations = [0u8; 8];
            match guard.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut expirations)?)) {
                Ok(read) => return read.map(|_| ()),
                // Readiness left over from a wait that was cancelled: this one has not passed yet.
                Err(_would_block) => continue,
            }
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn never_wakes_early_even_after_a_cancelled_wait() {
        for exact in [false, true] {
            let pacer = Pacer::new(exact).unwrap();
            {
                let cancelled = pacer.wait(Duration::from_micros(1));
                tokio::pin!(cancelled);
                let _ = futures_util::poll!(cancelled.as_mut());
            }
            let started = Instant::now();
            pacer.wait(Duration::from_millis(20)).await.unwrap();
            assert!(started.elapsed() >= Duration::from_millis(20));
        }
    }
}
