//! The one completion all records of a batch share, and the ticket of a record: a share of it and an index.
//!
//! Runtime-neutral: whoever polls a ticket leaves a waker; the core settles the batch once and wakes them all.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use corrente_protocol::frame::Durability;
use corrente_protocol::ids::Offset;

use crate::error::Error;

/// What the broker answered for a whole batch.
#[derive(Debug, Clone)]
pub(crate) struct BatchReceipt {
    pub(crate) base_offset: Offset,
    /// The broker's append time, where the topic stamps it.
    pub(crate) append_time_ms: Option<i64>,
    pub(crate) durability: Durability,
}

/// Settled exactly once.
pub(crate) struct BatchCompletion {
    partition: u32,
    state: Mutex<State>,
}

enum State {
    /// Wakers of the tickets that were polled; a ticket remembers its slot.
    Pending(Vec<Waker>),
    Settled(Result<BatchReceipt, Error>),
}

impl BatchCompletion {
    pub(crate) fn new(partition: u32) -> Arc<BatchCompletion> {
        Arc::new(BatchCompletion { partition, state: Mutex::new(State::Pending(Vec::new())) })
    }

    pub(crate) fn partition(&self) -> u32 {
        self.partition
    }

    /// Settles the batch and wakes every ticket.
    ///
    /// # Panics
    /// If the batch was settled before: an acknowledgement must reach the caller exactly once.
    pub(crate) fn settle(&self, result: Result<BatchReceipt, Error>) {
        let before = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *state, State::Settled(result))
        };
        match before {
            State::Pending(wakers) => wakers.into_iter().for_each(Waker::wake),
            State::Settled(_) => panic!("a batch of partition {} was settled twice", self.partition),
        }
    }

    /// The outcome, or leaves the waker behind. `slot` is the caller's place among the wakers.
    pub(crate) fn poll(
        &self,
        cx: &mut Context<'_>,
        slot: &mut Option<usize>,
    ) -> Poll<Result<BatchReceipt, Error>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            State::Settled(result) => Poll::Ready(result.clone()),
            State::Pending(wakers) => {
                match slot.and_then(|slot| wakers.get_mut(slot)) {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => {
                        *slot = Some(wakers.len());
                        wakers.push(cx.waker().clone());
                    }
                }
                Poll::Pending
            }
        }
    }
}

impl fmt::Debug for BatchCompletion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BatchCompletion(partition {})", self.partition)
    }
}

/// Where an acknowledged record stands, and how safe it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The partition the record went to.
    pub partition: u32,
    /// Its offset in that partition.
    pub offset: Offset,
    /// Its timestamp, in milliseconds since the Unix epoch: the record's own, or the broker's append time where
    /// the topic is configured so.
    pub timestamp_ms: i64,
    /// What the broker says was reached before it answered.
    pub durability: Durability,
}

/// The promise of a [`Receipt`] for one record. Await it for the outcome.
///
/// Awaiting is cancel-safe: a dropped and repeated await loses nothing. Dropping the ticket does not drop the record;
/// if the record fails then, the producer still counts it, and tells at the next `flush` or `close`.
#[must_use = "a ticket tells whether the record was acknowledged; drop it on purpose to rely on flush or close"]
#[derive(Debug)]
pub struct Ticket {
    completion: Arc<BatchCompletion>,
    index: u32,
    timestamp_ms: i64,
    slot: Option<usize>,
}

impl Ticket {
    pub(crate) fn new(completion: Arc<BatchCompletion>, index: u32, timestamp_ms: i64) -> Ticket {
        Ticket { completion, index, timestamp_ms, slot: None }
    }

    /// The partition the record goes to; known before it is acknowledged.
    pub fn partition(&self) -> u32 {
        self.completion.partition()
    }
}

impl Future for Ticket {
    type Output = Result<Receipt, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.completion.poll(cx, &mut this.slot).map_ok(|batch| Receipt {
            partition: this.completion.partition(),
            offset: Offset(batch.base_offset.0.saturating_add(u64::from(this.index))),
            timestamp_ms: batch.append_time_ms.unwrap_or(this.timestamp_ms),
            durability: batch.durability,
        })
    }
}

/// Some consecutive records of one batch, as [`BatchTicket`] holds them.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) completion: Arc<BatchCompletion>,
    pub(crate) first_index: u32,
    pub(crate) records: u32,
}

/// Consecutive offsets given to records of one [`BatchTicket`], in the order they were sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptRange {
    /// The partition the records went to.
    pub partition: u32,
    /// The offset of the first of them.
    pub base_offset: Offset,
    /// How many records: the offsets are `base_offset .. base_offset + records`.
    pub records: u32,
    /// What the broker says was reached before it answered.
    pub durability: Durability,
}

/// The promise for all records of one `send_batch` call: resolves when the last is settled.
///
/// Awaiting is cancel-safe. The outcome is the first failure, if there is any; the other records may have been
/// acknowledged then.
#[must_use = "a ticket tells whether the records were acknowledged; drop it on purpose to rely on flush or close"]
#[derive(Debug)]
pub struct BatchTicket {
    waiting: std::collections::VecDeque<Share>,
    slot: Option<usize>,
    done: Vec<ReceiptRange>,
    failure: Option<Error>,
}

impl BatchTicket {
    pub(crate) fn new(shares: Vec<Share>) -> BatchTicket {
        BatchTicket { waiting: shares.into(), slot: None, done: Vec::new(), failure: None }
    }
}

impl Future for BatchTicket {
    type Output = Result<Vec<ReceiptRange>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        while let Some(share) = this.waiting.front() {
            let outcome = match share.completion.poll(cx, &mut this.slot) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(outcome) => outcome,
            };
            match outcome {
                Ok(batch) => this.done.push(ReceiptRange {
                    partition: share.completion.partition(),
                    base_offset: Offset(batch.base_offset.0.saturating_add(u64::from(share.first_index))),
                    records: share.records,
                    durability: batch.durability,
                }),
                Err(error) => {
                    this.failure.get_or_insert(error);
                }
            }
            this.waiting.pop_front();
            this.slot = None;
        }
        Poll::Ready(match this.failure.take() {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut this.done)),
        })
    }
}
