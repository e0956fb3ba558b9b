//! The world as a test drives it.

use super::{config::WorldConfig, node::Node};
use crate::{
    driver::sim::{
        disk::Disk,
        executor, network,
        world::{NodeState, Step, WorldState},
    },
    timer::Instant,
};
use std::{fmt, future::Future, net::IpAddr, rc::Rc, time::Duration};

/// Nodes, their network and one virtual clock, all from one seed. Dropping it drops every task.
pub struct World {
    state: Rc<WorldState>,
}

/// Why a run did not come to its end. Names the seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunError {
    /// The time given has passed.
    TimedOut {
        /// Of the world.
        seed: u64,
        /// The virtual time given.
        limit: Duration,
    },
    /// No task is ready and no event is pending, so nothing will ever happen.
    Hang {
        /// Of the world.
        seed: u64,
        /// The virtual time the world had run.
        after: Duration,
        /// One line per living task: its node and where it was spawned.
        tasks: Vec<String>,
    },
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut { seed, limit } => {
                write!(f, "seed {seed}: not done after {limit:?} of virtual time")
            }
            Self::Hang { seed, after, tasks } => {
                write!(f, "seed {seed}: hangs after {after:?} of virtual time with {} tasks", tasks.len())?;
                tasks.iter().try_for_each(|task| write!(f, "; {task}"))
            }
        }
    }
}

impl std::error::Error for RunError {}

impl World {
    /// A world without nodes.
    ///
    /// # Panics
    /// If the configuration makes no sense; the message names the setting.
    pub fn new(seed: u64, config: WorldConfig) -> Self {
        Self { state: WorldState::new(seed, config) }
    }

    /// Adds a machine with an empty disk and an address of its own.
    ///
    /// # Panics
    /// If another node has that address, or if it is a loopback or wildcard address.
    pub fn node(&self, name: &str, address: impl Into<IpAddr>) -> Node {
        let address = address.into();
        assert!(!address.is_loopback() && !address.is_unspecified(), "{address} cannot name one node");
        let mut nodes = self.state.nodes.borrow_mut();
        if let Some(other) = nodes.iter().find(|node| node.address == address) {
            panic!("node {name} wants {address}, which node {} has", other.name);
        }
        let disk = Disk::new(self.state.config.disk.faults.clone());
        nodes.push(NodeState { name: name.to_owned(), address, incarnation: 0, disk });
        Node::new(self.state.clone(), nodes.len() - 1)
    }

    /// Runs until `done` holds, which is asked after every step.
    pub fn run_until(&self, mut done: impl FnMut() -> bool, limit: Duration) -> Result<(), RunError> {
        let seed = self.seed();
        let until_ns = self.end_of(limit);
        while !done() {
            if self.state.now_ns() > until_ns {
                return Err(RunError::TimedOut { seed, limit });
            }
            if let Step::Idle = self.state.step(until_ns) {
                if self.state.is_stuck() {
                    let tasks = self.state.describe_tasks();
                    return Err(RunError::Hang { seed, after: self.elapsed(), tasks });
                }
                self.state.advance_to(until_ns);
                return Err(RunError::TimedOut { seed, limit });
            }
        }
        Ok(())
    }

    /// Lets the world go on for this long; idle time passes too.
    pub fn run_for(&self, duration: Duration) {
        let until_ns = self.end_of(duration);
        while self.state.now_ns() < until_ns {
            if let Step::Idle = self.state.step(until_ns) {
                self.state.advance_to(until_ns);
            }
        }
    }

    /// Runs `make` on `node` until it returns.
    ///
    /// # Panics
    /// If the node crashes meanwhile.
    #[track_caller]
    pub fn run<T, Fut>(
        &self,
        node: &Node,
        limit: Duration,
        make: impl FnOnce() -> Fut + 'static,
    ) -> Result<T, RunError>
    where
        T: 'static,
        Fut: Future<Output = T> + 'static,
    {
        let mut task = executor::spawn_on(&self.state, node.index(), make);
        self.run_until(|| task.is_finished(), limit)?;
        Ok(task.take_output().expect("the node crashed before its task returned"))
    }

    /// Stops everything `from` sends from arriving at `to`; streams wait. One direction only.
    pub fn partition(&self, from: &Node, to: &Node) {
        network::block(&self.state, from.index(), to.index());
    }

    /// Undoes [`World::partition`]; what waited is sent again.
    pub fn heal(&self, from: &Node, to: &Node) {
        network::unblock(&self.state, from.index(), to.index());
    }

    /// Undoes every [`World::partition`].
    pub fn heal_all(&self) {
        network::unblock_all(&self.state);
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.state.seed
    }

    /// The virtual clock its tasks see.
    pub fn now(&self) -> Instant {
        Instant::from_nanos(self.state.now_ns())
    }

    /// Virtual time since the world began.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.state.elapsed_ns())
    }

    /// A hash over every decision so far: equal hashes, equal runs.
    pub fn trace_hash(&self) -> u64 {
        self.state.trace_hash()
    }

    /// How many turns tasks have had.
    pub fn steps(&self) -> u64 {
        self.state.steps()
    }

    /// How many tasks live.
    pub fn living_tasks(&self) -> usize {
        self.state.living_tasks()
    }

    fn end_of(&self, limit: Duration) -> u64 {
        (self.now() + limit).as_nanos()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // After a panic the tasks may be in any state: leak them rather than run their drops.
        if !std::thread::panicking() {
            self.state.close();
        }
    }
}
