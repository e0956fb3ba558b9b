//! How a node comes up and goes down, step by step, on every shard.
//!
//! Shard 0 leads: it locks the data directories, takes the port, rebuilds the metadata, decides which
//! shard is the home of which log and hands each shard its part. When all have opened theirs it retires
//! the checkpoints of earlier starts, registers the broker and begins to accept.
//!
//! Crash story. Until step 5 nothing on disk says that this start took place, so a crash leaves what the
//! last one left. (1) Lock. (2) Read checkpoints and metadata. (3) Assign homes. (4) Each shard opens its
//! logs and writes a checkpoint of the new generation. (5) Only then the old checkpoints go: until
//! then both are there and the newest entry of each log wins.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use corrente_protocol::ids::{NodeId, PartitionIndex, ShardId, TopicId, TopicPartition};
use corrente_replication::controller::{BrokerRegistration, Command};
use corrente_replication::topic_config::TopicConfig;
use corrente_runtime::executor::{Queue, Task, spawn, spawn_in};
use corrente_runtime::mailbox::{Receiver, Sender, mailbox};
use corrente_runtime::random::fill_random;
use corrente_runtime::socket::Listener;
use corrente_runtime::timer::now;
use corrente_storage::{Health, LogPolicy, NodeLayout, Storage, StorageConfig};
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use futures_util::stream;

use crate::config::Config;
use crate::connections::StallLimits;
use crate::controller::{self, Controller, ControllerHandle};
use crate::kafka;
use crate::listener;
use crate::memory::{MemoryBudgets, MemoryPlan};
use crate::node::{Addresses, Endpoint, StartError};
use crate::partition::{Partition, Terms};
use crate::reconcile::{self, Origin};
use crate::shard::{Message, Shard, ShardParts};
use crate::topology::{Directory, assign_homes};

/// The log of the cluster's metadata, on shard 0 of every node that holds it.
const METADATA: TopicPartition = TopicPartition { topic: TopicId::METADATA, partition: PartitionIndex(0) };

/// The largest batch of metadata: what the controller may decide at once.
const METADATA_BATCH_BYTES_MAX: usize = 16 << 20;

/// How many logs a shard opens at once: enough to keep a drive busy, at a MiB or two each.
const LOGS_OPENED_AT_ONCE: usize = 32;

/// What all shards of a start have in common; each takes its share of the channels once.
#[derive(Clone)]
pub struct Setup {
    config: Arc<Config>,
    memory: MemoryPlan,
    peers: Arc<Vec<Sender<Message>>>,
    controller: ControllerHandle,
    shares: Arc<Mutex<Vec<Option<Share>>>>,
}

/// The ends of the channels that belong to one shard. Dropping them tells the others that it ended.
struct Share {
    mailbox: Receiver<Message>,
    role: Role,
}

enum Role {
    Leader { siblings: Vec<Sibling>, commands: Receiver<controller::Request>, outcome: Sender<Outcome> },
    Follower { plan: Receiver<Plan>, opened: Sender<Result<(), StartError>> },
}

/// How shard 0 speaks to another shard during the start.
struct Sibling {
    plan: Sender<Plan>,
    /// One message when it has opened its logs; closed when it has ended.
    opened: Receiver<Result<(), StartError>>,
}

/// How a start ended.
pub type Outcome = Result<Addresses, StartError>;

/// What shard 0 hands to every shard.
struct Plan {
    generation: u64,
    /// Data directories that cannot be used, by their places.
    failed_dirs: Vec<usize>,
    directory: Arc<Directory>,
    /// What Kafka's clients are told to connect to.
    kafka: Option<(String, u16)>,
    /// The logs whose home this shard is.
    logs: Vec<(TopicPartition, Origin)>,
}

impl Setup {
    /// Also returns where the outcome of the start is told.
    pub fn new(
        config: Config,
        memory: MemoryPlan,
        peers: &Arc<Vec<Sender<Message>>>,
        mailboxes: Vec<Receiver<Message>>,
    ) -> (Setup, Receiver<Outcome>) {
        let (controller, commands) = controller::channel();
        let (outcome, outcome_end) = mailbox(1);
        let mut siblings = Vec::new();
        let mut shares = Vec::new();
        let mut mailboxes = mailboxes.into_iter();
        let leader_mailbox = mailboxes.next().expect("a node has at least one shard");
        for mailbox_end in mailboxes {
            let (plan, plan_end) = mailbox(1);
            let (opened, opened_end) = mailbox(1);
            siblings.push(Sibling { plan, opened: opened_end });
            shares.push(Share { mailbox: mailbox_end, role: Role::Follower { plan: plan_end, opened } });
        }
        shares
            .insert(0, Share { mailbox: leader_mailbox, role: Role::Leader { siblings, commands, outcome } });
        let shares = Arc::new(Mutex::new(shares.into_iter().map(Some).collect()));
        (Setup { config: Arc::new(config), memory, peers: peers.clone(), controller, shares }, outcome_end)
    }

    fn take_share(&self, shard: ShardId) -> Share {
        let mut shares = self.shares.lock().expect("nobody panics while holding this");
        shares[usize::from(shard.0)].take().expect("a shard runs once")
    }

    fn shard_count(&self) -> u16 {
        u16::try_from(self.peers.len()).expect("shards are counted in 16 bits")
    }

    fn storage_config(&self, shard: ShardId, generation: u64, failed_dirs: &[usize]) -> StorageConfig {
        let log = &self.config.log;
        StorageConfig {
            segment_bytes: log.segment_bytes.0,
            window_bytes_max: log.window_bytes_max.as_usize(),
            append_bytes_max: self.config.connection.frame_bytes_max.as_usize(),
            tail_ring_bytes: self.memory.tail_ring,
            read_ahead_bytes: self.memory.read_ahead,
            checkpoint_interval: Duration::from_millis(log.checkpoint_interval_ms),
            checkpoint_bytes: log.checkpoint_bytes.0,
            pool_bytes_max: log.pool_bytes.0 / u64::from(self.shard_count()),
            upkeep_interval: Duration::from_millis(log.upkeep_interval_ms),
            // Out of what is left to tables.
            compaction_bytes: log.compaction_bytes.as_usize().min(self.memory.tail_ring / 8),
            reserve_bytes: (log.reserve_bytes.0 > 0).then_some(log.reserve_bytes.0),
            failed_dirs: failed_dirs.to_vec(),
            ..StorageConfig::new(self.config.node.data_dirs.clone(), shard, generation)
        }
    }
}

/// The life of one shard, from nothing to nothing.
pub async fn run(shard: u16, setup: Setup) {
    let id = ShardId(shard);
    let Share { mailbox, role } = setup.take_share(id);
    match role {
        Role::Follower { plan, opened } => follow(id, setup, mailbox, plan, opened).await,
        Role::Leader { siblings, commands, outcome } => {
            let peers = setup.peers.clone();
            if let Err(error) = lead(setup, mailbox, siblings, commands, outcome.clone()).await {
                for sibling in &peers[1..] {
                    // One that has not got its plan yet has ended by now.
                    let _ = sibling.try_send(Message::Stop);
                }
                // Nobody waits any more if the node was dropped while it started.
                let _ = outcome.send(Err(error)).await;
            }
        }
    }
}

async fn follow(
    id: ShardId,
    setup: Setup,
    mailbox: Receiver<Message>,
    mut plan: Receiver<Plan>,
    opened: Sender<Result<(), StartError>>,
) {
    let Some(plan) = plan.recv().await else { return };
    match Storage::open(setup.storage_config(id, plan.generation, &plan.failed_dirs)).await {
        Ok(storage) => {
            let shard = open_shard(id, &setup, storage, plan).await;
            let checkpointed = shard.storage.checkpoint_now().await.map_err(storage_error);
            let failed = checkpointed.is_err();
            if opened.send(checkpointed).await.is_ok() && !failed {
                serve(&shard, mailbox, Vec::new()).await;
            }
        }
        Err(error) => {
            // If shard 0 has given up too, it has a reason of its own to tell.
            let _ = opened.send(Err(storage_error(error))).await;
        }
    }
    // Kept until here: shard 0 holds the lock of the data directories as long as this is open.
    drop(opened);
}

async fn lead(
    setup: Setup,
    mailbox: Receiver<Message>,
    mut siblings: Vec<Sibling>,
    commands: Receiver<controller::Request>,
    outcome: Sender<Outcome>,
) -> Result<(), StartError> {
    let id = ShardId(0);
    let layout = NodeLayout::open(&setup.config.node.data_dirs).await.map_err(storage_error)?;
    let listener = listen(setup.config.listen.native, "--listen").await?;
    let kafka_listener = match setup.config.listen.kafka {
        Some(address) => Some(listen(address, "--kafka").await?),
        None => None,
    };
    let addresses = addresses(&setup, &listener, kafka_listener.as_ref())?;
    let generation = layout.generation();
    let failed_dirs: Vec<usize> = layout.failed().iter().map(|failed| failed.index).collect();
    let storage_config = setup.storage_config(id, generation, &failed_dirs);
    let storage = Storage::open(storage_config).await.map_err(storage_error)?;
    let mut origins = origins(&layout);
    let metadata = open_metadata(&setup, &storage, &mut origins).await?;
    let image = controller::replay(&metadata).await.map_err(metadata_error)?;

    let partitions = image.partitions().map(|(id, _)| (id, origins.get(&id).and_then(Origin::home)));
    let homes = Arc::new(assign_homes(partitions, setup.shard_count()));
    let directory = Arc::new(Directory { image, homes });
    let mut logs: Vec<Vec<_>> = (0..setup.shard_count()).map(|_| Vec::new()).collect();
    for (partition, home) in directory.homes.iter() {
        let origin = origins.remove(partition).unwrap_or(Origin::New);
        logs[usize::from(home.0)].push((*partition, origin));
    }
    for origin in origins.into_values() {
        if let Origin::Found(orphan) = origin {
            tracing::info!(partition = %orphan.id, "removing the log of a topic that was deleted");
            layout.remove_log(&orphan).await.map_err(storage_error)?;
        }
    }

    let mut plans = logs.into_iter().map(|logs| Plan {
        generation,
        failed_dirs: failed_dirs.clone(),
        directory: directory.clone(),
        kafka: addresses.kafka.as_ref().map(|kafka| kafka.advertised.clone()),
        logs,
    });
    let mine = plans.next().expect("there is a shard 0");
    for (plan, sibling) in plans.zip(&siblings) {
        sibling.plan.send(plan).await.map_err(|_| StartError::Stopped)?;
    }
    let shard = open_shard(id, &setup, storage, mine).await;
    shard.storage.checkpoint_now().await.map_err(storage_error)?;
    for sibling in &mut siblings {
        sibling.opened.recv().await.unwrap_or(Err(StartError::Stopped))?;
    }
    let live: Vec<ShardId> = (0..setup.shard_count()).map(ShardId).collect();
    let retired = layout.retire_old_generations(&live).await.map_err(storage_error)?;
    assert!(retired, "every shard wrote its checkpoint before it said that it had opened its logs");

    let controller = Controller::new(shard.clone(), metadata);
    // The siblings must hear of the registration, so they serve already.
    register(&controller, &shard, &addresses, &layout).await?;
    let controlling = spawn(controller.run(commands));
    let mut doors = vec![spawn(listener::accept(shard.clone(), listener)), controlling];
    doors.extend(kafka_listener.map(|listener| spawn(kafka::accept(shard.clone(), listener))));
    // Nobody waits any more if the node was dropped while it started; it serves until told to stop.
    let _ = outcome.send(Ok(addresses)).await;
    drop(outcome);

    serve(&shard, mailbox, doors).await;
    for sibling in &mut siblings {
        while sibling.opened.recv().await.is_some() {}
    }
    drop(layout);
    Ok(())
}

async fn listen(address: SocketAddr, flag: &str) -> Result<Listener, StartError> {
    Listener::bind(address).await.map_err(|error| {
        let reason = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("another process listens there; stop it or give another {flag}")
            }
            _ => error.to_string(),
        };
        StartError::Listen { address, reason }
    })
}

fn addresses(
    setup: &Setup,
    listener: &Listener,
    kafka_listener: Option<&Listener>,
) -> Result<Addresses, StartError> {
    let Config { listen, node, .. } = &*setup.config;
    let native = endpoint(listener, listen.native, setup.config.advertised()?, "--advertise")?;
    let kafka = match (kafka_listener, listen.kafka) {
        (Some(listener), Some(address)) => {
            let advertised = setup.config.advertised_kafka()?;
            Some(endpoint(listener, address, advertised, "--advertise-kafka")?)
        }
        _ => None,
    };
    Ok(Addresses {
        native: native.listening,
        advertised: native.advertised,
        node: NodeId(node.id),
        shards: setup.shard_count(),
        kafka,
    })
}

fn endpoint(
    listener: &Listener,
    address: SocketAddr,
    advertised: Option<(String, u16)>,
    flag: &str,
) -> Result<Endpoint, StartError> {
    let listening =
        listener.local_addr().map_err(|error| StartError::Listen { address, reason: error.to_string() })?;
    let advertised = advertised.unwrap_or_else(|| {
        if listening.ip().is_unspecified() {
            tracing::warn!(%listening, "listening on every address without {flag}: clients on other machines \
                                        will be told an address that they cannot reach");
        }
        (listening.ip().to_string(), listening.port())
    });
    Ok(Endpoint { listening, advertised })
}

fn storage_error(error: impl std::fmt::Display) -> StartError {
    StartError::Storage(error.to_string())
}

fn metadata_error(error: impl std::fmt::Display) -> StartError {
    StartError::Metadata(error.to_string())
}

/// What earlier starts left behind of each log.
fn origins(layout: &NodeLayout) -> BTreeMap<TopicPartition, Origin> {
    let found = layout.logs().iter().map(|log| (log.id, Origin::Found(log.clone())));
    let lost = layout.lost().iter().map(|log| (log.id, Origin::Lost(log.clone())));
    found.chain(lost).collect()
}

/// Opens the metadata log, or makes it at the very first start: logs without metadata mean that a data
/// directory is missing, and taking them for those of deleted topics would destroy them.
async fn open_metadata(
    setup: &Setup,
    storage: &Storage,
    origins: &mut BTreeMap<TopicPartition, Origin>,
) -> Result<Rc<Partition>, StartError> {
    let node = NodeId(setup.config.node.id);
    let log = match origins.remove(&METADATA) {
        Some(Origin::Found(found)) => storage.open_log(found).await.map_err(metadata_error)?.0,
        None if origins.is_empty() => storage.create_log(METADATA, 0).await.map_err(metadata_error)?,
        _ => {
            let line = format!(
                "the metadata log is gone and there are {} other logs: \
                 is a data directory missing, or not the first one named first?",
                origins.len()
            );
            return Err(StartError::Metadata(line));
        }
    };
    let mut config = TopicConfig::parse(&BTreeMap::new()).expect("the defaults are valid");
    config.max_message_bytes = METADATA_BATCH_BYTES_MAX as u64;
    if let Health::Quarantined(reason) = log.health() {
        return Err(StartError::Metadata(format!(
            "the metadata log is damaged: {reason}; restore it from a copy, or see 'corrente log repair'"
        )));
    }
    // Deletions are written to it, and must be possible on a full drive.
    log.set_policy(LogPolicy { uses_reserve: true, ..LogPolicy::keep_all(setup.config.log.segment_bytes.0) });
    let epoch = log.last_epoch();
    Ok(Partition::lead(
        log,
        Terms { id: METADATA, node, epoch, config, batch_bytes_max: METADATA_BATCH_BYTES_MAX },
    ))
}

async fn open_shard(id: ShardId, setup: &Setup, storage: Rc<Storage>, plan: Plan) -> Rc<Shard> {
    let shard = Shard::new(ShardParts {
        id,
        config: setup.config.clone(),
        storage,
        memory: MemoryBudgets::new(&setup.memory),
        controller: setup.controller.clone(),
        directory: plan.directory,
        peers: setup.peers.to_vec(),
        kafka: plan.kafka,
    });
    let opening = plan.logs.into_iter().map(|(partition, origin)| reconcile::open(&shard, partition, origin));
    stream::iter(opening).buffer_unordered(LOGS_OPENED_AT_ONCE).collect::<()>().await;
    shard
}

async fn register(
    controller: &Controller,
    shard: &Rc<Shard>,
    addresses: &Addresses,
    layout: &NodeLayout,
) -> Result<(), StartError> {
    let mut drawn = [0; 16];
    fill_random(&mut drawn);
    if shard.directory().image.cluster().is_none() {
        let command = Command::IdentifyCluster { cluster: drawn };
        controller.execute(&command, false).await.map_err(metadata_error)?;
    }
    fill_random(&mut drawn);
    let registration = BrokerRegistration {
        node: shard.node,
        incarnation: drawn,
        host: addresses.advertised.0.clone(),
        port: addresses.advertised.1,
        shards: addresses.shards,
        data_dirs: layout.dir_ids().to_vec(),
    };
    controller.execute(&Command::RegisterBroker(registration), false).await.map_err(metadata_error)
}

/// Serves until told to stop, then: takes nothing new, answers what is under way, flushes, writes the
/// checkpoint. `doors` are the tasks through which new work comes in.
async fn serve(shard: &Rc<Shard>, mut mailbox: Receiver<Message>, doors: Vec<Task<()>>) {
    let limits = StallLimits {
        usual: Duration::from_millis(shard.config.connection.stall_timeout_ms),
        short_of_memory: Duration::from_millis(shard.config.connection.short_of_memory_stall_timeout_ms),
    };
    let watching = {
        let shard = shard.clone();
        spawn_in(Queue::Background, async move {
            shard.connections.close_stalled(limits, || shard.memory.is_short()).await
        })
    };
    shard.run(&mut mailbox).await;
    drop(doors);
    let cut_off = {
        let draining = pin!(shard.connections.drain(now() + shard.config.drain()));
        // Siblings drain too, and what they have under way may need this shard.
        let helping = pin!(shard.serve_siblings(&mut mailbox));
        match select(draining, helping).await {
            Either::Left((cut_off, _)) => cut_off,
            Either::Right(((), draining)) => draining.await,
        }
    };
    if cut_off > 0 {
        tracing::warn!(shard = %shard.id, cut_off, "connections were cut off: they did not end in time");
    }
    drop(watching);
    // From here on siblings are told that this shard has stopped.
    drop(mailbox);
    shard.close().await;
}
