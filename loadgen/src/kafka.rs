//! A driver for any broker that speaks Kafka's protocol: the same prepared batches, sent and read without a client
//! library in between, so that two brokers are measured by one generator.
//!
//! Leaders are looked up once. One that moves during a run fails the run: this measures, it does not ride through.

mod connection;
mod reader;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use corrente_client::Durability;
use corrente_protocol::kafka::create_topics::{CreateTopicsRequest, CreateTopicsResponse, NewTopic};
use corrente_protocol::kafka::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic,
};
use corrente_protocol::kafka::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataTopic,
};
use corrente_protocol::kafka::produce::{ProducePartition, ProduceRequest, ProduceResponse, ProduceTopic};
use corrente_protocol::record_batch::headers;

use self::connection::Connection;
pub use self::reader::Reader;

const NONE: i16 = 0;
const LEADER_NOT_AVAILABLE: i16 = 5;
const TOPIC_ALREADY_EXISTS: i16 = 36;
/// How long a broker may take to create a topic, and a leader to be found.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connections of one worker to the leaders of one topic.
#[derive(Debug)]
pub struct Client {
    topic: String,
    /// By partition, in order.
    leaders: Vec<Arc<Connection>>,
    /// The topic was made for this run.
    created: bool,
}

impl Client {
    /// Connects, creates the topic if it is missing, and finds its leaders.
    pub async fn connect(brokers: &[String], topic: &str, partitions: u32) -> Result<Client> {
        let bootstrap = Arc::new(Connection::to_any(brokers).await?);
        let created = create(&bootstrap, topic, partitions).await?;
        let (addresses, found) = leaders(&bootstrap, topic).await?;
        let mut connections = BTreeMap::new();
        let mut leaders = Vec::with_capacity(found.partitions.len());
        for partition in &found.partitions {
            let leader = match connections.entry(partition.leader_id) {
                Entry::Occupied(known) => Arc::clone(known.get()),
                Entry::Vacant(unknown) => {
                    let id = unknown.key();
                    let address = addresses.get(id).with_context(|| format!("broker {id} has no address"))?;
                    Arc::clone(unknown.insert(Arc::new(Connection::to(address).await?)))
                }
            };
            leaders.push(leader);
        }
        Ok(Client { topic: topic.to_owned(), leaders, created })
    }

    /// How many partitions the topic has.
    pub fn partitions(&self) -> u32 {
        u32::try_from(self.leaders.len()).expect("Kafka counts partitions in 32 bits")
    }

    /// Whether the topic was made for this run.
    pub fn created(&self) -> bool {
        self.created
    }

    /// Appends one record batch; its offsets, of which the end is exclusive.
    pub async fn produce(&self, partition: u32, batch: Bytes, durability: Durability) -> Result<(u64, u64)> {
        let records = count(&batch)?;
        let partition = ProducePartition { index: partition.cast_signed(), records: vec![batch] };
        let index = partition.index;
        let topic =
            ProduceTopic { name: self.topic.clone(), partitions: vec![partition], ..ProduceTopic::default() };
        let timeout_ms = i32::try_from(PATIENCE.as_millis()).expect("half a minute");
        let request = ProduceRequest {
            acks: acks_of(durability),
            timeout_ms,
            topics: vec![topic],
            transactional_id: None,
        };
        let response: ProduceResponse = self.leader(index)?.call(request).await?;
        let produced = response.topics.into_iter().flat_map(|topic| topic.partitions).next();
        let produced = produced.context("an append was answered with nothing")?;
        if produced.error != NONE {
            let message = produced.error_message.unwrap_or_default();
            bail!("append to {}-{index} refused with Kafka's error {} {message}", self.topic, produced.error);
        }
        let base = u64::try_from(produced.base_offset).context("an append without an offset")?;
        Ok((base, base + records))
    }

    /// Finds one offset of each partition, by Kafka's word for it.
    async fn offsets(&self, timestamp_ms: i64) -> Result<Vec<i64>> {
        let mut offsets = Vec::with_capacity(self.leaders.len());
        for (index, leader) in (0..).zip(&self.leaders) {
            let partition = ListOffsetsPartition { index, timestamp_ms, ..ListOffsetsPartition::default() };
            let topic = ListOffsetsTopic { name: self.topic.clone(), partitions: vec![partition] };
            let request =
                ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..ListOffsetsRequest::default() };
            let response: ListOffsetsResponse = leader.call(request).await?;
            let found = response.topics.into_iter().flat_map(|topic| topic.partitions).next();
            let found = found.context("a search for an offset was answered with nothing")?;
            ensure!(found.error == NONE, "offsets of {}-{index}: Kafka's error {}", self.topic, found.error);
            offsets.push(found.offset);
        }
        Ok(offsets)
    }

    fn leader(&self, index: i32) -> Result<&Arc<Connection>> {
        let leader = usize::try_from(index).ok().and_then(|index| self.leaders.get(index));
        leader.with_context(|| format!("{} has no partition {index}", self.topic))
    }
}

/// What Kafka has of these levels: the leader, or all in-sync replicas. Neither says whether it is flushed.
fn acks_of(durability: Durability) -> i16 {
    match durability {
        Durability::Received | Durability::LeaderFlushed => 1,
        Durability::Replicated | Durability::IsrFlushed => -1,
    }
}

fn count(batch: &[u8]) -> Result<u64> {
    let (_, header) = headers(batch).next().context("an empty batch")??;
    Ok(u64::from(header.record_count.cast_unsigned()))
}

/// Whether it was missing.
async fn create(broker: &Connection, topic: &str, partitions: u32) -> Result<bool> {
    let new = NewTopic {
        name: topic.to_owned(),
        num_partitions: i32::try_from(partitions).context("partitions of a topic")?,
        // What the broker replicates by default, from version 4 on (KIP-464).
        replication_factor: if broker.version_of::<CreateTopicsRequest>()? >= 4 { -1 } else { 1 },
        ..NewTopic::default()
    };
    let timeout_ms = i32::try_from(PATIENCE.as_millis()).expect("half a minute");
    let request = CreateTopicsRequest { topics: vec![new], timeout_ms, validate_only: false };
    let response: CreateTopicsResponse = broker.call(request).await?;
    let created =
        response.topics.into_iter().next().context("a topic's creation was answered with nothing")?;
    match created.error {
        NONE => Ok(true),
        TOPIC_ALREADY_EXISTS => Ok(false),
        error => bail!(
            "creating topic {topic}: Kafka's error {error} {}",
            created.error_message.unwrap_or_default()
        ),
    }
}

/// Addresses of brokers, and the topic once every partition of it has a leader.
async fn leaders(broker: &Connection, topic: &str) -> Result<(BTreeMap<i32, String>, MetadataTopic)> {
    const PAUSE: Duration = Duration::from_millis(50);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let named = MetadataRequestTopic { name: Some(topic.to_owned()), ..MetadataRequestTopic::default() };
        let request = MetadataRequest {
            topics: Some(vec![named]),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        let response: MetadataResponse = broker.call(request).await?;
        let address = |host: &str, port: i32| match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        let brokers = response.brokers.iter();
        let addresses = brokers.map(|broker| (broker.node_id, address(&broker.host, broker.port))).collect();
        let found = response.topics.into_iter().next().context("metadata without the topic asked for")?;
        let is_whole = found.error == NONE
            && !found.partitions.is_empty()
            && found.partitions.iter().all(|partition| partition.leader_id >= 0);
        if is_whole {
            let mut found = found;
            found.partitions.sort_by_key(|partition| partition.index);
            return Ok((addresses, found));
        }
        let error = if found.error == NONE { LEADER_NOT_AVAILABLE } else { found.error };
        ensure!(
            tokio::time::Instant::now() < deadline,
            "topic {topic} has no leader after {PATIENCE:?}: Kafka's error {error}"
        );
        tokio::time::sleep(PAUSE).await;
    }
}
