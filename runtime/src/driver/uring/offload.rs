//! Worker threads: one pool for work that fills a core, one for calls that wait for the disk.
//!
//! The threads are shared by all shards and live as long as the process. They are made before any
//! shard is pinned, since a thread inherits the CPUs of its maker.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::OnceLock;
use std::thread;

use futures_channel::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// How many threads make calls that wait for the disk: they sleep nearly always.
const DISK_THREADS: usize = 4;

static CORES: Pool = Pool::new("offload");
static DISK: Pool = Pool::new("disk");

/// Makes the threads, unless they are there.
pub(crate) fn start() {
    CORES.sender(crate::host::cpu_count());
    DISK.sender(DISK_THREADS);
}

pub(crate) async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    CORES.run(crate::host::cpu_count(), work).await
}

/// Runs a call that waits for the disk.
pub(super) async fn on_disk_thread<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    DISK.run(DISK_THREADS, call).await
}

struct Pool {
    name: &'static str,
    sender: OnceLock<flume::Sender<Job>>,
}

impl Pool {
    const fn new(name: &'static str) -> Self {
        Self { name, sender: OnceLock::new() }
    }

    fn sender(&self, threads: usize) -> &flume::Sender<Job> {
        self.sender.get_or_init(|| {
            let (sender, receiver) = flume::unbounded::<Job>();
            for number in 0..threads {
                let receiver = receiver.clone();
                thread::Builder::new()
                    .name(format!("{}-{number}", self.name))
                    .spawn(move || receiver.into_iter().for_each(|job| job()))
                    .expect("the system has room for a handful of threads");
            }
            sender
        })
    }

    /// The queue of jobs has no bound of its own: each job is awaited by a task, and those are bounded by
    /// whoever spawns them.
    async fn run<T: Send + 'static>(&self, threads: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move || {
            let outcome = catch_unwind(AssertUnwindSafe(work));
            // Nobody waits for the answer if the future was dropped.
            let _ = answer.send(outcome);
        });
        self.sender(threads).send(job).expect("worker threads never end");
        match answered.await.expect("a worker thread answers every job") {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        }
    }
}
