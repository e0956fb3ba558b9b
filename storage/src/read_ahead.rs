//! What catch-up reads have fetched from disk, and what they hold open for it.
//!
//! Owns verified chunks up to a bound of its own, so that catching up never evicts the tail; a few open
//! segment files; a few indexes of sealed segments. Lets the one used longest ago go first.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use corrente_protocol::ids::Offset;
use corrente_runtime::file::File;
use corrente_runtime::sync::{Budget, Notify};
use corrente_runtime::timer::{self, Instant};

use crate::log::LogId;
use crate::position::{FilePosition, Nonce};
use crate::segment::Segment;
use crate::segment_index::SegmentIndex;
use crate::tail_ring::Stretch;

/// Files of sealed segments kept open at most.
const FILES_MAX: usize = 64;
/// Indexes of sealed segments kept in memory at most, each of some 64 KiB for a segment of 1 GiB.
const INDEXES_MAX: usize = 64;

/// Extents read at one go, verified. Never empty.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) stretches: Vec<Stretch>,
    /// The life of the file they lie in, and where in it the next extent begins.
    pub(crate) nonce: Nonce,
    pub(crate) next_position: FilePosition,
    /// Bytes of memory it keeps alive.
    pub(crate) cost: usize,
}

impl Chunk {
    pub(crate) fn base_offset(&self) -> Offset {
        self.stretches[0].base_offset
    }

    pub(crate) fn end_offset(&self) -> Offset {
        self.stretches[self.stretches.len() - 1].end_offset
    }
}

type Key = (LogId, Offset);

/// A bounded map that forgets what was used longest ago.
#[derive(Debug)]
struct Lru<T> {
    entries: BTreeMap<Key, (T, u64, usize)>,
    by_age: BTreeMap<u64, Key>,
    clock: u64,
    used: usize,
    max: usize,
}

impl<T> Lru<T> {
    fn new(max: usize) -> Self {
        Self { entries: BTreeMap::new(), by_age: BTreeMap::new(), clock: 0, used: 0, max }
    }

    fn touch(&mut self, key: Key) -> Option<&T> {
        let (value, age, _) = self.entries.get_mut(&key)?;
        self.by_age.remove(age);
        self.clock += 1;
        *age = self.clock;
        self.by_age.insert(self.clock, key);
        Some(value)
    }

    fn insert(&mut self, key: Key, value: T, cost: usize) {
        self.remove(key);
        self.clock += 1;
        self.entries.insert(key, (value, self.clock, cost));
        self.by_age.insert(self.clock, key);
        self.used += cost;
        while self.used > self.max && self.entries.len() > 1 {
            let (_, oldest) = self.by_age.first_key_value().expect("as many as entries");
            self.remove(*oldest);
        }
    }

    fn remove(&mut self, key: Key) {
        if let Some((_, age, cost)) = self.entries.remove(&key) {
            self.by_age.remove(&age);
            self.used -= cost;
        }
    }

    fn remove_log(&mut self, log: LogId) {
        let keys: Vec<Key> =
            self.entries.range((log, Offset(0))..=(log, Offset(u64::MAX))).map(|(key, _)| *key).collect();
        for key in keys {
            self.remove(key);
        }
    }
}

pub(crate) struct ReadAhead {
    chunks: RefCell<Lru<Rc<Chunk>>>,
    files: RefCell<Lru<(Nonce, File)>>,
    indexes: RefCell<Lru<(Nonce, Rc<SegmentIndex>)>>,
    /// Chunks being read, by the offset they were asked for.
    loading: RefCell<BTreeSet<Key>>,
    /// Rings when one of them has been read, or not.
    pub(crate) loaded: Notify,
    /// Memory of reads in flight.
    pub(crate) in_flight: Budget,
    last_used: Cell<Instant>,
}

impl ReadAhead {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            chunks: RefCell::new(Lru::new(bytes_max)),
            files: RefCell::new(Lru::new(FILES_MAX)),
            indexes: RefCell::new(Lru::new(INDEXES_MAX)),
            loading: RefCell::new(BTreeSet::new()),
            loaded: Notify::new(),
            in_flight: Budget::new(bytes_max.max(1)),
            last_used: Cell::new(Instant::from_nanos(0)),
        }
    }

    /// The chunk that holds an offset.
    pub(crate) fn chunk(&self, log: LogId, offset: Offset) -> Option<Rc<Chunk>> {
        let chunk = self.chunk_before(log, offset)?;
        (offset < chunk.end_offset()).then_some(chunk)
    }

    /// The chunk that begins at or before an offset, and may end before it as well.
    pub(crate) fn chunk_before(&self, log: LogId, offset: Offset) -> Option<Rc<Chunk>> {
        let mut chunks = self.chunks.borrow_mut();
        let (key, _) = chunks.entries.range((log, Offset(0))..=(log, offset)).next_back()?;
        let key = *key;
        chunks.touch(key).cloned()
    }

    pub(crate) fn insert_chunk(&self, log: LogId, chunk: Rc<Chunk>) {
        let cost = chunk.cost;
        self.chunks.borrow_mut().insert((log, chunk.base_offset()), chunk, cost);
    }

    /// Claims the reading of the chunk that holds `offset`; `None` if somebody reads it already.
    pub(crate) fn claim(&self, log: LogId, offset: Offset) -> Option<Claim<'_>> {
        let key = (log, offset);
        self.loading.borrow_mut().insert(key).then(|| Claim { read_ahead: self, key })
    }

    pub(crate) fn file(&self, log: LogId, segment: &Segment) -> Option<File> {
        self.last_used.set(timer::now());
        let mut files = self.files.borrow_mut();
        let (nonce, file) = files.touch((log, segment.base_offset))?;
        (*nonce == segment.nonce).then(|| file.clone())
    }

    pub(crate) fn insert_file(&self, log: LogId, segment: &Segment, file: File) {
        self.files.borrow_mut().insert((log, segment.base_offset), (segment.nonce, file), 1);
    }

    pub(crate) fn index(&self, log: LogId, segment: &Segment) -> Option<Rc<SegmentIndex>> {
        let mut indexes = self.indexes.borrow_mut();
        let (nonce, index) = indexes.touch((log, segment.base_offset))?;
        (*nonce == segment.nonce).then(|| index.clone())
    }

    pub(crate) fn insert_index(&self, log: LogId, segment: &Segment, index: Rc<SegmentIndex>) {
        self.indexes.borrow_mut().insert((log, segment.base_offset), (segment.nonce, index), 1);
    }

    /// Forgets what is held open for a segment that is no more.
    pub(crate) fn forget_segment(&self, log: LogId, base_offset: Offset) {
        self.files.borrow_mut().remove((log, base_offset));
        self.indexes.borrow_mut().remove((log, base_offset));
    }

    /// Forgets everything about a log.
    pub(crate) fn forget(&self, log: LogId) {
        self.chunks.borrow_mut().remove_log(log);
        self.files.borrow_mut().remove_log(log);
        self.indexes.borrow_mut().remove_log(log);
    }

    /// Gives up files and memory if nobody has read from disk for a while; says whether any are left.
    pub(crate) fn rest(&self, idle_after: Duration) -> bool {
        if timer::now() - self.last_used.get() >= idle_after {
            self.clear();
        }
        !self.files.borrow().entries.is_empty()
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        let max = self.chunks.borrow().max;
        self.chunks.replace(Lru::new(max));
        self.files.replace(Lru::new(FILES_MAX));
        self.indexes.replace(Lru::new(INDEXES_MAX));
    }

    #[cfg(test)]
    fn used(&self) -> usize {
        self.chunks.borrow().used
    }
}

/// The right to read one chunk; dropping it lets the next one try.
pub(crate) struct Claim<'a> {
    read_ahead: &'a ReadAhead,
    key: Key,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.read_ahead.loading.borrow_mut().remove(&self.key);
        self.read_ahead.loaded.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use corrente_protocol::ids::{PartitionIndex, TopicId, TopicPartition};

    use super::*;

    const LOG: LogId = TopicPartition { topic: TopicId([1; 16]), partition: PartitionIndex(0) };

    fn chunk(base: u64, end: u64) -> Rc<Chunk> {
        let stretch =
            Stretch { base_offset: Offset(base), end_offset: Offset(end), batches: Bytes::from_static(b"x") };
        let nonce = Nonce(7);
        Rc::new(Chunk { stretches: vec![stretch], nonce, next_position: FilePosition(4096), cost: 10 })
    }

    #[test]
    fn the_chunk_used_longest_ago_goes_first() {
        let ahead = ReadAhead::new(20);
        ahead.insert_chunk(LOG, chunk(0, 5));
        ahead.insert_chunk(LOG, chunk(5, 9));
        assert!(ahead.chunk(LOG, Offset(0)).is_some());
        ahead.insert_chunk(LOG, chunk(20, 30));
        assert_eq!(ahead.used(), 20);
        assert!(ahead.chunk(LOG, Offset(4)).is_some());
        assert!(ahead.chunk(LOG, Offset(5)).is_none());
        assert!(ahead.chunk(LOG, Offset(29)).is_some());
        assert!(ahead.chunk(LOG, Offset(30)).is_none());
        assert_eq!(ahead.chunk_before(LOG, Offset(31)).unwrap().end_offset(), Offset(30));
    }

    #[test]
    fn a_chunk_is_read_once_at_a_time() {
        let ahead = ReadAhead::new(20);
        let claim = ahead.claim(LOG, Offset(0)).unwrap();
        assert!(ahead.claim(LOG, Offset(0)).is_none());
        drop(claim);
        assert!(ahead.claim(LOG, Offset(0)).is_some());
    }

    #[test]
    fn a_forgotten_log_leaves_nothing() {
        let ahead = ReadAhead::new(20);
        ahead.insert_chunk(LOG, chunk(0, 5));
        ahead.forget(LOG);
        assert_eq!(ahead.used(), 0);
        assert!(ahead.chunk(LOG, Offset(0)).is_none());
    }
}
