//! What befell the broker in a run, or in many.

use std::ops::AddAssign;

/// How often what befell the broker.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Befell {
    /// Power cuts, those in the middle of a start included.
    pub cuts: u64,
    /// Kills, those in the middle of a start included.
    pub kills: u64,
    /// Of cuts and kills: while records were unacknowledged.
    pub cuts_under_load: u64,
    /// Records unacknowledged at cuts and kills, in all.
    pub unacked_at_cuts: u64,
    /// Orderly stops.
    pub stops: u64,
    /// Of them: with an error, on a failing disk.
    pub failed_stops: u64,
    /// Times in which single operations of the disk went wrong.
    pub errors: u64,
    /// Times in which a drive was dead.
    pub dead_drives: u64,
    /// Times in which a drive was full.
    pub full_drives: u64,
    /// Times in which the disk was slow.
    pub slow: u64,
    /// Starts that failed and said why, on a failing disk.
    pub failed_starts: u64,
    /// Starts after the first that served.
    pub restarts: u64,
    /// Of them: with another number of shards than the start before.
    pub reshardings: u64,
}

impl AddAssign for Befell {
    fn add_assign(&mut self, other: Befell) {
        let Befell {
            cuts,
            kills,
            cuts_under_load,
            unacked_at_cuts,
            stops,
            failed_stops,
            errors,
            dead_drives,
            full_drives,
            slow,
            failed_starts,
            restarts,
            reshardings,
        } = other;
        self.cuts += cuts;
        self.kills += kills;
        self.cuts_under_load += cuts_under_load;
        self.unacked_at_cuts += unacked_at_cuts;
        self.stops += stops;
        self.failed_stops += failed_stops;
        self.errors += errors;
        self.dead_drives += dead_drives;
        self.full_drives += full_drives;
        self.slow += slow;
        self.failed_starts += failed_starts;
        self.restarts += restarts;
        self.reshardings += reshardings;
    }
}
