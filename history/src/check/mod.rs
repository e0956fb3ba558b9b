//! Judges a history: which promises of a log broker it breaks.
//!
//! The history is indexed once; then each rule looks at the index by itself and reports what it finds. A bad history
//! usually breaks several rules; the verdict is the whole list.

mod bounds;
mod frontier;
mod index;
mod liveness;
mod log;
mod lookups;
mod loss;
mod order;
mod places;
mod polls;
mod removal;
mod sends;
#[cfg(test)]
mod tests;
mod topic_life;
mod topics;

use crate::class::{Class, Violation};
use crate::history::History;
use crate::operation::LogId;
use index::Index;
pub(crate) use sends::Sends;

/// What came of judging a history.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Verdict {
    /// Broken promises, the gravest first.
    pub violations: Vec<Violation>,
    /// What was judged.
    pub judged: Judged,
}

/// Counts of what was judged.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Judged {
    /// Operations.
    pub operations: u64,
    /// Records sent.
    pub sent: u64,
    /// Records acknowledged.
    pub acked: u64,
    /// Records that readers saw before the final reading, each time it was seen counted.
    pub read_during: u64,
    /// Records in all logs at the end.
    pub final_records: u64,
    /// Of them: copies of records that stand at more than one offset, sent again after a lost acknowledgement.
    pub duplicates: u64,
    /// Acknowledged records that were rightly removed by the end: deleted, too old, or superseded.
    pub removed: u64,
    /// Times the broker went down.
    pub crashes: u64,
}

/// Judges a whole history.
///
/// # Panics
/// If two records have the same id; [`History::read`] refuses such a file.
pub fn check(history: &History) -> Verdict {
    let mut findings = Findings::default();
    let index = Index::build(history, &mut findings);
    places::check(&index, &mut findings);
    loss::check(&index, &mut findings);
    polls::check(&index, &mut findings);
    order::check(&index, &mut findings);
    bounds::check(&index, &mut findings);
    lookups::check(&index, &mut findings);
    topics::check(&index, &mut findings);
    liveness::check(&index, &mut findings);
    let Findings { mut violations, judged } = findings;
    violations.sort_by_key(|violation| violation.class);
    Verdict { violations, judged }
}

/// Where rules put what they find.
#[derive(Default)]
struct Findings {
    violations: Vec<Violation>,
    judged: Judged,
}

impl Findings {
    fn report(&mut self, class: Class, detail: String) {
        self.violations.push(Violation { class, log: None, detail });
    }

    fn report_of(&mut self, log: LogId, class: Class, detail: String) {
        self.violations.push(Violation { class, log: Some(log), detail });
    }
}

impl Verdict {
    /// The classes that were found, each once, the gravest first.
    pub fn classes(&self) -> Vec<Class> {
        let mut classes: Vec<Class> = self.violations.iter().map(|violation| violation.class).collect();
        classes.dedup();
        classes
    }

    /// Whether no promise was broken.
    pub fn is_sound(&self) -> bool {
        self.violations.is_empty()
    }
}
