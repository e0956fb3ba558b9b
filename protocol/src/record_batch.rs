//! The record batch: the one unit that is produced, stored, replicated and fetched, always as the same bytes.
//!
//! It is Kafka's record batch v2: a big-endian header of [`HEADER_LEN`] bytes and then records, compressed together or
//! not. A CRC32C covers all that follows it; base offset and leader epoch stand before it, so that a leader stamps them
//! in place ([`stamp`]). A broker proves a batch by its header and checksum ([`validate_batches`]) and looks at its
//! records only where they will be compacted ([`check_keys`]); clients build batches ([`RecordBatchBuilder`]) and read
//! them ([`RecordBatch`]).

mod builder;
mod error;
mod header;
mod keys;
mod reader;
mod retain;
mod sequence;
mod validate;

pub use builder::{RecordBatchBuilder, UnsealedBatch};
pub use error::BatchError;
pub use header::{
    Attributes, HEADER_LEN, Headers, NO_LEADER_EPOCH, RecordBatchHeader, headers, stamp, stamp_append_time,
};
pub use keys::{KeyError, check_keys};
pub use reader::{RecordBatch, RecordBatches, Records};
pub use retain::{RetainError, Retained, empty_batch, retain};
pub use sequence::{BatchSequence, sequence_after};
pub use validate::{BatchLimits, ValidBatch, validate_batches};

#[doc(hidden)]
pub mod fuzz;

#[cfg(test)]
mod tests;
