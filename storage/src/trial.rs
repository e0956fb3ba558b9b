//! What storage does without a disk, for microbenchmarks. Not part of the api.

use bytes::Bytes;
use corrente_protocol::ids::{LeaderEpoch, Offset};

use crate::extent::{EXTENT_HEADER_LEN, ExtentHeader};
use crate::position::{FilePosition, HeaderHash, Nonce};
use crate::segment_index::{POINT_EVERY, SegmentIndex};
use crate::window::Window;

const NONCE: Nonce = Nonce(5);

/// Where every extent of these begins: a block of its own.
const EXTENT: FilePosition = FilePosition(8192);

/// Gathers a batch so many times into a window and seals it: the bytes of an extent as they go to disk.
pub fn build_extent(batch: &[u8], times: u64) -> Bytes {
    let len = batch.len() * usize::try_from(times).expect("a window is small");
    let mut window = Window::new(&[], Offset(0), LeaderEpoch(1), len);
    for number in 1..=times {
        window.gather(batch, Offset(number), 0);
    }
    window.seal(EXTENT, NONCE, HeaderHash(9)).data
}

/// Checks what [`build_extent`] made, as every read from disk is checked. `false` if it does not hold.
pub fn check_extent(extent: &[u8]) -> bool {
    let Ok((header, _)) = ExtentHeader::decode(extent, NONCE, EXTENT) else { return false };
    let end = EXTENT_HEADER_LEN + usize::try_from(header.body_len).expect("a window is small");
    header.verify_body(&extent[EXTENT_HEADER_LEN..end], NONCE, EXTENT).is_ok()
}

/// The index of a segment with so many points.
pub struct Index(SegmentIndex);

impl Index {
    /// Points every 1000 records, as far apart as an index has them.
    pub fn with_points(points: u64) -> Index {
        let mut index = SegmentIndex::default();
        for point in 0..points {
            let (at, time) = (FilePosition(point * POINT_EVERY), i64::try_from(point).unwrap_or(i64::MAX));
            index.note(Offset(point * 1000), at, time);
        }
        Index(index)
    }

    /// Where a reader of this offset begins.
    pub fn look_up(&self, offset: u64) -> Option<u64> {
        self.0.floor(Offset(offset)).map(|point| point.position.0)
    }
}
