//! The native protocol on one connection: answers the hello, cuts frames, starts requests in their order, sends each
//! response as it completes.

use std::rc::Rc;

use bytes::{Buf, Bytes};
use corrente_protocol::api::{ApiKey, ErrorResponse, Message};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::frame::{
    Durability, FLAG_ERROR, FRAME_HEADER_LEN, FrameError, RequestHeader, ResponseHeader, response_frame,
};
use corrente_protocol::hello::{self, ServerHello};
use corrente_runtime::socket::Stream;
use corrente_runtime::sync::Permit;
use corrente_runtime::timer::{Instant, now};

use crate::connection::{Connection, ReadError, Reading, Whole};
use crate::handlers;
use crate::listener::{Arrival, HelloRefusal};
use crate::shard::Shard;

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
    #[error(transparent)]
    Read(#[from] ReadError),
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
    let connection = Connection::new(peer, writer, shard.config.connection.requests_in_flight_max);
    let _registered = shard.connections.register(connection.clone());
    let ended = read_requests(&shard, &connection, &mut Reading::new(reader, read_ahead)).await;
    connection.reading_ended();
    match ended {
        Ok(()) => {}
        Err(ReadEnd::Frame(error)) => {
            tracing::info!(%peer, %error, "connection closed: the frame makes no sense");
            report_broken_frame(&connection, &error).await;
        }
        Err(ReadEnd::Read(error)) => tracing::debug!(%peer, %error, "connection closed"),
    }
    connection.finish().await;
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

/// Only the reading is given up when the connection is told to end; a request that was read is started
/// to the end of its appends.
async fn read_requests(
    shard: &Rc<Shard>,
    connection: &Rc<Connection>,
    reading: &mut Reading,
) -> Result<(), ReadEnd> {
    while let Some(next) = connection.unless_ended(next_request(shard, connection, reading)).await {
        let Some((request, turn)) = next? else { return Ok(()) };
        handlers::start(shard, connection, request, turn).await;
    }
    Ok(())
}

async fn next_request(
    shard: &Shard,
    connection: &Connection,
    reading: &mut Reading,
) -> Result<Option<(Request, Permit)>, ReadEnd> {
    let turn = connection.turn().await;
    let request = read_request(shard, connection, reading).await?;
    Ok(request.map(|request| (request, turn)))
}

async fn read_request(
    shard: &Shard,
    connection: &Connection,
    reading: &mut Reading,
) -> Result<Option<Request>, ReadEnd> {
    if !connection.fill(reading, FRAME_HEADER_LEN, Whole::OrNothing).await? {
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
    connection.fill(reading, body_len, Whole::Always).await?;
    let body = reading.buffer.split_to(body_len).freeze();
    Ok(Some(Request { header, body, permit, received }))
}

/// Says why the connection ends. Nothing tells which request the bytes were meant to be, so the
/// answer carries correlation id 0.
async fn report_broken_frame(connection: &Connection, error: &FrameError) {
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
    connection.respond(response_frame(header, |writer| body.encode(0, writer)), None).await;
}
