//! What records hold, so that a reader can tell every one from all others, and damage from content.
//!
//! A record follows from its id, key and length alone: filler included, nothing needs to be remembered to
//! verify one byte for byte.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

const MAGIC: u32 = 0xc0_44_e2_7e;
/// Magic, producer, counter, key, length.
const HEAD: usize = 20;

/// The name of the header that says which record a tombstone is, as it has no value to say so.
pub const TOMBSTONE_HEADER: &str = "tombstone";

/// Names a record: no other has the same producer and counter.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RecordId {
    /// Which producer sent it.
    pub producer: u32,
    /// Its place among those of its producer, from 0.
    pub counter: u32,
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.producer, self.counter)
    }
}

/// A record as a reader found it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Content {
    /// Key and value are what the record of this id and key has.
    Record {
        /// Which it is.
        id: RecordId,
        /// The number of its key.
        key: u32,
        /// Whether it has no value.
        is_tombstone: bool,
    },
    /// No record that anybody would send; says what is wrong.
    Corrupt(String),
}

/// The bytes of a key.
pub fn key(number: u32) -> Bytes {
    Bytes::from(format!("key-{number}"))
}

/// The value of a record: `filler` bytes after the head.
pub fn value(id: RecordId, key: u32, filler: usize) -> Bytes {
    let len = u32::try_from(HEAD + filler).expect("a record is smaller than 4 GiB");
    let mut value = BytesMut::with_capacity(HEAD + filler);
    for word in [MAGIC, id.producer, id.counter, key, len] {
        value.put_u32(word);
    }
    value.resize(HEAD + filler, 0);
    let seed = u64::from(id.producer) << 32 | u64::from(id.counter);
    fastrand::Rng::with_seed(seed).fill(&mut value[HEAD..]);
    value.freeze()
}

/// The value of a tombstone's header: a value without filler.
pub fn tombstone(id: RecordId, key: u32) -> Bytes {
    value(id, key, 0)
}

/// Reads a record back, and checks every byte of it. `found_header` is the value of [`TOMBSTONE_HEADER`].
pub fn read(found_key: Option<&[u8]>, found: Option<&[u8]>, found_header: Option<&[u8]>) -> Content {
    let read = match (found, found_header) {
        (Some(value), None) => read_value(value),
        (None, Some(header)) => read_value(header),
        (None, None) => return Content::Corrupt("a record without a value, and no tombstone".into()),
        (Some(_), Some(_)) => return Content::Corrupt("a tombstone with a value".into()),
    };
    match read {
        Err(what) => Content::Corrupt(what),
        Ok((id, number)) if found_key != Some(&key(number)) => {
            Content::Corrupt(format!("record {id} with another key than {number}"))
        }
        Ok((id, number)) => Content::Record { id, key: number, is_tombstone: found.is_none() },
    }
}

fn read_value(found: &[u8]) -> Result<(RecordId, u32), String> {
    if found.len() < HEAD {
        return Err(format!("a value of {} bytes, the head alone has {HEAD}", found.len()));
    }
    let word = |at: usize| u32::from_be_bytes(found[4 * at..4 * at + 4].try_into().expect("four bytes"));
    let id = RecordId { producer: word(1), counter: word(2) };
    let number = word(3);
    if word(0) != MAGIC {
        return Err(format!("a value with magic {:#x}", word(0)));
    }
    if word(4) as usize != found.len() {
        return Err(format!("record {id} of {} bytes, {} were sent", found.len(), word(4)));
    }
    if *found != value(id, number, found.len() - HEAD) {
        return Err(format!("record {id} with other filler than was sent"));
    }
    Ok((id, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: RecordId = RecordId { producer: 3, counter: 70_000 };

    fn is_corrupt(found_key: Option<&[u8]>, found: Option<&[u8]>, found_header: Option<&[u8]>) -> bool {
        matches!(read(found_key, found, found_header), Content::Corrupt(_))
    }

    #[test]
    fn what_was_written_is_read() {
        for filler in [0, 1, 7, 8, 4_096, 70_001] {
            let read = read(Some(&key(9)), Some(&value(ID, 9, filler)), None);
            assert_eq!(read, Content::Record { id: ID, key: 9, is_tombstone: false });
        }
        let read = read(Some(&key(9)), None, Some(&tombstone(ID, 9)));
        assert_eq!(read, Content::Record { id: ID, key: 9, is_tombstone: true });
    }

    #[test]
    fn every_damaged_byte_shows() {
        let sound = value(ID, 9, 40);
        for at in 0..sound.len() {
            let mut damaged = sound.to_vec();
            damaged[at] ^= 0x10;
            // Damage to id or key makes it a record that was not sent, and its filler does not fit that.
            assert!(is_corrupt(Some(&key(9)), Some(&damaged), None), "byte {at}");
        }
        for cut in [0, 3, HEAD, sound.len() - 1] {
            assert!(is_corrupt(Some(&key(9)), Some(&sound[..cut]), None), "cut at {cut}");
        }
        assert!(is_corrupt(Some(&key(8)), Some(&sound), None));
        assert!(is_corrupt(None, Some(&sound), None));
    }

    #[test]
    fn a_value_that_is_gone_is_no_tombstone() {
        assert!(is_corrupt(Some(&key(9)), None, None));
        assert!(is_corrupt(Some(&key(8)), None, Some(&tombstone(ID, 9))));
        assert!(is_corrupt(Some(&key(9)), Some(&value(ID, 9, 4)), Some(&tombstone(ID, 9))));
    }
}
