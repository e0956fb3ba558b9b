//! One connection on its shard: cuts frames, starts requests in their order, sends each response as
//! it completes.
//!
//! Reading holds back, in this order: too many requests under way, a peer that does not take its
//! responses, no memory for the next body. So what a peer can make this shard hold is bounded, and a
//! peer that stands still in the middle of a frame is closed.

use std::cell::Cell;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};
use corrente_protocol::api::{ApiKey, ErrorResponse, Message};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::frame::{
    Durability, FLAG_ERROR, FRAME_HEADER_LEN, FrameError, RequestHeader, ResponseHeader, response_frame,
};
use corrente_protocol::hello::{self, ServerHello};
use corrente_runtime::socket::{ReadHalf, Stream};
use corrente_runtime::sync::{Budget, Notify, Permit};
use corrente_runtime::timer::{Instant, now};
use futures_util::future::{Either, select};

use crate::handlers;
use crate::listener::{Arrival, HelloRefusal};
use crate::outbox::Outbox;
use crate::shard::Shard;

/// Room for reading while nothing larger has come: an idle connection costs this much.
const READ_BYTES_MIN: usize = 4 * 1024;

/// Room for reading on a busy connection; small enough to stay in the cache.
const READ_BYTES_MAX: usize = 64 * 1024;

/// What a peer in the middle of a frame must send before the clock of its stall starts anew.
const PIECE_BYTES: usize = 256 * 1024;

/// A body is given its whole room once this much of it has come; until then a stranger's length
/// costs no more than this.
const BODY_BYTES_TRUSTED: usize = 256 * 1024;

/// What the answers of one connection may hold of the shard's memory at once. More would let a few peers
/// that ask and do not listen keep it from all others.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// One connection, as its requests see it.
pub struct Connection {
    /// The other end.
    pub peer: SocketAddr,
    outbox: Outbox,
    /// One unit for each request under way.
    under_way: Budget,
    /// Bytes of answers that are being made or wait to be sent.
    answers: Budget,
    /// Since when the peer owes the rest of a frame.
    reading_since: Cell<Option<Instant>>,
    end: Cell<Option<End>>,
    reading_ended: Cell<bool>,
    /// Rings when `end` or `reading_ended` is set.
    ending: Notify,
}

/// Why a connection ends before its peer ends it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// The shard stops: answer what is under way.
    Drain,
    /// The peer stood still.
    Stalled,
}

/// A request that was read, with the memory it holds.
pub struct Request {
    /// What was asked.
    pub header: RequestHeader,
    /// The body; payloads are slices of it.
    pub body: Bytes,
    /// The body's share of the shard's memory.
    pub permit: Permit,
    /// When the header was read.
    pub received: Instant,
}

/// Why a connection can no longer be read.
#[derive(Debug, thiserror::Error)]
enum ReadEnd {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the connection ended {missing} bytes before the end of a frame")]
    Truncated { missing: usize },
    #[error("the connection broke: {0}")]
    Broken(#[from] std::io::Error),
}

/// Serves a connection that has said hello, until either side ends it.
pub async fn serve(shard: Rc<Shard>, arrival: Arrival<Stream>) {
    let Arrival { mut stream, peer, hello, read_ahead } = arrival;
    let answer = greet(&shard, &hello);
    let refused = answer.error != ErrorCode::None;
    if let Err(error) = stream.write_all(&[Bytes::copy_from_slice(&answer.encode())]).await {
        return tracing::debug!(%peer, %error, "the peer left before the hello was answered");
    }
    if refused {
        return tracing::info!(%peer, reason = answer.text, "connection refused");
    }
    let (reader, writer) = stream.into_split();
    let connection = Rc::new(Connection {
        peer,
        outbox: Outbox::new(writer),
        under_way: Budget::new(shard.config.connection.requests_in_flight_max),
        answers: Budget::new(ANSWER_BYTES_MAX),
        reading_since: Cell::new(None),
        end: Cell::new(None),
        reading_ended: Cell::new(false),
        ending: Notify::new(),
    });
    let _registered = shard.connections.register(connection.clone());
    connection.run(&shard, Reading::new(reader, read_ahead)).await;
}

/// Answers a peer whose hello cannot be served, as far as it will listen, and closes.
pub async fn refuse(mut stream: Stream, refusal: &HelloRefusal) {
    if let HelloRefusal::Invalid(_) = refusal {
        let answer = ServerHello::refusal(ErrorCode::InvalidRequest, &refusal.to_string());
        // Whoever sent this may not even speak our protocol; there is nothing more to tell.
        let _ = stream.write_all(&[Bytes::copy_from_slice(&answer.encode())]).await;
    }
}

fn greet(shard: &Shard, hello: &hello::ClientHello) -> ServerHello {
    let Some(version) = hello::choose_version(hello) else {
        let text = format!(
            "this broker speaks protocol versions {} to {}, the client {} to {}",
            hello::PROTOCOL_VERSION_MIN,
            hello::PROTOCOL_VERSION_MAX,
            hello.version_min,
            hello.version_max
        );
        return ServerHello::refusal(ErrorCode::UnsupportedVersion, &text);
    };
    let limit = shard.config.connection.per_shard_max;
    if shard.connections.count() >= limit {
        return ServerHello::refusal(
            ErrorCode::Busy,
            &format!("shard {} serves {limit} connections", shard.id),
        );
    }
    if shard.is_stopping() {
        return ServerHello::refusal(ErrorCode::ShuttingDown, "the broker is shutting down");
    }
    ServerHello {
        version,
        error: ErrorCode::None,
        shards: shard.shard_count(),
        shard: shard.id,
        node: shard.node,
        frame_len_max: shard.frame_len_max(),
        flags: 0,
        text: String::new(),
    }
}

impl Connection {
    async fn run(self: &Rc<Connection>, shard: &Rc<Shard>, mut reading: Reading) {
        let ended = self.read_requests(shard, &mut reading).await;
        self.reading_ended.set(true);
        self.ending.notify_all();
        match ended {
            Ok(()) => {}
            Err(ReadEnd::Frame(error)) => {
                tracing::info!(peer = %self.peer, %error, "connection closed: the frame makes no sense");
                self.report_broken_frame(&error).await;
            }
            Err(error) => tracing::debug!(peer = %self.peer, %error, "connection closed"),
        }
        if self.end.get() == Some(End::Stalled) {
            return tracing::info!(peer = %self.peer, "connection closed: it stood still in the middle of a frame");
        }
        // Whatever was started is answered: all units of the budget mean that nothing is under way.
        let all_answered = self.under_way.acquire(self.under_way.total()).await;
        self.outbox.finish().await;
        drop(all_answered);
    }

    /// Only the reading is given up when the connection is told to end; a request that was read is started
    /// to the end of its appends.
    async fn read_requests(
        self: &Rc<Connection>,
        shard: &Rc<Shard>,
        reading: &mut Reading,
    ) -> Result<(), ReadEnd> {
        loop {
            let ending = pin!(self.ending.wait());
            if self.end.get().is_some() {
                return Ok(());
            }
            let next = match select(pin!(self.next_request(shard, reading)), ending).await {
                Either::Left((next, _)) => next?,
                Either::Right(((), _)) => None,
            };
            let Some((request, turn)) = next else { return Ok(()) };
            handlers::start(shard, self, request, turn).await;
        }
    }

    async fn next_request(
        &self,
        shard: &Shard,
        reading: &mut Reading,
    ) -> Result<Option<(Request, Permit)>, ReadEnd> {
        let turn = self.under_way.acquire(1).await;
        self.outbox.room().await;
        let request = self.read_request(shard, reading).await?;
        Ok(request.map(|request| (request, turn)))
    }

    async fn read_request(&self, shard: &Shard, reading: &mut Reading) -> Result<Option<Request>, ReadEnd> {
        if !self.fill(reading, FRAME_HEADER_LEN, Whole::OrNothing).await? {
            return Ok(None);
        }
        let received = now();
        let header = reading.buffer.first_chunk().expect("filled to a header's length");
        let header = RequestHeader::decode(header)?;
        let frame_len_max = shard.frame_len_max();
        if header.body_len > frame_len_max {
            return Err(FrameError::BodyTooLarge { len: header.body_len, max: frame_len_max }.into());
        }
        reading.buffer.advance(FRAME_HEADER_LEN);
        let body_len = header.body_len as usize;
        let permit = shard.memory.requests.acquire(body_len).await;
        self.fill(reading, body_len, Whole::Always).await?;
        let body = reading.buffer.split_to(body_len).freeze();
        Ok(Some(Request { header, body, permit, received }))
    }

    /// Reads until the buffer holds `len` bytes. `false` if the peer ended where a frame might begin.
    ///
    /// The clock of a peer that owes the rest starts anew with each piece, not with each byte: a trickle
    /// holds memory as well as silence does.
    async fn fill(&self, reading: &mut Reading, len: usize, whole: Whole) -> Result<bool, ReadEnd> {
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
                return Err(ReadEnd::Truncated { missing: len - reading.buffer.len() });
            }
        }
        Ok(true)
    }

    /// Waits while the peer has too many answers to take.
    pub async fn room(&self) {
        self.outbox.room().await;
    }

    /// Waits for this connection's part of the memory for an answer of up to `bytes`.
    pub async fn answer_memory(&self, bytes: usize) -> Permit {
        self.answers.acquire(bytes).await
    }

    /// Sends a response frame; `permits` are the memory that its payload pins.
    pub async fn respond(&self, frame: Vec<Bytes>, permits: impl IntoIterator<Item = Permit>) {
        self.outbox.send(frame, permits).await;
    }

    /// Says why the connection ends. Nothing tells which request the bytes were meant to be, so the
    /// answer carries correlation id 0.
    async fn report_broken_frame(&self, error: &FrameError) {
        let header = ResponseHeader {
            api: ApiKey::Unknown(0),
            version: 0,
            flags: FLAG_ERROR,
            correlation_id: 0,
            throttle_ms: 0,
            receipt: Durability::Received,
            body_len: 0,
        };
        let body = ErrorResponse { error: ErrorCode::InvalidRequest, message: Some(error.to_string()) };
        self.respond(response_frame(header, |writer| body.encode(0, writer)), None).await;
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

    /// Whether no further request is read.
    pub fn is_ended(&self) -> bool {
        self.reading_ended.get() || self.end.get().is_some()
    }

    /// Waits until no further request is read. Counts from this call. Cancel-safe.
    pub fn ended(&self) -> impl Future<Output = ()> + '_ {
        self.ending.wait()
    }

    fn end_by(&self, end: End) {
        self.end.set(Some(end));
        self.ending.notify_all();
    }
}

/// What [`Connection::fill`] does when the peer ends before it sent anything.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Whole {
    /// Fine between frames.
    OrNothing,
    /// A truncated frame.
    Always,
}

/// The receiving side, with the bytes read beyond the current frame.
struct Reading {
    reader: ReadHalf,
    buffer: BytesMut,
    /// How much to ask for at once; grows while the peer fills what it is given.
    appetite: usize,
}

impl Reading {
    fn new(reader: ReadHalf, buffer: BytesMut) -> Reading {
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
