//! Walks the extents of a segment, given its bytes.
//!
//! Pure: recovery and readers fetch bytes and ask here what they are.

use corrente_protocol::ids::{LeaderEpoch, Offset};
use thiserror::Error;

use crate::extent::{EXTENT_ALIGN, EXTENT_HEADER_LEN, ExtentFault, ExtentHeader, body_hash, fuzz_seal};
use crate::position::{FilePosition, HeaderHash, Nonce, buffer_len, file_len};

/// Where a walk along the chain stands: everything before is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChainEnd {
    pub(crate) nonce: Nonce,
    /// Where the next extent begins.
    pub(crate) position: FilePosition,
    /// Where the one before began; equal to `position` if there is none.
    pub(crate) last_extent: FilePosition,
    /// The header hash the next extent names.
    pub(crate) hash: HeaderHash,
    /// The next extent's base offset.
    pub(crate) next_offset: Offset,
    /// The epoch of the one before.
    pub(crate) epoch: LeaderEpoch,
    /// The latest timestamp of those before it in the segment.
    pub(crate) max_timestamp_ms: i64,
}

/// What stands at the end of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// A valid extent; the chain goes on behind it.
    Extent { base_offset: Offset, position: FilePosition, end: ChainEnd },
    /// It takes this many bytes, from the position on, to tell.
    Needs(usize),
    /// No valid extent: the chain ends here, or what follows is torn.
    Nothing(ExtentFault),
    /// An extent of this file that cannot follow the one before.
    Broken(BrokenChain),
}

/// How an extent that is ours contradicts the one before it: never the work of a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum BrokenChain {
    #[error("{0}")]
    Fault(ExtentFault),
    #[error("it follows a header {found:?}, the one before it is {expected:?}")]
    Hash { found: HeaderHash, expected: HeaderHash },
    #[error("base offset {found}, expected {expected}")]
    Offset { found: Offset, expected: Offset },
    #[error("leader epoch {found} after {before}")]
    Epoch { found: LeaderEpoch, before: LeaderEpoch },
}

impl ChainEnd {
    /// Looks at what follows. `bytes` begin at the chain's position; `file_ends` says that there are no more.
    pub(crate) fn next(&self, bytes: &[u8], file_ends: bool) -> Next {
        if bytes.len() < EXTENT_HEADER_LEN {
            return if file_ends {
                Next::Nothing(ExtentFault::Zeros)
            } else {
                Next::Needs(EXTENT_HEADER_LEN)
            };
        }
        let (header, hash) = match ExtentHeader::decode(bytes, self.nonce, self.position) {
            Ok(found) => found,
            Err(fault @ (ExtentFault::Version(_) | ExtentFault::Impossible { .. })) => {
                return Next::Broken(BrokenChain::Fault(fault));
            }
            Err(fault) => return Next::Nothing(fault),
        };
        if header.prev != self.hash {
            return Next::Broken(BrokenChain::Hash { found: header.prev, expected: self.hash });
        }
        if header.base_offset != self.next_offset {
            let expected = self.next_offset;
            return Next::Broken(BrokenChain::Offset { found: header.base_offset, expected });
        }
        if header.leader_epoch < self.epoch {
            return Next::Broken(BrokenChain::Epoch { found: header.leader_epoch, before: self.epoch });
        }
        let len = buffer_len(header.total_len());
        let Some(body) = bytes.get(EXTENT_HEADER_LEN..len) else {
            // The header says that more was written than the file holds: the end of it is torn off.
            return if file_ends { Next::Nothing(ExtentFault::Foreign) } else { Next::Needs(len) };
        };
        if let Err(fault) = header.verify_body(body, self.nonce, self.position) {
            return Next::Nothing(fault);
        }
        let end = ChainEnd {
            nonce: self.nonce,
            position: header.next_position(self.position),
            last_extent: self.position,
            hash,
            next_offset: header.end_offset,
            epoch: header.leader_epoch,
            max_timestamp_ms: self.max_timestamp_ms.max(header.max_timestamp_ms),
        };
        Next::Extent { base_offset: header.base_offset, position: self.position, end }
    }
}

/// The first extent header of this file at or after `position`, where `bytes` begin; only whole headers are
/// seen.
pub(crate) fn find_extent(
    bytes: &[u8],
    nonce: Nonce,
    position: FilePosition,
) -> Option<(FilePosition, ExtentHeader)> {
    debug_assert!(position.0.is_multiple_of(EXTENT_ALIGN as u64));
    let headers = bytes.chunks_exact(EXTENT_ALIGN);
    (0_usize..).step_by(EXTENT_ALIGN).zip(headers).find_map(|(at, bytes)| {
        let position = position + file_len(at);
        ExtentHeader::decode(bytes, nonce, position).ok().map(|(header, _)| (position, header))
    })
}

/// Entry for fuzzing: a segment from its first extent on, walked to its end.
///
/// The first byte says what is set right in each header before it is looked at, so that the walk goes on: its hash, and
/// what ties it to the one before.
#[doc(hidden)]
pub fn fuzz_chain(bytes: &[u8]) {
    let Some((&mend, bytes)) = bytes.split_first() else { return };
    let mut image = bytes.to_vec();
    let start = ChainEnd {
        nonce: Nonce(0),
        position: FilePosition(4096),
        last_extent: FilePosition(4096),
        hash: HeaderHash(1),
        next_offset: Offset(0),
        epoch: LeaderEpoch(0),
        max_timestamp_ms: 0,
    };
    let end = fuzz_walk(mend, &mut image, start);
    let rest = image.get(buffer_len(end.position - start.position)..).unwrap_or_default();
    let found = find_extent(rest, end.nonce, end.position);
    assert!(found.is_none_or(|(position, _)| position >= end.position));
}

/// Walks the extents of an image that begins at the start of a chain, mending each before.
pub(crate) fn fuzz_walk(mend: u8, image: &mut [u8], start: ChainEnd) -> ChainEnd {
    let mut chain = start;
    loop {
        let rest = image.get_mut(buffer_len(chain.position - start.position)..).unwrap_or_default();
        if rest.len() >= EXTENT_HEADER_LEN {
            fuzz_mend(mend, rest, &chain);
        }
        if let Next::Needs(len) = chain.next(rest, false) {
            assert!(len > rest.len(), "{len} bytes are wanted where there are {}", rest.len());
        }
        let Next::Extent { base_offset, position, end } = chain.next(rest, true) else { return chain };
        assert_eq!((base_offset, position), (chain.next_offset, chain.position));
        assert!(end.next_offset > base_offset && end.position > position && end.epoch >= chain.epoch);
        chain = end;
    }
}

fn fuzz_mend(mend: u8, extent: &mut [u8], chain: &ChainEnd) {
    let set = |bit: u8| mend & 1 << bit != 0;
    if set(3) && extent[..EXTENT_HEADER_LEN].iter().any(|byte| *byte != 0) {
        fuzz_seal(extent, chain.nonce, chain.position);
    }
    let Ok((mut header, _)) = ExtentHeader::decode(extent, chain.nonce, chain.position) else { return };
    if set(0) {
        header.prev = chain.hash;
    }
    if set(1) && header.end_offset > chain.next_offset {
        header.base_offset = chain.next_offset;
    }
    let len = usize::try_from(header.body_len).unwrap_or(usize::MAX);
    if set(2)
        && let Some(body) = extent[EXTENT_HEADER_LEN..].get(..len)
    {
        header.body_hash = body_hash(body, chain.nonce, chain.position);
    }
    header.encode(chain.nonce, chain.position, extent);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::{SealedWindow, Window};

    const NONCE: Nonce = Nonce(21);

    /// A file image from 4096 on, holding extents with bodies of these lengths, one offset each.
    fn image(bodies: &[usize]) -> (Vec<u8>, Vec<SealedWindow>) {
        let mut image = vec![0; 1 << 20];
        let mut windows: Vec<SealedWindow> = Vec::new();
        for (n, len) in (0_u64..).zip(bodies) {
            let before = windows.last();
            let front = before.map_or_else(Default::default, SealedWindow::front_of_next);
            let mut window = Window::new(&front, Offset(n), LeaderEpoch(1), *len);
            window.gather(&vec![0xA5; *len], Offset(n + 1), 0);
            let position = before.map_or(FilePosition(4096), |window| window.next_extent);
            let prev = before.map_or(HeaderHash(1), |window| window.hash);
            let sealed = window.seal(position, NONCE, prev);
            let at = buffer_len(sealed.at.0 - 4096);
            image[at..at + sealed.data.len()].copy_from_slice(&sealed.data);
            windows.push(sealed);
        }
        (image, windows)
    }

    fn begin() -> ChainEnd {
        ChainEnd {
            nonce: NONCE,
            position: FilePosition(4096),
            last_extent: FilePosition(4096),
            hash: HeaderHash(1),
            next_offset: Offset(0),
            epoch: LeaderEpoch(0),
            max_timestamp_ms: 0,
        }
    }

    fn walk(image: &[u8]) -> (ChainEnd, Next) {
        let mut chain = begin();
        loop {
            match chain.next(&image[buffer_len(chain.position.0 - 4096)..], true) {
                Next::Extent { end, .. } => chain = end,
                other => return (chain, other),
            }
        }
    }

    #[test]
    fn a_chain_is_walked_to_its_end() {
        let (image, windows) = image(&[100, 5000, 3840, 70_000, 1]);
        let (chain, next) = walk(&image);
        assert_eq!(next, Next::Nothing(ExtentFault::Zeros));
        assert_eq!(chain.next_offset, Offset(5));
        assert_eq!(chain.position, windows[4].next_extent);
        assert_eq!(chain.last_extent, windows[4].extent);
        assert_eq!(chain.hash, windows[4].hash);
    }

    #[test]
    fn a_flipped_byte_ends_the_chain_before_its_extent() {
        let (image, windows) = image(&[100, 5000, 300]);
        for (n, window) in (0..).zip(&windows) {
            let start = buffer_len(window.extent.0 - 4096);
            let end = start + 64 + window.stretch.batches.len();
            for at in (start..end).step_by(61).chain([start, end - 1]) {
                let mut rotten = image.clone();
                rotten[at] ^= 0x20;
                let (chain, next) = walk(&rotten);
                assert_eq!(chain.next_offset, Offset(n), "byte {at}");
                assert!(matches!(next, Next::Nothing(_)), "byte {at}: {next:?}");
            }
        }
    }

    #[test]
    fn an_extent_behind_a_hole_is_found() {
        let (mut image, windows) = image(&[100, 5000, 300]);
        let start = buffer_len(windows[1].extent.0 - 4096);
        image[start..start + 64].fill(0);
        let from = windows[1].extent + 64;
        let found = find_extent(&image[start + 64..], NONCE, from).unwrap();
        assert_eq!(found.0, windows[2].extent);
        assert_eq!(found.1.base_offset, Offset(2));
        let none = find_extent(&image[start + 64..], Nonce(1), from);
        assert_eq!(none, None);
    }

    #[test]
    fn what_cannot_follow_is_broken_and_not_torn() {
        let (image, _) = image(&[100]);
        let next = |chain: ChainEnd| chain.next(&image, true);
        let broken = |next| matches!(next, Next::Broken(_));
        assert!(matches!(next(begin()), Next::Extent { .. }));
        assert!(broken(next(ChainEnd { hash: HeaderHash(2), ..begin() })));
        assert!(broken(next(ChainEnd { next_offset: Offset(1), ..begin() })));
        assert!(broken(next(ChainEnd { epoch: LeaderEpoch(2), ..begin() })));
    }

    #[test]
    fn a_short_look_asks_for_more() {
        let (image, windows) = image(&[5000]);
        assert_eq!(begin().next(&image[..10], false), Next::Needs(64));
        assert_eq!(begin().next(&image[..64], false), Next::Needs(5064));
        assert!(matches!(begin().next(&image[..5064], false), Next::Extent { .. }));
        assert!(matches!(begin().next(&image[..4096], true), Next::Nothing(_)));
        assert_eq!(windows.len(), 1);
    }
}
