//! What has befallen a simulated disk, in numbers.

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
}
