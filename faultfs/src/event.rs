//! What the disk was asked to do and what it did, in order: written by the recorder, read by whoever cuts the power.

use serde::{Deserialize, Serialize};

/// One thing that happened at the disk. Ids are given in the order in which requests were received.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A write was received. Parts of it may be on the disk from now on.
    Write {
        /// Names it in [`Event::Wrote`].
        id: u64,
        /// Where on the disk, in bytes.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// Where its bytes begin in the payload file; all of them are zero if it is nowhere.
        payload: Option<u64>,
    },
    /// The write with this id is done; the kernel is told only after this stands here.
    Wrote {
        /// Of the write.
        id: u64,
    },
    /// A flush was received: it covers the writes done before this.
    Flush {
        /// Names it in [`Event::Flushed`].
        id: u64,
    },
    /// The flush with this id is done; the kernel is told only after this stands here.
    Flushed {
        /// Of the flush.
        id: u64,
    },
}

/// An event and its time.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Stamped {
    /// By [`now_ns`](crate::clock::now_ns); never smaller than that of the event before.
    pub at_ns: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}
