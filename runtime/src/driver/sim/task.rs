//! Tasks of a world: the table that owns their futures, the wakers that name them, the handles that
//! await them.
//!
//! Nothing here runs user code while the table is borrowed: futures and wakers are handed out, and
//! polled, woken or dropped by the caller.

use super::{context::Context, world::WorldState};
use std::{
    cell::RefCell,
    future::Future,
    panic::Location,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Wake, Waker},
};

pub(crate) type BoxedFuture = Pin<Box<dyn Future<Output = ()>>>;

/// Names a task for ever: slots are used again, generations are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// The tasks woken since the world last looked. `Wake` demands `Send`, hence the lock; one thread uses it.
#[derive(Debug, Default)]
pub(crate) struct WokenTasks(Mutex<Vec<TaskId>>);

impl WokenTasks {
    fn push(&self, id: TaskId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }

    /// Moves all woken tasks to the end of `ready`.
    pub(crate) fn drain_into(&self, ready: &mut Vec<TaskId>) {
        ready.append(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The waker of one task. Waking never touches the world, so any drop or poll may do it.
pub(crate) struct TaskWaker {
    id: TaskId,
    queued: AtomicBool,
    woken: Arc<WokenTasks>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.woken.push(self.id);
        }
    }
}

/// One living task.
pub(crate) struct TaskRecord {
    /// None while it is being polled.
    pub(crate) future: Option<BoxedFuture>,
    pub(crate) waker: Arc<TaskWaker>,
    pub(crate) context: Context,
    pub(crate) spawned_at: &'static Location<'static>,
    pub(crate) cancelled: bool,
}

/// What the world takes out of the table in order to poll.
pub(crate) struct Turn {
    pub(crate) future: BoxedFuture,
    pub(crate) waker: Waker,
    pub(crate) context: Context,
    pub(crate) cancelled: bool,
}

/// All living tasks of a world.
#[derive(Default)]
pub(crate) struct TaskTable {
    slots: Vec<(u32, Option<TaskRecord>)>,
    free: Vec<u32>,
    living: usize,
}

impl TaskTable {
    /// Adds a task and wakes it for its first poll.
    pub(crate) fn insert(
        &mut self,
        woken: &Arc<WokenTasks>,
        context: Context,
        spawned_at: &'static Location<'static>,
        future: BoxedFuture,
    ) -> TaskId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 tasks live at once")
        });
        let (generation, record) = &mut self.slots[slot as usize];
        let id = TaskId { slot, generation: *generation };
        let waker = Arc::new(TaskWaker { id, queued: AtomicBool::new(false), woken: woken.clone() });
        waker.wake_by_ref();
        *record = Some(TaskRecord { future: Some(future), waker, context, spawned_at, cancelled: false });
        self.living += 1;
        id
    }

    fn record(&mut self, id: TaskId) -> Option<&mut TaskRecord> {
        let (generation, record) = self.slots.get_mut(id.slot as usize)?;
        if *generation == id.generation { record.as_mut() } else { None }
    }

    /// Takes the future of a living task that is not being polled.
    pub(crate) fn begin_turn(&mut self, id: TaskId) -> Option<Turn> {
        let record = self.record(id)?;
        let future = record.future.take()?;
        record.waker.queued.store(false, Ordering::Relaxed);
        Some(Turn {
            future,
            waker: Waker::from(record.waker.clone()),
            context: record.context.clone(),
            cancelled: record.cancelled,
        })
    }

    /// Puts the future back after a poll; gives it back if the task died meanwhile.
    pub(crate) fn end_turn(&mut self, id: TaskId, future: BoxedFuture) -> Option<BoxedFuture> {
        match self.record(id) {
            Some(record) => {
                record.future = Some(future);
                None
            }
            None => Some(future),
        }
    }

    /// Marks a task for being dropped at its next turn.
    pub(crate) fn cancel(&mut self, id: TaskId) {
        if let Some(record) = self.record(id) {
            record.cancelled = true;
            record.waker.wake_by_ref();
        }
    }

    /// Removes a task; the caller drops the record when nothing is borrowed.
    pub(crate) fn remove(&mut self, id: TaskId) -> Option<TaskRecord> {
        self.record(id)?;
        let (generation, record) = &mut self.slots[id.slot as usize];
        *generation += 1;
        self.free.push(id.slot);
        self.living -= 1;
        record.take()
    }

    /// Removes every task `of` holds for, in slot order; with `polled` even the one being polled, whose
    /// future [`TaskTable::end_turn`] then gives back.
    pub(crate) fn remove_all(&mut self, polled: bool, of: impl Fn(&Context) -> bool) -> Vec<TaskRecord> {
        let doomed = |record: &&TaskRecord| (polled || record.future.is_some()) && of(&record.context);
        let ids: Vec<TaskId> = self.living().filter(doomed).map(|record| record.waker.id).collect();
        ids.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    /// Living tasks, for the report of a hang.
    pub(crate) fn living(&self) -> impl Iterator<Item = &TaskRecord> {
        self.slots.iter().filter_map(|(_, record)| record.as_ref())
    }

    pub(crate) fn living_count(&self) -> usize {
        self.living
    }
}

/// What a task and its handle share.
struct JoinState<T> {
    output: Option<T>,
    gone: bool,
    waiter: Option<Waker>,
}

/// Marks the task as gone when its future is dropped, finished or not.
struct Completion<T>(Rc<RefCell<JoinState<T>>>);

impl<T> Completion<T> {
    fn finish(&self, output: T) {
        self.0.borrow_mut().output = Some(output);
    }
}

impl<T> Drop for Completion<T> {
    fn drop(&mut self) {
        let waiter = {
            let mut state = self.0.borrow_mut();
            state.gone = true;
            state.waiter.take()
        };
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

/// A handle of a spawned task: awaiting it yields the output, dropping it cancels the task.
pub(crate) struct Task<T> {
    id: TaskId,
    world: Rc<WorldState>,
    state: Rc<RefCell<JoinState<T>>>,
    detached: bool,
}

impl<T: 'static> Task<T> {
    /// Spawns `future` where `context` says.
    pub(crate) fn spawn(
        context: Context,
        spawned_at: &'static Location<'static>,
        future: impl Future<Output = T> + 'static,
    ) -> Self {
        let state = Rc::new(RefCell::new(JoinState { output: None, gone: false, waiter: None }));
        let completion = Completion(state.clone());
        let world = context.world.clone();
        let id = world.spawn_boxed(
            context,
            spawned_at,
            Box::pin(async move {
                // Dropped after the future, whichever way it ends.
                let completion = completion;
                let output = future.await;
                completion.finish(output);
            }),
        );
        Self { id, world, state, detached: false }
    }
}

impl<T> Task<T> {
    /// Lets the task run on its own.
    pub(crate) fn detach(mut self) {
        self.detached = true;
    }

    /// Whether the task has returned, or was dropped by a crash.
    pub(crate) fn is_finished(&self) -> bool {
        self.state.borrow().gone
    }

    /// The output, once, if the task has returned.
    pub(crate) fn take_output(&mut self) -> Option<T> {
        self.state.borrow_mut().output.take()
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    /// # Panics
    /// If the task was dropped by a crash of its node, or is awaited again after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<T> {
        let mut state = self.state.borrow_mut();
        if let Some(output) = state.output.take() {
            return Poll::Ready(output);
        }
        assert!(!state.gone, "awaited a task that was already awaited or whose node crashed");
        let outdated = state.waiter.replace(cx.waker().clone());
        drop(state);
        drop(outdated);
        Poll::Pending
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if !self.detached {
            self.world.cancel_task(self.id);
        }
    }
}
