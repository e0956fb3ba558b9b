//! What a compacted topic demands beyond [`super::validate_batches`]: that every record can be read, and has a key.

use bytes::Bytes;

use super::{BatchError, HEADER_LEN, RecordBatchHeader, Records};
use crate::error_code::ErrorCode;
use crate::record::RecordError;

/// Why a batch cannot be compacted. Records count from 0 within it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// A record has no key.
    #[error("record {index} has no key, and the topic is compacted")]
    NoKey {
        /// Place in the batch, from 0.
        index: u32,
    },
    /// The batch cannot be taken apart.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A record of it cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl KeyError {
    /// What a broker answers.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            KeyError::NoKey { .. } | KeyError::Record(_) => ErrorCode::InvalidRecord,
            KeyError::Batch(error) => error.error_code(),
        }
    }
}

/// Looks at every record of one valid batch, decompressed into at most `len_max` bytes. Names the first that is wrong.
/// Takes time in proportion to the records and does not look at the checksum.
pub fn check_keys(batch: &Bytes, len_max: usize) -> Result<(), KeyError> {
    let header = RecordBatchHeader::decode(batch)?;
    for (record, index) in Records::of(header, batch.slice(HEADER_LEN..), len_max)?.zip(0..) {
        if record?.key.is_none() {
            return Err(KeyError::NoKey { index });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::{Compression, DecompressError};
    use crate::record_batch::RecordBatchBuilder;

    fn batch(compression: Compression, keys: &[Option<&[u8]>]) -> Bytes {
        let mut builder = RecordBatchBuilder::new(compression);
        for key in keys {
            builder.push(1, *key, Some(&[7; 100]), &[]).unwrap();
        }
        builder.build()
    }

    #[test]
    fn the_first_record_without_a_key_is_named_however_the_batch_is_compressed() {
        for compression in Compression::ALL {
            let good = batch(compression, &[Some(b"a"), Some(b""), Some(b"a")]);
            assert_eq!(check_keys(&good, 1 << 20), Ok(()), "{compression}");
            let bad = batch(compression, &[Some(b"a"), Some(b"b"), None, None]);
            let error = check_keys(&bad, 1 << 20).unwrap_err();
            assert_eq!(error, KeyError::NoKey { index: 2 }, "{compression}");
            assert_eq!(error.error_code(), ErrorCode::InvalidRecord);
            assert_eq!(error.to_string(), "record 2 has no key, and the topic is compacted");
        }
    }

    #[test]
    fn what_cannot_be_read_cannot_be_compacted() {
        let compression = Compression::Gzip;
        let bomb = batch(compression, &[Some(&[0; 100_000])]);
        let error = check_keys(&bomb, 1_000).unwrap_err();
        let too_large = DecompressError::TooLarge { compression, max: 1_000 };
        assert_eq!(error, KeyError::Batch(BatchError::Decompress(too_large)));
        assert_eq!(error.error_code(), ErrorCode::InvalidRecord);

        let mut nonsense = batch(Compression::None, &[Some(b"a"), Some(b"b")]).to_vec();
        nonsense[HEADER_LEN] = 0x7f;
        let error = check_keys(&Bytes::from(nonsense), 1_000).unwrap_err();
        assert!(matches!(error, KeyError::Record(RecordError::Length { index: 0, .. })), "{error}");
        assert_eq!(error.error_code(), ErrorCode::InvalidRecord);
    }
}
