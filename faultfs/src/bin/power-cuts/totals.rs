//! What came of the cuts, one by one and together, and whether together they prove anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use corrente_faultfs::cut::Fates;
use serde::{Deserialize, Serialize};

use crate::judge::{Finding, Judged};
use crate::machine::Checked;
use crate::plan::Cut;

/// What came of one cut.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Outcome {
    /// The run that was cut.
    pub run: usize,
    /// Which of its cuts this is.
    pub number: usize,
    pub cut: Cut,
    pub fates: Fates,
    pub file_system: Checked,
    pub judged: Judged,
    pub findings: Vec<Finding>,
    /// Logs whose torn tail the broker cut.
    pub torn_tails: u64,
    /// From the start of the broker until it served, in milliseconds; nothing if it never did.
    pub ready_ms: Option<u64>,
}

/// All of them together.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub cuts: u64,
    pub violating: u64,
    /// Cuts that lost what had been acknowledged.
    pub losing: u64,
    pub fates: Fates,
    pub judged: Judged,
    pub torn_tails: u64,
    pub slowest_ready_ms: u64,
    file_systems: BTreeMap<&'static str, u64>,
    classes: BTreeMap<String, u64>,
}

impl Outcome {
    /// Whether anything acknowledged was lost.
    pub fn loses(&self) -> bool {
        self.findings.iter().any(|finding| finding.is_loss)
    }
}

impl Totals {
    pub fn of(outcomes: &[Outcome]) -> Totals {
        let mut totals = Totals::default();
        outcomes.iter().for_each(|outcome| totals.add(outcome));
        totals
    }

    fn add(&mut self, outcome: &Outcome) {
        self.cuts += 1;
        self.violating += u64::from(!outcome.findings.is_empty());
        self.losing += u64::from(outcome.loses());
        self.fates.add(outcome.fates);
        self.judged.acked += outcome.judged.acked;
        self.judged.read += outcome.judged.read;
        self.judged.found += outcome.judged.found;
        self.judged.removed += outcome.judged.removed;
        self.torn_tails += outcome.torn_tails;
        self.slowest_ready_ms = self.slowest_ready_ms.max(outcome.ready_ms.unwrap_or(0));
        let file_system = match outcome.file_system {
            Checked::Clean => "clean",
            Checked::Repaired => "repaired",
            Checked::Broken => "broken",
        };
        *self.file_systems.entry(file_system).or_default() += 1;
        let classes: BTreeSet<&str> = outcome.findings.iter().map(|finding| finding.class.as_str()).collect();
        for class in classes {
            *self.classes.entry(class.to_owned()).or_default() += 1;
        }
    }

    /// Why so many cuts prove too little, if they do: a disk that lost and tore little was never in the way.
    pub fn shortfalls(&self) -> Vec<String> {
        let least = [
            ("acknowledged records", self.judged.acked, 1_000 * self.cuts),
            ("records compacted or expired", self.judged.removed, 50 * self.cuts),
            ("writes pending", self.fates.pending, 4 * self.cuts),
            ("writes dropped", self.fates.dropped, 2 * self.cuts),
            ("writes torn", self.fates.torn, self.cuts / 3),
            ("writes that overtook others", self.fates.overtook, self.cuts / 2),
            ("torn tails cut by the broker", self.torn_tails, self.cuts / 4),
        ];
        let short = least.into_iter().filter(|(_, found, least)| found < least);
        short.map(|(what, found, least)| format!("{found} {what}, at least {least} are wanted")).collect()
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { fates, judged, .. } = self;
        writeln!(f, "cuts             {}", self.cuts)?;
        writeln!(f, "acknowledged     {} records by the cuts", judged.acked)?;
        writeln!(f, "read             {} records by the cuts", judged.read)?;
        writeln!(f, "found            {} records after them, every byte compared", judged.found)?;
        writeln!(f, "removed          {} records, compacted or expired", judged.removed)?;
        writeln!(
            f,
            "pending writes   {}: {} dropped, {} torn, {} that overtook others",
            fates.pending, fates.dropped, fates.torn, fates.overtook
        )?;
        let of_kind = |(kind, count): (&&str, &u64)| format!("{count} {kind}");
        let file_systems: Vec<String> = self.file_systems.iter().map(of_kind).collect();
        writeln!(f, "e2fsck           {}", file_systems.join(", "))?;
        writeln!(f, "torn tails       {} cut by the broker", self.torn_tails)?;
        write!(f, "slowest start    {} ms", self.slowest_ready_ms)?;
        for (class, cuts) in &self.classes {
            write!(f, "\nbroken           {class} in {cuts} cuts")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corrente_faultfs::cut::Mode;

    fn outcome(pending: u64, findings: Vec<Finding>) -> Outcome {
        Outcome {
            run: 0,
            number: 0,
            cut: Cut { event: 9, mode: Mode::Subset, seed: 1, shards: 2 },
            fates: Fates { pending, dropped: pending / 2, torn: pending / 4, overtook: pending / 4 },
            file_system: Checked::Clean,
            judged: Judged { acked: 2_000, read: 10, found: 2_100, removed: 100 },
            findings,
            torn_tails: 1,
            ready_ms: Some(40),
        }
    }

    #[test]
    fn a_campaign_in_which_little_was_pending_proves_too_little() {
        let plenty: Vec<Outcome> = (0..10).map(|_| outcome(8, vec![])).collect();
        assert_eq!(Totals::of(&plenty).shortfalls(), Vec::<String>::new());
        let little: Vec<Outcome> = (0..10).map(|_| outcome(2, vec![])).collect();
        let short = Totals::of(&little).shortfalls();
        assert_eq!(short[0], "20 writes pending, at least 40 are wanted");
        assert_eq!(short.len(), 4);
    }

    #[test]
    fn cuts_are_counted_by_what_they_broke() {
        let lost = Finding { is_loss: true, ..Finding::new("LostWrite", "") };
        let outcomes = [
            outcome(8, vec![]),
            outcome(8, vec![lost.clone(), lost]),
            outcome(8, vec![Finding::new("Phantom", "")]),
        ];
        let totals = Totals::of(&outcomes);
        assert_eq!((totals.cuts, totals.violating, totals.losing), (3, 2, 1));
        assert!(totals.to_string().ends_with("LostWrite in 1 cuts\nbroken           Phantom in 1 cuts"));
    }
}
