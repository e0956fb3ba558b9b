//! A bell that every waiting task hears.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A bell: [`Notify::notify_all`] ends every wait that began before it.
///
/// No ring is missed: a wait counts from the call of [`Notify::wait`], not from its first poll, so
/// one may begin the wait, look at the state, and await only if it is not as wished.
#[derive(Default)]
pub struct Notify {
    /// How often the bell rang.
    rings: Cell<u64>,
    next_waiter: Cell<u64>,
    /// Woken in the order they began to wait.
    waiters: RefCell<BTreeMap<u64, Waker>>,
}

impl Notify {
    /// A bell that has not rung.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends every wait that has begun.
    pub fn notify_all(&self) {
        self.rings.set(self.rings.get() + 1);
        for waker in self.waiters.take().into_values() {
            waker.wake();
        }
    }

    /// Waits for the next ring. Cancel-safe.
    pub fn wait(&self) -> Notified<'_> {
        let id = self.next_waiter.get();
        self.next_waiter.set(id + 1);
        Notified { notify: self, id, heard: self.rings.get() }
    }
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Notify({} rings, {} waiting)", self.rings.get(), self.waiters.borrow().len())
    }
}

/// A wait for the next ring of a [`Notify`].
#[must_use = "waits only when awaited"]
pub struct Notified<'a> {
    notify: &'a Notify,
    id: u64,
    /// How often the bell had rung when the wait began.
    heard: u64,
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.notify.rings.get() != self.heard {
            return Poll::Ready(());
        }
        let before = self.notify.waiters.borrow_mut().insert(self.id, context.waker().clone());
        drop(before);
        Poll::Pending
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        let waker = self.notify.waiters.borrow_mut().remove(&self.id);
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_ring_between_the_call_and_the_await_is_heard() {
        let notify = Notify::new();
        let waiting = notify.wait();
        notify.notify_all();
        assert!(waiting.now_or_never().is_some());
    }

    #[test]
    fn a_ring_before_the_call_is_not_heard() {
        let notify = Notify::new();
        notify.notify_all();
        assert!(notify.wait().now_or_never().is_none());
    }

    #[test]
    fn a_dropped_wait_leaves_nothing_behind() {
        let notify = Notify::new();
        assert!(notify.wait().now_or_never().is_none());
        assert!(notify.waiters.borrow().is_empty());
    }
}
