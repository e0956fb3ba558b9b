//! Producers: records in, receipts out.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use corrente_protocol::compression::Compression;
use corrente_protocol::frame::{Durability, MAX_FRAME_DEFAULT};
use tokio::sync::Semaphore;

use crate::client::{partition_count, topic_name};
use crate::core::accumulator::{Accumulator, CloseReport, Partitioner, ProducerSettings, room_of};
use crate::core::completion::{BatchTicket, Ticket};
use crate::error::{Error, ErrorKind};
use crate::record::Record;
use crate::transport::Link;

/// Sends records to one topic, in order per partition. Cheap to clone; clones share batches and bounds.
///
/// Records gather in one batch per partition. A batch leaves at once when nothing of its partition is in flight
/// (after [`linger`](ProducerBuilder::linger), if that is set), and else when the one before is acknowledged, so
/// batches grow with the load by themselves. What fails in a way that may pass, such as a broker that restarts, is
/// tried again until the delivery timeout, and each batch is appended once however often it was sent, unless
/// [`idempotent`](ProducerBuilder::idempotent) is off.
///
/// If all clones are dropped without [`close`](Producer::close), what was accepted is still sent as long as a client
/// or another handle lives; failures then only show in the log.
#[derive(Debug, Clone)]
pub struct Producer {
    inner: Arc<Inner>,
}

struct Inner {
    link: Arc<Link>,
    accumulator: Arc<Accumulator>,
    /// One permit for each byte that may still be accepted.
    room: Arc<Semaphore>,
    room_max: usize,
}

/// Settings of a [`Producer`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ProducerBuilder {
    link: Arc<Link>,
    topic: String,
    durability: Durability,
    linger: Duration,
    batch_bytes: usize,
    batch_records: u32,
    compression: Compression,
    max_unacked_bytes: usize,
    delivery_timeout: Duration,
    partitioner: Partitioner,
    idempotent: bool,
}

/// Records are never larger than what fits a frame with the rest of a request.
const RECORD_BYTES_MAX: usize = MAX_FRAME_DEFAULT as usize - 64 * 1024;

impl ProducerBuilder {
    pub(crate) fn new(link: Arc<Link>, topic: &str) -> ProducerBuilder {
        ProducerBuilder {
            link,
            topic: topic.to_owned(),
            durability: Durability::IsrFlushed,
            linger: Duration::ZERO,
            batch_bytes: 512 * 1024,
            batch_records: i32::MAX.cast_unsigned(),
            compression: Compression::None,
            max_unacked_bytes: 32 * 1024 * 1024,
            delivery_timeout: Duration::from_secs(120),
            partitioner: Partitioner::Sticky,
            idempotent: true,
        }
    }

    /// When the broker may acknowledge. Default: `IsrFlushed`.
    pub fn durability(mut self, durability: Durability) -> ProducerBuilder {
        self.durability = durability;
        self
    }

    /// How long a batch may wait for more records although it could leave. Default: not at all.
    pub fn linger(mut self, linger: Duration) -> ProducerBuilder {
        self.linger = linger;
        self
    }

    /// A batch is full at this many bytes, before compression. Default: 512 KiB.
    pub fn batch_bytes(mut self, bytes: usize) -> ProducerBuilder {
        self.batch_bytes = bytes;
        self
    }

    /// A batch is full at this many records. Default: as many as a batch can hold.
    pub fn batch_records(mut self, records: u32) -> ProducerBuilder {
        self.batch_records = records;
        self
    }

    /// How batches are compressed. Default: not.
    pub fn compression(mut self, compression: Compression) -> ProducerBuilder {
        self.compression = compression;
        self
    }

    /// Bytes accepted and not acknowledged: beyond, `send` waits. Default: 32 MiB. No record can be larger.
    pub fn max_unacked_bytes(mut self, bytes: usize) -> ProducerBuilder {
        self.max_unacked_bytes = bytes;
        self
    }

    /// How long after `send` a record is given up. A batch in flight then is waited for until its request ends,
    /// at most the client's request timeout longer. Default: 120 s.
    pub fn delivery_timeout(mut self, timeout: Duration) -> ProducerBuilder {
        self.delivery_timeout = timeout;
        self
    }

    /// How records without a key and a partition are spread. Default: sticky.
    pub fn partitioner(mut self, partitioner: Partitioner) -> ProducerBuilder {
        self.partitioner = partitioner;
        self
    }

    /// Whether brokers tell batches that are sent again from new ones, by an id of the producer and sequences
    /// (KIP-98): else one whose acknowledgement was lost may be appended twice. A record that is sent again by the
    /// application is a new one. Default: true.
    pub fn idempotent(mut self, idempotent: bool) -> ProducerBuilder {
        self.idempotent = idempotent;
        self
    }

    /// Looks the topic up and begins.
    ///
    /// # Errors
    /// `InvalidRequest` for a bad topic name or settings that cannot be; `TopicNotFound`; `Timeout` if no broker
    /// answered within the request timeout.
    pub async fn build(self) -> Result<Producer, Error> {
        let topic = topic_name("produce", &self.topic)?;
        let overhead = room_of(&Record::default());
        let room_max = self.max_unacked_bytes.min(u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        if room_max <= overhead || self.batch_records == 0 {
            let cause = format!(
                "max_unacked_bytes {room_max} has to be over {overhead}, batch_records {} over 0",
                self.batch_records
            );
            return Err(Error::invalid("produce", cause).topic(&topic));
        }
        let settings = ProducerSettings {
            topic: topic.clone(),
            durability: self.durability,
            linger: self.linger,
            batch_bytes: self.batch_bytes,
            batch_records: self.batch_records.min(i32::MAX.cast_unsigned()),
            compression: self.compression,
            delivery_timeout: self.delivery_timeout,
            partitioner: self.partitioner,
            idempotent: self.idempotent,
            record_bytes_max: RECORD_BYTES_MAX.min(room_max - overhead),
        };
        let partitions =
            partition_count(&self.link, &topic).await.map_err(|error| error.operation("produce"))?;
        let room = Arc::new(Semaphore::new(room_max));
        let accumulator = self.link.add_producer(settings, partitions, Arc::clone(&room)).await?;
        Ok(Producer { inner: Arc::new(Inner { link: self.link, accumulator, room, room_max }) })
    }
}

impl Producer {
    /// Accepts the record and returns the ticket of its receipt. Waits only while there is no room.
    ///
    /// Cancel-safe: dropped before it is ready, the record was not accepted and will not be sent.
    ///
    /// # Errors
    /// `MessageTooLarge`; `InvalidRequest` for a partition the topic does not have; `Closed`. Failures of delivery
    /// come with the ticket.
    pub async fn send(&self, record: Record) -> Result<Ticket, Error> {
        let inner = &*self.inner;
        let room = u32::try_from(room_of(&record)).map_err(|_| inner.too_large(room_of(&record)))?;
        if room as usize > inner.room_max {
            return Err(inner.too_large(room as usize));
        }
        let permit = inner.room.acquire_many(room).await.map_err(|_| Error::closed("produce"))?;
        let clock = inner.link.clock;
        let wall_ms = record.timestamp_ms.unwrap_or_else(|| clock.wall_ms());
        let pushed = inner.accumulator.push(&record, wall_ms, || clock.now())?;
        // Freed when the batch is settled.
        permit.forget();
        if pushed.wake {
            inner.link.wake();
        }
        Ok(pushed.ticket)
    }

    /// Sends the record and waits for its receipt.
    ///
    /// Not cancel-safe: dropped before it is ready, the record may or may not have been accepted.
    ///
    /// # Errors
    /// Those of [`send`](Producer::send) and of delivery.
    pub async fn send_and_wait(&self, record: Record) -> Result<crate::Receipt, Error> {
        self.send(record).await?.await
    }

    /// Accepts all records, in order, and returns one ticket for the lot; much cheaper than one by one. Waits only
    /// while there is no room for all of them together.
    ///
    /// Cancel-safe: dropped before it is ready, none was accepted.
    ///
    /// # Errors
    /// As [`send`](Producer::send), for the first record that is refused; none is accepted then. `MessageTooLarge` also
    /// if all together exceed the producer's `max_unacked_bytes`.
    pub async fn send_batch(&self, records: Vec<Record>) -> Result<BatchTicket, Error> {
        let inner = &*self.inner;
        let total: usize = records.iter().map(room_of).sum();
        if total > inner.room_max {
            return Err(inner.too_large(total));
        }
        let room = u32::try_from(total).map_err(|_| inner.too_large(total))?;
        let permit = inner.room.acquire_many(room).await.map_err(|_| Error::closed("produce"))?;
        let clock = inner.link.clock;
        let pushed = inner.accumulator.push_all(&records, clock.wall_ms(), || clock.now())?;
        permit.forget();
        if pushed.wake {
            inner.link.wake();
        }
        Ok(BatchTicket::new(pushed.ticket))
    }

    /// Sends all that was accepted so far without lingering, and waits until every record of it is settled.
    ///
    /// Cancel-safe: dropped, it only no longer waits.
    ///
    /// # Errors
    /// The first failure of any record since the last flush, whether or not its ticket was kept.
    pub async fn flush(&self) -> Result<(), Error> {
        self.inner.settle_all().await;
        self.inner.accumulator.take_untold().map_or(Ok(()), Err)
    }

    /// Accepts no more, sends what was accepted, and says what became of all records.
    ///
    /// Dropped before it is ready, the producer is closed all the same; only the report is lost.
    ///
    /// # Errors
    /// None yet. Records that failed are counted in the report, with the first reason.
    pub async fn close(self) -> Result<CloseReport, Error> {
        self.inner.accumulator.close(Error::new(ErrorKind::Closed, "produce", "the producer is closed"));
        self.inner.settle_all().await;
        Ok(self.inner.accumulator.report())
    }

    /// What became of the records settled so far.
    pub fn report(&self) -> CloseReport {
        self.inner.accumulator.report()
    }
}

impl Inner {
    async fn settle_all(&self) {
        let unsettled = self.accumulator.flush();
        self.link.wake();
        for completion in unsettled {
            let mut slot = None;
            // The outcome is counted by the accumulator.
            let _ = poll_fn(|cx| completion.poll(cx, &mut slot)).await;
        }
    }

    fn too_large(&self, bytes: usize) -> Error {
        let cause = format!("{bytes} bytes at once exceed the {} that may be unacknowledged", self.room_max);
        Error::new(ErrorKind::MessageTooLarge, "produce", cause).topic(&self.accumulator.settings().topic)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let batches = self.accumulator.unsettled_batches();
        if batches > 0 {
            let topic = &self.accumulator.settings().topic;
            tracing::warn!(%topic, batches, "a producer was dropped with batches not acknowledged");
        }
        self.accumulator.detach();
        self.link.wake();
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Producer({})", self.accumulator.settings().topic)
    }
}
