//! Where in a segment an offset or a timestamp lies: a sparse list of extents, kept in memory while the segment is
//! written and put beside it once it is sealed.
//!
//! Pure. The list is only a help: a read begins at the extent before the one it wants and walks on, so an
//! index may be thinned, lost or rebuilt at will. On disk it is rkyv inside our own envelope, checked before
//! it is believed; docs/FORMAT.md draws it.

use corrente_protocol::ids::Offset;
use corrente_runtime::buffer::{AlignedBuf, BLOCK};
use rkyv::rancor::Error as RkyvError;
use thiserror::Error;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::le::{put, u16_at, u64_at};
use crate::position::{FilePosition, Nonce, file_len};

/// Bytes of the file between two points of the index, at least.
pub(crate) const POINT_EVERY: u64 = 256 * 1024;
/// The one version written and read.
pub(crate) const INDEX_VERSION: u16 = 2;

const MAGIC: [u8; 8] = *b"CORRINDX";
const ENVELOPE_LEN: usize = 64;
const ENVELOPE_HASHED: usize = 56;

/// One extent of the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) base_offset: Offset,
    pub(crate) position: FilePosition,
    /// The latest timestamp of all that stands before it in the segment: whatever order they came in, it never falls
    /// from point to point.
    pub(crate) max_before_ms: i64,
}

/// Some extents of one segment. Invariant: offsets and positions both grow, `max_before_ms` never falls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SegmentIndex {
    points: Vec<Point>,
}

/// The list as it is archived.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Archive {
    points: Vec<(u64, u64, i64)>,
}

/// Why a file is not the index of its segment; it is then rebuilt.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum IndexFault {
    #[error("no index of this segment")]
    Foreign,
    #[error("index version {0}, this code reads {INDEX_VERSION}")]
    Version(u16),
    #[error("the list does not verify")]
    Body,
}

impl SegmentIndex {
    /// Takes note of an extent beyond all others, if the last point lies far enough back.
    pub(crate) fn note(&mut self, base_offset: Offset, position: FilePosition, max_before_ms: i64) {
        if self.points.last().is_none_or(|last| position.0 >= last.position.0 + POINT_EVERY) {
            self.points.push(Point { base_offset, position, max_before_ms });
        }
    }

    /// Takes in points found by walking a part the index did not cover.
    pub(crate) fn merge(&mut self, found: &SegmentIndex) {
        self.points.extend_from_slice(&found.points);
        self.points.sort_unstable_by_key(|point| point.position);
        self.points.dedup_by_key(|point| point.position);
    }

    /// The last point at or before an offset.
    pub(crate) fn floor(&self, offset: Offset) -> Option<Point> {
        let after = self.points.partition_point(|point| point.base_offset <= offset);
        self.points[..after].last().copied()
    }

    /// The last point with nothing as late as `at_ms` before it: the first such extent stands there or behind it.
    pub(crate) fn before_timestamp(&self, at_ms: i64) -> Option<Point> {
        let after = self.points.partition_point(|point| point.max_before_ms < at_ms);
        self.points[..after].last().copied()
    }

    /// The last point in `from..=to`, beyond `from`.
    pub(crate) fn last_within(&self, from: FilePosition, to: FilePosition) -> Option<FilePosition> {
        let after = self.points.partition_point(|point| point.position <= to);
        let last = self.points[..after].last()?.position;
        (last > from).then_some(last)
    }

    /// Lets every other point go until at most `points_max` are left.
    pub(crate) fn thin(&mut self, points_max: usize) {
        while self.points.len() > points_max {
            let mut keep = false;
            self.points.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.points.shrink_to_fit();
    }

    /// The widest stretch of the file without a point, given where the extents begin and end.
    pub(crate) fn widest_gap(&self, start: FilePosition, end: FilePosition) -> u64 {
        let positions = self.points.iter().map(|point| point.position).chain([end]);
        let mut before = start;
        let mut widest = 0;
        for position in positions {
            widest = widest.max(position.0.saturating_sub(before.0));
            before = position;
        }
        widest
    }

    /// The index file of the segment with this nonce that ends at `end_position`, as whole blocks.
    pub(crate) fn encode(&self, nonce: Nonce, end_position: FilePosition) -> AlignedBuf {
        let points = self.points.iter().map(|p| (p.base_offset.0, p.position.0, p.max_before_ms)).collect();
        let body = rkyv::to_bytes::<RkyvError>(&Archive { points }).expect("numbers can be archived");
        let mut file = AlignedBuf::zeroed((ENVELOPE_LEN + body.len()).next_multiple_of(BLOCK));
        put(&mut file, 0, MAGIC);
        put(&mut file, 8, INDEX_VERSION.to_le_bytes());
        put(&mut file, 16, nonce.0.to_le_bytes());
        put(&mut file, 24, end_position.0.to_le_bytes());
        put(&mut file, 32, file_len(body.len()).to_le_bytes());
        put(&mut file, 40, xxh3_64_with_seed(&body, nonce.0).to_le_bytes());
        let hash = xxh3_64(&file[..ENVELOPE_HASHED]);
        put(&mut file, ENVELOPE_HASHED, hash.to_le_bytes());
        file[ENVELOPE_LEN..ENVELOPE_LEN + body.len()].copy_from_slice(&body);
        file
    }

    /// The nonce of the segment that an index file belongs to, if its envelope verifies.
    pub(crate) fn nonce_of(file: &[u8]) -> Option<Nonce> {
        let envelope = file.get(..ENVELOPE_LEN)?;
        let ours = envelope[..8] == MAGIC
            && xxh3_64(&envelope[..ENVELOPE_HASHED]) == u64_at(envelope, ENVELOPE_HASHED)
            && u16_at(envelope, 8) == INDEX_VERSION;
        ours.then(|| Nonce(u64_at(envelope, 16)))
    }

    /// Reads an index file; it must be of this very segment, as long as it is now.
    pub(crate) fn decode(
        file: &[u8],
        nonce: Nonce,
        end_position: FilePosition,
    ) -> Result<SegmentIndex, IndexFault> {
        if file.len() < ENVELOPE_LEN || file[..8] != MAGIC {
            return Err(IndexFault::Foreign);
        }
        if xxh3_64(&file[..ENVELOPE_HASHED]) != u64_at(file, ENVELOPE_HASHED) {
            return Err(IndexFault::Foreign);
        }
        let version = u16_at(file, 8);
        if version != INDEX_VERSION {
            return Err(IndexFault::Version(version));
        }
        if u64_at(file, 16) != nonce.0 || u64_at(file, 24) != end_position.0 {
            return Err(IndexFault::Foreign);
        }
        let len = usize::try_from(u64_at(file, 32)).map_err(|_| IndexFault::Body)?;
        let body = file[ENVELOPE_LEN..].get(..len).ok_or(IndexFault::Body)?;
        if xxh3_64_with_seed(body, nonce.0) != u64_at(file, 40) {
            return Err(IndexFault::Body);
        }
        let archive = rkyv::access::<ArchivedArchive, RkyvError>(body).map_err(|_| IndexFault::Body)?;
        let points = archive.points.iter().map(|point| Point {
            base_offset: Offset(point.0.to_native()),
            position: FilePosition(point.1.to_native()),
            max_before_ms: point.2.to_native(),
        });
        let points: Vec<Point> = points.collect();
        let grows = points.windows(2).all(|pair| {
            pair[0].position < pair[1].position
                && pair[0].base_offset < pair[1].base_offset
                && pair[0].max_before_ms <= pair[1].max_before_ms
        });
        if !grows || points.last().is_some_and(|last| last.position >= end_position) {
            return Err(IndexFault::Body);
        }
        Ok(SegmentIndex { points })
    }
}

/// Makes both hashes right, whatever the rest is.
pub(crate) fn fuzz_seal(file: &mut [u8]) {
    if file.len() >= ENVELOPE_LEN {
        let body = usize::try_from(u64_at(file, 32)).ok().and_then(|len| file[ENVELOPE_LEN..].get(..len));
        let hash = body.map_or(0, |body| xxh3_64_with_seed(body, u64_at(file, 16)));
        put(file, 40, hash.to_le_bytes());
        let hash = xxh3_64(&file[..ENVELOPE_HASHED]);
        put(file, ENVELOPE_HASHED, hash.to_le_bytes());
    }
}

/// Entry for fuzzing: an index file, as it lies there and with both hashes set right.
#[doc(hidden)]
pub fn fuzz_segment_index(bytes: &[u8]) {
    let (nonce, end) = (Nonce(0), FilePosition(1 << 30));
    let mut file = AlignedBuf::zeroed(bytes.len());
    file.copy_from_slice(bytes);
    fuzz_decoded(&file, nonce, end);
    fuzz_seal(&mut file);
    fuzz_decoded(&file, nonce, end);
}

fn fuzz_decoded(file: &[u8], nonce: Nonce, end: FilePosition) {
    let told = SegmentIndex::nonce_of(file);
    let Ok(mut index) = SegmentIndex::decode(file, nonce, end) else { return };
    assert_eq!(told, Some(nonce));
    assert_eq!(SegmentIndex::decode(&index.encode(nonce, end), nonce, end).as_ref(), Ok(&index));
    for point in index.points.clone() {
        assert_eq!(index.floor(point.base_offset), Some(point));
        assert!(index.last_within(FilePosition(0), point.position).is_none_or(|last| last <= point.position));
    }
    let gap = index.widest_gap(FilePosition(0), end);
    index.thin(2);
    assert!(index.widest_gap(FilePosition(0), end) >= gap, "thinning has closed a gap");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONCE: Nonce = Nonce(11);

    fn index(count: u64) -> (SegmentIndex, FilePosition) {
        let mut index = SegmentIndex::default();
        for n in 0..count {
            let max_before = i64::try_from(n).unwrap() * 100;
            index.note(Offset(n * 10), FilePosition(4096 + n * POINT_EVERY), max_before);
        }
        (index, FilePosition(4096 + count * POINT_EVERY))
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(count in 0..2000_u64) {
            let (index, end) = index(count);
            prop_assert_eq!(SegmentIndex::decode(&index.encode(NONCE, end), NONCE, end), Ok(index));
        }

        #[test]
        fn strange_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..9000)) {
            fuzz_segment_index(&bytes);
        }

        #[test]
        fn a_flipped_byte_is_seen(at in 0..ENVELOPE_LEN + 160, flip in 1..=255_u8) {
            let (index, end) = index(10);
            let mut file = index.encode(NONCE, end);
            file[at] ^= flip;
            prop_assert!(SegmentIndex::decode(&file, NONCE, end).is_err());
        }
    }

    #[test]
    fn an_index_of_another_segment_is_refused() {
        let (index, end) = index(3);
        let file = index.encode(NONCE, end);
        assert_eq!(SegmentIndex::decode(&file, Nonce(12), end), Err(IndexFault::Foreign));
        assert_eq!(SegmentIndex::decode(&file, NONCE, end + 64), Err(IndexFault::Foreign));
    }

    #[test]
    fn points_are_sparse_and_found() {
        let mut index = SegmentIndex::default();
        for n in 0..1000 {
            index.note(Offset(n), FilePosition(4096 + n * 1024), 0);
        }
        assert_eq!(index.points.len(), 4);
        let point = index.floor(Offset(300)).unwrap();
        assert_eq!((point.base_offset, point.position), (Offset(256), FilePosition(4096 + 256 * 1024)));
        let far = FilePosition(4096 + 700 * 1024);
        assert_eq!(index.last_within(point.position, far), Some(FilePosition(4096 + 512 * 1024)));
        assert_eq!(index.last_within(point.position, point.position), None);
    }

    #[test]
    fn a_timestamp_is_looked_for_from_the_last_point_before_it() {
        let (index, _) = index(5);
        let base = |at_ms| index.before_timestamp(at_ms).map(|point| point.base_offset.0);
        assert_eq!(
            [base(0), base(1), base(100), base(101), base(5000)],
            [None, Some(0), Some(0), Some(10), Some(40)]
        );
    }

    #[test]
    fn thinning_keeps_the_first_point_and_gaps_even() {
        let (mut index, end) = index(1000);
        index.thin(128);
        assert_eq!(index.points.len(), 125);
        assert_eq!(index.points[0].base_offset, Offset(0));
        assert_eq!(index.widest_gap(FilePosition(4096), end), 8 * POINT_EVERY);
    }
}
