//! A value that tasks wait to see pass a bound.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A value, such as a flushed offset, and the tasks that wait for it to pass a bound each.
///
/// A change wakes those whose bound is passed and no others, lowest bound first, so a thousand waiting
/// requests cost nothing until each one's turn.
pub struct Watch<T: Copy + Ord> {
    value: Cell<T>,
    closed: Cell<bool>,
    next_waiter: Cell<u64>,
    /// By bound, then by when the wait began.
    waiters: RefCell<BTreeMap<(T, u64), Waker>>,
}

impl<T: Copy + Ord> Watch<T> {
    /// Starts at `value`.
    pub fn new(value: T) -> Self {
        Self {
            value: Cell::new(value),
            closed: Cell::new(false),
            next_waiter: Cell::new(0),
            waiters: RefCell::new(BTreeMap::new()),
        }
    }

    /// The value now.
    pub fn get(&self) -> T {
        self.value.get()
    }

    /// Changes the value and wakes those whose bound it has passed.
    pub fn set(&self, value: T) {
        self.value.set(value);
        let passed = {
            let mut waiters = self.waiters.borrow_mut();
            let waiting = waiters.split_off(&(value, 0));
            std::mem::replace(&mut *waiters, waiting)
        };
        for waker in passed.into_values() {
            waker.wake();
        }
    }

    /// Ends every wait, now and later, with `None` unless its bound is passed: the value will not change
    /// again.
    pub fn close(&self) {
        self.closed.set(true);
        for waker in self.waiters.take().into_values() {
            waker.wake();
        }
    }

    /// Whether [`Watch::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Waits until the value is greater than `bound` and returns it, or `None` if the watch is closed
    /// before that. Cancel-safe.
    pub fn past(&self, bound: T) -> impl Future<Output = Option<T>> + '_ {
        let id = self.next_waiter.get();
        self.next_waiter.set(id + 1);
        Past { watch: self, bound, id }
    }
}

impl<T: Copy + Ord + fmt::Debug> fmt::Debug for Watch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({:?}, {} waiting)", self.value.get(), self.waiters.borrow().len())
    }
}

struct Past<'a, T: Copy + Ord> {
    watch: &'a Watch<T>,
    bound: T,
    id: u64,
}

impl<T: Copy + Ord> Future for Past<'_, T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let value = self.watch.get();
        if value > self.bound {
            return Poll::Ready(Some(value));
        }
        if self.watch.is_closed() {
            return Poll::Ready(None);
        }
        let key = (self.bound, self.id);
        let before = self.watch.waiters.borrow_mut().insert(key, context.waker().clone());
        drop(before);
        Poll::Pending
    }
}

impl<T: Copy + Ord> Drop for Past<'_, T> {
    fn drop(&mut self) {
        let waker = self.watch.waiters.borrow_mut().remove(&(self.bound, self.id));
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use futures_util::FutureExt;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn only_a_passed_bound_wakes() {
        let watch = Watch::new(10_u64);
        let (low, high) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let (low_waker, high_waker) = (Waker::from(low.clone()), Waker::from(high.clone()));
        let mut past_ten = pin!(watch.past(10));
        let mut past_twenty = pin!(watch.past(20));
        assert!(past_ten.as_mut().poll(&mut Context::from_waker(&low_waker)).is_pending());
        assert!(past_twenty.as_mut().poll(&mut Context::from_waker(&high_waker)).is_pending());

        watch.set(10);
        assert_eq!(low.0.load(Ordering::Relaxed), 0, "10 has not passed 10");
        watch.set(20);
        assert_eq!(low.0.load(Ordering::Relaxed), 1);
        assert_eq!(high.0.load(Ordering::Relaxed), 0, "20 has not passed 20");
        assert_eq!(past_ten.now_or_never(), Some(Some(20)));
    }

    #[test]
    fn closing_ends_waits_but_not_those_already_answered() {
        let watch = Watch::new(5);
        watch.close();
        assert_eq!(watch.past(5).now_or_never(), Some(None));
        assert_eq!(watch.past(4).now_or_never(), Some(Some(5)));
    }

    #[test]
    fn a_dropped_wait_leaves_nothing_behind() {
        let watch = Watch::new(5);
        assert!(watch.past(5).now_or_never().is_none());
        assert!(watch.waiters.borrow().is_empty());
    }
}
