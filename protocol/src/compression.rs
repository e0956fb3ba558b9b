//! How the records of a batch are compressed, in the very framings Kafka's clients use.
//!
//! lz4 is the LZ4 frame format; snappy is the framing of xerial's Java library, and raw snappy is read too; gzip and
//! zstd are as everywhere. Reading is bounded: the caller says how much may come out, and no claim in the input makes
//! this crate take more memory than that.

mod lz4;
mod snappy;

use std::fmt;
use std::io::{Read, Write};
use std::str::FromStr;

use bytes::Bytes;

/// A codec, by its number in a batch's attributes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Compression {
    /// Records as they are.
    #[default]
    None,
    /// gzip, level 6.
    Gzip,
    /// snappy in xerial's framing.
    Snappy,
    /// The LZ4 frame format.
    Lz4,
    /// zstd, level 3.
    Zstd,
}

impl Compression {
    /// Every codec, by number.
    pub const ALL: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    /// The number in a batch's attributes.
    pub const fn code(self) -> u16 {
        match self {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Snappy => 2,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        }
    }

    /// The codec with this number.
    pub const fn from_code(number: u16) -> Option<Compression> {
        match number {
            0 => Some(Compression::None),
            1 => Some(Compression::Gzip),
            2 => Some(Compression::Snappy),
            3 => Some(Compression::Lz4),
            4 => Some(Compression::Zstd),
            _ => None,
        }
    }

    /// The name used in configuration, flags and output.
    pub const fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text names no codec.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is not a compression: expected none, gzip, snappy, lz4 or zstd")]
pub struct UnknownCompression(String);

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(text: &str) -> Result<Compression, UnknownCompression> {
        Compression::ALL
            .into_iter()
            .find(|codec| codec.name() == text)
            .ok_or_else(|| UnknownCompression(text.chars().take(64).collect()))
    }
}

/// Why compressed bytes gave nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecompressError {
    /// More comes out than the caller allows.
    #[error("{compression} data grow beyond the {max} bytes allowed")]
    TooLarge {
        /// The codec.
        compression: Compression,
        /// Allowed, in bytes.
        max: usize,
    },
    /// The bytes are not what the codec writes.
    #[error("{compression} data are damaged: {reason}")]
    Damaged {
        /// The codec.
        compression: Compression,
        /// What the codec says.
        reason: String,
    },
}

/// `data`, compressed; or `None` if the codec failed or made nothing smaller, and `data` had better travel as they are.
pub fn compress(compression: Compression, data: &[u8]) -> Option<Vec<u8>> {
    let compressed = match compression {
        Compression::None => return None,
        Compression::Gzip => compress_gzip(data).ok()?,
        Compression::Snappy => snappy::compress(data).ok()?,
        Compression::Lz4 => compress_lz4(data).ok()?,
        Compression::Zstd => zstd::bulk::compress(data, zstd::DEFAULT_COMPRESSION_LEVEL).ok()?,
    };
    (compressed.len() < data.len()).then_some(compressed)
}

fn compress_gzip(data: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder =
        flate2::write::GzEncoder::new(Vec::with_capacity(data.len() / 2), flate2::Compression::default());
    encoder.write_all(data)?;
    encoder.finish()
}

fn compress_lz4(data: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::with_capacity(data.len() / 2));
    encoder.write_all(data)?;
    Ok(encoder.finish()?)
}

/// What was compressed into `data`, if it is at most `len_max` bytes. Without compression, `data` themselves, however
/// many they are.
pub fn decompress(compression: Compression, data: &Bytes, len_max: usize) -> Result<Bytes, DecompressError> {
    match compression {
        Compression::None => Ok(data.clone()),
        Compression::Gzip => decompress_gzip(data, len_max),
        Compression::Snappy => snappy::decompress(data, len_max),
        Compression::Lz4 => lz4::decompress(data, len_max),
        Compression::Zstd => decompress_zstd(data, len_max),
    }
}

/// Grows with what really comes out.
fn decompress_gzip(data: &[u8], len_max: usize) -> Result<Bytes, DecompressError> {
    let compression = Compression::Gzip;
    let mut out = Vec::with_capacity(data.len().saturating_mul(4).min(len_max));
    let bound = u64::try_from(len_max).unwrap_or(u64::MAX).saturating_add(1);
    flate2::read::MultiGzDecoder::new(data)
        .take(bound)
        .read_to_end(&mut out)
        .map_err(|error| DecompressError::Damaged { compression, reason: error.to_string() })?;
    if out.len() > len_max {
        return Err(DecompressError::TooLarge { compression, max: len_max });
    }
    Ok(Bytes::from(out))
}

/// In one piece, and so without the window (up to 128 MiB, as the input claims) that a stream decoder takes.
///
/// The size a frame claims is only where the room begins; it then grows fourfold until the data fit or the bound is
/// hit.
fn decompress_zstd(data: &[u8], len_max: usize) -> Result<Bytes, DecompressError> {
    const ROOM_MIN: usize = 64 * 1024;
    let compression = Compression::Zstd;
    let damaged =
        |reason: &dyn fmt::Display| DecompressError::Damaged { compression, reason: reason.to_string() };

    let claimed = zstd::zstd_safe::get_frame_content_size(data)
        .map_err(|_| damaged(&"no frame begins here"))?
        .map(|len| usize::try_from(len).unwrap_or(usize::MAX));
    if claimed.is_some_and(|len| len > len_max) {
        return Err(DecompressError::TooLarge { compression, max: len_max });
    }
    let mut decoder = zstd::bulk::Decompressor::new().map_err(|error| damaged(&error))?;
    let mut room = claimed.unwrap_or(data.len().saturating_mul(4).max(ROOM_MIN)).min(len_max);
    loop {
        let mut out = Vec::with_capacity(room);
        match decoder.decompress_to_buffer(data, &mut out) {
            Ok(_) => return Ok(Bytes::from(out)),
            Err(error) if !error.to_string().contains("too small") => return Err(damaged(&error)),
            Err(_) if room >= len_max => return Err(DecompressError::TooLarge { compression, max: len_max }),
            Err(_) => room = room.saturating_mul(4).max(ROOM_MIN).min(len_max),
        }
    }
}

/// Entry for fuzzing: what one codec is given to decompress.
#[doc(hidden)]
pub fn fuzz_codec(compression: Compression, data: &[u8]) {
    const LEN_MAX: usize = 1 << 16;
    let data = Bytes::copy_from_slice(data);
    let Ok(out) = decompress(compression, &data, LEN_MAX) else { return };
    assert!(out.len() <= LEN_MAX, "{compression} gave {} bytes where {LEN_MAX} are allowed", out.len());
    assert_eq!(decompress(compression, &data, out.len()).as_ref(), Ok(&out), "at exactly the bound");
    if let Some(max) = out.len().checked_sub(1) {
        assert_eq!(decompress(compression, &data, max), Err(DecompressError::TooLarge { compression, max }));
    }
    if let Some(compressed) = compress(compression, &out) {
        assert_eq!(decompress(compression, &Bytes::from(compressed), out.len()), Ok(out));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_and_numbers_survive() {
        for codec in Compression::ALL {
            assert_eq!(codec.name().parse::<Compression>(), Ok(codec));
            assert_eq!(Compression::from_code(codec.code()), Some(codec));
        }
        assert_eq!(Compression::from_code(5), None);
    }

    #[test]
    fn what_does_not_shrink_is_left_alone() {
        for codec in Compression::ALL {
            assert_eq!(compress(codec, b"x"), None, "{codec}");
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let zeros = vec![0; 8 << 20];
        for codec in &Compression::ALL[1..] {
            let bomb = Bytes::from(compress(*codec, &zeros).unwrap());
            let error = decompress(*codec, &bomb, 1 << 20).unwrap_err();
            assert_eq!(error, DecompressError::TooLarge { compression: *codec, max: 1 << 20 });
            assert_eq!(decompress(*codec, &bomb, 8 << 20).unwrap(), zeros, "{codec} at exactly the bound");
        }
    }

    #[test]
    fn zstd_frames_of_unknown_size_are_read() {
        let data = vec![7; 3 << 20];
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.write_all(&data).unwrap();
        let stream = Bytes::from(encoder.finish().unwrap());
        assert_eq!(decompress(Compression::Zstd, &stream, 4 << 20).unwrap(), data);
        assert!(decompress(Compression::Zstd, &stream, 1 << 20).is_err());
        let two = Bytes::from([&stream[..], &stream[..]].concat());
        assert_eq!(decompress(Compression::Zstd, &two, 8 << 20).unwrap().len(), 6 << 20);
    }

    proptest! {
        #[test]
        fn data_survive(
            codec in 1_usize..5,
            word in proptest::collection::vec(any::<u8>(), 1..50),
            times in 1_usize..3_000,
        ) {
            let codec = Compression::ALL[codec];
            let data = word.repeat(times);
            if let Some(compressed) = compress(codec, &data) {
                prop_assert_eq!(decompress(codec, &Bytes::from(compressed), data.len()).unwrap(), data);
            }
        }

        #[test]
        fn damage_never_panics(codec in 1_usize..5, cut in 0_usize..400, flip in 0_usize..400, bit in 0_u8..8) {
            let codec = Compression::ALL[codec];
            let data = b"never twice the same river; ".repeat(40);
            let mut compressed = compress(codec, &data).unwrap();
            let at = flip % compressed.len();
            compressed[at] ^= 1_u8 << bit;
            compressed.truncate(cut.max(1));
            let _ = decompress(codec, &Bytes::from(compressed), 1 << 16);
        }

        #[test]
        fn noise_never_panics(codec in 1_usize..5, noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            fuzz_codec(Compression::ALL[codec], &noise);
        }
    }
}
