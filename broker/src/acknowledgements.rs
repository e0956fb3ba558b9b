//! Who waits for the records of one partition to be acknowledged, in the order of their appends.
//!
//! Data, not tasks: an acknowledgement costs what it takes to tell it, however many become due at once.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use corrente_protocol::frame::Durability;
use corrente_protocol::ids::Offset;
use corrente_runtime::timer::{Instant, now};
use corrente_storage::Fenced;

/// Is told the durability that was reached, or why it never will be, and when that was known.
pub type Tell = Box<dyn FnOnce(Result<Durability, Fenced>, Instant)>;

struct Waiting {
    /// One past the last of its records.
    end: Offset,
    tell: Tell,
}

/// See the module. Told in order; what is told may ask for more.
#[derive(Default)]
pub struct Acknowledgements(RefCell<VecDeque<Waiting>>);

impl Acknowledgements {
    /// Tells once everything below `end` is acknowledged. Ends are given in the order of the log, but for few.
    pub fn add(&self, end: Offset, tell: Tell) {
        let mut waiting = self.0.borrow_mut();
        let behind = waiting.iter().rev().take_while(|other| other.end > end).count();
        let place = waiting.len() - behind;
        waiting.insert(place, Waiting { end, tell });
    }

    /// Everything below `end` is acknowledged, as durable as `receipt_for` says.
    pub fn reached(&self, end: Offset, receipt_for: impl Fn(Offset) -> Durability) {
        let at = now();
        while let Some(Waiting { end, tell }) = self.take_below(end) {
            tell(Ok(receipt_for(end)), at);
        }
    }

    fn take_below(&self, end: Offset) -> Option<Waiting> {
        let mut waiting = self.0.borrow_mut();
        let is_below = waiting.front().is_some_and(|first| first.end <= end);
        if is_below { waiting.pop_front() } else { None }
    }

    /// Nothing further will be acknowledged.
    pub fn refuse(&self, why: &Fenced) {
        let at = now();
        for waiting in self.0.take() {
            (waiting.tell)(Err(why.clone()), at);
        }
    }
}

/// Forgets who waits when it is dropped, as whoever would tell them is gone: they hold what they want to tell of.
pub struct ForgetWaiting(pub Rc<Acknowledgements>);

impl Drop for ForgetWaiting {
    fn drop(&mut self) {
        drop(self.0.0.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(told: &Rc<RefCell<Vec<(u64, bool)>>>, end: u64) -> Tell {
        let told = told.clone();
        Box::new(move |outcome, _| told.borrow_mut().push((end, outcome.is_ok())))
    }

    #[test]
    fn tells_in_the_order_of_the_log_and_each_once() {
        let told = Rc::default();
        let waiting = Acknowledgements::default();
        for end in [3, 5, 4, 9] {
            waiting.add(Offset(end), note(&told, end));
        }
        waiting.reached(Offset(5), |_| Durability::IsrFlushed);
        assert_eq!(*told.borrow(), [(3, true), (4, true), (5, true)]);
        waiting.reached(Offset(8), |_| Durability::IsrFlushed);
        assert_eq!(told.borrow().len(), 3);
        waiting.refuse(&Fenced { reason: "the disk is gone".into() });
        assert_eq!(told.borrow().last(), Some(&(9, false)));
        waiting.reached(Offset(9), |_| Durability::IsrFlushed);
        assert_eq!(told.borrow().len(), 4);
    }

    #[test]
    fn nobody_is_told_by_who_is_gone() {
        let told = Rc::default();
        let waiting = Rc::new(Acknowledgements::default());
        waiting.add(Offset(3), note(&told, 3));
        drop(ForgetWaiting(waiting.clone()));
        waiting.reached(Offset(3), |_| Durability::IsrFlushed);
        assert!(told.borrow().is_empty());
        assert_eq!(Rc::strong_count(&told), 1);
    }
}
