//! TCP, without delay: what is written leaves at once.
//!
//! A [`Stream`] belongs to the shard that accepted or connected it. [`Stream::detach`] carries it to
//! another. Its two halves may be used by two tasks of the shard at the same time.

use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};

use crate::driver;

/// A socket that accepts connections. Dropping it closes the port.
pub struct Listener(driver::Listener);

impl Listener {
    /// Listens on `address`; port 0 takes any free one. A port that somebody listens on is `AddrInUse`.
    pub async fn bind(address: SocketAddr) -> io::Result<Listener> {
        if driver::simulated() {
            let listener = driver::sim::socket::Listener::bind(address).await?;
            Ok(Listener(driver::Listener::Sim(listener)))
        } else {
            let listener = driver::uring::socket::Listener::bind(address).await?;
            Ok(Listener(driver::Listener::Uring(listener)))
        }
    }

    /// The next connection and whence it came. Cancel-safe. An error of one connection that died in the
    /// queue is not reported; what is reported (no descriptors, no memory) may pass, so callers pause
    /// and go on.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match &self.0 {
            driver::Listener::Uring(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream(driver::Stream::Uring(stream)), peer))
            }
            driver::Listener::Sim(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream(driver::Stream::Sim(stream)), peer))
            }
        }
    }

    /// The address it listens on, with the port it got.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            driver::Listener::Uring(listener) => listener.local_addr(),
            driver::Listener::Sim(listener) => listener.local_addr(),
        }
    }
}

/// One connection. Dropping it, or both halves, closes it.
pub struct Stream(driver::Stream);

impl Stream {
    /// Connects to `address`. Cancel-safe: a dropped attempt leaves nothing behind.
    pub async fn connect(address: SocketAddr) -> io::Result<Stream> {
        if driver::simulated() {
            let stream = driver::sim::socket::Stream::connect(address).await?;
            Ok(Stream(driver::Stream::Sim(stream)))
        } else {
            let stream = driver::uring::socket::Stream::connect(address).await?;
            Ok(Stream(driver::Stream::Uring(stream)))
        }
    }

    /// As [`ReadHalf::read`].
    pub async fn read(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        assert!(into.capacity() > into.len(), "a read needs spare capacity");
        match &mut self.0 {
            driver::Stream::Uring(stream) => stream.read(into).await,
            driver::Stream::Sim(stream) => stream.read(into).await,
        }
    }

    /// As [`WriteHalf::write_all`].
    pub async fn write_all(&mut self, chunks: &[Bytes]) -> io::Result<()> {
        match &mut self.0 {
            driver::Stream::Uring(stream) => stream.write_all(chunks).await,
            driver::Stream::Sim(stream) => stream.write_all(chunks).await,
        }
    }

    /// The address of this end.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            driver::Stream::Uring(stream) => stream.local_addr(),
            driver::Stream::Sim(stream) => stream.local_addr(),
        }
    }

    /// The address of the other end.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            driver::Stream::Uring(stream) => stream.peer_addr(),
            driver::Stream::Sim(stream) => stream.peer_addr(),
        }
    }

    /// Parts the stream into what is read and what is written.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self.0 {
            driver::Stream::Uring(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf(driver::ReadHalf::Uring(read)), WriteHalf(driver::WriteHalf::Uring(write)))
            }
            driver::Stream::Sim(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf(driver::ReadHalf::Sim(read)), WriteHalf(driver::WriteHalf::Sim(write)))
            }
        }
    }

    /// Takes the stream off this shard, with nothing lost.
    pub fn detach(self) -> DetachedStream {
        match self.0 {
            driver::Stream::Uring(stream) => DetachedStream(driver::DetachedStream::Uring(stream.detach())),
            driver::Stream::Sim(stream) => DetachedStream(driver::DetachedStream::Sim(stream.detach())),
        }
    }
}

/// The reading half of a [`Stream`].
pub struct ReadHalf(driver::ReadHalf);

impl ReadHalf {
    /// Waits for bytes and appends them to `into`, at most as many as it has spare capacity for; never
    /// grows it. Returns how many; 0 means the other end will send no more. Cancel-safe.
    pub async fn read(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        assert!(into.capacity() > into.len(), "a read needs spare capacity");
        match &mut self.0 {
            driver::ReadHalf::Uring(half) => half.read(into).await,
            driver::ReadHalf::Sim(half) => half.read(into).await,
        }
    }
}

/// The writing half of a [`Stream`].
pub struct WriteHalf(driver::WriteHalf);

impl WriteHalf {
    /// Hands every byte of every chunk to the kernel, in order, gathered into as few calls as it takes.
    /// Not cancel-safe: a dropped future may have sent a part, so the stream is then of no more use.
    pub async fn write_all(&mut self, chunks: &[Bytes]) -> io::Result<()> {
        match &mut self.0 {
            driver::WriteHalf::Uring(half) => half.write_all(chunks).await,
            driver::WriteHalf::Sim(half) => half.write_all(chunks).await,
        }
    }

    /// Tells the other end that no more will come; what was written still arrives.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        match &mut self.0 {
            driver::WriteHalf::Uring(half) => half.shutdown().await,
            driver::WriteHalf::Sim(half) => half.shutdown().await,
        }
    }
}

/// A stream between two shards: it can be sent, and nothing else. Dropping it closes it.
pub struct DetachedStream(driver::DetachedStream);

impl DetachedStream {
    /// Makes it a stream of this shard. Panics if it comes from another world than this shard.
    pub fn attach(self) -> io::Result<Stream> {
        match self.0 {
            driver::DetachedStream::Uring(stream) => Ok(Stream(driver::Stream::Uring(stream.attach()?))),
            driver::DetachedStream::Sim(stream) => Ok(Stream(driver::Stream::Sim(stream.attach()?))),
        }
    }
}
