//! What records hold: each can be told from all others, and checked byte for byte, from its own head alone.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

const MAGIC: u32 = 0xc0_77_e2_7e;
/// Magic, producer, counter, topic, partition, length.
const HEAD: usize = 24;

/// Names a record: no other has the same producer and counter.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct RecordId(pub u32, pub u32);

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, self.1)
    }
}

/// A partition of one life of a topic, by the topic's number in the history.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Log(pub u32, pub u32);

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "topic {} partition {}", self.0, self.1)
    }
}

/// Which record was found and where it was sent, or what is wrong with it.
pub type Content = Result<(RecordId, Log), String>;

/// The value of a record sent to `log`, with `filler` bytes after the head.
pub fn value(id: RecordId, log: Log, filler: usize) -> Bytes {
    let len = u32::try_from(HEAD + filler).expect("a record is smaller than 4 GiB");
    let mut value = BytesMut::with_capacity(HEAD + filler);
    for word in [MAGIC, id.0, id.1, log.0, log.1, len] {
        value.put_u32(word);
    }
    value.resize(HEAD + filler, 0);
    let seed = u64::from(id.0) << 32 | u64::from(id.1);
    fastrand::Rng::with_seed(seed).fill(&mut value[HEAD..]);
    value.freeze()
}

/// What a value is.
pub fn read(found: Option<&[u8]>) -> Content {
    let found = found.ok_or("a record without a value")?;
    if found.len() < HEAD {
        return Err(format!("a value of {} bytes, the head alone has {HEAD}", found.len()));
    }
    let word = |at: usize| u32::from_be_bytes(found[4 * at..4 * at + 4].try_into().expect("four bytes"));
    let (id, log) = (RecordId(word(1), word(2)), Log(word(3), word(4)));
    if word(0) != MAGIC {
        return Err(format!("a value with magic {:#x}", word(0)));
    }
    if word(5) as usize != found.len() {
        return Err(format!("record {id} of {} bytes, {} were sent", found.len(), word(5)));
    }
    if *found != value(id, log, found.len() - HEAD) {
        return Err(format!("record {id} with other filler than was sent"));
    }
    Ok((id, log))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_every_damaged_byte_shows() {
        let (id, log) = (RecordId(3, 70_000), Log(2, 5));
        for filler in [0, 1, 8, 70_001] {
            assert_eq!(read(Some(&value(id, log, filler))), Ok((id, log)));
        }
        let sound = value(id, log, 40);
        for at in 0..sound.len() {
            let mut damaged = sound.to_vec();
            damaged[at] ^= 0x10;
            // A head with another topic or partition is caught where the record is looked up by its id.
            assert_ne!(read(Some(&damaged)), Ok((id, log)), "byte {at}");
        }
        assert!(read(Some(&sound[..20])).is_err());
        assert!(read(None).is_err());
    }
}
