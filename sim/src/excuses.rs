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

use corrente_protocol::ids::{PartitionIndex, TopicId};
use corrente_runtime::sim::{Damage, Harm};

use crate::checker::{self, Class, Judged, Violation};
use crate::content::RecordId;
use crate::history::{Event, History, ReaderId};
use crate::workload::TOPIC;

#[cfg(test)]
mod tests;

/// What a broker says of a disk that fails.
const FAILURES: [&str; 4] =
    ["the log is fenced", "Input/output error", "no storage space", "the disk of this broker failed"];
/// What it says of damage.
const DAMAGED: &str = "damaged";
/// What it says of an offset beyond the end.
const OUT_OF_RANGE: &str = "is not in";

/// The faults of a run, as far as they excuse anything.
#[derive(Clone, Debug, Default)]
pub struct Injected {
    /// Operations of the disk have failed, or it was full.
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

/// A history judged in view of what was injected.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// What nothing excuses.
    pub violations: Vec<Violation>,
    /// What the checker counted.
    pub judged: Judged,
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

/// Judges a whole history, and that the run did not come to its end if it did not.
pub fn judge(history: &History, stuck: Option<String>, injected: &Injected) -> Judgement {
    let sent = partitions_of_records(history);
    let excuses = excuses(history, injected, &sent);
    let (all, judged) = checker::check(history);
    let sound = without(history, &sent, |partition| excuses.contains_key(&partition));
    let mut violations = checker::check(&sound).0;
    for (&partition, &excuse) in &excuses {
        let only = without(history, &sent, |other| other != partition);
        violations.extend(wrong_bytes(only, excuse));
    }
    violations.retain(|violation| !is_excused_refusal(violation, injected, &excuses));
    let excused = (all.len() as u64).saturating_sub(violations.len() as u64);
    if excuses.len() < history.partitions as usize {
        violations.extend(stuck.map(|detail| Violation { class: Class::Unresolved, detail }));
    }
    Judgement {
        excused,
        violations,
        judged,
        damage_told: excuses.values().filter(|&&excuse| excuse == Excuse::Told).count() as u64,
        in_window: excuses.values().filter(|&&excuse| excuse == Excuse::Window).count() as u64,
    }
}

fn partitions_of_records(history: &History) -> BTreeMap<RecordId, PartitionIndex> {
    let sent = history.events.iter().filter_map(|event| match event {
        Event::Sent { id, partition, .. } => Some((*id, *partition)),
        _ => None,
    });
    sent.collect()
}

/// The partitions that are held to less.
fn excuses(
    history: &History,
    injected: &Injected,
    sent: &BTreeMap<RecordId, PartitionIndex>,
) -> BTreeMap<PartitionIndex, Excuse> {
    let told = told_of_damage(history, sent);
    let all = |excuse| (0..history.partitions).map(move |partition| (PartitionIndex(partition), excuse));
    let damages = &injected.damages;
    if injected.refused_start.is_some() && !damages.is_empty() {
        return all(Excuse::Told).collect();
    }
    // Without the checkpoint's newest entries the window reaches back to where it was written anew.
    let life = |damage: &Damage| injected.served.iter().filter(|served| **served <= damage.at).count();
    let without_checkpoint: BTreeSet<usize> =
        damages.iter().filter(|damage| is_checkpoint(&damage.path)).map(life).collect();
    let in_window =
        |damage: &&Damage| without_checkpoint.contains(&life(damage)) || is_in_window(damage, injected);
    if damages.iter().filter(in_window).any(|damage| is_metadata(&damage.path)) {
        return all(Excuse::Window).collect();
    }
    let mut excuses = BTreeMap::new();
    for damage in damages {
        let Some(partition) = partition_of_log(&damage.path) else { continue };
        if in_window(&damage) {
            excuses.insert(partition, Excuse::Window);
        } else if told.contains(&partition) {
            excuses.entry(partition).or_insert(Excuse::Told);
        }
    }
    excuses
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
fn partition_of_log(path: &Path) -> Option<PartitionIndex> {
    let (_, partition) = log_of(path).filter(|_| !is_metadata(path))?;
    partition.parse().ok().map(PartitionIndex)
}

/// Partitions of which a client was told that they are damaged.
fn told_of_damage(history: &History, sent: &BTreeMap<RecordId, PartitionIndex>) -> BTreeSet<PartitionIndex> {
    let mut told = BTreeSet::new();
    for event in &history.events {
        match event {
            Event::Failed { id, error, .. } if error.contains(DAMAGED) => told.extend(sent.get(id)),
            Event::ReaderFailed { error, .. } if error.contains(DAMAGED) => told.extend(named_in(error)),
            _ => {}
        }
    }
    told
}

/// The partition that a client's error names: `fetch ledger/3 at 10.0.0.1:7400 failed: ...`.
fn named_in(error: &str) -> Option<PartitionIndex> {
    let (_, rest) = error.split_once(&format!("{TOPIC}/"))?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok().map(PartitionIndex)
}

/// The history without what happened in some partitions. What names none stays.
fn without(
    history: &History,
    sent: &BTreeMap<RecordId, PartitionIndex>,
    left_out: impl Fn(PartitionIndex) -> bool,
) -> History {
    let stays = |event: &&Event| {
        let partition = match event {
            Event::Sent { partition, .. }
            | Event::Acked { partition, .. }
            | Event::Read { partition, .. }
            | Event::HighWatermark { partition, .. }
            | Event::Asked { partition, .. }
            | Event::Answered { partition, .. } => Some(*partition),
            Event::Failed { id, .. } => sent.get(id).copied(),
            Event::ReaderFailed { .. } | Event::Down => None,
        };
        !partition.is_some_and(&left_out)
    };
    History { events: history.events.iter().filter(stays).cloned().collect(), partitions: history.partitions }
}

/// What no damage excuses: of the one partition of `history` only what was sent and what was read is looked at, and
/// that it was not read to its end proves nothing.
fn wrong_bytes(mut history: History, excuse: Excuse) -> Vec<Violation> {
    history
        .events
        .retain(|event| matches!(event, Event::Sent { .. } | Event::Failed { .. } | Event::Read { .. }));
    for event in &mut history.events {
        if let Event::Read { reader: reader @ ReaderId::Final, .. } = event {
            *reader = ReaderId::During(u32::MAX);
        }
    }
    let mut violations = checker::check(&history).0;
    violations.retain(|violation| match violation.class {
        Class::Phantom | Class::Misplaced | Class::NotContiguous => true,
        // An offset that was lost without a word is given again.
        Class::Divergence => excuse != Excuse::Window,
        _ => false,
    });
    violations
}

fn is_excused_refusal(
    violation: &Violation,
    injected: &Injected,
    excuses: &BTreeMap<PartitionIndex, Excuse>,
) -> bool {
    if !matches!(violation.class, Class::Refused | Class::ReaderFailed) {
        return false;
    }
    let says = |words: &str| violation.detail.contains(words);
    let excuse = named_in(&violation.detail).and_then(|partition| excuses.get(&partition));
    // Who has read what was lost without a word asks for more than there is.
    let of_damage =
        excuse.is_some_and(|excuse| says(DAMAGED) || (*excuse == Excuse::Window && says(OUT_OF_RANGE)));
    of_damage || (injected.failures && FAILURES.into_iter().any(says))
}
