//! Shows what lies in a log, from its segments down to its records; what is damaged is shown as such and passed over.

use std::collections::VecDeque;

use bytes::Bytes;
use corrente_protocol::ids::{LeaderEpoch, Offset};
use corrente_protocol::record_batch::RecordBatch;

use super::batches::Piece;
use super::judge::{Item, Judge};
use super::log_facts::{LogFacts, Place, SegmentHead, known};
use super::offline_dirs::OfflineLog;
use super::report::{Finding, FindingKind, InspectError};
use super::segment_bytes::SegmentBytes;
use super::walk::MetExtent;
use crate::segment::{RewrittenBy, segment_name};

/// The most that one batch may hold when it is decompressed.
const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Which part of a log is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DumpRange {
    /// Only the segment with this base offset.
    pub segment: Option<Offset>,
    /// Nothing that ends before this offset.
    pub from: Offset,
    /// Records too, not only their batches.
    pub records: bool,
}

/// Something that lies in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dumped {
    /// A segment file.
    Segment {
        /// Its name.
        file: String,
        /// How long it is.
        len: u64,
        /// How it came about; none if its header is lost.
        made: Option<Made>,
    },
    /// An extent whose header verifies.
    Extent {
        /// Where it begins in the segment.
        position: u64,
        /// The first offset it stands for.
        base_offset: Offset,
        /// One past the last.
        end_offset: Offset,
        /// The leader epoch of its batches.
        leader_epoch: LeaderEpoch,
        /// Bytes of batches.
        body_len: u32,
        /// Whether its body verifies.
        verifies: bool,
    },
    /// A batch that verifies.
    Batch {
        /// Its first offset.
        base_offset: Offset,
        /// One past its last.
        end_offset: Offset,
        /// Records in it.
        records: i32,
        /// Bytes it takes.
        size: usize,
        /// Its codec, or the number of one that is not known.
        compression: Result<&'static str, u16>,
        /// The latest timestamp in it, in ms since 1970.
        max_timestamp_ms: i64,
    },
    /// A record.
    Record {
        /// Its offset.
        offset: Offset,
        /// In ms since 1970.
        timestamp_ms: i64,
        /// Its key.
        key: Option<Bytes>,
        /// The length of its value; none if it has none.
        value_len: Option<usize>,
    },
    /// Something that is not as it should be.
    Finding(Finding),
}

/// How a segment came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// When, in ms since 1970.
    pub created_ms: i64,
    /// By what: appends, compaction or repair.
    pub by: &'static str,
}

/// A log that is being shown.
pub struct Dump {
    log: OfflineLog,
    range: DumpRange,
    heads: VecDeque<SegmentHead>,
    reading: Option<Reading>,
    epoch: LeaderEpoch,
    ready: VecDeque<Dumped>,
}

/// A segment that is being shown.
struct Reading {
    file: String,
    judge: Judge,
}

impl Dump {
    /// Begins to show a log.
    pub async fn begin(log: &OfflineLog, range: DumpRange) -> Result<Dump, InspectError> {
        let (facts, heads) = LogFacts::survey(log).await?;
        Ok(Dump {
            log: log.clone(),
            range,
            heads: heads.into(),
            reading: None,
            epoch: LeaderEpoch(0),
            ready: facts.findings().into_iter().map(Dumped::Finding).collect(),
        })
    }

    /// The next thing in the log; none at its end.
    pub async fn next(&mut self) -> Result<Option<Dumped>, InspectError> {
        loop {
            if let Some(dumped) = self.ready.pop_front() {
                return Ok(Some(dumped));
            }
            let Some(Reading { file, judge }) = &mut self.reading else {
                match self.heads.pop_front() {
                    Some(head) => self.begin_segment(head).await?,
                    None => return Ok(None),
                }
                continue;
            };
            let item = judge.next().await.map_err(|version| version.of(&self.log.dir.join(&*file)))?;
            match item {
                None => {
                    self.epoch = judge.epoch();
                    self.reading = None;
                }
                Some(Item::Extent { met, pieces }) => {
                    let file = file.clone();
                    self.show_extent(&file, met, pieces);
                }
                Some(Item::Damage { at, lost, why }) => {
                    let finding = Finding::damage(file.as_str(), Some(at), Some(lost), why);
                    self.ready.push_back(Dumped::Finding(finding));
                }
                Some(Item::TornTail { from, to }) => {
                    let what = format!("{} bytes that were never acknowledged", to - from);
                    let (kind, file, position) = (FindingKind::TornTail, file.clone(), Some(from.0));
                    self.ready.push_back(Dumped::Finding(Finding { kind, file, position, lost: None, what }));
                }
            }
        }
    }

    async fn begin_segment(&mut self, head: SegmentHead) -> Result<(), InspectError> {
        let next = self.heads.front();
        let over = next.is_some_and(|next| next.base_offset <= self.range.from);
        if over || self.range.segment.is_some_and(|wanted| wanted != head.base_offset) {
            return Ok(());
        }
        let place = Place::of(&head, next, self.log.checkpoint);
        let file = segment_name(head.base_offset);
        let made = head.header.as_ref().ok().map(|(header, _)| Made {
            created_ms: header.created_ms,
            by: match header.rewritten.map(|own| own.by) {
                None => "appends",
                Some(RewrittenBy::Compaction | RewrittenBy::PartOfCompaction) => "compaction",
                Some(RewrittenBy::Repair) => "repair",
            },
        });
        self.ready.push_back(Dumped::Segment { file: file.clone(), len: head.len, made });
        if let Err(fault) = &head.header {
            self.ready.push_back(Dumped::Finding(Finding::damage(file.as_str(), None, None, fault)));
        }
        let bytes = SegmentBytes::open(&self.log.dir.join(&file)).await?;
        if let (Some(known), bytes) = known(&self.log, &head, &place, self.epoch, bytes).await? {
            self.reading = Some(Reading { file, judge: Judge::new(bytes, known) });
        }
        Ok(())
    }

    fn show_extent(&mut self, file: &str, met: MetExtent, pieces: Vec<Piece>) {
        let header = met.header;
        if header.end_offset <= self.range.from {
            return;
        }
        self.ready.push_back(Dumped::Extent {
            position: met.position.0,
            base_offset: header.base_offset,
            end_offset: header.end_offset,
            leader_epoch: header.leader_epoch,
            body_len: header.body_len,
            verifies: met.fault.is_none(),
        });
        for piece in pieces {
            match piece {
                Piece::Batch(batch) => self.show_batch(file, &met, &batch),
                Piece::Damage { lost, why } => {
                    let finding = Finding::damage(file, Some(met.position), Some(lost), why);
                    self.ready.push_back(Dumped::Finding(finding));
                }
            }
        }
    }

    fn show_batch(&mut self, file: &str, met: &MetExtent, batch: &RecordBatch) {
        let header = batch.header();
        if header.end_offset() <= self.range.from {
            return;
        }
        self.ready.push_back(Dumped::Batch {
            base_offset: header.base_offset,
            end_offset: header.end_offset(),
            records: header.record_count,
            size: header.size(),
            compression: header.attributes.compression().map(|compression| compression.name()),
            max_timestamp_ms: header.max_timestamp_ms,
        });
        if !self.range.records {
            return;
        }
        let unreadable = |why: String| Finding::damage(file, Some(met.position), None, why);
        let records = match batch.records(BATCH_BYTES_MAX) {
            Ok(records) => records,
            Err(error) => return self.ready.push_back(Dumped::Finding(unreadable(error.to_string()))),
        };
        for record in records {
            match record {
                Ok(record) if record.offset < self.range.from => {}
                Ok(record) => self.ready.push_back(Dumped::Record {
                    offset: record.offset,
                    timestamp_ms: record.timestamp_ms,
                    key: record.key,
                    value_len: record.value.map(|value| value.len()),
                }),
                Err(error) => self.ready.push_back(Dumped::Finding(unreadable(error.to_string()))),
            }
        }
    }
}
