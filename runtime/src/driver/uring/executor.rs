//! Shards as glommio executors, one thread each.

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_util::future::Aborted;
use glommio::io::PollableFd;
use glommio::{
    CpuSet, Latency, LocalExecutor, LocalExecutorBuilder, Placement as GlommioPlacement, Shares,
    TaskQueueHandle,
};
use tracing::warn;

use super::file::PLANTED_NO_FLUSH;
use super::ring::Ring;
use super::tasks::Tasks;
use super::turn::TURN_MAX;
pub(crate) use super::turn::{yield_if_needed, yield_in_background};
use super::{cpu, offload, refusal, turn};
use crate::executor::{ExecutorPanicked, ExecutorsConfig, Idle, Queue, StartError};

/// Alarms that end a sleep over ready tasks (see `turn`), should it happen all the same. Such a sleep
/// swallows the alarm that it met, hence several.
const ALARMS: u32 = 4;
const ALARM_INTERVAL: Duration = Duration::from_millis(100);

const NETWORK_SHARES: usize = 1000;
const STORAGE_SHARES: usize = 1000;
const BACKGROUND_SHARES: usize = 100;

/// What a shard's thread knows of its shard.
#[derive(Clone)]
struct Shard {
    network: TaskQueueHandle,
    storage: TaskQueueHandle,
    background: TaskQueueHandle,
    ring: Rc<Ring>,
    tasks: Rc<Tasks>,
    always_ready: Rc<PollableFd<OwnedFd>>,
}

thread_local! {
    static SHARD: RefCell<Option<Shard>> = const { RefCell::new(None) };
}

fn of_shard<T>(take: impl FnOnce(&Shard) -> T) -> T {
    SHARD.with_borrow(|shard| take(shard.as_ref().expect("this is called on a shard")))
}

/// The ring of this shard.
pub(super) fn ring() -> Rc<Ring> {
    of_shard(|shard| shard.ring.clone())
}

/// What the executor of this shard finds ready each time it looks.
pub(super) fn always_ready() -> Rc<PollableFd<OwnedFd>> {
    of_shard(|shard| shard.always_ready.clone())
}

pub(crate) struct Task<T>(glommio::Task<Result<T, Aborted>>);

impl<T> Task<T> {
    pub(crate) fn detach(self) {
        self.0.detach();
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match Pin::new(&mut self.0).poll(context) {
            Poll::Ready(Ok(output)) => Poll::Ready(output),
            // The shard ends, and whoever waits here is told to end as well.
            Poll::Ready(Err(Aborted)) | Poll::Pending => Poll::Pending,
        }
    }
}

pub(crate) fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    let future = of_shard(|shard| shard.tasks.enrol(future));
    Task(schedule(glommio::executor().current_task_queue(), future))
}

pub(crate) fn spawn_in<T: 'static>(queue: Queue, future: impl Future<Output = T> + 'static) -> Task<T> {
    let (queue, future) = of_shard(|shard| {
        let queue = match queue {
            Queue::Network => shard.network,
            Queue::Storage => shard.storage,
            Queue::Background => shard.background,
        };
        (queue, shard.tasks.enrol(future))
    });
    Task(schedule(queue, future))
}

/// Always by name of the queue: glommio's plain spawn would run the task before it returns.
fn schedule<T: 'static>(
    queue: TaskQueueHandle,
    future: impl Future<Output = T> + 'static,
) -> glommio::Task<T> {
    glommio::spawn_local_into(future, queue).expect("the queues live as long as the shard")
}

pub(crate) async fn yield_now() {
    glommio::executor().yield_now().await;
}

pub(crate) struct Executors {
    threads: Vec<JoinHandle<()>>,
    endings: flume::Receiver<Ending>,
    ended: usize,
    panicked: Option<ExecutorPanicked>,
}

type Ending = Result<(), ExecutorPanicked>;

impl Executors {
    pub(crate) fn start<F, Fut>(config: ExecutorsConfig, main: F) -> Result<Executors, StartError>
    where
        F: Fn(u16) -> Fut + Send + Clone + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        refusal::preflight(&config)?;
        if PLANTED_NO_FLUSH {
            warn!(
                "PLANTED FAULT: this build never flushes and loses what it acknowledged; it is for tests alone"
            );
        }
        let cpus = cpu::assign(&config)?;
        offload::start();
        let (ended, endings) = flume::unbounded();
        let mut executors = Executors { threads: Vec::new(), endings, ended: 0, panicked: None };
        let mut starting = Vec::new();
        for (shard, cpu) in (0..config.shards).zip(cpus) {
            let (handshake, ready) = Handshake::new();
            let shard = ShardThread { shard, cpu, config: config.clone(), handshake };
            starting.push((shard.shard, ready));
            executors.threads.push(shard.spawn(main.clone(), ended.clone())?);
        }
        let mut go = Vec::new();
        for (shard, ready) in starting {
            go.push(ready.shaken(shard)?);
        }
        // Until here a failure drops what the others wait for, and they end without running anything.
        for go in go {
            go.send(()).map_err(|_| StartError::Shard { shard: 0, reason: "it ended early".to_owned() })?;
        }
        Ok(executors)
    }

    pub(crate) async fn stopped(&mut self) -> Result<(), ExecutorPanicked> {
        while self.ended < self.threads.len() && self.panicked.is_none() {
            let ending = self.endings.recv_async().await.expect("every shard reports its end");
            self.ended += 1;
            self.panicked = ending.err();
        }
        if let Some(panicked) = &self.panicked {
            return Err(panicked.clone());
        }
        for thread in self.threads.drain(..) {
            // All have reported, so none is waited for long, and none panicked.
            let _ = thread.join();
        }
        self.ended = 0;
        Ok(())
    }
}

/// The two ends of a start: the shard says that it is up, and waits to be told to go.
struct Handshake {
    up: mpsc::Sender<Result<(), StartError>>,
    go: mpsc::Receiver<()>,
}

struct Ready {
    up: mpsc::Receiver<Result<(), StartError>>,
    go: mpsc::Sender<()>,
}

impl Handshake {
    fn new() -> (Handshake, Ready) {
        let (report_up, up) = mpsc::channel();
        let (go, told_to_go) = mpsc::channel();
        (Handshake { up: report_up, go: told_to_go }, Ready { up, go })
    }

    /// Reports that the shard is up; true if it may go on.
    fn shake(&self) -> bool {
        self.up.send(Ok(())).is_ok() && self.go.recv().is_ok()
    }
}

impl Ready {
    fn shaken(self, shard: u16) -> Result<mpsc::Sender<()>, StartError> {
        match self.up.recv() {
            Ok(Ok(())) => Ok(self.go),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(StartError::Shard { shard, reason: "its thread ended".to_owned() }),
        }
    }
}

/// All that a shard's thread begins with.
struct ShardThread {
    shard: u16,
    cpu: Option<usize>,
    config: ExecutorsConfig,
    handshake: Handshake,
}

impl ShardThread {
    fn spawn<F, Fut>(self, main: F, ended: flume::Sender<Ending>) -> Result<JoinHandle<()>, StartError>
    where
        F: Fn(u16) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let shard = self.shard;
        let name = format!("{}-{shard}", self.config.name);
        let run = move || {
            let up = self.handshake.up.clone();
            let ending = catch_unwind(AssertUnwindSafe(|| self.run(main))).map_err(|panic| {
                let message = panic_message(panic.as_ref());
                // Not heard if the shard was up already.
                let _ = up.send(Err(StartError::Shard { shard, reason: message.clone() }));
                ExecutorPanicked { shard, message }
            });
            // Nobody listens if the start failed or the handle was dropped.
            let _ = ended.send(ending);
        };
        let spawned = thread::Builder::new().name(name).spawn(run);
        spawned.map_err(|error| StartError::Shard { shard, reason: format!("no thread: {error}") })
    }

    fn run<F, Fut>(self, main: F)
    where
        F: Fn(u16) -> Fut,
        Fut: Future<Output = ()> + 'static,
    {
        match self.executor() {
            Ok(executor) => executor.run(self.live(main)),
            Err(error) => {
                let _ = self.handshake.up.send(Err(error));
            }
        }
    }

    fn executor(&self) -> Result<LocalExecutor, StartError> {
        let failed = |error| refusal::from_executor(&self.config, self.shard, error);
        let placement = match (self.cpu, self.config.idle) {
            (Some(cpu), _) => GlommioPlacement::Fixed(cpu),
            (None, Idle::Park) => GlommioPlacement::Unbound,
            // Unbound executors of glommio never spin; one that may use every CPU does.
            (None, _) => GlommioPlacement::Fenced(CpuSet::online().map_err(failed)?),
        };
        let builder =
            LocalExecutorBuilder::new(placement).io_memory(self.config.io_memory).preempt_timer(TURN_MAX);
        // One that spins or polls does so in the task of its ring, which sees sockets and files at once.
        builder.make().map_err(failed)
    }

    /// The shard's life, on its executor.
    async fn live<F, Fut>(self, main: F)
    where
        F: Fn(u16) -> Fut,
        Fut: Future<Output = ()> + 'static,
    {
        let (shard, helpers) = match self.shard() {
            Ok(made) => made,
            Err(error) => {
                let _ = self.handshake.up.send(Err(error));
                return;
            }
        };
        SHARD.set(Some(shard.clone()));
        let _leave = OnDrop(|| drop(SHARD.take()));
        if !self.handshake.shake() {
            return;
        }
        schedule(shard.network, main(self.shard)).await;
        shard.tasks.end().await;
        shard.ring.drained().await;
        drop(helpers);
    }

    fn shard(&self) -> Result<(Shard, Vec<glommio::Task<()>>), StartError> {
        let failed = |error| refusal::from_ring(&self.config, self.shard, &error);
        let spin = match self.config.idle {
            Idle::Park => Duration::ZERO,
            Idle::Spin(spin) => spin,
            Idle::Poll => Duration::MAX,
        };
        let ring = Ring::new(spin, self.config.shards).map_err(failed)?;
        let completions = ring.count_completions().map_err(failed)?;
        let queue = |shares, latency, name| {
            glommio::executor().create_task_queue(Shares::Static(shares), latency, name)
        };
        let shard = Shard {
            network: queue(NETWORK_SHARES, Latency::Matters(TURN_MAX), "network"),
            storage: queue(STORAGE_SHARES, Latency::NotImportant, "storage"),
            background: queue(BACKGROUND_SHARES, Latency::NotImportant, "background"),
            ring: ring.clone(),
            tasks: Rc::default(),
            always_ready: Rc::new(turn::always_ready().map_err(failed)?),
        };
        let reaping = queue(NETWORK_SHARES, Latency::Matters(TURN_MAX), "ring");
        let alarms =
            (0..ALARMS).map(|number| schedule(reaping, stay_awake(ALARM_INTERVAL / ALARMS * number)));
        let mut helpers: Vec<_> = alarms.collect();
        helpers.push(schedule(reaping, ring.drive(completions)));
        Ok((shard, helpers))
    }
}

async fn stay_awake(phase: Duration) {
    glommio::timer::sleep(phase).await;
    loop {
        glommio::timer::sleep(ALARM_INTERVAL).await;
    }
}

/// Runs something when a scope is left, by panic as well.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    if let Some(message) = panic.downcast_ref::<&str>() {
        (*message).to_owned()
    } else if let Some(message) = panic.downcast_ref::<String>() {
        message.clone()
    } else {
        "a panic without a message".to_owned()
    }
}
