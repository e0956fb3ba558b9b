//! Many seeds: totals, and whether they prove anything.

use std::fmt;
use std::time::Duration;

use crate::power_cut::Report;

/// Sums over the runs of a campaign.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Runs.
    pub seeds: u64,
    /// Runs that broke a promise.
    pub failed: u64,
    /// Of them: runs in which an acknowledged record was lost.
    pub lost_acks: u64,
    /// Virtual time.
    pub virtual_time: Duration,
    /// Turns of tasks.
    pub steps: u64,
    /// Records sent.
    pub sent: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Records acknowledged.
    pub acked: u64,
    /// Records that readers saw during the runs.
    pub read_during: u64,
    /// Records sent again that stand twice.
    pub duplicates: u64,
    /// Power cuts.
    pub cuts: u64,
    /// Of them: while records were unacknowledged.
    pub cuts_under_load: u64,
    /// Records unacknowledged at cuts.
    pub unacked_at_cuts: u64,
    /// Orderly stops.
    pub stops: u64,
    /// Starts after the first.
    pub restarts: u64,
    /// Of them: with another number of shards.
    pub reshardings: u64,
    /// Unflushed writes that left nothing.
    pub writes_lost: u64,
    /// Unflushed writes of which a part survived.
    pub writes_torn: u64,
    /// Unflushed writes that survived.
    pub writes_kept: u64,
    /// Unsynced changes of names and lengths that did not survive.
    pub changes_lost: u64,
    /// Unsynced changes of names and lengths that did.
    pub changes_kept: u64,
}

impl Totals {
    /// Adds a run.
    pub fn add(&mut self, report: &Report) {
        let Report { judged, befell, disk, .. } = report;
        self.seeds += 1;
        self.failed += u64::from(!report.violations.is_empty());
        self.lost_acks += u64::from(report.violations.iter().any(|violation| violation.class.is_loss()));
        self.virtual_time += report.virtual_time;
        self.steps += report.steps;
        self.bytes += report.bytes;
        self.sent += judged.sent;
        self.acked += judged.acked;
        self.read_during += judged.read_during;
        self.duplicates += judged.duplicates;
        self.cuts += befell.cuts;
        self.cuts_under_load += befell.cuts_under_load;
        self.unacked_at_cuts += befell.unacked_at_cuts;
        self.stops += befell.stops;
        self.restarts += befell.restarts;
        self.reshardings += befell.reshardings;
        self.writes_lost += disk.writes_lost;
        self.writes_torn += disk.writes_torn;
        self.writes_kept += disk.writes_kept;
        self.changes_lost += disk.changes_lost;
        self.changes_kept += disk.changes_kept;
    }

    /// What a campaign of this many seeds should have met and has not; empty if it proves something.
    ///
    /// Disks that lose nothing, cuts that hit nothing and readers that see nothing find no bug.
    pub fn shortfalls(&self) -> Vec<String> {
        let least = [
            ("cuts under load", self.cuts_under_load, self.seeds),
            ("records unacknowledged at cuts", self.unacked_at_cuts, 3 * self.seeds),
            ("restarts with another number of shards", self.reshardings, self.seeds),
            ("unflushed writes lost", self.writes_lost, self.seeds / 2),
            ("unflushed writes torn", self.writes_torn, self.seeds / 20),
            ("unflushed writes kept", self.writes_kept, self.seeds / 4),
            ("records acknowledged", self.acked, 100 * self.seeds),
            ("records read during the runs", self.read_during, 50 * self.seeds),
        ];
        let short = least.into_iter().filter(|(_, met, wanted)| met < wanted);
        short.map(|(what, met, wanted)| format!("{what}: {met}, at least {wanted} are wanted")).collect()
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { seeds, failed, lost_acks, .. } = self;
        writeln!(
            f,
            "seeds            {seeds}, {failed} failed, {lost_acks} of them lost acknowledged records"
        )?;
        writeln!(
            f,
            "virtual time     {:.0} s, {} turns of tasks",
            self.virtual_time.as_secs_f64(),
            self.steps
        )?;
        writeln!(
            f,
            "records          {} sent ({} bytes), {} acknowledged",
            self.sent, self.bytes, self.acked
        )?;
        writeln!(f, "                 {} read meanwhile, {} there twice", self.read_during, self.duplicates)?;
        writeln!(f, "power cuts       {}, {} of them under load", self.cuts, self.cuts_under_load)?;
        writeln!(f, "                 {} records unacknowledged at cuts", self.unacked_at_cuts)?;
        writeln!(f, "orderly stops    {}", self.stops)?;
        writeln!(
            f,
            "restarts         {}, {} with another number of shards",
            self.restarts, self.reshardings
        )?;
        let (lost, torn, kept) = (self.writes_lost, self.writes_torn, self.writes_kept);
        writeln!(f, "unflushed writes {lost} lost, {torn} torn, {kept} kept")?;
        write!(f, "unsynced names   {} lost, {} kept", self.changes_lost, self.changes_kept)
    }
}
