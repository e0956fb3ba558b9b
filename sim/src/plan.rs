//! What a seed decides before a run begins: the machine, the broker's settings, the load, the faults.
//!
//! Each dial is drawn by itself, its extremes included, so that seeds differ in kind and not only in order.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use corrente_broker::{Config, byte_size::ByteSize};
use corrente_client::{Compression, Durability};
use corrente_runtime::sim::{CrashConfig, Delay, DiskConfig, NetworkConfig, WorldConfig};
use fastrand::Rng;

use crate::topic_plan::TopicPlan;
use crate::trouble::{Inclination, Mode, Trouble};

/// Everything about a run that its seed decides beforehand.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// How far its faults go.
    pub mode: Mode,
    /// Network, disk and clock.
    pub world: WorldConfig,
    /// The broker's settings but for address and number of shards.
    pub broker: BrokerPlan,
    /// What clients do.
    pub load: LoadPlan,
    /// Shards of the first start.
    pub shards: u16,
    /// What happens to the broker, in order.
    pub disruptions: Vec<Disruption>,
    /// Shards of the last start, which follows a cut when all was acknowledged.
    pub last_shards: u16,
}

/// How small the broker's buffers are.
#[derive(Clone, Debug)]
pub struct BrokerPlan {
    /// Drives.
    pub data_dirs: u8,
    /// Bytes that one flush gathers at most.
    pub window_bytes_max: u64,
    /// How long a flush may lie above the checkpoint.
    pub checkpoint_interval_ms: u64,
    /// How many bytes may.
    pub checkpoint_bytes: u64,
    /// Where segments of the topic end.
    pub segment_bytes: u64,
}

/// What clients do.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// What the topic keeps.
    pub topic: TopicPlan,
    /// Partitions of the topic.
    pub partitions: u32,
    /// Partitions it is grown to half way; the same number, if it is not.
    pub partitions_later: u32,
    /// One entry for each producer.
    pub producers: Vec<ProducerPlan>,
    /// Readers from the earliest record at the start.
    pub early_readers: u32,
    /// Readers from the tail.
    pub tail_readers: u32,
    /// Different keys.
    pub keys: u32,
    /// At these counts of sent records everybody pauses for so long.
    pub pauses: Vec<(u64, Duration)>,
    /// How long a request may take before the connection is given up.
    pub request_timeout: Duration,
}

/// What one producer does.
#[derive(Clone, Debug)]
pub struct ProducerPlan {
    /// Records in all.
    pub records: u32,
    /// Records that may be unacknowledged.
    pub unacked_max: usize,
    /// Bytes of filler in most records.
    pub filler: Range<usize>,
    /// Bytes of filler in one record of thirty.
    pub filler_seldom: Range<usize>,
    /// The pause between two records; half of them follow at once.
    pub gap: Range<Duration>,
    /// When a batch is full.
    pub batch_bytes: usize,
    /// How long it may wait to become so.
    pub linger: Duration,
    /// How it is compressed.
    pub compression: Compression,
    /// What is asked for; the topic asks for a flush whatever this is.
    pub durability: Durability,
}

/// How the broker goes down and comes up again.
#[derive(Clone, Debug)]
pub struct Disruption {
    /// When this many records were sent and any is unacknowledged.
    pub after_sent: u64,
    /// And then so much later.
    pub delay: Duration,
    /// How it goes down.
    pub kind: Kind,
    /// How long it is down.
    pub down: Duration,
    /// Shards of the next start.
    pub shards: u16,
    /// It goes down again so long into that start, once or more often.
    pub ends_at_start: Vec<(Duration, Sudden)>,
    /// Before it goes down, the network between client and broker is silent for so long.
    pub silence: Duration,
    /// Before it goes down, this is wrong with its disk.
    pub trouble: Trouble,
    /// Once it serves again, one more reader begins with the earliest record.
    pub reads_again: bool,
}

/// How the broker goes down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Without warning.
    Sudden(Sudden),
    /// As an operator stops it.
    Stop,
    /// Without warning, while it stops.
    WhileStopping(Sudden),
    /// Not at all: it has to get over its trouble.
    StaysUp,
}

/// How everything that runs ends at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sudden {
    /// The machine loses power, and with it what was not flushed.
    PowerCut,
    /// The process is killed; what was not flushed may be lost by a later power cut.
    Kill,
}

impl Plan {
    /// The command that repeats its run.
    pub fn command(&self) -> String {
        let damage = if self.mode == Mode::Lying { " --damage" } else { "" };
        format!("scripts/sim{damage} --seed {}", self.seed)
    }

    /// The plan of a seed.
    pub fn draw(seed: u64, mode: Mode) -> Plan {
        let mut rng = Rng::with_seed(seed ^ 0x5157_ca7e_0f00_d1e5);
        let rng = &mut rng;
        let load = LoadPlan { topic: TopicPlan::draw(seed), ..draw_load(rng) };
        let world = draw_world(rng);
        let records: u64 = load.producers.iter().map(|producer| u64::from(producer.records)).sum();
        let broker = draw_broker(rng);
        let inclination = Inclination::draw(rng, mode, broker.drives());
        let shards = rng.u16(1..=4);
        let mut last_shards = shards;
        let mut cuts = vec![];
        for _ in 0..rng.usize(1..=4) {
            cuts.push(rng.u64(1..records));
        }
        cuts.sort_unstable();
        let disruptions: Vec<Disruption> = cuts
            .into_iter()
            .map(|after_sent| {
                last_shards = other_shards(rng, last_shards);
                draw_disruption(rng, after_sent, last_shards, &world, &inclination)
            })
            .collect();
        Plan {
            seed,
            mode,
            world,
            broker,
            load,
            shards,
            disruptions,
            last_shards: other_shards(rng, last_shards),
        }
    }
}

impl BrokerPlan {
    /// Where its data directories lie.
    pub fn drives(&self) -> Vec<PathBuf> {
        (0..self.data_dirs).map(|dir| format!("/data-{dir}").into()).collect()
    }

    /// The settings as a broker takes them.
    pub fn config(&self, shards: u16) -> Config {
        let mut config = Config::default();
        config.node.data_dirs = self.drives();
        config.shards.count = shards;
        config.memory.per_shard_bytes = ByteSize::mib(64);
        config.log.window_bytes_max = ByteSize(self.window_bytes_max);
        config.log.checkpoint_interval_ms = self.checkpoint_interval_ms;
        config.log.checkpoint_bytes = ByteSize(self.checkpoint_bytes);
        config
    }
}

/// Another number of shards, one time in four the same.
fn other_shards(rng: &mut Rng, shards: u16) -> u16 {
    if rng.u8(..4) == 0 { shards } else { (shards + rng.u16(0..3)) % 4 + 1 }
}

fn draw_disruption(
    rng: &mut Rng,
    after_sent: u64,
    shards: u16,
    world: &WorldConfig,
    inclination: &Inclination,
) -> Disruption {
    // A request takes about so long to reach the disk, and to be flushed there.
    let (way, flush) = (world.network.delay.common.end, world.disk.flush.common.end);
    let request_us = u64::try_from((way + flush).as_micros()).unwrap_or(u64::MAX);
    let sudden = |rng: &mut Rng| {
        if rng.f64() < inclination.kills { Sudden::Kill } else { Sudden::PowerCut }
    };
    let trouble = inclination.trouble(rng);
    let kind = match rng.u8(..10) {
        0 => Kind::Stop,
        1 => Kind::WhileStopping(sudden(rng)),
        2 if !trouble.fails_operations() => Kind::StaysUp,
        _ => Kind::Sudden(sudden(rng)),
    };
    let mut ends_at_start = vec![];
    // What a start found in memory of the kernel after a kill, a cut soon afterwards takes away unless it was flushed.
    let cut_follows = matches!(kind, Kind::Sudden(Sudden::Kill)) && rng.bool();
    if cut_follows {
        ends_at_start.push((micros(rng, 0..200_000), Sudden::PowerCut));
    }
    while rng.u8(..4) == 0 {
        let micros_max = pick(rng, &[2_000, 20_000, 200_000]);
        ends_at_start.push((micros(rng, 0..micros_max), sudden(rng)));
    }
    Disruption {
        after_sent,
        delay: match rng.u8(..8) {
            0 => Duration::ZERO,
            1..5 => micros(rng, 0..2 * request_us),
            5..7 => micros(rng, 0..200_000),
            _ => micros(rng, 0..15_000_000),
        },
        kind,
        down: match rng.u8(..4) {
            0 => Duration::ZERO,
            1..3 => micros(rng, 0..100_000),
            _ => micros(rng, 0..20_000_000),
        },
        shards,
        ends_at_start,
        trouble,
        reads_again: rng.bool(),
        silence: if rng.u8(..5) == 0 { micros(rng, 1_000..3_000_000) } else { Duration::ZERO },
    }
}

fn draw_load(rng: &mut Rng) -> LoadPlan {
    let partitions = rng.u32(1..=6);
    let producers: Vec<ProducerPlan> = (0..rng.u32(1..=4)).map(|_| draw_producer(rng)).collect();
    let records: u64 = producers.iter().map(|producer| u64::from(producer.records)).sum();
    let pauses = (0..rng.u32(0..=2)).map(|_| (rng.u64(1..records), micros(rng, 1_000_000..25_000_000)));
    let mut pauses: Vec<_> = pauses.collect();
    pauses.sort_unstable();
    LoadPlan {
        topic: TopicPlan::default(),
        partitions,
        partitions_later: partitions + pick(rng, &[0, 0, 1, 3]),
        producers,
        early_readers: rng.u32(0..=2),
        tail_readers: rng.u32(0..=2),
        keys: pick(rng, &[1, 3, 20, 200]),
        pauses,
        request_timeout: micros(rng, 1_000_000..15_000_000),
    }
}

fn draw_producer(rng: &mut Rng) -> ProducerPlan {
    let large = rng.u8(..3) == 0;
    ProducerPlan {
        records: if large { rng.u32(100..300) } else { rng.u32(200..1_200) },
        unacked_max: pick(rng, &[1, 16, 100, 500]),
        filler: if large { 4_000..40_000 } else { 0..pick(rng, &[1, 100, 1_000, 6_000]) },
        filler_seldom: 0..pick(rng, &[1, 20_000, 200_000]),
        gap: Duration::ZERO..Duration::from_micros(pick(rng, &[1, 200, 2_000, 20_000])),
        batch_bytes: pick(rng, &[1_000, 16_000, 128_000]),
        linger: Duration::from_micros(pick(rng, &[0, 0, 500, 5_000])),
        compression: pick(rng, &[Compression::None, Compression::None, Compression::Lz4, Compression::Zstd]),
        durability: pick(rng, &[Durability::IsrFlushed, Durability::LeaderFlushed, Durability::Received]),
    }
}

fn draw_broker(rng: &mut Rng) -> BrokerPlan {
    BrokerPlan {
        data_dirs: rng.u8(1..=2),
        window_bytes_max: pick(rng, &[16 << 10, 64 << 10, 256 << 10, 1 << 20]),
        checkpoint_interval_ms: pick(rng, &[5, 20, 80, 1_000]),
        checkpoint_bytes: pick(rng, &[16 << 10, 256 << 10, 4 << 20, 256 << 20]),
        segment_bytes: 1 << 20,
    }
}

fn draw_world(rng: &mut Rng) -> WorldConfig {
    let network_us = pick(rng, &[50, 500, 5_000]);
    let disk_us = pick(rng, &[20, 200, 4_000]);
    WorldConfig {
        network: NetworkConfig {
            delay: delay(rng, network_us),
            loopback_delay: Delay::within(Duration::from_micros(5)..Duration::from_micros(50)),
            split_chance: pick(rng, &[0.0, 0.25, 0.6]),
            reset_chance: pick(rng, &[0.0, 0.0, 0.002, 0.02]),
            buffer_bytes: pick(rng, &[4 << 10, 64 << 10, 256 << 10]),
            connect_retries: 6,
        },
        disk: DiskConfig {
            read: delay(rng, disk_us),
            write: delay(rng, disk_us),
            flush: delay(rng, disk_us * 2),
            metadata: delay(rng, disk_us / 2),
            nanos_per_kib: pick(rng, &[0, 400, 20_000]),
            faults: vec![],
        },
        crash: CrashConfig { keep_chance: None, tear_chance: pick(rng, &[0.0, 0.3, 0.8]) },
        timer_late: Duration::ZERO..Duration::from_micros(pick(rng, &[1, 50, 5_000])),
        ..WorldConfig::default()
    }
}

/// From a quarter of `micros` to four times as much, with stalls of some milliseconds at a drawn rate.
fn delay(rng: &mut Rng, micros: u64) -> Delay {
    Delay {
        common: Duration::from_micros(micros / 4)..Duration::from_micros(micros * 4),
        stall_chance: pick(rng, &[0.0, 0.002, 0.05]),
        stall: Duration::from_millis(1)..Duration::from_millis(200),
    }
}

fn micros(rng: &mut Rng, range: Range<u64>) -> Duration {
    Duration::from_micros(rng.u64(range))
}

fn pick<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())]
}
