//! TCP on glommio's readiness: a call that would block waits until the socket is ready, then is made
//! again. No buffer is ever lent to the kernel, so every read may be dropped.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use bytes::{BufMut, Bytes, BytesMut};
use glommio::io::PollableFd;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrAny, SocketFlags,
    SocketType, sockopt,
};

use super::turn::{self, yield_if_needed};

/// How many connections may wait to be accepted; the kernel lowers it to what it allows.
const BACKLOG: i32 = 4096;

/// How many chunks one call gathers.
const GATHERED_MAX: usize = 64;

fn open(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(family, SocketType::STREAM, flags, None)?)
}

fn watch(descriptor: OwnedFd) -> io::Result<PollableFd<OwnedFd>> {
    PollableFd::new(descriptor).map_err(io::Error::from)
}

async fn readable(socket: &PollableFd<OwnedFd>) -> io::Result<()> {
    let ready = socket.readable().await;
    turn::looked();
    ready.map_err(io::Error::from)
}

async fn writable(socket: &PollableFd<OwnedFd>) -> io::Result<()> {
    let ready = socket.writable().await;
    turn::looked();
    ready.map_err(io::Error::from)
}

fn to_socket_addr(address: SocketAddrAny) -> io::Result<SocketAddr> {
    SocketAddr::try_from(address).map_err(io::Error::from)
}

pub(crate) struct Listener(PollableFd<OwnedFd>);

impl Listener {
    /// The socket is made here, not by glommio, which lets any number of listeners share a port.
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Listener> {
        let descriptor = open(address)?;
        sockopt::set_socket_reuseaddr(&descriptor, true)?;
        rustix::net::bind(&descriptor, &address)?;
        rustix::net::listen(&descriptor, BACKLOG)?;
        Ok(Listener(watch(descriptor)?))
    }

    pub(crate) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            yield_if_needed().await;
            match rustix::net::acceptfrom_with(self.0.get_ref(), flags) {
                Ok((descriptor, Some(peer))) => {
                    let stream = Stream::new(descriptor)?;
                    return Ok((stream, to_socket_addr(peer)?));
                }
                Ok((_, None)) | Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::WOULDBLOCK) => readable(&self.0).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        to_socket_addr(rustix::net::getsockname(self.0.get_ref())?)
    }
}

pub(crate) struct Stream(Rc<PollableFd<OwnedFd>>);

impl Stream {
    fn new(descriptor: OwnedFd) -> io::Result<Stream> {
        sockopt::set_tcp_nodelay(&descriptor, true)?;
        Ok(Stream(Rc::new(watch(descriptor)?)))
    }

    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Stream> {
        let stream = Stream::new(open(address)?)?;
        match rustix::net::connect(stream.0.get_ref(), &address) {
            Ok(()) => {}
            Err(Errno::INPROGRESS | Errno::INTR) => {
                writable(&stream.0).await?;
                sockopt::socket_error(stream.0.get_ref())??;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(stream)
    }

    pub(crate) async fn read(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        read(&self.0, into).await
    }

    pub(crate) async fn write_all(&mut self, chunks: &[Bytes]) -> io::Result<()> {
        write_all(&self.0, chunks).await
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        to_socket_addr(rustix::net::getsockname(self.0.get_ref())?)
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        to_socket_addr(rustix::net::getpeername(self.0.get_ref())?.ok_or(Errno::NOTCONN)?)
    }

    pub(crate) fn into_split(self) -> (ReadHalf, WriteHalf) {
        (ReadHalf(self.0.clone()), WriteHalf(self.0))
    }

    pub(crate) fn detach(self) -> DetachedStream {
        let socket = Rc::into_inner(self.0).expect("a whole stream shares its socket with nobody");
        DetachedStream(socket.into_inner())
    }
}

pub(crate) struct ReadHalf(Rc<PollableFd<OwnedFd>>);

impl ReadHalf {
    pub(crate) async fn read(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        read(&self.0, into).await
    }
}

async fn read(socket: &PollableFd<OwnedFd>, into: &mut BytesMut) -> io::Result<usize> {
    // A peer that always has more to say would else keep the shard to itself.
    yield_if_needed().await;
    loop {
        let received = rustix::net::recv(socket.get_ref(), into.spare_capacity_mut(), RecvFlags::empty());
        match received {
            Ok(((filled, _), _)) => {
                let len = filled.len();
                #[expect(unsafe_code, reason = "the kernel has filled what was not initialised")]
                // SAFETY: `filled` is the head of the spare capacity, and it is initialised.
                unsafe {
                    into.advance_mut(len);
                }
                return Ok(len);
            }
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => readable(socket).await?,
            Err(error) => return Err(error.into()),
        }
    }
}

pub(crate) struct WriteHalf(Rc<PollableFd<OwnedFd>>);

impl WriteHalf {
    pub(crate) async fn write_all(&mut self, chunks: &[Bytes]) -> io::Result<()> {
        write_all(&self.0, chunks).await
    }

    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        Ok(rustix::net::shutdown(self.0.get_ref(), Shutdown::Write)?)
    }
}

async fn write_all(socket: &PollableFd<OwnedFd>, chunks: &[Bytes]) -> io::Result<()> {
    let mut rest = Rest { chunks, sent: 0 };
    while rest.has_remaining() {
        yield_if_needed().await;
        match send(socket, &rest) {
            Ok(sent) => rest.advance(sent),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => writable(socket).await?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn send(socket: &PollableFd<OwnedFd>, rest: &Rest<'_>) -> rustix::io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); GATHERED_MAX];
    let gathered = rest.gather(&mut slices);
    let mut nothing = SendAncillaryBuffer::default();
    rustix::net::sendmsg(socket.get_ref(), &slices[..gathered], &mut nothing, SendFlags::NOSIGNAL)
}

/// What of the chunks is still to be sent: all but the first `sent` bytes of the first.
struct Rest<'a> {
    chunks: &'a [Bytes],
    sent: usize,
}

impl<'a> Rest<'a> {
    fn has_remaining(&mut self) -> bool {
        self.advance(0);
        !self.chunks.is_empty()
    }

    fn advance(&mut self, sent: usize) {
        self.sent += sent;
        while let Some((first, others)) = self.chunks.split_first()
            && self.sent >= first.len()
        {
            self.sent -= first.len();
            self.chunks = others;
        }
    }

    fn gather(&self, into: &mut [IoSlice<'a>]) -> usize {
        let mut skip = self.sent;
        let mut count = 0;
        for (slice, chunk) in into.iter_mut().zip(self.chunks) {
            *slice = IoSlice::new(&chunk[skip..]);
            skip = 0;
            count += 1;
        }
        count
    }
}

pub(crate) struct DetachedStream(OwnedFd);

impl DetachedStream {
    pub(crate) fn attach(self) -> io::Result<Stream> {
        Ok(Stream(Rc::new(watch(self.0)?)))
    }
}
