//! The clocks of the machine, and glommio's timers.

use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::SystemTime;

use glommio::timer::Timer;

use crate::timer::Instant;

pub(crate) fn now() -> Instant {
    static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
    let since = ORIGIN.get_or_init(std::time::Instant::now).elapsed();
    Instant::from_nanos(u64::try_from(since.as_nanos()).expect("a process younger than 584 years"))
}

pub(crate) fn wall_clock_ms() -> i64 {
    let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).expect("a date before the year 292 million")
}

pub(crate) fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, timer: None }
}

/// Waits for `deadline`. glommio's timer books a new alarm at every poll and keeps the old ones until
/// they ring; a fresh timer for every poll, and the old one dropped, leaves just one.
pub(crate) struct Sleep {
    deadline: Instant,
    timer: Option<Timer>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.timer = None;
        let left = self.deadline - now();
        if left.is_zero() {
            return Poll::Ready(());
        }
        let mut timer = Timer::new(left);
        match Pin::new(&mut timer).poll(context) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => {
                self.timer = Some(timer);
                Poll::Pending
            }
        }
    }
}
