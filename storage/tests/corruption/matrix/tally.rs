//! How many cases came to what, by place and kind of damage.

use std::collections::BTreeMap;
use std::fmt;

use super::cases::Case;
use super::damage;
use super::judge::{Judged, Verdict};
use super::map;

/// The counts of one row.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// In the order of [`COLUMNS`].
    verdicts: [u64; 6],
    /// Cases in which sound records could not be read.
    hiding: u64,
    /// The last of them.
    one_hiding: Option<u64>,
}

const COLUMNS: [&str; 6] = ["harmless", "window", "refused", "quarantine", "not opened", "WRONG"];

const WIDTHS: [usize; 6] = [9, 8, 9, 12, 12, 7];

type Row = (map::Kind, map::Part, damage::Kind);

/// The counts of all.
#[derive(Debug, Default)]
pub struct Tally {
    rows: BTreeMap<Row, Counts>,
    /// What is wrong, with the number of the case.
    pub wrong: Vec<(u64, String)>,
}

impl Tally {
    /// Adds a case.
    pub fn add(&mut self, case: &Case, judged: &Judged) {
        let counts = self.rows.entry((case.file, case.part, case.kind)).or_default();
        counts.verdicts[column(&judged.verdict)] += 1;
        if judged.hidden > 0 {
            counts.hiding += 1;
            counts.one_hiding = Some(case.number);
        }
        if let Verdict::Wrong(what) = &judged.verdict {
            self.wrong.push((case.number, format!("{}: {what}", case.damage)));
        }
    }

    /// Cases that came to this.
    pub fn count(&self, verdict: &Verdict) -> u64 {
        self.rows.values().map(|counts| counts.verdicts[column(verdict)]).sum()
    }

    /// Cases in which sound records could not be read.
    pub fn hiding(&self) -> u64 {
        self.rows.values().map(|counts| counts.hiding).sum()
    }

    /// Cases.
    pub fn cases(&self) -> u64 {
        self.rows.values().map(|counts| counts.verdicts.iter().sum::<u64>()).sum()
    }

    /// Cases of these kinds of damage that came to this.
    pub fn count_of(&self, verdict: &Verdict, kinds: &[damage::Kind]) -> u64 {
        let rows = self.rows.iter().filter(|((_, _, kind), _)| kinds.contains(kind));
        rows.map(|(_, counts)| counts.verdicts[column(verdict)]).sum()
    }
}

fn column(verdict: &Verdict) -> usize {
    match verdict {
        Verdict::Harmless => 0,
        Verdict::Window => 1,
        Verdict::Refused => 2,
        Verdict::Quarantined => 3,
        Verdict::NotOpened => 4,
        Verdict::Wrong(_) => 5,
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<18}{:<15}{:<25}", "file", "part", "damage")?;
        for (column, width) in COLUMNS.iter().zip(WIDTHS) {
            write!(f, "{column:>width$}")?;
        }
        writeln!(f, "{:>8}{:>9}", "hiding", "one is")?;
        let mut total = Counts::default();
        for ((file, part, kind), counts) in &self.rows {
            write_row(f, [file, part, kind], counts)?;
            total.hiding += counts.hiding;
            for (sum, count) in total.verdicts.iter_mut().zip(counts.verdicts) {
                *sum += count;
            }
        }
        write_row(f, [&"all", &"", &""], &total)
    }
}

fn write_row(f: &mut fmt::Formatter<'_>, what: [&dyn fmt::Display; 3], counts: &Counts) -> fmt::Result {
    let [file, part, kind] = what;
    write!(f, "{file:<18}{part:<15}{kind:<25}")?;
    for (count, width) in counts.verdicts.iter().zip(WIDTHS) {
        write!(f, "{count:>width$}")?;
    }
    write!(f, "{:>8}", counts.hiding)?;
    match counts.one_hiding {
        Some(number) => writeln!(f, "{number:>9}"),
        None => writeln!(f),
    }
}
