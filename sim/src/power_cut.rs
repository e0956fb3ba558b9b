//! The scenario: a broker under load loses power again and again, starts with other numbers of shards, and must
//! have kept every promise in the end.
//!
//! A run has two phases. First load and disruptions, with clients that ride through. Then everything is healed,
//! all records get their answer, the power is cut once more, and what the last start finds on the disk is read
//! from end to end and judged.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use corrente_broker::{Node as Broker, ShutdownHandle};
use corrente_history::{History, Judged, Verdict, Violation, check};
use corrente_runtime::sim::{DiskCounters, Node, RunError, World};

use crate::plan::{Disruption, Kind, Plan};
use crate::workload::Workload;

const BROKER_IP: [u8; 4] = [10, 0, 0, 1];
const CLIENT_IP: [u8; 4] = [10, 0, 0, 2];
const BROKER_PORT: u16 = 7400;
/// Virtual time in which any step of a run must come to its end.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// A fault that is planted to see the checker find its consequences.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Planted {
    /// None: the disk keeps what it said it had flushed.
    #[default]
    Nothing,
    /// From the load on, the broker's disk says it has flushed, and has not.
    IgnoredFlushes,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Equal for equal runs.
    pub trace_hash: u64,
    /// Virtual time it took.
    pub virtual_time: Duration,
    /// Turns of tasks.
    pub steps: u64,
    /// What the checker counted.
    pub judged: Judged,
    /// What befell the broker.
    pub befell: Befell,
    /// What the cuts did to the disk.
    pub disk: DiskCounters,
    /// Bytes of the values sent.
    pub bytes: u64,
    /// Promises that were broken.
    pub violations: Vec<Violation>,
}

/// What befell the broker in a run.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Befell {
    /// Power cuts, those in the middle of a start included.
    pub cuts: u64,
    /// Of them: while records were unacknowledged.
    pub cuts_under_load: u64,
    /// Records unacknowledged at cuts, in all.
    pub unacked_at_cuts: u64,
    /// Orderly stops.
    pub stops: u64,
    /// Starts after the first that served.
    pub restarts: u64,
    /// Of them: with another number of shards than the start before.
    pub reshardings: u64,
}

/// Runs a seed to its end and judges it.
///
/// # Panics
/// If the broker or a client does: the world names the seed.
pub fn run(seed: u64, planted: Planted) -> Report {
    run_plan(&Plan::draw(seed), planted)
}

/// Runs a plan to its end and judges it.
pub fn run_plan(plan: &Plan, planted: Planted) -> Report {
    run_and_tell(plan, planted).0
}

/// The same, and the history that was judged.
pub fn run_and_tell(plan: &Plan, planted: Planted) -> (Report, History) {
    let mut run = Run::new(plan);
    let stuck = run.go(planted).err();
    let history = run.workload.finish(plan.seed, run.world.elapsed(), stuck);
    let Verdict { violations, judged } = check(&history);
    let report = Report {
        seed: plan.seed,
        trace_hash: run.world.trace_hash(),
        virtual_time: run.world.elapsed(),
        steps: run.world.steps(),
        judged,
        befell: run.befell,
        disk: run.broker.disk().counters(),
        bytes: run.workload.bytes(),
        violations,
    };
    (report, history)
}

struct Run<'a> {
    plan: &'a Plan,
    world: World,
    broker: Node,
    client: Node,
    workload: Workload,
    state: Rc<RefCell<State>>,
    befell: Befell,
    last_shards: u16,
}

/// Where the broker's present life stands.
enum State {
    Starting,
    Serving(ShutdownHandle),
    Stopped,
    Failed(String),
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan) -> Run<'a> {
        let world = World::new(plan.seed, plan.world.clone());
        let broker = world.node("broker", BROKER_IP);
        let client = world.node("client", CLIENT_IP);
        let address = (IpAddr::from(BROKER_IP).to_string(), BROKER_PORT);
        Run {
            workload: Workload::new(plan.load.clone(), address),
            state: Rc::new(RefCell::new(State::Stopped)),
            befell: Befell::default(),
            last_shards: plan.shards,
            plan,
            world,
            broker,
            client,
        }
    }

    /// Errs with what did not come to its end.
    fn go(&mut self, planted: Planted) -> Result<(), String> {
        self.start(self.plan.shards);
        self.until_serving()?;
        let (workload, seed) = (self.workload.clone(), self.plan.seed);
        let (segment_bytes, elapsed) = (self.plan.broker.segment_bytes, self.world.elapsed());
        self.world
            .run(&self.client, PATIENCE, move || workload.prepare(segment_bytes, seed, elapsed))
            .map_err(|error| format!("the topic was not created: {error}"))?
            .map_err(|error| format!("the topic was not created: {error}"))?;
        if planted == Planted::IgnoredFlushes {
            self.broker.disk().ignore_flush(true);
        }
        let workload = self.workload.clone();
        self.client.spawn(move || async move { workload.start(seed) }).detach();
        for disruption in &self.plan.disruptions {
            self.disrupt(disruption)?;
        }
        let workload = self.workload.clone();
        self.until("records are without an answer", move || workload.is_done())?;
        self.cut();
        self.start(self.plan.last_shards);
        self.until_serving()?;
        let workload = self.workload.clone();
        self.world
            .run(&self.client, PATIENCE, move || workload.read_everything(seed))
            .map_err(|error| format!("not everything could be read: {error}"))
    }

    fn disrupt(&mut self, disruption: &Disruption) -> Result<(), String> {
        let workload = self.workload.clone();
        let after = disruption.after_sent;
        self.until("records are not sent", move || {
            workload.is_done() || (workload.sent() >= after && workload.unresolved() > 0)
        })?;
        self.world.run_for(disruption.delay);
        if !disruption.silence.is_zero() {
            self.world.partition(&self.client, &self.broker);
            self.world.partition(&self.broker, &self.client);
            self.world.run_for(disruption.silence);
            self.world.heal_all();
        }
        match disruption.kind {
            Kind::PowerCut => self.cut(),
            Kind::Stop => self.stop()?,
            Kind::CutWhileStopping => {
                self.begin_stop();
                self.world.run_for(disruption.delay / 4);
                self.cut();
            }
        }
        self.world.run_for(disruption.down);
        for after in &disruption.cuts_at_start {
            self.start(disruption.shards);
            self.world.run_for(*after);
            self.cut();
        }
        self.start(disruption.shards);
        self.until_serving()
    }

    fn start(&mut self, shards: u16) {
        let mut config = self.plan.broker.config(shards);
        config.listen.native = SocketAddr::from((BROKER_IP, BROKER_PORT));
        if shards != self.last_shards {
            self.befell.reshardings += 1;
            self.last_shards = shards;
        }
        // A life of its own: what an earlier one still says is not heard.
        self.state = Rc::new(RefCell::new(State::Starting));
        let state = self.state.clone();
        self.broker
            .spawn(move || async move {
                let mut broker = match Broker::start(config).await {
                    Ok(broker) => broker,
                    Err(error) => {
                        state.replace(State::Failed(error.to_string()));
                        return;
                    }
                };
                state.replace(State::Serving(broker.shutdown_handle()));
                state.replace(match broker.stopped().await {
                    Ok(()) => State::Stopped,
                    Err(error) => State::Failed(error.to_string()),
                });
            })
            .detach();
    }

    fn until_serving(&mut self) -> Result<(), String> {
        let state = self.state.clone();
        self.until("the broker does not start", move || !matches!(*state.borrow(), State::Starting))?;
        match &*self.state.borrow() {
            State::Failed(error) => return Err(format!("the broker did not start: {error}")),
            State::Serving(_) | State::Stopped | State::Starting => {}
        }
        self.befell.restarts += u64::from(self.befell.cuts + self.befell.stops > 0);
        self.workload.note_up(self.world.elapsed());
        Ok(())
    }

    fn cut(&mut self) {
        let unacked = self.workload.unresolved();
        self.befell.cuts += 1;
        self.befell.cuts_under_load += u64::from(unacked > 0);
        self.befell.unacked_at_cuts += unacked;
        self.workload.note_down(self.world.elapsed());
        self.broker.crash();
    }

    fn begin_stop(&self) {
        let State::Serving(shutdown) = &*self.state.borrow() else { return };
        let shutdown = shutdown.clone();
        self.broker.spawn(move || async move { shutdown.shutdown().await }).detach();
    }

    fn stop(&mut self) -> Result<(), String> {
        self.befell.stops += 1;
        self.workload.note_down(self.world.elapsed());
        self.begin_stop();
        let state = self.state.clone();
        self.until("the broker does not stop", move || !matches!(*state.borrow(), State::Serving(_)))?;
        match &*self.state.borrow() {
            State::Failed(error) => Err(format!("the broker did not stop well: {error}")),
            State::Serving(_) | State::Stopped | State::Starting => Ok(()),
        }
    }

    fn until(&self, otherwise: &str, done: impl FnMut() -> bool) -> Result<(), String> {
        self.world.run_until(done, PATIENCE).map_err(|error: RunError| format!("{otherwise}: {error}"))
    }
}
