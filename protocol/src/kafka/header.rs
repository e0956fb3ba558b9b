//! What stands before the body of a request and of a response.

use bytes::{Buf, Bytes};

use super::fields::{DecodeError, Fields};
use super::{
    ApiKey, Message, Reader, Writer, api_versions, create_topics, delete_topics, fetch, find_coordinator,
    init_producer_id, list_offsets, metadata, produce,
};
use crate::wire;

/// Every frame begins with its length in so many bytes, which do not count.
pub const FRAME_LEN_BYTES: usize = 4;

/// The numbers that every request begins with, whatever its kind and version.
const FIXED_LEN: usize = 2 + 2 + 4;

/// What stands before the body of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestHeader {
    /// What is asked for.
    pub api: ApiKey,
    /// In which version.
    pub version: i16,
    /// Returned with the response.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<String>,
}

/// Why a request cannot be told to be one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    /// The kind is not served, or not known.
    #[error("request kind {code} is not served by this broker")]
    UnknownApi {
        /// Its number.
        code: i16,
    },
    /// The kind is served, and not in this version.
    #[error("version {version} of {api:?} is not served by this broker, only {oldest} to {newest}")]
    UnsupportedVersion {
        /// Which kind.
        api: ApiKey,
        /// The version asked for.
        version: i16,
        /// Returned with the response.
        correlation_id: i32,
        /// The oldest served.
        oldest: i16,
        /// The newest served.
        newest: i16,
    },
    /// The header is not whole.
    #[error("the header of a request: {0}")]
    Decode(#[from] DecodeError),
}

impl RequestHeader {
    /// Takes the header off a frame, of which the body stays.
    pub fn decode(frame: Bytes) -> Result<(RequestHeader, Bytes), HeaderError> {
        let mut rest = frame;
        if rest.len() < FIXED_LEN {
            return Err(DecodeError::Truncated { needed: FIXED_LEN, remaining: rest.len() }.into());
        }
        let (code, version, correlation_id) = (rest.get_i16(), rest.get_i16(), rest.get_i32());
        let api = ApiKey::from_code(code).ok_or(HeaderError::UnknownApi { code })?;
        let served = api.served();
        if version < served.oldest || version > served.newest {
            let (oldest, newest) = (served.oldest, served.newest);
            return Err(HeaderError::UnsupportedVersion { api, version, correlation_id, oldest, newest });
        }
        let mut header = RequestHeader { api, version, correlation_id, client_id: None };
        // The client's name came before compact lengths did, and kept its own.
        let mut reader = Reader::new(rest, false);
        reader.nullable_string(&mut header.client_id)?;
        let mut reader = Reader::new(reader.into_rest(), api.is_flexible(version));
        reader.tags()?;
        Ok((header, reader.into_rest()))
    }
}

/// Entry for fuzzing: a frame without its length, as a broker takes it apart.
#[doc(hidden)]
pub fn fuzz_kafka_request(frame: &[u8]) {
    let Ok((header, body)) = RequestHeader::decode(Bytes::copy_from_slice(frame)) else { return };
    assert!(body.len() < frame.len(), "{} bytes of body in a frame of {}", body.len(), frame.len());
    let version = header.version;
    // Whether it can be read is the body's affair.
    let _ = match header.api {
        ApiKey::Produce => produce::ProduceRequest::decode(version, body).err(),
        ApiKey::Fetch => fetch::FetchRequest::decode(version, body).err(),
        ApiKey::ListOffsets => list_offsets::ListOffsetsRequest::decode(version, body).err(),
        ApiKey::Metadata => metadata::MetadataRequest::decode(version, body).err(),
        ApiKey::FindCoordinator => find_coordinator::FindCoordinatorRequest::decode(version, body).err(),
        ApiKey::ApiVersions => api_versions::ApiVersionsRequest::decode(version, body).err(),
        ApiKey::CreateTopics => create_topics::CreateTopicsRequest::decode(version, body).err(),
        ApiKey::DeleteTopics => delete_topics::DeleteTopicsRequest::decode(version, body).err(),
        ApiKey::InitProducerId => init_producer_id::InitProducerIdRequest::decode(version, body).err(),
    };
}

/// A whole frame that answers a request, in pieces.
pub fn response_frame<M: Message>(correlation_id: i32, version: i16, response: M) -> Vec<Bytes> {
    let flexible = M::API.is_flexible(version);
    let mut out = wire::Writer::new();
    out.put_raw(&correlation_id.to_be_bytes());
    // A client reads this one before it knows what the broker speaks.
    if flexible && M::API != ApiKey::ApiVersions {
        out.put_u8(0);
    }
    let mut writer = Writer::new(out, flexible);
    response.encode(version, &mut writer);
    let mut pieces = writer.finish();
    let len: usize = pieces.iter().map(Bytes::len).sum();
    let len = i32::try_from(len).expect("a response is shorter than 2 GiB");
    pieces.insert(0, Bytes::copy_from_slice(&len.to_be_bytes()));
    pieces
}
