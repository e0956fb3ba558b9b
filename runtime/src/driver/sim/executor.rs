//! Spawning, yielding, and the shards of a simulated node.

pub(crate) use super::task::Task;
use super::{
    context::{self, Context, NODE_EXECUTOR},
    timer,
    world::WorldState,
};
use crate::executor::{ExecutorPanicked, ExecutorsConfig, Queue, StartError};
use std::{
    future::{Future, poll_fn},
    panic::Location,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

/// One in so many calls of [`yield_if_needed`] finds its turn used up.
const YIELD_ONE_IN: u64 = 4;

#[track_caller]
pub(crate) fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    Task::spawn(context::current(), Location::caller(), future)
}

/// Ready tasks are chosen at random, whatever their queue: any order the weights allow may come up.
#[track_caller]
pub(crate) fn spawn_in<T: 'static>(_queue: Queue, future: impl Future<Output = T> + 'static) -> Task<T> {
    Task::spawn(context::current(), Location::caller(), future)
}

pub(crate) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

pub(crate) async fn yield_if_needed() {
    if context::current().world.draw_below(YIELD_ONE_IN) == 0 {
        yield_now().await;
    }
}

/// The shards of one node: tasks that share its address and disk.
pub(crate) struct Executors {
    running: Arc<Mutex<Running>>,
}

struct Running {
    shards: u16,
    /// A shard that went down with its node.
    crashed: Option<u16>,
    waiter: Option<Waker>,
}

impl Executors {
    #[track_caller]
    pub(crate) fn start<F, Fut>(config: ExecutorsConfig, main: F) -> Result<Executors, StartError>
    where
        F: Fn(u16) -> Fut + Send + Clone + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        if config.shards == 0 {
            return Err(StartError::NoShards);
        }
        if config.refuse_io_uring {
            return Err(StartError::IoUringRefused { reason: "the simulated kernel was told to".to_owned() });
        }
        let here = context::current();
        let running = Arc::new(Mutex::new(Running { shards: config.shards, crashed: None, waiter: None }));
        for shard in 0..config.shards {
            let main = main.clone();
            let end = ShardEnd { shard, returned: false, running: running.clone() };
            let context = Context { executor: here.world.new_executor(), shard, ..here.clone() };
            Task::spawn(context, Location::caller(), async move {
                let mut end = end;
                main(shard).await;
                drain(context::current()).await;
                end.returned = true;
            })
            .detach();
        }
        Ok(Executors { running })
    }

    pub(crate) async fn stopped(&mut self) -> Result<(), ExecutorPanicked> {
        poll_fn(|cx| {
            let mut running = lock(&self.running);
            if let Some(shard) = running.crashed {
                let message = "its node crashed".to_owned();
                return Poll::Ready(Err(ExecutorPanicked { shard, message }));
            }
            if running.shards == 0 {
                return Poll::Ready(Ok(()));
            }
            running.waiter = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// What a shard does once its main has returned: drops its other tasks and waits for its file operations.
async fn drain(shard: Context) {
    let Context { world, life, executor, .. } = shard;
    world.end_executor(executor);
    let quiet_at_ns = world.nodes.borrow()[life.node].disk.quiet_at_ns(executor);
    timer::sleep_ns(quiet_at_ns.saturating_sub(world.now_ns())).await;
}

/// Tells [`Executors`] that a main has ended, by returning or with its node.
struct ShardEnd {
    shard: u16,
    returned: bool,
    running: Arc<Mutex<Running>>,
}

impl Drop for ShardEnd {
    fn drop(&mut self) {
        let waiter = {
            let mut running = lock(&self.running);
            running.shards -= 1;
            if !self.returned && running.crashed.is_none() {
                running.crashed = Some(self.shard);
            }
            running.waiter.take()
        };
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

/// One thread only ever takes this lock; it is there because handles of executors can be sent.
fn lock(running: &Mutex<Running>) -> MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `make` on a node, from outside of the world.
#[track_caller]
pub(crate) fn spawn_on<T, Fut>(
    world: &Rc<WorldState>,
    node: usize,
    make: impl FnOnce() -> Fut + 'static,
) -> Task<T>
where
    T: 'static,
    Fut: Future<Output = T> + 'static,
{
    let life = world.life_of(node);
    let context = Context { world: world.clone(), life, executor: NODE_EXECUTOR, shard: 0 };
    Task::spawn(context, Location::caller(), async move { make().await })
}
