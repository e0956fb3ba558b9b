//! A bound on memory in use, shared in order of asking.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A number of bytes that tasks take from and give back to.
///
/// First come, first served: nobody is granted while somebody who asked earlier still waits, so a large
/// request is not starved by small ones. A request for more than the whole budget is taken for one of
/// the whole. Clones share the budget.
#[derive(Clone)]
pub struct Budget(Rc<Shared>);

/// Invariant: whenever no method runs, the first in `queue` needs more than `available`.
struct Shared {
    total: usize,
    available: Cell<usize>,
    queue: RefCell<VecDeque<Rc<Waiter>>>,
}

struct Waiter {
    bytes: usize,
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Budget {
    /// A budget of `total` bytes, at least one.
    pub fn new(total: usize) -> Self {
        assert!(total > 0, "a budget of {total} bytes could never be granted from");
        Self(Rc::new(Shared { total, available: Cell::new(total), queue: RefCell::new(VecDeque::new()) }))
    }

    /// How many bytes the budget holds in all.
    pub fn total(&self) -> usize {
        self.0.total
    }

    /// How many of them nobody holds.
    pub fn available(&self) -> usize {
        self.0.available.get()
    }

    /// Whether anybody waits for bytes that others hold.
    pub fn is_short(&self) -> bool {
        !self.0.queue.borrow().is_empty()
    }

    /// Waits for `bytes`, or for the whole budget if that is less. Cancel-safe: a dropped wait gives up
    /// its place and holds nothing.
    pub async fn acquire(&self, bytes: usize) -> Permit {
        if let Some(permit) = self.try_acquire(bytes) {
            return permit;
        }
        let waiter = Rc::new(Waiter {
            bytes: bytes.min(self.0.total),
            granted: Cell::new(false),
            waker: RefCell::new(None),
        });
        self.0.queue.borrow_mut().push_back(waiter.clone());
        Acquire { shared: self.0.clone(), waiter }.await
    }

    /// Takes `bytes`, or the whole budget if that is less, if they are free and nobody waits.
    pub fn try_acquire(&self, bytes: usize) -> Option<Permit> {
        let bytes = bytes.min(self.0.total);
        if bytes > self.0.available.get() || !self.0.queue.borrow().is_empty() {
            return None;
        }
        self.0.available.set(self.0.available.get() - bytes);
        Some(Permit { shared: self.0.clone(), bytes })
    }
}

impl Shared {
    fn give_back(&self, bytes: usize) {
        self.available.set(self.available.get() + bytes);
        assert!(
            self.available.get() <= self.total,
            "{} bytes available of a budget of {}",
            self.available.get(),
            self.total
        );
        self.grant();
    }

    fn grant(&self) {
        while let Some(waiter) = self.next_that_fits() {
            self.available.set(self.available.get() - waiter.bytes);
            waiter.granted.set(true);
            let waker = waiter.waker.take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    fn next_that_fits(&self) -> Option<Rc<Waiter>> {
        let mut queue = self.queue.borrow_mut();
        let fits = queue.front().is_some_and(|waiter| waiter.bytes <= self.available.get());
        if fits { queue.pop_front() } else { None }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Budget({} of {} bytes free)", self.available(), self.total())
    }
}

/// Bytes taken from a [`Budget`]; dropping it gives them back.
#[must_use = "the bytes are given back when dropped"]
pub struct Permit {
    shared: Rc<Shared>,
    bytes: usize,
}

impl Permit {
    /// How many bytes it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back all but `bytes`; without effect if it holds no more.
    pub fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.shared.give_back(surplus);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.give_back(self.bytes);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Permit({} bytes)", self.bytes)
    }
}

struct Acquire {
    shared: Rc<Shared>,
    waiter: Rc<Waiter>,
}

impl Future for Acquire {
    type Output = Permit;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Permit> {
        if self.waiter.granted.replace(false) {
            let permit = Permit { shared: self.shared.clone(), bytes: self.waiter.bytes };
            return Poll::Ready(permit);
        }
        let before = self.waiter.waker.replace(Some(context.waker().clone()));
        drop(before);
        Poll::Pending
    }
}

/// A grant nobody picked up goes to the next in line; a place given up may let the next one through.
impl Drop for Acquire {
    fn drop(&mut self) {
        if self.waiter.granted.get() {
            self.shared.give_back(self.waiter.bytes);
            return;
        }
        let place = {
            let queue = self.shared.queue.borrow();
            queue.iter().position(|waiter| Rc::ptr_eq(waiter, &self.waiter))
        };
        if let Some(place) = place {
            let waiter = self.shared.queue.borrow_mut().remove(place);
            drop(waiter);
            self.shared.grant();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;
    use futures_util::task::noop_waker;

    use super::*;

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&noop_waker()))
    }

    #[test]
    fn what_is_dropped_can_be_taken_again() {
        let budget = Budget::new(10);
        let permit = budget.try_acquire(7).expect("free");
        assert_eq!(budget.available(), 3);
        assert!(budget.try_acquire(4).is_none());
        drop(permit);
        assert_eq!(budget.available(), 10);
    }

    #[test]
    fn a_small_request_does_not_overtake_a_large_one() {
        let budget = Budget::new(10);
        let held = budget.try_acquire(6).expect("free");
        let mut large = pin!(budget.acquire(8));
        assert!(poll(large.as_mut()).is_pending());
        let mut small = pin!(budget.acquire(1));
        assert!(poll(small.as_mut()).is_pending(), "room for 1, but 8 asked first");
        assert!(budget.try_acquire(1).is_none());

        drop(held);
        let Poll::Ready(large) = poll(large.as_mut()) else { panic!("8 of 10 are free") };
        let Poll::Ready(small) = poll(small.as_mut()) else { panic!("1 of 2 is free") };
        assert_eq!(budget.available(), 1);
        drop((large, small));
        assert_eq!(budget.available(), 10);
    }

    #[test]
    fn a_waiter_that_gives_up_lets_the_next_one_through() {
        let budget = Budget::new(10);
        let held = budget.try_acquire(6).expect("free");
        let mut large = Box::pin(budget.acquire(8));
        assert!(poll(large.as_mut()).is_pending());
        let mut small = pin!(budget.acquire(4));
        assert!(poll(small.as_mut()).is_pending());
        drop(large);
        assert!(poll(small.as_mut()).is_ready());
        drop(held);
    }

    #[test]
    fn a_grant_nobody_picked_up_is_not_lost() {
        let budget = Budget::new(10);
        let held = budget.try_acquire(10).expect("free");
        let mut first = Box::pin(budget.acquire(10));
        assert!(poll(first.as_mut()).is_pending());
        drop(held);
        assert_eq!(budget.available(), 0, "granted, not yet picked up");
        drop(first);
        assert_eq!(budget.available(), 10);
    }

    #[test]
    fn more_than_all_means_all() {
        let budget = Budget::new(10);
        let permit = budget.acquire(11).now_or_never().expect("free");
        assert_eq!(permit.bytes(), 10);
    }

    #[test]
    fn shrinking_lets_others_in() {
        let budget = Budget::new(10);
        let mut permit = budget.try_acquire(10).expect("free");
        let mut waiting = pin!(budget.acquire(4));
        assert!(poll(waiting.as_mut()).is_pending());
        permit.shrink_to(6);
        assert!(poll(waiting.as_mut()).is_ready());
    }
}
