//! All there is to know of one log on disk: its segments one after the other, each read whole, and what is missing
//! between them.

use std::ops::Range;
use std::path::Path;

use corrente_protocol::ids::{LeaderEpoch, Offset};
use corrente_runtime::buffer::{AlignedBuf, BLOCK};
use corrente_runtime::file;

use super::batches::Piece;
use super::judge::{End, Item, Judge, Known};
use super::offline_dirs::OfflineLog;
use super::report::{Finding, FindingKind, InspectError, LogReport};
use super::segment_bytes::{SegmentBytes, Unreadable};
use super::walk::{Met, Walk};
use crate::checkpoint::CheckpointEntry;
use crate::error::AtPath;
use crate::extent::NO_TIMESTAMP;
use crate::log_start::{self, LOG_START_NAME, LogStartFault};
use crate::position::{FilePosition, HeaderHash};
use crate::segment::{
    FIRST_EXTENT, FileName, Rewritten, SegmentFault, SegmentHeader, chain_start, index_name, parse_name,
    probable_nonce, segment_name,
};
use crate::segment_index::{IndexFault, SegmentIndex};
use crate::segment_reader::INDEX_LEN_MAX;

/// A log on disk.
///
/// Invariant: `parts` follow each other without a gap, from the log start (or below it) to the end of the log.
pub(crate) struct LogFacts {
    pub(crate) log: OfflineLog,
    pub(crate) log_start: Offset,
    /// Whether the file that says so does not verify.
    pub(crate) log_start_is_damaged: bool,
    pub(crate) parts: Vec<Part>,
    /// Segments that others stand for, or of which nothing is kept: the next start removes them.
    pub(crate) leftovers: Vec<Leftover>,
    pub(crate) notes: Vec<Finding>,
}

/// A part of a log.
pub(crate) enum Part {
    Segment(Box<SegmentFacts>),
    /// Offsets that no file stands for. None of them where an empty segment is missing.
    Missing {
        offsets: Range<Offset>,
        why: String,
    },
}

/// One segment, read whole.
pub(crate) struct SegmentFacts {
    pub(crate) head: SegmentHead,
    pub(crate) known: Option<Known>,
    /// Whether all of it is as it was written.
    pub(crate) sound: bool,
    /// One past the last offset that it stands for.
    pub(crate) end_offset: Offset,
    pub(crate) end_position: FilePosition,
    /// None if it is unsound there.
    pub(crate) end_hash: Option<HeaderHash>,
    pub(crate) end_epoch: LeaderEpoch,
    pub(crate) max_timestamp_ms: i64,
    pub(crate) records: u64,
    pub(crate) lost: Vec<Range<Offset>>,
    pub(crate) findings: Vec<Finding>,
}

/// A segment file before its extents are read.
pub(crate) struct SegmentHead {
    pub(crate) base_offset: Offset,
    pub(crate) len: u64,
    pub(crate) header: Result<(SegmentHeader, HeaderHash), String>,
}

/// A segment that is none of the log's any more.
pub(crate) struct Leftover {
    pub(crate) base_offset: Offset,
    /// Why it is not.
    pub(crate) why: String,
    /// What keeps a start from seeing that.
    pub(crate) fault: Option<String>,
}

impl LogFacts {
    /// Reads all of a log.
    pub(crate) async fn gather(log: &OfflineLog) -> Result<LogFacts, InspectError> {
        let (mut facts, heads) = LogFacts::survey(log).await?;
        facts.gather_parts(heads).await?;
        Ok(facts)
    }

    /// Looks at names and headers alone; the segments that belong to the log, to be read.
    pub(crate) async fn survey(log: &OfflineLog) -> Result<(LogFacts, Vec<SegmentHead>), InspectError> {
        let mut facts = LogFacts {
            log: log.clone(),
            log_start: Offset::ZERO,
            log_start_is_damaged: false,
            parts: Vec::new(),
            leftovers: Vec::new(),
            notes: Vec::new(),
        };
        let bases = facts.list().await?;
        let mut heads = Vec::new();
        for base_offset in bases {
            heads.push(SegmentHead::read(log, base_offset).await?);
        }
        facts.find_log_start(&heads).await?;
        let heads = facts.set_leftovers_apart(heads);
        Ok((facts, heads))
    }

    /// One past the last offset of the log.
    pub(crate) fn end_offset(&self) -> Offset {
        self.parts.last().map_or(self.log_start, Part::end_offset)
    }

    /// The segments' base offsets; notes every other name.
    async fn list(&mut self) -> Result<Vec<Offset>, InspectError> {
        let dir = &self.log.dir;
        let mut bases = Vec::new();
        if !file::exists(dir).await.at(dir)? {
            return Ok(bases);
        }
        for entry in file::read_dir(dir).await.at(dir)? {
            match parse_name(&entry.name) {
                FileName::Segment(base_offset) => bases.push(base_offset),
                FileName::Index(_) | FileName::LogStart => {}
                FileName::SetAside => {
                    self.notes
                        .push(Finding::note(entry.name, "originals that an earlier repair has replaced"));
                }
                FileName::Unfinished => {
                    self.notes.push(Finding::note(entry.name, "never finished; the next start removes it"));
                }
                FileName::Strange => {
                    self.notes.push(Finding::note(entry.name, "not a file of a log; left alone"));
                }
            }
        }
        bases.sort_unstable();
        Ok(bases)
    }

    async fn find_log_start(&mut self, heads: &[SegmentHead]) -> Result<(), InspectError> {
        let of_checkpoint = self.log.checkpoint.map(|entry| entry.log_start_offset);
        let of_file = match log_start::look_at(&self.log.dir, self.log.id).await? {
            Some(Err(fault @ LogStartFault::Version(_))) => {
                let path = self.log.dir.join(LOG_START_NAME);
                return Err(InspectError::OtherVersion { path, reason: fault.to_string() });
            }
            Some(Err(_)) => {
                self.log_start_is_damaged = true;
                // Something was removed once; without a checkpoint only what is left says how much.
                let first = heads.first().map(|head| head.base_offset);
                if of_checkpoint.is_none() { first } else { None }
            }
            Some(Ok(offset)) => Some(offset),
            None => None,
        };
        self.log_start = of_file.max(of_checkpoint).unwrap_or(Offset::ZERO);
        Ok(())
    }

    /// Takes out the segments that a rewritten one stands for, then those that lie wholly below the log start.
    fn set_leftovers_apart(&mut self, heads: Vec<SegmentHead>) -> Vec<SegmentHead> {
        let mut covered = (Offset::ZERO, Offset::ZERO);
        let mut kept = Vec::new();
        for head in heads {
            let (by, end) = covered;
            if head.base_offset < end {
                self.leave(head, format!("{} stands for it", segment_name(by)));
                continue;
            }
            if let Ok((SegmentHeader { rewritten: Some(own), .. }, _)) = &head.header {
                covered = (head.base_offset, own.end_offset);
            }
            kept.push(head);
        }
        let kept_from = kept.iter().rposition(|head| head.base_offset <= self.log_start).unwrap_or(0);
        let behind = kept.split_off(kept_from);
        for head in kept {
            self.leave(head, format!("the log starts at {}", self.log_start));
        }
        behind
    }

    fn leave(&mut self, head: SegmentHead, why: String) {
        self.leftovers.push(Leftover { base_offset: head.base_offset, why, fault: head.header.err() });
    }

    async fn gather_parts(&mut self, heads: Vec<SegmentHead>) -> Result<(), InspectError> {
        self.gather_missing_start(&heads);
        let mut epoch = LeaderEpoch(0);
        let mut heads = heads.into_iter().peekable();
        while let Some(head) = heads.next() {
            let base_offset = head.base_offset;
            let place = Place::of(&head, heads.peek(), self.log.checkpoint);
            let segment = SegmentFacts::read(&self.log, head, place, epoch).await?;
            let end_offset = segment.end_offset;
            epoch = segment.end_epoch;
            self.parts.push(Part::Segment(Box::new(segment)));
            if let Some(next) = heads.peek().map(|next| next.base_offset).filter(|next| *next > end_offset) {
                let (name, next_name) = (segment_name(base_offset), segment_name(next));
                let why = format!("{name} ends at offset {end_offset}, and {next_name} follows");
                self.parts.push(Part::Missing { offsets: end_offset..next, why });
            }
        }
        self.gather_missing_end();
        Ok(())
    }

    fn gather_missing_start(&mut self, heads: &[SegmentHead]) {
        let Some(first) = heads.first().map(|head| head.base_offset) else { return };
        if first > self.log_start {
            let why = format!("the log starts at {}, its first segment at {first}", self.log_start);
            // The segment that the checkpoint knows must be stood for, too.
            let of_checkpoint = self.log.checkpoint.map_or(first, |entry| entry.segment_base);
            self.parts.push(Part::Missing { offsets: self.log_start.min(of_checkpoint)..first, why });
        }
    }

    /// What is known to have been there beyond all segments.
    fn gather_missing_end(&mut self) {
        let last = self.parts.iter().rev().find_map(Part::segment);
        let Some(entry) = self.log.checkpoint else {
            if last.is_none() && self.log_start > Offset::ZERO {
                let why = format!("there is no segment, the log starts at {}", self.log_start);
                self.parts.push(Part::Missing { offsets: self.log_start..self.log_start, why });
            }
            return;
        };
        let (name, flushed) = (segment_name(entry.segment_base), entry.flushed_offset);
        let (from, is_missing) = match last {
            None => (self.log_start.min(entry.segment_base), true),
            Some(last) => {
                (last.end_offset, last.head.base_offset < entry.segment_base && last.rewritten().is_none())
            }
        };
        let why = match is_missing {
            true => format!("{name} is missing, the checkpoint ends in it at offset {flushed}"),
            false => format!("the log ends at offset {from}, {flushed} was flushed"),
        };
        if is_missing || from < flushed {
            self.parts.push(Part::Missing { offsets: from..flushed.max(from), why });
        }
    }

    /// Everything found, in the order of the log.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut findings = self.notes.clone();
        if self.log_start_is_damaged {
            let what =
                format!("the log start does not verify; by what else there is it is {}", self.log_start);
            findings.push(Finding::damage(LOG_START_NAME, None, None, what));
        }
        for Leftover { base_offset, why, fault } in &self.leftovers {
            let name = segment_name(*base_offset);
            findings.push(match fault {
                None => Finding::note(name, format!("the next start removes it: {why}")),
                Some(fault) => Finding::damage(name, None, None, format!("{fault}; nothing is lost: {why}")),
            });
        }
        for part in &self.parts {
            match part {
                Part::Segment(segment) => findings.extend(segment.findings.iter().cloned()),
                Part::Missing { offsets, why } => {
                    let lost = offsets.start.max(self.log_start)..offsets.end;
                    findings.push(Finding::damage(segment_name(offsets.start), None, Some(lost), why));
                }
            }
        }
        findings
    }

    pub(crate) fn report(&self) -> LogReport {
        let segments = || self.parts.iter().filter_map(Part::segment);
        LogReport {
            id: self.log.id,
            dir: self.log.dir.clone(),
            segments: segments().count(),
            bytes: segments().map(|segment| segment.head.len).sum(),
            records: segments().map(|segment| segment.records).sum(),
            log_start_offset: self.log_start,
            end_offset: self.end_offset(),
            findings: self.findings(),
        }
    }
}

impl Part {
    pub(crate) fn segment(&self) -> Option<&SegmentFacts> {
        match self {
            Part::Segment(segment) => Some(segment),
            Part::Missing { .. } => None,
        }
    }

    fn end_offset(&self) -> Offset {
        match self {
            Part::Segment(segment) => segment.end_offset,
            Part::Missing { offsets, .. } => offsets.end,
        }
    }
}

impl SegmentHead {
    pub(crate) async fn read(log: &OfflineLog, base_offset: Offset) -> Result<SegmentHead, InspectError> {
        let path = log.dir.join(segment_name(base_offset));
        let (len, block) = SegmentBytes::first_block(&path).await?;
        let header = match block {
            Ok(block) => match SegmentHeader::decode(&block, log.id, base_offset) {
                Err(fault @ (SegmentFault::Version(_) | SegmentFault::Kind(_))) => {
                    return Err(InspectError::OtherVersion { path, reason: fault.to_string() });
                }
                decoded => decoded.map_err(|fault| fault.to_string()),
            },
            Err(error) => Err(format!("its header cannot be read: {error}")),
        };
        Ok(SegmentHead { base_offset, len, header })
    }
}

/// What its neighbours say of a segment.
pub(crate) struct Place {
    pub(crate) end: End,
    /// The checkpoint's entry, if the flushed part of the log ended in the segment.
    pub(crate) checkpoint: Option<CheckpointEntry>,
    /// What speaks against its being where it is.
    pub(crate) contradiction: Option<String>,
}

impl Place {
    pub(crate) fn of(
        head: &SegmentHead,
        next: Option<&SegmentHead>,
        checkpoint: Option<CheckpointEntry>,
    ) -> Place {
        let base_offset = head.base_offset;
        let rewritten = head.header.as_ref().ok().and_then(|(header, _)| header.rewritten);
        let checkpoint = checkpoint.filter(|_| rewritten.is_none());
        let ends_here = checkpoint.filter(|entry| entry.segment_base == base_offset);
        let place = |end| Place { end, checkpoint: ends_here, contradiction: None };
        if let Some(own) = rewritten {
            return place(End::Told {
                position: own.end_position,
                hash: own.end_hash,
                offset: own.end_offset,
            });
        }
        let Some(next) = next else {
            let missing = checkpoint.filter(|entry| entry.segment_base > base_offset);
            return place(missing.map_or(End::Last, |entry| End::Below(entry.segment_base)));
        };
        let below = place(End::Below(next.base_offset));
        let Ok((next_header, _)) = &next.header else { return below };
        let next_name = segment_name(next.base_offset);
        match next_header.previous {
            Some(previous) if previous.base_offset == base_offset => match head.header {
                Ok(_) => place(End::Told {
                    position: previous.end_position,
                    hash: previous.end_hash,
                    offset: next.base_offset,
                }),
                // It may have been rewritten since, and have ended elsewhere.
                Err(_) => below,
            },
            Some(previous) if previous.base_offset > base_offset => {
                place(End::Below(previous.base_offset.min(next.base_offset)))
            }
            Some(previous) => {
                let why = format!("{next_name} follows segment {}, not this one", previous.base_offset);
                Place { contradiction: Some(why), ..below }
            }
            None => Place { contradiction: Some(format!("{next_name} is a first segment")), ..below },
        }
    }
}

impl SegmentFacts {
    async fn read(
        log: &OfflineLog,
        head: SegmentHead,
        place: Place,
        epoch: LeaderEpoch,
    ) -> Result<SegmentFacts, InspectError> {
        let name = segment_name(head.base_offset);
        let path = log.dir.join(&name);
        let bytes = SegmentBytes::open(&path).await?;
        let (known, bytes) = known(log, &head, &place, epoch, bytes).await?;
        let mut facts = SegmentFacts {
            known,
            sound: head.header.is_ok() && place.contradiction.is_none(),
            end_offset: head.base_offset,
            end_position: FIRST_EXTENT,
            end_hash: None,
            end_epoch: epoch,
            max_timestamp_ms: NO_TIMESTAMP,
            records: 0,
            lost: Vec::new(),
            findings: Vec::new(),
            head,
        };
        let faults = facts.head.header.as_ref().err().into_iter().chain(&place.contradiction);
        facts.findings.extend(faults.map(|fault| Finding::damage(&name, None, None, fault)));
        if let Some(known) = known {
            facts.judge(&path, &name, Judge::new(bytes, known)).await?;
        }
        facts.note_index(log).await?;
        Ok(facts)
    }

    async fn judge(&mut self, path: &Path, name: &str, mut judge: Judge) -> Result<(), InspectError> {
        while let Some(item) = judge.next().await.map_err(|version| version.of(path))? {
            match item {
                Item::Extent { met, pieces } => {
                    for piece in pieces {
                        match piece {
                            Piece::Batch(batch) => {
                                self.records += u64::try_from(batch.header().record_count).unwrap_or(0);
                            }
                            Piece::Damage { lost, why } => self.damage(name, met.position, lost, why),
                        }
                    }
                }
                Item::Damage { at, lost, why } => self.damage(name, at, lost, why),
                Item::TornTail { from, to } => self.findings.push(Finding {
                    kind: FindingKind::TornTail,
                    file: name.to_owned(),
                    position: Some(from.0),
                    lost: None,
                    what: format!("{} bytes that were never acknowledged", to - from),
                }),
            }
        }
        self.sound &= judge.is_sound();
        self.end_offset = judge.end_offset();
        self.end_position = judge.end_position();
        self.end_hash = judge.end_hash();
        self.end_epoch = judge.epoch();
        self.max_timestamp_ms = judge.max_timestamp_ms();
        if let Some(Unreadable { at, reason }) = judge.unreadable() {
            self.sound = false;
            let what = format!("the disk cannot read it: {reason}");
            self.findings.push(Finding::damage(name, Some(*at), None, what));
        }
        Ok(())
    }

    fn damage(&mut self, name: &str, at: FilePosition, lost: Range<Offset>, why: String) {
        self.findings.push(Finding::damage(name, Some(at), Some(lost.clone()), why));
        self.lost.push(lost);
    }

    /// The index is only a help: a read makes it anew.
    async fn note_index(&mut self, log: &OfflineLog) -> Result<(), InspectError> {
        let name = index_name(self.head.base_offset);
        let Some(content) = read_index(&log.dir.join(&name)).await else { return Ok(()) };
        let Ok((header, _)) = &self.head.header else { return Ok(()) };
        match SegmentIndex::decode(&content, header.nonce, self.end_position) {
            Ok(_) => {}
            Err(fault @ IndexFault::Version(_)) => {
                let path = log.dir.join(&name);
                return Err(InspectError::OtherVersion { path, reason: fault.to_string() });
            }
            Err(fault) => {
                self.findings.push(Finding::note(name, format!("{fault}; the next read makes it anew")));
            }
        }
        Ok(())
    }

    /// What its header says of itself, if it was made whole.
    pub(crate) fn rewritten(&self) -> Option<Rewritten> {
        self.head.header.as_ref().ok().and_then(|(header, _)| header.rewritten)
    }
}

/// What the extents of a segment are read by, and the file again; none if nothing tells its nonce.
pub(crate) async fn known(
    log: &OfflineLog,
    head: &SegmentHead,
    place: &Place,
    epoch: LeaderEpoch,
    mut bytes: SegmentBytes,
) -> Result<(Option<Known>, SegmentBytes), InspectError> {
    let (base_offset, end, checkpoint) = (head.base_offset, place.end, place.checkpoint);
    if let Ok((header, hash)) = &head.header {
        let gaps = header.rewritten.is_some();
        let known = Known {
            nonce: header.nonce,
            base_offset,
            chain_start: Some(if gaps { chain_start(header.nonce) } else { *hash }),
            epoch: header.leader_epoch,
            gaps,
            end,
            checkpoint,
        };
        return Ok((Some(known), bytes));
    }
    let block = bytes.at(FilePosition(0), BLOCK).await;
    let of_index = read_index(&log.dir.join(index_name(base_offset))).await;
    let candidates = [
        checkpoint.map(|entry| entry.nonce),
        of_index.and_then(|content| SegmentIndex::nonce_of(&content)),
        probable_nonce(&block, log.id, base_offset),
    ];
    let path = log.dir.join(segment_name(base_offset));
    for nonce in candidates.into_iter().flatten() {
        let mut walk = Walk::new(bytes, nonce, FIRST_EXTENT, FilePosition(u64::MAX));
        let mut met = walk.next().await.map_err(|version| version.of(&path))?;
        if let Some(Met::Nothing(_)) = met {
            met = walk.next().await.map_err(|version| version.of(&path))?;
        }
        bytes = walk.into_bytes();
        if let Some(Met::Extent(_)) = met {
            // Nothing but the right nonce makes an extent verify.
            let known = Known { nonce, base_offset, chain_start: None, epoch, gaps: true, end, checkpoint };
            return Ok((Some(known), bytes));
        }
    }
    Ok((None, bytes))
}

async fn read_index(path: &Path) -> Option<AlignedBuf> {
    let content = file::read_small(path, INDEX_LEN_MAX).await.ok()?;
    let mut aligned = AlignedBuf::zeroed(content.len());
    aligned.copy_from_slice(&content);
    Some(aligned)
}
