//! Decides what a repair does to a log, from what was found of it.
//!
//! Pure.

use std::path::PathBuf;

use corrente_protocol::ids::{Offset, TopicId};

use crate::inspect::log_facts::{LogFacts, Part};
use crate::log::LogId;
use crate::segment::segment_name;

/// Offsets whose records are gone; the end is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// The first of them.
    pub start: Offset,
    /// One past the last.
    pub end: Offset,
}

impl Lost {
    /// What of it lies at or beyond an offset.
    pub(super) fn from(self, offset: Offset) -> Option<Lost> {
        let start = self.start.max(offset);
        (start < self.end).then_some(Lost { start, end: self.end })
    }
}

/// What a repair would do to one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairPlan {
    /// Whose log.
    pub id: LogId,
    /// Where it lies.
    pub dir: PathBuf,
    /// What would be done, in this order; nothing for a log that is sound.
    pub steps: Vec<RepairStep>,
    /// Segments that stay as they are.
    pub kept: usize,
    /// Offsets that are lost for good.
    pub lost: Vec<Lost>,
    /// The most that will be written.
    pub bytes: u64,
    /// Why it cannot be done.
    pub refused: Option<String>,
}

/// One thing that a repair does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepairStep {
    /// A file of no use that keeps the log from being opened is moved aside.
    SetAside {
        /// Its name.
        file: String,
        /// Why it is of no use.
        why: String,
    },
    /// The log start is written anew.
    LogStart {
        /// The offset.
        offset: Offset,
    },
    /// A segment is written anew from what verifies.
    Rewrite {
        /// Its name.
        file: String,
        /// What it stands for, one past the last in the end.
        offsets: Lost,
        /// What is lost of that.
        lost: Vec<Lost>,
        /// Whether there is an original, which is put aside.
        replaces: bool,
    },
    /// A last segment that held nothing is made anew.
    Empty {
        /// Its name.
        file: String,
        /// Whether there is an original, which is put aside.
        replaces: bool,
    },
}

/// What becomes of a stretch of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Work {
    /// The segment stays.
    Keep { at: usize },
    /// A segment is written from `base` to `end`.
    Rewrite { base: Offset, end: Offset, source: Option<usize>, replaces: bool, lost: Vec<Lost> },
    /// A segment is made that holds nothing yet.
    Empty { base: Offset, replaces: bool },
}

/// What becomes of each part of a log, in order.
pub(super) fn works(parts: &[Part]) -> Vec<Work> {
    let mut works: Vec<Work> = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        match part {
            Part::Segment(segment) if segment.sound => works.push(Work::Keep { at }),
            Part::Segment(segment) => works.push(Work::Rewrite {
                base: segment.head.base_offset,
                end: segment.end_offset,
                source: Some(at),
                replaces: true,
                lost: segment.lost.iter().filter_map(lost_of).collect(),
            }),
            Part::Missing { offsets, .. } => stand_in(&mut works, parts, offsets),
        }
    }
    for work in &mut works {
        if let Work::Rewrite { base, end, replaces, .. } = *work
            && base == end
        {
            *work = Work::Empty { base, replaces };
        }
    }
    works
}

/// Lets what comes before stand for missing offsets if it is written anyhow, or holds nothing and so has their name.
fn stand_in(works: &mut Vec<Work>, parts: &[Part], missing: &std::ops::Range<Offset>) {
    match works.last_mut() {
        Some(Work::Rewrite { end, lost, .. }) => {
            *end = missing.end;
            lost.extend(lost_of(missing));
            return;
        }
        Some(Work::Keep { at })
            if parts[*at].segment().is_some_and(|kept| kept.head.base_offset == missing.start) =>
        {
            works.pop();
            works.push(new_segment(missing, true));
            return;
        }
        _ => {}
    }
    works.push(new_segment(missing, false));
}

fn new_segment(offsets: &std::ops::Range<Offset>, replaces: bool) -> Work {
    Work::Rewrite {
        base: offsets.start,
        end: offsets.end,
        source: None,
        replaces,
        lost: lost_of(offsets).into_iter().collect(),
    }
}

fn lost_of(offsets: &std::ops::Range<Offset>) -> Option<Lost> {
    (!offsets.is_empty()).then_some(Lost { start: offsets.start, end: offsets.end })
}

impl RepairPlan {
    pub(super) fn of(facts: &LogFacts, works: &[Work], has_checkpoints: bool) -> RepairPlan {
        let mut steps = Vec::new();
        for leftover in facts.leftovers.iter().filter(|leftover| leftover.fault.is_some()) {
            let (file, why) = (segment_name(leftover.base_offset), leftover.why.clone());
            steps.push(RepairStep::SetAside { file, why });
        }
        if facts.log_start_is_damaged {
            steps.push(RepairStep::LogStart { offset: facts.log_start });
        }
        steps.extend(works.iter().filter_map(|work| work.step(facts.log_start)));
        let lost: Vec<Lost> = steps.iter().flat_map(RepairStep::lost).copied().collect();
        RepairPlan {
            id: facts.log.id,
            dir: facts.log.dir.clone(),
            kept: works.iter().filter(|work| matches!(work, Work::Keep { .. })).count(),
            bytes: works.iter().map(|work| work.bytes(&facts.parts)).sum(),
            refused: refusal(facts, &steps, &lost, has_checkpoints),
            steps,
            lost,
        }
    }

    /// Whether there is nothing to repair.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl RepairStep {
    fn lost(&self) -> &[Lost] {
        match self {
            RepairStep::Rewrite { lost, .. } => lost,
            _ => &[],
        }
    }
}

impl Work {
    fn step(&self, log_start: Offset) -> Option<RepairStep> {
        match self {
            Work::Keep { .. } => None,
            Work::Rewrite { base, end, replaces, lost, .. } => Some(RepairStep::Rewrite {
                file: segment_name(*base),
                offsets: Lost { start: *base, end: *end },
                lost: lost.iter().filter_map(|lost| lost.from(log_start)).collect(),
                replaces: *replaces,
            }),
            Work::Empty { base, replaces } => {
                Some(RepairStep::Empty { file: segment_name(*base), replaces: *replaces })
            }
        }
    }

    fn bytes(&self, parts: &[Part]) -> u64 {
        match self {
            Work::Rewrite { source: Some(at), .. } => {
                parts[*at].segment().map_or(0, |source| source.head.len)
            }
            _ => 0,
        }
    }
}

/// Why a log must be left as it is.
fn refusal(facts: &LogFacts, steps: &[RepairStep], lost: &[Lost], has_checkpoints: bool) -> Option<String> {
    if steps.is_empty() {
        return None;
    }
    if !has_checkpoints {
        return Some(
            "how far the log reached is said by the node's checkpoints: name its first data directory, too"
                .to_owned(),
        );
    }
    let lost = lost.first().filter(|_| facts.log.id.topic == TopicId::METADATA)?;
    Some(format!(
        "offsets {} to {} of the cluster's metadata are lost: a start on what is left would take topics for deleted \
         ones and remove their logs; bring the file back from a copy",
        lost.start, lost.end
    ))
}
