//! What is measured, whichever protocol it speaks: a topic that is written to and read.

use anyhow::{Context, Result};
use bytes::Bytes;
use corrente_client::{Client, Consumer, Durability, ErrorKind, NewTopic, Offset, StageTimes, StartOffset};

use crate::kafka;
use crate::plan::{Begin, Plan, Protocol};
use crate::verify::Digest;

/// A worker's own connections to the topic of a plan.
#[derive(Debug)]
pub enum Broker {
    /// Through the SDK, like any user.
    Native {
        /// Its client.
        client: Client,
        /// The topic, and what is known of it.
        topic: String,
        partitions: u32,
        created: bool,
    },
    /// In Kafka's protocol.
    Kafka(kafka::Client),
}

/// A batch that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// From which partition.
    pub partition: u32,
    /// The offset of its first record.
    pub base_offset: u64,
    /// One past the offset of its last record.
    pub end_offset: u64,
    /// Records in it.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// What they hold, where the reader was to take it.
    pub digest: Option<u64>,
}

impl Broker {
    /// Connects, and creates the topic if it is missing.
    pub async fn connect(plan: &Plan) -> Result<Broker> {
        match plan.protocol {
            Protocol::Native => Broker::native(plan).await,
            Protocol::Kafka => {
                let client = kafka::Client::connect(&plan.brokers, &plan.topic, plan.partitions).await?;
                Ok(Broker::Kafka(client))
            }
        }
    }

    async fn native(plan: &Plan) -> Result<Broker> {
        let builder = Client::builder(plan.brokers.iter().cloned()).client_id("corrente-bench");
        let client = builder.connect().await?;
        let admin = client.admin();
        let created = match admin.create_topic(NewTopic::new(&plan.topic, plan.partitions)).await {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::TopicAlreadyExists => false,
            Err(error) => return Err(error.into()),
        };
        let description = admin.describe_topic(&plan.topic).await?;
        let partitions = u32::try_from(description.partitions.len())?;
        Ok(Broker::Native { client, topic: plan.topic.clone(), partitions, created })
    }

    /// Partitions the topic has, whatever the plan asked for.
    pub fn partitions(&self) -> u32 {
        match self {
            Broker::Native { partitions, .. } => *partitions,
            Broker::Kafka(client) => client.partitions(),
        }
    }

    /// Whether the topic was missing.
    pub fn created(&self) -> bool {
        match self {
            Broker::Native { created, .. } => *created,
            Broker::Kafka(client) => client.created(),
        }
    }

    /// Appends one record batch; its offsets, of which the end is exclusive.
    pub async fn produce(&self, partition: u32, batch: Bytes, durability: Durability) -> Result<(u64, u64)> {
        match self {
            Broker::Native { client, topic, .. } => {
                let produced = client.produce_raw(topic, partition, batch, durability).await?;
                Ok((produced.base_offset.0, produced.end_offset.0))
            }
            Broker::Kafka(client) => client.produce(partition, batch, durability).await,
        }
    }

    /// The same, and where the broker says its time went.
    pub async fn produce_timed(
        &self,
        partition: u32,
        batch: Bytes,
        durability: Durability,
    ) -> Result<((u64, u64), StageTimes)> {
        let Broker::Native { client, topic, .. } = self else {
            anyhow::bail!("Kafka's protocol has no word for where a broker's time went");
        };
        let produced = client.produce_raw_timed(topic, partition, batch, durability).await?;
        let times = produced.stage_times.context("the broker does not say where its time went")?;
        Ok(((produced.base_offset.0, produced.end_offset.0), times))
    }

    /// Begins to read all partitions; with `until_end`, up to where they end now.
    pub async fn read(self, from: Begin, until_end: bool) -> Result<Reader> {
        match self {
            Broker::Native { client, topic, .. } => {
                let from = match from {
                    Begin::Earliest => StartOffset::Earliest,
                    Begin::Latest => StartOffset::Latest,
                };
                let builder = client.consumer().topic(&topic).from(from);
                let builder = if until_end { builder.until_end() } else { builder };
                Ok(Reader::Native { consumer: builder.build().await?, digests: false })
            }
            Broker::Kafka(client) => Ok(Reader::Kafka(kafka::Reader::start(client, from, until_end).await?)),
        }
    }

    /// Begins to read one partition, from an offset to where it ends now, and takes digests.
    pub async fn read_back(self, partition: u32, from: u64) -> Result<Reader> {
        match self {
            Broker::Native { client, topic, .. } => {
                let builder = client.consumer().topic(&topic).partitions([partition]);
                let consumer = builder.from(StartOffset::At(Offset(from))).until_end().build().await?;
                Ok(Reader::Native { consumer, digests: true })
            }
            Broker::Kafka(client) => {
                Ok(Reader::Kafka(kafka::Reader::read_back(client, partition, from).await?))
            }
        }
    }
}

/// Reads a topic.
#[derive(Debug)]
pub enum Reader {
    /// Through the SDK.
    Native {
        /// Its consumer.
        consumer: Consumer,
        /// Whether arrivals carry a digest.
        digests: bool,
    },
    /// In Kafka's protocol.
    Kafka(kafka::Reader),
}

impl Reader {
    /// The next batch of any partition; nothing once all ends are reached. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Arrival>> {
        match self {
            Reader::Native { consumer, digests } => {
                let batch = consumer.next_batch().await?;
                Ok(batch.map(|batch| arrival(&batch, *digests)))
            }
            Reader::Kafka(reader) => reader.next().await,
        }
    }
}

fn arrival(batch: &corrente_client::Batch, digests: bool) -> Arrival {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len) as u64;
    let records = &batch.records;
    Arrival {
        partition: batch.partition,
        base_offset: records[0].offset.0,
        end_offset: records[records.len() - 1].offset.0 + 1,
        records: records.len() as u64,
        bytes: records.iter().map(|record| length(&record.key) + length(&record.value)).sum(),
        digest: digests.then(|| Digest::of(records)),
    }
}
