//! Why bytes are not an acceptable record batch, one variant for each check.

use crate::compression::DecompressError;
use crate::error_code::ErrorCode;

/// The first check that a record batch failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BatchError {
    /// There is no batch at all.
    #[error("no record batch where at least one is expected")]
    Empty,
    /// The bytes end before the batch does.
    #[error("record batch of {needed} bytes is cut short after {have}")]
    Truncated {
        /// Bytes it takes.
        needed: usize,
        /// Bytes there are.
        have: usize,
    },
    /// The stated length leaves no room for the header.
    #[error("record batch states a length of {stated} where its header alone takes {min}")]
    Length {
        /// The length field: bytes after the field itself.
        stated: i32,
        /// The least it can be.
        min: i32,
    },
    /// Bytes follow a batch that was to stand alone.
    #[error("{count} bytes follow the record batch")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// Another format.
    #[error("record batch has magic {found} where 2 is expected")]
    Magic {
        /// The magic byte.
        found: u8,
    },
    /// Longer than allowed.
    #[error("record batch of {size} bytes is larger than the {max} bytes allowed")]
    TooLarge {
        /// Size, in bytes.
        size: usize,
        /// Allowed, in bytes.
        max: usize,
    },
    /// The bytes do not give the checksum they carry.
    #[error("record batch checksum is {computed:#010x} where {stated:#010x} is stated")]
    Crc {
        /// In the header.
        stated: u32,
        /// Of the batch.
        computed: u32,
    },
    /// Fewer records than there may be: none from a producer, less than none in any batch.
    #[error("record batch states {count} records where at least 1 is expected")]
    NoRecords {
        /// The record count.
        count: i32,
    },
    /// Count and last offset delta disagree.
    #[error("record batch states {count} records and yet last offset delta {last_offset_delta}")]
    Count {
        /// The record count.
        count: i32,
        /// The last offset delta; one less than the count in a batch from a producer.
        last_offset_delta: i32,
    },
    /// More records than the bytes could hold.
    #[error("record batch states {count} records in {body_len} bytes where at most {max} fit")]
    TooManyRecords {
        /// The record count.
        count: i32,
        /// Bytes of records.
        body_len: usize,
        /// Records that could fit in them.
        max: usize,
    },
    /// An unknown codec.
    #[error("record batch has compression {code} where at most 4 is known")]
    Compression {
        /// The number in the attributes.
        code: u16,
    },
    /// Attributes that a producer may not set.
    #[error("record batch has attributes {found:#06x} of which a producer may set only {allowed:#06x}")]
    Attributes {
        /// The attributes.
        found: u16,
        /// Those a producer may set.
        allowed: u16,
    },
    /// The compressed records are damaged or too large.
    #[error("{0}")]
    Decompress(#[from] DecompressError),
}

impl BatchError {
    /// What a broker answers: damage on the way is worth sending again, the rest is not.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            BatchError::Truncated { .. }
            | BatchError::Length { .. }
            | BatchError::TrailingBytes { .. }
            | BatchError::Crc { .. } => ErrorCode::CorruptMessage,
            BatchError::TooLarge { .. } => ErrorCode::MessageTooLarge,
            BatchError::Empty
            | BatchError::Magic { .. }
            | BatchError::NoRecords { .. }
            | BatchError::Count { .. }
            | BatchError::TooManyRecords { .. }
            | BatchError::Compression { .. }
            | BatchError::Attributes { .. }
            | BatchError::Decompress(_) => ErrorCode::InvalidRecord,
        }
    }
}
