//! What a consumer has fetched and its owner has not taken yet.
//!
//! Shared between the core, which puts verified batches in and keeps the total bounded by the credit it gives brokers,
//! and the consumer, which takes them out. Runtime-neutral: an empty inbox keeps the waker of who looked last.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use corrente_protocol::compression::Compression;
use corrente_protocol::ids::{Offset, PartitionIndex, TopicName};
use corrente_protocol::record::RecordView;
use corrente_protocol::record_batch::RecordBatch;

use crate::error::{Error, ErrorKind};

/// The records of one batch that were asked for. Owned, without lifetimes; keys and values are slices of what was
/// fetched, which stays in memory as long as one of them does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Batch {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: u32,
    /// The records, in order; at least one.
    pub records: Vec<RecordView>,
    /// How the broker keeps the batch.
    pub compression: Compression,
    /// One past the last record a consumer could read when this was fetched.
    pub high_watermark: Offset,
}

/// Record batches of one partition, in order, their checksums verified.
#[derive(Debug)]
pub struct Fetched {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionIndex,
    /// The batches; the first may begin before `from`.
    pub batches: VecDeque<RecordBatch>,
    /// Their size.
    pub bytes: usize,
    /// Records before this offset were not asked for.
    pub from: Offset,
    /// Records from this offset on are not wanted.
    pub stop_at: Option<Offset>,
    /// One past the last record a consumer could read when this was fetched.
    pub high_watermark: Offset,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Result<Fetched, Error>>,
    /// Bytes of all batches in `items`.
    bytes: usize,
    waker: Option<Waker>,
    /// The core wants to be told once no more bytes than this are held.
    tell_below: Option<usize>,
    ended: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Inbox {
    state: Mutex<State>,
    /// The room asked for was made, or the consumer was dropped, and the core has not looked since.
    news: AtomicBool,
    dropped: AtomicBool,
}

/// What was taken out, and whether the core has to be told, with `Event::Wake`.
#[derive(Debug)]
pub struct Taken {
    /// Batches, or why a partition is left alone from now on.
    pub item: Result<Fetched, Error>,
    /// The core has to be told.
    pub wake: bool,
}

impl Fetched {
    /// The records of the next batch that holds any that were asked for. A batch that decompresses to more than
    /// `len_max` bytes is an error.
    pub fn next_batch(&mut self, len_max: usize) -> Option<Result<Batch, Error>> {
        loop {
            let batch = self.batches.pop_front()?;
            if batch.header().attributes.is_control() {
                continue;
            }
            match self.wanted(&batch, len_max) {
                Ok(records) if records.is_empty() => {}
                Ok(records) => {
                    // An unknown codec would have yielded no records.
                    let compression = batch.header().attributes.compression().unwrap_or_default();
                    return Some(Ok(Batch {
                        topic: self.topic.clone(),
                        partition: self.partition.0,
                        records,
                        compression,
                        high_watermark: self.high_watermark,
                    }));
                }
                Err(cause) => {
                    let cause = format!("batch at offset {}: {cause}", batch.header().base_offset);
                    let error = Error::new(ErrorKind::Corrupt, "consume", cause);
                    return Some(Err(error.topic(&self.topic).partition(self.partition.0)));
                }
            }
        }
    }

    fn wanted(&self, batch: &RecordBatch, len_max: usize) -> Result<Vec<RecordView>, String> {
        let mut records = Vec::new();
        for record in batch.records(len_max).map_err(|error| error.to_string())? {
            let record = record.map_err(|error| error.to_string())?;
            if record.offset >= self.from && self.stop_at.is_none_or(|stop_at| record.offset < stop_at) {
                records.push(record);
            }
        }
        Ok(records)
    }
}

impl Inbox {
    pub(crate) fn new() -> Inbox {
        Inbox {
            state: Mutex::new(State::default()),
            news: AtomicBool::new(false),
            dropped: AtomicBool::new(false),
        }
    }

    /// The next item; `None` at the end; else keeps the waker.
    pub fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Taken>> {
        let mut state = self.lock();
        let Some(item) = state.items.pop_front() else {
            if state.ended {
                return Poll::Ready(None);
            }
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        if let Ok(fetched) = &item {
            state.bytes -= fetched.bytes;
        }
        let wake = state.tell_below.is_some_and(|below| state.bytes <= below);
        if wake {
            state.tell_below = None;
            self.news.store(true, Ordering::Release);
        }
        Poll::Ready(Some(Taken { item, wake }))
    }

    /// The consumer is gone; the core has to be told, with `Event::Wake`.
    pub fn abandon(&self) {
        self.dropped.store(true, Ordering::Release);
        self.news.store(true, Ordering::Release);
    }

    // The core's side.

    pub(crate) fn put(&self, item: Result<Fetched, Error>) {
        let mut state = self.lock();
        if let Ok(fetched) = &item {
            state.bytes += fetched.bytes;
        }
        state.items.push_back(item);
        wake(state);
    }

    /// Nothing will follow.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        wake(state);
    }

    /// Bytes of batches that were not taken yet.
    pub(crate) fn held(&self) -> usize {
        self.lock().bytes
    }

    /// The core has to be told once at most `below` bytes are held; `None` for never. True if that came to be since
    /// it saw that `held` were.
    pub(crate) fn tell_below(&self, below: Option<usize>, held: usize) -> bool {
        let mut state = self.lock();
        state.tell_below = below;
        state.bytes < held && below.is_some_and(|below| state.bytes <= below)
    }

    pub(crate) fn take_news(&self) -> bool {
        self.news.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}
