//! Reads one segment: its index, the place of an extent in it, the extents from there on, verified.
//!
//! Never writes a segment; a damaged index it rebuilds. Knows nothing of what is kept in memory but the index of the
//! active segment.

use std::io;
use std::rc::Rc;

use corrente_protocol::ids::Offset;
use corrente_runtime::buffer::AlignedBuf;
use corrente_runtime::executor::{Queue, spawn_in, yield_if_needed};
use corrente_runtime::file::{self, File, OpenOptions};

use crate::error::{AtPath, ReadError};
use crate::extent::{
    EXTENT_ALIGN, EXTENT_HEADER_LEN, ExtentFault, ExtentHeader, NO_TIMESTAMP, UNKNOWN_TIMESTAMP,
};
use crate::log::LogInner;
use crate::position::{BLOCK_BYTES, FilePosition, buffer_len};
use crate::read_ahead::Chunk;
use crate::reader;
use crate::scan::find_extent;
use crate::segment::{FIRST_EXTENT, Segment, index_name};
use crate::segment_index::{Point, SegmentIndex};
use crate::tail_ring::Stretch;
use crate::writer;

/// Bytes read from disk at one go, or one extent if that is longer.
pub(crate) const CHUNK_READ: u64 = 1024 * 1024;
/// Bytes read at one go while looking for an extent by headers alone.
const WALK_READ: u64 = 64 * 1024;
/// What readers that somebody waits for read at one go: as much as they want.
pub(crate) const READ_LEN_MAX: usize = usize::MAX;
/// The largest index file read.
pub(crate) const INDEX_LEN_MAX: usize = 16 * 1024 * 1024;

const _: () = assert!(WALK_READ.is_multiple_of(BLOCK_BYTES));

/// Where an offset is to be looked for.
pub(crate) struct Place {
    pub(crate) segment: Segment,
    /// Whether the segment is written no more.
    sealed: bool,
    /// One past the last offset that can lie in the segment's flushed part.
    end_offset: Offset,
    /// Where the extent that holds the offset begins, if it is known.
    known: Option<FilePosition>,
}

impl Place {
    /// Somewhere in a segment whose flushed part ends at `end_offset`.
    pub(crate) fn in_segment(log: &LogInner, segment: Segment, end_offset: Offset) -> Place {
        let sealed = log.state.borrow().tail.segment != segment.base_offset;
        Place { segment, sealed, end_offset, known: None }
    }

    /// Somewhere in a segment that is written no more and ends at `end_offset`.
    pub(crate) fn in_sealed(segment: Segment, end_offset: Offset, known: Option<FilePosition>) -> Place {
        Place { segment, sealed: true, end_offset, known }
    }

    /// Where an offset lies; nowhere if it is not flushed. Without a segment that could hold it, it was removed
    /// meanwhile, or it lay in a segment that cannot be read.
    pub(crate) fn of(log: &LogInner, offset: Offset) -> Result<Option<Place>, ReadError> {
        let state = log.state.borrow();
        if offset >= state.tail.flushed {
            return Ok(None);
        }
        let Some((_, segment)) = state.segments.range(..=offset).next_back() else {
            reader::check_beginning(&state)?;
            let (start, end) = (state.log_start_offset, state.log_end_offset);
            return Err(ReadError::OutOfRange { asked: offset, start, end });
        };
        let next = state.segments.range(offset..).find(|(base, _)| **base > offset);
        let before = log.shard.read_ahead.chunk_before(log.id, offset);
        let known = before
            .filter(|chunk| chunk.end_offset() == offset && chunk.nonce == segment.nonce)
            .map(|chunk| chunk.next_position);
        let at_start = (offset == segment.base_offset).then_some(FIRST_EXTENT);
        Ok(Some(Place {
            segment: *segment,
            sealed: next.is_some(),
            end_offset: next.map_or(state.tail.flushed, |(base, _)| *base),
            known: known.or(at_start),
        }))
    }
}

pub(crate) async fn open(log: &Rc<LogInner>, segment: &Segment) -> Result<File, ReadError> {
    if let Some(file) = log.shard.read_ahead.file(log.id, segment) {
        return Ok(file);
    }
    let path = log.segment_path(segment.base_offset);
    // Whoever gives another file this name does it while nobody opens one.
    let _names = log.names.acquire(1).await;
    let file = File::open(&path, OpenOptions::READ).await.at(&path)?;
    log.shard.read_ahead.insert_file(log.id, segment, file.clone());
    log.shard.read_from_disk();
    Ok(file)
}

/// A segment that is being read.
pub(crate) struct SegmentReader<'a> {
    pub(crate) log: &'a Rc<LogInner>,
    pub(crate) place: Place,
    pub(crate) file: File,
    /// What is read at one go.
    pub(crate) read_len_max: usize,
}

/// Bytes of the segment, from a position on.
struct Piece {
    start: FilePosition,
    bytes: AlignedBuf,
    /// Nothing at or beyond this is looked at.
    end: FilePosition,
}

impl Piece {
    fn from(&self, position: FilePosition) -> &[u8] {
        let len = buffer_len(self.end.0.saturating_sub(self.start.0)).min(self.bytes.len());
        self.bytes[..len].get(buffer_len(position - self.start)..).unwrap_or_default()
    }
}

impl SegmentReader<'_> {
    /// The extents from the one that holds `offset` on.
    pub(crate) async fn read_chunk(&self, offset: Offset) -> Result<Chunk, ReadError> {
        let index = self.index().await?;
        if let Some(begin) = self.place.known {
            match self.read_from(&index, begin, offset).await {
                // How far the damage reaches, later headers tell.
                Err(ReadError::Damaged { .. }) => {}
                read => return read,
            }
        }
        let begin = self.locate(&index, offset).await?;
        self.read_from(&index, begin, offset).await
    }

    /// The extents from the one at `begin` on, which must hold `offset`.
    async fn read_from(
        &self,
        index: &SegmentIndex,
        begin: FilePosition,
        offset: Offset,
    ) -> Result<Chunk, ReadError> {
        let segment_end = self.place.segment.end_position;
        let far = FilePosition((begin.0 + CHUNK_READ).min(segment_end.0));
        // Up to where an extent is known to begin, so that none is read in part.
        let end = if far == segment_end { far } else { index.last_within(begin, far).unwrap_or(far) };
        let mut piece = self.piece(begin, end).await?;
        let first = self.header_at(&piece, begin, offset)?;
        let first_end = begin + first.total_len();
        if first_end > piece.end {
            piece = self.piece(begin, first_end.min(segment_end)).await?;
        }
        self.verify(piece, begin, offset)
    }

    /// Verifies the extents of a piece, from `begin` on, as many as are whole.
    fn verify(&self, piece: Piece, begin: FilePosition, offset: Offset) -> Result<Chunk, ReadError> {
        let nonce = self.place.segment.nonce;
        let mut found: Vec<(ExtentHeader, FilePosition)> = Vec::new();
        let mut position = begin;
        let mut next = None;
        while piece.from(position).len() >= EXTENT_HEADER_LEN {
            let asked = next.unwrap_or(offset);
            let verified = self.header_at(&piece, position, asked).and_then(|header| {
                let rest = &piece.from(position)[EXTENT_HEADER_LEN..];
                let Some(body) = rest.get(..buffer_len(u64::from(header.body_len))) else { return Ok(None) };
                let verified = header.verify_body(body, nonce, position);
                verified.map_err(|fault| self.damaged(asked, header.end_offset, position, fault))?;
                Ok(Some(header))
            });
            match verified {
                Ok(Some(header)) => {
                    found.push((header, position));
                    next = Some(header.end_offset);
                    position = header.next_position(position);
                }
                Err(error) if found.is_empty() => return Err(error),
                // Cut by the end of what was read, or damaged: met again when it is asked for.
                Ok(None) | Err(_) => break,
            }
        }
        let Some((_, last)) = found.last() else {
            let end = self.place.end_offset;
            return Err(self.damaged(offset, end, begin, ExtentFault::Foreign));
        };
        tracing::trace!(log = %self.log.id, from = %offset, to = %last, "read from disk");
        let cost = piece.bytes.len();
        let (start, data) = (piece.start, piece.bytes.freeze());
        let stretches = found.iter().map(|(header, position)| {
            let at = buffer_len(*position - start) + EXTENT_HEADER_LEN;
            let batches = data.slice(at..at + buffer_len(u64::from(header.body_len)));
            Stretch { base_offset: header.base_offset, end_offset: header.end_offset, batches }
        });
        let stretches = stretches.collect();
        Ok(Chunk { stretches, nonce, next_position: position, cost })
    }

    /// The header at `position`, whose extent must hold `asked`.
    fn header_at(
        &self,
        piece: &Piece,
        position: FilePosition,
        asked: Offset,
    ) -> Result<ExtentHeader, ReadError> {
        let bytes = piece.from(position);
        let end = self.place.end_offset;
        if bytes.len() < EXTENT_HEADER_LEN {
            return Err(self.damaged(asked, end, position, ExtentFault::Zeros));
        }
        let (header, _) = ExtentHeader::decode(bytes, self.place.segment.nonce, position)
            .map_err(|fault| self.damaged(asked, end, position, fault))?;
        if header.base_offset > asked || header.end_offset <= asked {
            return Err(self.damaged(asked, end, position, ExtentFault::Foreign));
        }
        Ok(header)
    }

    /// Where the extent that holds `offset` begins, by headers from the nearest known one on. Headers that do
    /// not verify are passed over if a later one before the offset does.
    async fn locate(&self, index: &SegmentIndex, offset: Offset) -> Result<FilePosition, ReadError> {
        let segment_end = self.place.segment.end_position;
        let mut walked = SegmentIndex::default();
        let floor = index.floor(offset);
        let mut position = floor.map_or(FIRST_EXTENT, |point| point.position);
        let mut latest = floor.map_or(NO_TIMESTAMP, |point| point.max_before_ms);
        let mut piece = self.piece(position, position + WALK_READ).await?;
        let mut missed = None;
        loop {
            if position >= segment_end {
                let (at, fault) = missed.unwrap_or((position, ExtentFault::Zeros));
                return Err(self.damaged(offset, self.place.end_offset, at, fault));
            }
            if piece.from(position).len() < EXTENT_HEADER_LEN {
                piece = self.piece(position, position + WALK_READ).await?;
                yield_if_needed().await;
            }
            match ExtentHeader::decode(piece.from(position), self.place.segment.nonce, position) {
                Ok((header, _)) if header.base_offset > offset => {
                    let (at, fault) = missed.unwrap_or((position, ExtentFault::Zeros));
                    return Err(self.damaged(offset, header.base_offset, at, fault));
                }
                Ok((header, _)) if header.end_offset > offset => {
                    // Past a header that does not verify nobody knows how late it was.
                    if missed.is_none() {
                        self.learn(&walked);
                    }
                    return Ok(position);
                }
                Ok((header, _)) => {
                    walked.note(header.base_offset, position, latest);
                    latest = latest.max(header.max_timestamp_ms);
                    position = header.next_position(position);
                }
                Err(fault) => {
                    missed = Some((position, fault));
                    position = self.next_header(position).await?;
                }
            }
        }
    }

    /// The first place after `position` where a header verifies, or the end of the segment.
    async fn next_header(&self, position: FilePosition) -> Result<FilePosition, ReadError> {
        let segment_end = self.place.segment.end_position;
        let mut from = position + EXTENT_ALIGN as u64;
        while from < segment_end {
            let piece = self.piece(from, from + CHUNK_READ).await?;
            if let Some((found, _)) = find_extent(piece.from(from), self.place.segment.nonce, from) {
                return Ok(found);
            }
            let next = FilePosition(from.block_start().0 + CHUNK_READ);
            from = next.min(segment_end);
            yield_if_needed().await;
        }
        Ok(segment_end)
    }

    /// Remembers extents found by walking in the active segment, so that the next walk is short.
    fn learn(&self, walked: &SegmentIndex) {
        let mut state = self.log.state.borrow_mut();
        if state.tail.segment == self.place.segment.base_offset && !self.place.sealed {
            state.index.merge(walked);
        }
    }

    /// The segment's index: the active one's from memory, a sealed one's from its file, rebuilt if that is
    /// missing or damaged.
    pub(crate) async fn index(&self) -> Result<Rc<SegmentIndex>, ReadError> {
        let segment = &self.place.segment;
        if !self.place.sealed {
            return Ok(Rc::new(self.log.state.borrow().index.clone()));
        }
        let ahead = &self.log.shard.read_ahead;
        if let Some(index) = ahead.index(self.log.id, segment) {
            return Ok(index);
        }
        let path = self.log.dir.join(index_name(segment.base_offset));
        let content = file::read_small(&path, INDEX_LEN_MAX).await;
        let read = content.map_err(|error| error.to_string()).and_then(|content| {
            let mut aligned = AlignedBuf::zeroed(content.len());
            aligned.copy_from_slice(&content);
            SegmentIndex::decode(&aligned, segment.nonce, segment.end_position).map_err(|f| f.to_string())
        });
        let index = match read {
            Ok(index) => index,
            Err(reason) => {
                tracing::info!(path = %path.display(), reason, "the index is rebuilt");
                self.rebuild_index().await?
            }
        };
        let index = Rc::new(index);
        ahead.insert_index(self.log.id, segment, index.clone());
        Ok(index)
    }

    async fn rebuild_index(&self) -> Result<SegmentIndex, ReadError> {
        let segment = self.place.segment;
        let mut index = SegmentIndex::default();
        let mut latest = NO_TIMESTAMP;
        let mut position = FIRST_EXTENT;
        let mut piece = self.piece(position, position + WALK_READ).await?;
        while position < segment.end_position {
            if piece.from(position).len() < EXTENT_HEADER_LEN {
                piece = self.piece(position, position + WALK_READ).await?;
                yield_if_needed().await;
            }
            match ExtentHeader::decode(piece.from(position), segment.nonce, position) {
                Ok((header, _)) => {
                    index.note(header.base_offset, position, latest);
                    latest = latest.max(header.max_timestamp_ms);
                    position = header.next_position(position);
                }
                Err(_) => {
                    // What is behind could be as late as anything: nobody may step over this place.
                    latest = UNKNOWN_TIMESTAMP;
                    position = self.next_header(position).await?;
                }
            }
        }
        let log = self.log.clone();
        let content = index.clone();
        spawn_in(Queue::Background, async move { writer::write_index(log, segment, content).await }).detach();
        Ok(index)
    }

    /// A walk along the headers of the segment, from a point of its index, or from its beginning.
    pub(crate) async fn walk_from(&self, point: Option<Point>) -> Result<HeaderWalk, ReadError> {
        let position = point.map_or(FIRST_EXTENT, |point| point.position);
        let next_offset = point.map_or(self.place.segment.base_offset, |point| point.base_offset);
        let piece = self.piece(position, position + WALK_READ).await?;
        Ok(HeaderWalk { position, next_offset, piece })
    }

    /// Reads the blocks that hold `from..to`, cut at the segment's end. At least a header's length is there
    /// unless the file is shorter than it should be.
    async fn piece(&self, from: FilePosition, to: FilePosition) -> Result<Piece, ReadError> {
        let end = to.min(self.place.segment.end_position);
        let start = from.block_start();
        let len = buffer_len(end.block_end().0.max(start.0 + BLOCK_BYTES) - start.0);
        let path = || self.log.segment_path(self.place.segment.base_offset);
        let bytes = self.read(start.0, len).await;
        let mut bytes = bytes.map_err(|source| crate::error::PathError { path: path(), source })?;
        if bytes.len() < len {
            // What a file that was cut short lacks reads as zeros, which are no extent.
            let mut whole = AlignedBuf::zeroed(len);
            whole[..bytes.len()].copy_from_slice(&bytes);
            bytes = whole;
        }
        Ok(Piece { start, bytes, end })
    }

    /// Less than `len` bytes only where the file ends.
    async fn read(&self, start: u64, len: usize) -> io::Result<AlignedBuf> {
        if len <= self.read_len_max {
            return self.file.read_at(start, len).await;
        }
        let mut whole = AlignedBuf::zeroed(len);
        for at in (0..len).step_by(self.read_len_max) {
            let part = self.file.read_at(start + at as u64, self.read_len_max.min(len - at)).await?;
            whole[at..at + part.len()].copy_from_slice(&part);
        }
        Ok(whole)
    }

    fn damaged(&self, start: Offset, end: Offset, at: FilePosition, fault: ExtentFault) -> ReadError {
        let path = self.log.segment_path(self.place.segment.base_offset);
        let reason = format!("{} at {at}: {fault}", path.display());
        ReadError::Damaged { start, end: end.max(start.saturating_add(1)), reason: reason.into() }
    }
}

/// Where a walk along the headers of a segment stands.
pub(crate) struct HeaderWalk {
    position: FilePosition,
    /// Where the next header should go on, in offsets.
    next_offset: Offset,
    piece: Piece,
}

impl HeaderWalk {
    /// The next header; the body behind it is not looked at. One that does not verify is damage, and so is an end
    /// before all offsets were met: a segment that should follow is missing.
    pub(crate) async fn next(
        &mut self,
        segment: &SegmentReader<'_>,
    ) -> Result<Option<ExtentHeader>, ReadError> {
        let position = self.position;
        if position >= segment.place.segment.end_position {
            let (next, end) = (self.next_offset, segment.place.end_offset);
            return match next < end {
                true => Err(segment.damaged(next, end, position, ExtentFault::Zeros)),
                false => Ok(None),
            };
        }
        if self.piece.from(position).len() < EXTENT_HEADER_LEN {
            self.piece = segment.piece(position, position + WALK_READ).await?;
            yield_if_needed().await;
        }
        match ExtentHeader::decode(self.piece.from(position), segment.place.segment.nonce, position) {
            Ok((header, _)) => {
                self.position = header.next_position(position);
                self.next_offset = header.end_offset;
                Ok(Some(header))
            }
            Err(fault) => Err(segment.damaged(self.next_offset, segment.place.end_offset, position, fault)),
        }
    }
}
