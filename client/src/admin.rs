//! Topics and their records: create, change, look at, delete.

use std::sync::Arc;

use corrente_protocol::api::{
    AddPartitionsRequest, AlterTopicRequest, CreateTopicRequest, DeleteBefore, DeleteTopicRequest,
    DescribeTopicRequest, MetadataResponse, OffsetSpec, PartitionDescription, TopicConfigEntry,
    TopicMetadata,
};
use corrente_protocol::ids::{Offset, PartitionIndex, TopicId, TopicName};
use futures_util::future::try_join_all;

use crate::client::{metadata, partition_count, topic_name};
use crate::core::call::{CallRequest, CallResponse};
use crate::error::{Error, ErrorKind};
use crate::transport::Link;

/// Administration of a cluster. Every call is tried again until the client's request timeout.
///
/// No call is cancel-safe in the strict sense: dropped before it is ready, it may or may not have had its effect.
/// The names of topics are judged by the broker.
#[derive(Debug, Clone)]
pub struct Admin {
    pub(crate) link: Arc<Link>,
}

/// A topic to be created.
#[derive(Debug, Clone)]
#[must_use]
pub struct NewTopic {
    request: CreateTopicRequest,
}

/// What a topic is and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: TopicId,
    /// Its configuration, defaults included.
    pub configs: Vec<TopicConfigEntry>,
    /// Its partitions, by index.
    pub partitions: Vec<PartitionDescription>,
}

/// An offset of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionOffset {
    /// The partition.
    pub partition: u32,
    /// The offset asked for; the high watermark where no record is as late as was asked.
    pub offset: Offset,
    /// Timestamp of the record there, in milliseconds since the Unix epoch, where the question was about timestamps and
    /// there is such a record.
    pub timestamp_ms: Option<i64>,
}

/// Changes to a topic's configuration.
#[derive(Debug, Clone)]
#[must_use]
pub struct TopicChanges {
    request: AlterTopicRequest,
}

impl NewTopic {
    /// A topic with this many partitions, the cluster's default replication and default configuration.
    pub fn new(name: impl Into<String>, partitions: u32) -> NewTopic {
        NewTopic {
            request: CreateTopicRequest {
                name: name.into(),
                partitions,
                replication_factor: 0,
                configs: Vec::new(),
                validate_only: false,
            },
        }
    }

    /// Sets one configuration.
    pub fn config(mut self, key: impl Into<String>, value: impl Into<String>) -> NewTopic {
        self.request.configs.push((key.into(), value.into()));
        self
    }

    /// How many replicas each partition has.
    pub fn replication_factor(mut self, replicas: u16) -> NewTopic {
        self.request.replication_factor = replicas;
        self
    }

    /// Only finds out whether it could be created.
    pub fn validate_only(mut self) -> NewTopic {
        self.request.validate_only = true;
        self
    }
}

impl TopicChanges {
    /// No change yet, to this topic.
    pub fn new(name: impl Into<String>) -> TopicChanges {
        let name = name.into();
        TopicChanges {
            request: AlterTopicRequest { name, set: Vec::new(), unset: Vec::new(), validate_only: false },
        }
    }

    /// Sets one configuration.
    pub fn set(mut self, key: impl Into<String>, value: impl Into<String>) -> TopicChanges {
        self.request.set.push((key.into(), value.into()));
        self
    }

    /// Returns one configuration to its default.
    pub fn unset(mut self, key: impl Into<String>) -> TopicChanges {
        self.request.unset.push(key.into());
        self
    }

    /// Only finds out whether it could be done.
    pub fn validate_only(mut self) -> TopicChanges {
        self.request.validate_only = true;
        self
    }
}

impl Admin {
    /// Creates a topic and returns its id; nil if it was only validated.
    ///
    /// # Errors
    /// `TopicAlreadyExists`, also if an earlier attempt of this very call created it and its answer was lost
    /// (`maybe_applied` says so then); `InvalidRequest`; `Timeout`.
    pub async fn create_topic(&self, topic: NewTopic) -> Result<TopicId, Error> {
        match self.call(CallRequest::CreateTopic(topic.request)).await? {
            CallResponse::Created(id) => Ok(id),
            other => Err(unexpected("create topic", &other)),
        }
    }

    /// Deletes a topic and all its records.
    ///
    /// # Errors
    /// `TopicNotFound`, also if an earlier attempt of this very call deleted it; `Timeout`.
    pub async fn delete_topic(&self, name: &str) -> Result<(), Error> {
        self.done(CallRequest::DeleteTopic(DeleteTopicRequest { name: name.to_owned() })).await
    }

    /// Changes the configuration of a topic, all of it or nothing.
    ///
    /// # Errors
    /// `TopicNotFound`; `InvalidRequest`; `Timeout`.
    pub async fn alter_topic(&self, changes: TopicChanges) -> Result<(), Error> {
        self.done(CallRequest::AlterTopic(changes.request)).await
    }

    /// Grows a topic to `total` partitions. Keys are spread over all of them from then on.
    ///
    /// # Errors
    /// `TopicNotFound`; `InvalidRequest` if it has more already; `Timeout`.
    pub async fn add_partitions(&self, name: &str, total: u32) -> Result<(), Error> {
        let request = AddPartitionsRequest { name: name.to_owned(), total, validate_only: false };
        self.done(CallRequest::AddPartitions(request)).await
    }

    /// All topics, with their partitions and leaders.
    ///
    /// # Errors
    /// `Timeout`.
    pub async fn list_topics(&self) -> Result<Vec<TopicMetadata>, Error> {
        Ok(metadata(&self.link, None, self.link.request_timeout).await?.topics)
    }

    /// The nodes of the cluster and which of them is the controller; no topics.
    ///
    /// # Errors
    /// `Timeout`.
    pub async fn describe_cluster(&self) -> Result<MetadataResponse, Error> {
        metadata(&self.link, Some(Vec::new()), self.link.request_timeout).await
    }

    /// Configuration, partitions, their sizes and states of a topic.
    ///
    /// # Errors
    /// `TopicNotFound`; `Timeout`.
    pub async fn describe_topic(&self, name: &str) -> Result<TopicDescription, Error> {
        match self.call(CallRequest::DescribeTopic(DescribeTopicRequest { name: name.to_owned() })).await? {
            CallResponse::Described(response) => Ok(TopicDescription {
                name: name.to_owned(),
                id: response.id,
                configs: response.configs,
                partitions: response.partitions,
            }),
            other => Err(unexpected("describe topic", &other)),
        }
    }

    /// One offset of every partition of a topic, by index: where it begins or ends, or where a time does. Timestamps
    /// need not be in order: `Timestamp` finds the first record that is late enough, whatever follows it.
    ///
    /// # Errors
    /// `TopicNotFound`; `Timeout`; what the broker says of the first partition that fails.
    pub async fn list_offsets(&self, topic: &str, spec: OffsetSpec) -> Result<Vec<PartitionOffset>, Error> {
        let topic = topic_name("list offsets", topic)?;
        let count =
            partition_count(&self.link, &topic).await.map_err(|error| error.operation("list offsets"))?;
        try_join_all((0..count).map(|partition| self.find_offset(topic.clone(), partition, spec))).await
    }

    /// One offset of one partition; see [`list_offsets`](Admin::list_offsets).
    ///
    /// # Errors
    /// `TopicNotFound`, for the partition too; `Timeout`; what else the broker says.
    pub async fn list_offset(
        &self,
        topic: &str,
        partition: u32,
        spec: OffsetSpec,
    ) -> Result<PartitionOffset, Error> {
        self.find_offset(topic_name("list offsets", topic)?, partition, spec).await
    }

    async fn find_offset(
        &self,
        topic: TopicName,
        partition: u32,
        spec: OffsetSpec,
    ) -> Result<PartitionOffset, Error> {
        let request = CallRequest::ListOffsets { topic, partition: PartitionIndex(partition), spec };
        match self.call(request).await? {
            CallResponse::Offset(found) => {
                Ok(PartitionOffset { partition, offset: found.offset, timestamp_ms: found.timestamp_ms })
            }
            other => Err(unexpected("list offsets", &other)),
        }
    }

    /// Deletes the oldest records of a partition, and returns the offset at which it begins now. It begins there for
    /// good once this has returned. Where it began later already, nothing changes.
    ///
    /// # Errors
    /// `OffsetOutOfRange` beyond the high watermark; `Refused` if the topic is compacted and not deleted from;
    /// `TopicNotFound`; `Timeout`.
    pub async fn delete_records(
        &self,
        topic: &str,
        partition: u32,
        before: DeleteBefore,
    ) -> Result<Offset, Error> {
        let topic = topic_name("delete records", topic)?;
        let request = CallRequest::DeleteRecords { topic, partition: PartitionIndex(partition), before };
        match self.call(request).await? {
            CallResponse::RecordsDeleted(log_start_offset) => Ok(log_start_offset),
            other => Err(unexpected("delete records", &other)),
        }
    }

    async fn done(&self, request: CallRequest) -> Result<(), Error> {
        match self.call(request).await? {
            CallResponse::Done => Ok(()),
            other => Err(unexpected("change topic", &other)),
        }
    }

    async fn call(&self, request: CallRequest) -> Result<CallResponse, Error> {
        self.link.call(request, self.link.request_timeout).await
    }
}

fn unexpected(operation: &'static str, response: &CallResponse) -> Error {
    Error::new(ErrorKind::Internal, operation, format!("answered with {response:?}"))
}
