//! How long tasks run before the executor looks at sockets, rings and timers again.
//!
//! glommio ends a turn by an alarm, but 0.12 goes to sleep over tasks that are ready if that alarm rings
//! before the turn's first task ran, which takes no more than another process on the same core
//! for that long: at 500 µs a busy machine stalls within seconds. So its alarm is set far off, and a task
//! that has worked long enough steps back by itself, for as long as it takes the executor to
//! have looked around once.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use glommio::io::PollableFd;
use rustix::event::EventfdFlags;

use super::{executor, timer};
use crate::timer::Instant;

/// A task that may be long steps back after this.
const TURN: Duration = Duration::from_micros(500);

/// One that nobody waits for does after this: a request waits for it at every one of its own steps.
const BACKGROUND_TURN: Duration = Duration::from_micros(50);

/// When glommio ends a turn by force, for tasks that never step back.
pub(super) const TURN_MAX: Duration = Duration::from_millis(20);

thread_local! {
    /// When the executor was last known to have looked around.
    static LOOKED: Cell<Instant> = const { Cell::new(Instant::from_nanos(0)) };
}

/// Notes that the executor has just looked around: something it watches for has come.
pub(super) fn looked() {
    LOOKED.set(timer::now());
}

pub(crate) async fn yield_if_needed() {
    yield_after(TURN).await;
}

pub(crate) async fn yield_in_background() {
    yield_after(BACKGROUND_TURN).await;
}

async fn yield_after(turn: Duration) {
    if since_look() >= turn {
        step_back().await;
    } else {
        glommio::executor().yield_if_needed().await;
    }
}

/// Lets the other queues run, and the executor look around if it has not for `look_after`. For tasks that are
/// ready all the time.
pub(super) async fn spin_once(look_after: Duration) {
    if since_look() >= look_after {
        step_back().await;
    } else {
        glommio::executor().yield_task_queue_now().await;
    }
}

fn since_look() -> Duration {
    timer::now() - LOOKED.get()
}

/// Lets every ready task run, and the executor look around.
async fn step_back() {
    let ready = executor::always_ready().readable().await;
    ready.expect("an eventfd can be watched for as long as its executor lives");
    looked();
}

/// What is found ready each time the executor looks. A timer would do as well, but for one that rings before the
/// turn's first task.
pub(super) fn always_ready() -> io::Result<PollableFd<OwnedFd>> {
    let eventfd = rustix::event::eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    PollableFd::new(eventfd).map_err(io::Error::from)
}
