//! Listeners and streams of simulated nodes.

use super::{
    context::{self, Life},
    network::{Connection, Handshake},
    timer,
    world::WorldState,
};
use bytes::{Bytes, BytesMut};
use std::{future::poll_fn, io, net::SocketAddr, rc::Rc};

/// The first pause before a lost connect is tried again; it doubles each time, as the kernel's does.
const RETRY_NS: u64 = 1_000_000_000;

/// A port somebody listens on. Dropping it frees the port and closes what nobody accepted.
pub(crate) struct Listener {
    world: Rc<WorldState>,
    life: Life,
    address: SocketAddr,
}

impl Listener {
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Listener> {
        let here = context::current();
        let address = here.world.listen(here.life, address)?;
        Ok(Listener { world: here.world, life: here.life, address })
    }

    pub(crate) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let port = self.address.port();
        let connection = poll_fn(|cx| self.world.poll_accept(self.life, port, cx)).await?;
        let stream = Stream::of(HeldEnd::new(self.world.clone(), connection))?;
        let peer = stream.peer;
        Ok((stream, peer))
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.world.stop_listening(self.life, self.address.port());
    }
}

/// Closes its end of the connection when dropped.
struct HeldEnd {
    world: Rc<WorldState>,
    connection: Connection,
    /// False once somebody else holds it.
    closes: bool,
}

impl Drop for HeldEnd {
    fn drop(&mut self) {
        if self.closes {
            self.world.close_stream(self.connection);
        }
    }
}

impl HeldEnd {
    fn new(world: Rc<WorldState>, connection: Connection) -> Self {
        Self { world, connection, closes: true }
    }

    async fn read(&self, into: &mut BytesMut) -> io::Result<usize> {
        poll_fn(|cx| self.world.poll_receive(self.connection, into, cx)).await
    }

    async fn write_all(&self, chunks: &[Bytes]) -> io::Result<()> {
        let len: usize = chunks.iter().map(Bytes::len).sum();
        let mut sent = 0;
        while sent < len {
            sent += poll_fn(|cx| self.world.poll_send(self.connection, chunks, sent, cx)).await?;
        }
        Ok(())
    }
}

/// One connection.
pub(crate) struct Stream {
    held: HeldEnd,
    local: SocketAddr,
    peer: SocketAddr,
}

impl Stream {
    fn of(held: HeldEnd) -> io::Result<Stream> {
        let addresses = held.world.network.borrow().addresses(held.connection);
        let (local, peer) = addresses.ok_or(io::ErrorKind::ConnectionReset)?;
        Ok(Stream { held, local, peer })
    }

    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Stream> {
        let here = context::current();
        let (world, from) = (here.world, here.life);
        let Some(to) = world.resolve(from.node, address.ip()) else {
            timer::sleep_ns(world.draw_way_ns(from.node, from.node)).await;
            return Err(io::ErrorKind::HostUnreachable.into());
        };
        for attempt in 0..=world.config.network.connect_retries {
            timer::sleep_ns(world.draw_way_ns(from.node, to)).await;
            match world.shake_hands(from, to, address) {
                Handshake::Established(connection) => {
                    // Held from here on, so that a dropped attempt closes what the other end may accept.
                    let held = HeldEnd::new(world.clone(), connection);
                    timer::sleep_ns(world.draw_way_ns(to, from.node)).await;
                    return Stream::of(held);
                }
                Handshake::Refused => {
                    timer::sleep_ns(world.draw_way_ns(to, from.node)).await;
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                Handshake::Lost => timer::sleep_ns(RETRY_NS.saturating_mul(1 << attempt.min(32))).await,
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    pub(crate) async fn read(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        self.held.read(into).await
    }

    pub(crate) async fn write_all(&mut self, chunks: &[Bytes]) -> io::Result<()> {
        self.held.write_all(chunks).await
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }

    pub(crate) fn into_split(self) -> (ReadHalf, WriteHalf) {
        let held = Rc::new(self.held);
        (ReadHalf(held.clone()), WriteHalf(held))
    }

    pub(crate) fn detach(self) -> DetachedStream {
        let Stream { mut held, local, peer } = self;
        held.closes = false;
        DetachedStream { seed: held.world.seed, connection: Some(held.connection), local, peer }
    }
}

/// The reading half.
pub(crate) struct ReadHalf(Rc<HeldEnd>);

impl ReadHalf {
    pub(crate) async fn read(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        self.0.read(into).await
    }
}

/// The writing half.
pub(crate) struct WriteHalf(Rc<HeldEnd>);

impl WriteHalf {
    pub(crate) async fn write_all(&mut self, chunks: &[Bytes]) -> io::Result<()> {
        self.0.write_all(chunks).await
    }

    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        self.0.world.shutdown_stream(self.0.connection)
    }
}

/// A stream between two shards of its node: plain names, since what can be sent cannot hold a world.
pub(crate) struct DetachedStream {
    seed: u64,
    /// None once attached.
    connection: Option<Connection>,
    local: SocketAddr,
    peer: SocketAddr,
}

impl DetachedStream {
    pub(crate) fn attach(mut self) -> io::Result<Stream> {
        let world = context::current().world;
        assert_eq!(self.seed, world.seed, "a stream of one world was attached in another");
        let connection = self.connection.take().expect("a stream is attached once");
        Ok(Stream { held: HeldEnd::new(world, connection), local: self.local, peer: self.peer })
    }
}

impl Drop for DetachedStream {
    /// Outside of its world there is nothing left to close.
    fn drop(&mut self) {
        if let (Some(connection), Some(here)) = (self.connection, context::try_current()) {
            here.world.close_stream(connection);
        }
    }
}
