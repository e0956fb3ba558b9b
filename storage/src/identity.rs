//! Who a data directory is: the small file that stands in each.
//!
//! Pure. docs/FORMAT.md draws the bytes.

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use crate::le::{i64_at, put, take, u16_at, u64_at};

/// The version of everything below a data directory: the one written and read.
pub(crate) const FORMAT_VERSION: u16 = 2;
/// Length of the file.
pub(crate) const IDENTITY_LEN: usize = 64;

const MAGIC: [u8; 8] = *b"CORRDATA";
const HASHED: usize = IDENTITY_LEN - 8;

/// The identity of one data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Drawn when the directory was first used.
    pub(crate) dir_id: [u8; 16],
    /// When that was, by the clock on the wall; for people.
    pub(crate) created_ms: i64,
}

/// Why a file is not an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum IdentityFault {
    #[error("identity of {0} bytes, expected {IDENTITY_LEN}")]
    Length(usize),
    #[error("no identity of a data directory, or a damaged one")]
    Foreign,
    #[error("data format version {0}, this program reads {FORMAT_VERSION}")]
    Version(u16),
}

impl Identity {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; IDENTITY_LEN];
        put(&mut out, 0, MAGIC);
        put(&mut out, 8, FORMAT_VERSION.to_le_bytes());
        put(&mut out, 16, self.dir_id);
        put(&mut out, 32, self.created_ms.to_le_bytes());
        let hash = xxh3_64(&out[..HASHED]);
        put(&mut out, HASHED, hash.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Identity, IdentityFault> {
        if bytes.len() != IDENTITY_LEN {
            return Err(IdentityFault::Length(bytes.len()));
        }
        if bytes[..8] != MAGIC || xxh3_64(&bytes[..HASHED]) != u64_at(bytes, HASHED) {
            return Err(IdentityFault::Foreign);
        }
        let version = u16_at(bytes, 8);
        if version != FORMAT_VERSION {
            return Err(IdentityFault::Version(version));
        }
        Ok(Identity { dir_id: take(bytes, 16), created_ms: i64_at(bytes, 32) })
    }
}

/// Makes the hash right, whatever the rest is.
pub(crate) fn fuzz_seal(bytes: &mut [u8]) {
    if bytes.len() == IDENTITY_LEN {
        let hash = xxh3_64(&bytes[..HASHED]);
        put(bytes, HASHED, hash.to_le_bytes());
    }
}

/// Entry for fuzzing: an identity file, as it lies there and with its hash set right.
#[doc(hidden)]
pub fn fuzz_identity(bytes: &[u8]) {
    let mut sealed = bytes.to_vec();
    fuzz_seal(&mut sealed);
    for bytes in [bytes, &sealed] {
        let Ok(identity) = Identity::decode(bytes) else { continue };
        assert_eq!(Identity::decode(&identity.encode()), Ok(identity));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_decoded_and_nothing_else() {
        let identity = Identity { dir_id: [3; 16], created_ms: 1_790_000_000_000 };
        let mut bytes = identity.encode();
        assert_eq!(Identity::decode(&bytes), Ok(identity));
        for at in 0..IDENTITY_LEN {
            bytes[at] ^= 1;
            assert_eq!(Identity::decode(&bytes), Err(IdentityFault::Foreign), "byte {at}");
            bytes[at] ^= 1;
        }
        assert_eq!(Identity::decode(&bytes[..63]), Err(IdentityFault::Length(63)));
    }
}
