//! Waiting for a moment more exactly than the runtime's millisecond timer does.
//!
//! A `timerfd` is a high-resolution kernel timer that wakes the runtime's own poll loop: late by a few microseconds
//! and idle until then, where a spinning thread would take the CPU from the broker beside it.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// One timer of one worker.
pub struct Pacer {
    timer: AsyncFd<OwnedFd>,
}

impl Pacer {
    /// Makes the timer; needs a tokio runtime with I/O.
    pub fn new() -> io::Result<Pacer> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "the one safe constructor; it is unsound only if somebody else closes the descriptor, which is \
                      owned here"
        )]
        let timer = AsyncFd::new(timer)?;
        Ok(Pacer { timer })
    }

    /// Waits for `delay`, at once when it is zero. Safe to cancel: the next wait arms the timer anew.
    pub async fn wait(&self, delay: Duration) -> io::Result<()> {
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
    use std::time::Instant;

    #[tokio::test]
    async fn never_wakes_early_even_after_a_cancelled_wait() {
        let pacer = Pacer::new().unwrap();
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
