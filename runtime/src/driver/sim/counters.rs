//! What has befallen a simulated disk: how often each thing, and where there is damage.

use std::{
    ops::{AddAssign, Range},
    path::PathBuf,
    time::Duration,
};

macro_rules! counters {
    ($(#[$of_all:meta])* $name:ident { $($(#[$of_one:meta])* $counter:ident,)* }) => {
        $(#[$of_all])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$of_one])* pub $counter: u64,)*
        }

        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                $(self.$counter += other.$counter;)*
            }
        }
    };
}

counters! {
/// What crashes, kills and faults have done to a disk so far.
DiskCounters {
    /// Crashes so far.
    crashes,
    /// Unflushed writes that survived a crash whole.
    writes_kept,
    /// Unflushed writes of which some sectors survived a crash.
    writes_torn,
    /// Unflushed writes that a crash left nothing of.
    writes_lost,
    /// Unsynced names, renames, removals and lengths that survived a crash.
    changes_kept,
    /// Unsynced names, renames, removals and lengths that did not.
    changes_lost,
    /// Kills so far.
    kills,
    /// Writes that were under way at a kill and of which something is there, not flushed.
    writes_left_by_kills,
    /// Reads that failed.
    read_errors,
    /// Writes that failed.
    write_errors,
    /// Flushes that failed, those of durable writes included.
    flush_errors,
    /// Unflushed writes that a failed flush gave up for good.
    writes_given_up,
    /// Operations on names and lengths that failed.
    name_errors,
    /// Operations refused because the disk was full.
    refused_as_full,
    /// Operations that took seconds.
    stalls,
    /// Operations while the disk was slowed down.
    slowed,
    /// Writes reported done that were never made.
    writes_never_made,
    /// Writes reported done that landed elsewhere.
    writes_misdirected,
    /// Reads of which one bit was another.
    reads_flipped,
    /// Reads that found a block as it had been before.
    reads_stale,
    /// Bits that rotted.
    bits_rotten,
}
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
