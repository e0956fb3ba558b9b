//! The two drivers, and which of them a call goes to.
//!
//! Every public type of this crate holds one of the enums below; every free function asks
//! [`simulated`]. `uring` and `sim` mirror each other file by file and signature by signature.

pub(crate) mod sim;
pub(crate) mod uring;

use std::cell::Cell;

thread_local! {
    static SIMULATED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a simulated world right now.
pub(crate) fn simulated() -> bool {
    SIMULATED.get()
}

/// Puts this thread into a simulated world for as long as the guard lives.
#[must_use = "the world is left when the guard is dropped"]
pub(crate) fn enter_simulation() -> SimulationGuard {
    SimulationGuard { was: SIMULATED.replace(true) }
}

/// Undoes [`enter_simulation`].
pub(crate) struct SimulationGuard {
    was: bool,
}

impl Drop for SimulationGuard {
    fn drop(&mut self) {
        SIMULATED.set(self.was);
    }
}

pub(crate) enum Task<T> {
    Uring(uring::executor::Task<T>),
    Sim(sim::executor::Task<T>),
}

pub(crate) enum Executors {
    Uring(uring::executor::Executors),
    Sim(sim::executor::Executors),
}

#[derive(Clone)]
pub(crate) enum File {
    Uring(uring::file::File),
    Sim(sim::file::File),
}

/// Held only to be dropped.
#[expect(dead_code, reason = "a lock is released by dropping it")]
pub(crate) enum DirLock {
    Uring(uring::file::DirLock),
    Sim(sim::file::DirLock),
}

pub(crate) enum Listener {
    Uring(uring::socket::Listener),
    Sim(sim::socket::Listener),
}

pub(crate) enum Stream {
    Uring(uring::socket::Stream),
    Sim(sim::socket::Stream),
}

pub(crate) enum ReadHalf {
    Uring(uring::socket::ReadHalf),
    Sim(sim::socket::ReadHalf),
}

pub(crate) enum WriteHalf {
    Uring(uring::socket::WriteHalf),
    Sim(sim::socket::WriteHalf),
}

pub(crate) enum DetachedStream {
    Uring(uring::socket::DetachedStream),
    Sim(sim::socket::DetachedStream),
}
