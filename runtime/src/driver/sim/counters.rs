//! What has befallen a simulated disk: how often each thing, and where there is damage.

use std::{ops::Range, path::PathBuf, time::Duration};

/// What crashes, kills and faults have done to a disk so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounters {
    /// Crashes so far.
    pub crashes: u64,
    /// Unflushed writes that survived a crash whole.
    pub writes_kept: u64,
    /// Unflushed writes of which some sectors survived a crash.
    pub writes_torn: u64,
    /// Unflushed writes that a crash left nothing of.
    pub writes_lost: u64,
    /// Unsynced names, renames, removals and lengths that survived a crash.
    pub changes_kept: u64,
    /// Unsynced names, renames, removals and lengths that did not.
    pub changes_lost: u64,
    /// Kills so far.
    pub kills: u64,
    /// Writes that were under way at a kill and of which something is there, not flushed.
    pub writes_left_by_kills: u64,
    /// Reads that failed.
    pub read_errors: u64,
    /// Writes that failed.
    pub write_errors: u64,
    /// Flushes that failed, those of durable writes included.
    pub flush_errors: u64,
    /// Unflushed writes that a failed flush gave up for good.
    pub writes_given_up: u64,
    /// Operations on names and lengths that failed.
    pub name_errors: u64,
    /// Operations refused because the disk was full.
    pub refused_as_full: u64,
    /// Operations that took seconds.
    pub stalls: u64,
    /// Operations while the disk was slowed down.
    pub slowed: u64,
    /// Writes reported done that were never made.
    pub writes_never_made: u64,
    /// Writes reported done that landed elsewhere.
    pub writes_misdirected: u64,
    /// Reads of which one bit was another.
    pub reads_flipped: u64,
    /// Reads that found a block as it had been before.
    pub reads_stale: u64,
    /// Bits that rotted.
    pub bits_rotten: u64,
}

/// What is wrong with a place on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// Bits have rotted.
    Rotten,
    /// What was written there never came.
    NeverWritten,
    /// What was meant for another place came there.
    Overwritten,
    /// A read found something else there, once.
    Misread,
}

/// A place on a disk that does not hold what was written there last, or did not seem to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What is wrong.
    pub harm: Harm,
    /// The file, by the name that it had then.
    pub path: PathBuf,
    /// Where in it.
    pub range: Range<u64>,
    /// When it came about, since the world began.
    pub at: Duration,
}
