//! One broker process (or one simulated node): starts its shards, knows its addresses, stops it.

use std::net::SocketAddr;
use std::sync::Arc;

use corrente_protocol::ids::NodeId;
use corrente_runtime::executor::{self, ExecutorPanicked, Executors, ExecutorsConfig};
use corrente_runtime::host;
use corrente_runtime::mailbox::{Sender, mailbox};

use crate::boot::{self, Setup};
use crate::byte_size::ByteSize;
use crate::config::{Config, ConfigError, Idle, MEMORY_PER_SHARD_MIN, Placement};
use crate::memory::MemoryPlan;
use crate::report::ReportHandle;
use crate::shard::Message;

/// Where a node is reached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Addresses {
    /// The native listener, with the port it got.
    pub native: SocketAddr,
    /// What clients are told: host and port.
    pub advertised: (String, u16),
    /// The node's id.
    pub node: NodeId,
    /// How many shards it has.
    pub shards: u16,
    /// Where Kafka's clients reach it, if they do.
    pub kafka: Option<Endpoint>,
}

/// A listener.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// With the port it got.
    pub listening: SocketAddr,
    /// What clients are told: host and port.
    pub advertised: (String, u16),
}

/// Why a node did not start; each is one line that says what to mend.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The machine gives a shard too little memory.
    #[error(
        "each of {shards} shards would get {available} of memory and needs {needed}: \
         give more memory, fewer shards, or set memory.per_shard_bytes"
    )]
    Memory {
        /// What a shard would get.
        available: ByteSize,
        /// What it needs.
        needed: ByteSize,
        /// How many were to start.
        shards: u16,
    },
    /// A core, its ring or its memory could not be had.
    #[error(transparent)]
    Executors(#[from] executor::StartError),
    /// A shard ended before it served.
    #[error(transparent)]
    Panicked(#[from] ExecutorPanicked),
    /// The listener could not be opened.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What to mend.
        reason: String,
    },
    /// The data directories could not be used.
    #[error("{0}")]
    Storage(String),
    /// The metadata could not be read or written.
    #[error("{0}")]
    Metadata(String),
    /// Told to stop while it was starting.
    #[error("stopped before it served")]
    Stopped,
}

/// A node that serves requests.
pub struct Node {
    executors: Executors,
    addresses: Addresses,
    shutdown: ShutdownHandle,
}

/// Stops a node from anywhere; clones stop the same one.
#[derive(Clone)]
pub struct ShutdownHandle {
    shards: Arc<Vec<Sender<Message>>>,
}

/// Messages that may wait for one shard; siblings wait for room beyond.
const MAILBOX: usize = 4096;

impl Node {
    /// Starts all shards, recovers the data, opens the listener. Returns once requests are served.
    ///
    /// On an error everything that was started has been stopped again.
    pub async fn start(config: Config) -> Result<Node, StartError> {
        let shards = shard_count(&config);
        let per_shard_bytes = memory_per_shard(&config, shards)?;
        let (peers, mailboxes) = (0..shards).map(|_| mailbox(MAILBOX)).unzip();
        let shutdown = ShutdownHandle { shards: Arc::new(peers) };
        let executors_config = executors_config(&config, shards);
        let (setup, mut outcome) =
            Setup::new(config, MemoryPlan::of(per_shard_bytes), &shutdown.shards, mailboxes);
        let mut executors = Executors::start(executors_config, move |shard| boot::run(shard, setup.clone()))?;
        match outcome.recv().await {
            Some(Ok(addresses)) => Ok(Node { executors, addresses, shutdown }),
            failed => {
                executors.stopped().await?;
                Err(failed.and_then(Result::err).unwrap_or(StartError::Stopped))
            }
        }
    }

    /// Where it is reached.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// A handle that stops the node.
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        self.shutdown.clone()
    }

    /// A handle that asks the node how it is.
    pub fn report_handle(&self) -> ReportHandle {
        ReportHandle::new(self.shutdown.shards.clone())
    }

    /// Waits until every shard has ended. Cancel-safe.
    pub async fn stopped(&mut self) -> Result<(), ExecutorPanicked> {
        self.executors.stopped().await
    }
}

impl ShutdownHandle {
    /// Tells every shard to answer what is under way, flush, write its checkpoint and end.
    pub async fn shutdown(&self) {
        for shard in self.shards.iter() {
            // A shard that has ended already needs no telling.
            let _ = shard.send(Message::Stop).await;
        }
    }
}

fn shard_count(config: &Config) -> u16 {
    match config.shards.count {
        0 if !config.shards.cpus.is_empty() => u16::try_from(config.shards.cpus.len()).unwrap_or(u16::MAX),
        0 => u16::try_from(host::cpu_count()).unwrap_or(u16::MAX),
        given => given,
    }
}

fn memory_per_shard(config: &Config, shards: u16) -> Result<u64, StartError> {
    let available = ByteSize(MemoryPlan::per_shard_bytes(config, shards));
    let needed = MEMORY_PER_SHARD_MIN.max(ByteSize(3 * config.connection.frame_bytes_max.0));
    if available < needed {
        return Err(StartError::Memory { available, needed, shards });
    }
    Ok(available.0)
}

fn executors_config(config: &Config, shards: u16) -> ExecutorsConfig {
    let wait = std::time::Duration::from_micros(config.shards.spin_us);
    ExecutorsConfig {
        placement: match config.shards.placement {
            Placement::Pinned => executor::Placement::Pinned,
            Placement::Unbound => executor::Placement::Unbound,
        },
        cpus: (!config.shards.cpus.is_empty()).then(|| config.shards.cpus.clone()),
        idle: match config.shards.idle {
            Idle::Park => executor::Idle::Park,
            Idle::Spin => executor::Idle::Spin(wait),
            Idle::Poll => executor::Idle::Poll,
        },
        ..ExecutorsConfig::new(shards)
    }
}
