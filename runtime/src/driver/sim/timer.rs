//! Virtual clocks and timers.

use super::{
    context,
    world::{Event, EventKey, WorldState},
};
use crate::timer::Instant;
use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

/// What the wall clock of a fresh world shows; only its digits matter.
const WALL_CLOCK_START_MS: i64 = 1_767_225_600_000;

pub(crate) fn now() -> Instant {
    Instant::from_nanos(context::current().world.now_ns())
}

pub(crate) fn wall_clock_ms() -> i64 {
    let elapsed_ms = context::current().world.elapsed_ns() / 1_000_000;
    WALL_CLOCK_START_MS + i64::try_from(elapsed_ms).expect("a virtual run ends before the clock does")
}

/// Resolves at the deadline, or late by a drawn moment, as timers do.
pub(crate) fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { world: context::current().world, deadline_ns: deadline.as_nanos(), event: None }
}

/// Sleeps a while for the driver itself.
pub(crate) fn sleep_ns(nanos: u64) -> Sleep {
    let world = context::current().world;
    let deadline_ns = world.now_ns().saturating_add(nanos);
    Sleep { world, deadline_ns, event: None }
}

/// See [`sleep_until`]. Dropped before its time it leaves no event behind.
pub(crate) struct Sleep {
    world: Rc<WorldState>,
    deadline_ns: u64,
    event: Option<EventKey>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.event.take() {
            None if self.world.now_ns() >= self.deadline_ns => return Poll::Ready(()),
            None => {
                let late_ns = self.world.draw_in(self.world.config.timer_late_ns());
                let at_ns = self.deadline_ns.saturating_add(late_ns);
                self.event = Some(self.world.schedule(at_ns, Event::Wake(cx.waker().clone())));
            }
            Some(key) if !self.world.is_scheduled(key) => return Poll::Ready(()),
            // Polled early, perhaps by another task than before: the newest waker counts.
            Some(key) => {
                let outdated = self.world.replace_event(key, Event::Wake(cx.waker().clone()));
                drop(outdated);
                self.event = Some(key);
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.event {
            let event = self.world.unschedule(key);
            drop(event);
        }
    }
}
