//! The LZ4 frame format, read block by block into the one buffer that is handed out.
//!
//! A frame claims how long its blocks may be, up to 4 MiB; that takes no memory. A block's room follows from its
//! compressed bytes and from the bound. The frame's own checksums are passed over: the batch has one over all of them.

use bytes::Bytes;
use lz4_flex::block::{DecompressError as BlockError, decompress_into_with_dict};

use super::{Compression, DecompressError};

const MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();
const CHECKSUM_LEN: usize = 4;
/// How far back a linked block may reach into those before it.
const WINDOW_LEN: usize = 64 * 1024;
/// A match of 255 more bytes takes one; nothing in LZ4 grows faster.
const GROWTH_MAX: usize = 255;
/// In a block's length: its bytes are not compressed.
const STORED: u32 = 1 << 31;

const VERSION: u8 = 0b1100_0000;
const VERSION_1: u8 = 0b0100_0000;
const INDEPENDENT: u8 = 0b0010_0000;
const BLOCK_CHECKSUMS: u8 = 0b0001_0000;
const CONTENT_LEN: u8 = 0b0000_1000;
const CONTENT_CHECKSUM: u8 = 0b0000_0100;
const RESERVED: u8 = 0b0000_0010;
const DICTIONARY: u8 = 0b0000_0001;

/// What was compressed into one or more frames, back to back.
pub(super) fn decompress(data: &[u8], len_max: usize) -> Result<Bytes, DecompressError> {
    let mut out = Vec::with_capacity(data.len().saturating_mul(4).min(len_max));
    let mut input = Input { rest: data };
    loop {
        decompress_frame(&mut input, &mut out, len_max)?;
        if input.rest.is_empty() {
            // What a block did not use of its room is not kept for as long as its records.
            if out.capacity() > 2 * out.len() {
                out.shrink_to_fit();
            }
            return Ok(Bytes::from(out));
        }
    }
}

fn decompress_frame(input: &mut Input<'_>, out: &mut Vec<u8>, len_max: usize) -> Result<(), DecompressError> {
    let frame = Frame::read(input)?;
    let frame_start = out.len();
    loop {
        let len = u32::from_le_bytes(input.take_array()?);
        if len == 0 {
            input.take(if frame.flags & CONTENT_CHECKSUM != 0 { CHECKSUM_LEN } else { 0 })?;
            return Ok(());
        }
        let block = input.take(usize::try_from(len & !STORED).unwrap_or(usize::MAX))?;
        input.take(if frame.flags & BLOCK_CHECKSUMS != 0 { CHECKSUM_LEN } else { 0 })?;
        let room = frame.block_len_max.min(len_max - out.len());
        if len & STORED == 0 {
            let linked_to = if frame.flags & INDEPENDENT != 0 { out.len() } else { frame_start };
            decompress_block(block, out, room, linked_to)
        } else if block.len() <= room {
            out.extend_from_slice(block);
            Ok(())
        } else {
            Err(NoRoom::Full)
        }
        .map_err(|no_room| match no_room {
            NoRoom::Full if room < frame.block_len_max => {
                DecompressError::TooLarge { compression: Compression::Lz4, max: len_max }
            }
            NoRoom::Full => damaged("a block gives more than its frame allows"),
            NoRoom::Damaged(error) => damaged(&error.to_string()),
        })?;
    }
}

/// Why a block did not fit into its room.
enum NoRoom {
    Full,
    Damaged(BlockError),
}

/// Puts at most `room` bytes behind those of `out`, of which the block may repeat what lies at `linked_to` or after.
fn decompress_block(block: &[u8], out: &mut Vec<u8>, room: usize, linked_to: usize) -> Result<(), NoRoom> {
    let start = out.len();
    let grown = block.len().saturating_mul(GROWTH_MAX).min(room);
    out.resize(start + grown, 0);
    let (before, behind) = out.split_at_mut(start);
    let window = &before[linked_to.max(start.saturating_sub(WINDOW_LEN))..];
    let len = decompress_into_with_dict(block, behind, window).map_err(|error| match error {
        BlockError::OutputTooSmall { .. } => NoRoom::Full,
        other => NoRoom::Damaged(other),
    })?;
    out.truncate(start + len);
    Ok(())
}

/// What a frame says before its blocks.
struct Frame {
    flags: u8,
    block_len_max: usize,
}

impl Frame {
    fn read(input: &mut Input<'_>) -> Result<Frame, DecompressError> {
        if input.take_array()? != MAGIC {
            return Err(damaged("no frame begins here"));
        }
        let [flags, block_len] = input.take_array()?;
        if flags & VERSION != VERSION_1 || flags & RESERVED != 0 {
            return Err(damaged(&format!("the frame's flags are {flags:#010b}")));
        }
        if flags & DICTIONARY != 0 {
            return Err(damaged("the frame needs a dictionary"));
        }
        let block_len_max = match block_len {
            0x40 => 64 << 10,
            0x50 => 256 << 10,
            0x60 => 1 << 20,
            0x70 => 4 << 20,
            other => return Err(damaged(&format!("the frame's block length is {other:#04x}"))),
        };
        // How long the content is (it is found out anyhow), and a checksum of one byte.
        input.take(if flags & CONTENT_LEN != 0 { 8 } else { 0 })?;
        input.take(1)?;
        Ok(Frame { flags, block_len_max })
    }
}

struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], DecompressError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(|| damaged("a frame is cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], DecompressError> {
        self.take(N).map(|taken| taken.try_into().expect("as many bytes as were asked for"))
    }
}

fn damaged(reason: &str) -> DecompressError {
    DecompressError::Damaged { compression: Compression::Lz4, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

    use super::*;

    fn frame(info: FrameInfo, data: &[u8]) -> Vec<u8> {
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn text() -> Vec<u8> {
        (0..120_000_u32).flat_map(|n| (n.wrapping_mul(n) / 700).to_le_bytes()).collect()
    }

    #[test]
    fn every_kind_of_frame_is_read() {
        let data = text();
        for block_size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB] {
            for block_mode in [BlockMode::Independent, BlockMode::Linked] {
                for checksums in [false, true] {
                    let info = FrameInfo::new()
                        .block_size(block_size)
                        .block_mode(block_mode)
                        .block_checksums(checksums)
                        .content_checksum(checksums)
                        .content_size(checksums.then_some(data.len() as u64));
                    let frame = frame(info, &data);
                    assert_eq!(
                        decompress(&frame, data.len()).unwrap(),
                        data,
                        "{block_size:?} {block_mode:?}"
                    );
                    let max = data.len() - 1;
                    let error = decompress(&frame, max).unwrap_err();
                    assert_eq!(error, DecompressError::TooLarge { compression: Compression::Lz4, max });
                }
            }
        }
    }

    #[test]
    fn frames_back_to_back_are_one_stream_and_do_not_see_each_other() {
        let linked = FrameInfo::new().block_mode(BlockMode::Linked);
        let one = frame(linked, b"never twice the same river; never twice the same river; ");
        let two = [&one[..], &one].concat();
        assert_eq!(decompress(&two, 1 << 10).unwrap().len(), 2 * 56);
    }

    #[test]
    fn a_claim_of_long_blocks_takes_no_room() {
        let words = b"never twice the same river; ".repeat(20);
        let claiming = frame(FrameInfo::new().block_size(BlockSize::Max4MB), &words);
        assert_eq!(claiming[5], 0x70, "four MiB");
        let mut out = Vec::new();
        decompress_frame(&mut Input { rest: &claiming }, &mut out, 1 << 24).unwrap();
        assert_eq!(out, words);
        assert!(out.capacity() <= 255 * claiming.len(), "{} bytes of room", out.capacity());
    }

    #[test]
    fn what_is_no_whole_frame_is_refused() {
        let whole = frame(FrameInfo::new().content_checksum(true), &text()[..1_000]);
        for cut in 0..whole.len() {
            assert!(
                decompress(&whole[..cut], 1 << 20).is_err(),
                "the first {cut} bytes were taken for a frame"
            );
        }
        let legacy = [0x02, 0x21, 0x4c, 0x18, 2, 0, 0, 0, 0x10, b'x'];
        assert_eq!(decompress(&legacy, 1 << 20), Err(damaged("no frame begins here")));
    }
}
