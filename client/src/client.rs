//! The client: the one thing an application connects, and from which it gets everything else.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corrente_protocol::api::{MetadataRequest, MetadataResponse};
use corrente_protocol::frame::Durability;
use corrente_protocol::ids::{PartitionIndex, TopicName};

use crate::admin::Admin;
use crate::consumer::ConsumerBuilder;
use crate::core::call::{CallRequest, CallResponse, Produced};
use crate::core::{CoreSettings, RetryPolicy};
use crate::error::{Error, ErrorKind};
use crate::producer::ProducerBuilder;
use crate::transport::Link;

/// A connection to a cluster. Cheap to clone; all clones share sockets and metadata.
///
/// Sockets are opened when they are needed, one for each shard spoken to, and opened again by themselves when they
/// break. They close when the last of client, producers, consumers and admins is dropped.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) link: Arc<Link>,
}

/// Settings of a [`Client`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ClientBuilder {
    bootstrap: Vec<String>,
    client_id: String,
    request_timeout: Duration,
    connect_timeout: Duration,
    retry: RetryPolicy,
    raw_unacked_bytes_max: usize,
}

impl Client {
    /// Settings for a client of the cluster that these brokers, `host:port` each, belong to. One that answers is
    /// enough.
    pub fn builder<S: Into<String>>(brokers: impl IntoIterator<Item = S>) -> ClientBuilder {
        ClientBuilder {
            bootstrap: brokers.into_iter().map(Into::into).collect(),
            client_id: "corrente".to_owned(),
            request_timeout: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(5),
            retry: RetryPolicy::default(),
            raw_unacked_bytes_max: 256 * 1024 * 1024,
        }
    }

    /// Settings for a producer of this topic.
    pub fn producer(&self, topic: &str) -> ProducerBuilder {
        ProducerBuilder::new(Arc::clone(&self.link), topic)
    }

    /// Settings for a consumer.
    pub fn consumer(&self) -> ConsumerBuilder {
        ConsumerBuilder::new(Arc::clone(&self.link))
    }

    /// Topics, their configuration and offsets.
    pub fn admin(&self) -> Admin {
        Admin { link: Arc::clone(&self.link) }
    }

    /// Appends ready-made record batches, at least one, back to back, to one partition, and waits for the
    /// acknowledgement. For load generators and mirrors; everybody else wants a [`Producer`](crate::Producer).
    ///
    /// Any number of calls may be in flight, within the bound on raw bytes
    /// ([`ClientBuilder::raw_unacked_bytes_max`]; further calls wait). Calls that overlap keep their order only as
    /// long as nothing fails. A call whose connection breaks is tried again until the request timeout, so batches may
    /// be appended twice.
    ///
    /// Cancel-safe in that nothing leaks; the batches may or may not be appended then.
    ///
    /// # Errors
    /// `InvalidRequest` for a bad topic name or more bytes than the bound; else what the broker says, `Timeout`, or
    /// `Closed`.
    pub async fn produce_raw(
        &self,
        topic: &str,
        partition: u32,
        batches: Bytes,
        durability: Durability,
    ) -> Result<Produced, Error> {
        self.send_raw(topic, partition, batches, durability, false).await
    }

    /// The same, and has the broker say where the time went ([`Produced::stage_times`]).
    ///
    /// # Errors
    /// Those of [`Client::produce_raw`].
    pub async fn produce_raw_timed(
        &self,
        topic: &str,
        partition: u32,
        batches: Bytes,
        durability: Durability,
    ) -> Result<Produced, Error> {
        self.send_raw(topic, partition, batches, durability, true).await
    }

    async fn send_raw(
        &self,
        topic: &str,
        partition: u32,
        batches: Bytes,
        durability: Durability,
        wants_stage_times: bool,
    ) -> Result<Produced, Error> {
        let topic = topic_name("produce", topic)?;
        let too_large = || {
            let cause =
                format!("{} bytes of batches, the client allows {}", batches.len(), self.link.raw_room_max);
            Error::new(ErrorKind::MessageTooLarge, "produce", cause).topic(&topic).partition(partition)
        };
        let room = u32::try_from(batches.len()).map_err(|_| too_large())?;
        if batches.len() > self.link.raw_room_max {
            return Err(too_large());
        }
        let _room = self.link.raw_room.acquire_many(room).await.map_err(|_| Error::closed("produce"))?;
        let partition = PartitionIndex(partition);
        let request = CallRequest::Produce {
            topic,
            partition,
            batches,
            durability,
            expected_end_offset: None,
            wants_stage_times,
        };
        match self.link.call(request, self.link.request_timeout).await? {
            CallResponse::Produced(produced) => Ok(produced),
            other => Err(Error::new(ErrorKind::Internal, "produce", format!("answered with {other:?}"))),
        }
    }
}

impl ClientBuilder {
    /// How the client calls itself in brokers' logs; at most 64 bytes are sent. Default: `corrente`.
    pub fn client_id(mut self, client_id: impl Into<String>) -> ClientBuilder {
        self.client_id = client_id.into();
        self
    }

    /// How long a request may take, and how long an admin call may take with all its attempts. Default: 15 s.
    pub fn request_timeout(mut self, timeout: Duration) -> ClientBuilder {
        self.request_timeout = timeout;
        self
    }

    /// How long `connect` tries, and how long a broker may take to say hello. Default: 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> ClientBuilder {
        self.connect_timeout = timeout;
        self
    }

    /// The waits between attempts. Default: 20 ms, doubling up to 1 s, jittered.
    pub fn retry(mut self, retry: RetryPolicy) -> ClientBuilder {
        self.retry = retry;
        self
    }

    /// Bytes of [`Client::produce_raw`] that may be in flight. Default: 256 MiB.
    pub fn raw_unacked_bytes_max(mut self, bytes: usize) -> ClientBuilder {
        self.raw_unacked_bytes_max = bytes;
        self
    }

    /// Connects, and makes sure that a broker answers.
    ///
    /// # Errors
    /// `InvalidRequest` if an address is not `host:port`; `Timeout` if no broker answered within the connect timeout,
    /// with the last cause in its text.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn connect(self) -> Result<Client, Error> {
        let bootstrap =
            self.bootstrap.iter().map(|address| parse_address(address)).collect::<Result<Vec<_>, _>>()?;
        if bootstrap.is_empty() {
            return Err(Error::invalid("connect", "no broker is named"));
        }
        let mut settings = CoreSettings::new(bootstrap);
        settings.client_id = self.client_id;
        settings.request_timeout = self.request_timeout.max(Duration::from_millis(1));
        settings.connect_timeout = self.connect_timeout;
        settings.retry = self.retry;
        let raw_room_max = self.raw_unacked_bytes_max.min(tokio::sync::Semaphore::MAX_PERMITS);
        let client = Client { link: Link::start(settings, raw_room_max) };
        metadata(&client.link, Some(Vec::new()), self.connect_timeout)
            .await
            .map_err(|error| error.operation("connect"))?;
        Ok(client)
    }
}

pub(crate) async fn metadata(
    link: &Link,
    topics: Option<Vec<TopicName>>,
    timeout: Duration,
) -> Result<MetadataResponse, Error> {
    match link.call(CallRequest::Metadata(MetadataRequest { topics }), timeout).await? {
        CallResponse::Metadata(response) => Ok(response),
        other => Err(Error::new(ErrorKind::Internal, "metadata", format!("answered with {other:?}"))),
    }
}

/// How many partitions an existing topic has; at least 1.
pub(crate) async fn partition_count(link: &Link, topic: &TopicName) -> Result<u32, Error> {
    let response = metadata(link, Some(vec![topic.clone()]), link.request_timeout).await?;
    let count =
        response.topics.iter().find(|found| found.name == *topic).map_or(0, |found| found.partitions.len());
    match u32::try_from(count) {
        Ok(count) if count > 0 => Ok(count),
        _ => {
            Err(Error::new(ErrorKind::TopicNotFound, "metadata", "the topic has no partitions").topic(topic))
        }
    }
}

pub(crate) fn topic_name(operation: &'static str, name: &str) -> Result<TopicName, Error> {
    TopicName::new(name).map_err(|error| Error::invalid(operation, error.to_string()))
}

fn parse_address(address: &str) -> Result<(Arc<str>, u16), Error> {
    let wrong = || Error::invalid("connect", format!("broker address {address:?} is not HOST:PORT"));
    let (host, port) = address.trim().rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port: u16 = port.parse().map_err(|_| wrong())?;
    if host.is_empty() || port == 0 {
        return Err(wrong());
    }
    Ok((Arc::from(host), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        let good = [
            ("localhost:7400", "localhost", 7400),
            ("[::1]:1", "::1", 1),
            (" 10.0.0.1:65535 ", "10.0.0.1", 65535),
        ];
        for (text, host, port) in good {
            let parsed = parse_address(text).expect(text);
            assert_eq!((&*parsed.0, parsed.1), (host, port));
        }
        for text in
            ["", "localhost", ":7400", "localhost:", "localhost:0", "localhost:99999", "localhost:http"]
        {
            let error = parse_address(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        }
    }
}
