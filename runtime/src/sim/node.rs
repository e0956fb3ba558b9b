//! One machine of a world, and the controls of its disk.

use crate::driver::sim::{disk, executor, task::Task, world::WorldState};
use std::{
    cell::{Ref, RefMut},
    future::Future,
    net::IpAddr,
    path::Path,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

pub use crate::driver::sim::counters::{Damage, DiskCounters, Harm};
pub use crate::driver::sim::fault::{DiskFault, FaultRule, When};

/// A machine: it has a name, an address and a disk, can crash or be killed, and be started again.
#[derive(Clone)]
pub struct Node {
    world: Rc<WorldState>,
    index: usize,
}

impl Node {
    pub(crate) fn new(world: Rc<WorldState>, index: usize) -> Self {
        Self { world, index }
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.world.nodes.borrow()[self.index].name.clone()
    }

    /// Its address in the network.
    pub fn address(&self) -> IpAddr {
        self.world.nodes.borrow()[self.index].address
    }

    /// Runs `make` on this machine; it may spawn more, or start shards.
    #[track_caller]
    pub fn spawn<T, Fut>(&self, make: impl FnOnce() -> Fut + 'static) -> NodeTask<T>
    where
        T: 'static,
        Fut: Future<Output = T> + 'static,
    {
        NodeTask(executor::spawn_on(&self.world, self.index, make))
    }

    /// Cuts the power. Every task is dropped, every connection reset, every port and lock free; writes
    /// and directory changes that were not flushed are kept, lost or torn as drawn. The node is up again at
    /// once: [`Node::spawn`] starts its next life.
    pub fn crash(&self) {
        self.world.crash(self.index);
    }

    /// Ends everything that runs on it, as `kill -9` does, while the machine goes on. Every task is dropped,
    /// every connection reset, every port and lock free. Of what was under way on the disk some still
    /// happens, whole or in part; what was not flushed can be seen by the next life, is not durable, and a
    /// later [`Node::crash`] may still lose it.
    pub fn kill(&self) {
        self.world.kill(self.index);
    }

    /// The controls of its disk.
    pub fn disk(&self) -> Disk<'_> {
        Disk { node: self }
    }
}

/// A task that [`Node::spawn`] started. Dropping it cancels the task. Tasks of the world may await it,
/// which panics once its node has crashed.
#[must_use = "a dropped task is cancelled; detach it to let it run"]
pub struct NodeTask<T>(Task<T>);

impl<T> NodeTask<T> {
    /// Lets the task run on with nobody waiting for it.
    pub fn detach(self) {
        self.0.detach();
    }

    /// Whether it has returned, or was dropped when its node crashed.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// What it returned, once; None if it has not, or was dropped when its node crashed.
    pub fn take_output(&mut self) -> Option<T> {
        self.0.take_output()
    }
}

impl<T> Future for NodeTask<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(context)
    }
}

/// The controls of one node's disk.
pub struct Disk<'a> {
    node: &'a Node,
}

impl Disk<'_> {
    /// The planted fault: from now on flushes report success and do nothing.
    pub fn ignore_flush(&self, ignore: bool) {
        self.disk_mut().ignore_flush(ignore);
    }

    /// The planted fault: from now on [`sync_data`](crate::file::File::sync_data) reports success and does nothing;
    /// durable writes are durable.
    pub fn ignore_sync_data(&self, ignore: bool) {
        self.disk_mut().ignore_sync_data(ignore);
    }

    /// The planted fault: from now on a flush of content that fails is made once more and its success reported, as
    /// by a caller who does not know better.
    pub fn retry_flushes(&self, retry: bool) {
        self.disk_mut().retry_flushes(retry);
    }

    /// Has operations go wrong from now on, beside those that go wrong already.
    ///
    /// # Panics
    /// If a probability is none.
    pub fn inject(&self, rule: FaultRule) {
        rule.assert_valid();
        self.disk_mut().inject(rule);
    }

    /// Has everything at and below a path fail: the drive that is mounted there is dead.
    pub fn fail_below(&self, path: impl AsRef<Path>) {
        self.disk_mut().fail_below(path.as_ref());
    }

    /// From now on everything takes so many times as long.
    pub fn slow_down(&self, factor: u32) {
        self.disk_mut().slow_down(factor);
    }

    /// Ends every fault that was configured or injected, and slowness. What they did stays done.
    pub fn heal(&self) {
        self.disk_mut().heal();
    }

    /// The lengths of all files at and below a path.
    pub fn used_bytes(&self, path: impl AsRef<Path>) -> u64 {
        self.disk().tree.bytes_below(path.as_ref())
    }

    /// What fits at and below a path, as on a file system of its own; None takes the bound away. What is there
    /// already stays, also beyond it.
    pub fn set_capacity(&self, path: impl AsRef<Path>, bytes: Option<u64>) {
        self.disk_mut().set_capacity(path.as_ref(), bytes);
    }

    /// Turns so many bits over in the files at and below a path, where nothing was written for so long. Of any
    /// file as likely as of any other.
    pub fn rot(&self, below: impl AsRef<Path>, bits: u32, unwritten_for: Duration) {
        let unwritten_ns = u64::try_from(unwritten_for.as_nanos()).unwrap_or(u64::MAX);
        self.disk_mut().rot(&self.node.world, below.as_ref(), bits, unwritten_ns);
    }

    /// Every place where this disk does not hold what was written there, in the order in which that came about.
    /// Places written again since then are still among them.
    pub fn damages(&self) -> Vec<Damage> {
        self.disk().damages().to_vec()
    }

    /// What has befallen this disk so far.
    pub fn counters(&self) -> DiskCounters {
        self.disk().counters()
    }

    fn disk(&self) -> Ref<'_, disk::Disk> {
        Ref::map(self.node.world.nodes.borrow(), |nodes| &nodes[self.node.index].disk)
    }

    fn disk_mut(&self) -> RefMut<'_, disk::Disk> {
        RefMut::map(self.node.world.nodes.borrow_mut(), |nodes| &mut nodes[self.node.index].disk)
    }
}
