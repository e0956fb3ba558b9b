//! The core of a simulated world: its clock, its chance, its pending events and its ready tasks.
//!
//! A step fires what is due, then polls one ready task chosen at random; with none ready the clock
//! jumps to the next event. Owns no policy of disk or network: their events call back into them.

use super::{
    context::{self, Context, Life, NODE_EXECUTOR},
    disk::Disk,
    network::{Connection, Network},
    operation::{Completion, Ending},
    task::{BoxedFuture, TaskId, TaskRecord, TaskTable, WokenTasks},
    trace::{Mark, Trace},
};
use crate::sim::{Delay, WorldConfig};
use std::{
    any::Any,
    cell::RefCell,
    collections::BTreeMap,
    net::IpAddr,
    ops::Range,
    panic::{AssertUnwindSafe, Location, catch_unwind},
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
};

/// The clock does not begin at zero, so that looking back a little never underflows.
const CLOCK_START_NS: u64 = 3_600_000_000_000;

/// Something that happens at a set time.
pub(crate) enum Event {
    /// A timer of a task.
    Wake(Waker),
    /// A disk operation of this life of a node completes.
    Disk(Life, Completion),
    /// The next segment of a pipe arrives at this end of the connection.
    Deliver(Connection),
    /// A reset arrives at this end of the connection.
    Reset(Connection),
}

/// Names a pending event: its time, then the order in which it was scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EventKey {
    at_ns: u64,
    sequence: u64,
}

/// One machine: it outlives its crashes.
pub(crate) struct NodeState {
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    pub(crate) incarnation: u32,
    pub(crate) disk: Disk,
}

struct Core {
    now_ns: u64,
    rng: fastrand::Rng,
    trace: Trace,
    events: BTreeMap<EventKey, Event>,
    events_scheduled: u64,
    tasks: TaskTable,
    ready: Vec<TaskId>,
    executors: u32,
    steps: u64,
    closing: bool,
}

/// What one step came to.
pub(crate) enum Step {
    /// A task was polled or the clock moved.
    Progress,
    /// Nothing to do before the given time.
    Idle,
}

/// All state of a world, shared by everything that lives in it.
pub(crate) struct WorldState {
    pub(crate) seed: u64,
    pub(crate) config: WorldConfig,
    pub(crate) nodes: RefCell<Vec<NodeState>>,
    pub(crate) network: RefCell<Network>,
    core: RefCell<Core>,
    woken: Arc<WokenTasks>,
}

impl WorldState {
    pub(crate) fn new(seed: u64, config: WorldConfig) -> Rc<Self> {
        config.assert_valid();
        Rc::new(Self {
            seed,
            config,
            nodes: RefCell::default(),
            network: RefCell::default(),
            core: RefCell::new(Core {
                now_ns: CLOCK_START_NS,
                rng: fastrand::Rng::with_seed(seed),
                trace: Trace::new(seed),
                events: BTreeMap::new(),
                events_scheduled: 0,
                tasks: TaskTable::default(),
                ready: Vec::new(),
                executors: NODE_EXECUTOR,
                steps: 0,
                closing: false,
            }),
            woken: Arc::default(),
        })
    }

    // Clock, chance and trace.

    pub(crate) fn now_ns(&self) -> u64 {
        self.core.borrow().now_ns
    }

    /// Nanoseconds of virtual time since the world began.
    pub(crate) fn elapsed_ns(&self) -> u64 {
        self.now_ns() - CLOCK_START_NS
    }

    pub(crate) fn trace_hash(&self) -> u64 {
        let core = self.core.borrow();
        core.trace.hash() ^ core.trace.marks().rotate_left(32)
    }

    pub(crate) fn steps(&self) -> u64 {
        self.core.borrow().steps
    }

    pub(crate) fn note(&self, mark: Mark, a: u64, b: u64) {
        self.core.borrow_mut().trace.note(mark, a, b);
    }

    pub(crate) fn draw_below(&self, end: u64) -> u64 {
        self.core.borrow_mut().rng.u64(0..end)
    }

    pub(crate) fn draw_in(&self, range: Range<u64>) -> u64 {
        if range.is_empty() { range.start } else { self.core.borrow_mut().rng.u64(range) }
    }

    /// True with the given probability. Certain outcomes consume no randomness.
    pub(crate) fn chance(&self, probability: f64) -> bool {
        probability > 0.0 && (probability >= 1.0 || self.core.borrow_mut().rng.f64() < probability)
    }

    pub(crate) fn draw_delay_ns(&self, delay: &Delay) -> u64 {
        let common = self.draw_in(delay.common_ns());
        if self.chance(delay.stall_chance) { common + self.draw_in(delay.stall_ns()) } else { common }
    }

    /// Random bytes for the code under test.
    pub(crate) fn fill_random(&self, bytes: &mut [u8]) {
        let mut core = self.core.borrow_mut();
        core.rng.fill(bytes);
        core.trace.note(Mark::Random, bytes.len() as u64, 0);
    }

    pub(crate) fn shuffle<T>(&self, items: &mut [T]) {
        self.core.borrow_mut().rng.shuffle(items);
    }

    // Events.

    pub(crate) fn schedule(&self, at_ns: u64, event: Event) -> EventKey {
        let mut core = self.core.borrow_mut();
        let key = EventKey { at_ns: at_ns.max(core.now_ns), sequence: core.events_scheduled };
        core.events_scheduled += 1;
        let displaced = core.events.insert(key, event);
        debug_assert!(displaced.is_none(), "two events share the key {key:?}");
        key
    }

    pub(crate) fn is_scheduled(&self, key: EventKey) -> bool {
        self.core.borrow().events.contains_key(&key)
    }

    /// Takes back an event that has not fired; the caller drops it.
    pub(crate) fn unschedule(&self, key: EventKey) -> Option<Event> {
        self.core.borrow_mut().events.remove(&key)
    }

    /// Puts another event in the place of one that has not fired; the caller drops the old one.
    pub(crate) fn replace_event(&self, key: EventKey, event: Event) -> Option<Event> {
        self.core.borrow_mut().events.insert(key, event)
    }

    // Tasks.

    /// Adds a task, unless its life is over: then the future is dropped at once.
    pub(crate) fn spawn_boxed(
        &self,
        context: Context,
        spawned_at: &'static Location<'static>,
        future: BoxedFuture,
    ) -> TaskId {
        if !self.is_alive(context.life) {
            drop(future);
            return TaskId { slot: u32::MAX, generation: 0 };
        }
        let mut core = self.core.borrow_mut();
        let life = context.life;
        let id = core.tasks.insert(&self.woken, context, spawned_at, future);
        core.trace.note(Mark::Spawn, u64::from(id.slot), life.node as u64);
        id
    }

    pub(crate) fn cancel_task(&self, id: TaskId) {
        self.core.borrow_mut().tasks.cancel(id);
    }

    /// Whether this life of the node still goes on.
    pub(crate) fn is_alive(&self, life: Life) -> bool {
        !self.core.borrow().closing && self.nodes.borrow()[life.node].incarnation == life.incarnation
    }

    pub(crate) fn life_of(&self, node: usize) -> Life {
        Life { node, incarnation: self.nodes.borrow()[node].incarnation }
    }

    /// A name for one more executor, never given out before.
    pub(crate) fn new_executor(&self) -> u32 {
        let mut core = self.core.borrow_mut();
        core.executors += 1;
        core.executors
    }

    /// Drops the tasks of an executor whose main has returned; the task that calls lives on.
    pub(crate) fn end_executor(&self, executor: u32) {
        self.drop_tasks(false, |context| context.executor == executor);
    }

    /// Drops every task `of` holds for, each in its own context, until drops spawn no more of them.
    fn drop_tasks(&self, polled: bool, of: impl Fn(&Context) -> bool) {
        loop {
            let doomed = self.core.borrow_mut().tasks.remove_all(polled, &of);
            if doomed.is_empty() {
                return;
            }
            for record in doomed {
                let TaskRecord { future, waker, context, .. } = record;
                let _entered = context::enter(context);
                drop(future);
                drop(waker);
            }
        }
    }

    /// Ends the life of a node: tasks, connections, listeners and locks go, the disk stays as a power cut
    /// leaves it.
    pub(crate) fn crash(&self, node: usize) {
        self.end_life(node, Mark::Crash);
        self.nodes.borrow_mut()[node].disk.crash(self);
    }

    /// Ends the life of a node, but the machine goes on: it still does, of what was under way on the disk,
    /// what chance says, and keeps what is not flushed.
    pub(crate) fn kill(&self, node: usize) {
        let ended = self.life_of(node);
        self.end_life(node, Mark::Kill);
        let of_it = |event: &Event| matches!(event, Event::Disk(life, _) if *life == ended);
        let under_way: Vec<Event> = {
            let mut core = self.core.borrow_mut();
            core.events.extract_if(.., |_, event| of_it(event)).map(|(_, event)| event).collect()
        };
        for event in under_way {
            let Event::Disk(_, mut complete) = event else { continue };
            let waiter = complete(self, &mut self.nodes.borrow_mut()[node].disk, Ending::Killed);
            drop(waiter);
        }
        self.nodes.borrow_mut()[node].disk.kill();
    }

    fn end_life(&self, node: usize, how: Mark) {
        let life = {
            let nodes = &mut *self.nodes.borrow_mut();
            nodes[node].incarnation += 1;
            Life { node, incarnation: nodes[node].incarnation }
        };
        self.note(how, node as u64, u64::from(life.incarnation));
        // Before the tasks drop their streams: a machine without power says no goodbye.
        self.cut_off(node);
        self.drop_tasks(true, |context| context.life.node == node);
    }

    // Running.

    /// Fires what is due and polls one task, or moves the clock to the next event, but never past
    /// `until_ns`.
    pub(crate) fn step(&self, until_ns: u64) -> Step {
        while let Some(event) = self.take_due_event() {
            self.fire(event);
        }
        if let Some(id) = self.choose_ready() {
            self.poll_task(id);
            return Step::Progress;
        }
        let mut core = self.core.borrow_mut();
        match core.events.first_key_value() {
            Some((&EventKey { at_ns, .. }, _)) if at_ns <= until_ns => {
                core.now_ns = at_ns;
                core.trace.note(Mark::Time, at_ns, 0);
                Step::Progress
            }
            _ => Step::Idle,
        }
    }

    /// Whether nothing will ever happen again by itself.
    pub(crate) fn is_stuck(&self) -> bool {
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        self.woken.drain_into(&mut core.ready);
        core.ready.is_empty() && core.events.is_empty()
    }

    /// Moves an idle clock forward.
    pub(crate) fn advance_to(&self, at_ns: u64) {
        let mut core = self.core.borrow_mut();
        core.now_ns = core.now_ns.max(at_ns);
    }

    fn take_due_event(&self) -> Option<Event> {
        let mut core = self.core.borrow_mut();
        let entry = core.events.first_entry()?;
        let at_ns = entry.key().at_ns;
        if at_ns <= core.now_ns { core.events.pop_first().map(|(_, event)| event) } else { None }
    }

    fn fire(&self, event: Event) {
        match event {
            Event::Wake(waker) => waker.wake(),
            Event::Disk(life, mut complete) => {
                if !self.is_alive(life) {
                    return;
                }
                self.note(Mark::DiskComplete, life.node as u64, self.now_ns());
                let waiter = complete(self, &mut self.nodes.borrow_mut()[life.node].disk, Ending::Due);
                if let Some(waiter) = waiter {
                    waiter.wake();
                }
            }
            Event::Deliver(connection) => self.deliver(connection),
            Event::Reset(connection) => self.deliver_reset(connection),
        }
    }

    fn choose_ready(&self) -> Option<TaskId> {
        let core = &mut *self.core.borrow_mut();
        self.woken.drain_into(&mut core.ready);
        let chosen = match core.ready.len() {
            0 => return None,
            1 => 0,
            several => core.rng.usize(0..several),
        };
        Some(core.ready.swap_remove(chosen))
    }

    fn poll_task(&self, id: TaskId) {
        let turn = {
            let core = &mut *self.core.borrow_mut();
            let Some(turn) = core.tasks.begin_turn(id) else { return };
            core.steps += 1;
            // Time passes while code runs, or a loop that waits for a deadline would never see it.
            core.now_ns += self.config.poll_cost_ns();
            core.trace.note(Mark::Poll, u64::from(id.slot), core.now_ns);
            turn
        };
        let life = turn.context.life;
        let shard = turn.context.shard;
        let _entered = context::enter(turn.context);
        let mut future = turn.future;
        if turn.cancelled {
            drop(future);
            self.forget_task(id);
            return;
        }
        let mut poll_context = std::task::Context::from_waker(&turn.waker);
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut poll_context))) {
            Ok(Poll::Pending) => {
                let orphan = self.core.borrow_mut().tasks.end_turn(id, future);
                drop(orphan);
            }
            Ok(Poll::Ready(())) => {
                drop(future);
                self.forget_task(id);
            }
            Err(payload) => self.report_panic(life, shard, payload.as_ref()),
        }
    }

    fn forget_task(&self, id: TaskId) {
        let record = self.core.borrow_mut().tasks.remove(id);
        drop(record);
    }

    /// Broken logic in a task breaks the run, and the message says which run.
    fn report_panic(&self, life: Life, shard: u16, payload: &(dyn Any + Send)) -> ! {
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        let name = self.nodes.borrow()[life.node].name.clone();
        panic!(
            "seed {}: a task of node {name} shard {shard} panicked {} ns into the run: {message}",
            self.seed,
            self.elapsed_ns()
        );
    }

    /// One line per living task, for the report of a hang.
    pub(crate) fn describe_tasks(&self) -> Vec<String> {
        let nodes = self.nodes.borrow();
        let core = self.core.borrow();
        let describe = |record: &TaskRecord| {
            let context = &record.context;
            format!("{} shard {} task of {}", nodes[context.life.node].name, context.shard, record.spawned_at)
        };
        core.tasks.living().map(describe).collect()
    }

    pub(crate) fn living_tasks(&self) -> usize {
        self.core.borrow().tasks.living_count()
    }

    /// Drops every task and event; from here on nothing can be spawned.
    pub(crate) fn close(&self) {
        self.core.borrow_mut().closing = true;
        let network = std::mem::take(&mut *self.network.borrow_mut());
        drop(network);
        self.drop_tasks(true, |_| true);
        let events = std::mem::take(&mut self.core.borrow_mut().events);
        drop(events);
    }
}
