//! What leaves through one connection, in the order it was handed in.
//!
//! There is no lasting writer task: whoever hands in a frame while nobody writes becomes the writer and
//! stays until the queue is empty, or sees that one is started. A response to a lone request so leaves from
//! the very task that made it, and under load many frames leave in one system call.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::pin::pin;

use bytes::Bytes;
use corrente_runtime::executor::yield_now;
use corrente_runtime::socket::WriteHalf;
use corrente_runtime::sync::{Notify, Permit};
use corrente_runtime::timer::{Instant, now};
use futures_util::future::{Either, select};

/// Frames waiting beyond this hold back the reading of further requests.
const BACKLOG_BYTES_MAX: usize = 4 << 20;

/// What is written between two looks at the clock: a peer that takes this much in time does not stand
/// still, however much waits for it.
const PIECE_BYTES: usize = 256 * 1024;

/// The sending side of one connection.
pub struct Outbox {
    /// Absent while somebody writes, and for good once writing failed.
    writer: Cell<Option<WriteHalf>>,
    waiting: RefCell<Waiting>,
    backlog_bytes: Cell<usize>,
    writing_since: Cell<Option<Instant>>,
    /// Whether a writer is about to be there.
    is_starting: Cell<bool>,
    failed: Cell<bool>,
    moved: Notify,
    abandoned: Notify,
}

#[derive(Default)]
struct Waiting {
    chunks: Vec<Bytes>,
    /// Memory that the chunks pin, given back once they are written.
    permits: Vec<Permit>,
}

impl Outbox {
    /// Takes the writing half.
    pub fn new(writer: WriteHalf) -> Outbox {
        Outbox {
            writer: Cell::new(Some(writer)),
            waiting: RefCell::default(),
            backlog_bytes: Cell::new(0),
            writing_since: Cell::new(None),
            is_starting: Cell::new(false),
            failed: Cell::new(false),
            moved: Notify::new(),
            abandoned: Notify::new(),
        }
    }

    /// Queues one frame and, if nobody is writing, writes until nothing is queued. In `company`, other frames may be
    /// made by tasks that are ready now, as those of one flush are: they leave in the same call.
    ///
    /// After a failed write frames are dropped: the connection is gone and its owner learns it from
    /// the reading side. Not cancel-safe: dropped while it writes, it takes the writer along and nothing
    /// leaves any more, so only tasks that run to their end call it.
    pub async fn send(&self, frame: Vec<Bytes>, permits: impl IntoIterator<Item = Permit>, company: bool) {
        if !self.queue(frame, permits) {
            return;
        }
        if company {
            yield_now().await;
        }
        self.write_queued().await;
    }

    /// Queues one frame. True if nobody is writing: the caller then sees to it that [`Outbox::write_queued`] is run.
    #[must_use]
    pub fn queue(&self, frame: Vec<Bytes>, permits: impl IntoIterator<Item = Permit>) -> bool {
        if self.failed.get() {
            return false;
        }
        let bytes: usize = frame.iter().map(Bytes::len).sum();
        self.backlog_bytes.set(self.backlog_bytes.get() + bytes);
        let mut waiting = self.waiting.borrow_mut();
        waiting.chunks.extend(frame);
        waiting.permits.extend(permits);
        !self.is_writing() && !self.is_starting.replace(true)
    }

    fn is_writing(&self) -> bool {
        let writer = self.writer.take();
        let is_writing = writer.is_none();
        self.writer.set(writer);
        is_writing
    }

    /// Writes until nothing is queued. Not cancel-safe, as [`Outbox::send`].
    pub async fn write_queued(&self) {
        self.is_starting.set(false);
        // Given up meanwhile, there is none.
        if let Some(writer) = self.writer.take() {
            self.write_all(writer).await;
        }
    }

    async fn write_all(&self, mut writer: WriteHalf) {
        loop {
            let Waiting { chunks, permits } = mem::take(&mut *self.waiting.borrow_mut());
            if chunks.is_empty() {
                break;
            }
            let bytes: usize = chunks.iter().map(Bytes::len).sum();
            let written = self.unless_abandoned(self.write_pieces(&mut writer, chunks)).await;
            self.writing_since.set(None);
            drop(permits);
            self.backlog_bytes.set(self.backlog_bytes.get().saturating_sub(bytes));
            if !matches!(written, Some(Ok(()))) {
                self.fail();
                return;
            }
            self.moved.notify_all();
        }
        self.writer.set(Some(writer));
        self.moved.notify_all();
    }

    async fn write_pieces(&self, writer: &mut WriteHalf, chunks: Vec<Bytes>) -> io::Result<()> {
        let mut rest = VecDeque::from(chunks);
        while !rest.is_empty() {
            let piece = take_piece(&mut rest);
            self.writing_since.set(Some(now()));
            writer.write_all(&piece).await?;
        }
        Ok(())
    }

    /// The outcome of a write, or `None` if the connection was given up meanwhile.
    async fn unless_abandoned<T>(&self, write: impl Future<Output = T>) -> Option<T> {
        let given_up = pin!(self.abandoned.wait());
        match select(pin!(write), given_up).await {
            Either::Left((written, _)) => Some(written),
            Either::Right(((), _)) => None,
        }
    }

    /// Gives the peer up: the write under way ends, what waits is dropped, the socket closes.
    pub fn abandon(&self) {
        self.writer.take();
        self.fail();
        self.abandoned.notify_all();
    }

    fn fail(&self) {
        self.failed.set(true);
        self.waiting.take();
        self.backlog_bytes.set(0);
        self.moved.notify_all();
    }

    /// Waits until a peer that reads slowly has taken enough for further requests to be served.
    pub async fn room(&self) {
        self.room_below(BACKLOG_BYTES_MAX).await;
    }

    /// Waits until no more than so many bytes wait to be sent.
    pub async fn room_below(&self, bytes: usize) {
        while self.backlog_bytes.get() > bytes && !self.failed.get() {
            self.moved.wait().await;
        }
    }

    /// Waits until every frame handed in has left, then says that no more will come.
    pub async fn finish(&self) {
        loop {
            if self.failed.get() {
                return;
            }
            if !self.is_starting.get()
                && let Some(mut writer) = self.writer.take()
            {
                // A peer that is gone already has nothing left to learn from this.
                let _ = writer.shutdown().await;
                return;
            }
            self.moved.wait().await;
        }
    }

    /// Since when the current write has been waiting for the peer.
    pub fn writing_since(&self) -> Option<Instant> {
        self.writing_since.get()
    }
}

/// Takes up to [`PIECE_BYTES`] from the front, and at least one byte if there is any.
fn take_piece(rest: &mut VecDeque<Bytes>) -> Vec<Bytes> {
    let mut piece = Vec::with_capacity(rest.len().min(16));
    let mut room = PIECE_BYTES;
    while let Some(first) = rest.front_mut() {
        if first.len() > room {
            if room > 0 {
                piece.push(first.split_to(room));
            }
            break;
        }
        room -= first.len();
        piece.extend(rest.pop_front());
    }
    piece
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_bounded_and_together_the_whole() {
        let lengths = [3, 0, PIECE_BYTES, 2 * PIECE_BYTES + 5, 7, PIECE_BYTES - 1, 1, 1];
        let chunks: Vec<Bytes> =
            lengths.iter().zip(0_u8..).map(|(length, fill)| vec![fill; *length].into()).collect();
        let whole = chunks.concat();
        let mut rest = VecDeque::from(chunks);
        let mut taken = Vec::new();
        while !rest.is_empty() {
            let piece = take_piece(&mut rest).concat();
            assert!((1..=PIECE_BYTES).contains(&piece.len()), "a piece of {} bytes", piece.len());
            taken.extend(piece);
        }
        assert_eq!(taken, whole);
    }
}
