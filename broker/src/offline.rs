//! Tools for the files of a broker that does not run: looks at its logs, shows them, repairs them.
//!
//! Each runs a shard of its own for as long as it takes, and tells what it finds as it goes. Knows no metadata: logs go
//! by their ids.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use corrente_runtime::executor::{self, ExecutorPanicked, Executors, ExecutorsConfig, Placement};
use corrente_runtime::mailbox::{Receiver, Sender, mailbox};
use corrente_storage::inspect::{Beside, Dump, OfflineDirs, verify as verify_log};
pub use corrente_storage::inspect::{
    DirReport, DumpRange, Dumped, Finding, FindingKind, InspectError, LogReport, OfflineLog,
};
use corrente_storage::repair::Repair;
pub use corrente_storage::repair::{Lost, RepairPlan, RepairStep, Repaired};

/// Things told that nobody has taken yet.
const TOLD_MAX: usize = 1024;

/// What is to be looked at.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// Data directories with all their logs, or single logs of them.
    pub paths: Vec<PathBuf>,
    /// The node's first data directory, where its checkpoints lie, if the paths lie in others.
    pub first_data_dir: Option<PathBuf>,
}

/// Why a tool could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// Something could not be looked at.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The machine gave no shard.
    #[error(transparent)]
    Start(#[from] executor::StartError),
    /// The shard panicked.
    #[error(transparent)]
    Panicked(#[from] ExecutorPanicked),
}

/// Something a tool tells of.
#[derive(Debug)]
pub enum Told {
    /// A data directory.
    Dir(DirReport),
    /// A log that was read whole.
    Log(LogReport),
    /// A log that could not be looked at, and why not.
    Unreadable(OfflineLog, InspectError),
}

/// A tool at work on a shard.
pub struct Running<T> {
    executors: Executors,
    told: Receiver<Result<T, InspectError>>,
}

impl<T: Send + 'static> Running<T> {
    fn start<W, F>(work: W) -> Result<Running<T>, OfflineError>
    where
        W: FnOnce(Teller<T>) -> F + Send + 'static,
        F: Future<Output = Result<(), InspectError>> + 'static,
    {
        let (sender, told) = mailbox(TOLD_MAX);
        let work = Arc::new(Mutex::new(Some((work, Teller(sender)))));
        let config = ExecutorsConfig { placement: Placement::Unbound, ..ExecutorsConfig::new(1) };
        let executors = Executors::start(config, move |_| {
            let (work, teller) = work.lock().expect("nobody panics holding it").take().expect("one shard");
            async move {
                let last = teller.0.clone();
                if let Err(error) = work(teller).await {
                    // Nobody waits any more if the tool was given up.
                    let _ = last.send(Err(error)).await;
                }
            }
        })?;
        Ok(Running { executors, told })
    }

    /// The next thing; none at the end.
    pub async fn next(&mut self) -> Result<Option<T>, OfflineError> {
        match self.told.recv().await {
            Some(told) => Ok(Some(told?)),
            None => {
                self.executors.stopped().await?;
                Ok(None)
            }
        }
    }
}

/// Tells what is found.
struct Teller<T>(Sender<Result<T, InspectError>>);

impl<T: Send> Teller<T> {
    /// Whether anybody still listens.
    async fn tell(&self, thing: T) -> bool {
        self.0.send(Ok(thing)).await.is_ok()
    }
}

impl Target {
    async fn open(&self, beside: Beside) -> Result<OfflineDirs, InspectError> {
        OfflineDirs::open(&self.paths, self.first_data_dir.as_deref(), beside).await
    }
}

/// Reads every log of a target and says what is wrong with it: directories first, then log after log. Refused while a
/// broker runs: what changes meanwhile cannot be judged.
pub fn verify(target: Target) -> Result<Running<Told>, OfflineError> {
    Running::start(move |teller: Teller<Told>| async move {
        let dirs = target.open(Beside::Nobody).await?;
        for dir in dirs.dirs() {
            teller.tell(Told::Dir(dir.clone())).await;
        }
        for log in dirs.logs() {
            let told = match verify_log(log).await {
                Ok(report) => Told::Log(report),
                Err(error) => Told::Unreadable(log.clone(), error),
            };
            if !teller.tell(told).await {
                break;
            }
        }
        Ok(())
    })
}

/// Something that is shown of a target.
#[derive(Debug)]
pub enum Shown {
    /// A broker runs on this data directory: what is shown is a moment, and its end may look torn.
    InUse(PathBuf),
    /// What follows lies in this log.
    Log(OfflineLog),
    /// Something in it.
    Part(Dumped),
}

/// Shows what lies in the logs of a target, beside a running broker if need be.
pub fn dump(target: Target, range: DumpRange) -> Result<Running<Shown>, OfflineError> {
    Running::start(move |teller: Teller<Shown>| async move {
        let dirs = target.open(Beside::Broker).await?;
        for dir in dirs.dirs().iter().filter(|dir| dir.in_use) {
            teller.tell(Shown::InUse(dir.dir.clone())).await;
        }
        for log in dirs.logs() {
            teller.tell(Shown::Log(log.clone())).await;
            let mut dump = Dump::begin(log, range).await?;
            while let Some(part) = dump.next().await? {
                if !teller.tell(Shown::Part(part)).await {
                    return Ok(());
                }
            }
        }
        Ok(())
    })
}

/// A repair that was planned and holds the data directories until it is done or given up.
pub struct PlannedRepair {
    plans: Vec<RepairPlan>,
    sound: usize,
    go: Sender<()>,
    running: Running<Repairing>,
}

/// What a repair says on its way.
enum Repairing {
    Planned { plans: Vec<RepairPlan>, sound: usize },
    Done(Repaired),
}

/// Reads every log of a target and plans what would make the damaged ones whole. Changes nothing.
pub async fn plan_repair(target: Target) -> Result<PlannedRepair, OfflineError> {
    let (go, mut told_to_go) = mailbox(1);
    let mut running = Running::start(move |teller: Teller<Repairing>| async move {
        let dirs = target.open(Beside::Nobody).await?;
        let mut repairs = Vec::new();
        for log in dirs.logs() {
            let repair = Repair::plan_for(&dirs, log).await?;
            if !repair.plan().is_empty() {
                repairs.push(repair);
            }
        }
        let plans = repairs.iter().map(|repair| repair.plan().clone()).collect();
        teller.tell(Repairing::Planned { plans, sound: dirs.logs().len() - repairs.len() }).await;
        if told_to_go.recv().await.is_none() {
            return Ok(());
        }
        for repair in repairs.into_iter().filter(|repair| repair.plan().refused.is_none()) {
            // A repair is not left half done because nobody reads of it.
            teller.tell(Repairing::Done(repair.apply().await?)).await;
        }
        Ok(())
    })?;
    match running.next().await? {
        Some(Repairing::Planned { plans, sound }) => Ok(PlannedRepair { plans, sound, go, running }),
        _ => unreachable!("the plan comes first, or an error"),
    }
}

impl PlannedRepair {
    /// What would be done, for every log that is damaged.
    pub fn plans(&self) -> &[RepairPlan] {
        &self.plans
    }

    /// Logs that need no repair.
    pub fn sound(&self) -> usize {
        self.sound
    }

    /// Does it, but for what was refused; says what was done, in the order of the plans that were not.
    pub async fn apply(mut self) -> Result<Vec<Repaired>, OfflineError> {
        // It waits for this.
        let _ = self.go.send(()).await;
        let mut done = Vec::new();
        while let Some(repairing) = self.running.next().await? {
            if let Repairing::Done(repaired) = repairing {
                done.push(repaired);
            }
        }
        Ok(done)
    }
}
