//! Many seeds: totals, and whether they prove anything.

use std::fmt;
use std::time::Duration;

use corrente_runtime::sim::DiskCounters;

use crate::befell::Befell;
use crate::power_cut::Report;
use crate::trouble::Mode;

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
    /// Acknowledged records that were rightly removed.
    pub removed: u64,
    /// What befell the brokers.
    pub befell: Befell,
    /// What befell their disks.
    pub disk: DiskCounters,
    /// Broken promises that the faults excuse.
    pub excused: u64,
    /// Partitions whose damage was told of.
    pub damage_told: u64,
    /// Partitions that may have lost their newest extents without a word.
    pub in_window: u64,
    /// Runs that ended with a broker that refused to start on a disk that lies.
    pub refused_starts: u64,
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
        self.removed += judged.removed;
        self.befell += *befell;
        self.disk += *disk;
        self.excused += report.excused;
        self.damage_told += report.damage_told;
        self.in_window += report.in_window;
        self.refused_starts += u64::from(report.refused_start.is_some());
    }

    /// What a campaign of this many seeds should have met and has not; empty if it proves something.
    ///
    /// Disks that lose nothing, cuts that hit nothing and readers that see nothing find no bug.
    pub fn shortfalls(&self, mode: Mode) -> Vec<String> {
        let Totals { seeds, befell, disk, .. } = self;
        let mut least = vec![
            ("cuts and kills under load", befell.cuts_under_load, *seeds),
            ("kills", befell.kills, seeds / 2),
            ("writes that kills left unflushed", disk.writes_left_by_kills, seeds / 10),
            ("records unacknowledged at cuts", befell.unacked_at_cuts, 3 * seeds),
            ("restarts with another number of shards", befell.reshardings, *seeds),
            ("unflushed writes lost", disk.writes_lost, seeds / 4),
            ("unflushed writes torn", disk.writes_torn, seeds / 20),
            ("unflushed writes kept", disk.writes_kept, seeds / 8),
            ("records acknowledged", self.acked, 100 * seeds),
            ("records read during the runs", self.read_during, 50 * seeds),
            ("records rightly removed", self.removed, 50 * seeds),
        ];
        least.extend(match mode {
            Mode::Failing => vec![
                ("writes that failed", disk.write_errors, seeds / 4),
                ("flushes that failed", disk.flush_errors, seeds / 4),
                ("unflushed writes given up", disk.writes_given_up, seeds / 10),
                ("reads that failed", disk.read_errors, seeds / 10),
                ("names that failed", disk.name_errors, seeds / 10),
                ("operations refused as full", disk.refused_as_full, seeds / 10),
                ("dead drives", befell.dead_drives, seeds / 20),
            ],
            Mode::Lying => vec![
                ("bits that rotted", disk.bits_rotten, seeds / 2),
                ("writes never made", disk.writes_never_made, seeds / 4),
                ("writes misdirected", disk.writes_misdirected, seeds / 4),
                ("reads with another bit", disk.reads_flipped, seeds / 10),
                ("stale reads", disk.reads_stale, seeds / 10),
                ("partitions whose damage was told of", self.damage_told, seeds / 4),
            ],
        });
        let short = least.into_iter().filter(|(_, met, wanted)| met < wanted);
        short.map(|(what, met, wanted)| format!("{what}: {met}, at least {wanted} are wanted")).collect()
    }

    /// What there is to say, one line each: a word for what it is about, and the figures.
    fn lines(&self) -> Vec<(&'static str, String)> {
        let Totals { seeds, failed, lost_acks, befell, disk, .. } = self;
        vec![
            ("seeds", format!("{seeds}, {failed} failed, {lost_acks} of them lost acknowledged records")),
            (
                "virtual time",
                format!("{:.0} s, {} turns of tasks", self.virtual_time.as_secs_f64(), self.steps),
            ),
            ("records", format!("{} sent ({} bytes), {} acknowledged", self.sent, self.bytes, self.acked)),
            ("", format!("{} read meanwhile, {} there twice", self.read_during, self.duplicates)),
            ("", format!("{} rightly removed", self.removed)),
            ("sudden ends", format!("{} power cuts, {} kills", befell.cuts, befell.kills)),
            (
                "",
                format!(
                    "{} under load, {} records unacknowledged then",
                    befell.cuts_under_load, befell.unacked_at_cuts
                ),
            ),
            (
                "orderly stops",
                format!("{}, {} with an error on a failing disk", befell.stops, befell.failed_stops),
            ),
            (
                "restarts",
                format!("{}, {} with another number of shards", befell.restarts, befell.reshardings),
            ),
            ("", format!("{} starts failed on a failing disk", befell.failed_starts)),
            (
                "unflushed writes",
                format!(
                    "{} lost, {} torn, {} kept; {} were left by kills",
                    disk.writes_lost, disk.writes_torn, disk.writes_kept, disk.writes_left_by_kills
                ),
            ),
            ("unsynced names", format!("{} lost, {} kept", disk.changes_lost, disk.changes_kept)),
            (
                "disk trouble",
                format!(
                    "{} times errors, {} a dead drive, {} a full one, {} slow",
                    befell.errors, befell.dead_drives, befell.full_drives, befell.slow
                ),
            ),
            (
                "failed",
                format!(
                    "{} reads, {} writes, {} flushes, {} names; {} refused as full",
                    disk.read_errors,
                    disk.write_errors,
                    disk.flush_errors,
                    disk.name_errors,
                    disk.refused_as_full
                ),
            ),
            ("", format!("{} unflushed writes given up", disk.writes_given_up)),
            ("slow", format!("{} operations slowed down, {} stalled", disk.slowed, disk.stalls)),
            (
                "damage",
                format!(
                    "{} bits rotten, {} writes never made, {} misdirected",
                    disk.bits_rotten, disk.writes_never_made, disk.writes_misdirected
                ),
            ),
            ("", format!("{} reads with another bit, {} stale", disk.reads_flipped, disk.reads_stale)),
            (
                "",
                format!(
                    "{} partitions told of it, {} in the window, {} brokers refused to start",
                    self.damage_told, self.in_window, self.refused_starts
                ),
            ),
            ("excused", format!("{} findings", self.excused)),
        ]
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> =
            self.lines().into_iter().map(|(what, figures)| format!("{what:<16} {figures}")).collect();
        f.write_str(&lines.join("\n"))
    }
}
