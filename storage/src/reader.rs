//! Reads: from the tail ring where it can, else from disk, verified, with read-ahead.
//!
//! Never shows an extent whose hashes do not agree.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use corrente_protocol::ids::Offset;
use corrente_runtime::executor::{Queue, spawn_in};

use crate::error::ReadError;
use crate::log::{LogInner, State};
use crate::position::buffer_len;
use crate::read_ahead::Chunk;
use crate::read_slice::{ReadSlice, Took};
use crate::segment::Segment;
use crate::segment_reader::{CHUNK_READ, Place, READ_LEN_MAX, SegmentReader, open};
use crate::tail_ring::Stretch;

/// How many chunks are fetched before they are asked for.
const CHUNKS_AHEAD: usize = 3;

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
    if from > end
        && let Some(reason) = &state.quarantined
    {
        // Where a damaged log ended is not known for sure: who asks may have read further once.
        return Err(ReadError::Damaged { start: end, end: from.saturating_add(1), reason: reason.clone() });
    }
    if from < start || from > end {
        return Err(ReadError::OutOfRange { asked: from, start, end });
    }
    let fenced = state.fenced.is_some();
    Ok(if fenced { state.tail.flushed } else { state.frozen_end })
}

/// Checks that the first segment reaches down to the log start; in a log in quarantine it may be one that cannot be
/// read.
pub(crate) fn check_beginning(state: &State) -> Result<(), ReadError> {
    let (start, first) = (state.log_start_offset, state.segments.keys().next().copied());
    match first.filter(|first| *first > start) {
        None => Ok(()),
        Some(end) => {
            let reason = Arc::from("the segment that held them is missing, or its header does not verify");
            Err(ReadError::Damaged { start, end, reason })
        }
    }
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
    let Some(place) = Place::of(log, offset)? else { return Ok(None) };
    let need = buffer_len(CHUNK_READ);
    let _room = match ahead.in_flight.try_acquire(need) {
        Some(room) => room,
        None if wanted => ahead.in_flight.acquire(need).await,
        None => return Ok(None),
    };
    let segment = place.segment;
    let read = async {
        let file = open(log, &segment).await?;
        SegmentReader { log, place, file, read_len_max: READ_LEN_MAX }.read_chunk(offset).await
    };
    match read.await {
        Ok(chunk) if is_current(log, &segment) => {
            let chunk = Rc::new(chunk);
            ahead.insert_chunk(log.id, chunk.clone());
            Ok(Some(chunk))
        }
        Err(error) if is_current(log, &segment) => {
            if let ReadError::Damaged { start, end, reason } = &error {
                tracing::error!(log = %log.id, %start, %end, %reason, "damage met while reading");
            }
            Err(error)
        }
        // It was removed or rewritten meanwhile; its file may hold something else by now.
        Ok(_) | Err(_) => Ok(None),
    }
}

/// Whether the log still has this very segment.
pub(crate) fn is_current(log: &LogInner, segment: &Segment) -> bool {
    let state = log.state.borrow();
    state.segments.get(&segment.base_offset).is_some_and(|now| now.nonce == segment.nonce)
}
