//! The tasks of one shard, known so that none outlives it.
//!
//! glommio forgets tasks that still wait when an executor ends, with all they own: a listener among it
//! would keep its port. So each task can be told to end.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use futures_util::future::Aborted;
use pin_project_lite::pin_project;

use crate::sync::Notify;

/// A task is spawned for every request, so being on the list costs no memory of its own and a few instructions.
#[derive(Default)]
pub(super) struct Tasks {
    places: RefCell<Places>,
    /// Whether they are told to end.
    ending: Cell<bool>,
    /// Rings when the last one is gone.
    none_left: Notify,
}

#[derive(Default)]
struct Places {
    /// What wakes the task of each place that is taken, once it has waited for something.
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Tasks {
    /// Makes a future one of these tasks. It yields `Aborted` if it was told to end.
    pub(super) fn enrol<F: Future>(self: &Rc<Self>, future: F) -> Enrolled<F> {
        let number = self.places.borrow_mut().take();
        Enrolled { future, place: Place { tasks: self.clone(), number } }
    }

    /// Tells every task to end, those spawned meanwhile as well, and waits until all are gone.
    pub(super) async fn end(&self) {
        self.ending.set(true);
        loop {
            let gone = self.none_left.wait();
            if self.places.borrow().are_free() {
                return;
            }
            let wakers: Vec<Waker> = self.places.borrow().wakers.iter().flatten().cloned().collect();
            for waker in wakers {
                waker.wake();
            }
            gone.await;
        }
    }
}

impl Places {
    fn take(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.wakers.push(None);
            self.wakers.len() - 1
        })
    }

    fn are_free(&self) -> bool {
        self.free.len() == self.wakers.len()
    }
}

/// A place on the list, given up when the task is gone.
struct Place {
    tasks: Rc<Tasks>,
    number: usize,
}

impl Place {
    /// Remembers what wakes the task.
    fn waits(&self, waker: &Waker) {
        let known = &mut self.tasks.places.borrow_mut().wakers[self.number];
        if known.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.tasks.places.borrow_mut();
        let waker = places.wakers[self.number].take();
        places.free.push(self.number);
        let none_left = places.are_free();
        drop(places);
        // It may hold the last of a task, with anything in it.
        drop(waker);
        if none_left {
            self.tasks.none_left.notify_all();
        }
    }
}

pin_project! {
    /// A future that ends early when the shard does.
    pub(super) struct Enrolled<F> {
        // Before the place, which is given up only when the future is gone.
        #[pin]
        future: F,
        place: Place,
    }
}

impl<F: Future> Future for Enrolled<F> {
    type Output = Result<F::Output, Aborted>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.place.tasks.ending.get() {
            return Poll::Ready(Err(Aborted));
        }
        let polled = this.future.poll(context);
        if polled.is_pending() {
            this.place.waits(context.waker());
        }
        polled.map(Ok)
    }
}
