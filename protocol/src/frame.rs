//! What stands before every request and every response: a fixed header that says what follows and how long it is.
//!
//! The header carries a checksum of its own, so that a stream that lost its step is noticed at the next header and not
//! by acting on garbage. Anything wrong with a header ends the connection; anything wrong with a body is answered.

use std::fmt;
use std::str::FromStr;

use bytes::{Buf, Bytes, BytesMut};

use crate::api::ApiKey;
use crate::wire::Writer;

/// Length of a frame header, of requests and of responses, in bytes.
pub const FRAME_HEADER_LEN: usize = 32;

/// The longest body a broker takes and gives unless it is configured otherwise, in bytes.
pub const MAX_FRAME_DEFAULT: u32 = 16 * 1024 * 1024;

/// Response flag: the body is an [`crate::api::ErrorResponse`], whatever the api.
pub const FLAG_ERROR: u16 = 1;

/// Response flag: further responses to the same request follow, with the same correlation id.
pub const FLAG_MORE: u16 = 2;

const KIND_REQUEST: u8 = 1;
const KIND_RESPONSE: u8 = 2;

/// How safe records are: what a producer asks for, and what the receipt says was reached.
///
/// Ordered: each level includes those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Durability {
    /// In the leader's memory.
    Received = 0,
    /// Flushed to the leader's disk.
    LeaderFlushed = 1,
    /// Flushed to the leader's disk and in the memory of every in-sync replica.
    Replicated = 2,
    /// Flushed to the disk of every in-sync replica.
    IsrFlushed = 3,
}

impl Durability {
    /// Every level, lowest first.
    pub const ALL: [Durability; 4] =
        [Durability::Received, Durability::LeaderFlushed, Durability::Replicated, Durability::IsrFlushed];

    /// The number on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The level with this number.
    pub const fn from_code(number: u8) -> Option<Durability> {
        match number {
            0 => Some(Durability::Received),
            1 => Some(Durability::LeaderFlushed),
            2 => Some(Durability::Replicated),
            3 => Some(Durability::IsrFlushed),
            _ => None,
        }
    }

    /// The name used in configuration, flags and output.
    pub const fn name(self) -> &'static str {
        match self {
            Durability::Received => "received",
            Durability::LeaderFlushed => "leader_flushed",
            Durability::Replicated => "replicated",
            Durability::IsrFlushed => "isr_flushed",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text names no durability.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is not a durability: expected received, leader_flushed, replicated or isr_flushed")]
pub struct UnknownDurability(String);

impl FromStr for Durability {
    type Err = UnknownDurability;

    fn from_str(text: &str) -> Result<Durability, UnknownDurability> {
        Durability::ALL
            .into_iter()
            .find(|level| level.name() == text)
            .ok_or_else(|| UnknownDurability(text.chars().take(64).collect()))
    }
}

/// What stands before the body of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestHeader {
    /// What is asked for.
    pub api: ApiKey,
    /// Version of the body, and of the response's.
    pub version: u16,
    /// None are defined; send 0, ignore what is unknown.
    pub flags: u16,
    /// Chosen by the client, returned in the response; unique among the connection's requests in flight.
    pub correlation_id: u64,
    /// Milliseconds after which the client no longer waits, counted from arrival; 0 for no deadline.
    pub deadline_ms: u32,
    /// When a produce is to be answered. Without meaning in other requests; send [`Durability::Received`].
    pub durability: Durability,
    /// Bytes that follow.
    pub body_len: u32,
}

/// What stands before the body of a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResponseHeader {
    /// The request's.
    pub api: ApiKey,
    /// The request's.
    pub version: u16,
    /// [`FLAG_ERROR`], [`FLAG_MORE`] or 0.
    pub flags: u16,
    /// The request's.
    pub correlation_id: u64,
    /// Milliseconds the client should wait before its next request; 0 for none.
    pub throttle_ms: u32,
    /// The least that was reached for any partition of a produce; [`Durability::Received`] in other responses.
    pub receipt: Durability,
    /// Bytes that follow.
    pub body_len: u32,
}

/// Why a header cannot be believed. The connection ends: where the next frame begins is not known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// The header's bytes do not give the checksum they carry.
    #[error("frame header checksum is {computed:#010x} where {stated:#010x} is stated")]
    Checksum {
        /// In the header.
        stated: u32,
        /// Of the header.
        computed: u32,
    },
    /// A response where a request is expected, or the reverse.
    #[error("frame kind is {found} where {expected} is expected")]
    Kind {
        /// In the header.
        found: u8,
        /// 1 for requests, 2 for responses.
        expected: u8,
    },
    /// No durability has this number.
    #[error("durability {number} is not known")]
    Durability {
        /// In the header.
        number: u8,
    },
    /// The body is longer than agreed.
    #[error("frame body of {len} bytes is longer than the {max} bytes allowed")]
    BodyTooLarge {
        /// Stated in the header.
        len: u32,
        /// Allowed on this connection.
        max: u32,
    },
}

/// The fields both headers have in the same places; `wait_ms` is the deadline or the throttle.
struct Layout {
    api: u16,
    version: u16,
    flags: u16,
    durability: u8,
    kind: u8,
    body_len: u32,
    correlation_id: u64,
    wait_ms: u32,
}

impl Layout {
    fn encode(&self) -> [u8; FRAME_HEADER_LEN] {
        let mut bytes = [0; FRAME_HEADER_LEN];
        bytes[4..6].copy_from_slice(&self.api.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.version.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.flags.to_le_bytes());
        bytes[10] = self.durability;
        bytes[11] = self.kind;
        bytes[12..16].copy_from_slice(&self.body_len.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.correlation_id.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.wait_ms.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; FRAME_HEADER_LEN], expected_kind: u8) -> Result<(Layout, Durability), FrameError> {
        let mut fields = &bytes[..];
        let stated = fields.get_u32_le();
        let computed = crc32c::crc32c(&bytes[4..]);
        if stated != computed {
            return Err(FrameError::Checksum { stated, computed });
        }
        let layout = Layout {
            api: fields.get_u16_le(),
            version: fields.get_u16_le(),
            flags: fields.get_u16_le(),
            durability: fields.get_u8(),
            kind: fields.get_u8(),
            body_len: fields.get_u32_le(),
            correlation_id: fields.get_u64_le(),
            wait_ms: fields.get_u32_le(),
        };
        if layout.kind != expected_kind {
            return Err(FrameError::Kind { found: layout.kind, expected: expected_kind });
        }
        let durability = Durability::from_code(layout.durability)
            .ok_or(FrameError::Durability { number: layout.durability })?;
        Ok((layout, durability))
    }
}

impl RequestHeader {
    /// The header as bytes.
    pub fn encode(&self) -> [u8; FRAME_HEADER_LEN] {
        let layout = Layout {
            api: self.api.code(),
            version: self.version,
            flags: self.flags,
            durability: self.durability.code(),
            kind: KIND_REQUEST,
            body_len: self.body_len,
            correlation_id: self.correlation_id,
            wait_ms: self.deadline_ms,
        };
        layout.encode()
    }

    /// The header from bytes. Whether the body is too long is for [`cut_request`] to say.
    pub fn decode(bytes: &[u8; FRAME_HEADER_LEN]) -> Result<RequestHeader, FrameError> {
        let (layout, durability) = Layout::decode(bytes, KIND_REQUEST)?;
        Ok(RequestHeader {
            api: ApiKey::from_code(layout.api),
            version: layout.version,
            flags: layout.flags,
            correlation_id: layout.correlation_id,
            deadline_ms: layout.wait_ms,
            durability,
            body_len: layout.body_len,
        })
    }

    /// The header of the response to this request, with nothing in it yet.
    pub fn response(&self) -> ResponseHeader {
        ResponseHeader {
            api: self.api,
            version: self.version,
            flags: 0,
            correlation_id: self.correlation_id,
            throttle_ms: 0,
            receipt: Durability::Received,
            body_len: 0,
        }
    }
}

impl ResponseHeader {
    /// The header as bytes.
    pub fn encode(&self) -> [u8; FRAME_HEADER_LEN] {
        let layout = Layout {
            api: self.api.code(),
            version: self.version,
            flags: self.flags,
            durability: self.receipt.code(),
            kind: KIND_RESPONSE,
            body_len: self.body_len,
            correlation_id: self.correlation_id,
            wait_ms: self.throttle_ms,
        };
        layout.encode()
    }

    /// The header from bytes. Whether the body is too long is for [`cut_response`] to say.
    pub fn decode(bytes: &[u8; FRAME_HEADER_LEN]) -> Result<ResponseHeader, FrameError> {
        let (layout, receipt) = Layout::decode(bytes, KIND_RESPONSE)?;
        Ok(ResponseHeader {
            api: ApiKey::from_code(layout.api),
            version: layout.version,
            flags: layout.flags,
            correlation_id: layout.correlation_id,
            throttle_ms: layout.wait_ms,
            receipt,
            body_len: layout.body_len,
        })
    }

    /// Whether the body is an [`crate::api::ErrorResponse`].
    pub fn is_error(&self) -> bool {
        self.flags & FLAG_ERROR != 0
    }

    /// Whether further responses to the same request follow.
    pub fn has_more(&self) -> bool {
        self.flags & FLAG_MORE != 0
    }
}

/// A request as chunks for a vectored write: the header and the small values first, large payloads as they are.
///
/// `header.body_len` is filled in from what `body` writes.
pub fn request_frame(header: RequestHeader, body: impl FnOnce(&mut Writer)) -> Vec<Bytes> {
    frame(body, |body_len| RequestHeader { body_len, ..header }.encode())
}

/// A response as chunks for a vectored write; see [`request_frame`].
pub fn response_frame(header: ResponseHeader, body: impl FnOnce(&mut Writer)) -> Vec<Bytes> {
    frame(body, |body_len| ResponseHeader { body_len, ..header }.encode())
}

fn frame(body: impl FnOnce(&mut Writer), header: impl FnOnce(u32) -> [u8; FRAME_HEADER_LEN]) -> Vec<Bytes> {
    let mut writer = Writer::with_capacity(256);
    for _ in 0..FRAME_HEADER_LEN / 8 {
        writer.put_u64(0);
    }
    body(&mut writer);
    let body_len = u32::try_from(writer.len() - FRAME_HEADER_LEN).expect("a body's length fits in 32 bits");
    writer.overwrite_start(&header(body_len));
    writer.finish()
}

/// What stands at the front of the bytes received so far.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cut<H> {
    /// A whole frame, taken out of the buffer; the body shares its memory.
    Frame(H, Bytes),
    /// Not a whole frame yet: at least this many bytes are missing. Never more than a header and the longest body.
    Need(usize),
}

/// Takes the first request out of `buffer`, if it is all there. A body longer than `body_len_max` is refused as soon as
/// its header is there; the buffer is left alone then.
pub fn cut_request(buffer: &mut BytesMut, body_len_max: u32) -> Result<Cut<RequestHeader>, FrameError> {
    cut(buffer, body_len_max, RequestHeader::decode, |header| header.body_len)
}

/// Takes the first response out of `buffer`; see [`cut_request`].
pub fn cut_response(buffer: &mut BytesMut, body_len_max: u32) -> Result<Cut<ResponseHeader>, FrameError> {
    cut(buffer, body_len_max, ResponseHeader::decode, |header| header.body_len)
}

fn cut<H>(
    buffer: &mut BytesMut,
    body_len_max: u32,
    decode: impl FnOnce(&[u8; FRAME_HEADER_LEN]) -> Result<H, FrameError>,
    body_len: impl FnOnce(&H) -> u32,
) -> Result<Cut<H>, FrameError> {
    let Some(header) = buffer.first_chunk::<FRAME_HEADER_LEN>() else {
        return Ok(Cut::Need(FRAME_HEADER_LEN - buffer.len()));
    };
    let header = decode(header)?;
    let len = body_len(&header);
    if len > body_len_max {
        return Err(FrameError::BodyTooLarge { len, max: body_len_max });
    }
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let received = buffer.len() - FRAME_HEADER_LEN;
    if received < len {
        return Ok(Cut::Need(len - received));
    }
    buffer.advance(FRAME_HEADER_LEN);
    Ok(Cut::Frame(header, buffer.split_to(len).freeze()))
}

/// Entry for fuzzing: a stream of requests, and the same bytes as one of responses.
#[doc(hidden)]
pub fn fuzz_frame(input: &[u8]) {
    for mend in [false, true] {
        fuzz_stream(input, mend, cut_request, |header| RequestHeader::decode(&header.encode()));
        fuzz_stream(input, mend, cut_response, |header| ResponseHeader::decode(&header.encode()));
    }
}

/// With `mend`, each header gets the checksum of its bytes, so that what lies behind the checksum is reached.
fn fuzz_stream<H: PartialEq + fmt::Debug>(
    input: &[u8],
    mend: bool,
    cut: impl Fn(&mut BytesMut, u32) -> Result<Cut<H>, FrameError>,
    written_and_read: impl Fn(&H) -> Result<H, FrameError>,
) {
    const BODY_LEN_MAX: u32 = 1 << 20;
    let mut stream = BytesMut::from(input);
    loop {
        if mend && let Some(header) = stream.first_chunk_mut::<FRAME_HEADER_LEN>() {
            let checksum = crc32c::crc32c(&header[4..]);
            header[..4].copy_from_slice(&checksum.to_le_bytes());
        }
        let before = stream.len();
        match cut(&mut stream, BODY_LEN_MAX) {
            Ok(Cut::Frame(header, body)) => {
                assert_eq!(before, FRAME_HEADER_LEN + body.len() + stream.len());
                assert_eq!(written_and_read(&header), Ok(header));
            }
            Ok(Cut::Need(missing)) => {
                assert!(
                    missing > 0 && before + missing <= FRAME_HEADER_LEN + (1 << 20),
                    "{missing} are missing"
                );
                return;
            }
            Err(_) => {
                assert_eq!(stream.len(), before, "a refused stream is left alone");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_durability() -> impl Strategy<Value = Durability> {
        proptest::sample::select(Durability::ALL.to_vec())
    }

    prop_compose! {
        fn any_request_header()(api: u16, version: u16, flags: u16, correlation_id: u64, deadline_ms: u32,
                                durability in any_durability(), body_len: u32) -> RequestHeader {
            let api = ApiKey::from_code(api);
            RequestHeader { api, version, flags, correlation_id, deadline_ms, durability, body_len }
        }
    }

    prop_compose! {
        fn any_response_header()(api: u16, version: u16, flags: u16, correlation_id: u64, throttle_ms: u32,
                                 receipt in any_durability(), body_len: u32) -> ResponseHeader {
            let api = ApiKey::from_code(api);
            ResponseHeader { api, version, flags, correlation_id, throttle_ms, receipt, body_len }
        }
    }

    fn header() -> RequestHeader {
        RequestHeader {
            api: ApiKey::Produce,
            version: 0,
            flags: 0,
            correlation_id: 7,
            deadline_ms: 30_000,
            durability: Durability::IsrFlushed,
            body_len: 0,
        }
    }

    #[test]
    fn durability_is_ordered_and_named() {
        assert!(Durability::Received < Durability::LeaderFlushed);
        assert!(Durability::Replicated < Durability::IsrFlushed);
        for level in Durability::ALL {
            assert_eq!(level.to_string().parse::<Durability>(), Ok(level));
            assert_eq!(Durability::from_code(level.code()), Some(level));
        }
        assert!("fsync".parse::<Durability>().is_err());
    }

    #[test]
    fn an_oversized_body_is_refused_from_its_header_alone() {
        let mut buffer = BytesMut::from(&RequestHeader { body_len: 101, ..header() }.encode()[..]);
        assert_eq!(cut_request(&mut buffer, 100), Err(FrameError::BodyTooLarge { len: 101, max: 100 }));
        assert_eq!(cut_request(&mut buffer, 101), Ok(Cut::Need(101)));
    }

    #[test]
    fn a_request_is_not_taken_for_a_response() {
        let mut buffer = BytesMut::from(&header().encode()[..]);
        assert_eq!(cut_response(&mut buffer, 100), Err(FrameError::Kind { found: 1, expected: 2 }));
    }

    proptest! {
        #[test]
        fn request_header_survives(header in any_request_header()) {
            prop_assert_eq!(RequestHeader::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn response_header_survives(header in any_response_header()) {
            prop_assert_eq!(ResponseHeader::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn any_flipped_bit_is_noticed(header in any_request_header(), bit in 0..FRAME_HEADER_LEN * 8) {
            let mut bytes = header.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let noticed = matches!(RequestHeader::decode(&bytes), Err(FrameError::Checksum { .. }));
            prop_assert!(noticed);
        }

        #[test]
        fn frames_are_cut_wherever_the_stream_pauses(bodies in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..3_000), 1..5), pause in 1..200_usize) {
            let mut stream = Vec::new();
            for body in &bodies {
                let chunks = request_frame(header(), |w| w.put_shared(Bytes::from(body.clone())));
                stream.extend_from_slice(&chunks.concat());
            }
            let mut buffer = BytesMut::new();
            let mut cut_bodies = Vec::new();
            for part in stream.chunks(pause) {
                buffer.extend_from_slice(part);
                while let Cut::Frame(_, body) = cut_request(&mut buffer, 4_000).unwrap() {
                    cut_bodies.push(body.to_vec());
                }
            }
            prop_assert_eq!(cut_bodies, bodies);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
            fuzz_frame(&noise);
        }
    }
}
