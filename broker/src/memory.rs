//! A shard's memory, split once at the start into parts that cannot eat each other.
//!
//! When a part is full, whoever wants more of it waits: a socket is not read, a fetch is not
//! answered yet. Nothing is dropped and nothing grows.

use corrente_runtime::host;
use corrente_runtime::sync::Budget;

use crate::config::Config;

/// A shard's budget where nothing less is given.
const PER_SHARD_DEFAULT: u64 = 1 << 30;

/// What each part of a shard may hold, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MemoryPlan {
    /// Bodies of requests being read, and appended batches until they are flushed.
    pub requests: usize,
    /// Answers to fetches until they are sent.
    pub responses: usize,
    /// The newest windows of all logs, from which tail reads are served.
    pub tail_ring: usize,
    /// Blocks read from disk for readers that catch up.
    pub read_ahead: usize,
    /// What subscriptions, and fetch sessions of Kafka's clients, remember; out of what is left to tables.
    pub sessions: usize,
}

impl MemoryPlan {
    /// The split of one shard's budget; the last eighth is left to connections and tables.
    pub fn of(per_shard_bytes: u64) -> MemoryPlan {
        let eighth = usize::try_from(per_shard_bytes / 8).expect("a 64-bit machine addresses its memory");
        MemoryPlan {
            requests: 3 * eighth,
            responses: eighth,
            tail_ring: 2 * eighth,
            read_ahead: eighth,
            sessions: eighth / 2,
        }
    }

    /// The budget that the configuration names, or what this machine (or its cgroup) affords.
    pub fn per_shard_bytes(config: &Config, shards: u16) -> u64 {
        match config.memory.per_shard_bytes.0 {
            0 => {
                let affordable = host::memory_limit_bytes().map(|limit| limit / 2 / u64::from(shards));
                affordable.map_or(PER_SHARD_DEFAULT, |affordable| affordable.min(PER_SHARD_DEFAULT))
            }
            given => given,
        }
    }
}

/// The parts that the broker itself hands out; the log keeps its own.
pub struct MemoryBudgets {
    /// See [`MemoryPlan::requests`].
    pub requests: Budget,
    /// See [`MemoryPlan::responses`].
    pub responses: Budget,
    /// See [`MemoryPlan::sessions`].
    pub sessions: Budget,
}

impl MemoryBudgets {
    /// Full budgets.
    pub fn new(plan: &MemoryPlan) -> MemoryBudgets {
        MemoryBudgets {
            requests: Budget::new(plan.requests),
            responses: Budget::new(plan.responses),
            sessions: Budget::new(plan.sessions),
        }
    }

    /// Whether anybody waits for memory that others hold.
    pub fn is_short(&self) -> bool {
        self.requests.is_short() || self.responses.is_short()
    }
}
