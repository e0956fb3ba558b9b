//! Connections that speak Kafka's protocol: accepted on one port, dealt out to the shards, served in their order.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::{Buf, BytesMut};
use corrente_protocol::ids::ShardId;
use corrente_protocol::kafka::api_versions::ApiVersionsResponse;
use corrente_protocol::kafka::{
    ApiKey, DecodeError, FRAME_LEN_BYTES, HeaderError, KafkaError, RequestHeader, response_frame,
};
use corrente_runtime::executor::spawn;
use corrente_runtime::socket::{Listener, Stream};
use corrente_runtime::sync::{Notify, Permit};
use corrente_runtime::timer::sleep;

use super::{Answer, Client, Request, Response, start};
use crate::connection::{Connection, ReadError, Reading, Whole};
use crate::listener::ACCEPT_PAUSE;
use crate::shard::{Message, Shard};

/// Accepts connections until it is dropped, and gives them to the shards in turn: Kafka's clients cannot ask for one.
pub async fn accept(shard: Rc<Shard>, listener: Listener) {
    let mut next_shard = 0_u16;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let home = ShardId(next_shard);
                next_shard = (next_shard + 1) % shard.shard_count();
                // A sibling that is slow to take its one keeps nobody else waiting.
                spawn(bring_home(shard.clone(), home, stream, peer)).detach();
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn bring_home(shard: Rc<Shard>, home: ShardId, stream: Stream, peer: SocketAddr) {
    if home == shard.id {
        return serve(shard, stream, peer).await;
    }
    let detached = stream.detach();
    let welcome = move |home: Rc<Shard>| match detached.attach() {
        Ok(stream) => spawn(serve(home, stream, peer)).detach(),
        Err(error) => tracing::debug!(%peer, %error, "a connection was lost on its way to its shard"),
    };
    if let Err(stopped) = shard.send(home, Message::Run(Box::new(welcome))).await {
        tracing::debug!(%peer, %stopped, "connection dropped");
    }
}

/// Why a connection can no longer be read.
#[derive(Debug, thiserror::Error)]
enum ReadEnd {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("a frame of {len} bytes, where 1 to {max} are taken: is this Kafka's protocol, without TLS?")]
    FrameLen { len: i32, max: u32 },
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("a {api:?} request of version {version}: {error}")]
    Body { api: ApiKey, version: i16, error: DecodeError },
}

async fn serve(shard: Rc<Shard>, stream: Stream, peer: SocketAddr) {
    let limit = shard.config.connection.per_shard_max;
    if shard.connections.count() >= limit || shard.is_stopping() {
        // The protocol has no word for this before the first request.
        return tracing::info!(%peer, limit, "connection refused: too many, or the broker is stopping");
    }
    let (reader, writer) = stream.into_split();
    let connection = Connection::new(peer, writer, shard.config.connection.requests_in_flight_max);
    let _registered = shard.connections.register(connection.clone());
    let client = Client { connection: connection.clone(), fetch_session: Rc::default() };
    let answers = Rc::new(Answers::default());
    let answering = spawn(answers.clone().send_in_order(connection.clone()));
    let mut reading = Reading::new(reader, BytesMut::new());
    let ended = read_requests(&shard, &client, &mut reading, &answers).await;
    connection.reading_ended();
    answers.close();
    match ended {
        Ok(()) => {}
        Err(ReadEnd::Read(error)) => tracing::debug!(%peer, %error, "connection closed"),
        Err(error) => tracing::info!(%peer, %error, "connection closed: the request cannot be served"),
    }
    answering.await;
    connection.finish().await;
}

async fn read_requests(
    shard: &Rc<Shard>,
    client: &Client,
    reading: &mut Reading,
    answers: &Answers,
) -> Result<(), ReadEnd> {
    let connection = &client.connection;
    loop {
        let next = async {
            let turn = connection.turn().await;
            let request = read_request(shard, connection, reading).await?;
            Ok::<_, ReadEnd>(request.map(|request| (request, turn)))
        };
        let Some(next) = connection.unless_ended(next).await else { return Ok(()) };
        let Some((request, turn)) = next? else { return Ok(()) };
        let answer = match request {
            Incoming::Request(request) => {
                let (api, version) = (request.header.api, request.header.version);
                let started = start(shard, client, request).await;
                started.map_err(|error| ReadEnd::Body { api, version, error })?
            }
            Incoming::NewerClient { correlation_id } => {
                Box::pin(async move { versions_told(correlation_id) })
            }
        };
        answers.push(answer, turn, connection);
    }
}

enum Incoming {
    Request(Request),
    /// It asks what is served, in a version that is not.
    NewerClient {
        correlation_id: i32,
    },
}

/// A client that is newer than this broker is told so in the oldest version, which it reads too (KIP-511).
fn versions_told(correlation_id: i32) -> Response {
    let response = ApiVersionsResponse::of_this_broker(KafkaError::UnsupportedVersion.code());
    Response { frame: response_frame(correlation_id, 0, response), memory: Vec::new() }
}

async fn read_request(
    shard: &Shard,
    connection: &Connection,
    reading: &mut Reading,
) -> Result<Option<Incoming>, ReadEnd> {
    if !connection.fill(reading, FRAME_LEN_BYTES, Whole::OrNothing).await? {
        return Ok(None);
    }
    let len = reading.buffer.get_i32();
    let max = shard.frame_len_max();
    let frame_len = usize::try_from(len).ok().filter(|len| (1..=max as usize).contains(len));
    let frame_len = frame_len.ok_or(ReadEnd::FrameLen { len, max })?;
    let memory = shard.memory.requests.acquire(frame_len).await;
    connection.fill(reading, frame_len, Whole::Always).await?;
    let frame = reading.buffer.split_to(frame_len).freeze();
    match RequestHeader::decode(frame) {
        Ok((header, body)) => Ok(Some(Incoming::Request(Request { header, body, memory }))),
        Err(HeaderError::UnsupportedVersion { api: ApiKey::ApiVersions, correlation_id, .. }) => {
            Ok(Some(Incoming::NewerClient { correlation_id }))
        }
        Err(error) => Err(error.into()),
    }
}

/// Responses that are due, in the order of their requests.
#[derive(Default)]
struct Answers {
    waiting: RefCell<VecDeque<(Answer, Permit)>>,
    /// Whether there is one that is being made, or waits for room to be sent.
    is_making: Cell<bool>,
    closed: Cell<bool>,
    changed: Notify,
}

impl Answers {
    /// `turn` is the request's place among those under way.
    fn push(&self, answer: Answer, turn: Permit, connection: &Connection) {
        self.waiting.borrow_mut().push_back((answer, turn));
        // A long poll in front of it is not waited for: it would keep this one, and the memory of its request.
        connection.set_others_wait(self.is_making.get());
        self.changed.notify_all();
    }

    /// Nothing more comes.
    fn close(&self) {
        self.closed.set(true);
        self.changed.notify_all();
    }

    async fn send_in_order(self: Rc<Answers>, connection: Rc<Connection>) {
        loop {
            let next = self.waiting.borrow_mut().pop_front();
            self.is_making.set(next.is_some());
            connection.set_others_wait(next.is_some() && !self.waiting.borrow().is_empty());
            match next {
                Some((answer, turn)) => {
                    connection.room().await;
                    let Response { frame, memory } = answer.await;
                    if !frame.is_empty() {
                        connection.respond(frame, memory).await;
                    }
                    drop(turn);
                }
                None if self.closed.get() => return,
                None => self.changed.wait().await,
            }
        }
    }
}
