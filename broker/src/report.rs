//! What a node is like at this moment, for whoever watches it: asked of every shard, answered with plain data.
//!
//! Asking costs a shard a look at each of its partitions, in the background queue; nothing is counted twice for it.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use corrente_protocol::ids::{ShardId, TopicId};
use corrente_runtime::executor::{Queue, spawn_in, yield_if_needed};
use corrente_runtime::file::Space;
use corrente_runtime::mailbox::{Receiver, Sender, mailbox};
use corrente_runtime::sync::Budget;
use corrente_storage::{DriveState, Health, Log, UpkeepCounters};

use crate::meters::MetersReport;
use crate::shard::{Message, Shard, Slot};

/// A node at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeReport {
    /// Those shards that answered, in their order.
    pub shards: Vec<ShardReport>,
    /// Those that have stopped.
    pub stopped: Vec<ShardId>,
    /// The data directories, in the order of the configuration.
    pub data_dirs: Vec<DataDirReport>,
}

/// One shard.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardReport {
    /// Which.
    pub shard: ShardId,
    /// Its partitions, that of the metadata among them, by what they can be used for.
    pub partitions: PartitionCounts,
    /// What its logs take on disk.
    pub log_bytes: u64,
    /// Its connections.
    pub connections: usize,
    /// Memory of requests being read, and of batches until they are flushed.
    pub requests: MemoryReport,
    /// Memory of answers to fetches until they are sent.
    pub responses: MemoryReport,
    /// Memory of the newest windows, from which tail reads are served.
    pub tail_ring_bytes: usize,
    /// What it has served since the start.
    pub meters: MetersReport,
    /// What upkeep has done since the start.
    pub upkeep: UpkeepCounters,
}

/// Partitions by their state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionCounts {
    /// They take and serve records.
    pub online: u64,
    /// A write has failed: what was flushed is served until the next start.
    pub fenced: u64,
    /// Damaged: what verifies is served.
    pub quarantined: u64,
    /// Not served at all.
    pub offline: u64,
}

/// A part of a shard's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryReport {
    /// Bytes held.
    pub used: usize,
    /// Bytes that may be.
    pub capacity: usize,
}

/// One data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDirReport {
    /// Where it is.
    pub path: PathBuf,
    /// The room of its file system; none if it does not answer.
    pub space: Option<Space>,
    /// What appends leave alone.
    pub reserve_bytes: u64,
    /// Whether appends are refused for want of room.
    pub refuses_appends: bool,
    /// Why nothing new is put there, if a write to it has failed.
    pub failed: Option<Arc<str>>,
}

/// Asks a node for its report, from any thread; clones ask the same node.
#[derive(Clone)]
pub struct ReportHandle {
    shards: Arc<Vec<Sender<Message>>>,
}

/// What a shard answers.
struct Answer {
    shard: ShardReport,
    data_dirs: Vec<DataDirReport>,
}

impl ReportHandle {
    pub(crate) fn new(shards: Arc<Vec<Sender<Message>>>) -> ReportHandle {
        ReportHandle { shards }
    }

    /// Waits for every shard's answer, as long as it takes. Cancel-safe.
    pub async fn report(&self) -> NodeReport {
        let answers = self.ask(|shard| async move { answer_of(&shard).await }).await;
        let mut report = NodeReport { shards: Vec::new(), stopped: Vec::new(), data_dirs: Vec::new() };
        for (id, mut answer) in (0..).map(ShardId).zip(answers) {
            match answer.recv().await {
                Some(answer) => {
                    report.shards.push(answer.shard);
                    report.take_in(answer.data_dirs);
                }
                None => report.stopped.push(id),
            }
        }
        report
    }

    /// Whether every shard answers, waiting for it as long as it takes. Cancel-safe.
    pub async fn is_serving(&self) -> bool {
        for mut answer in self.ask(|_| async {}).await {
            if answer.recv().await.is_none() {
                return false;
            }
        }
        true
    }

    /// Asks every shard the same; where the answers come to, in the order of the shards. One that has stopped closes
    /// its own without any.
    async fn ask<T, F>(&self, question: impl Fn(Rc<Shard>) -> F + Clone + Send + 'static) -> Vec<Receiver<T>>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let mut answers = Vec::new();
        for shard in self.shards.iter() {
            let (reply, answer) = mailbox(1);
            let question = question.clone();
            let task = move |shard: Rc<Shard>| {
                spawn_in(Queue::Background, async move {
                    // The asker may have gone.
                    let _ = reply.send(question(shard).await).await;
                })
                .detach();
            };
            let _ = shard.send(Message::Run(Box::new(task))).await;
            answers.push(answer);
        }
        answers
    }
}

impl NodeReport {
    /// All partitions of the node.
    pub fn partitions(&self) -> PartitionCounts {
        let mut all = PartitionCounts::default();
        for PartitionCounts { online, fenced, quarantined, offline } in
            self.shards.iter().map(|s| s.partitions)
        {
            all.online += online;
            all.fenced += fenced;
            all.quarantined += quarantined;
            all.offline += offline;
        }
        all
    }

    /// A directory has failed if any shard has met it failing.
    fn take_in(&mut self, data_dirs: Vec<DataDirReport>) {
        if self.data_dirs.is_empty() {
            self.data_dirs = data_dirs;
            return;
        }
        for (known, seen) in self.data_dirs.iter_mut().zip(data_dirs) {
            known.space = seen.space.or(known.space);
            known.refuses_appends |= seen.refuses_appends;
            known.failed = known.failed.take().or(seen.failed);
        }
    }
}

impl DataDirReport {
    /// Whether appends are refused for want of room.
    pub fn is_below_reserve(&self) -> bool {
        self.refuses_appends || self.space.is_some_and(|space| space.available_bytes < self.reserve_bytes)
    }
}

async fn answer_of(shard: &Rc<Shard>) -> Answer {
    let mut partitions = PartitionCounts::default();
    for slot in shard.slots() {
        partitions.count(&slot);
        yield_if_needed().await;
    }
    let mut log_bytes = 0;
    for log in shard.storage.logs() {
        log_bytes += log.size_bytes();
        // The metadata is led by the controller, not by this shard's table.
        if log.id().topic == TopicId::METADATA {
            partitions.count_log(&log);
        }
        yield_if_needed().await;
    }
    let mut data_dirs = Vec::new();
    for drive in shard.storage.look_at_drives().await {
        let DriveState { path, space, reserve_bytes, refuses_appends, failed } = drive;
        // What a failed drive held is not worth telling.
        let space = space.filter(|_| failed.is_none());
        data_dirs.push(DataDirReport { path, space, reserve_bytes, refuses_appends, failed });
    }
    let shard = ShardReport {
        shard: shard.id,
        partitions,
        log_bytes,
        connections: shard.connections.count(),
        requests: MemoryReport::of(&shard.memory.requests),
        responses: MemoryReport::of(&shard.memory.responses),
        tail_ring_bytes: shard.storage.tail_ring_used(),
        meters: shard.meters.report(),
        upkeep: shard.storage.upkeep_done(),
    };
    Answer { shard, data_dirs }
}

impl PartitionCounts {
    fn count(&mut self, slot: &Slot) {
        match slot {
            Slot::Unavailable(_) => self.offline += 1,
            Slot::Serving(partition) => self.count_log(partition.log()),
        }
    }

    fn count_log(&mut self, log: &Log) {
        let state = match log.health() {
            Health::Sound => &mut self.online,
            Health::Fenced(_) => &mut self.fenced,
            Health::Quarantined(_) => &mut self.quarantined,
        };
        *state += 1;
    }
}

impl MemoryReport {
    fn of(budget: &Budget) -> MemoryReport {
        MemoryReport { used: budget.total() - budget.available(), capacity: budget.total() }
    }
}
