//! The partition log on disk: segments, extents, checkpoint, recovery.
//!
//! Owns every byte below the data directories. A shard opens a [`Storage`] over the directories a
//! [`NodeLayout`] has locked; a [`Log`] of it appends record batches, says how far they are flushed and reads
//! them back. Knows no network, no leader and no topic name; never shows bytes it could not verify, never
//! truncates what was known to be flushed, and never tries a failed write again. docs/FORMAT.md draws every
//! byte it writes.

/// The most that a batch may hold when it is decompressed, in bytes: compaction leaves a larger one as it is, and a
/// look-up by timestamp tells its first offset.
pub const DECOMPRESSED_BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

mod checkpoint;
mod checkpointer;
mod checkpoints;
mod compaction;
mod drives;
mod error;
mod extent;
mod found_twice;
#[doc(hidden)]
pub mod fuzz;
mod identity;
pub mod inspect;
mod layout;
mod le;
mod log;
mod log_start;
mod policy;
mod pool;
mod position;
mod prewrite;
mod producer_snapshot;
mod producer_snapshots;
mod producer_state;
mod read_ahead;
mod read_slice;
mod reader;
mod recovery;
mod release;
pub mod repair;
mod retention;
mod rewriter;
mod scan;
mod segment;
mod segment_index;
mod segment_reader;
mod shard;
mod storage;
mod tail_ring;
mod timestamps;
#[doc(hidden)]
pub mod trial;
mod upkeep;
mod window;
mod writer;

pub use checkpoint::CheckpointEntry;
pub use drives::DriveState;
pub use error::{
    AppendError, CreateError, DeleteRecordsError, Fenced, OpenError, PathError, ReadError, RecoveryError,
};
pub use layout::{FailedDir, FoundLog, NodeLayout};
pub use log::{Appended, Health, Log, LogId};
pub use policy::{CompactionPolicy, LogPolicy};
pub use position::{FilePosition, HeaderHash, Nonce};
pub use producer_state::SequenceRefusal;
pub use recovery::{Recovered, TailFound};
pub use shard::StorageConfig;
pub use storage::Storage;
pub use timestamps::TimestampedOffset;
pub use upkeep::UpkeepCounters;
