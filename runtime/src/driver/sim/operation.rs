//! The one door to a simulated disk: operations that take their time and then happen.
//!
//! An operation happens when it completes, also if nobody waits any more, and dies with its node.

use super::{context::Context, disk::Disk, trace::Mark, world::Event};
use std::{
    cell::RefCell,
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    task::{Poll, Waker},
};

/// Starts an operation that completes after `delay_ns`; `apply` then makes it happen. `fingerprint`
/// stands for it in the trace.
pub(crate) fn submit<T: 'static>(
    context: &Context,
    delay_ns: u64,
    fingerprint: u64,
    apply: impl FnOnce(&mut Disk) -> io::Result<T> + 'static,
) -> Operation<T> {
    let Context { world, life, executor, .. } = context;
    let outcome = Rc::new(RefCell::new(Outcome { result: None, waiter: None }));
    if !world.is_alive(*life) {
        outcome.borrow_mut().result = Some(Err(io::Error::other("the node of this file has crashed")));
        return Operation { outcome };
    }
    world.note(Mark::DiskSubmit, life.node as u64, fingerprint);
    let at_ns = world.now_ns().saturating_add(delay_ns);
    {
        world.nodes.borrow_mut()[life.node].disk.busy_until(*executor, at_ns);
    }
    // The closure keeps the outcome alive until the disk is no longer borrowed: its drop may call back.
    let completed = outcome.clone();
    let mut apply = Some(apply);
    let complete = Box::new(move |disk: &mut Disk| {
        let result = apply.take()?(disk);
        let mut outcome = completed.borrow_mut();
        outcome.result = Some(result);
        outcome.waiter.take()
    });
    world.schedule(at_ns, Event::Disk(*life, complete));
    Operation { outcome }
}

struct Outcome<T> {
    result: Option<io::Result<T>>,
    waiter: Option<Waker>,
}

/// Resolves when the operation has completed.
pub(crate) struct Operation<T> {
    outcome: Rc<RefCell<Outcome<T>>>,
}

impl<T> Future for Operation<T> {
    type Output = io::Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let mut outcome = self.outcome.borrow_mut();
        if let Some(result) = outcome.result.take() {
            return Poll::Ready(result);
        }
        let outdated = outcome.waiter.replace(cx.waker().clone());
        drop(outcome);
        drop(outdated);
        Poll::Pending
    }
}
