//! Consumers: records out, as a stream or batch by batch.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use corrente_protocol::api::subscribe::HEARTBEAT_MS;
use corrente_protocol::ids::{Offset, PartitionIndex, TopicName};
use corrente_protocol::record::Header;
use futures_util::Stream;

use crate::client::{partition_count, topic_name};
use crate::core::consume::{ConsumerSettings, OutOfRange, StartOffset};
use crate::core::inbox::{Batch, Fetched, Inbox};
use crate::error::{Error, ErrorKind};
use crate::transport::Link;

/// Reads partitions from where it was told to, for ever or to their end.
///
/// A `Stream` of records, and with [`next_batch`](Consumer::next_batch) a source of whole batches. It fetches ahead,
/// within a bound. A broken connection, a restarted broker or a moved leader never ends it: it goes on by itself where
/// it was. After an error the partition concerned is left alone and the others go on; when none is left, the
/// stream ends.
///
/// Records of one partition come in order, with gaps in their offsets where compaction took some. Partitions that the
/// topic gets later are not read.
#[derive(Debug)]
pub struct Consumer {
    link: Arc<Link>,
    inbox: Arc<Inbox>,
    decompressed_bytes_max: usize,
    /// Fetched and being handed out.
    current: Option<Fetched>,
    /// Records of the batch being handed out, for the stream.
    records: VecDeque<Delivery>,
}

/// A record as it stands in a partition. Key, value and header values are slices of what was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: u32,
    /// The record's offset in the partition.
    pub offset: Offset,
    /// Its timestamp, in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Vec<Header>,
}

/// Settings of a [`Consumer`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ConsumerBuilder {
    link: Arc<Link>,
    topics: Vec<String>,
    partitions: Option<Vec<u32>>,
    from: StartOffset,
    until_end: bool,
    out_of_range: OutOfRange,
    prefetch_bytes: usize,
    answer_bytes_max: usize,
    heartbeat: Duration,
    decompressed_bytes_max: usize,
}

impl ConsumerBuilder {
    pub(crate) fn new(link: Arc<Link>) -> ConsumerBuilder {
        ConsumerBuilder {
            link,
            topics: Vec::new(),
            partitions: None,
            from: StartOffset::Latest,
            until_end: false,
            out_of_range: OutOfRange::Fail,
            prefetch_bytes: 16 * 1024 * 1024,
            answer_bytes_max: 256 * 1024,
            heartbeat: Duration::from_millis(500),
            decompressed_bytes_max: 64 * 1024 * 1024,
        }
    }

    /// Reads this topic; may be called several times.
    pub fn topic(mut self, topic: impl Into<String>) -> ConsumerBuilder {
        self.topics.push(topic.into());
        self
    }

    /// Reads only these partitions of every topic. Default: all.
    pub fn partitions(mut self, partitions: impl IntoIterator<Item = u32>) -> ConsumerBuilder {
        self.partitions = Some(partitions.into_iter().collect());
        self
    }

    /// Where to begin in each partition. Default: `Latest`.
    pub fn from(mut self, from: StartOffset) -> ConsumerBuilder {
        self.from = from;
        self
    }

    /// Ends when the high watermarks found at the start are reached.
    pub fn until_end(mut self) -> ConsumerBuilder {
        self.until_end = true;
        self
    }

    /// What to do when the position lies outside the log, as after retention or a deletion that passed it. Default:
    /// [`OutOfRange::Fail`].
    pub fn on_out_of_range(mut self, policy: OutOfRange) -> ConsumerBuilder {
        self.out_of_range = policy;
        self
    }

    /// Bytes of batches that are there or on their way before they are taken, shared out evenly over the shards that
    /// lead the partitions; of each shard a single larger batch still comes. Default: 16 MiB.
    pub fn prefetch_bytes(mut self, bytes: usize) -> ConsumerBuilder {
        self.prefetch_bytes = bytes.max(1);
        self
    }

    /// Bytes of batches that a shard sends at a time. It does not wait between two of them, so that larger ones gain
    /// nothing, and come less often from the processor's cache. Default: 256 KiB.
    pub fn answer_bytes_max(mut self, bytes: usize) -> ConsumerBuilder {
        self.answer_bytes_max = bytes.max(1);
        self
    }

    /// How long a broker with nothing to send is silent, between 100 ms and a minute. Silent for the request timeout
    /// longer, it is taken for dead. Records are sent at once whatever this is. Default: 500 ms.
    pub fn heartbeat(mut self, silence: Duration) -> ConsumerBuilder {
        let [shortest, longest] =
            [HEARTBEAT_MS.start(), HEARTBEAT_MS.end()].map(|ms| Duration::from_millis((*ms).into()));
        self.heartbeat = silence.clamp(shortest, longest);
        self
    }

    /// A batch that decompresses to more bytes is an error. Default: 64 MiB.
    pub fn decompressed_bytes_max(mut self, bytes: usize) -> ConsumerBuilder {
        self.decompressed_bytes_max = bytes;
        self
    }

    /// Looks the topics up and begins to fetch.
    ///
    /// # Errors
    /// `InvalidRequest` for a bad topic name or no topic at all; `TopicNotFound`, for partitions too; `Timeout` if no
    /// broker answered within the request timeout.
    pub async fn build(self) -> Result<Consumer, Error> {
        let mut partitions = Vec::new();
        for topic in &self.topics {
            let topic = topic_name("consume", topic)?;
            let count =
                partition_count(&self.link, &topic).await.map_err(|error| error.operation("consume"))?;
            let wanted = self.partitions.clone().unwrap_or_else(|| (0..count).collect());
            for partition in wanted {
                if partition >= count {
                    let cause = format!("partition {partition} asked for, the topic has {count}");
                    let error = Error::new(ErrorKind::TopicNotFound, "consume", cause);
                    return Err(error.topic(&topic).partition(partition));
                }
                let wanted = (topic.clone(), PartitionIndex(partition), self.from);
                if !partitions.contains(&wanted) {
                    partitions.push(wanted);
                }
            }
        }
        if partitions.is_empty() {
            return Err(Error::invalid("consume", "no topic or no partition is named"));
        }
        let settings = ConsumerSettings {
            partitions,
            until_end: self.until_end,
            out_of_range: self.out_of_range,
            prefetch_bytes: self.prefetch_bytes,
            answer_bytes_max: self.answer_bytes_max,
            heartbeat: self.heartbeat,
        };
        let inbox = self.link.add_consumer(settings).await?;
        Ok(Consumer {
            link: self.link,
            inbox,
            decompressed_bytes_max: self.decompressed_bytes_max,
            current: None,
            records: VecDeque::new(),
        })
    }
}

impl Consumer {
    /// The records of the next batch, of any partition; `None` at the end. Records the stream has begun to hand out
    /// come first.
    ///
    /// Cancel-safe: dropped before it is ready, nothing is lost.
    ///
    /// # Errors
    /// See [`Consumer`]. `Corrupt` for batches that fail their checks, `OffsetOutOfRange`, `TopicNotFound`, `Closed`,
    /// or what else the broker says and a retry cannot mend.
    pub async fn next_batch(&mut self) -> Result<Option<Batch>, Error> {
        poll_fn(|cx| self.poll_batch(cx)).await.transpose()
    }

    /// The next record; `None` at the end. The same as the stream's `next`.
    ///
    /// Cancel-safe: dropped before it is ready, nothing is lost.
    ///
    /// # Errors
    /// Those of [`next_batch`](Consumer::next_batch).
    pub async fn next_record(&mut self) -> Result<Option<Delivery>, Error> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await.transpose()
    }

    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Batch, Error>>> {
        loop {
            let Some(current) = &mut self.current else {
                let Some(taken) = ready!(self.inbox.poll_take(cx)) else { return Poll::Ready(None) };
                if taken.wake {
                    self.link.wake();
                }
                match taken.item {
                    Ok(fetched) => self.current = Some(fetched),
                    Err(error) => return Poll::Ready(Some(Err(error))),
                }
                continue;
            };
            match current.next_batch(self.decompressed_bytes_max) {
                Some(batch) => return Poll::Ready(Some(batch)),
                None => self.current = None,
            }
        }
    }
}

impl Stream for Consumer {
    type Item = Result<Delivery, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(delivery) = this.records.pop_front() {
                return Poll::Ready(Some(Ok(delivery)));
            }
            match ready!(this.poll_batch(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(batch)) => {
                    let Batch { topic, partition, records, .. } = batch;
                    this.records.extend(records.into_iter().map(|record| Delivery {
                        topic: topic.clone(),
                        partition,
                        offset: record.offset,
                        timestamp_ms: record.timestamp_ms,
                        key: record.key,
                        value: record.value,
                        headers: record.headers,
                    }));
                }
            }
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.inbox.abandon();
        self.link.wake();
    }
}
