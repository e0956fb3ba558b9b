//! The first bytes each way: which version is spoken, which shard is wanted and which was reached.
//!
//! Both hellos have a fixed size and end in a checksum. Their layout never changes; what comes later goes into the
//! reserved bytes, which are sent as 0 and ignored when they are not known. Authentication, when there is some, follows
//! the hellos in frames whose api keys are reserved for it ([`crate::api::AUTHENTICATION_API_KEYS`]).

use bytes::Buf;

use crate::error_code::ErrorCode;
use crate::ids::{NodeId, ShardId};

/// How every connection begins, both ways.
pub const MAGIC: [u8; 8] = *b"CORRENTE";
/// Length of a client's hello, in bytes.
pub const CLIENT_HELLO_LEN: usize = 96;
/// Length of a broker's hello, in bytes.
pub const SERVER_HELLO_LEN: usize = 192;
/// Longest client id, in bytes of UTF-8.
pub const CLIENT_ID_LEN_MAX: usize = 64;
/// Longest text in a broker's hello, in bytes of UTF-8.
pub const TEXT_LEN_MAX: usize = 128;
/// The oldest protocol version this build speaks.
pub const PROTOCOL_VERSION_MIN: u16 = 1;
/// The newest protocol version this build speaks.
pub const PROTOCOL_VERSION_MAX: u16 = 1;

const CHECKSUM_LEN: usize = 4;
const CLIENT_ID_AT: usize = 17;
const TEXT_AT: usize = 27;
const _: () = assert!(CLIENT_ID_AT + CLIENT_ID_LEN_MAX + CHECKSUM_LEN <= CLIENT_HELLO_LEN);
const _: () = assert!(TEXT_AT + TEXT_LEN_MAX + CHECKSUM_LEN <= SERVER_HELLO_LEN);

/// What a client says first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientHello {
    /// The oldest protocol version the client speaks.
    pub version_min: u16,
    /// The newest protocol version the client speaks.
    pub version_max: u16,
    /// The shard it wants to speak to, or [`ShardId::ANY`].
    pub wanted_shard: ShardId,
    /// None are defined; send 0, ignore what is unknown.
    pub flags: u16,
    /// Names the client in logs and metrics; cut at [`CLIENT_ID_LEN_MAX`] bytes when it is written.
    pub client_id: String,
}

/// What a broker answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerHello {
    /// The version both now speak; 0 with an error.
    pub version: u16,
    /// Why the connection is refused and ends here, or [`ErrorCode::None`].
    pub error: ErrorCode,
    /// How many shards the node has.
    pub shards: u16,
    /// The shard the connection reached.
    pub shard: ShardId,
    /// The node.
    pub node: NodeId,
    /// The longest frame body that the broker takes, in bytes.
    pub frame_len_max: u32,
    /// None are defined; send 0, ignore what is unknown.
    pub flags: u16,
    /// Says more about the error; cut at [`TEXT_LEN_MAX`] bytes when it is written.
    pub text: String,
}

/// Why the first bytes are not a hello.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HelloError {
    /// Another protocol.
    #[error("the connection begins with {found:02x?} and not with CORRENTE: not this protocol")]
    Magic {
        /// The first bytes.
        found: Vec<u8>,
    },
    /// The bytes do not give the checksum they carry.
    #[error("hello checksum is {computed:#010x} where {stated:#010x} is stated")]
    Checksum {
        /// In the hello.
        stated: u32,
        /// Of the hello.
        computed: u32,
    },
    /// A text is longer than its room.
    #[error("hello text of {len} bytes is longer than {max}")]
    TextTooLong {
        /// Stated.
        len: usize,
        /// Room.
        max: usize,
    },
    /// A text is not UTF-8.
    #[error("hello text is not UTF-8")]
    NotUtf8,
}

/// Whether `received`, however little of it there is, can be the beginning of a hello. Lets a broker refuse a stranger
/// at once instead of waiting for the rest of a hello that will not come.
pub fn check_magic(received: &[u8]) -> Result<(), HelloError> {
    let len = received.len().min(MAGIC.len());
    if received[..len] != MAGIC[..len] {
        return Err(HelloError::Magic { found: received[..len].to_vec() });
    }
    Ok(())
}

/// The newest version both sides speak, if there is one.
pub fn choose_version(client: &ClientHello) -> Option<u16> {
    let newest = client.version_max.min(PROTOCOL_VERSION_MAX);
    let oldest = client.version_min.max(PROTOCOL_VERSION_MIN);
    (oldest <= newest).then_some(newest)
}

impl ClientHello {
    /// The hello of this build.
    pub fn new(client_id: &str, wanted_shard: ShardId) -> ClientHello {
        ClientHello {
            version_min: PROTOCOL_VERSION_MIN,
            version_max: PROTOCOL_VERSION_MAX,
            wanted_shard,
            flags: 0,
            client_id: cut_text(client_id, CLIENT_ID_LEN_MAX).to_owned(),
        }
    }

    /// The hello as bytes.
    pub fn encode(&self) -> [u8; CLIENT_HELLO_LEN] {
        let mut bytes = [0; CLIENT_HELLO_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&self.version_min.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.version_max.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.wanted_shard.0.to_le_bytes());
        bytes[14..16].copy_from_slice(&self.flags.to_le_bytes());
        put_text(&mut bytes[16..CLIENT_ID_AT + CLIENT_ID_LEN_MAX], &self.client_id);
        put_checksum(&mut bytes);
        bytes
    }

    /// The hello from bytes.
    pub fn decode(bytes: &[u8; CLIENT_HELLO_LEN]) -> Result<ClientHello, HelloError> {
        check_magic(bytes)?;
        check_checksum(bytes)?;
        let mut fields = &bytes[MAGIC.len()..];
        Ok(ClientHello {
            version_min: fields.get_u16_le(),
            version_max: fields.get_u16_le(),
            wanted_shard: ShardId(fields.get_u16_le()),
            flags: fields.get_u16_le(),
            client_id: get_text(fields, CLIENT_ID_LEN_MAX)?,
        })
    }
}

impl ServerHello {
    /// A refusal; the connection ends after it.
    pub fn refusal(error: ErrorCode, text: &str) -> ServerHello {
        ServerHello {
            version: 0,
            error,
            shards: 0,
            shard: ShardId::ANY,
            node: NodeId::NONE,
            frame_len_max: 0,
            flags: 0,
            text: cut_text(text, TEXT_LEN_MAX).to_owned(),
        }
    }

    /// The hello as bytes.
    pub fn encode(&self) -> [u8; SERVER_HELLO_LEN] {
        let mut bytes = [0; SERVER_HELLO_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&self.version.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.error.code().to_le_bytes());
        bytes[12..14].copy_from_slice(&self.shards.to_le_bytes());
        bytes[14..16].copy_from_slice(&self.shard.0.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.node.0.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.frame_len_max.to_le_bytes());
        bytes[24..26].copy_from_slice(&self.flags.to_le_bytes());
        put_text(&mut bytes[26..TEXT_AT + TEXT_LEN_MAX], &self.text);
        put_checksum(&mut bytes);
        bytes
    }

    /// The hello from bytes.
    pub fn decode(bytes: &[u8; SERVER_HELLO_LEN]) -> Result<ServerHello, HelloError> {
        check_magic(bytes)?;
        check_checksum(bytes)?;
        let mut fields = &bytes[MAGIC.len()..];
        Ok(ServerHello {
            version: fields.get_u16_le(),
            error: ErrorCode::from_code(fields.get_u16_le()),
            shards: fields.get_u16_le(),
            shard: ShardId(fields.get_u16_le()),
            node: NodeId(fields.get_u32_le()),
            frame_len_max: fields.get_u32_le(),
            flags: fields.get_u16_le(),
            text: get_text(fields, TEXT_LEN_MAX)?,
        })
    }
}

/// The longest beginning of `text` that has at most `max` bytes and ends between characters.
fn cut_text(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// Writes one byte of length and the text into `room`.
fn put_text(room: &mut [u8], text: &str) {
    let text = cut_text(text, room.len() - 1).as_bytes();
    room[0] = u8::try_from(text.len()).expect("the room for a text in a hello is under 256 bytes");
    room[1..=text.len()].copy_from_slice(text);
}

fn get_text(mut fields: &[u8], max: usize) -> Result<String, HelloError> {
    let len = usize::from(fields.get_u8());
    if len > max {
        return Err(HelloError::TextTooLong { len, max });
    }
    std::str::from_utf8(&fields[..len]).map(str::to_owned).map_err(|_| HelloError::NotUtf8)
}

fn put_checksum(bytes: &mut [u8]) {
    let (covered, checksum) = bytes.split_at_mut(bytes.len() - CHECKSUM_LEN);
    checksum.copy_from_slice(&crc32c::crc32c(covered).to_le_bytes());
}

fn check_checksum(bytes: &[u8]) -> Result<(), HelloError> {
    let (covered, mut stated) = bytes.split_at(bytes.len() - CHECKSUM_LEN);
    let stated = stated.get_u32_le();
    let computed = crc32c::crc32c(covered);
    if stated != computed {
        return Err(HelloError::Checksum { stated, computed });
    }
    Ok(())
}

/// Entry for fuzzing: the first bytes of a client, and of a broker.
#[doc(hidden)]
pub fn fuzz_hello(input: &[u8]) {
    let _ = check_magic(input);
    if let Some(client) = input.first_chunk::<CLIENT_HELLO_LEN>() {
        for bytes in [*client, mended(*client)] {
            let Ok(hello) = ClientHello::decode(&bytes) else { continue };
            let spoken = choose_version(&hello);
            assert!(spoken.is_none_or(|version| version <= PROTOCOL_VERSION_MAX), "{spoken:?} is not spoken");
            assert_eq!(ClientHello::decode(&hello.encode()), Ok(hello));
        }
    }
    if let Some(server) = input.first_chunk::<SERVER_HELLO_LEN>() {
        for bytes in [*server, mended(*server)] {
            let Ok(hello) = ServerHello::decode(&bytes) else { continue };
            assert_eq!(ServerHello::decode(&hello.encode()), Ok(hello));
        }
    }
}

/// Magic and checksum set right, so that what lies behind them is reached.
fn mended<const N: usize>(mut hello: [u8; N]) -> [u8; N] {
    hello[..MAGIC.len()].copy_from_slice(&MAGIC);
    put_checksum(&mut hello);
    hello
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stranger_is_known_by_the_first_byte() {
        assert_eq!(check_magic(b"G"), Err(HelloError::Magic { found: b"G".to_vec() }));
        assert_eq!(check_magic(b""), Ok(()));
        assert_eq!(check_magic(b"CORR"), Ok(()));
        assert_eq!(check_magic(b"CORRENTE and more"), Ok(()));
    }

    #[test]
    fn the_newest_common_version_is_chosen() {
        let mut hello = ClientHello::new("test", ShardId::ANY);
        assert_eq!(choose_version(&hello), Some(PROTOCOL_VERSION_MAX));
        hello.version_max = u16::MAX;
        assert_eq!(choose_version(&hello), Some(PROTOCOL_VERSION_MAX));
        hello.version_min = PROTOCOL_VERSION_MAX + 1;
        assert_eq!(choose_version(&hello), None);
        hello.version_min = 5;
        hello.version_max = 0;
        assert_eq!(choose_version(&hello), None);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let hello = ClientHello::new(&"é".repeat(40), ShardId(3));
        assert_eq!(hello.client_id, "é".repeat(32));
        let hello = ServerHello::refusal(ErrorCode::Busy, &format!("x{}", "é".repeat(100)));
        assert_eq!(hello.text.len(), 127);
    }

    proptest! {
        #[test]
        fn client_hello_survives(version_min: u16, version_max: u16, shard: u16, flags: u16, id in "[a-zé]{0,32}") {
            let hello = ClientHello { version_min, version_max, wanted_shard: ShardId(shard), flags, client_id: id };
            prop_assert_eq!(ClientHello::decode(&hello.encode()), Ok(hello));
        }

        #[test]
        fn server_hello_survives(version: u16, error: u16, shards: u16, shard: u16, node: u32, frame_len_max: u32,
                                 flags: u16, text in "[a-zé ]{0,64}") {
            let hello = ServerHello { version, error: ErrorCode::from_code(error), shards, shard: ShardId(shard),
                                      node: NodeId(node), frame_len_max, flags, text };
            prop_assert_eq!(ServerHello::decode(&hello.encode()), Ok(hello));
        }

        #[test]
        fn any_flipped_bit_is_noticed(bit in 0..CLIENT_HELLO_LEN * 8) {
            let mut bytes = ClientHello::new("flip", ShardId(1)).encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(ClientHello::decode(&bytes).is_err());
        }

        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            fuzz_hello(&noise);
        }
    }
}
