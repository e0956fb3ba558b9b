//! The last offset of each key in a part of a log, within bounded memory.
//!
//! Pure. Keys are kept as hashes of 128 bits, seeded anew for every compaction: two keys of one log share a hash with a
//! probability below 2^-80 for 2^24 keys, whoever chose them.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use corrente_protocol::ids::Offset;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Memory of one entry, with the room that a table leaves empty and the copy it makes while it grows.
const ENTRY_BYTES: usize = 104;

/// A key's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KeyHash(u128);

/// Spreads by the bits of the hash itself.
#[derive(Debug, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = u64::try_from(hash & u128::from(u64::MAX)).expect("64 bits");
    }
}

/// Invariant: holds at most `keys_max` keys, and of each key of its part the greatest offset below `end`.
#[derive(Debug)]
pub(crate) struct KeyMap {
    seed: u64,
    keys_max: usize,
    /// Of how many parts of all keys this map holds which: a log with too many keys is compacted part by part.
    parts: u64,
    part: u64,
    last: HashMap<KeyHash, Offset, BuildHasherDefault<Spread>>,
    end: Offset,
}

/// The map has no room for another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl KeyMap {
    /// An empty map that begins at `start`, within `bytes_max` of memory, for one `part` out of `parts` of all keys.
    pub(crate) fn new(seed: u64, bytes_max: usize, start: Offset, parts: u64, part: u64) -> KeyMap {
        assert!(part < parts, "part {part} of {parts}");
        let keys_max = (bytes_max / ENTRY_BYTES).max(1);
        KeyMap { seed, keys_max, parts, part, last: HashMap::default(), end: start }
    }

    /// Takes note that a record with this key stands at `offset`, beyond all noted before.
    pub(crate) fn note(&mut self, key: &[u8], offset: Offset) -> Result<(), Full> {
        let hash = self.hash(key);
        if self.is_mine(hash) {
            if self.last.len() >= self.keys_max && !self.last.contains_key(&hash) {
                return Err(Full);
            }
            self.last.insert(hash, offset);
        }
        Ok(())
    }

    /// Everything below `end` has been noted.
    pub(crate) fn noted_to(&mut self, end: Offset) {
        assert!(end >= self.end, "noted to {}, then to {end}", self.end);
        self.end = end;
    }

    /// Everything below has been noted.
    pub(crate) fn end(&self) -> Offset {
        self.end
    }

    /// Whether a later record of the same key is known.
    pub(crate) fn supersedes(&self, key: &[u8], offset: Offset) -> bool {
        let hash = self.hash(key);
        self.is_mine(hash) && self.last.get(&hash).is_some_and(|last| *last > offset)
    }

    /// Whether the key is one of those that this map takes note of.
    pub(crate) fn is_of_its_part(&self, key: &[u8]) -> bool {
        self.is_mine(self.hash(key))
    }

    fn hash(&self, key: &[u8]) -> KeyHash {
        KeyHash(xxh3_128_with_seed(key, self.seed))
    }

    fn is_mine(&self, hash: KeyHash) -> bool {
        u64::try_from(hash.0 >> 64).expect("64 bits") % self.parts == self.part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_offset_of_a_key_counts() {
        let mut map = KeyMap::new(1, 4096, Offset(0), 1, 0);
        for (offset, key) in (0..).zip([b"a", b"b", b"a", b"c"]) {
            map.note(key, Offset(offset)).unwrap();
        }
        assert!(map.supersedes(b"a", Offset(0)));
        assert!(!map.supersedes(b"a", Offset(2)));
        assert!(!map.supersedes(b"b", Offset(1)));
        assert!(!map.supersedes(b"d", Offset(0)));
    }

    #[test]
    fn a_full_map_takes_known_keys_alone() {
        let mut map = KeyMap::new(1, 2 * ENTRY_BYTES, Offset(0), 1, 0);
        map.note(b"a", Offset(0)).unwrap();
        map.note(b"b", Offset(1)).unwrap();
        assert_eq!(map.note(b"c", Offset(2)), Err(Full));
        assert_eq!(map.note(b"a", Offset(3)), Ok(()));
    }

    #[test]
    fn parts_together_hold_every_key_once() {
        let keys: Vec<[u8; 4]> = (0..1000_u32).map(u32::to_le_bytes).collect();
        let holds = |part| {
            let mut map = KeyMap::new(9, 1 << 20, Offset(0), 3, part);
            for (offset, key) in (1..).zip(&keys) {
                map.note(key, Offset(offset)).unwrap();
            }
            keys.iter().filter(|key| map.supersedes(*key, Offset(0))).count()
        };
        let counts = [holds(0), holds(1), holds(2)];
        assert_eq!(counts.iter().sum::<usize>(), 1000);
        assert!(counts.iter().all(|count| *count > 200), "{counts:?}");
    }
}
