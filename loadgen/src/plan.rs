//! What a run is asked to do. A plan is written into its report, so that a figure carries its conditions.

use std::time::Duration;

use anyhow::{Result, ensure};
use corrente_client::{Compression, Durability};
use serde::{Deserialize, Serialize};

use crate::profile::Profile;
pub use crate::schedule::{Arrivals, Rate};

/// A run, complete: nothing outside it changes what is sent or read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Bootstrap addresses, `HOST:PORT`.
    pub brokers: Vec<String>,
    /// What they are spoken to in.
    pub protocol: Protocol,
    /// The topic; created if it is missing.
    pub topic: String,
    /// Partitions of the topic if it has to be created; at least 1.
    pub partitions: u32,
    /// What is done to it.
    pub work: Work,
    /// CPUs the generator's threads are kept on, one thread for each; empty: one thread, anywhere.
    pub cpus: Vec<usize>,
    /// The broker's process on this machine, where the owner of its port is not to be looked up.
    pub broker_pid: Option<u32>,
    /// How the broker says that it is configured, if it was asked; the run is the same whatever stands here.
    #[serde(default)]
    pub broker_config: Option<serde_json::Value>,
    /// The most that the generator's own lateness may be of the latency, both at their 99.9th percentile, in a run that
    /// is believed; from 0 to 1.
    pub slip_share_max: f64,
}

/// The protocol of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Corrente's own, through the SDK.
    Native,
    /// Kafka's, without a client library in between.
    Kafka,
}

/// The kinds of run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Sends record batches and waits for their acknowledgements.
    Produce(ProducePlan),
    /// Reads records back.
    Consume(ConsumePlan),
    /// Sends while consumers read everything from the start.
    Mixed(MixedPlan),
}

/// How batches are sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProducePlan {
    /// When batches are sent.
    pub pace: Pace,
    /// When the measured part ends.
    pub extent: Extent,
    /// Time at the start that is left out of the figures.
    #[serde(rename = "warmup_s", with = "seconds")]
    pub warmup: Duration,
    /// The shape of records and batches.
    pub shape: Shape,
    /// What records and batches are like instead, and how the rate changes while it is measured; of the shape the
    /// compressible part and the seed remain.
    #[serde(default)]
    pub replay: Option<Profile>,
    /// Batches in flight at most, over all connections; at least `connections`.
    pub in_flight_max: usize,
    /// Clients, each with connections of its own; at least 1.
    pub connections: usize,
    /// What an acknowledgement promises.
    #[serde(with = "text")]
    pub durability: Durability,
    /// Whether what was acknowledged is read back after the run.
    #[serde(default)]
    pub verify: bool,
    /// Whether the broker is asked where the time of each batch went.
    #[serde(default)]
    pub stages: bool,
}

/// When batches are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pace {
    /// On a schedule that does not wait for answers.
    OpenLoop {
        /// Records per second.
        rate: Rate,
        /// How the batches are spread.
        arrivals: Arrivals,
    },
    /// As fast as answers make room. Its latencies do not compare with an open loop's.
    ClosedLoop,
}

/// How long the measured part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Extent {
    /// So many records, rounded up to whole batches.
    Records(u64),
    /// So long.
    #[serde(rename = "duration_s", with = "seconds")]
    Duration(Duration),
}

/// What the records look like.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// Bytes of each value.
    pub record_size: usize,
    /// Bytes of each key; 0 is the null key.
    pub key_size: usize,
    /// Records in each record batch; at least 1.
    pub batch_records: u32,
    /// The keys there are, which then choose the partitions. Without, every key is another one, and partitions take
    /// turns.
    pub keys: Option<Keys>,
    /// Which part of each value a codec can do away with; from 0 to 1.
    pub compressible: f64,
    /// How batches are compressed.
    #[serde(with = "text")]
    pub compression: Compression,
    /// The seed of all payload bytes.
    pub seed: u64,
}

/// The keys that records have.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Keys {
    /// How many; at least 1.
    pub count: u64,
    /// How often each is used.
    pub skew: Skew,
}

/// How unequally keys are used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Skew {
    /// All alike.
    Uniform,
    /// The n-th as often as 1 / n to this power; above 0.
    Zipf(f64),
}

/// How records are read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConsumePlan {
    /// Where reading begins.
    pub from: Begin,
    /// When it ends; `None`: at the end the log has when the run begins.
    pub extent: Option<Extent>,
    /// Independent consumers, each reading everything; at least 1.
    pub consumers: usize,
    /// If the topic had to be created: the records to fill it with first, unmeasured.
    pub fill: Option<Fill>,
    /// Records the run itself sends meanwhile, on a schedule: latency is then measured from end to end, and this plan
    /// says when the run ends.
    pub feed: Option<ProducePlan>,
}

/// How batches are sent while the topic is read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MixedPlan {
    /// What is sent, on a schedule; it says when the run ends.
    pub feed: ProducePlan,
    /// Independent consumers, each reading everything again and again; at least 1.
    pub consumers: usize,
    /// If the topic had to be created: the records to fill it with first, unmeasured.
    pub fill: Fill,
}

/// Where a consumer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Begin {
    /// The log start offset.
    Earliest,
    /// The log end offset: only what arrives during the run.
    Latest,
}

/// Records put into a new topic before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Fill {
    /// How many, rounded up to whole batches.
    pub records: u64,
    /// Their shape.
    pub shape: Shape,
}

impl Plan {
    /// Refuses a plan that could not mean anything.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.brokers.is_empty(), "no broker address is given");
        ensure!(
            (0.0..=1.0).contains(&self.slip_share_max),
            "a share of slip is between 0 and 100 %, not {} %",
            self.slip_share_max * 100.0
        );
        ensure!(self.partitions >= 1, "a topic needs at least 1 partition, not 0");
        match &self.work {
            Work::Produce(produce) => {
                ensure!(
                    !produce.stages || self.protocol == Protocol::Native,
                    "Kafka's protocol has no word for where a broker's time went: leave out --stages"
                );
                produce.check()
            }
            Work::Consume(consume) => consume.check(),
            Work::Mixed(mixed) => mixed.check(),
        }
    }

    /// Threads of the generator: one for each named CPU, one if none is named.
    pub fn threads(&self) -> usize {
        self.cpus.len().max(1)
    }

    /// Whether a worker may use a whole CPU to be on time: it takes it from nobody if it was given to the generator.
    pub fn exact(&self) -> bool {
        !self.cpus.is_empty()
    }

    /// What is measured.
    pub fn operation(&self) -> Operation {
        match &self.work {
            Work::Produce(_) => Operation::Produce,
            Work::Consume(_) => Operation::Consume,
            Work::Mixed(_) => Operation::Mixed,
        }
    }

    /// Whether the schedule waits for the broker.
    pub fn mode(&self) -> Mode {
        match self.sending().map(|sending| sending.pace) {
            Some(Pace::OpenLoop { .. }) => Mode::OpenLoop,
            Some(Pace::ClosedLoop) | None => Mode::ClosedLoop,
        }
    }

    /// What is sent in the measured part, if anything is.
    pub fn sending(&self) -> Option<&ProducePlan> {
        match &self.work {
            Work::Produce(produce) => Some(produce),
            Work::Consume(consume) => consume.feed.as_ref(),
            Work::Mixed(mixed) => Some(&mixed.feed),
        }
    }
}

/// What a run measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// The way to the acknowledgement.
    Produce,
    /// Reading, or the way from end to end.
    Consume,
    /// The way to the acknowledgement while others read.
    Mixed,
}

/// Whether sending waits for answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It keeps a schedule.
    OpenLoop,
    /// It goes on when an answer makes room.
    ClosedLoop,
}

impl Operation {
    /// As reports spell it.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Produce => "produce",
            Operation::Consume => "consume",
            Operation::Mixed => "mixed",
        }
    }
}

impl Mode {
    /// As reports spell it.
    pub fn name(self) -> &'static str {
        match self {
            Mode::OpenLoop => "open-loop",
            Mode::ClosedLoop => "closed-loop",
        }
    }
}

impl ProducePlan {
    fn check(&self) -> Result<()> {
        if let Pace::OpenLoop { rate, arrivals } = self.pace {
            let (least, ramps) = match rate {
                Rate::Constant(rate) => (rate, false),
                Rate::Ramp { from, to } => (from.min(to), true),
            };
            ensure!(least >= 1, "a rate is at least 1 record per second");
            ensure!(
                !ramps || matches!(self.extent, Extent::Duration(_)),
                "a rate that changes needs a duration, not a number of records"
            );
            ensure!(arrivals != Arrivals::Burst(0), "a burst is at least 1 batch");
        }
        ensure!(self.connections >= 1, "a run needs at least 1 connection");
        ensure!(
            self.in_flight_max >= self.connections,
            "{} batches in flight are fewer than {} connections",
            self.in_flight_max,
            self.connections
        );
        self.extent.check()?;
        if let Some(profile) = &self.replay {
            profile.check()?;
            ensure!(
                !matches!(self.pace, Pace::OpenLoop { rate: Rate::Ramp { .. }, .. }),
                "a replayed rate changes as it was recorded: give its mean"
            );
        }
        self.shape.check()
    }
}

impl ConsumePlan {
    fn check(&self) -> Result<()> {
        ensure!(self.consumers >= 1, "a run needs at least 1 consumer");
        if let Some(extent) = &self.extent {
            extent.check()?;
        }
        ensure!(
            self.extent.is_some() || self.feed.is_some() || self.from == Begin::Earliest,
            "reading from the latest offset needs a number of records or a duration"
        );
        if let Some(feed) = &self.feed {
            feed.check()?;
            ensure!(feed.pace != Pace::ClosedLoop, "latency from end to end needs a rate");
        }
        match &self.fill {
            Some(fill) => fill.shape.check(),
            None => Ok(()),
        }
    }
}

impl MixedPlan {
    fn check(&self) -> Result<()> {
        ensure!(self.consumers >= 1, "a run needs at least 1 consumer");
        ensure!(self.feed.pace != Pace::ClosedLoop, "sending beside readers needs a rate");
        self.feed.check()?;
        self.fill.shape.check()
    }
}

impl Extent {
    fn check(&self) -> Result<()> {
        match self {
            Extent::Records(0) => anyhow::bail!("a run of 0 records measures nothing"),
            Extent::Duration(Duration::ZERO) => anyhow::bail!("a run of 0 seconds measures nothing"),
            Extent::Records(_) | Extent::Duration(_) => Ok(()),
        }
    }
}

/// Keys of a population are numbers of so many bytes, with zeros in front.
const KEY_BYTES_MIN: usize = 8;

impl Shape {
    fn check(&self) -> Result<()> {
        ensure!(self.batch_records >= 1, "a batch holds at least 1 record");
        ensure!(
            (0.0..=1.0).contains(&self.compressible),
            "the compressible part of a value is between 0 and 100 %, not {} %",
            self.compressible * 100.0
        );
        let Some(Keys { count, skew }) = self.keys else { return Ok(()) };
        ensure!(count >= 1, "a population has at least 1 key");
        ensure!(
            self.key_size >= KEY_BYTES_MIN,
            "keys of {} bytes are too short for numbers of {KEY_BYTES_MIN}",
            self.key_size
        );
        if let Skew::Zipf(exponent) = skew {
            ensure!(
                exponent > 0.0 && exponent.is_finite(),
                "the exponent of zipf is above 0, not {exponent}"
            );
        }
        Ok(())
    }

    /// Payload bytes of one batch: keys and values.
    pub fn batch_bytes(&self) -> u64 {
        let record = self.record_size as u64 + self.key_size as u64;
        record.saturating_mul(u64::from(self.batch_records))
    }

    /// Whole batches that hold at least `records`.
    pub fn batches_for(&self, records: u64) -> u64 {
        records.div_ceil(u64::from(self.batch_records))
    }
}

/// A durability level or a codec by its name.
mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A duration as a number of seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn produce_plan() -> Plan {
        Plan {
            brokers: vec!["127.0.0.1:7400".to_owned()],
            protocol: Protocol::Native,
            topic: "bench".to_owned(),
            partitions: 4,
            work: Work::Produce(ProducePlan {
                pace: Pace::OpenLoop { rate: Rate::Constant(1_000), arrivals: Arrivals::Constant },
                extent: Extent::Records(10_001),
                warmup: Duration::from_secs(1),
                shape: Shape {
                    record_size: 1_024,
                    key_size: 16,
                    batch_records: 10,
                    keys: None,
                    compressible: 0.0,
                    compression: Compression::None,
                    seed: 7,
                },
                replay: None,
                in_flight_max: 64,
                connections: 2,
                durability: Durability::IsrFlushed,
                verify: false,
                stages: false,
            }),
            cpus: vec![],
            broker_pid: None,
            broker_config: None,
            slip_share_max: 0.05,
        }
    }

    #[test]
    fn a_plan_says_what_is_wrong_with_it() {
        let mut plan = produce_plan();
        plan.check().unwrap();
        plan.partitions = 0;
        assert_eq!(plan.check().unwrap_err().to_string(), "a topic needs at least 1 partition, not 0");
        let mut plan = produce_plan();
        let Work::Produce(produce) = &mut plan.work else { unreachable!() };
        produce.in_flight_max = 1;
        assert_eq!(plan.check().unwrap_err().to_string(), "1 batches in flight are fewer than 2 connections");
        let mut plan = produce_plan();
        let Work::Produce(produce) = &mut plan.work else { unreachable!() };
        let rate = Rate::Ramp { from: 1, to: 2 };
        produce.pace = Pace::OpenLoop { rate, arrivals: Arrivals::Poisson };
        let refusal = plan.check().unwrap_err().to_string();
        assert_eq!(refusal, "a rate that changes needs a duration, not a number of records");
    }

    #[test]
    fn sending_beside_readers_has_a_schedule_and_readers() {
        let Work::Produce(mut feed) = produce_plan().work else { unreachable!() };
        let fill = Fill { records: 1, shape: feed.shape };
        let check = |feed: &ProducePlan, consumers| {
            let work = Work::Mixed(MixedPlan { feed: feed.clone(), consumers, fill });
            Plan { work, ..produce_plan() }.check().map_err(|refusal| refusal.to_string())
        };
        assert_eq!(check(&feed, 1), Ok(()));
        assert_eq!(check(&feed, 0).unwrap_err(), "a run needs at least 1 consumer");
        feed.pace = Pace::ClosedLoop;
        assert_eq!(check(&feed, 1).unwrap_err(), "sending beside readers needs a rate");
    }

    #[test]
    fn records_round_up_to_whole_batches() {
        let Work::Produce(produce) = produce_plan().work else { unreachable!() };
        assert_eq!(produce.shape.batches_for(10_001), 1_001);
        assert_eq!(produce.shape.batch_bytes(), 10_400);
    }

    #[test]
    fn a_plan_is_readable_in_json() {
        let json = serde_json::to_value(produce_plan()).unwrap();
        assert_eq!(json["work"]["produce"]["pace"]["open-loop"]["rate"]["constant"], 1_000);
        assert_eq!(json["work"]["produce"]["extent"]["records"], 10_001);
        assert_eq!(json["work"]["produce"]["warmup_s"], 1.0);
    }
}
