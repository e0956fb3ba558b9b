//! What a run is asked to do. A plan is written into its report, so that a figure carries its conditions.

use std::time::Duration;

use anyhow::{Result, ensure};
use corrente_client::Durability;
use serde::Serialize;

/// A run, complete: nothing outside it changes what is sent or read.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// Bootstrap addresses, `HOST:PORT`.
    pub brokers: Vec<String>,
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
}

/// The two kinds of run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Sends record batches and waits for their acknowledgements.
    Produce(ProducePlan),
    /// Reads records back.
    Consume(ConsumePlan),
}

/// How batches are sent.
#[derive(Debug, Clone, Serialize)]
pub struct ProducePlan {
    /// When batches are sent.
    pub pace: Pace,
    /// When the measured part ends.
    pub extent: Extent,
    /// Time at the start that is left out of the figures.
    #[serde(rename = "warmup_s", serialize_with = "as_seconds")]
    pub warmup: Duration,
    /// The shape of records and batches.
    pub shape: Shape,
    /// Batches in flight at most, over all connections; at least `connections`.
    pub in_flight_max: usize,
    /// Clients, each with connections of its own; at least 1.
    pub connections: usize,
    /// What an acknowledgement promises.
    #[serde(serialize_with = "as_text")]
    pub durability: Durability,
}

/// When batches are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pace {
    /// On a schedule that does not wait for answers.
    OpenLoop {
        /// Records per second; at least 1.
        records_per_s: u64,
    },
    /// As fast as answers make room. Its latencies do not compare with an open loop's.
    ClosedLoop,
}

/// How long the measured part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Extent {
    /// So many records, rounded up to whole batches.
    Records(u64),
    /// So long.
    #[serde(rename = "duration_s", serialize_with = "as_seconds")]
    Duration(Duration),
}

/// What the records look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// Bytes of each value.
    pub record_size: usize,
    /// Bytes of each key; 0 is the null key.
    pub key_size: usize,
    /// Records in each record batch; at least 1.
    pub batch_records: u32,
    /// The seed of all payload bytes.
    pub seed: u64,
}

/// How records are read.
#[derive(Debug, Clone, Serialize)]
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

/// Where a consumer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Begin {
    /// The log start offset.
    Earliest,
    /// The log end offset: only what arrives during the run.
    Latest,
}

/// Records put into a new topic before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
        ensure!(self.partitions >= 1, "a topic needs at least 1 partition, not 0");
        match &self.work {
            Work::Produce(produce) => produce.check(),
            Work::Consume(consume) => consume.check(),
        }
    }

    /// Threads of the generator: one for each named CPU, one if none is named.
    pub fn threads(&self) -> usize {
        self.cpus.len().max(1)
    }

    /// Whether the schedule waits for the broker, in the words of the report.
    pub fn mode(&self) -> &'static str {
        let pace = match &self.work {
            Work::Produce(produce) => produce.pace,
            Work::Consume(consume) => consume.feed.as_ref().map_or(Pace::ClosedLoop, |feed| feed.pace),
        };
        match pace {
            Pace::OpenLoop { .. } => "open-loop",
            Pace::ClosedLoop => "closed-loop",
        }
    }
}

impl ProducePlan {
    fn check(&self) -> Result<()> {
        if let Pace::OpenLoop { records_per_s } = self.pace {
            ensure!(records_per_s >= 1, "a rate is at least 1 record per second");
        }
        ensure!(self.connections >= 1, "a run needs at least 1 connection");
        ensure!(
            self.in_flight_max >= self.connections,
            "{} batches in flight are fewer than {} connections",
            self.in_flight_max,
            self.connections
        );
        self.extent.check()?;
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

impl Extent {
    fn check(&self) -> Result<()> {
        match self {
            Extent::Records(0) => anyhow::bail!("a run of 0 records measures nothing"),
            Extent::Duration(Duration::ZERO) => anyhow::bail!("a run of 0 seconds measures nothing"),
            Extent::Records(_) | Extent::Duration(_) => Ok(()),
        }
    }
}

impl Shape {
    fn check(&self) -> Result<()> {
        ensure!(self.batch_records >= 1, "a batch holds at least 1 record");
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

fn as_text<S: serde::Serializer>(value: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn as_seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn produce_plan() -> Plan {
        Plan {
            brokers: vec!["127.0.0.1:7400".to_owned()],
            topic: "bench".to_owned(),
            partitions: 4,
            work: Work::Produce(ProducePlan {
                pace: Pace::OpenLoop { records_per_s: 1_000 },
                extent: Extent::Records(10_001),
                warmup: Duration::from_secs(1),
                shape: Shape { record_size: 1_024, key_size: 16, batch_records: 10, seed: 7 },
                in_flight_max: 64,
                connections: 2,
                durability: Durability::IsrFlushed,
            }),
            cpus: vec![],
            broker_pid: None,
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
        assert_eq!(json["work"]["produce"]["pace"]["open-loop"]["records_per_s"], 1_000);
        assert_eq!(json["work"]["produce"]["extent"]["records"], 10_001);
        assert_eq!(json["work"]["produce"]["warmup_s"], 1.0);
    }
}
