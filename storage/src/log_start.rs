//! The log start offset of one log, in a file of its own beside the segments.
//!
//! The checkpoint says it too, but segments are removed for good: what tells that from damage must not hang on one
//! copy. Written before the first segment below the offset is removed; a log that never lost any has no such file.
//! docs/FORMAT.md draws the bytes.

use std::io;
use std::path::Path;

use corrente_protocol::ids::{Offset, PartitionIndex, TopicId, TopicPartition};
use corrente_runtime::file;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{AtPath, PathError};
use crate::le::{put, take, u16_at, u32_at, u64_at};

/// Its name in the log's directory.
pub(crate) const LOG_START_NAME: &str = "start";

const MAGIC: [u8; 8] = *b"CORRLOGS";
const VERSION: u16 = 1;
const LEN: usize = 64;
const HASHED: usize = LEN - 8;

/// Why bytes are not the log start of the log they lie with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum LogStartFault {
    #[error("no log start of this log")]
    Foreign,
    #[error("log start version {0}, this code reads {VERSION}")]
    Version(u16),
}

pub(crate) fn encode(log: TopicPartition, offset: Offset) -> Vec<u8> {
    let mut out = vec![0; LEN];
    put(&mut out, 0, MAGIC);
    put(&mut out, 8, VERSION.to_le_bytes());
    put(&mut out, 12, log.partition.0.to_le_bytes());
    put(&mut out, 16, log.topic.0);
    put(&mut out, 32, offset.0.to_le_bytes());
    let hash = xxh3_64(&out[..HASHED]);
    put(&mut out, HASHED, hash.to_le_bytes());
    out
}

fn decode(bytes: &[u8], log: TopicPartition) -> Result<Offset, LogStartFault> {
    if bytes.len() != LEN || bytes[..8] != MAGIC || xxh3_64(&bytes[..HASHED]) != u64_at(bytes, HASHED) {
        return Err(LogStartFault::Foreign);
    }
    let version = u16_at(bytes, 8);
    if version != VERSION {
        return Err(LogStartFault::Version(version));
    }
    let found =
        TopicPartition { topic: TopicId(take(bytes, 16)), partition: PartitionIndex(u32_at(bytes, 12)) };
    if found != log {
        return Err(LogStartFault::Foreign);
    }
    Ok(Offset(u64_at(bytes, 32)))
}

/// Makes the offset durable. The old or the new one is there after any crash.
pub(crate) async fn write(dir: &Path, log: TopicPartition, offset: Offset) -> Result<(), PathError> {
    let path = dir.join(LOG_START_NAME);
    file::write_small(&path, encode(log, offset)).await.at(&path)
}

/// Reads it, if there is one. One that does not verify is said and passed over: the checkpoint knows it too, and
/// segments that neither explains are damage.
pub(crate) async fn read(dir: &Path, log: TopicPartition) -> Result<Option<Offset>, PathError> {
    match look_at(dir, log).await? {
        Some(Err(fault)) => {
            let path = dir.join(LOG_START_NAME);
            tracing::warn!(path = %path.display(), %fault, "the log start is not used");
            Ok(None)
        }
        found => Ok(found.and_then(Result::ok)),
    }
}

/// What the file says, if there is one, or why it is not to be believed.
pub(crate) async fn look_at(
    dir: &Path,
    log: TopicPartition,
) -> Result<Option<Result<Offset, LogStartFault>>, PathError> {
    let path = dir.join(LOG_START_NAME);
    match file::read_small(&path, LEN).await {
        Ok(bytes) => Ok(Some(decode(&bytes, log))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Some(Err(LogStartFault::Foreign))),
        Err(source) => Err(PathError { path, source }),
    }
}

/// Makes the hash right, whatever the rest is.
pub(crate) fn fuzz_seal(bytes: &mut [u8]) {
    if bytes.len() == LEN {
        let hash = xxh3_64(&bytes[..HASHED]);
        put(bytes, HASHED, hash.to_le_bytes());
    }
}

/// Entry for fuzzing: a log start, as it lies there and with its hash set right.
#[doc(hidden)]
pub fn fuzz_log_start(bytes: &[u8]) {
    let log = TopicPartition { topic: TopicId([0; 16]), partition: PartitionIndex(0) };
    let mut sealed = bytes.to_vec();
    fuzz_seal(&mut sealed);
    for bytes in [bytes, &sealed] {
        let Ok(offset) = decode(bytes, log) else { continue };
        assert_eq!(decode(&encode(log, offset), log), Ok(offset));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: TopicPartition = TopicPartition { topic: TopicId([4; 16]), partition: PartitionIndex(2) };

    #[test]
    fn what_was_encoded_is_decoded_and_nothing_else() {
        let mut bytes = encode(LOG, Offset(77));
        assert_eq!(decode(&bytes, LOG), Ok(Offset(77)));
        let other = TopicPartition { partition: PartitionIndex(3), ..LOG };
        assert_eq!(decode(&bytes, other), Err(LogStartFault::Foreign));
        for at in 0..LEN {
            bytes[at] ^= 4;
            assert!(decode(&bytes, LOG).is_err(), "byte {at}");
            bytes[at] ^= 4;
        }
        assert!(decode(&bytes[..63], LOG).is_err());
    }
}
