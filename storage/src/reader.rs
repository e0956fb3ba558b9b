//! Reads: from the tail ring where it can, else from disk, verified, with read-ahead.
//!
//! Never shows an extent whose hashes do not agree, and never writes a segment; a damaged index it rebuilds.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use corrente_protocol::ids::Offset;
use corrente_runtime::buffer::AlignedBuf;
use corrente_runtime::executor::{Queue, spawn_in, yield_if_needed};
use corrente_runtime::file::{self, File, OpenOptions};

use crate::error::{AtPath, ReadError};
use crate::extent::{EXTENT_ALIGN, EXTENT_HEADER_LEN, ExtentFault, ExtentHeader};
use crate::log::LogInner;
use crate::position::{BLOCK_BYTES, FilePosition, buffer_len};
use crate::read_ahead::Chunk;
use crate::read_slice::{ReadSlice, Took};
use crate::scan::find_extent;
use crate::segment::{FIRST_EXTENT, Segment, index_name};
use crate::segment_index::SegmentIndex;
use crate::tail_ring::Stretch;
use crate::writer;

/// Bytes read from disk at one go, or one extent if that is longer.
const CHUNK_READ: u64 = 1024 * 1024;
/// Bytes read at one go while looking for an extent by headers alone.
const WALK_READ: u64 = 64 * 1024;
/// How many chunks are fetched before they are asked for.
const CHUNKS_AHEAD: usize = 3;
/// The largest index file read.
const INDEX_LEN_MAX: usize = 16 * 1024 * 1024;

pub(crate) async fn read(
    log: &Rc<LogInner>,
    from: Offset,
    up_to: Offset,
    max_bytes: usize,
) -> Result<Vec<Bytes>, ReadError> {
    let up_to = readable_end(log, from)?.min(up_to);
    let mut slice = ReadSlice::new(from, up_to, max_bytes);
    while slice.next() < up_to {
        if take_tail(log, &mut slice)? {
            break;
        }
        let offset = slice.next();
        // What is not flushed is in the ring, unless the log was fenced meanwhile.
        if offset >= up_to.min(log.state.borrow().tail.flushed) {
            break;
        }
        let ahead = log.shard.read_ahead.chunk(log.id, offset);
        let sequential = ahead.is_some() || !slice.is_empty();
        let chunk = match ahead {
            Some(chunk) => chunk,
            None => match load(log, offset, true).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => continue,
                Err(error) if slice.is_empty() => return Err(error),
                Err(_) => break,
            },
        };
        if sequential {
            fetch_ahead(log, &chunk);
        }
        if take_chunk(&mut slice, &chunk)? {
            break;
        }
    }
    Ok(slice.finish())
}

/// Checks that the log holds `from`; says how far it can be read.
fn readable_end(log: &LogInner, from: Offset) -> Result<Offset, ReadError> {
    let state = log.state.borrow();
    if state.closed && log.flushed.is_closed() {
        return Err(ReadError::Closed);
    }
    let (start, end) = (state.log_start_offset, state.log_end_offset);
    if from < start || from > end {
        return Err(ReadError::OutOfRange { asked: from, start, end });
    }
    let fenced = state.fenced.is_some();
    Ok(if fenced { state.tail.flushed } else { state.frozen_end })
}

/// Takes what the tail ring has; says whether the read is complete.
fn take_tail(log: &LogInner, slice: &mut ReadSlice) -> Result<bool, ReadError> {
    let tail = log.shard.tail.borrow();
    for stretch in tail.since(log.id, slice.next()) {
        match slice.take(stretch) {
            Took::All => {}
            Took::Done => return Ok(true),
            Took::Malformed => return Err(malformed(stretch)),
        }
    }
    Ok(false)
}

/// Takes what a chunk has; says whether the read is complete.
fn take_chunk(slice: &mut ReadSlice, chunk: &Chunk) -> Result<bool, ReadError> {
    let at = chunk.stretches.partition_point(|stretch| stretch.end_offset <= slice.next());
    for stretch in &chunk.stretches[at..] {
        match slice.take(stretch) {
            Took::All => {}
            Took::Done => return Ok(true),
            Took::Malformed => return Err(malformed(stretch)),
        }
    }
    Ok(false)
}

fn malformed(stretch: &Stretch) -> ReadError {
    let (start, end) = (stretch.base_offset, stretch.end_offset);
    ReadError::Damaged { start, end, reason: Arc::from("the extent verifies, a batch in it has no length") }
}

/// Fetches the chunks after this one, as many as should be ready, in the background.
fn fetch_ahead(log: &Rc<LogInner>, chunk: &Rc<Chunk>) {
    let mut last = chunk.clone();
    for _ in 0..CHUNKS_AHEAD {
        let next = last.end_offset();
        if next >= log.state.borrow().tail.flushed {
            return;
        }
        match log.shard.read_ahead.chunk(log.id, next) {
            Some(ahead) => last = ahead,
            None => {
                let log = log.clone();
                spawn_in(Queue::Storage, async move {
                    // Trouble is met again, and told, by whoever asks for it.
                    let mut next = next;
                    for _ in 0..CHUNKS_AHEAD {
                        match load(&log, next, false).await {
                            Ok(Some(chunk)) => next = chunk.end_offset(),
                            _ => return,
                        }
                    }
                })
                .detach();
                return;
            }
        }
    }
}

/// Reads the chunk that holds `offset`, which is flushed. `None` if somebody else has read it: ask again. A
/// fetch ahead of need (`wanted` is false) gives up rather than wait.
async fn load(log: &Rc<LogInner>, offset: Offset, wanted: bool) -> Result<Option<Rc<Chunk>>, ReadError> {
    let ahead = &log.shard.read_ahead;
    let loaded = ahead.loaded.wait();
    let Some(_claim) = ahead.claim(log.id, offset) else {
        if wanted {
            loaded.await;
        }
        return Ok(None);
    };
    let Some(place) = Place::of(log, offset) else { return Ok(None) };
    let need = buffer_len(CHUNK_READ);
    let _room = match ahead.in_flight.try_acquire(need) {
        Some(room) => room,
        None if wanted => ahead.in_flight.acquire(need).await,
        None => return Ok(None),
    };
    let file = open(log, &place.segment).await?;
    let segment = SegmentReader { log, place, file };
    let chunk = Rc::new(segment.read_chunk(offset).await?);
    ahead.insert_chunk(log.id, chunk.clone());
    Ok(Some(chunk))
}

/// Where an offset is to be looked for.
struct Place {
    segment: Segment,
    /// Whether the segment is written no more.
    sealed: bool,
    /// One past the last offset that can lie in the segment's flushed part.
    end_offset: Offset,
    /// Where the extent that holds the offset begins, if it is known.
    known: Option<FilePosition>,
}

impl Place {
    fn of(log: &LogInner, offset: Offset) -> Option<Place> {
        let state = log.state.borrow();
        if offset >= state.tail.flushed {
            return None;
        }
        let (_, segment) = state.segments.range(..=offset).next_back()?;
        let next = state.segments.range(offset..).find(|(base, _)| **base > offset);
        let before = log.shard.read_ahead.chunk_before(log.id, offset);
        let known = before
            .filter(|chunk| chunk.end_offset() == offset && chunk.segment == segment.base_offset)
            .map(|chunk| chunk.next_position);
        let at_start = (offset == segment.base_offset).then_some(FIRST_EXTENT);
        Some(Place {
            segment: *segment,
            sealed: next.is_some(),
            end_offset: next.map_or(state.tail.flushed, |(base, _)| *base),
            known: known.or(at_start),
        })
    }
}

async fn open(log: &Rc<LogInner>, segment: &Segment) -> Result<File, ReadError> {
    if let Some(file) = log.shard.read_ahead.file(log.id, segment) {
        return Ok(file);
    }
    let path = log.segment_path(segment.base_offset);
    let file = File::open(&path, OpenOptions::READ).await.at(&path)?;
    log.shard.read_ahead.insert_file(log.id, segment, file.clone());
    log.shard.read_from_disk();
    Ok(file)
}

/// A segment that is being read.
struct SegmentReader<'a> {
    log: &'a Rc<LogInner>,
    place: Place,
    file: File,
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
    async fn read_chunk(&self, offset: Offset) -> Result<Chunk, ReadError> {
        let index = self.index().await?;
        let begin = match self.place.known {
            Some(position) => position,
            None => self.locate(&index, offset).await?,
        };
        let segment_end = self.place.segment.end_position;
        let far = FilePosition((begin.0 + CHUNK_READ).min(segment_end.0));
        // Up to where an extent is known to begin, so that none is read in part.
        let end = if far == segment_end { far } else { index.last_within(begin, far).unwrap_or(far) };
        let mut piece = self.piece(begin, end).await?;
        let first = self.decode(&piece, begin, offset)?;
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
            let verified = self.decode(&piece, position, asked).and_then(|header| {
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
        Ok(Chunk { stretches, segment: self.place.segment.base_offset, next_position: position, cost })
    }

    /// The header at `position`, whose extent must hold `asked`.
    fn decode(
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
        let mut position = index.floor(offset).map_or(FIRST_EXTENT, |point| point.position);
        let mut piece = self.piece(position, position + WALK_READ).await?;
        let mut missed = None;
        loop {
            if position >= segment_end {
                return Err(self.damaged(offset, self.place.end_offset, position, ExtentFault::Zeros));
            }
            if piece.from(position).len() < EXTENT_HEADER_LEN {
                piece = self.piece(position, position + WALK_READ).await?;
                yield_if_needed().await;
            }
            match ExtentHeader::decode(piece.from(position), self.place.segment.nonce, position) {
                Ok((header, _)) if header.base_offset > offset => {
                    let fault = missed.unwrap_or(ExtentFault::Zeros);
                    return Err(self.damaged(offset, header.base_offset, position, fault));
                }
                Ok((header, _)) if header.end_offset > offset => {
                    self.learn(&walked);
                    return Ok(position);
                }
                Ok((header, _)) => {
                    walked.note(header.base_offset, position);
                    position = header.next_position(position);
                }
                Err(fault) => {
                    missed = Some(fault);
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
    async fn index(&self) -> Result<Rc<SegmentIndex>, ReadError> {
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
        let mut position = FIRST_EXTENT;
        let mut piece = self.piece(position, position + WALK_READ).await?;
        while position < segment.end_position {
            if piece.from(position).len() < EXTENT_HEADER_LEN {
                piece = self.piece(position, position + WALK_READ).await?;
                yield_if_needed().await;
            }
            match ExtentHeader::decode(piece.from(position), segment.nonce, position) {
                Ok((header, _)) => {
                    index.note(header.base_offset, position);
                    position = header.next_position(position);
                }
                Err(_) => position = self.next_header(position).await?,
            }
        }
        let log = self.log.clone();
        let content = index.clone();
        spawn_in(Queue::Background, async move { writer::write_index(log, segment, content).await }).detach();
        Ok(index)
    }

    /// Reads the blocks that hold `from..to`, cut at the segment's end. At least a header's length is there
    /// unless the file is shorter than it should be.
    async fn piece(&self, from: FilePosition, to: FilePosition) -> Result<Piece, ReadError> {
        let end = to.min(self.place.segment.end_position);
        let start = from.block_start();
        let len = buffer_len(end.block_end().0.max(start.0 + BLOCK_BYTES) - start.0);
        let path = || self.log.segment_path(self.place.segment.base_offset);
        let bytes = self.file.read_at(start.0, len).await;
        let mut bytes = bytes.map_err(|source| crate::error::PathError { path: path(), source })?;
        if bytes.len() < len {
            // What a file that was cut short lacks reads as zeros, which are no extent.
            let mut whole = AlignedBuf::zeroed(len);
            whole[..bytes.len()].copy_from_slice(&bytes);
            bytes = whole;
        }
        Ok(Piece { start, bytes, end })
    }

    fn damaged(&self, start: Offset, end: Offset, at: FilePosition, fault: ExtentFault) -> ReadError {
        let path = self.log.segment_path(self.place.segment.base_offset);
        let reason = format!("{} at {at}: {fault}", path.display());
        tracing::error!(log = %self.log.id, %start, %end, reason, "damage met while reading");
        ReadError::Damaged { start, end: end.max(start.saturating_add(1)), reason: reason.into() }
    }
}

const _: () = assert!(WALK_READ.is_multiple_of(BLOCK_BYTES));
