//! Snappy as Kafka's clients write it: xerial's framing, a head and then blocks that each carry their length.

use bytes::Bytes;

use super::{Compression, DecompressError};

const HEAD: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];
/// What tells xerial's framing from raw snappy. The eight bytes after it are versions that no reader minds.
const MAGIC_LEN: usize = 8;
const BLOCK_LEN: usize = 32 * 1024;
/// A copy of 64 bytes takes three; nothing in snappy grows faster.
const GROWTH_MAX: usize = 22;

pub(super) fn compress(data: &[u8]) -> Result<Vec<u8>, snap::Error> {
    let mut encoder = snap::raw::Encoder::new();
    let mut block = vec![0; snap::raw::max_compress_len(BLOCK_LEN.min(data.len()))];
    let mut out = Vec::with_capacity(HEAD.len() + data.len() / 2);
    out.extend_from_slice(&HEAD);
    for chunk in data.chunks(BLOCK_LEN) {
        let len = encoder.compress(chunk, &mut block)?;
        let stated = u32::try_from(len).expect("a compressed block is far under 4 GiB");
        out.extend_from_slice(&stated.to_be_bytes());
        out.extend_from_slice(&block[..len]);
    }
    Ok(out)
}

pub(super) fn decompress(data: &[u8], len_max: usize) -> Result<Bytes, DecompressError> {
    let mut out = Vec::new();
    if !data.starts_with(&HEAD[..MAGIC_LEN]) {
        decompress_block(data, &mut out, len_max)?;
        return Ok(Bytes::from(out));
    }
    let mut rest = data.get(HEAD.len()..).ok_or_else(|| damaged("the head is cut short"))?;
    while !rest.is_empty() {
        let (stated, after) =
            rest.split_first_chunk::<4>().ok_or_else(|| damaged("a block length is cut short"))?;
        let len = usize::try_from(u32::from_be_bytes(*stated)).unwrap_or(usize::MAX);
        let block = after.get(..len).ok_or_else(|| damaged("a block is cut short"))?;
        decompress_block(block, &mut out, len_max)?;
        rest = &after[len..];
    }
    Ok(Bytes::from(out))
}

fn decompress_block(block: &[u8], out: &mut Vec<u8>, len_max: usize) -> Result<(), DecompressError> {
    let len = snap::raw::decompress_len(block).map_err(|error| damaged(&error.to_string()))?;
    if len > block.len().saturating_mul(GROWTH_MAX) {
        return Err(damaged("a block claims more than its bytes can give"));
    }
    let start = out.len();
    if len > len_max - start {
        return Err(DecompressError::TooLarge { compression: Compression::Snappy, max: len_max });
    }
    out.resize(start + len, 0);
    snap::raw::Decoder::new()
        .decompress(block, &mut out[start..])
        .map_err(|error| damaged(&error.to_string()))?;
    Ok(())
}

fn damaged(reason: &str) -> DecompressError {
    DecompressError::Damaged { compression: Compression::Snappy, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_snappy_is_read_too() {
        let data = b"to be or not to be, ".repeat(5_000);
        let raw = snap::raw::Encoder::new().compress_vec(&data).unwrap();
        assert_eq!(decompress(&raw, data.len()).unwrap(), data);
    }

    #[test]
    fn many_blocks_are_one_stream() {
        let data: Vec<u8> = (0..3 * BLOCK_LEN + 17).map(|n| u8::try_from(n / 7 % 251).unwrap()).collect();
        let framed = compress(&data).unwrap();
        assert_eq!(decompress(&framed, data.len()).unwrap(), data);
        assert!(matches!(decompress(&framed, data.len() - 1), Err(DecompressError::TooLarge { .. })));
    }

    #[test]
    fn nothing_grows_faster_than_the_bound() {
        let zeros = vec![0; 1 << 20];
        let raw = snap::raw::Encoder::new().compress_vec(&zeros).unwrap();
        assert!(zeros.len() <= raw.len() * GROWTH_MAX, "{} bytes from {}", zeros.len(), raw.len());
    }
}
