//! Reads all partitions of a topic from a broker that speaks Kafka's protocol, one task for each leader.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use corrente_protocol::kafka::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchedPartition,
};
use corrente_protocol::kafka::list_offsets::{EARLIEST, LATEST};
use corrente_protocol::record_batch::{RecordBatch, headers};
use tokio::sync::mpsc;

use super::connection::Connection;
use super::{Client, NONE};
use crate::broker::Arrival;
use crate::plan::Begin;
use crate::verify::Digest;

/// As consumers do by default.
const WAIT_MS_MAX: i32 = 500;
const BYTES_MAX: i32 = 50 << 20;
const PARTITION_BYTES_MAX: i32 = 8 << 20;
/// No batch decompresses to more.
const RECORDS_BYTES_MAX: usize = 256 << 20;
/// Batches that were read and not taken yet, of all leaders.
const BATCHES_AHEAD: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Reader {
    batches: mpsc::Receiver<Result<Arrival>>,
    /// Keeps the connections.
    _client: Client,
}

/// The partitions of one leader.
struct Part {
    leader: Arc<Connection>,
    topic: String,
    positions: Vec<Position>,
    /// Whether arrivals carry a digest.
    digests: bool,
}

/// Where one partition is read next, and where reading ends, if it does.
struct Position {
    index: i32,
    next: i64,
    end: Option<i64>,
}

impl Reader {
    /// Begins to read; with `until_end`, up to where the partitions end now.
    pub async fn start(client: Client, from: Begin, until_end: bool) -> Result<Reader> {
        let begin = client.offsets(if from == Begin::Earliest { EARLIEST } else { LATEST }).await?;
        let ends = if until_end { Some(client.offsets(LATEST).await?) } else { None };
        let position = |(index, next): (usize, i64)| {
            let end = ends.as_ref().map(|ends| ends[index]);
            Position { index: i32::try_from(index).expect("Kafka counts partitions in 32 bits"), next, end }
        };
        let positions = begin.into_iter().enumerate().map(position).collect();
        Reader::read(client, positions, false)
    }

    /// Begins to read one partition, from an offset to where it ends now, and takes digests.
    pub async fn read_back(client: Client, partition: u32, from: u64) -> Result<Reader> {
        let ends = client.offsets(LATEST).await?;
        let end = ends.get(partition as usize).copied();
        let end = Some(end.with_context(|| format!("there is no partition {partition}"))?);
        let position = Position { index: i32::try_from(partition)?, next: i64::try_from(from)?, end };
        Reader::read(client, vec![position], true)
    }

    fn read(client: Client, positions: Vec<Position>, digests: bool) -> Result<Reader> {
        let mut parts: Vec<Part> = Vec::new();
        for position in positions {
            let leader = client.leader(position.index)?;
            match parts.iter_mut().find(|part| Arc::ptr_eq(&part.leader, leader)) {
                Some(part) => part.positions.push(position),
                None => parts.push(Part {
                    leader: Arc::clone(leader),
                    topic: client.topic.clone(),
                    positions: vec![position],
                    digests,
                }),
            }
        }
        let (read, batches) = mpsc::channel(BATCHES_AHEAD);
        for part in parts {
            tokio::spawn(part.read_to_end(read.clone()));
        }
        Ok(Reader { batches, _client: client })
    }

    /// The next batch of any partition; nothing once all ends are reached. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Arrival>> {
        self.batches.recv().await.transpose()
    }
}

impl Part {
    async fn read_to_end(mut self, read: mpsc::Sender<Result<Arrival>>) {
        loop {
            self.positions.retain(|position| position.end.is_none_or(|end| position.next < end));
            if self.positions.is_empty() {
                return;
            }
            let found = match self.fetch().await {
                Ok(found) => found,
                Err(error) => return drop(read.send(Err(error)).await),
            };
            for arrival in found {
                if read.send(Ok(arrival)).await.is_err() {
                    // Nobody reads any more.
                    return;
                }
            }
        }
    }

    async fn fetch(&mut self) -> Result<Vec<Arrival>> {
        let partitions = self.positions.iter().map(|position| FetchPartition {
            index: position.index,
            fetch_offset: position.next,
            max_bytes: PARTITION_BYTES_MAX,
            ..FetchPartition::default()
        });
        let topic = FetchTopic {
            name: self.topic.clone(),
            partitions: partitions.collect(),
            ..FetchTopic::default()
        };
        let request = FetchRequest {
            replica_id: -1,
            max_wait_ms: WAIT_MS_MAX,
            min_bytes: 1,
            max_bytes: BYTES_MAX,
            session_epoch: -1,
            topics: vec![topic],
            ..FetchRequest::default()
        };
        let response: FetchResponse = self.leader.call(request).await?;
        let mut arrivals = Vec::new();
        for found in response.topics.into_iter().flat_map(|topic| topic.partitions) {
            let position = self.positions.iter_mut().find(|position| position.index == found.index);
            let position =
                position.with_context(|| format!("partition {} was not asked for", found.index))?;
            position.take(&self.topic, found, self.digests, &mut arrivals)?;
        }
        Ok(arrivals)
    }
}

impl Position {
    fn take(
        &mut self,
        topic: &str,
        found: FetchedPartition,
        digests: bool,
        arrivals: &mut Vec<Arrival>,
    ) -> Result<()> {
        if found.error != NONE {
            bail!("reading {topic}-{} from offset {}: Kafka's error {}", self.index, self.next, found.error);
        }
        let before = self.next;
        for piece in &found.records {
            // The last batch may be cut: it comes again.
            for (place, header) in headers(piece).map_while(Result::ok) {
                let end = header.end_offset().0.cast_signed();
                if end <= self.next {
                    continue;
                }
                self.next = end;
                if !header.attributes.is_control() {
                    arrivals.push(arrival(self.index, piece.slice(place), digests)?);
                }
            }
        }
        let held: usize = found.records.iter().map(Bytes::len).sum();
        if held > 0 && self.next == before {
            bail!(
                "a batch of {topic}-{} at offset {before} does not fit into {PARTITION_BYTES_MAX} bytes",
                self.index
            );
        }
        Ok(())
    }
}

/// Takes a batch apart, as a consumer would.
fn arrival(partition: i32, batch: Bytes, digests: bool) -> Result<Arrival> {
    let batch = RecordBatch::new(batch)?;
    let (mut records, mut bytes) = (0, 0);
    let mut digest = digests.then(Digest::default);
    for record in batch.records(RECORDS_BYTES_MAX)? {
        let record = record?;
        let length = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len) as u64;
        records += 1;
        bytes += length(&record.key) + length(&record.value);
        if let Some(digest) = &mut digest {
            digest.add(&record);
        }
    }
    let header = batch.header();
    Ok(Arrival {
        partition: partition.cast_unsigned(),
        base_offset: header.base_offset.0,
        end_offset: header.end_offset().0,
        records,
        bytes,
        digest: digest.map(Digest::value),
    })
}
