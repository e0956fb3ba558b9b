//! One record inside a batch: Kafka's record v2, all of whose numbers are zigzag varints.

mod decode;
mod encode;
mod varint;

use bytes::{Bytes, BytesMut};

use crate::ids::Offset;

pub(crate) use decode::RecordFields;
pub use encode::RecordTooLong;
pub(crate) use encode::encode;

/// The least a record takes inside a batch: seven varints of one byte each.
pub const RECORD_LEN_MIN: usize = 7;

/// A name and a value that travel with a record and that no broker looks at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// The name. May stand in a record more than once.
    pub key: String,
    /// The value, or nothing, which is not the same as an empty value.
    pub value: Option<Bytes>,
}

/// A record as a reader sees it: at its own offset and time. Key, value and header values are slices of the batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordView {
    /// Its place in the partition.
    pub offset: Offset,
    /// Milliseconds since 1970, as the producer or the broker set it.
    pub timestamp_ms: i64,
    /// Decides the partition, and what compaction keeps.
    pub key: Option<Bytes>,
    /// What the record says; nothing in a compacted topic means "deleted".
    pub value: Option<Bytes>,
    /// Names and values beside it.
    pub headers: Vec<Header>,
}

/// Why bytes are not a record.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// The records end before the record does.
    #[error("record {index} does not end within the batch")]
    Truncated {
        /// Place in the batch, from 0.
        index: u32,
    },
    /// A varint goes on for too long.
    #[error("record {index} has a number of more bytes than its type allows")]
    Varint {
        /// Place in the batch, from 0.
        index: u32,
    },
    /// A length or a count that cannot be.
    #[error("record {index} states a length or count of {stated} where {remaining} bytes are left")]
    Length {
        /// Place in the batch, from 0.
        index: u32,
        /// The number found.
        stated: i32,
        /// Bytes left in the record or batch.
        remaining: usize,
    },
    /// The record's fields end before the record does.
    #[error("record {index} has {count} bytes after its last header")]
    TrailingBytes {
        /// Place in the batch, from 0.
        index: u32,
        /// How many.
        count: usize,
    },
    /// Its place in the batch is not after the record before it, or beyond the batch's end.
    #[error("record {index} has offset delta {found} outside of {from} to {last}")]
    OffsetDelta {
        /// Place in the batch, from 0.
        index: u32,
        /// The number found.
        found: i32,
        /// The least it could be.
        from: i32,
        /// The batch's last.
        last: i32,
    },
    /// A header's name is not UTF-8.
    #[error("record {index} has a header name that is not UTF-8")]
    HeaderName {
        /// Place in the batch, from 0.
        index: u32,
    },
    /// Bytes follow the last record.
    #[error("{count} bytes follow the last of {records} records")]
    AfterLast {
        /// How many bytes.
        count: usize,
        /// How many records the batch states.
        records: u32,
    },
}

/// Entry for fuzzing: one record of a batch, which is still the same when it is written and read again.
#[doc(hidden)]
pub fn fuzz_record(input: &[u8]) {
    let records = Bytes::copy_from_slice(input);
    let Ok(fields) = RecordFields::decode(&records, 0, 0) else { return };
    assert!(fields.end <= input.len(), "a record ends at {} of {} bytes", fields.end, input.len());
    let mut written = BytesMut::new();
    let RecordFields { offset_delta, timestamp_delta, ref key, ref value, ref headers, .. } = fields;
    encode(&mut written, offset_delta, timestamp_delta, key.as_deref(), value.as_deref(), headers)
        .expect("no longer than what was read");
    assert!(written.len() <= fields.end, "{} bytes written, {} read", written.len(), fields.end);
    let written = written.freeze();
    let again = RecordFields::decode(&written, 0, 0).expect("a record that was written");
    assert_eq!(again.end, written.len());
    assert_eq!((again.offset_delta, again.timestamp_delta), (offset_delta, timestamp_delta));
    assert_eq!((&again.key, &again.value, &again.headers), (key, value, headers));
}
