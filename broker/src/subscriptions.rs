//! The subscriptions that a connection has open: what each may still be sent, and whether it is to end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;

use corrente_runtime::sync::Notify;

/// A connection's subscriptions, by the correlation ids of the requests that opened them.
pub struct Subscriptions {
    open: RefCell<BTreeMap<u64, Rc<Subscription>>>,
    count_max: usize,
}

/// One subscription, as those who adjust it and the one who sends see it.
pub struct Subscription {
    /// Bytes of batches that may be sent; below 0 by what the last batch was larger than what was left.
    credit: Cell<i64>,
    ends: Cell<bool>,
    /// Rings when either changes.
    adjusted: Notify,
}

/// Why no subscription is opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OpenError {
    /// The correlation id is that of an open one.
    #[error("correlation id {0} is that of an open subscription")]
    IsOpen(u64),
    /// There are as many as may be.
    #[error("the connection has {0} subscriptions open, the most that it may have")]
    TooMany(usize),
}

impl Subscriptions {
    /// None yet, and never more than so many at once.
    pub fn new(count_max: usize) -> Subscriptions {
        Subscriptions { open: RefCell::default(), count_max }
    }

    /// Opens one, until [`Subscriptions::close`].
    pub fn open(&self, id: u64, credit: u32) -> Result<Rc<Subscription>, OpenError> {
        let mut open = self.open.borrow_mut();
        if open.contains_key(&id) {
            return Err(OpenError::IsOpen(id));
        }
        if open.len() >= self.count_max {
            return Err(OpenError::TooMany(open.len()));
        }
        let subscription = Rc::new(Subscription {
            credit: Cell::new(credit.into()),
            ends: Cell::new(false),
            adjusted: Notify::new(),
        });
        open.insert(id, subscription.clone());
        Ok(subscription)
    }

    /// The open one with this id.
    pub fn find(&self, id: u64) -> Option<Rc<Subscription>> {
        self.open.borrow().get(&id).cloned()
    }

    /// Forgets one.
    pub fn close(&self, id: u64) {
        let closed = self.open.borrow_mut().remove(&id);
        assert!(closed.is_some(), "subscription {id} is closed once");
    }
}

impl Subscription {
    /// What may be sent now, in bytes of batches.
    pub fn credit(&self) -> usize {
        usize::try_from(self.credit.get()).unwrap_or(0)
    }

    /// Batches of so many bytes are sent.
    pub fn spend(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).expect("an answer fits into memory");
        self.credit.set(self.credit.get().saturating_sub(bytes));
    }

    /// More may be sent.
    pub fn add_credit(&self, bytes: u32) {
        self.credit.set(self.credit.get().saturating_add(bytes.into()));
        self.adjusted.notify_all();
    }

    /// Nothing more is wanted.
    pub fn end(&self) {
        self.ends.set(true);
        self.adjusted.notify_all();
    }

    /// Whether nothing more is wanted.
    pub fn ends(&self) -> bool {
        self.ends.get()
    }

    /// Waits for the next adjustment. Counts from this call. Cancel-safe.
    pub fn adjusted(&self) -> impl Future<Output = ()> + '_ {
        self.adjusted.wait()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_overdrawn_comes_off_what_is_given_next() {
        let subscriptions = Subscriptions::new(1);
        let subscription = subscriptions.open(7, 100).unwrap();
        subscription.spend(150);
        assert_eq!(subscription.credit(), 0);
        subscription.add_credit(40);
        assert_eq!(subscription.credit(), 0);
        subscription.add_credit(20);
        assert_eq!(subscription.credit(), 10);
    }

    #[test]
    fn an_id_is_open_once_and_the_number_is_bounded() {
        let subscriptions = Subscriptions::new(2);
        assert!(subscriptions.open(1, 0).is_ok());
        assert_eq!(subscriptions.open(1, 0).err(), Some(OpenError::IsOpen(1)));
        assert!(subscriptions.open(2, 0).is_ok());
        assert_eq!(subscriptions.open(3, 0).err(), Some(OpenError::TooMany(2)));
        subscriptions.close(1);
        assert!(subscriptions.find(1).is_none());
        assert!(subscriptions.open(3, 0).is_ok());
    }
}
