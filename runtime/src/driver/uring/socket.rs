//! TCP on the ring's readiness: a call is made once the socket is ready. No buffer is ever lent to the kernel, so every
//! read may be dropped.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use bytes::{BufMut, Bytes, BytesMut};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrAny, SocketFlags,
    SocketType, sockopt,
};

use super::executor;
use super::readiness::{Direction, Readiness};
use super::ring::Watch;
use super::turn::yield_if_needed;

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

/// A descriptor that is watched. The watch ends before the descriptor does.
struct Socket {
    watch: Watch,
    descriptor: OwnedFd,
}

impl Socket {
    fn new(descriptor: OwnedFd) -> Socket {
        Socket { watch: executor::ring().watch(descriptor.as_raw_fd()), descriptor }
    }

    fn unwatched(self) -> OwnedFd {
        self.descriptor
    }

    /// Makes a call until it does something, each time when the socket is ready for it. The kernel is heard before, as
    /// a task whose calls never wait would else keep the shard from hearing it.
    async fn when<T>(
        &self,
        direction: impl Fn(&Readiness) -> &Direction,
        mut call: impl FnMut(&OwnedFd) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        let readiness = self.watch.readiness();
        let direction = direction(readiness);
        loop {
            self.watch.look();
            yield_if_needed().await;
            readiness.ready(direction).await?;
            match call(&self.descriptor) {
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => direction.exhausted(),
                done => return Ok(done?),
            }
        }
    }
}

fn to_socket_addr(address: SocketAddrAny) -> io::Result<SocketAddr> {
    SocketAddr::try_from(address).map_err(io::Error::from)
}

pub(crate) struct Listener(Socket);

impl Listener {
    /// The socket is made here, not by glommio, which lets any number of listeners share a port.
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Listener> {
        let descriptor = open(address)?;
        sockopt::set_socket_reuseaddr(&descriptor, true)?;
        rustix::net::bind(&descriptor, &address)?;
        rustix::net::listen(&descriptor, BACKLOG)?;
        Ok(Listener(Socket::new(descriptor)))
    }

    pub(crate) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            let accepted =
                self.0.when(|of| &of.reading, |socket| rustix::net::acceptfrom_with(socket, flags)).await;
            match accepted {
                Ok((descriptor, Some(peer))) => return Ok((Stream::new(descriptor)?, to_socket_addr(peer)?)),
                Ok((_, None)) => {}
                Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        to_socket_addr(rustix::net::getsockname(&self.0.descriptor)?)
    }
}

pub(crate) struct Stream(Rc<Socket>);

impl Stream {
    fn new(descriptor: OwnedFd) -> io::Result<Stream> {
        sockopt::set_tcp_nodelay(&descriptor, true)?;
        Ok(Stream(Rc::new(Socket::new(descriptor))))
    }

    /// The socket is watched only once it connects: before, the kernel calls it hung up.
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Stream> {
        let descriptor = open(address)?;
        match rustix::net::connect(&descriptor, &address) {
            Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let stream = Stream::new(descriptor)?;
        stream.0.when(|of| &of.writing, |_| Ok(())).await?;
        sockopt::socket_error(&stream.0.descriptor)??;
        Ok(stream)
    }

    pub(crate) async fn read(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        read(&self.0, into).await
    }

    pub(crate) async fn write_all(&mut self, chunks: &[Bytes]) -> io::Result<()> {
        write_all(&self.0, chunks).await
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        to_socket_addr(rustix::net::getsockname(&self.0.descriptor)?)
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        to_socket_addr(rustix::net::getpeername(&self.0.descriptor)?.ok_or(Errno::NOTCONN)?)
    }

    pub(crate) fn into_split(self) -> (ReadHalf, WriteHalf) {
        (ReadHalf(self.0.clone()), WriteHalf(self.0))
    }

    pub(crate) fn detach(self) -> DetachedStream {
        let socket = Rc::into_inner(self.0).expect("a whole stream shares its socket with nobody");
        DetachedStream(socket.unwatched())
    }
}

pub(crate) struct ReadHalf(Rc<Socket>);

impl ReadHalf {
    pub(crate) async fn read(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        read(&self.0, into).await
    }
}

async fn read(socket: &Socket, into: &mut BytesMut) -> io::Result<usize> {
    let room = into.spare_capacity_mut().len();
    let receive = |socket: &OwnedFd| {
        let ((filled, _), _) = rustix::net::recv(socket, into.spare_capacity_mut(), RecvFlags::empty())?;
        Ok(filled.len())
    };
    let received = socket.when(|of| &of.reading, receive).await?;
    #[expect(unsafe_code, reason = "the kernel has filled what was not initialised")]
    // SAFETY: the kernel wrote so many bytes to the head of the spare capacity.
    unsafe {
        into.advance_mut(received);
    }
    // Less than there was room for is all there is, urgent data aside, which no protocol here knows.
    if received < room {
        socket.watch.readiness().reading.exhausted();
    }
    Ok(received)
}

pub(crate) struct WriteHalf(Rc<Socket>);

impl WriteHalf {
    pub(crate) async fn write_all(&mut self, chunks: &[Bytes]) -> io::Result<()> {
        write_all(&self.0, chunks).await
    }

    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.0.descriptor, Shutdown::Write)?)
    }
}

async fn write_all(socket: &Socket, chunks: &[Bytes]) -> io::Result<()> {
    let mut rest = Rest { chunks, sent: 0 };
    while rest.has_remaining() {
        let sent = socket.when(|of| &of.writing, |socket| send(socket, &rest)).await?;
        rest.advance(sent);
    }
    Ok(())
}

fn send(socket: &OwnedFd, rest: &Rest<'_>) -> rustix::io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); GATHERED_MAX];
    let gathered = rest.gather(&mut slices);
    let mut nothing = SendAncillaryBuffer::default();
    rustix::net::sendmsg(socket, &slices[..gathered], &mut nothing, SendFlags::NOSIGNAL)
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
        Ok(Stream(Rc::new(Socket::new(self.0))))
    }
}
