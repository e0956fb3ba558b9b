//! Holds what was seen of a damaged directory against what is known of the sound one.
//!
//! The rules, for every log:
//! - What is served is what was appended, at its offset, and nothing that was removed comes back.
//! - What is not served is refused in a range that is named, or the log is in quarantine or not opened, and says so.
//! - A log may end sooner without a word only if what is missing lies beyond the checkpoint and every extent of it is
//!   damaged itself: that is the window of docs/FORMAT.md.
//! - Logs that the damage does not touch are as they were. What is only a help never makes trouble.

use std::fmt;
use std::path::PathBuf;

use corrente_storage::LogId;

use super::grown::{Grown, Known, dir_of};
use super::image::Image;
use super::look::{Found, LogSeen, Opened, Seen};
use super::map::{Extent, Kind};

/// What came of a damage, the better first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// All is there.
    Harmless,
    /// Beyond the checkpoint, in the window that docs/FORMAT.md tells of.
    Window,
    /// Reads are refused, with the range.
    Refused,
    /// The log is in quarantine.
    Quarantined,
    /// The log, or the node, is not opened.
    NotOpened,
    /// A promise is broken.
    Wrong(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Harmless => f.write_str("harmless"),
            Verdict::Window => f.write_str("in the window"),
            Verdict::Refused => f.write_str("reads refused"),
            Verdict::Quarantined => f.write_str("in quarantine"),
            Verdict::NotOpened => f.write_str("not opened"),
            Verdict::Wrong(what) => write!(f, "WRONG: {what}"),
        }
    }
}

/// A verdict and what it came with.
#[derive(Clone, Debug)]
pub struct Judged {
    pub verdict: Verdict,
    /// Records that are sound and could not be read, though each was asked for by itself.
    pub hidden: u64,
    /// What was told, where anything was.
    pub told: Vec<String>,
}

/// Which parts of a directory a damage has touched.
pub struct Touched {
    paths: Vec<PathBuf>,
    /// Whether any of it is more than a help.
    matters: bool,
    /// Whether a checkpoint file is among them.
    checkpoint: bool,
    hurt: Vec<Extent>,
}

impl Touched {
    /// By the difference of the images.
    pub fn between(grown: &Grown, damaged: &Image) -> Touched {
        let sound = &grown.image;
        let differs = |path: &&PathBuf| sound.files.get(*path) != damaged.files.get(*path);
        let paths: Vec<PathBuf> = sound.files.keys().filter(differs).cloned().collect();
        let matters = paths.iter().any(|path| {
            let (file, damaged) = (&grown.map.files[path], damaged.files.get(path));
            let is_segment = matches!(file.kind, Kind::Segment | Kind::Rewritten | Kind::Metadata);
            let sound = &sound.files[path];
            let looked_at = || {
                let stretches = file.stretches.iter().filter(|stretch| stretch.part.is_looked_at());
                stretches.map(|stretch| stretch.range.clone()).any(|range| {
                    damaged.and_then(|damaged| damaged.get(range.clone())) != Some(&sound[range])
                })
            };
            file.kind == Kind::Identity
                || (is_segment && (damaged.is_none_or(|d| d.len() < sound.len()) || looked_at()))
        });
        let checkpoint = paths
            .iter()
            .any(|path| matches!(grown.map.files[path].kind, Kind::Checkpoint | Kind::OlderCheckpoint));
        let extents = paths.iter().flat_map(|path| &grown.map.files[path].extents);
        let is_hurt = |extent: &&Extent| {
            let now = damaged.files.get(&extent.path).and_then(|content| content.get(extent.range.clone()));
            now != Some(&sound.files[&extent.path][extent.range.clone()])
        };
        let hurt = extents.filter(is_hurt).cloned().collect();
        Touched { paths, matters, checkpoint, hurt }
    }

    fn log(&self, id: LogId) -> bool {
        let dir = dir_of(id);
        self.paths.iter().any(|path| path.starts_with(&dir))
    }

    fn is_hurt(&self, extent: &Extent) -> bool {
        self.hurt.iter().any(|hurt| hurt.path == extent.path && hurt.offsets == extent.offsets)
    }
}

/// Judges what was seen of all logs.
pub fn judge<'a>(known: impl Iterator<Item = (LogId, &'a Known)>, seen: &Seen, touched: &Touched) -> Judged {
    let mut judged = Judged { verdict: Verdict::Harmless, hidden: 0, told: Vec::new() };
    let logs = match seen {
        Seen::Started(logs) => logs,
        Seen::Refused(reason) => {
            judged.tell(Verdict::NotOpened, reason);
            judged.settle(touched);
            return judged;
        }
    };
    for (id, known) in known {
        let before = judged.verdict.clone();
        judged.verdict = Verdict::Harmless;
        match logs.get(&id) {
            None => judged.wrong(format!("log {id} is gone, and nobody says so")),
            Some(LogSeen::Refused(reason)) => judged.tell(Verdict::NotOpened, reason),
            Some(LogSeen::Opened(opened)) => judged.judge_opened(known, opened, touched),
        }
        if judged.verdict > Verdict::Harmless && !touched.log(id) && !judged.is_wrong() {
            judged.wrong(format!("log {id} was not touched and is {}", judged.verdict));
        }
        judged.verdict = before.max(judged.verdict.clone());
    }
    judged.settle(touched);
    judged
}

impl Judged {
    /// Two looks at one directory.
    pub fn and(mut self, later: Judged) -> Judged {
        self.verdict = self.verdict.max(later.verdict);
        self.hidden = self.hidden.max(later.hidden);
        self.told.extend(later.told);
        self
    }

    /// Takes note that a promise is broken; the first one counts.
    pub fn wrong(&mut self, what: String) {
        if !self.is_wrong() {
            self.verdict = Verdict::Wrong(what);
        }
    }

    /// Whether a promise is broken.
    pub fn is_wrong(&self) -> bool {
        matches!(self.verdict, Verdict::Wrong(_))
    }

    fn tell(&mut self, verdict: Verdict, line: &str) {
        if line.trim().is_empty() || line.contains('\n') {
            self.wrong(format!("what is said is not one line: {line:?}"));
        }
        self.told.push(line.to_owned());
        self.verdict = self.verdict.clone().max(verdict);
    }

    /// What touches only what is a help is harmless.
    fn settle(&mut self, touched: &Touched) {
        if !touched.matters && self.verdict > Verdict::Harmless && !self.is_wrong() {
            let why = self.told.join("; ");
            self.wrong(format!("nothing that matters was touched, and it is {}: {why}", self.verdict));
        }
    }

    fn judge_opened(&mut self, known: &Known, opened: &Opened, touched: &Touched) {
        if let Some(reason) = &opened.quarantined {
            self.tell(Verdict::Quarantined, reason);
        }
        for (_, _, reason) in &opened.damaged {
            self.tell(Verdict::Refused, reason);
        }
        if let Some(strange) = opened.strange.first() {
            self.wrong(strange.clone());
        }
        if opened.start != known.start {
            self.wrong(format!("the log starts at {}, it started at {}", opened.start, known.start));
        }
        self.judge_end(known, opened, touched);
        for (offset, record) in &opened.records {
            if known.records.get(offset) != Some(record) {
                self.wrong(format!(
                    "offset {offset} was served, and is not what was appended or was removed"
                ));
            }
        }
        self.judge_missing(known, opened, touched);
        self.judge_timestamps(known, opened);
    }

    fn judge_end(&mut self, known: &Known, opened: &Opened, touched: &Touched) {
        let end = opened.end;
        if end > known.end {
            self.wrong(format!("the log ends at {end}, {} was its end", known.end));
        }
        // A damage that spans the checkpoint and a log takes away what the log could be held against.
        let checkpointed =
            if touched.checkpoint { known.checkpointed.min(opened.checkpointed) } else { known.checkpointed };
        if end < checkpointed {
            self.wrong(format!("the log ends at {end}, {checkpointed} stands in the checkpoint"));
        }
        if end >= known.end {
            return;
        }
        let lost: Vec<&Extent> = known.extents.iter().filter(|extent| extent.offsets.end > end).collect();
        let sound = lost.iter().find(|extent| !touched.is_hurt(extent));
        if opened.quarantined.is_some() {
            let sound = lost.iter().filter(|extent| !touched.is_hurt(extent));
            self.hidden += sound.map(|extent| extent.offsets.end - extent.offsets.start).sum::<u64>();
            return;
        }
        self.verdict = self.verdict.clone().max(Verdict::Window);
        if let Some(Extent { offsets, .. }) = sound {
            self.wrong(format!(
                "the log ends at {end}, and offsets {offsets:?} behind it are sound on the disk"
            ));
        }
        if let Some(part) = lost.iter().find(|extent| extent.offsets.start < end) {
            self.wrong(format!("the log ends at {end}, in the middle of {:?}", part.offsets));
        }
    }

    fn judge_missing(&mut self, known: &Known, opened: &Opened, touched: &Touched) {
        for offset in
            known.records.range(opened.start..opened.end.max(opened.start)).map(|(offset, _)| offset)
        {
            if opened.records.contains_key(offset) {
                continue;
            }
            if !opened.damaged.iter().any(|(from, to, _)| (from..to).contains(&offset)) {
                self.wrong(format!("offset {offset} is missing, and nobody says so"));
            }
            let extent = known.extents.iter().find(|extent| extent.offsets.contains(offset));
            self.hidden += u64::from(extent.is_some_and(|extent| !touched.is_hurt(extent)));
        }
    }

    fn judge_timestamps(&mut self, known: &Known, opened: &Opened) {
        let records = || {
            let readable = known.records.range(opened.start..opened.end.max(opened.start));
            readable.map(|(offset, record)| (*offset, record.timestamp_ms))
        };
        for (at_ms, found) in &opened.found {
            let first = records().find(|(_, timestamp_ms)| timestamp_ms >= at_ms);
            self.judge_found(&format!("the first record at {at_ms}"), first, found);
        }
        let latest_ms = records().map(|(_, timestamp_ms)| timestamp_ms).max();
        let latest = records().find(|(_, timestamp_ms)| Some(*timestamp_ms) == latest_ms);
        if let Some(found) = &opened.latest {
            self.judge_found("the latest record", latest, found);
        }
    }

    fn judge_found(&mut self, what: &str, is: Option<(u64, i64)>, found: &Found) {
        match found {
            Ok(found) if *found == is => {}
            Ok(found) => self.wrong(format!("{what} is {is:?}, found was {found:?}")),
            Err(reason) => self.tell(Verdict::Refused, reason),
        }
    }
}
