//! Which broken promises the injected faults excuse, and which they do not.
//!
//! A failing disk excuses refusals that say so, and nothing else. Damage excuses what is missing of a partition
//! whose log was hit, if the broker has told of it, or if it fell into the window in which rot of the newest extents
//! cannot be told from a torn tail (`docs/FORMAT.md`). Nothing excuses wrong bytes: what was never sent, in a
//! partition where it does not belong, or with a hole before it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use corrente_history::{Class, History, Violation};
use corrente_protocol::ids::TopicId;
use corrente_runtime::sim::{Damage, Harm};

use crate::workload::TOPIC;

#[cfg(test)]
mod tests;

/// What a broker says of a disk that fails.
const FAILURES: [&str; 4] =
    ["the log is fenced", "Input/output error", "no storage space", "the disk of this broker failed"];
/// What it says of damage.
const DAMAGED: [&str; 2] = ["damaged", "quarantine"];
/// What it says of an offset beyond the end.
const OUT_OF_RANGE: &str = "is not in";

/// What the checker says of a run that was not brought to its end.
const UNFINISHED: &str = "did not come to rest";

/// The faults of a run, as far as they excuse anything.
#[derive(Clone, Debug, Default)]
pub struct Injected {
    /// Operations of the disk have failed.
    pub failures: bool,
    /// Places that did not hold what was written there.
    pub damages: Vec<Damage>,
    /// When the broker began to start and when it served or ended, since the world began.
    pub starts: Vec<Range<Duration>>,
    /// When it served. Then it has written its checkpoint anew.
    pub served: Vec<Duration>,
    /// When it went down without writing its checkpoint.
    pub sudden_ends: Vec<Duration>,
    /// The newest extents may be lost if they were flushed so shortly before such an end.
    pub window: Duration,
    /// Why the broker did not start any more.
    pub refused_start: Option<String>,
}

/// What is left of a verdict in view of what was injected.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// What nothing excuses.
    pub violations: Vec<Violation>,
    /// Broken promises that were excused.
    pub excused: u64,
    /// Partitions whose damage was told of.
    pub damage_told: u64,
    /// Partitions that may have lost their newest extents without a word.
    pub in_window: u64,
}

/// Why a partition is held to less.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Excuse {
    Told,
    Window,
}

/// The partitions that are held to less, and whether the whole run is.
#[derive(Debug, Default)]
struct Excuses {
    of: BTreeMap<u32, Excuse>,
    /// The metadata was hit, so that everything may be missing.
    of_all: Option<Excuse>,
}

/// Parts what a checker has found in the history into what the faults excuse and what they do not.
pub fn excuse(found: Vec<Violation>, history: &History, injected: &Injected) -> Judgement {
    let excuses = Excuses::of(history, injected);
    let found_before = found.len();
    let mut violations = found;
    violations.retain(|violation| !excuses.cover(violation) && !is_excused_refusal(violation, injected));
    let count = |wanted| excuses.of.values().filter(|&&excuse| excuse == wanted).count() as u64;
    Judgement {
        excused: (found_before - violations.len()) as u64,
        violations,
        damage_told: count(Excuse::Told),
        in_window: count(Excuse::Window),
    }
}

impl Excuses {
    fn of(history: &History, injected: &Injected) -> Excuses {
        let damages = &injected.damages;
        if injected.refused_start.is_some() && !damages.is_empty() {
            return Excuses { of_all: Some(Excuse::Told), ..Excuses::default() };
        }
        // Without the checkpoint's newest entries the window reaches back to where it was written anew.
        let life = |damage: &Damage| injected.served.iter().filter(|served| **served <= damage.at).count();
        let without_checkpoint: BTreeSet<usize> =
            damages.iter().filter(|damage| is_checkpoint(&damage.path)).map(life).collect();
        let in_window =
            |damage: &&Damage| without_checkpoint.contains(&life(damage)) || is_in_window(damage, injected);
        if damages.iter().filter(in_window).any(|damage| is_metadata(&damage.path)) {
            return Excuses { of_all: Some(Excuse::Window), ..Excuses::default() };
        }
        let told = told_of_damage(history);
        let mut of = BTreeMap::new();
        for damage in damages {
            let Some(partition) = partition_of_log(&damage.path) else { continue };
            if in_window(&damage) {
                of.insert(partition, Excuse::Window);
            } else if told.contains(&partition) {
                of.entry(partition).or_insert(Excuse::Told);
            }
        }
        Excuses { of, of_all: None }
    }

    fn cover(&self, violation: &Violation) -> bool {
        let of_log = violation.log.map(|log| log.partition);
        // A client that was turned away for good names the log in words only.
        let of_refusal = || named_in(&violation.detail).filter(|_| is_refusal(violation));
        let partition = of_log.or_else(of_refusal);
        let excuse = self.of_all.or_else(|| self.of.get(&partition?).copied());
        match (excuse, violation.class) {
            (None, _) => false,
            // An offset that was lost without a word is given again.
            (Some(Excuse::Window), Class::InconsistentOffsets) => true,
            (Some(_), class) if is_about_bytes(class) => false,
            // An end that went back is not told of by saying that something is damaged.
            (Some(Excuse::Told), Class::Liveness) => !violation.detail.contains(OUT_OF_RANGE),
            (Some(_), _) => true,
        }
    }
}

/// Whether it is about what was shown, and not about what is missing.
fn is_about_bytes(class: Class) -> bool {
    use Class::{
        AbortedRead, InconsistentOffsets, Misplaced, NonMonotonicPoll, NonMonotonicWithinPoll, Phantom,
        PollSkip, SkipWithinPoll,
    };
    matches!(
        class,
        InconsistentOffsets
            | Phantom
            | AbortedRead
            | Misplaced
            | SkipWithinPoll
            | NonMonotonicWithinPoll
            | PollSkip
            | NonMonotonicPoll
    )
}

/// What rots has been at rest for longer than the window. What a start finds wrong may be the newest.
fn is_in_window(damage: &Damage, injected: &Injected) -> bool {
    match damage.harm {
        Harm::Rotten => false,
        Harm::Misread => injected.starts.iter().any(|start| start.contains(&damage.at)),
        Harm::NeverWritten | Harm::Overwritten => {
            injected.sudden_ends.iter().any(|end| *end >= damage.at && *end - damage.at < injected.window)
        }
    }
}

fn is_checkpoint(path: &Path) -> bool {
    path.iter().any(|name| name == "checkpoint")
}

/// The topic and the partition to whose log the file belongs.
fn log_of(path: &Path) -> Option<(&str, &str)> {
    let mut names = path.iter().filter_map(|name| name.to_str());
    names.find(|name| *name == "topics")?;
    Some((names.next()?, names.next()?))
}

fn is_metadata(path: &Path) -> bool {
    log_of(path).is_some_and(|(topic, _)| topic == TopicId::METADATA.to_string())
}

/// The partition of the workload's topic, of which there is one.
fn partition_of_log(path: &Path) -> Option<u32> {
    let (_, partition) = log_of(path).filter(|_| !is_metadata(path))?;
    partition.parse().ok()
}

/// Partitions of which a client was told that they are damaged.
fn told_of_damage(history: &History) -> BTreeSet<u32> {
    let refusals = history.operations.iter().filter_map(|operation| operation.refusal());
    let of_damage = refusals.filter(|refusal| DAMAGED.iter().any(|words| refusal.detail.contains(words)));
    of_damage.filter_map(|refusal| named_in(&refusal.detail)).collect()
}

/// The partition that a client's error names: `fetch ledger/3 at 10.0.0.1:7400 failed: ...`.
fn named_in(error: &str) -> Option<u32> {
    let (_, rest) = error.split_once(&format!("{TOPIC}/"))?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

/// Whether a client was turned away, and the broker said why.
fn is_refusal(violation: &Violation) -> bool {
    violation.class == Class::Liveness
        && (says_any(violation, &DAMAGED) || says_any(violation, &[OUT_OF_RANGE]))
}

fn is_excused_refusal(violation: &Violation, injected: &Injected) -> bool {
    // A disk that was healed excuses no run that does not come to its end.
    let is_of_the_run = violation.detail.contains(UNFINISHED);
    violation.class == Class::Liveness
        && !is_of_the_run
        && injected.failures
        && says_any(violation, &FAILURES)
}

fn says_any(violation: &Violation, words: &[&str]) -> bool {
    words.iter().any(|words| violation.detail.contains(words))
}
