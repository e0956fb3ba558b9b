//! The scenario: a broker under load, on a disk in trouble, loses power or is killed again and again, starts with
//! other numbers of shards, and must have kept every promise in the end.
//!
//! A run has two phases. First load and disruptions, with clients that ride through. Then everything is healed,
//! all records get their answer, the power is cut once more, and what the last start finds on the disk is read
//! from end to end and judged. A disk that lies may keep the broker from starting, which ends the run.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use corrente_broker::{Node as Broker, ShutdownHandle};
use corrente_history::{History, Judged, Violation, check};
use corrente_runtime::sim::{DiskCounters, DiskFault, FaultRule, Node, RunError, When, World};

use crate::befell::Befell;
use crate::excuses::{self, Injected};
use crate::plan::{Disruption, Kind, Plan, Sudden};
use crate::trouble::{Mode, Trouble};
use crate::workload::Workload;

const BROKER_IP: [u8; 4] = [10, 0, 0, 1];
const CLIENT_IP: [u8; 4] = [10, 0, 0, 2];
const BROKER_PORT: u16 = 7400;
/// Virtual time in which any step of a run must come to its end.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// Beyond the checkpoint's interval, what a checkpoint may take to be written.
const CHECKPOINT_WRITE_MAX: Duration = Duration::from_millis(500);

/// A fault that is planted to see the checker find its consequences. All of them begin with the load.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Planted {
    /// None: the disk keeps what it said it had flushed.
    #[default]
    Nothing,
    /// The broker's disk says it has flushed, and has not.
    IgnoredFlushes,
    /// Recovery does not flush what it has found: flushes other than those of durable writes are left out.
    UnflushedRecovery,
    /// Flushes fail, and the broker flushes again and believes the second answer.
    RetriedFlushes,
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
    /// Broken promises that the faults excuse.
    pub excused: u64,
    /// Partitions whose damage was told of.
    pub damage_told: u64,
    /// Partitions that may have lost their newest extents without a word.
    pub in_window: u64,
    /// Why the broker did not start any more on a disk that lies.
    pub refused_start: Option<String>,
    /// Promises that were broken.
    pub violations: Vec<Violation>,
}

/// Runs a seed to its end and judges it.
///
/// # Panics
/// If the broker or a client does: the world names the seed.
pub fn run(seed: u64, mode: Mode, planted: Planted) -> Report {
    run_plan(&Plan::draw(seed, mode), planted)
}

/// Runs a plan to its end and judges it.
pub fn run_plan(plan: &Plan, planted: Planted) -> Report {
    run_and_tell(plan, planted).0
}

/// The same, and the history that was judged.
pub fn run_and_tell(plan: &Plan, planted: Planted) -> (Report, History) {
    let mut run = Run::new(plan);
    let (stuck, refused_start) = match run.go(planted) {
        Ok(()) => (None, None),
        Err(End::Stuck(what)) => (Some(what), None),
        Err(End::Refused(why)) => (Some(why.clone()), Some(why)),
    };
    let history = run.workload.finish(plan.command(), run.world.elapsed(), stuck);
    let injected = run.injected(refused_start.clone());
    let verdict = check(&history);
    let judgement = excuses::excuse(verdict.violations, &history, &injected);
    let report = Report {
        seed: plan.seed,
        trace_hash: run.world.trace_hash(),
        virtual_time: run.world.elapsed(),
        steps: run.world.steps(),
        judged: verdict.judged,
        befell: run.befell,
        disk: run.broker.disk().counters(),
        bytes: run.workload.bytes(),
        excused: judgement.excused,
        damage_told: judgement.damage_told,
        in_window: judgement.in_window,
        refused_start,
        violations: judgement.violations,
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
    /// Since the disk failed last the broker has not started.
    failed_in_this_life: bool,
    starts: Vec<Range<Duration>>,
    served: Vec<Duration>,
    sudden_ends: Vec<Duration>,
}

/// Why a run ends before its time.
enum End {
    /// Something does not come to its end.
    Stuck(String),
    /// The broker does not start on a disk that lies, and says why.
    Refused(String),
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
            failed_in_this_life: false,
            starts: vec![],
            served: vec![],
            sudden_ends: vec![],
            plan,
            world,
            broker,
            client,
        }
    }

    fn go(&mut self, planted: Planted) -> Result<(), End> {
        self.start(self.plan.shards);
        self.until_serving()?;
        let (workload, seed) = (self.workload.clone(), self.plan.seed);
        let (segment_bytes, elapsed) = (self.plan.broker.segment_bytes, self.world.elapsed());
        self.world
            .run(&self.client, PATIENCE, move || workload.prepare(segment_bytes, seed, elapsed))
            .map_err(|error| End::Stuck(format!("the topic was not created: {error}")))?
            .map_err(|error| End::Stuck(format!("the topic was not created: {error}")))?;
        self.plant(planted);
        let workload = self.workload.clone();
        self.client.spawn(move || async move { workload.start(seed) }).detach();
        for disruption in &self.plan.disruptions {
            self.disrupt(disruption, planted)?;
        }
        let workload = self.workload.clone();
        self.until("records are without an answer", move || workload.is_done())?;
        self.end(Sudden::PowerCut);
        self.start(self.plan.last_shards);
        self.until_serving()?;
        let workload = self.workload.clone();
        self.world
            .run(&self.client, PATIENCE, move || workload.read_everything(seed))
            .map_err(|error| End::Stuck(format!("not everything could be read: {error}")))
    }

    fn plant(&self, planted: Planted) {
        let disk = self.broker.disk();
        match planted {
            Planted::Nothing => {}
            Planted::IgnoredFlushes => disk.ignore_flush(true),
            Planted::UnflushedRecovery => disk.ignore_sync_data(true),
            Planted::RetriedFlushes => {
                disk.retry_flushes(true);
                let (fault, when) = (DiskFault::FlushError, When::Chance(0.02));
                disk.inject(FaultRule { fault, when, below: "/".into() });
            }
        }
    }

    fn disrupt(&mut self, disruption: &Disruption, planted: Planted) -> Result<(), End> {
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
        let trouble = &disruption.trouble;
        let outlasts_the_start = trouble.outlasts_the_start && disruption.kind != Kind::StaysUp;
        self.begin(trouble);
        if !outlasts_the_start {
            self.end_of(trouble, planted);
        }
        if disruption.kind == Kind::StaysUp {
            return Ok(());
        }
        self.go_down(disruption)?;
        self.world.run_for(disruption.down);
        for (after, sudden) in &disruption.ends_at_start {
            self.start(disruption.shards);
            self.world.run_for(*after);
            self.end(*sudden);
        }
        if outlasts_the_start {
            self.start(disruption.shards);
            self.failed_in_this_life = trouble.fails_operations();
            self.world.run_for(trouble.lasts);
            self.end_of(trouble, planted);
            self.go_down(disruption)?;
        }
        self.start(disruption.shards);
        self.until_serving()?;
        if disruption.reads_again {
            let (workload, seed) = (self.workload.clone(), self.plan.seed);
            self.client.spawn(move || async move { workload.read_again(seed) }).detach();
        }
        Ok(())
    }

    /// Puts the disk into trouble for its time.
    fn begin(&mut self, trouble: &Trouble) {
        if trouble.is_none() {
            return;
        }
        self.befell.errors += u64::from(!trouble.rules.is_empty());
        self.befell.dead_drives += u64::from(trouble.dead_drive.is_some());
        self.befell.full_drives += u64::from(trouble.full.is_some());
        self.befell.slow += u64::from(trouble.slowness > 1);
        self.failed_in_this_life |= trouble.fails_operations();
        trouble.begin(&self.broker.disk());
        self.world.run_for(trouble.lasts);
    }

    fn end_of(&self, trouble: &Trouble, planted: Planted) {
        trouble.end(&self.broker.disk());
        self.plant(planted);
    }

    fn go_down(&mut self, disruption: &Disruption) -> Result<(), End> {
        match disruption.kind {
            // It went down by itself, in the middle of its start.
            _ if matches!(*self.state.borrow(), State::Failed(_)) => self.befell.failed_starts += 1,
            Kind::Sudden(sudden) => self.end(sudden),
            Kind::Stop => self.stop()?,
            Kind::WhileStopping(sudden) => {
                self.begin_stop();
                self.world.run_for(disruption.delay / 4);
                self.end(sudden);
            }
            Kind::StaysUp => unreachable!("it was asked for before"),
        }
        let Trouble { rotten_below, rotten_bits, .. } = &disruption.trouble;
        self.broker.disk().rot(rotten_below, *rotten_bits, self.unknown_for());
        Ok(())
    }

    /// What has been at rest for longer is known to the checkpoint: it was there when a broker served that wrote its
    /// checkpoint anew, or a window before that broker ended.
    fn unknown_for(&self) -> Duration {
        let now = self.world.elapsed();
        let served = self.served.last().copied().unwrap_or_default();
        let ended = self.sudden_ends.iter().find(|end| **end >= served).copied().unwrap_or(now);
        now - served.max(ended.saturating_sub(self.window()))
    }

    fn start(&mut self, shards: u16) {
        let mut config = self.plan.broker.config(shards);
        config.listen.native = SocketAddr::from((BROKER_IP, BROKER_PORT));
        config.log.upkeep_interval_ms = self.plan.load.topic.upkeep_interval_ms;
        if shards != self.last_shards {
            self.befell.reshardings += 1;
            self.last_shards = shards;
        }
        self.failed_in_this_life = false;
        self.starts.push(self.world.elapsed()..Duration::MAX);
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

    /// A broker must start on a disk that has become sound again. One that lies it may refuse.
    fn until_serving(&mut self) -> Result<(), End> {
        let state = self.state.clone();
        self.until("the broker does not start", move || !matches!(*state.borrow(), State::Starting))?;
        self.started();
        if let State::Failed(error) = &*self.state.borrow() {
            return Err(match self.plan.mode {
                Mode::Failing => End::Stuck(format!("the broker did not start: {error}")),
                Mode::Lying => End::Refused(error.clone()),
            });
        }
        self.befell.restarts += u64::from(self.befell.cuts + self.befell.kills + self.befell.stops > 0);
        self.served.push(self.world.elapsed());
        self.workload.note_up(self.world.elapsed());
        Ok(())
    }

    /// The last start is over, one way or another.
    fn started(&mut self) {
        let now = self.world.elapsed();
        if let Some(start) = self.starts.last_mut().filter(|start| start.end == Duration::MAX) {
            start.end = now;
        }
    }

    fn end(&mut self, how: Sudden) {
        let unacked = self.workload.unresolved();
        self.befell.cuts_under_load += u64::from(unacked > 0);
        self.befell.unacked_at_cuts += unacked;
        self.workload.note_down(self.world.elapsed());
        self.started();
        self.sudden_ends.push(self.world.elapsed());
        match how {
            Sudden::PowerCut => {
                self.befell.cuts += 1;
                self.broker.crash();
            }
            Sudden::Kill => {
                self.befell.kills += 1;
                self.broker.kill();
            }
        }
    }

    fn begin_stop(&self) {
        let State::Serving(shutdown) = &*self.state.borrow() else { return };
        let shutdown = shutdown.clone();
        self.broker.spawn(move || async move { shutdown.shutdown().await }).detach();
    }

    fn stop(&mut self) -> Result<(), End> {
        self.befell.stops += 1;
        self.workload.note_down(self.world.elapsed());
        let state = self.state.clone();
        self.until("the broker does not start", move || !matches!(*state.borrow(), State::Starting))?;
        self.started();
        self.begin_stop();
        let state = self.state.clone();
        self.until("the broker does not stop", move || !matches!(*state.borrow(), State::Serving(_)))?;
        let failed = match &*self.state.borrow() {
            State::Failed(error) => Some(error.clone()),
            State::Serving(_) | State::Stopped | State::Starting => None,
        };
        let Some(error) = failed else { return Ok(()) };
        // What could not be flushed is as after a sudden end.
        self.sudden_ends.push(self.world.elapsed());
        self.befell.failed_stops += 1;
        match self.plan.mode {
            Mode::Failing if !self.failed_in_this_life => {
                Err(End::Stuck(format!("the broker did not stop well: {error}")))
            }
            Mode::Failing | Mode::Lying => Ok(()),
        }
    }

    fn until(&self, otherwise: &str, done: impl FnMut() -> bool) -> Result<(), End> {
        let ended = self.world.run_until(done, PATIENCE);
        ended.map_err(|error: RunError| End::Stuck(format!("{otherwise}: {error}")))
    }

    /// What was flushed so long before a sudden end is known to the checkpoint.
    fn window(&self) -> Duration {
        Duration::from_millis(self.plan.broker.checkpoint_interval_ms) + CHECKPOINT_WRITE_MAX
    }

    fn injected(&self, refused_start: Option<String>) -> Injected {
        let disk = self.broker.disk();
        let DiskCounters { read_errors, write_errors, flush_errors, name_errors, refused_as_full, .. } =
            disk.counters();
        Injected {
            failures: read_errors + write_errors + flush_errors + name_errors + refused_as_full > 0,
            damages: disk.damages(),
            starts: self.starts.clone(),
            served: self.served.clone(),
            sudden_ends: self.sudden_ends.clone(),
            window: self.window(),
            refused_start,
        }
    }
}
