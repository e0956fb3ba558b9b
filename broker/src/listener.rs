//! The native listener: one port for all shards. It hears the hello and hands the socket to the
//! shard that the hello names.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use corrente_protocol::hello::{self, CLIENT_HELLO_LEN, ClientHello};
use corrente_protocol::ids::ShardId;
use corrente_runtime::executor::spawn;
use corrente_runtime::socket::{DetachedStream, Listener, Stream};
use corrente_runtime::timer::{sleep, timeout};

use crate::native;
use crate::shard::{Message, Shard};

/// A connection that has said hello, on its way to its shard.
pub struct Arrival<S> {
    /// The socket.
    pub stream: S,
    /// Whence it came.
    pub peer: SocketAddr,
    /// What it said.
    pub hello: ClientHello,
    /// Bytes read behind the hello.
    pub read_ahead: BytesMut,
}

impl Arrival<Stream> {
    fn detach(self) -> Arrival<DetachedStream> {
        let Arrival { stream, peer, hello, read_ahead } = self;
        Arrival { stream: stream.detach(), peer, hello, read_ahead }
    }
}

impl Arrival<DetachedStream> {
    /// Makes the socket one of this shard's.
    pub fn attach(self) -> std::io::Result<Arrival<Stream>> {
        let Arrival { stream, peer, hello, read_ahead } = self;
        Ok(Arrival { stream: stream.attach()?, peer, hello, read_ahead })
    }
}

/// A full table of descriptors empties by itself; trying again at once would only burn the core.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until it is dropped.
pub async fn accept(shard: Rc<Shard>, listener: Listener) {
    let mut next_shard = 0_u16;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let fallback = ShardId(next_shard);
                next_shard = (next_shard + 1) % shard.shard_count();
                spawn(introduce(shard.clone(), stream, peer, fallback)).detach();
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Hears the hello and brings the connection to its shard.
async fn introduce(shard: Rc<Shard>, mut stream: Stream, peer: SocketAddr, fallback: ShardId) {
    let limit = Duration::from_millis(shard.config.connection.hello_timeout_ms);
    let mut read_ahead = BytesMut::with_capacity(CLIENT_HELLO_LEN);
    let heard = timeout(limit, read_hello(&mut stream, &mut read_ahead)).await;
    let hello = match heard {
        Ok(Ok(hello)) => hello,
        Ok(Err(refusal)) => {
            tracing::info!(%peer, %refusal, "connection refused");
            return native::refuse(stream, &refusal).await;
        }
        Err(_) => return tracing::info!(%peer, "connection closed: no hello within {limit:?}"),
    };
    let wanted = hello.wanted_shard;
    let home = if wanted.0 < shard.shard_count() { wanted } else { fallback };
    let arrival = Arrival { stream, peer, hello, read_ahead };
    if home == shard.id {
        native::serve(shard, arrival).await;
    } else if let Err(stopped) = shard.send(home, Message::Connection(arrival.detach())).await {
        tracing::debug!(%peer, %stopped, "connection dropped");
    }
}

/// Why a connection ended before it began.
#[derive(Debug, thiserror::Error)]
pub enum HelloRefusal {
    /// What came is no hello of this protocol.
    #[error("{0}")]
    Invalid(#[from] corrente_protocol::hello::HelloError),
    /// The peer went away.
    #[error("the connection ended within the hello: {0}")]
    Ended(String),
}

async fn read_hello(stream: &mut Stream, buffer: &mut BytesMut) -> Result<ClientHello, HelloRefusal> {
    while buffer.len() < CLIENT_HELLO_LEN {
        hello::check_magic(buffer)?;
        match stream.read(buffer).await {
            Ok(0) => return Err(HelloRefusal::Ended(format!("after {} bytes", buffer.len()))),
            Ok(_) => {}
            Err(error) => return Err(HelloRefusal::Ended(error.to_string())),
        }
    }
    let hello = buffer.split_to(CLIENT_HELLO_LEN);
    let hello: &[u8; CLIENT_HELLO_LEN] = hello[..].try_into().expect("split to that length");
    Ok(ClientHello::decode(hello)?)
}
