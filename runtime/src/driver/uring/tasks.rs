//! The tasks of one shard, kept so that none outlives it.
//!
//! glommio forgets tasks that still wait when an executor ends, with all they own: a listener among it
//! would keep its port. So each task can be told to end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;

use futures_util::future::{AbortHandle, Abortable, Aborted};

use crate::sync::Notify;

#[derive(Default)]
pub(super) struct Tasks {
    /// By order of spawning.
    living: RefCell<BTreeMap<u64, AbortHandle>>,
    spawned: Cell<u64>,
    /// Rings when the last one is gone.
    none_left: Notify,
}

impl Tasks {
    /// Makes a future one of these tasks. It yields `Aborted` if it was told to end.
    pub(super) fn enrol<F: Future>(
        self: &Rc<Self>,
        future: F,
    ) -> impl Future<Output = Result<F::Output, Aborted>> + use<F> {
        let (handle, registration) = AbortHandle::new_pair();
        let id = self.spawned.get();
        self.spawned.set(id + 1);
        self.living.borrow_mut().insert(id, handle);
        let enrolled = Enrolled { tasks: self.clone(), id };
        let future = async move {
            let _enrolled = enrolled;
            future.await
        };
        Abortable::new(future, registration)
    }

    /// Tells every task to end, those spawned meanwhile as well, and waits until all are gone.
    pub(super) async fn end(&self) {
        while !self.living.borrow().is_empty() {
            let gone = self.none_left.wait();
            let handles: Vec<_> = self.living.borrow().values().cloned().collect();
            for handle in handles {
                handle.abort();
            }
            gone.await;
        }
    }
}

/// A task's name on the list, struck out when the task is gone.
struct Enrolled {
    tasks: Rc<Tasks>,
    id: u64,
}

impl Drop for Enrolled {
    fn drop(&mut self) {
        let mut living = self.tasks.living.borrow_mut();
        let handle = living.remove(&self.id);
        let none_left = living.is_empty();
        drop(living);
        drop(handle);
        if none_left {
            self.tasks.none_left.notify_all();
        }
    }
}
