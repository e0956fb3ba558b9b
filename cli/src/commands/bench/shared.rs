//! What every kind of run understands.

use std::time::Duration;

use clap::Args;
use corrente_client::{Compression, Durability};
use corrente_loadgen::plan::{
    Arrivals, Extent, Keys, Pace, Plan, ProducePlan, Protocol, Rate, Shape, Skew, Work,
};

use super::results::Results;
use super::target::Target;
use crate::args::Global;
use crate::units::{CpuList, parse_bytes, parse_count, parse_cpus, parse_duration, parse_share};

/// A run: on what, with what, for how long.
#[derive(Debug, Args)]
pub struct Run {
    /// What --brokers speak: Corrente's own protocol, or Kafka's, whichever broker that is.
    #[arg(long, value_name = "native|kafka", value_parser = parse_protocol, default_value = "native")]
    protocol: Protocol,
    /// Measure so many records.
    #[arg(long, value_name = "N", value_parser = parse_count, conflicts_with = "duration")]
    pub records: Option<u64>,
    /// Measure so long, for example 30s. Default: 10s
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Bytes of each value.
    #[arg(long, value_name = "B", value_parser = parse_bytes, default_value = "1024")]
    record_size: usize,
    /// Bytes of each key; 0 is the null key.
    #[arg(long, value_name = "B", value_parser = parse_bytes, default_value = "0")]
    key_size: usize,
    /// Records in each record batch.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    batch_records: u32,
    /// Draw keys from so many, which then choose the partitions; --key-size has to be 8 at least. Default: every key
    /// is another one, and partitions take turns
    #[arg(long, value_name = "N", value_parser = parse_count)]
    keys: Option<u64>,
    /// How unequally keys are used: all alike, or the n-th as often as 1 / n to the power of S.
    #[arg(
        long,
        value_name = "uniform|zipf:S",
        value_parser = parse_skew,
        default_value = "uniform",
        requires = "keys"
    )]
    key_skew: Skew,
    /// Which part of each value a codec can do away with: it is zeros, the rest is random.
    #[arg(long, value_name = "SHARE", value_parser = parse_share, default_value = "0%")]
    compressible: f64,
    /// Compress batches.
    #[arg(
        long,
        value_name = "none|gzip|snappy|lz4|zstd",
        value_parser = str::parse::<Compression>,
        default_value = "none"
    )]
    compression: Compression,
    /// The topic; created if it is missing. Default: a new one named bench- and a random number
    #[arg(long, value_name = "T")]
    topic: Option<String>,
    /// Partitions of a topic that is created.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
    /// Keep the generator on these CPUs, with a thread for each that spins to be on time. Default: one thread,
    /// anywhere, that sleeps
    #[arg(long, value_name = "LIST", value_parser = parse_cpus, default_value = None)]
    cpus: Option<CpuList>,
    /// The broker's process, where the owner of its port is not to be looked up.
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,
    /// The seed of the payload and of random arrivals.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How much of the latency may be the generator's own lateness, both at p99.9, before the run is invalid: it then
    /// ends with exit code 3.
    #[arg(long, value_name = "SHARE", value_parser = parse_share, default_value = "5%")]
    slip_max: f64,
    #[command(flatten)]
    pub target: Target,
    #[command(flatten)]
    pub results: Results,
}

/// How records are sent.
#[derive(Debug, Args)]
pub struct Sending {
    /// Records per second, sent on time whether or not the broker keeps up; A..B changes from A to B while it is
    /// measured. Default: 10000
    #[arg(long, value_name = "R|A..B", value_parser = parse_rate)]
    pub rate: Option<Rate>,
    /// How batches are spread at that rate: at equal distances, at random as those of many independent senders, or N at
    /// once.
    #[arg(long, value_name = "constant|poisson|burst:N", value_parser = parse_arrivals, default_value = "constant")]
    pub arrivals: Arrivals,
    /// Clients, each with connections of its own.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub connections: usize,
    /// Leave so long at the start out of the figures.
    #[arg(long, value_name = "D", value_parser = parse_duration, default_value = "1s")]
    pub warmup: Duration,
    /// What an acknowledgement promises: received, leader_flushed, replicated or isr_flushed.
    #[arg(long, value_name = "LEVEL", value_parser = str::parse::<Durability>, default_value = "isr_flushed")]
    pub durability: Durability,
    /// Read back what was acknowledged once the run is over: a batch that is lost, duplicated, out of order or altered
    /// ends it with exit code 1.
    #[arg(long)]
    pub verify: bool,
}

/// How much is sent if nothing is said.
const DEFAULT_RATE: Rate = Rate::Constant(10_000);
/// How long a run is if nothing is said.
const DEFAULT_DURATION: Duration = Duration::from_secs(10);
/// Batches an open loop may have in flight: far above any healthy depth, yet bounded.
const OPEN_LOOP_IN_FLIGHT: usize = 4096;

impl Run {
    pub fn plan(&self, global: &Global, work: Work) -> Plan {
        let topic = self.topic.clone().unwrap_or_else(|| {
            let name = format!("bench-{:08x}", fastrand::u32(..));
            eprintln!("topic {name}");
            name
        });
        Plan {
            brokers: global.brokers_or_default(),
            protocol: self.protocol,
            topic,
            partitions: self.partitions,
            work,
            cpus: self.cpus.clone().unwrap_or_default().0,
            broker_pid: self.broker_pid,
            broker_config: None,
            slip_share_max: self.slip_max,
        }
    }

    /// Where it ends, if that was said.
    pub fn extent(&self) -> Option<Extent> {
        self.records.map(Extent::Records).or(self.duration.map(Extent::Duration))
    }

    pub fn shape(&self) -> Shape {
        Shape {
            record_size: self.record_size,
            key_size: self.key_size,
            batch_records: self.batch_records,
            keys: self.keys.map(|count| Keys { count, skew: self.key_skew }),
            compressible: self.compressible,
            compression: self.compression,
            seed: self.seed,
        }
    }
}

impl Sending {
    /// On a schedule, with room for as many batches in flight as a schedule may need.
    pub fn open_loop(&self, run: &Run) -> ProducePlan {
        ProducePlan {
            pace: Pace::OpenLoop { rate: self.rate.unwrap_or(DEFAULT_RATE), arrivals: self.arrivals },
            extent: run.extent().unwrap_or(Extent::Duration(DEFAULT_DURATION)),
            warmup: self.warmup,
            shape: run.shape(),
            replay: None,
            in_flight_max: OPEN_LOOP_IN_FLIGHT.max(self.connections),
            connections: self.connections,
            durability: self.durability,
            verify: self.verify,
            stages: false,
        }
    }
}

fn parse_rate(text: &str) -> Result<Rate, String> {
    match text.split_once("..") {
        Some((from, to)) => Ok(Rate::Ramp { from: parse_count(from)?, to: parse_count(to)? }),
        None => parse_count(text).map(Rate::Constant),
    }
}

fn parse_arrivals(text: &str) -> Result<Arrivals, String> {
    match (text, text.strip_prefix("burst:")) {
        ("constant", _) => Ok(Arrivals::Constant),
        ("poisson", _) => Ok(Arrivals::Poisson),
        (_, Some(batches)) => parse_count(batches).map(Arrivals::Burst),
        _ => Err("use constant, poisson or burst:N".to_owned()),
    }
}

fn parse_protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "native" => Ok(Protocol::Native),
        "kafka" => Ok(Protocol::Kafka),
        _ => Err("use native or kafka".to_owned()),
    }
}

fn parse_skew(text: &str) -> Result<Skew, String> {
    let exponent = text.strip_prefix("zipf:").and_then(|exponent| exponent.parse().ok());
    match (text, exponent) {
        ("uniform", _) => Ok(Skew::Uniform),
        (_, Some(exponent)) => Ok(Skew::Zipf(exponent)),
        _ => Err("use uniform or zipf:S, for example zipf:1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_arrivals() {
        assert_eq!(parse_rate("10k"), Ok(Rate::Constant(10_000)));
        assert_eq!(parse_rate("1k..2.5M"), Ok(Rate::Ramp { from: 1_000, to: 2_500_000 }));
        assert!(parse_rate("1..").is_err());
        assert_eq!(parse_arrivals("burst:100"), Ok(Arrivals::Burst(100)));
        assert!(parse_arrivals("burst").unwrap_err().contains("burst:N"));
    }
}
