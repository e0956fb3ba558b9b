//! Requests and responses, one file for each api.
//!
//! A type here is what its bytes mean and nothing more: it is not checked against any topic, and names that a broker
//! has to judge stay plain text. Each file holds the request, the response and their bytes side by side.

pub mod add_partitions;
pub mod adjust_subscription;
pub mod alter_topic;
pub mod create_topic;
pub mod delete_records;
pub mod delete_topic;
pub mod describe_topic;
mod error_response;
pub mod fetch;
pub mod init_producer_id;
pub mod list_offsets;
pub mod metadata;
pub mod produce;
pub mod stage_times;
pub mod subscribe;
#[cfg(test)]
mod testing;

use std::fmt;
use std::ops::RangeInclusive;

use bytes::Bytes;

pub use add_partitions::{AddPartitionsRequest, AddPartitionsResponse};
pub use adjust_subscription::{AdjustSubscriptionRequest, AdjustSubscriptionResponse};
pub use alter_topic::{AlterTopicRequest, AlterTopicResponse};
pub use create_topic::{CreateTopicRequest, CreateTopicResponse};
pub use delete_records::{
    DeleteBefore, DeleteRecordsPartition, DeleteRecordsPartitionResponse, DeleteRecordsRequest,
    DeleteRecordsResponse,
};
pub use delete_topic::{DeleteTopicRequest, DeleteTopicResponse};
pub use describe_topic::{
    DescribeTopicRequest, DescribeTopicResponse, PartitionDescription, PartitionState, TopicConfigEntry,
};
pub use error_response::ErrorResponse;
pub use fetch::{FetchPartition, FetchPartitionResponse, FetchRequest, FetchResponse};
pub use init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
pub use list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, OffsetSpec,
};
pub use metadata::{MetadataRequest, MetadataResponse, NodeEndpoint, PartitionMetadata, TopicMetadata};
pub use produce::{ProducePartition, ProducePartitionResponse, ProduceRequest, ProduceResponse};
pub use stage_times::StageTimes;
pub use subscribe::{SubscribePartition, SubscribeRequest};

use crate::error_code::ErrorCode;
use crate::wire::{DecodeError, Reader, Writer};

/// Api keys that belong to authentication; no build uses them yet.
pub const AUTHENTICATION_API_KEYS: RangeInclusive<u16> = 0x0100..=0x01ff;

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum ApiKey {
    /// Append record batches.
    Produce,
    /// Read record batches.
    Fetch,
    /// Find offsets by what they mean.
    ListOffsets,
    /// Nodes, topics and who leads what.
    Metadata,
    /// Have record batches sent as they come.
    Subscribe,
    /// Give a subscription more credit, or end it.
    AdjustSubscription,
    /// Create a topic.
    CreateTopic,
    /// Delete a topic.
    DeleteTopic,
    /// Change a topic's configuration.
    AlterTopic,
    /// All that is known of one topic.
    DescribeTopic,
    /// Give a topic more partitions.
    AddPartitions,
    /// Delete the oldest records of partitions.
    DeleteRecords,
    /// An id for an idempotent producer.
    InitProducerId,
    /// A number that this build does not serve.
    Unknown(u16),
}

impl ApiKey {
    /// Every api this build serves.
    pub const ALL: [ApiKey; 13] = [
        ApiKey::Produce,
        ApiKey::Fetch,
        ApiKey::ListOffsets,
        ApiKey::Metadata,
        ApiKey::Subscribe,
        ApiKey::AdjustSubscription,
        ApiKey::CreateTopic,
        ApiKey::DeleteTopic,
        ApiKey::AlterTopic,
        ApiKey::DescribeTopic,
        ApiKey::AddPartitions,
        ApiKey::DeleteRecords,
        ApiKey::InitProducerId,
    ];

    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            ApiKey::Produce => 1,
            ApiKey::Fetch => 2,
            ApiKey::ListOffsets => 3,
            ApiKey::Metadata => 4,
            ApiKey::Subscribe => 5,
            ApiKey::AdjustSubscription => 6,
            ApiKey::CreateTopic => 16,
            ApiKey::DeleteTopic => 17,
            ApiKey::AlterTopic => 18,
            ApiKey::DescribeTopic => 19,
            ApiKey::AddPartitions => 20,
            ApiKey::DeleteRecords => 21,
            ApiKey::InitProducerId => 22,
            ApiKey::Unknown(number) => number,
        }
    }

    /// The api with this number.
    pub const fn from_code(number: u16) -> ApiKey {
        match number {
            1 => ApiKey::Produce,
            2 => ApiKey::Fetch,
            3 => ApiKey::ListOffsets,
            4 => ApiKey::Metadata,
            5 => ApiKey::Subscribe,
            6 => ApiKey::AdjustSubscription,
            16 => ApiKey::CreateTopic,
            17 => ApiKey::DeleteTopic,
            18 => ApiKey::AlterTopic,
            19 => ApiKey::DescribeTopic,
            20 => ApiKey::AddPartitions,
            21 => ApiKey::DeleteRecords,
            22 => ApiKey::InitProducerId,
            _ => ApiKey::Unknown(number),
        }
    }

    /// The name used in logs, metrics and errors.
    pub const fn name(self) -> &'static str {
        match self {
            ApiKey::Produce => "produce",
            ApiKey::Fetch => "fetch",
            ApiKey::ListOffsets => "list_offsets",
            ApiKey::Metadata => "metadata",
            ApiKey::Subscribe => "subscribe",
            ApiKey::AdjustSubscription => "adjust_subscription",
            ApiKey::CreateTopic => "create_topic",
            ApiKey::DeleteTopic => "delete_topic",
            ApiKey::AlterTopic => "alter_topic",
            ApiKey::DescribeTopic => "describe_topic",
            ApiKey::AddPartitions => "add_partitions",
            ApiKey::DeleteRecords => "delete_records",
            ApiKey::InitProducerId => "init_producer_id",
            ApiKey::Unknown(_) => "unknown",
        }
    }

    /// The newest version of this api's bodies that this build speaks, or `None` for an unknown api. All older ones,
    /// down to 0, are spoken too.
    pub const fn newest_version(self) -> Option<u16> {
        match self {
            ApiKey::Unknown(_) => None,
            _ => Some(0),
        }
    }

    /// Why a request for this api in this version is refused before its body is looked at, if it is.
    pub const fn refuse(self, version: u16) -> Option<ErrorCode> {
        match self.newest_version() {
            None => Some(ErrorCode::UnsupportedApi),
            Some(newest) if version > newest => Some(ErrorCode::UnsupportedVersion),
            Some(_) => None,
        }
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApiKey::Unknown(number) => write!(f, "api {number}"),
            known => f.write_str(known.name()),
        }
    }
}

/// The body of a request or of a response.
pub trait Message: Sized {
    /// The newest version this build reads and writes.
    const NEWEST_VERSION: u16 = 0;

    /// Writes the body. `version` is at most [`Message::NEWEST_VERSION`].
    fn encode(&self, version: u16, writer: &mut Writer);

    /// Reads the body's fields; [`Message::decode`] checks the version before and the end after.
    fn read(version: u16, reader: &mut Reader) -> Result<Self, DecodeError>;

    /// The message whose whole body this is. Payloads are slices of `body`.
    fn decode(version: u16, body: Bytes) -> Result<Self, DecodeError> {
        read_whole(version, Reader::new(body))
    }
}

fn read_whole<M: Message>(version: u16, mut reader: Reader) -> Result<M, DecodeError> {
    if version > M::NEWEST_VERSION {
        return Err(DecodeError::UnsupportedVersion { version, newest: M::NEWEST_VERSION });
    }
    let message = M::read(version, &mut reader)?;
    reader.finish()?;
    Ok(message)
}

/// The most elements that a list in a request may have. The smallest elements take a few bytes on the wire and some
/// hundred in memory and in the answer: without this bound a body that is let in could become many times its size.
pub const REQUEST_LIST_LEN_MAX: usize = 10_000;

/// The body of a request; names its api and its response.
pub trait Request: Message {
    /// The api.
    const API: ApiKey;
    /// What answers it.
    type Response: Message;

    /// [`Message::decode`] as whoever serves strangers does it: lists are bounded by [`REQUEST_LIST_LEN_MAX`].
    fn decode_bounded(version: u16, body: Bytes) -> Result<Self, DecodeError> {
        read_whole(version, Reader::with_lists_up_to(REQUEST_LIST_LEN_MAX, body))
    }
}

/// An outcome with nothing else to say: the error, and more about it in the one tagged field.
fn put_message(message: Option<&str>, writer: &mut Writer) {
    let mut tags = crate::wire::TaggedWriter::new();
    if let Some(message) = message {
        tags.field(TAG_MESSAGE, |w| w.put_str(message));
    }
    tags.finish(writer);
}

fn read_message(reader: &mut Reader) -> Result<Option<String>, DecodeError> {
    let mut message = None;
    reader.tagged(|tag, value| {
        if tag == TAG_MESSAGE {
            message = Some(value.string()?);
        }
        Ok(tag == TAG_MESSAGE)
    })?;
    Ok(message)
}

/// In every section that has it: text that says more about the error beside it.
const TAG_MESSAGE: u16 = 0;

fn put_configs(configs: &[(String, String)], writer: &mut Writer) {
    writer.put_list(configs, |w, (key, value)| {
        w.put_str(key);
        w.put_str(value);
    });
}

fn read_configs(reader: &mut Reader) -> Result<Vec<(String, String)>, DecodeError> {
    reader.list(8, |r| Ok((r.string()?, r.string()?)))
}

fn read_error(reader: &mut Reader) -> Result<ErrorCode, DecodeError> {
    reader.u16().map(ErrorCode::from_code)
}

/// Entry for fuzzing: the body of a request of one api, and the same bytes as the body of a response.
#[doc(hidden)]
pub fn fuzz_api<R>(body: &[u8])
where
    R: Request + PartialEq + fmt::Debug,
    R::Response: PartialEq + fmt::Debug,
{
    fuzz_message::<R>(body);
    fuzz_message::<R::Response>(body);
    let body = Bytes::copy_from_slice(body);
    match R::decode_bounded(0, body.clone()) {
        Err(DecodeError::ListTooLong { count, .. }) => {
            assert!(count > REQUEST_LIST_LEN_MAX, "a list of {count} was refused");
        }
        bounded => assert_eq!(bounded, R::decode(0, body), "the bound has changed more than the bound"),
    }
}

/// Entry for fuzzing: one body. What was understood means the same when it is written and read again.
#[doc(hidden)]
pub fn fuzz_message<M: Message + PartialEq + fmt::Debug>(body: &[u8]) {
    let Ok(message) = M::decode(0, Bytes::copy_from_slice(body)) else { return };
    let mut writer = Writer::new();
    message.encode(0, &mut writer);
    let len = writer.len();
    let written = Bytes::from(writer.finish().concat());
    assert_eq!(written.len(), len);
    assert_eq!(M::decode(0, written), Ok(message));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_number_survives() {
        for number in 0..=u16::MAX {
            assert_eq!(ApiKey::from_code(number).code(), number);
        }
        for api in ApiKey::ALL {
            assert_eq!(ApiKey::from_code(api.code()), api);
            assert!(!AUTHENTICATION_API_KEYS.contains(&api.code()), "{api}");
        }
    }

    #[test]
    fn what_is_not_served_is_refused_before_its_body() {
        assert_eq!(ApiKey::Fetch.refuse(0), None);
        assert_eq!(ApiKey::Fetch.refuse(1), Some(ErrorCode::UnsupportedVersion));
        assert_eq!(ApiKey::Unknown(999).refuse(0), Some(ErrorCode::UnsupportedApi));
        let error = MetadataRequest::decode(1, Bytes::new()).unwrap_err();
        assert_eq!(error, DecodeError::UnsupportedVersion { version: 1, newest: 0 });
    }

    #[test]
    fn a_list_in_a_request_is_bounded_and_one_in_a_response_is_not() {
        let partition = |index| ListOffsetsPartition {
            topic: crate::ids::TopicId([7; 16]),
            partition: crate::ids::PartitionIndex(index),
            spec: OffsetSpec::Latest,
        };
        let asking_for = |len: u32| {
            let mut writer = Writer::new();
            ListOffsetsRequest { partitions: (0..len).map(partition).collect() }.encode(0, &mut writer);
            Bytes::from(writer.finish().concat())
        };
        let longest = asking_for(10_000);
        assert_eq!(
            ListOffsetsRequest::decode_bounded(0, longest.clone()),
            ListOffsetsRequest::decode(0, longest)
        );
        let error = ListOffsetsRequest::decode_bounded(0, asking_for(10_001)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a list of 10001 elements is longer than the 10000 allowed in a request"
        );
        assert_eq!(error.error_code(), ErrorCode::InvalidRequest);
        assert!(ListOffsetsRequest::decode(0, asking_for(10_001)).is_ok());
    }

    proptest! {
        #[test]
        fn error_response_survives(error in testing::any_error(), message in testing::any_message()) {
            testing::assert_survives(&ErrorResponse { error, message });
        }

        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..400)) {
            for (_, entry) in crate::fuzz::ENTRIES.iter().filter(|(name, _)| name.starts_with("api_")) {
                entry(&noise);
            }
        }
    }
}
