//! The subscriptions that a connection has open: what each may still be sent, and whether it is to end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;

use corrente_runtime::sync::{Budget, Notify, Permit};

/// What a shard remembers of a subscription: mostly its task.
const SUBSCRIPTION_BYTES: usize = 4 * 1024;

/// And of each partition of it: the position, and the wait for news with its future.
const PARTITION_BYTES: usize = 1024;

/// A connection's subscriptions, by the correlation ids of the requests that opened them.
pub struct Subscriptions {
    open: RefCell<BTreeMap<u64, Open>>,
    count_max: usize,
}

struct Open {
    subscription: Rc<Subscription>,
    /// What the shard remembers of it.
    memory: Permit,
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
    /// The connection would hold too much of the shard's memory for what subscriptions are about.
    #[error(
        "{partitions} partitions take {needed} bytes to remember; of the {max} that a connection may have, \
         {held} are taken"
    )]
    TooLarge {
        /// Of the subscription.
        partitions: usize,
        /// By it.
        needed: usize,
        /// By the connection's other ones.
        held: usize,
        /// For all of them.
        max: usize,
    },
    /// Others hold it.
    #[error("the shard has no room to remember {0} partitions more")]
    NoRoom(usize),
}

impl Subscriptions {
    /// None yet, and never more than so many at once.
    pub fn new(count_max: usize) -> Subscriptions {
        Subscriptions { open: RefCell::default(), count_max }
    }

    /// Opens one, until [`Subscriptions::close`].
    ///
    /// `memory` is the shard's for what is remembered of subscriptions; no connection takes more than half of it.
    pub fn open(
        &self,
        id: u64,
        credit: u32,
        partitions: usize,
        memory: &Budget,
    ) -> Result<Rc<Subscription>, OpenError> {
        let mut open = self.open.borrow_mut();
        if open.contains_key(&id) {
            return Err(OpenError::IsOpen(id));
        }
        if open.len() >= self.count_max {
            return Err(OpenError::TooMany(open.len()));
        }
        let needed = SUBSCRIPTION_BYTES + partitions * PARTITION_BYTES;
        let held = open.values().map(|open| open.memory.bytes()).sum::<usize>();
        let max = memory.total() / 2;
        if held + needed > max {
            return Err(OpenError::TooLarge { partitions, needed, held, max });
        }
        let memory = memory.try_acquire(needed).ok_or(OpenError::NoRoom(partitions))?;
        let subscription = Rc::new(Subscription {
            credit: Cell::new(credit.into()),
            ends: Cell::new(false),
            adjusted: Notify::new(),
        });
        open.insert(id, Open { subscription: subscription.clone(), memory });
        Ok(subscription)
    }

    /// The open one with this id.
    pub fn find(&self, id: u64) -> Option<Rc<Subscription>> {
        self.open.borrow().get(&id).map(|open| open.subscription.clone())
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

    /// So many bytes more may be sent, or nothing more is wanted.
    pub fn adjust(&self, credit: u32, ends: bool) {
        self.credit.set(self.credit.get().saturating_add(credit.into()));
        self.ends.set(self.ends.get() || ends);
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

    const PLENTY: usize = 1 << 20;

    #[test]
    fn what_is_overdrawn_comes_off_what_is_given_next() {
        let subscription = Subscriptions::new(1).open(7, 100, 1, &Budget::new(PLENTY)).unwrap();
        subscription.spend(150);
        assert_eq!(subscription.credit(), 0);
        subscription.adjust(40, false);
        assert_eq!(subscription.credit(), 0);
        subscription.adjust(20, false);
        assert_eq!(subscription.credit(), 10);
    }

    #[test]
    fn an_id_is_open_once_and_the_number_is_bounded() {
        let (subscriptions, memory) = (Subscriptions::new(2), Budget::new(PLENTY));
        assert!(subscriptions.open(1, 0, 1, &memory).is_ok());
        assert_eq!(subscriptions.open(1, 0, 1, &memory).err(), Some(OpenError::IsOpen(1)));
        assert!(subscriptions.open(2, 0, 1, &memory).is_ok());
        assert_eq!(subscriptions.open(3, 0, 1, &memory).err(), Some(OpenError::TooMany(2)));
        subscriptions.close(1);
        assert!(subscriptions.find(1).is_none());
        assert!(subscriptions.open(3, 0, 1, &memory).is_ok());
    }

    #[test]
    fn what_is_remembered_has_its_bounds() {
        let memory = Budget::new(4 * (SUBSCRIPTION_BYTES + PARTITION_BYTES));
        let (one, another) = (Subscriptions::new(9), Subscriptions::new(9));
        assert!(one.open(1, 0, 1, &memory).is_ok());
        let too_large = one.open(2, 0, 2, &memory).err();
        assert!(matches!(too_large, Some(OpenError::TooLarge { partitions: 2, .. })), "{too_large:?}");
        assert!(one.open(2, 0, 1, &memory).is_ok());
        let _by_others = memory.try_acquire(memory.available() - PARTITION_BYTES).unwrap();
        assert_eq!(another.open(1, 0, 1, &memory).err(), Some(OpenError::NoRoom(1)));
        one.close(1);
        assert!(another.open(1, 0, 1, &memory).is_ok());
    }
}
