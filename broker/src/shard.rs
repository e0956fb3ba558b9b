//! What one core owns, and the one way to ask another core.
//!
//! A shard's partitions, connections and memory are reached by its own tasks only. Whoever needs a
//! partition that lives elsewhere sends a closure to its home; the closure runs there and answers
//! through a channel of its own. Nothing is shared but the [`Directory`], which never changes once
//! made.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use corrente_protocol::ids::{NodeId, ShardId, TopicId, TopicPartition};
use corrente_runtime::executor::spawn;
use corrente_runtime::mailbox::{Receiver, Sender};
use corrente_runtime::socket::DetachedStream;
use corrente_runtime::sync::oneshot;
use corrente_storage::Storage;
use futures_util::future::{Either, select};

use crate::config::Config;
use crate::connections::Connections;
use crate::controller::ControllerHandle;
use crate::error::{Refusal, stopped, unknown_partition};
use crate::listener::Arrival;
use crate::memory::MemoryBudgets;
use crate::meters::Meters;
use crate::partition::Partition;
use crate::producer_ids::ProducerIds;
use crate::topology::Directory;

/// One core and what it owns.
pub struct Shard {
    /// Which of the node's shards this is.
    pub id: ShardId,
    /// The node it belongs to.
    pub node: NodeId,
    /// As given at the start.
    pub config: Arc<Config>,
    /// Its logs on disk.
    pub storage: Rc<Storage>,
    /// What its requests may hold.
    pub memory: MemoryBudgets,
    /// What it has done so far.
    pub meters: Rc<Meters>,
    /// Those that speak to it.
    pub connections: Connections,
    /// Where changes of metadata are asked for.
    pub controller: ControllerHandle,
    producer_ids: ProducerIds,
    directory: RefCell<Arc<Directory>>,
    partitions: RefCell<BTreeMap<TopicPartition, Slot>>,
    peers: Vec<Sender<Message>>,
    kafka: Option<(String, u16)>,
    stopping: Cell<bool>,
}

/// What a shard holds for a partition whose home it is.
#[derive(Clone)]
pub enum Slot {
    /// Open and served.
    Serving(Rc<Partition>),
    /// Its log could not be opened. Nothing of it was changed; whoever asks is told why.
    Unavailable(Refusal),
}

impl Slot {
    /// The partition, or why there is none.
    pub fn serving(&self) -> Result<Rc<Partition>, Refusal> {
        match self {
            Slot::Serving(partition) => Ok(partition.clone()),
            Slot::Unavailable(refusal) => Err(refusal.clone()),
        }
    }
}

/// Where a partition is to be found, seen from one shard.
pub enum Place {
    /// On this shard.
    Here(Slot),
    /// On a sibling.
    There(ShardId),
    /// Not on this node, or not known.
    Unknown,
}

/// What reaches a shard from outside its own tasks.
pub enum Message {
    /// A connection that asked for this shard.
    Connection(Arrival<DetachedStream>),
    /// Something a sibling wants done here.
    Run(Box<dyn FnOnce(Rc<Shard>) + Send>),
    /// The node stops: drain and return.
    Stop,
}

/// The shard that was asked has stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("shard {0} has stopped")]
pub struct ShardStopped(pub ShardId);

/// What a shard is made of; see the fields of [`Shard`].
pub struct ShardParts {
    pub id: ShardId,
    pub config: Arc<Config>,
    pub storage: Rc<Storage>,
    pub memory: MemoryBudgets,
    pub controller: ControllerHandle,
    pub directory: Arc<Directory>,
    pub peers: Vec<Sender<Message>>,
    pub kafka: Option<(String, u16)>,
}

impl Shard {
    /// A shard that holds no partitions yet.
    pub fn new(parts: ShardParts) -> Rc<Shard> {
        Rc::new(Shard {
            id: parts.id,
            node: NodeId(parts.config.node.id),
            config: parts.config,
            storage: parts.storage,
            memory: parts.memory,
            meters: Rc::default(),
            connections: Connections::default(),
            controller: parts.controller,
            producer_ids: ProducerIds::default(),
            directory: RefCell::new(parts.directory),
            partitions: RefCell::default(),
            peers: parts.peers,
            kafka: parts.kafka,
            stopping: Cell::new(false),
        })
    }

    /// Serves messages until told to stop.
    pub async fn run(self: &Rc<Shard>, messages: &mut Receiver<Message>) {
        while let Some(message) = messages.recv().await {
            match message {
                Message::Connection(arrival) => self.welcome(arrival),
                Message::Run(task) => task(self.clone()),
                Message::Stop => break,
            }
        }
        self.stopping.set(true);
    }

    /// Does what siblings ask for while this shard drains, until nobody can ask any more.
    pub async fn serve_siblings(self: &Rc<Shard>, messages: &mut Receiver<Message>) {
        while let Some(message) = messages.recv().await {
            match message {
                Message::Run(task) => task(self.clone()),
                Message::Connection(_) | Message::Stop => {}
            }
        }
    }

    fn welcome(self: &Rc<Shard>, arrival: Arrival<DetachedStream>) {
        match arrival.attach() {
            Ok(arrival) => spawn(crate::native::serve(self.clone(), arrival)).detach(),
            Err(error) => tracing::debug!(%error, "a connection was lost on its way to this shard"),
        }
    }

    /// Whether [`Message::Stop`] has come.
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// How many shards the node has.
    pub fn shard_count(&self) -> u16 {
        u16::try_from(self.peers.len()).expect("shards are counted in 16 bits")
    }

    /// The newest directory this shard was given.
    pub fn directory(&self) -> Arc<Directory> {
        self.directory.borrow().clone()
    }

    /// Replaces the directory.
    pub fn set_directory(&self, directory: Arc<Directory>) {
        let before = self.directory.replace(directory.clone());
        let (before, after) = (before.image.end_offset(), directory.image.end_offset());
        assert!(before <= after, "metadata went back from offset {before} to {after}");
    }

    /// Where to find a partition.
    pub fn place(&self, partition: TopicPartition) -> Place {
        if let Some(slot) = self.partitions.borrow().get(&partition) {
            return Place::Here(slot.clone());
        }
        match self.directory.borrow().home(partition) {
            Some(home) if home != self.id => Place::There(home),
            _ => Place::Unknown,
        }
    }

    /// Takes a partition into this shard's keeping.
    pub fn insert(&self, partition: TopicPartition, slot: Slot) {
        let before = self.partitions.borrow_mut().insert(partition, slot);
        assert!(before.is_none(), "partition {partition} was opened twice on shard {}", self.id);
    }

    /// Lets a partition go.
    pub fn remove(&self, partition: TopicPartition) -> Option<Slot> {
        self.partitions.borrow_mut().remove(&partition)
    }

    /// Lets every partition go, flushes and writes the checkpoint.
    pub async fn close(&self) {
        self.partitions.take();
        if let Err(error) = self.storage.close().await {
            tracing::error!(shard = %self.id, %error, "the last checkpoint was not written; the next start scans more");
        }
    }

    /// Everything this shard keeps.
    pub fn slots(&self) -> Vec<Slot> {
        self.partitions.borrow().values().cloned().collect()
    }

    /// Every partition of one topic that lives here and is served.
    pub fn partitions_of(&self, topic: TopicId) -> Vec<Rc<Partition>> {
        let partitions = self.partitions.borrow();
        let of_topic = partitions.iter().filter(|(id, _)| id.topic == topic);
        of_topic.filter_map(|(_, slot)| slot.serving().ok()).collect()
    }

    /// An id for a producer, that nobody was ever given.
    pub async fn new_producer_id(&self) -> Result<i64, Refusal> {
        self.producer_ids.take(&self.controller).await
    }

    /// What Kafka's clients are told to connect to.
    ///
    /// # Panics
    /// If the node has no listener for them.
    pub fn kafka_endpoint(&self) -> &(String, u16) {
        self.kafka.as_ref().expect("asked by a connection that came through the listener")
    }

    /// The largest frame body that this node reads or writes.
    pub fn frame_len_max(&self) -> u32 {
        u32::try_from(self.config.connection.frame_bytes_max.0).expect("checked with the configuration")
    }

    /// Runs `work` on the shard named and waits for what it returns.
    ///
    /// Works on this shard itself as well. Dropping the future does not stop the work.
    pub async fn run_at<T, W, F>(self: &Rc<Shard>, shard: ShardId, work: W) -> Result<T, ShardStopped>
    where
        T: Send + 'static,
        W: FnOnce(Rc<Shard>) -> F + Send + 'static,
        F: Future<Output = T> + 'static,
    {
        if shard == self.id {
            return Ok(work(self.clone()).await);
        }
        let there = async move |home, reply: oneshot::Sender<T>| {
            // The asker may have gone; the work was done all the same.
            let _ = reply.send(work(home).await);
        };
        self.answer_from(shard, there).await
    }

    /// The same for work that only looks: dropping the future ends it, wherever it is.
    pub async fn run_while_asked_at<T, W, F>(
        self: &Rc<Shard>,
        shard: ShardId,
        work: W,
    ) -> Result<T, ShardStopped>
    where
        T: Send + 'static,
        W: FnOnce(Rc<Shard>) -> F + Send + 'static,
        F: Future<Output = T> + 'static,
    {
        if shard == self.id {
            return Ok(work(self.clone()).await);
        }
        let there = async move |home, mut reply: oneshot::Sender<T>| {
            let done = match select(pin!(work(home)), reply.cancellation()).await {
                Either::Left((done, _)) => done,
                Either::Right(((), _)) => return,
            };
            let _ = reply.send(done);
        };
        self.answer_from(shard, there).await
    }

    /// Has a sibling run `task`, and waits for what that replies.
    async fn answer_from<T, F>(
        &self,
        shard: ShardId,
        task: impl FnOnce(Rc<Shard>, oneshot::Sender<T>) -> F + Send + 'static,
    ) -> Result<T, ShardStopped>
    where
        T: Send + 'static,
        F: Future<Output = ()> + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let spawn_there = move |home: Rc<Shard>| spawn(task(home, reply)).detach();
        self.send(shard, Message::Run(Box::new(spawn_there))).await?;
        answer.await.map_err(|_| ShardStopped(shard))
    }

    /// Has `work` done with a partition on its home, here or one hop away, and waits for the outcome.
    ///
    /// Refused where the partition is not known, is not served, or its shard has stopped. Dropping the future
    /// does not stop work that a sibling has begun.
    pub async fn at_home<T, W, F>(self: &Rc<Shard>, id: TopicPartition, work: W) -> Result<T, Refusal>
    where
        T: Send + 'static,
        W: FnOnce(Rc<Partition>) -> F + Send + 'static,
        F: Future<Output = Result<T, Refusal>> + 'static,
    {
        match self.place(id) {
            Place::Here(slot) => work(slot.serving()?).await,
            Place::There(home) => {
                let done = self.run_at(home, move |home| async move {
                    match home.place(id) {
                        Place::Here(slot) => work(slot.serving()?).await,
                        // It moved or vanished while the question was on its way.
                        Place::There(_) | Place::Unknown => Err(unknown_partition(id)),
                    }
                });
                done.await.unwrap_or_else(|gone| Err(stopped(gone)))
            }
            Place::Unknown => Err(unknown_partition(id)),
        }
    }

    /// Puts a message into a shard's mailbox, waiting for room.
    pub async fn send(&self, shard: ShardId, message: Message) -> Result<(), ShardStopped> {
        self.peers[usize::from(shard.0)].send(message).await.map_err(|_| ShardStopped(shard))
    }
}
