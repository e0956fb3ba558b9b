//! The one door to a simulated disk: operations that take their time and then happen.
//!
//! An operation happens when it completes, also if nobody waits any more. A power cut takes it along; a
//! kill of its process leaves to chance how much of it the machine still does.

use super::{
    context::Context,
    disk::Disk,
    fault::DiskFault,
    trace::Mark,
    world::{Event, WorldState},
};
use std::{
    cell::RefCell,
    future::Future,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    rc::Rc,
    task::{Poll, Waker},
};

/// What an operation does, as far as chance cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Answered from what the kernel knows by heart: never fails.
    Recall,
    /// Looks at names.
    Look,
    /// Reads content.
    Read,
    /// Writes content.
    Write,
    /// Writes content and flushes it.
    DurableWrite,
    /// Flushes content or names.
    Flush,
    /// Changes names or lengths, at one stroke.
    Change,
}

/// An operation as it is handed in.
pub(crate) struct Request {
    pub(crate) kind: Kind,
    /// Where it happens.
    pub(crate) path: Rc<Path>,
    /// How long it takes on a healthy disk.
    pub(crate) delay_ns: u64,
    /// Stands for it in the trace.
    pub(crate) fingerprint: u64,
}

/// How an operation comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As asked.
    Sound,
    /// Its process was killed while it was under way.
    Killed,
    /// It goes wrong, by a rule that holds at and below this path.
    Fault(DiskFault, PathBuf),
}

/// How an operation comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its time has come.
    Due,
    /// Its process was killed.
    Killed,
}

/// Makes an operation happen, once; yields who waits for it.
pub(crate) type Completion = Box<dyn FnMut(&WorldState, &mut Disk, Ending) -> Option<Waker>>;

/// Starts an operation; `apply` makes it happen when it completes.
pub(crate) fn submit<T: 'static>(
    context: &Context,
    request: Request,
    apply: impl FnOnce(&WorldState, &mut Disk, Verdict) -> io::Result<T> + 'static,
) -> Operation<T> {
    let Context { world, life, executor, .. } = context;
    let Request { kind, path, delay_ns, fingerprint } = request;
    let outcome = Rc::new(RefCell::new(Outcome { result: None, waiter: None }));
    if !world.is_alive(*life) {
        outcome.borrow_mut().result = Some(Err(io::Error::other("the node of this file has crashed")));
        return Operation { outcome };
    }
    world.note(Mark::DiskSubmit, life.node as u64, fingerprint);
    let at_ns = {
        let disk = &mut world.nodes.borrow_mut()[life.node].disk;
        let at_ns = world.now_ns().saturating_add(disk.slowed_ns(world, kind, &path, delay_ns));
        disk.busy_until(*executor, at_ns);
        at_ns
    };
    // The closure keeps the outcome alive until the disk is no longer borrowed: its drop may call back.
    let completed = outcome.clone();
    let mut apply = Some(apply);
    let complete = Box::new(move |world: &WorldState, disk: &mut Disk, ending| {
        let apply = apply.take()?;
        let verdict = match ending {
            Ending::Due => disk.judge(world, kind, &path),
            Ending::Killed if outlives_its_process(world, kind) => Verdict::Killed,
            Ending::Killed => return None,
        };
        let result = apply(world, disk, verdict);
        let mut outcome = completed.borrow_mut();
        outcome.result = Some(result);
        outcome.waiter.take()
    });
    world.schedule(at_ns, Event::Disk(*life, complete));
    Operation { outcome }
}

/// The kernel may have begun what the process asked for, or not. How much of a write happened the write draws.
fn outlives_its_process(world: &WorldState, kind: Kind) -> bool {
    match kind {
        Kind::Recall | Kind::Look | Kind::Read => false,
        Kind::Write | Kind::DurableWrite => true,
        Kind::Flush | Kind::Change => world.chance(0.5),
    }
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
