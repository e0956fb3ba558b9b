//! One connection that speaks Kafka's protocol: requests go out as they come, answers come in their order.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, ensure};
use bytes::{Bytes, BytesMut};
use corrente_protocol::kafka::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use corrente_protocol::kafka::{ApiKey, FRAME_LEN_BYTES, IDS_FROM, Message, Writer};
use corrente_protocol::wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

/// The largest answer that is taken: what was asked for is less.
const FRAME_MAX: usize = 256 << 20;
const READ_BLOCK: usize = 256 * 1024;
const CLIENT_ID: &[u8] = b"corrente-bench";

/// See the module.
#[derive(Debug)]
pub struct Connection {
    sending: tokio::sync::Mutex<Sending>,
    awaited: Arc<Awaited>,
    versions: BTreeMap<i16, (i16, i16)>,
    reading: AbortHandle,
}

#[derive(Debug)]
struct Sending {
    socket: OwnedWriteHalf,
    last_correlation: i32,
}

/// Whoever waits for an answer, in the order of the requests.
#[derive(Debug, Default)]
struct Awaited(Mutex<Line>);

#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<oneshot::Sender<Bytes>>,
    /// Why no answer comes any more.
    broken: Option<String>,
}

impl Connection {
    /// To the first of several brokers that answers.
    pub async fn to_any(brokers: &[String]) -> Result<Connection> {
        let mut last = anyhow!("no broker address is given");
        for broker in brokers {
            match Connection::to(broker).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Connects and asks what is served.
    pub async fn to(broker: &str) -> Result<Connection> {
        let socket = TcpStream::connect(broker).await.with_context(|| format!("connecting to {broker}"))?;
        socket.set_nodelay(true)?;
        let (reader, socket) = socket.into_split();
        let awaited = Arc::new(Awaited::default());
        let reading = tokio::spawn(read(reader, Arc::clone(&awaited))).abort_handle();
        let sending = tokio::sync::Mutex::new(Sending { socket, last_correlation: 0 });
        let mut connection = Connection { sending, awaited, versions: BTreeMap::new(), reading };
        let told: ApiVersionsResponse = connection
            .call_in_version(0, ApiVersionsRequest::default())
            .await
            .with_context(|| format!("{broker} does not answer as Kafka does"))?;
        ensure!(told.error == 0, "{broker} refuses to say what it serves: Kafka's error {}", told.error);
        connection.versions = told.apis.iter().map(|api| (api.api, (api.oldest, api.newest))).collect();
        Ok(connection)
    }

    /// The newest version of a request that both sides speak, and that names topics.
    pub fn version_of<Q: Message>(&self) -> Result<i16> {
        let ours = Q::API.served();
        let by_name =
            if matches!(Q::API, ApiKey::Produce | ApiKey::Fetch) { IDS_FROM - 1 } else { ours.newest };
        let (oldest, newest) = self.versions.get(&Q::API.code()).copied().unwrap_or((1, 0));
        let version = newest.min(by_name);
        ensure!(
            version >= oldest.max(ours.oldest),
            "the broker serves {:?} {oldest} to {newest}, this generator speaks {} to {by_name}",
            Q::API,
            ours.oldest
        );
        Ok(version)
    }

    /// Sends a request and waits for its answer. Not cancel-safe: dropped, it may leave half a request behind.
    pub async fn call<Q: Message, R: Message>(&self, request: Q) -> Result<R> {
        self.call_in_version(self.version_of::<Q>()?, request).await
    }

    async fn call_in_version<Q: Message, R: Message>(&self, version: i16, request: Q) -> Result<R> {
        let answer = self.send(version, request).await?;
        let body = answer.await.map_err(|_| anyhow!(self.awaited.why_broken()))?;
        let has_tags = R::API.is_flexible(version) && R::API != ApiKey::ApiVersions;
        // The correlation id, and the header's tagged fields, of which there are none.
        let head = if has_tags { 5 } else { 4 };
        ensure!(body.len() >= head, "an answer of {} bytes", body.len());
        Ok(R::decode(version, body.slice(head..))?)
    }

    async fn send<Q: Message>(&self, version: i16, request: Q) -> Result<oneshot::Receiver<Bytes>> {
        let mut sending = self.sending.lock().await;
        sending.last_correlation = sending.last_correlation.wrapping_add(1);
        let frame = frame(version, sending.last_correlation, request)?;
        // Queued and sent under one lock: answers come in this order.
        let answer = self.awaited.join()?;
        write_all(&mut sending.socket, &frame).await.context("sending a request")?;
        Ok(answer)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Awaited {
    fn join(&self) -> Result<oneshot::Receiver<Bytes>> {
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &line.broken {
            return Err(anyhow!(why.clone()));
        }
        let (answer, coming) = oneshot::channel();
        line.waiting.push_back(answer);
        Ok(coming)
    }

    fn answer(&self, frame: Bytes) -> Result<()> {
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = line.waiting.pop_front().context("an answer that nobody asked for")?;
        // Who asked may have gone.
        let _ = first.send(frame);
        Ok(())
    }

    /// Fails everybody who waits, and whoever comes.
    fn give_up(&self, why: String) {
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        line.broken = Some(why);
        line.waiting.clear();
    }

    fn why_broken(&self) -> String {
        let line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        line.broken.clone().unwrap_or_else(|| "the connection was given up".to_owned())
    }
}

/// A request with all that stands before its body, in pieces.
fn frame<Q: Message>(version: i16, correlation: i32, request: Q) -> Result<Vec<Bytes>> {
    let flexible = Q::API.is_flexible(version);
    let mut head = Vec::with_capacity(32);
    head.extend(Q::API.code().to_be_bytes());
    head.extend(version.to_be_bytes());
    head.extend(correlation.to_be_bytes());
    head.extend(i16::try_from(CLIENT_ID.len()).expect("a short name").to_be_bytes());
    head.extend(CLIENT_ID);
    // No tagged fields.
    head.extend(flexible.then_some(0));
    let mut writer = Writer::new(wire::Writer::new(), flexible);
    request.encode(version, &mut writer);
    let mut pieces = writer.finish();
    let length = head.len() + pieces.iter().map(Bytes::len).sum::<usize>();
    let length = i32::try_from(length).context("a request is too long for Kafka's protocol")?;
    pieces.insert(0, [&length.to_be_bytes()[..], &head].concat().into());
    Ok(pieces)
}

async fn write_all(socket: &mut OwnedWriteHalf, pieces: &[Bytes]) -> std::io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        let written = socket.write_vectored(rest).await?;
        if written == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut rest, written);
    }
    Ok(())
}

async fn read(mut socket: OwnedReadHalf, awaited: Arc<Awaited>) {
    let mut received = BytesMut::new();
    let why = loop {
        match next_frame(&mut socket, &mut received).await.and_then(|frame| awaited.answer(frame)) {
            Ok(()) => {}
            Err(error) => break format!("{error:#}"),
        }
    };
    awaited.give_up(why);
}

async fn next_frame(socket: &mut OwnedReadHalf, received: &mut BytesMut) -> Result<Bytes> {
    fill(socket, received, FRAME_LEN_BYTES).await?;
    let length = i32::from_be_bytes(received[..FRAME_LEN_BYTES].try_into().expect("four bytes"));
    let length = usize::try_from(length).ok().filter(|length| *length <= FRAME_MAX);
    let length = length.context("an answer of impossible length: is this Kafka's protocol, without TLS?")?;
    let _ = received.split_to(FRAME_LEN_BYTES);
    fill(socket, received, length).await?;
    Ok(received.split_to(length).freeze())
}

async fn fill(socket: &mut OwnedReadHalf, received: &mut BytesMut, length: usize) -> Result<()> {
    while received.len() < length {
        // Room grows with what comes, not with what a stranger says will come.
        received.reserve((length - received.len()).clamp(1, READ_BLOCK));
        let read = socket.read_buf(received).await.context("reading an answer")?;
        ensure!(read > 0, "the broker closed the connection");
    }
    Ok(())
}
