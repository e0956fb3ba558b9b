//! How a world behaves where the seed does not decide it alone.

use super::node::FaultRule;
use std::{ops::Range, time::Duration};

/// How long something takes: usually within `common`, now and then longer by some of `stall`.
#[derive(Clone, Debug)]
pub struct Delay {
    /// The usual range; the end is exclusive, an empty range means its start.
    pub common: Range<Duration>,
    /// The probability of a stall, 0 to 1.
    pub stall_chance: f64,
    /// What a stall adds.
    pub stall: Range<Duration>,
}

impl Delay {
    /// A delay that never stalls.
    pub const fn within(common: Range<Duration>) -> Self {
        Self { common, stall_chance: 0.0, stall: Duration::ZERO..Duration::ZERO }
    }

    /// A delay of microseconds that stalls for milliseconds once in a while.
    const fn micros(common: Range<u64>, stall_chance: f64, stall_ms: Range<u64>) -> Self {
        Self {
            common: Duration::from_micros(common.start)..Duration::from_micros(common.end),
            stall_chance,
            stall: Duration::from_millis(stall_ms.start)..Duration::from_millis(stall_ms.end),
        }
    }

    pub(crate) fn common_ns(&self) -> Range<u64> {
        nanos(&self.common)
    }

    pub(crate) fn stall_ns(&self) -> Range<u64> {
        nanos(&self.stall)
    }
}

/// How the network between nodes, and within one, behaves.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// One way between two nodes. Loss is a stall: the stream waits for the retransmission.
    pub delay: Delay,
    /// One way within a node.
    pub loopback_delay: Delay,
    /// The probability that a write is cut into more than one segment, and each rest again.
    pub split_chance: f64,
    /// The probability that a write to another node breaks the connection instead.
    pub reset_chance: f64,
    /// Bytes a stream holds each way, sent and not yet read; then the writer waits.
    pub buffer_bytes: usize,
    /// How often a connect that nobody answers is tried again, after 1 s, 2 s, 4 s and so on.
    pub connect_retries: u32,
}

/// How fast disks are, and how they fail. What they keep is [`CrashConfig`]'s matter.
#[derive(Clone, Debug)]
pub struct DiskConfig {
    /// A read.
    pub read: Delay,
    /// A write without flush.
    pub write: Delay,
    /// A flush, of a file or directory; a durable write takes a write and a flush.
    pub flush: Delay,
    /// Opening, renaming, removing, listing, changing lengths.
    pub metadata: Delay,
    /// What each KiB of a read or write adds.
    pub nanos_per_kib: u64,
    /// By which rules every disk fails from the beginning.
    pub faults: Vec<FaultRule>,
}

/// What a crash does to writes and directory changes that were not flushed.
#[derive(Clone, Debug)]
pub struct CrashConfig {
    /// The probability that each survives; None draws it anew for every crash, none and all included.
    pub keep_chance: Option<f64>,
    /// The probability that a surviving write of more than one sector is torn.
    pub tear_chance: f64,
}

/// Everything about a world but its seed.
#[derive(Clone, Debug)]
pub struct WorldConfig {
    /// The network.
    pub network: NetworkConfig,
    /// Every disk.
    pub disk: DiskConfig,
    /// Every crash.
    pub crash: CrashConfig,
    /// How long offloaded work takes.
    pub offload: Delay,
    /// How late a timer may fire.
    pub timer_late: Range<Duration>,
    /// How far the clock moves with every turn of a task; above zero, or a loop that waits for a deadline
    /// would never end.
    pub poll_cost: Duration,
    /// The memory each node says it has.
    pub memory_bytes: u64,
    /// The CPUs each node says it has.
    pub cpus: usize,
}

impl Default for WorldConfig {
    /// A quick machine in a good network, with now and then a hiccup.
    fn default() -> Self {
        Self {
            network: NetworkConfig {
                delay: Delay::micros(50..500, 0.001, 200..800),
                loopback_delay: Delay::micros(5..50, 0.0, 0..0),
                split_chance: 0.25,
                reset_chance: 0.0,
                buffer_bytes: 256 * 1024,
                connect_retries: 6,
            },
            disk: DiskConfig {
                read: Delay::micros(20..200, 0.002, 1..20),
                write: Delay::micros(10..100, 0.002, 1..20),
                flush: Delay::micros(20..400, 0.002, 1..50),
                metadata: Delay::micros(5..50, 0.001, 1..20),
                nanos_per_kib: 400,
                faults: Vec::new(),
            },
            crash: CrashConfig { keep_chance: None, tear_chance: 0.3 },
            offload: Delay::micros(10..500, 0.01, 1..20),
            timer_late: Duration::ZERO..Duration::from_micros(50),
            poll_cost: Duration::from_nanos(200),
            memory_bytes: 8 << 30,
            cpus: 4,
        }
    }
}

impl WorldConfig {
    pub(crate) fn timer_late_ns(&self) -> Range<u64> {
        nanos(&self.timer_late)
    }

    pub(crate) fn poll_cost_ns(&self) -> u64 {
        one_nanos(self.poll_cost)
    }

    /// # Panics
    /// With the setting that makes no sense.
    pub(crate) fn assert_valid(&self) {
        assert!(!self.poll_cost.is_zero(), "poll_cost is 0, so a busy task would stop the clock");
        assert!(self.network.buffer_bytes > 0, "network.buffer_bytes is 0, so nothing could be sent");
        let chances = [
            ("network.split_chance", self.network.split_chance),
            ("network.reset_chance", self.network.reset_chance),
            ("crash.keep_chance", self.crash.keep_chance.unwrap_or(0.0)),
            ("crash.tear_chance", self.crash.tear_chance),
        ];
        for (name, chance) in chances {
            assert!((0.0..=1.0).contains(&chance), "{name} is {chance}, not within 0 to 1");
        }
        self.disk.faults.iter().for_each(FaultRule::assert_valid);
        assert!(self.network.split_chance < 1.0, "network.split_chance is 1, so cutting would not end early");
    }
}

fn nanos(range: &Range<Duration>) -> Range<u64> {
    one_nanos(range.start)..one_nanos(range.end)
}

fn one_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
