//! Shards and the tasks that run on them.
//!
//! A shard is one thread with one executor; its tasks never leave it, so they own `Rc` and `Cell`
//! freely. Starting shards is the only place where threads come into being; [`spawn`] and friends
//! work on a shard and panic elsewhere.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use thiserror::Error;

use crate::driver;

/// The task queues of a shard. They share its core by weight; a queue is not a priority, so long
/// work must still yield.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Queue {
    /// Connections and requests: preempts the others within about a millisecond.
    Network,
    /// The log: windows, flushes, checkpoints.
    Storage,
    /// Recovery of space, prewriting, reports: few shares, short chunks.
    Background,
}

/// A spawned task: a future of its output. Dropping it cancels the task.
#[must_use = "a dropped task is cancelled; detach it to let it run"]
pub struct Task<T>(driver::Task<T>);

impl<T> Task<T> {
    /// Lets the task run on with nobody waiting for it.
    pub fn detach(self) {
        match self.0 {
            driver::Task::Uring(task) => task.detach(),
            driver::Task::Sim(task) => task.detach(),
        }
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match &mut self.0 {
            driver::Task::Uring(task) => Pin::new(task).poll(context),
            driver::Task::Sim(task) => Pin::new(task).poll(context),
        }
    }
}

/// Spawns into the queue of the task that calls.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    if driver::simulated() {
        Task(driver::Task::Sim(driver::sim::executor::spawn(future)))
    } else {
        Task(driver::Task::Uring(driver::uring::executor::spawn(future)))
    }
}

/// Spawns into a named queue of this shard.
pub fn spawn_in<T: 'static>(queue: Queue, future: impl Future<Output = T> + 'static) -> Task<T> {
    if driver::simulated() {
        Task(driver::Task::Sim(driver::sim::executor::spawn_in(queue, future)))
    } else {
        Task(driver::Task::Uring(driver::uring::executor::spawn_in(queue, future)))
    }
}

/// Lets every other ready task of this queue run first.
pub async fn yield_now() {
    if driver::simulated() {
        driver::sim::executor::yield_now().await;
    } else {
        driver::uring::executor::yield_now().await;
    }
}

/// Yields when this task's turn is used up (about 500 µs, or sooner if a queue with a latency goal
/// waits); costs a few nanoseconds otherwise. Loops that may run long call it each turn.
pub async fn yield_if_needed() {
    if driver::simulated() {
        driver::sim::executor::yield_if_needed().await;
    } else {
        driver::uring::executor::yield_if_needed().await;
    }
}

/// The same for work that nobody waits for, such as compaction: its turns last a tenth as long.
pub async fn yield_in_background() {
    if driver::simulated() {
        driver::sim::executor::yield_if_needed().await;
    } else {
        driver::uring::executor::yield_in_background().await;
    }
}

/// Where shards run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placement {
    /// Shard `i` keeps to one CPU, round-robin over [`ExecutorsConfig::cpus`] or, without them, over
    /// the CPUs this process may use. More shards than CPUs share them, with a warning.
    #[default]
    Pinned,
    /// The kernel moves shards as it likes: the setting of tests and demonstrations.
    Unbound,
}

/// What a shard does when nothing is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Idle {
    /// Sleep in the kernel at once.
    #[default]
    Park,
    /// Look for news of sockets for this long since anything last happened, four times as long while a file operation
    /// is in flight, then sleep.
    Spin(Duration),
    /// Never sleep: one core is burnt whole.
    Poll,
}

/// How the shards of this process are laid out. Build with [`ExecutorsConfig::new`].
#[derive(Debug, Clone)]
pub struct ExecutorsConfig {
    /// How many shards, at least one.
    pub shards: u16,
    /// Whether each keeps to a CPU.
    pub placement: Placement,
    /// The CPUs to use when pinned, by kernel number; `None` means all this process may use.
    pub cpus: Option<Vec<usize>>,
    /// What to do when nothing is ready.
    pub idle: Idle,
    /// Threads are called `<name>-<shard>`; at most 15 bytes are shown by the kernel.
    pub name: String,
    /// Memory the executor registers with its rings, in bytes; pinned three times per shard. Files and
    /// sockets do not use it, so it stays small.
    pub io_memory: usize,
    /// Behave as a kernel that refuses io_uring does; for tests of the refusal.
    #[doc(hidden)]
    pub refuse_io_uring: bool,
}

impl ExecutorsConfig {
    /// `shards` pinned shards that park when idle.
    pub fn new(shards: u16) -> Self {
        Self {
            shards,
            placement: Placement::Pinned,
            cpus: None,
            idle: Idle::Park,
            name: "shard".to_owned(),
            io_memory: 64 * 1024,
            refuse_io_uring: false,
        }
    }
}

/// The running shards of this process, or of one node of a simulated world.
pub struct Executors(driver::Executors);

impl Executors {
    /// Starts every shard and runs `main(shard)` on each, in [`Queue::Network`].
    ///
    /// Returns once every executor has its thread, its rings and its way to wait for files; blocks the
    /// calling thread until then. If one fails, the others are stopped before `main` ran anywhere.
    /// When a shard's main returns, its file operations are drained, its other tasks are dropped and its
    /// thread ends.
    pub fn start<F, Fut>(config: ExecutorsConfig, main: F) -> Result<Executors, StartError>
    where
        F: Fn(u16) -> Fut + Send + Clone + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        if driver::simulated() {
            driver::sim::executor::Executors::start(config, main)
                .map(|executors| Executors(driver::Executors::Sim(executors)))
        } else {
            driver::uring::executor::Executors::start(config, main)
                .map(|executors| Executors(driver::Executors::Uring(executors)))
        }
    }

    /// Waits until every shard has ended; may be awaited on any runtime, and again after it returned.
    /// A shard that panicked is reported as soon as it did, while others may still run. Cancel-safe.
    pub async fn stopped(&mut self) -> Result<(), ExecutorPanicked> {
        match &mut self.0 {
            driver::Executors::Uring(executors) => executors.stopped().await,
            driver::Executors::Sim(executors) => executors.stopped().await,
        }
    }
}

/// Why the shards could not start; each message says in one line what to mend.
#[derive(Debug, Error)]
pub enum StartError {
    /// Zero shards were asked for.
    #[error("at least one shard is needed, 0 were asked for")]
    NoShards,
    /// A CPU was named that this process cannot run on.
    #[error("cpu {cpu} is not available to this process, which may use {available}")]
    NoSuchCpu {
        /// The CPU named.
        cpu: usize,
        /// Those there are, as a list of ranges.
        available: String,
    },
    /// The rings do not fit into the memory this user may lock.
    #[error(
        "the memlock limit of {limit_kib} KiB is too low for {shards} shards, which need about {needed_kib} KiB: \
         raise it with `ulimit -l` or LimitMEMLOCK="
    )]
    MemlockTooLow {
        /// `RLIMIT_MEMLOCK` in KiB.
        limit_kib: u64,
        /// About what the shards need, in KiB.
        needed_kib: u64,
        /// How many shards were to start.
        shards: u16,
    },
    /// The kernel, or a filter around this process, refuses io_uring.
    #[error("this kernel refuses io_uring: {reason}")]
    IoUringRefused {
        /// What was seen, and what to mend.
        reason: String,
    },
    /// A thread or an executor could not be made.
    #[error("shard {shard} did not start: {reason}")]
    Shard {
        /// Which shard.
        shard: u16,
        /// What the executor said.
        reason: String,
    },
}

/// A task of a shard panicked, which ends that shard.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
#[error("shard {shard} panicked: {message}")]
pub struct ExecutorPanicked {
    /// Which shard.
    pub shard: u16,
    /// What the panic said.
    pub message: String,
}
