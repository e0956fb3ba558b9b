//! Finds the end of a log after a start: what is torn is left behind, what is damaged is reported.
//!
//! The rules, by where something is missing or wrong:
//! - Below the checkpoint, or before a later segment, or before a later extent that is valid: it was flushed
//!   once, so it is *damage*. Nothing is changed, the log is not opened.
//! - Beyond all of these it was never acknowledged for all we can know: a *torn tail*. The log ends before it.
//!
//! Why going on after a torn tail is safe, whatever is left of it on the disk:
//! 1. A window is being written at the end of the log when the power fails: some of its sectors land, some do
//!    not. Nothing in it was acknowledged, and no later one was written: one write is in flight per log.
//! 2. Recovery first flushes the file, so that what it reads next is durable and stays as it is, then walks
//!    the extents. An extent that verifies whole is kept, acknowledged or not. The first that does not ends
//!    the log.
//!    The same goes for names: a process that was killed has perhaps made a segment and not flushed its name. If
//!    the checkpoint does not know the last segment, the directory is flushed before anything is appended.
//! 3. If anything but zeros lies behind the end, the segment is never written again: the next append opens a
//!    new one, with a nonce of its own. Its header names the old segment's end, so what lies behind it is
//!    never looked at again.
//! 4. If only zeros lie there, appends go on in place: no stale byte can ever be taken for an extent.
//! 5. A crash before the next append finds the same bytes and comes to the same end.
//!
//! The work does not depend on how much data there is: sealed segments below the checkpoint are only looked
//! at for their header and their length.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use corrente_protocol::ids::{LeaderEpoch, Offset};
use corrente_runtime::buffer::{AlignedBuf, BLOCK};
use corrente_runtime::executor::yield_if_needed;
use corrente_runtime::file::{self, File, OpenOptions};

use crate::checkpoint::CheckpointEntry;
use crate::error::{AtPath, PathError, RecoveryError};
use crate::extent::{EXTENT_HEADER_LEN, ExtentFault, ExtentHeader};
use crate::log::{LogId, State, Tail};
use crate::position::{FilePosition, buffer_len, file_len};
use crate::scan::{BrokenChain, ChainEnd, Next, find_extent};
use crate::segment::{FIRST_EXTENT, FileName, Segment, SegmentHeader, parse_name, segment_name};
use crate::segment_index::SegmentIndex;
use crate::shard::Shard;
use crate::writer;

/// Bytes read at a time while scanning.
const SCAN_READ: usize = 1024 * 1024;

/// What recovery did for one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Bytes read beyond the checkpoint.
    pub scanned_bytes: u64,
    /// Bytes of a torn tail that are left behind.
    pub truncated_bytes: u64,
    /// What was found at the end.
    pub tail: TailFound,
}

/// What lies behind the end of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailFound {
    /// Nothing: appends go on in place.
    Clean,
    /// A write that never completed: appends go on in a new segment.
    Torn,
}

/// Why a log is not opened, before it is known which log.
enum Trouble {
    Damaged(String),
    Io(PathError),
}

impl From<PathError> for Trouble {
    fn from(error: PathError) -> Self {
        Trouble::Io(error)
    }
}

fn damaged(what: impl std::fmt::Display) -> Trouble {
    Trouble::Damaged(what.to_string())
}

/// Finds the log's state on disk. Changes nothing there but files that were never finished.
pub(crate) async fn recover(
    shard: &Shard,
    id: LogId,
    dir: &Path,
    checkpoint: Option<CheckpointEntry>,
) -> Result<(State, Recovered), RecoveryError> {
    match recover_log(shard, id, dir, checkpoint).await {
        Ok(recovered) => Ok(recovered),
        Err(Trouble::Damaged(reason)) => Err(RecoveryError::Damaged { log: id, reason }),
        Err(Trouble::Io(error)) => Err(error.into()),
    }
}

async fn recover_log(
    shard: &Shard,
    id: LogId,
    dir: &Path,
    checkpoint: Option<CheckpointEntry>,
) -> Result<(State, Recovered), Trouble> {
    let mut names = list(dir).await?;
    let mut segments = Vec::new();
    for base_offset in &names.segments {
        segments.push(look_at(id, dir, *base_offset).await?);
    }
    if segments.is_empty() {
        if let Some(entry) = checkpoint {
            return Err(damaged(format!("no segment, the checkpoint ends in {}", entry.segment_base)));
        }
        // It was being made when the node went down.
        remove_unfinished(dir, &mut names).await?;
        segments.push(make_first(id, dir).await?);
    }
    check_links(&segments)?;
    let last = &segments.last().expect("there is at least one segment").segment;
    if checkpoint.is_none_or(|entry| entry.nonce != last.nonce) {
        file::create_dir_all(dir).await.at(dir)?;
        file::sync_dir(dir).await.at(dir)?;
    }
    let start = starting_point(&segments, checkpoint)?;
    let mut scan = Scan {
        dir,
        extent_bytes_max: shard.config.extent_bytes_max(),
        scanned_bytes: 0,
        index: SegmentIndex::default(),
    };
    let end = scan.walk_segments(&segments, start, checkpoint).await?;
    remove_unfinished(dir, &mut names).await?;
    let log_start_offset = segments[0].segment.base_offset;
    let log_start_offset = checkpoint.map_or(log_start_offset, |entry| entry.log_start_offset);
    let recovered = Recovered {
        scanned_bytes: scan.scanned_bytes,
        truncated_bytes: end.truncated_bytes,
        tail: if end.truncated_bytes > 0 { TailFound::Torn } else { TailFound::Clean },
    };
    let index = scan.index;
    let mut state = end.into_state(&segments, log_start_offset, shard.config.segment_bytes);
    state.index = index;
    Ok((state, recovered))
}

struct Names {
    segments: Vec<Offset>,
    unfinished: Vec<String>,
}

async fn list(dir: &Path) -> Result<Names, PathError> {
    let mut names = Names { segments: Vec::new(), unfinished: Vec::new() };
    for entry in file::read_dir(dir).await.at(dir)? {
        match parse_name(&entry.name) {
            FileName::Segment(base_offset) => names.segments.push(base_offset),
            FileName::Index(_) => {}
            FileName::Unfinished => names.unfinished.push(entry.name),
            FileName::Strange => {
                tracing::warn!(path = %dir.join(&entry.name).display(), "not a segment: left alone");
            }
        }
    }
    names.segments.sort_unstable();
    Ok(names)
}

/// Segments that never got their names: nothing in them was ever relied on.
async fn remove_unfinished(dir: &Path, names: &mut Names) -> Result<(), PathError> {
    for unfinished in names.unfinished.drain(..) {
        let path = dir.join(unfinished);
        file::remove_file(&path).await.at(&path)?;
    }
    Ok(())
}

/// A segment file as it lies there.
struct Found {
    segment: Segment,
    epoch: LeaderEpoch,
    file_len: u64,
}

async fn look_at(id: LogId, dir: &Path, base_offset: Offset) -> Result<Found, Trouble> {
    let path = dir.join(segment_name(base_offset));
    let file = File::open(&path, OpenOptions::READ).await.at(&path)?;
    let file_len = file.len().await.at(&path)?;
    let block = file.read_at(0, BLOCK).await.at(&path)?;
    file.close().await.at(&path)?;
    let (header, header_hash) = SegmentHeader::decode(&block, id, base_offset)
        .map_err(|fault| damaged(format!("{}: {fault}", segment_name(base_offset))))?;
    let segment = Segment {
        base_offset,
        nonce: header.nonce,
        header_hash,
        previous: header.previous,
        end_position: FIRST_EXTENT,
    };
    Ok(Found { segment, epoch: header.leader_epoch, file_len })
}

async fn make_first(id: LogId, dir: &Path) -> Result<Found, PathError> {
    let header = writer::first_header(id);
    let (file, segment) = writer::create_segment(dir, &header).await?;
    let path = dir.join(segment_name(header.base_offset));
    file.close().await.at(&path)?;
    Ok(Found { segment, epoch: header.leader_epoch, file_len: FIRST_EXTENT.0 })
}

/// Every segment but the first names the one before it, and that one is as long as it was then.
fn check_links(segments: &[Found]) -> Result<(), Trouble> {
    for pair in segments.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        let name = segment_name(after.segment.base_offset);
        let before_base = before.segment.base_offset;
        let Some(previous) = after.segment.previous else {
            return Err(damaged(format!("{name} is a first segment, but {before_base} lies before it")));
        };
        if previous.base_offset != before_base {
            let expected = previous.base_offset;
            return Err(damaged(format!("{name} follows segment {expected}, found {before_base} before it")));
        }
        if before.file_len < previous.end_position.0 {
            let name = segment_name(before_base);
            let end = previous.end_position;
            return Err(damaged(format!("{name} has {} bytes, it ended at {end}", before.file_len)));
        }
    }
    Ok(())
}

/// Where to begin: the index of a segment, and the end of the chain in it that is known to be durable.
fn starting_point(
    segments: &[Found],
    checkpoint: Option<CheckpointEntry>,
) -> Result<(usize, ChainEnd), Trouble> {
    let Some(entry) = checkpoint else {
        return Ok((0, chain_start(&segments[0])));
    };
    let name = segment_name(entry.segment_base);
    let first = &segments[0].segment;
    if first.previous.is_some() && entry.log_start_offset < first.base_offset {
        let (start, found) = (entry.log_start_offset, first.base_offset);
        return Err(damaged(format!("the log starts at {start}, its first segment at {found}")));
    }
    let Some(at) = segments.iter().position(|found| found.segment.base_offset == entry.segment_base) else {
        return Err(damaged(format!("{name} is missing, the checkpoint ends in it")));
    };
    let found = &segments[at];
    if entry.position == FIRST_EXTENT {
        // It held nothing then, and may have been replaced by another that begins at the same offset.
        return Ok((at, chain_start(found)));
    }
    if found.segment.nonce != entry.nonce {
        return Err(damaged(format!("{name} is not the file the checkpoint knows")));
    }
    if found.file_len < entry.position.0 {
        let (len, end) = (found.file_len, entry.position);
        return Err(damaged(format!("{name} has {len} bytes, {end} are known to be flushed")));
    }
    let chain = ChainEnd {
        nonce: entry.nonce,
        position: entry.position,
        last_extent: entry.last_extent,
        hash: entry.last_hash,
        next_offset: entry.flushed_offset,
        epoch: entry.leader_epoch,
    };
    Ok((at, chain))
}

fn chain_start(found: &Found) -> ChainEnd {
    ChainEnd {
        nonce: found.segment.nonce,
        position: FIRST_EXTENT,
        last_extent: FIRST_EXTENT,
        hash: found.segment.header_hash,
        next_offset: found.segment.base_offset,
        epoch: found.epoch,
    }
}

/// The end of the log.
struct LogEnd {
    chain: ChainEnd,
    /// The last block, up to the end.
    front: Bytes,
    truncated_bytes: u64,
}

impl LogEnd {
    fn into_state(self, segments: &[Found], log_start_offset: Offset, segment_bytes: u64) -> State {
        let mut known: BTreeMap<Offset, Segment> = BTreeMap::new();
        for (at, found) in segments.iter().enumerate() {
            let next = segments.get(at + 1).and_then(|next| next.segment.previous);
            let end_position = next.map_or(self.chain.position, |previous| previous.end_position);
            known.insert(found.segment.base_offset, Segment { end_position, ..found.segment });
        }
        let last = segments.last().expect("there is at least one segment");
        let tail = Tail {
            flushed: self.chain.next_offset,
            epoch: self.chain.epoch,
            segment: last.segment.base_offset,
            position: self.chain.position,
            last_extent: self.chain.last_extent,
            last_hash: self.chain.hash,
        };
        let roll_due = self.truncated_bytes > 0 || self.chain.position.0 >= segment_bytes;
        let front = if roll_due { Bytes::new() } else { self.front };
        State::new(log_start_offset, known, tail, front, roll_due)
    }
}

struct Scan<'a> {
    dir: &'a Path,
    extent_bytes_max: usize,
    scanned_bytes: u64,
    /// Extents seen in the segment that is being scanned.
    index: SegmentIndex,
}

impl Scan<'_> {
    /// Walks from the starting point to the end of the last segment.
    async fn walk_segments(
        &mut self,
        segments: &[Found],
        (at, mut chain): (usize, ChainEnd),
        checkpoint: Option<CheckpointEntry>,
    ) -> Result<LogEnd, Trouble> {
        self.check_last_extent(&chain, segments[at].segment.base_offset).await?;
        for (at, found) in segments.iter().enumerate().skip(at) {
            self.index = SegmentIndex::default();
            let name = segment_name(found.segment.base_offset);
            let Some(next) = segments.get(at + 1) else {
                return self.walk_last(found, chain, checkpoint).await;
            };
            let previous = next.segment.previous.expect("links were checked");
            let file = self.open(&name, OpenOptions::READ).await?;
            let (end, stop) = self.walk(&file, &name, chain, previous.end_position.0).await?;
            if end.position != previous.end_position || end.hash != previous.end_hash {
                let (found, expected) = (end.position, previous.end_position);
                return Err(damaged(format!(
                    "{name} verifies up to {found}, it ended at {expected}: {stop}"
                )));
            }
            let follows = next.segment.base_offset;
            if follows != end.next_offset {
                let ended = end.next_offset;
                return Err(damaged(format!("{name} ends at offset {ended}, the next begins at {follows}")));
            }
            chain = ChainEnd { epoch: end.epoch, ..chain_start(next) };
        }
        unreachable!("the last segment returns")
    }

    /// The last extent below the checkpoint is still the one it was.
    async fn check_last_extent(&mut self, chain: &ChainEnd, base_offset: Offset) -> Result<(), Trouble> {
        if chain.last_extent == chain.position {
            return Ok(());
        }
        let name = segment_name(base_offset);
        let file = self.open(&name, OpenOptions::READ).await?;
        let block = self.read(&file, &name, chain.last_extent.block_start(), BLOCK).await?;
        let header = block.get(chain.last_extent.in_block()..).filter(|rest| rest.len() >= EXTENT_HEADER_LEN);
        let header = header.map(|bytes| ExtentHeader::decode(bytes, chain.nonce, chain.last_extent));
        let at = chain.last_extent;
        match header {
            Some(Ok((header, hash))) if hash == chain.hash && header.next_position(at) == chain.position => {
                Ok(())
            }
            Some(Err(fault)) => Err(damaged(format!("{name} at {at}, below the checkpoint: {fault}"))),
            _ => Err(damaged(format!("{name} at {at} is not the extent the checkpoint knows"))),
        }
    }

    /// Walks the segment that may have a torn tail.
    async fn walk_last(
        &mut self,
        found: &Found,
        chain: ChainEnd,
        checkpoint: Option<CheckpointEntry>,
    ) -> Result<LogEnd, Trouble> {
        let name = segment_name(found.segment.base_offset);
        let file = self.open(&name, OpenOptions::READ_WRITE).await?;
        let (mut end, mut truncated_bytes) = self.find_end(&file, &name, chain, found.file_len).await?;
        if end != chain || truncated_bytes > 0 {
            // What is read and relied on must still be there after the next crash: flush, then read again.
            file.sync_data().await.at(&self.dir.join(&name))?;
            self.index = SegmentIndex::default();
            (end, truncated_bytes) = self.find_end(&file, &name, chain, found.file_len).await?;
        }
        let front = self.front(&file, &name, end.position).await?;
        if let Some(entry) = checkpoint {
            let (flushed, found) = (entry.flushed_offset, end.next_offset);
            assert!(found >= flushed, "the log ends at {found}, the checkpoint at {flushed}");
        }
        Ok(LogEnd { chain: end, front, truncated_bytes })
    }

    /// The end of the log in its last segment, and how many bytes of a torn tail lie behind.
    async fn find_end(
        &mut self,
        file: &File,
        name: &str,
        chain: ChainEnd,
        file_end: u64,
    ) -> Result<(ChainEnd, u64), Trouble> {
        let (end, stop) = self.walk(file, name, chain, file_end).await?;
        if let Stop::Broken(broken) = stop {
            return Err(damaged(format!("{name} at {}: {broken}", end.position)));
        }
        let truncated_bytes = self.look_behind(file, name, &end, file_end).await?;
        Ok((end, truncated_bytes))
    }

    /// Follows the chain as far as it goes, at most to `file_end`.
    async fn walk(
        &mut self,
        file: &File,
        name: &str,
        mut chain: ChainEnd,
        file_end: u64,
    ) -> Result<(ChainEnd, Stop), Trouble> {
        let mut want = SCAN_READ;
        loop {
            let start = chain.position.block_start();
            let len = want.next_multiple_of(BLOCK) + BLOCK;
            let bytes = if start.0 < file_end {
                self.read(file, name, start, len).await?
            } else {
                AlignedBuf::zeroed(0)
            };
            let available = bytes.len().min(buffer_len_or_max(file_end.saturating_sub(start.0)));
            let file_ends = start.0 + file_len(available) >= file_end || bytes.len() < len;
            let (next, stop) = self.walk_bytes(chain, start, &bytes[..available], file_ends);
            chain = next;
            match stop {
                Stop::Needs(more) => want = more.max(SCAN_READ),
                stop => return Ok((chain, stop)),
            }
            yield_if_needed().await;
        }
    }

    /// Follows the chain through `bytes`, which begin at `start`, at or before the chain's position.
    fn walk_bytes(
        &mut self,
        mut chain: ChainEnd,
        start: FilePosition,
        bytes: &[u8],
        file_ends: bool,
    ) -> (ChainEnd, Stop) {
        loop {
            let rest = bytes.get(buffer_len(chain.position - start)..).unwrap_or_default();
            match chain.next(rest, file_ends) {
                Next::Extent { base_offset, position, end } => {
                    self.index.note(base_offset, position);
                    chain = end;
                }
                Next::Needs(len) => return (chain, Stop::Needs(len)),
                Next::Nothing(fault) => return (chain, Stop::Nothing(fault)),
                Next::Broken(broken) => return (chain, Stop::Broken(broken)),
            }
        }
    }

    /// The bytes of the last block before the end of the log.
    async fn front(&mut self, file: &File, name: &str, end: FilePosition) -> Result<Bytes, Trouble> {
        if end.in_block() == 0 {
            return Ok(Bytes::new());
        }
        let block = self.read(file, name, end.block_start(), BLOCK).await?;
        let front = block.get(..end.in_block());
        let front = front.ok_or_else(|| damaged(format!("{name} ends before {end}")))?;
        Ok(Bytes::copy_from_slice(front))
    }

    /// Looks at what lies behind the end of the log, as far as one write could reach: how many bytes up to
    /// the last that is not zero. A valid extent there proves that what should stand before it was flushed.
    async fn look_behind(
        &mut self,
        file: &File,
        name: &str,
        end: &ChainEnd,
        file_end: u64,
    ) -> Result<u64, Trouble> {
        let reach = end.position.0 + file_len(self.extent_bytes_max + 2 * BLOCK);
        let limit = reach.min(file_end);
        let mut rubbish = 0;
        let mut at = end.position.block_start();
        while at.0 < limit {
            let len = buffer_len((limit - at.0).min(file_len(SCAN_READ))).next_multiple_of(BLOCK);
            let bytes = self.read(file, name, at, len).await?;
            if bytes.is_empty() {
                break;
            }
            let skip = if at < end.position { end.position.in_block() } else { 0 };
            let (position, bytes) = (at + file_len(skip), bytes.get(skip..).unwrap_or_default());
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                rubbish = position.0 + file_len(last) + 1 - end.position.0;
                // What stands at the end itself has been judged already.
                let own = if position == end.position { EXTENT_HEADER_LEN } else { 0 };
                let later = bytes.get(own..).unwrap_or_default();
                if let Some((found, header)) = find_extent(later, end.nonce, position + file_len(own)) {
                    let (from, to) = (end.next_offset, header.base_offset);
                    return Err(damaged(format!(
                        "{name}: offsets {from} to {to} at {} do not verify, a later extent at {found} does",
                        end.position
                    )));
                }
            }
            at = at + file_len(len);
            yield_if_needed().await;
        }
        Ok(rubbish)
    }

    async fn open(&self, name: &str, options: OpenOptions) -> Result<File, PathError> {
        let path = self.dir.join(name);
        File::open(&path, options).await.at(&path)
    }

    async fn read(
        &mut self,
        file: &File,
        name: &str,
        at: FilePosition,
        len: usize,
    ) -> Result<AlignedBuf, PathError> {
        let path: PathBuf = self.dir.join(name);
        let bytes = file.read_at(at.0, len).await.at(&path)?;
        self.scanned_bytes += file_len(bytes.len());
        Ok(bytes)
    }
}

/// Why a walk stopped.
enum Stop {
    Needs(usize),
    Nothing(ExtentFault),
    Broken(BrokenChain),
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Stop::Needs(len) => write!(f, "{len} bytes needed"),
            Stop::Nothing(fault) => fault.fmt(f),
            Stop::Broken(broken) => broken.fmt(f),
        }
    }
}

/// A file length as a buffer length, or all there is.
fn buffer_len_or_max(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
