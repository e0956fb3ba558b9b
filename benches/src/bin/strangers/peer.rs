//! One raw connection: bytes out, frames in, and the one line in which a broker says no.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use corrente_protocol::api::{ErrorResponse, Message, Request};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::frame::{Cut, ResponseHeader, cut_response};
use corrente_protocol::hello::{ClientHello, SERVER_HELLO_LEN, ServerHello};
use corrente_protocol::ids::ShardId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::bytes_on_the_wire::frame_of;

/// How long anything may take before it counts as never; beyond every limit of time that a broker has by default.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Longer responses than any that is asked for here.
const RESPONSE_LEN_MAX: u32 = 256 << 20;

/// What a connection had to say at last.
#[derive(Debug)]
pub enum Last {
    /// It closed, in order or not.
    Closed,
    /// A frame.
    Frame(ResponseHeader, Bytes),
}

/// A socket, or the half of one that hears, and what has come through it.
pub struct Peer<S = TcpStream> {
    pub stream: S,
    pub heard: BytesMut,
}

impl Peer {
    /// Connects and says nothing.
    pub async fn connect(broker: SocketAddr) -> Result<Peer> {
        let stream = TcpStream::connect(broker).await.context("connect")?;
        stream.set_nodelay(true)?;
        Ok(Peer { stream, heard: BytesMut::new() })
    }

    /// Connects and exchanges hellos.
    pub async fn greet(broker: SocketAddr, shard: ShardId) -> Result<Peer> {
        let mut peer = Peer::connect(broker).await?;
        peer.send(&ClientHello::new("stranger", shard).encode()).await;
        let answer = peer.server_hello().await?;
        ensure!(answer.error == ErrorCode::None, "the hello was refused: {}", answer.text);
        Ok(peer)
    }

    /// Sends; a broker that has closed already is what some attacks are about, so that is no error here.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = timeout(PATIENCE, self.stream.write_all(bytes)).await;
    }

    /// Asks and waits for the answer.
    pub async fn call<R: Request>(&mut self, request: &R) -> Result<R::Response> {
        self.send(&frame_of(request, 1)).await;
        R::Response::decode(0, self.answer().await?).context("the answer")
    }

    /// Parts what hears from what speaks.
    pub fn into_split(self) -> (Peer<OwnedReadHalf>, OwnedWriteHalf) {
        let Peer { stream, heard } = self;
        let (read, write) = stream.into_split();
        (Peer { stream: read, heard }, write)
    }
}

impl<S: AsyncRead + Unpin> Peer<S> {
    /// The broker's hello.
    pub async fn server_hello(&mut self) -> Result<ServerHello> {
        while self.heard.len() < SERVER_HELLO_LEN {
            ensure!(self.more().await?, "closed after {} bytes of its hello", self.heard.len());
        }
        let hello = self.heard.split_to(SERVER_HELLO_LEN);
        Ok(ServerHello::decode(hello[..].try_into().expect("split to that length"))?)
    }

    /// The next frame, or that there is none.
    pub async fn next(&mut self) -> Result<Last> {
        loop {
            match cut_response(&mut self.heard, RESPONSE_LEN_MAX)? {
                Cut::Frame(header, body) => return Ok(Last::Frame(header, body)),
                Cut::Need(_) if self.more().await? => {}
                Cut::Need(_) => return Ok(Last::Closed),
            }
        }
    }

    /// The next frame has to be nothing but an error; its code and its line.
    pub async fn refusal(&mut self) -> Result<(ErrorCode, String)> {
        let Last::Frame(header, body) = self.next().await? else { bail!("closed without a word") };
        ensure!(header.is_error(), "answered with {} instead of an error", header.api);
        let refusal = ErrorResponse::decode(0, body)?;
        Ok((refusal.error, refusal.message.context("an error without a line")?))
    }

    /// The body of the next frame, which has to be an answer and not an error.
    pub async fn answer(&mut self) -> Result<Bytes> {
        let Last::Frame(header, body) = self.next().await? else { bail!("closed instead of answering") };
        if header.is_error() {
            let refusal = ErrorResponse::decode(0, body)?;
            bail!("{:?}: {}", refusal.error, refusal.message.unwrap_or_default());
        }
        Ok(body)
    }

    /// Hears the rest; an error if more than `bytes_max` come or it never closes.
    pub async fn until_closed(&mut self, bytes_max: usize) -> Result<()> {
        while self.more().await? {
            ensure!(self.heard.len() <= bytes_max, "it said {} bytes and did not close", self.heard.len());
        }
        Ok(())
    }

    /// Reads once. `false` if the connection is at its end; a reset is an end too.
    async fn more(&mut self) -> Result<bool> {
        self.heard.reserve(4096);
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.heard)).await;
        Ok(read.with_context(|| format!("nothing came for {PATIENCE:?}"))?.is_ok_and(|read| read > 0))
    }
}
