//! Kafka's wire protocol, as far as this broker serves it: which requests, in which versions, and their bytes.
//!
//! The layouts are those of Kafka's message definitions (Apache Kafka, `clients/src/main/resources/common/message`) and
//! of its [protocol guide](https://kafka.apache.org/protocol). Each message says its layout once, in
//! [`Message::walk`]; reading and writing both walk it. Record batches are the ones of [`crate::record_batch`]: nothing
//! of them is translated.

pub mod api_versions;
pub mod create_topics;
pub mod delete_topics;
mod error_code;
pub mod fetch;
mod fields;
pub mod find_coordinator;
mod header;
pub mod init_producer_id;
pub mod list_offsets;
pub mod metadata;
pub mod produce;
mod reader;
#[cfg(test)]
mod tests;
mod topic_name;
mod writer;

pub use error_code::KafkaError;
pub use fields::{DecodeError, Fields};
#[doc(hidden)]
pub use header::fuzz_kafka_request;
pub use header::{FRAME_LEN_BYTES, HeaderError, RequestHeader, response_frame};
pub use reader::Reader;
pub use topic_name::IDS_FROM;
pub use writer::Writer;

use bytes::Bytes;

/// A kind of request, by the number that Kafka gives it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ApiKey {
    /// Append record batches.
    Produce,
    /// Read record batches.
    Fetch,
    /// Find offsets by what they mean.
    ListOffsets,
    /// Brokers, topics, partitions and their leaders.
    Metadata,
    /// Which broker coordinates a group or a transaction.
    FindCoordinator,
    /// What this broker serves.
    ApiVersions,
    /// New topics.
    CreateTopics,
    /// Topics go.
    DeleteTopics,
    /// An id for an idempotent producer.
    InitProducerId,
}

/// What is served of one kind of request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Served {
    /// Its kind.
    pub api: ApiKey,
    /// The oldest version served.
    pub oldest: i16,
    /// The newest version served.
    pub newest: i16,
    /// The oldest version with compact lengths and tagged fields (KIP-482).
    flexible_from: i16,
}

impl Served {
    /// The oldest version that clients are told of. Librdkafka takes a broker whose oldest Produce is not 0 for one of
    /// another age (KAFKA-18659).
    pub fn oldest_told(&self) -> i16 {
        if self.api == ApiKey::Produce { 0 } else { self.oldest }
    }
}

const fn served(api: ApiKey, oldest: i16, newest: i16, flexible_from: i16) -> Served {
    Served { api, oldest, newest, flexible_from }
}

/// Everything that is served, by number.
pub const SERVED: [Served; 9] = [
    served(ApiKey::Produce, 3, 13, 9),
    served(ApiKey::Fetch, 4, 18, 12),
    served(ApiKey::ListOffsets, 1, 10, 6),
    served(ApiKey::Metadata, 0, 13, 9),
    served(ApiKey::FindCoordinator, 0, 4, 3),
    served(ApiKey::ApiVersions, 0, 4, 3),
    served(ApiKey::CreateTopics, 2, 7, 5),
    served(ApiKey::DeleteTopics, 1, 6, 4),
    served(ApiKey::InitProducerId, 0, 5, 2),
];

impl ApiKey {
    /// Its number on the wire.
    pub const fn code(self) -> i16 {
        match self {
            ApiKey::Produce => 0,
            ApiKey::Fetch => 1,
            ApiKey::ListOffsets => 2,
            ApiKey::Metadata => 3,
            ApiKey::FindCoordinator => 10,
            ApiKey::ApiVersions => 18,
            ApiKey::CreateTopics => 19,
            ApiKey::DeleteTopics => 20,
            ApiKey::InitProducerId => 22,
        }
    }

    /// The kind with this number, if it is served.
    pub fn from_code(code: i16) -> Option<ApiKey> {
        SERVED.iter().map(|served| served.api).find(|api| api.code() == code)
    }

    /// What is served of it.
    pub fn served(self) -> &'static Served {
        SERVED.iter().find(|served| served.api == self).expect("every kind is in the table")
    }

    /// Whether this version has compact lengths and tagged fields.
    pub fn is_flexible(self, version: i16) -> bool {
        version >= self.served().flexible_from
    }
}

/// A request or a response, whose layout depends on its version.
pub trait Message: Default {
    /// Whose message it is.
    const API: ApiKey;

    /// Visits its fields in the order of the wire: `fields` reads or writes each.
    fn walk<F: Fields>(&mut self, version: i16, fields: &mut F) -> Result<(), DecodeError>;

    /// Reads a body. Bytes behind the last field are passed over, as Kafka does: librdkafka 2 sends three when it
    /// asks for the metadata of all topics.
    fn decode(version: i16, body: Bytes) -> Result<Self, DecodeError> {
        let mut message = Self::default();
        let mut reader = Reader::new(body, Self::API.is_flexible(version));
        message.walk(version, &mut reader)?;
        Ok(message)
    }

    /// Writes a whole body.
    fn encode(mut self, version: i16, writer: &mut Writer) {
        self.walk(version, writer).expect("a writer takes what it is given");
    }
}

/// Entry for fuzzing: two bytes choose a message and its version, the rest is a body. What is read comes back from
/// what is written of it.
#[doc(hidden)]
pub fn fuzz_kafka_message(input: &[u8]) {
    let [choice, version, body @ ..] = input else { return };
    let (version, body) = (i16::from(*version), Bytes::copy_from_slice(body));
    match choice % 18 {
        0 => survives::<produce::ProduceRequest>(version, body),
        1 => survives::<produce::ProduceResponse>(version, body),
        2 => survives::<fetch::FetchRequest>(version, body),
        3 => survives::<fetch::FetchResponse>(version, body),
        4 => survives::<list_offsets::ListOffsetsRequest>(version, body),
        5 => survives::<list_offsets::ListOffsetsResponse>(version, body),
        6 => survives::<metadata::MetadataRequest>(version, body),
        7 => survives::<metadata::MetadataResponse>(version, body),
        8 => survives::<find_coordinator::FindCoordinatorRequest>(version, body),
        9 => survives::<find_coordinator::FindCoordinatorResponse>(version, body),
        10 => survives::<api_versions::ApiVersionsRequest>(version, body),
        11 => survives::<api_versions::ApiVersionsResponse>(version, body),
        12 => survives::<create_topics::CreateTopicsRequest>(version, body),
        13 => survives::<create_topics::CreateTopicsResponse>(version, body),
        14 => survives::<delete_topics::DeleteTopicsRequest>(version, body),
        15 => survives::<delete_topics::DeleteTopicsResponse>(version, body),
        16 => survives::<init_producer_id::InitProducerIdRequest>(version, body),
        _ => survives::<init_producer_id::InitProducerIdResponse>(version, body),
    }
}

fn survives<M: Message + Clone + PartialEq + std::fmt::Debug>(version: i16, body: Bytes) {
    let served = M::API.served();
    let version = served.oldest + version % (served.newest - served.oldest + 1);
    let Ok(message) = M::decode(version, body) else { return };
    let mut writer = Writer::new(crate::wire::Writer::new(), M::API.is_flexible(version));
    message.clone().encode(version, &mut writer);
    let again = M::decode(version, Bytes::from(writer.finish().concat()));
    assert_eq!(again.as_ref(), Ok(&message), "version {version}");
}
