//! Makes a damaged log whole again from what verifies of it.
//!
//! A damaged segment is written anew from its batches that verify; an empty batch stands for each range of offsets that
//! is lost, so that readers step over it. What is replaced is put aside, never removed. Afterwards the log opens sound:
//! it serves all that verified, and nothing that did not.
//!
//! Crash story, for each segment by itself:
//! 1. The new segment is written whole under a name that counts for nothing, and made durable.
//! 2. The original gets a second name in `set-aside`, and that directory is made durable.
//! 3. The new segment takes the original's name, at one stroke, and the log's directory is made durable.
//!
//! At every moment the name stands for the original or for all of what replaces it. A crash leaves some segments
//! repaired and others not: each is as good as it was or better, and another repair goes on with what is left. One
//! between 2 and 3 leaves the original with two names, and the next repair gives it a third.

mod plan;

use std::io;
use std::path::{Path, PathBuf};

use corrente_protocol::ids::{LeaderEpoch, Offset};
use corrente_protocol::record_batch::{RecordBatchHeader, empty_batch};
use corrente_runtime::executor::yield_if_needed;
use corrente_runtime::file;
use corrente_runtime::random::random_u64;
use corrente_runtime::timer::wall_clock_ms;

use crate::checkpoint::CheckpointEntry;
use crate::error::{AtPath, PathError};
use crate::inspect::batches::Piece;
use crate::inspect::judge::{Item, Judge};
use crate::inspect::log_facts::{LogFacts, SegmentFacts};
use crate::inspect::segment_bytes::SegmentBytes;
use crate::inspect::{InspectError, OfflineDirs, OfflineLog};
use crate::log_start::{self, LOG_START_NAME};
use crate::position::Nonce;
use crate::rewriter::{Rewrite, Rewriter, Unborn};
use crate::segment::{PreviousSegment, RewrittenBy, SET_ASIDE_NAME, SegmentHeader, index_name, segment_name};
use crate::writer;
use plan::Work;
pub use plan::{Lost, RepairPlan, RepairStep};

/// What one extent of a rewritten segment gathers.
const WINDOW_BYTES_MAX: usize = 1024 * 1024;
/// The most offsets that one empty batch stands for.
const EMPTY_BATCH_OFFSETS_MAX: u64 = 1 << 31;

/// A log that was looked at, and what would make it whole.
pub struct Repair {
    facts: LogFacts,
    works: Vec<Work>,
    plan: RepairPlan,
}

/// What a repair has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Repaired {
    /// Segments that were written anew.
    pub segments: usize,
    /// Offsets that are lost for good.
    pub lost: Vec<Lost>,
    /// Where the originals are, by their names in the log's directory.
    pub set_aside: Vec<String>,
}

impl Repair {
    /// Reads all of a log of these directories and plans its repair; changes nothing.
    pub async fn plan_for(dirs: &OfflineDirs, log: &OfflineLog) -> Result<Repair, InspectError> {
        let facts = LogFacts::gather(log).await?;
        let works = plan::works(&facts.parts);
        let plan = RepairPlan::of(&facts, &works, dirs.has_checkpoints());
        Ok(Repair { facts, works, plan })
    }

    /// What would be done.
    pub fn plan(&self) -> &RepairPlan {
        &self.plan
    }

    /// Does it. Not cancel-safe, but safe to do again after it was cut short.
    ///
    /// # Panics
    ///
    /// If the plan was refused.
    pub async fn apply(self) -> Result<Repaired, InspectError> {
        assert!(self.plan.refused.is_none(), "the repair of {} was refused", self.plan.id);
        let mut run = Run { facts: &self.facts, done: Repaired::default() };
        if !self.plan.steps.is_empty() {
            run.prepare().await?;
            for step in &self.plan.steps {
                match step {
                    RepairStep::SetAside { file, .. } => run.move_aside(file).await?,
                    RepairStep::LogStart { offset } => run.write_log_start(*offset).await?,
                    RepairStep::Rewrite { .. } | RepairStep::Empty { .. } => {}
                }
            }
            run.carry_out(&self.works).await?;
        }
        Ok(run.done)
    }
}

/// A repair under way.
struct Run<'a> {
    facts: &'a LogFacts,
    done: Repaired,
}

/// The segment that the next one follows.
struct Before {
    previous: Option<PreviousSegment>,
    epoch: LeaderEpoch,
}

impl Run<'_> {
    fn dir(&self) -> &Path {
        &self.facts.log.dir
    }

    fn aside(&self) -> PathBuf {
        self.dir().join(SET_ASIDE_NAME)
    }

    async fn prepare(&self) -> Result<(), PathError> {
        let aside = self.aside();
        file::create_dir_all(&aside).await.at(&aside)
    }

    async fn carry_out(&mut self, works: &[Work]) -> Result<(), InspectError> {
        let mut before = Before { previous: None, epoch: LeaderEpoch(0) };
        for work in works {
            match work {
                Work::Keep { at } => before = after(self.segment(*at)),
                Work::Rewrite { base, end, source, .. } => {
                    let unborn = self.rewrite(*base, *end, *source, &before).await?;
                    before = self.adopt(unborn).await?;
                    self.done.segments += 1;
                }
                Work::Empty { base, .. } => {
                    self.make_empty(*base, &before).await?;
                    self.done.segments += 1;
                }
            }
        }
        Ok(())
    }

    fn segment(&self, at: usize) -> &SegmentFacts {
        self.facts.parts[at].segment().expect("the plan names segments that are there")
    }

    /// Writes a segment whole, durable but for its name.
    async fn rewrite(
        &mut self,
        base_offset: Offset,
        end: Offset,
        source: Option<usize>,
        before: &Before,
    ) -> Result<Unborn, InspectError> {
        let source = source.map(|at| self.facts.parts[at].segment().expect("a segment that is there"));
        let header = source.and_then(|source| source.head.header.as_ref().ok()).map(|(header, _)| header);
        let rewrite = Rewrite {
            log: self.facts.log.id,
            by: RewrittenBy::Repair,
            base_offset,
            previous: before.previous.or(header.and_then(|header| header.previous)),
            epoch: header.map_or(before.epoch, |header| header.leader_epoch.max(before.epoch)),
            created_ms: header.map_or_else(wall_clock_ms, |header| header.created_ms),
        };
        let dir = self.dir().to_owned();
        let mut filler = Filler {
            epoch: rewrite.epoch,
            checkpoint: self.facts.log.checkpoint,
            rewriter: Rewriter::begin(&dir, rewrite, WINDOW_BYTES_MAX).await?,
            lost: Vec::new(),
        };
        if let Some(source) = source {
            filler.copy(&dir, source).await?;
        }
        filler.lose_up_to(end).await?;
        let first_kept = self.facts.log_start;
        let lost = filler.lost.into_iter().filter_map(|lost| lost.from(first_kept));
        self.done.lost.extend(lost);
        Ok(filler.rewriter.finish().await?)
    }

    /// Gives a segment its name, and the one that had it another.
    async fn adopt(&mut self, unborn: Unborn) -> Result<Before, PathError> {
        let Unborn { path, segment, index } = unborn;
        let name = segment_name(segment.base_offset);
        self.keep_aside(&name).await?;
        let born = self.dir().join(&name);
        file::rename(&path, &born).await.at(&born)?;
        file::sync_dir(self.dir()).await.at(self.dir())?;
        let index_path = self.dir().join(index_name(segment.base_offset));
        let content = index.encode(segment.nonce, segment.end_position).to_vec();
        file::write_small(&index_path, content).await.at(&index_path)?;
        let own = segment.rewritten.expect("it was made whole");
        let previous = PreviousSegment {
            base_offset: segment.base_offset,
            end_position: own.end_position,
            end_hash: own.end_hash,
            max_timestamp_ms: own.max_timestamp_ms,
        };
        Ok(Before { previous: Some(previous), epoch: own.last_epoch })
    }

    /// Makes a last segment that holds nothing yet.
    async fn make_empty(&mut self, base_offset: Offset, before: &Before) -> Result<(), PathError> {
        let of_checkpoint = self.facts.log.checkpoint.map_or(before.epoch, |entry| entry.leader_epoch);
        let header = SegmentHeader {
            log: self.facts.log.id,
            base_offset,
            nonce: Nonce(random_u64()),
            created_ms: wall_clock_ms(),
            leader_epoch: before.epoch.max(of_checkpoint),
            previous: before.previous,
            rewritten: None,
        };
        let name = segment_name(base_offset);
        self.keep_aside(&name).await?;
        let (file, _) = writer::create_segment(self.dir(), &header, None).await?;
        file.close().await.at(&self.dir().join(&name))
    }

    async fn write_log_start(&mut self, offset: Offset) -> Result<(), PathError> {
        self.keep_aside(LOG_START_NAME).await?;
        log_start::write(self.dir(), self.facts.log.id, offset).await
    }

    /// Moves a file aside that nothing takes the place of.
    async fn move_aside(&mut self, name: &str) -> Result<(), PathError> {
        let (from, to) = (self.dir().join(name), self.free_name(name).await?);
        file::rename(&from, &to).await.at(&from)?;
        let aside = self.aside();
        file::sync_dir(&aside).await.at(&aside)?;
        file::sync_dir(self.dir()).await.at(self.dir())?;
        self.note_aside(&to);
        Ok(())
    }

    /// Gives a file that is about to be replaced a second name, durably; content with one that is not there.
    async fn keep_aside(&mut self, name: &str) -> Result<(), PathError> {
        let (from, to) = (self.dir().join(name), self.free_name(name).await?);
        match file::link(&from, &to).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            linked => linked.at(&to)?,
        }
        let aside = self.aside();
        file::sync_dir(&aside).await.at(&aside)?;
        self.note_aside(&to);
        Ok(())
    }

    fn note_aside(&mut self, path: &Path) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.done.set_aside.push(format!("{SET_ASIDE_NAME}/{name}"));
    }

    /// A name in the set-aside directory that nothing has.
    async fn free_name(&self, name: &str) -> Result<PathBuf, PathError> {
        let aside = self.aside();
        let taken: Vec<String> =
            file::read_dir(&aside).await.at(&aside)?.into_iter().map(|entry| entry.name).collect();
        let mut free = name.to_owned();
        let mut copy = 1_u64;
        while taken.contains(&free) {
            copy += 1;
            free = format!("{name}.{copy}");
        }
        Ok(aside.join(free))
    }
}

/// What follows a segment that stays as it is.
fn after(kept: &SegmentFacts) -> Before {
    let previous = PreviousSegment {
        base_offset: kept.head.base_offset,
        end_position: kept.end_position,
        end_hash: kept.end_hash.expect("a sound segment has a last header"),
        max_timestamp_ms: kept.max_timestamp_ms,
    };
    Before { previous: Some(previous), epoch: kept.end_epoch }
}

/// Copies what verifies and fills in what is lost.
struct Filler {
    rewriter: Rewriter,
    /// The last leader epoch written.
    epoch: LeaderEpoch,
    checkpoint: Option<CheckpointEntry>,
    lost: Vec<Lost>,
}

impl Filler {
    async fn copy(&mut self, dir: &Path, source: &SegmentFacts) -> Result<(), InspectError> {
        let Some(known) = source.known else { return Ok(()) };
        let path = dir.join(segment_name(source.head.base_offset));
        let mut judge = Judge::new(SegmentBytes::open(&path).await?, known);
        while let Some(item) = judge.next().await.map_err(|version| version.of(&path))? {
            match item {
                Item::Extent { met, pieces } => {
                    self.epoch = self.epoch.max(met.header.leader_epoch);
                    for piece in pieces {
                        match piece {
                            Piece::Batch(batch) => self.rewriter.push(batch.bytes(), batch.header()).await?,
                            Piece::Damage { lost, .. } => self.lose_up_to(lost.end).await?,
                        }
                    }
                }
                Item::Damage { lost, .. } => self.lose_up_to(lost.end).await?,
                Item::TornTail { .. } => {}
            }
            yield_if_needed().await;
        }
        Ok(())
    }

    /// Stands in for everything between what was written and `end`. An empty batch at the end of it is enough: the
    /// extent that holds it stands for all offsets before it, too.
    async fn lose_up_to(&mut self, end: Offset) -> Result<(), PathError> {
        let start = self.rewriter.end_offset();
        if start >= end {
            return Ok(());
        }
        // The checkpoint remembers in which epoch the flushed part ended, whatever is left of it.
        let known = self.checkpoint.filter(|entry| entry.flushed_offset <= end);
        self.epoch = known.map_or(self.epoch, |entry| entry.leader_epoch.max(self.epoch));
        let from = Offset(start.0.max(end.0.saturating_sub(EMPTY_BATCH_OFFSETS_MAX)));
        let batch = empty_batch(from, end, self.epoch);
        let header = RecordBatchHeader::decode(&batch).expect("a batch just built");
        self.rewriter.push(&batch, &header).await?;
        self.lost.push(Lost { start, end });
        Ok(())
    }
}
