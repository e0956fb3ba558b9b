//! What a producer of the load sends with: the SDK, or librdkafka.

use std::time::Duration;

use bytes::Bytes;
use corrente_client::{Compression, Producer, Record, Ticket};
use corrente_history::{Outcome, Place, Refusal, RefusalKind, content};
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders, Timestamp};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;

use super::{RETRY_WAIT, Shared};
use crate::plan::{Library, ProducerPlan};
use crate::recorder::outcome_of;

/// A producer of either library.
pub(super) enum Outlet {
    Native(Producer),
    Librdkafka { producer: FutureProducer, topic: String },
}

/// A record, for either.
pub(super) struct Outgoing {
    pub(super) partition: u32,
    pub(super) key: Bytes,
    /// None is a tombstone.
    pub(super) value: Option<Bytes>,
    /// The value of [`content::TOMBSTONE_HEADER`].
    pub(super) header: Option<Bytes>,
    pub(super) timestamp_ms: i64,
}

/// What an acknowledgement says.
pub(super) struct Acked {
    pub(super) place: Place,
    pub(super) timestamp_ms: i64,
}

/// What was sent and is not answered yet.
pub(super) enum Pending {
    Native(Ticket),
    Librdkafka(DeliveryFuture),
    /// It was not even taken.
    Refused(Outcome),
}

impl Outlet {
    /// Waits until a broker is there, where the library does not do that by itself.
    pub(super) async fn open(shared: &Shared, topic: &str, plan: &ProducerPlan) -> Outlet {
        match plan.library {
            Library::Native => Outlet::Native(native(shared, topic, plan).await),
            Library::Librdkafka => {
                Outlet::Librdkafka { producer: librdkafka(shared, plan), topic: topic.to_owned() }
            }
        }
    }

    /// Hands over a record, once the library has room for it.
    pub(super) async fn send(&self, record: Outgoing) -> Pending {
        match self {
            Outlet::Native(producer) => match producer.send(record.for_native()).await {
                Ok(ticket) => Pending::Native(ticket),
                Err(error) => Pending::Refused(outcome_of(&error)),
            },
            Outlet::Librdkafka { producer, topic } => loop {
                match producer.send_result(record.for_librdkafka(topic)) {
                    Ok(delivery) => return Pending::Librdkafka(delivery),
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                        tokio::time::sleep(RETRY_WAIT).await;
                    }
                    Err((error, _)) => {
                        return Pending::Refused(Outcome::Fail(refusal_of(&error)));
                    }
                }
            },
        }
    }
}

impl Pending {
    pub(super) async fn answer(self) -> Result<Acked, Outcome> {
        match self {
            Pending::Native(ticket) => {
                let receipt = ticket.await.map_err(|error| outcome_of(&error))?;
                let place = Place { partition: receipt.partition, offset: receipt.offset.0 };
                Ok(Acked { place, timestamp_ms: receipt.timestamp_ms })
            }
            Pending::Librdkafka(delivery) => {
                let delivered = delivery.await.expect("a producer outlives what it sends");
                // What failed may have been appended all the same.
                let delivery = delivered.map_err(|(error, _)| Outcome::Info(refusal_of(&error)))?;
                let place = Place {
                    partition: u32::try_from(delivery.partition).expect("acknowledged by a partition"),
                    offset: u64::try_from(delivery.offset).expect("acknowledged at an offset"),
                };
                let (Timestamp::CreateTime(timestamp_ms) | Timestamp::LogAppendTime(timestamp_ms)) =
                    delivery.timestamp
                else {
                    unreachable!("every record was sent with a timestamp");
                };
                Ok(Acked { place, timestamp_ms })
            }
            Pending::Refused(outcome) => Err(outcome),
        }
    }
}

impl Outgoing {
    fn for_native(self) -> Record {
        let record = match self.value {
            Some(value) => Record::value(value).key(self.key),
            None => Record::tombstone(self.key),
        };
        let record = match self.header {
            Some(header) => record.header(content::TOMBSTONE_HEADER, header),
            None => record,
        };
        record.timestamp_ms(self.timestamp_ms)
    }

    fn for_librdkafka<'a>(&'a self, topic: &'a str) -> FutureRecord<'a, [u8], [u8]> {
        let headers = self.header.as_deref().map(|header| {
            OwnedHeaders::new().insert(Header { key: content::TOMBSTONE_HEADER, value: Some(header) })
        });
        FutureRecord {
            topic,
            partition: Some(i32::try_from(self.partition).expect("a partition of a plan")),
            payload: self.value.as_deref(),
            key: Some(&self.key),
            timestamp: Some(self.timestamp_ms),
            headers,
        }
    }
}

async fn native(shared: &Shared, topic: &str, plan: &ProducerPlan) -> Producer {
    let client = shared.connect().await;
    loop {
        let builder = client
            .producer(topic)
            .durability(plan.durability)
            .linger(plan.linger)
            .batch_bytes(plan.batch_bytes)
            .compression(plan.compression)
            .delivery_timeout(shared.plan.patience);
        match builder.build().await {
            Ok(producer) => return producer,
            Err(_) => tokio::time::sleep(RETRY_WAIT).await,
        }
    }
}

fn librdkafka(shared: &Shared, plan: &ProducerPlan) -> FutureProducer {
    let ms = |duration: Duration| duration.as_millis().to_string();
    let compression = match plan.compression {
        Compression::None => "none",
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
        Compression::Snappy => "snappy",
        Compression::Gzip => "gzip",
    };
    ClientConfig::new()
        .set("bootstrap.servers", &shared.broker.kafka)
        .set("client.id", "chaos")
        .set("enable.idempotence", "true")
        .set("linger.ms", ms(plan.linger))
        .set("batch.size", plan.batch_bytes.to_string())
        .set("compression.type", compression)
        .set("message.timeout.ms", ms(shared.plan.patience))
        .set("socket.timeout.ms", ms(shared.plan.request_timeout))
        // A broker that was killed comes back soon, and is not to be missed.
        .set("reconnect.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "200")
        .set("retry.backoff.ms", "10")
        .set("retry.backoff.max.ms", "200")
        .create()
        .expect("settings that the library knows")
}

fn refusal_of(error: &KafkaError) -> Refusal {
    Refusal::new(RefusalKind::Other, error.to_string())
}
