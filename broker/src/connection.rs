//! One connection on its shard, whatever protocol it speaks: what it may hold, how it is read, how it ends.
//!
//! Reading holds back, in this order: too many requests under way, a peer that does not take its
//! responses, no memory for the next body. So what a peer can make this shard hold is bounded, and a
//! peer that stands still in the middle of a frame is closed.

use std::cell::Cell;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use corrente_runtime::executor::spawn;
use corrente_runtime::socket::{ReadHalf, WriteHalf};
use corrente_runtime::sync::{Budget, Notify, Permit};
use corrente_runtime::timer::{Instant, now};
use futures_util::future::{Either, select};

use crate::outbox::Outbox;
use crate::subscriptions::Subscriptions;

/// Room for reading while nothing larger has come: an idle connection costs this much.
const READ_BYTES_MIN: usize = 4 * 1024;

/// Room for reading on a busy connection; small enough to stay in the cache.
const READ_BYTES_MAX: usize = 64 * 1024;

/// What a peer in the middle of a frame must send before the clock of its stall starts anew.
const PIECE_BYTES: usize = 256 * 1024;

/// A body is given its whole room once this much of it has come; until then a stranger's length
/// costs no more than this.
const BODY_BYTES_TRUSTED: usize = 256 * 1024;

/// What waits to be sent beyond this keeps subscriptions from sending more. Enough to read the next records while the
/// last ones leave, and little enough for a slow link to bring the answer to a request within its time.
const UNASKED_BYTES_MAX: usize = 512 * 1024;

/// What the answers of one connection may hold of the shard's memory at once. More would let a few peers
/// that ask and do not listen keep it from all others.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// One connection, as its requests see it.
pub struct Connection {
    /// The other end.
    pub peer: SocketAddr,
    /// Those that it has open. Half of the requests that may be under way are left to others, which adjust them.
    pub subscriptions: Subscriptions,
    outbox: Outbox,
    /// One unit for each request under way.
    under_way: Budget,
    /// Bytes of answers that are being made or wait to be sent.
    answers: Budget,
    /// Since when the peer owes the rest of a frame.
    reading_since: Cell<Option<Instant>>,
    end: Cell<Option<End>>,
    reading_ended: Cell<bool>,
    /// Whether an answer keeps others from being sent, where they leave in the order of their requests.
    others_wait: Cell<bool>,
    /// Rings when `end` is set.
    ending: Notify,
    /// Rings when `end`, `reading_ended` or `others_wait` is set.
    hurrying: Notify,
}

/// Why a connection ends before its peer ends it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// The shard stops: answer what is under way.
    Drain,
    /// The peer stood still.
    Stalled,
}

/// Why a connection can no longer be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The peer ended inside a frame.
    #[error("the connection ended {missing} bytes before the end of a frame")]
    Truncated {
        /// What it owes.
        missing: usize,
    },
    /// The socket failed.
    #[error("the connection broke: {0}")]
    Broken(#[from] std::io::Error),
}

impl Connection {
    /// A connection with nothing under way.
    pub fn new(peer: SocketAddr, writer: WriteHalf, requests_in_flight_max: usize) -> Rc<Connection> {
        Rc::new(Connection {
            peer,
            subscriptions: Subscriptions::new(requests_in_flight_max / 2),
            outbox: Outbox::new(writer),
            under_way: Budget::new(requests_in_flight_max),
            answers: Budget::new(ANSWER_BYTES_MAX),
            reading_since: Cell::new(None),
            end: Cell::new(None),
            reading_ended: Cell::new(false),
            others_wait: Cell::new(false),
            ending: Notify::new(),
            hurrying: Notify::new(),
        })
    }

    /// Waits until another request may be read, which then is under way for as long as the answer lives.
    pub async fn turn(&self) -> Permit {
        let turn = self.under_way.acquire(1).await;
        self.outbox.room().await;
        turn
    }

    /// What the reading comes to, or `None` if the connection is told to end first.
    pub async fn unless_ended<T>(&self, reading: impl Future<Output = T>) -> Option<T> {
        let ending = pin!(self.ending.wait());
        if self.end.get().is_some() {
            return None;
        }
        match select(pin!(reading), ending).await {
            Either::Left((read, _)) => Some(read),
            Either::Right(((), _)) => None,
        }
    }

    /// Says that nothing more is read: who waits for news to answer with waits no longer.
    pub fn reading_ended(&self) {
        self.reading_ended.set(true);
        self.hurrying.notify_all();
    }

    /// Waits until whatever was started is answered, and ends the connection.
    pub async fn finish(&self) {
        if self.end.get() == Some(End::Stalled) {
            return tracing::info!(peer = %self.peer, "connection closed: it stood still in the middle of a frame");
        }
        // All units of the budget mean that nothing is under way.
        let all_answered = self.under_way.acquire(self.under_way.total()).await;
        self.outbox.finish().await;
        drop(all_answered);
    }

    /// Reads until the buffer holds `len` bytes. `false` if the peer ended where a frame might begin.
    ///
    /// The clock of a peer that owes the rest starts anew with each piece, not with each byte: a trickle
    /// holds memory as well as silence does.
    pub async fn fill(&self, reading: &mut Reading, len: usize, whole: Whole) -> Result<bool, ReadError> {
        if reading.buffer.len() >= len {
            return Ok(true);
        }
        let mut piece = (now(), reading.buffer.len());
        while reading.buffer.len() < len {
            let owes_rest = whole == Whole::Always || !reading.buffer.is_empty();
            if !owes_rest || reading.buffer.len() - piece.1 >= PIECE_BYTES {
                piece = (now(), reading.buffer.len());
            }
            self.reading_since.set(owes_rest.then_some(piece.0));
            let read = reading.read(len).await;
            if !owes_rest {
                piece.0 = now();
            }
            self.reading_since.set(None);
            if read? == 0 {
                if !owes_rest {
                    return Ok(false);
                }
                return Err(ReadError::Truncated { missing: len - reading.buffer.len() });
            }
        }
        Ok(true)
    }

    /// Waits while the peer has too many answers to take.
    pub async fn room(&self) {
        self.outbox.room().await;
    }

    /// The same for who sends without being asked: what is asked for later must not wait long behind it.
    pub async fn room_for_more(&self) {
        self.outbox.room_below(UNASKED_BYTES_MAX).await;
    }

    /// Waits for this connection's part of the memory for an answer of up to `bytes`.
    pub async fn answer_memory(&self, bytes: usize) -> Permit {
        self.answers.acquire(bytes).await
    }

    /// Sends a response frame; `permits` are the memory that its payload pins.
    pub async fn respond(&self, frame: Vec<Bytes>, permits: impl IntoIterator<Item = Permit>) {
        let company = self.under_way.total() - self.under_way.available() > 1;
        self.outbox.send(frame, permits, company).await;
    }

    /// The same for who cannot wait: frames handed in before others had their turn leave in the same call.
    pub fn respond_soon(self: &Rc<Self>, frame: Vec<Bytes>, permits: impl IntoIterator<Item = Permit>) {
        if self.outbox.queue(frame, permits) {
            let connection = self.clone();
            spawn(async move { connection.outbox.write_queued().await }).detach();
        }
    }

    /// Since when the peer has owed or been owed bytes with none moving.
    pub fn stalled_since(&self) -> Option<Instant> {
        [self.reading_since.get(), self.outbox.writing_since()].into_iter().flatten().min()
    }

    /// Ends the connection at once.
    pub fn close_stalled(&self) {
        self.outbox.abandon();
        self.end_by(End::Stalled);
    }

    /// Reads no further request; answers those under way and ends.
    pub fn start_draining(&self) {
        self.end_by(End::Drain);
    }

    /// Says whether other answers are kept from being sent by the one that is being made.
    pub fn set_others_wait(&self, others_wait: bool) {
        if !self.others_wait.replace(others_wait) && others_wait {
            self.hurrying.notify_all();
        }
    }

    /// Whether an answer may wait for news: not once no further request is read, nor while others wait for it to go.
    pub fn may_wait(&self) -> bool {
        !self.reading_ended.get() && self.end.get().is_none() && !self.others_wait.get()
    }

    /// Waits until an answer may no longer wait. Counts from this call. Cancel-safe.
    pub fn hurry(&self) -> impl Future<Output = ()> + '_ {
        self.hurrying.wait()
    }

    fn end_by(&self, end: End) {
        self.end.set(Some(end));
        self.ending.notify_all();
        self.hurrying.notify_all();
    }
}

/// What [`Connection::fill`] does when the peer ends before it sent anything.
#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Whole {
    /// Fine between frames.
    OrNothing,
    /// A truncated frame.
    Always,
}

/// The receiving side, with the bytes read beyond the current frame.
pub struct Reading {
    reader: ReadHalf,
    /// What was read and not taken.
    pub buffer: BytesMut,
    /// How much to ask for at once; grows while the peer fills what it is given.
    appetite: usize,
}

impl Reading {
    /// Behind what was read already.
    pub fn new(reader: ReadHalf, buffer: BytesMut) -> Reading {
        Reading { reader, buffer, appetite: READ_BYTES_MIN }
    }

    /// Reads once towards a buffer of `len` bytes.
    async fn read(&mut self, len: usize) -> std::io::Result<usize> {
        let have = self.buffer.len();
        let trusted = if have < BODY_BYTES_TRUSTED { len.min(BODY_BYTES_TRUSTED) } else { len };
        let wanted = trusted.saturating_sub(have).max(1);
        if self.buffer.capacity() - have < wanted {
            self.buffer.reserve(wanted.max(self.appetite));
        }
        let read = self.reader.read(&mut self.buffer).await?;
        if self.buffer.len() == self.buffer.capacity() {
            self.appetite = (self.appetite * 2).min(READ_BYTES_MAX);
        }
        Ok(read)
    }
}
