//! Which batches in the body of an extent verify, and which offsets are lost with those that do not.
//!
//! Pure. In a body whose hash agrees each batch is judged by itself. In one whose hash does not, a batch counts only if
//! its checksum agrees *and* the batches between it and one end of the extent leave it no other place: base offset and
//! leader epoch stand before the checksum, so they are believed only where nothing else is possible.

use std::ops::Range;

use bytes::Bytes;
use corrente_protocol::ids::Offset;
use corrente_protocol::record_batch::{RecordBatch, RecordBatchHeader};

use crate::extent::ExtentHeader;

/// A part of what an extent stands for.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    /// A batch that verifies.
    Batch(RecordBatch),
    /// Something that does not, and the offsets that are gone with it; perhaps none.
    Damage { lost: Range<Offset>, why: String },
}

/// How far the body of an extent is to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// Its hash agrees, and every offset has its batch.
    Whole,
    /// Its hash agrees; compaction may have taken batches out of it.
    WholeWithGaps,
    /// Its hash does not agree, or it is cut.
    Damaged,
}

/// The pieces of an extent, in order; together they cover its offsets, but for the gaps that it may have.
pub(crate) fn pieces(body: &Bytes, extent: &ExtentHeader, trust: Body) -> Vec<Piece> {
    let judged = judge(body, extent);
    match trust {
        Body::Whole => one_by_one(judged, extent, true),
        Body::WholeWithGaps => one_by_one(judged, extent, false),
        Body::Damaged => certain(judged, extent),
    }
}

/// A batch that is right by itself, or what is wrong where one should be.
type Judged = Result<RecordBatch, String>;

/// Looks at each batch, as far as their lengths lead.
fn judge(body: &Bytes, extent: &ExtentHeader) -> Vec<Judged> {
    let mut rest = body.clone();
    let mut judged = Vec::new();
    while !rest.is_empty() {
        let size = match RecordBatchHeader::decode(&rest) {
            Ok(header) if header.size() <= rest.len() => header.size(),
            Ok(header) => {
                let (size, left) = (header.size(), rest.len());
                judged.push(Err(format!("a batch of {size} bytes where {left} are left")));
                break;
            }
            Err(error) => {
                judged.push(Err(error.to_string()));
                break;
            }
        };
        let batch = RecordBatch::new(rest.split_to(size)).map_err(|error| error.to_string());
        judged.push(batch.and_then(|batch| fits(batch, extent)));
    }
    judged
}

fn fits(batch: RecordBatch, extent: &ExtentHeader) -> Judged {
    let header = batch.header();
    let (base, end) = (header.base_offset, header.end_offset());
    let (from, to) = (extent.base_offset, extent.end_offset);
    if base < from || end > to || base >= end || header.last_offset_delta < 0 {
        return Err(format!("a batch of offsets {base} to {end} in an extent of {from} to {to}"));
    }
    if header.leader_epoch != extent.leader_epoch {
        let (found, expected) = (header.leader_epoch, extent.leader_epoch);
        return Err(format!("a batch of leader epoch {found} in an extent of epoch {expected}"));
    }
    Ok(batch)
}

/// Every batch that is right by itself and lies behind those before it.
fn one_by_one(judged: Vec<Judged>, extent: &ExtentHeader, contiguous: bool) -> Vec<Piece> {
    let mut pieces = Pieces::from(extent);
    for batch in judged {
        let expected = pieces.next;
        match batch {
            Ok(batch) => {
                let base = batch.header().base_offset;
                if base < expected || (contiguous && base > expected) {
                    pieces.trouble(format!("a batch from offset {base}, expected {expected}"));
                }
                if base >= expected {
                    pieces.push(batch);
                }
            }
            Err(why) => pieces.trouble(why),
        }
    }
    pieces.finish()
}

/// The batches whose place follows from the beginning of the extent, and those whose place follows from its end.
fn certain(judged: Vec<Judged>, extent: &ExtentHeader) -> Vec<Piece> {
    let (mut next, mut end) = (extent.base_offset, extent.end_offset);
    let follows = |batch: &&Judged| {
        let header = batch.as_ref().ok().map(RecordBatch::header).filter(|header| header.base_offset == next);
        header.inspect(|header| next = header.end_offset()).is_some()
    };
    let front = judged.iter().take_while(follows).count();
    let precedes = |batch: &&Judged| {
        let header = batch.as_ref().ok().map(RecordBatch::header).filter(|header| header.end_offset() == end);
        header.inspect(|header| end = header.base_offset).is_some()
    };
    let back = judged[front..].iter().rev().take_while(precedes).count();
    let between = front..judged.len() - back;
    let why = judged[between.clone()].iter().find_map(|batch| batch.as_ref().err().cloned());
    let why = why.unwrap_or_else(|| "the body does not have the hash its header names".to_owned());
    let mut pieces = Pieces::from(extent);
    for (at, batch) in judged.into_iter().enumerate() {
        match batch {
            Ok(batch) if !between.contains(&at) => pieces.push(batch),
            _ => pieces.trouble(why.clone()),
        }
    }
    // Whatever was found, the hash said that something is wrong.
    pieces.any_trouble(why);
    pieces.finish()
}

/// Gathers pieces. Invariant: what lies below `next` is covered, or a gap.
struct Pieces {
    next: Offset,
    end: Offset,
    trouble: Option<String>,
    pieces: Vec<Piece>,
}

impl Pieces {
    fn from(extent: &ExtentHeader) -> Pieces {
        Pieces { next: extent.base_offset, end: extent.end_offset, trouble: None, pieces: Vec::new() }
    }

    /// Something is wrong before the next batch.
    fn trouble(&mut self, why: String) {
        self.trouble.get_or_insert(why);
    }

    fn any_trouble(&mut self, why: String) {
        if !self.pieces.iter().any(|piece| matches!(piece, Piece::Damage { .. })) {
            self.trouble(why);
        }
    }

    fn push(&mut self, batch: RecordBatch) {
        self.settle(batch.header().base_offset);
        self.next = batch.header().end_offset();
        self.pieces.push(Piece::Batch(batch));
    }

    /// What is wrong costs the offsets up to `to`.
    fn settle(&mut self, to: Offset) {
        if let Some(why) = self.trouble.take() {
            self.pieces.push(Piece::Damage { lost: self.next..to, why });
        }
    }

    fn finish(mut self) -> Vec<Piece> {
        let (next, end) = (self.next, self.end);
        if next < end {
            self.trouble(format!("the batches end at offset {next}, the extent at {end}"));
        }
        self.settle(end);
        self.pieces
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use corrente_protocol::compression::Compression;
    use corrente_protocol::ids::LeaderEpoch;
    use corrente_protocol::record_batch::{HEADER_LEN, RecordBatchBuilder, stamp};
    use proptest::prelude::*;

    use super::*;
    use crate::position::HeaderHash;

    const EPOCH: LeaderEpoch = LeaderEpoch(3);

    /// An extent from offset 100 of batches with this many records each, and where each begins in its body.
    fn extent(counts: &[u64]) -> (ExtentHeader, BytesMut, Vec<usize>) {
        let mut body = BytesMut::new();
        let mut starts = Vec::new();
        let mut next = Offset(100);
        for count in counts {
            let mut builder = RecordBatchBuilder::new(Compression::None);
            for n in 0..*count {
                builder.push(5, None, Some(&n.to_le_bytes()), &[]).unwrap();
            }
            let mut batch = BytesMut::from(&builder.build()[..]);
            stamp(&mut batch, next, EPOCH);
            starts.push(body.len());
            body.extend_from_slice(&batch);
            next = next.saturating_add(*count);
        }
        let header = ExtentHeader {
            body_len: u32::try_from(body.len()).unwrap(),
            leader_epoch: EPOCH,
            base_offset: Offset(100),
            end_offset: next,
            max_timestamp_ms: 5,
            prev: HeaderHash(0),
            body_hash: 0,
        };
        (header, body, starts)
    }

    /// Batches by their base offsets; what is lost in between.
    fn told(body: &BytesMut, header: &ExtentHeader, trust: Body) -> (Vec<u64>, Vec<(u64, u64)>) {
        let pieces = pieces(&body.clone().freeze(), header, trust);
        let batches = pieces.iter().filter_map(|piece| match piece {
            Piece::Batch(batch) => Some(batch.header().base_offset.0),
            Piece::Damage { .. } => None,
        });
        let lost = pieces.iter().filter_map(|piece| match piece {
            Piece::Batch(_) => None,
            Piece::Damage { lost, .. } => Some((lost.start.0, lost.end.0)),
        });
        (batches.collect(), lost.collect())
    }

    #[test]
    fn a_sound_extent_is_all_batches() {
        let (header, body, _) = extent(&[2, 1, 5]);
        assert_eq!(told(&body, &header, Body::Whole), (vec![100, 102, 103], vec![]));
        assert_eq!(told(&body, &header, Body::WholeWithGaps), (vec![100, 102, 103], vec![]));
    }

    #[test]
    fn one_rotten_batch_costs_itself_alone() {
        let (header, mut body, starts) = extent(&[2, 1, 5, 3]);
        body[starts[1] + HEADER_LEN + 1] ^= 1;
        for trust in [Body::Whole, Body::WholeWithGaps, Body::Damaged] {
            assert_eq!(told(&body, &header, trust), (vec![100, 103, 108], vec![(102, 103)]), "{trust:?}");
        }
    }

    #[test]
    fn a_rotten_length_costs_all_behind_it() {
        let (header, mut body, starts) = extent(&[2, 1, 5, 3]);
        body[starts[2] + 8] ^= 0x40;
        assert_eq!(told(&body, &header, Body::Damaged), (vec![100, 102], vec![(103, 111)]));
    }

    #[test]
    fn a_rotten_base_offset_is_not_believed() {
        let (header, mut body, starts) = extent(&[2, 1, 5, 3]);
        body[starts[1] + 7] ^= 2;
        assert_eq!(told(&body, &header, Body::Damaged), (vec![100, 103, 108], vec![(102, 103)]));
    }

    #[test]
    fn between_two_rotten_batches_nothing_is_certain() {
        let (header, mut body, starts) = extent(&[2, 1, 5, 3, 4]);
        body[starts[1] + 30] ^= 2;
        body[starts[3] + 30] ^= 2;
        assert_eq!(told(&body, &header, Body::Damaged), (vec![100, 111], vec![(102, 111)]));
    }

    #[test]
    fn a_gap_is_damage_only_where_none_may_be() {
        let (header, body, starts) = extent(&[2, 1, 5]);
        let mut gap = body.clone();
        let behind = gap.split_off(starts[2]);
        gap.truncate(starts[1]);
        gap.unsplit(behind);
        assert_eq!(told(&gap, &header, Body::WholeWithGaps), (vec![100, 103], vec![]));
        assert_eq!(told(&gap, &header, Body::Whole), (vec![100, 103], vec![(102, 103)]));
    }

    proptest! {
        #[test]
        fn damage_never_makes_a_batch_up(
            counts in proptest::collection::vec(1..4_u64, 1..8),
            hits in proptest::collection::vec((any::<u16>(), 1..=255_u8), 1..4),
            trust in prop_oneof![Just(Body::Whole), Just(Body::WholeWithGaps), Just(Body::Damaged)],
        ) {
            let (header, body, starts) = extent(&counts);
            let mut rotten = body.clone();
            for (at, flip) in hits {
                let at = usize::from(at) % rotten.len();
                rotten[at] ^= flip;
            }
            let whole = body.freeze();
            let mut next = Offset(100);
            for piece in pieces(&rotten.freeze(), &header, trust) {
                match piece {
                    Piece::Batch(batch) => {
                        let found = batch.header().base_offset;
                        prop_assert!(found >= next);
                        next = batch.header().end_offset();
                        // Where the hash agrees these bytes stood there when it was written, whatever they are.
                        if trust == Body::Damaged {
                            let right = starts.iter().any(|start| whole[*start..].starts_with(batch.bytes()));
                            prop_assert!(right, "a batch at {found} that was never written");
                        }
                    }
                    Piece::Damage { lost, .. } => {
                        prop_assert!(lost.start == next && lost.end >= next);
                        next = lost.end;
                    }
                }
            }
            prop_assert_eq!(next, header.end_offset);
        }
    }
}
