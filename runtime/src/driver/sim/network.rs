//! The network of a world: who listens, which streams exist, which ways are blocked.
//!
//! Streams are in order and whole until they break; loss shows as delay. A blocked way holds what
//! should arrive until it is healed. Methods of [`WorldState`] here borrow the network, decide, let go
//! of it, and only then wake.

use super::{
    context::Life,
    pipe::Pipe,
    trace::{Mark, fingerprint},
    world::{Event, WorldState},
};
use bytes::{Bytes, BytesMut};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    task::{Context, Poll, Waker},
};

/// Connections that wait to be accepted; more are as good as lost on the way.
const BACKLOG_MAX: usize = 1024;
const FIRST_FREE_PORT: u16 = 32_768;

/// One end of a stream. Numbers are never given twice, so an end outlived by its holder names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) number: u64,
    /// 0 connected, 1 accepted.
    pub(crate) end: usize,
}

impl Connection {
    fn peer(self) -> Self {
        Self { end: 1 - self.end, ..self }
    }

    fn print(self) -> u64 {
        self.number << 1 | self.end as u64
    }
}

struct End {
    node: usize,
    address: SocketAddr,
    /// Whether somebody still holds it.
    open: bool,
    /// Set by a reset; what had arrived before can still be read.
    broken: bool,
    /// A reset came while the way was blocked.
    reset_held: bool,
    inbound: Pipe,
}

impl End {
    fn new(node: usize, address: SocketAddr) -> Self {
        Self { node, address, open: true, broken: false, reset_held: false, inbound: Pipe::default() }
    }
}

struct Stream {
    ends: [End; 2],
}

impl Stream {
    /// The nodes the stream leads from and to when `end` sends.
    fn way_from(&self, end: usize) -> [usize; 2] {
        [self.ends[end].node, self.ends[1 - end].node]
    }
}

struct Listening {
    address: SocketAddr,
    backlog: VecDeque<Connection>,
    waiters: Vec<Waker>,
}

/// See the module head.
#[derive(Default)]
pub(crate) struct Network {
    listeners: BTreeMap<(usize, u16), Listening>,
    streams: BTreeMap<u64, Stream>,
    streams_made: u64,
    /// Ordered pairs of nodes.
    blocked: BTreeSet<(usize, usize)>,
    next_ports: BTreeMap<usize, u16>,
}

impl Network {
    fn stream(&mut self, connection: Connection) -> Option<&mut Stream> {
        self.streams.get_mut(&connection.number)
    }

    fn free_port(&mut self, node: usize) -> u16 {
        let next = self.next_ports.entry(node).or_insert(FIRST_FREE_PORT);
        loop {
            let port = *next;
            *next = next.checked_add(1).unwrap_or(FIRST_FREE_PORT);
            if !self.listeners.contains_key(&(node, port)) {
                return port;
            }
        }
    }

    fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.blocked.contains(&(from, to))
    }

    /// The addresses of an end and of its peer.
    pub(crate) fn addresses(&self, connection: Connection) -> Option<(SocketAddr, SocketAddr)> {
        let ends = &self.streams.get(&connection.number)?.ends;
        Some((ends[connection.end].address, ends[1 - connection.end].address))
    }
}

/// What came of an attempt to connect.
pub(crate) enum Handshake {
    Established(Connection),
    Refused,
    /// No answer: a blocked way, or a full backlog.
    Lost,
}

impl WorldState {
    // Listening.

    pub(crate) fn listen(&self, life: Life, mut address: SocketAddr) -> io::Result<SocketAddr> {
        if !self.is_alive(life) {
            return Err(io::ErrorKind::NetworkDown.into());
        }
        let own = self.nodes.borrow()[life.node].address;
        let ip = address.ip();
        if !(ip.is_unspecified() || ip.is_loopback() || ip == own) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let network = &mut *self.network.borrow_mut();
        if address.port() == 0 {
            address.set_port(network.free_port(life.node));
        }
        let key = (life.node, address.port());
        if network.listeners.contains_key(&key) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let listening = Listening { address, backlog: VecDeque::new(), waiters: Vec::new() };
        network.listeners.insert(key, listening);
        Ok(address)
    }

    pub(crate) fn poll_accept(
        &self,
        life: Life,
        port: u16,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Connection>> {
        if !self.is_alive(life) {
            return Poll::Ready(Err(io::ErrorKind::NetworkDown.into()));
        }
        let network = &mut *self.network.borrow_mut();
        let Some(listening) = network.listeners.get_mut(&(life.node, port)) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        while let Some(connection) = listening.backlog.pop_front() {
            if network.streams.get(&connection.number).is_some_and(|stream| !stream.ends[1].broken) {
                return Poll::Ready(Ok(connection));
            }
        }
        if !listening.waiters.iter().any(|waiter| waiter.will_wake(cx.waker())) {
            listening.waiters.push(cx.waker().clone());
        }
        Poll::Pending
    }

    pub(crate) fn stop_listening(&self, life: Life, port: u16) {
        if !self.is_alive(life) {
            return;
        }
        let listening = self.network.borrow_mut().listeners.remove(&(life.node, port));
        if let Some(Listening { backlog, .. }) = listening {
            backlog.into_iter().for_each(|connection| self.close_stream(connection));
        }
    }

    // Connecting.

    /// The node an address leads to from `node`.
    pub(crate) fn resolve(&self, node: usize, ip: IpAddr) -> Option<usize> {
        let nodes = self.nodes.borrow();
        if ip.is_loopback() { Some(node) } else { nodes.iter().position(|node| node.address == ip) }
    }

    /// The first packet of a connect arrives at `to`.
    pub(crate) fn shake_hands(&self, from: Life, to: usize, address: SocketAddr) -> Handshake {
        let own = self.nodes.borrow()[from.node].address;
        let local_ip = if address.ip().is_loopback() { address.ip() } else { own };
        let (number, waiters) = {
            let network = &mut *self.network.borrow_mut();
            if network.is_blocked(from.node, to) || network.is_blocked(to, from.node) {
                return Handshake::Lost;
            }
            let local = SocketAddr::new(local_ip, network.free_port(from.node));
            let Some(listening) = network.listeners.get_mut(&(to, address.port())) else {
                return Handshake::Refused;
            };
            let bound = listening.address.ip();
            if !bound.is_unspecified() && bound != address.ip() {
                return Handshake::Refused;
            }
            if listening.backlog.len() >= BACKLOG_MAX {
                return Handshake::Lost;
            }
            let number = network.streams_made;
            network.streams_made += 1;
            let ends = [End::new(from.node, local), End::new(to, address)];
            network.streams.insert(number, Stream { ends });
            listening.backlog.push_back(Connection { number, end: 1 });
            (number, std::mem::take(&mut listening.waiters))
        };
        self.note(Mark::Connect, number, (from.node as u64) << 32 | to as u64);
        waiters.into_iter().for_each(Waker::wake);
        Handshake::Established(Connection { number, end: 0 })
    }

    /// One way from `from` to `to`, in nanoseconds.
    pub(crate) fn draw_way_ns(&self, from: usize, to: usize) -> u64 {
        let network = &self.config.network;
        self.draw_delay_ns(if from == to { &network.loopback_delay } else { &network.delay })
    }

    // Streams.

    /// Sends what there is room for of `chunks` from byte `skip` on; returns how much that was.
    pub(crate) fn poll_send(
        &self,
        connection: Connection,
        chunks: &[Bytes],
        skip: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        // Declared before the borrow, so dropped after it.
        let _outdated_writer: Option<Waker>;
        let reader = {
            let network = &mut *self.network.borrow_mut();
            let Some(stream) = network.stream(connection) else {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            };
            let [from, to] = stream.way_from(connection.end);
            if stream.ends[connection.end].broken {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let outbound = &mut stream.ends[1 - connection.end].inbound;
            if outbound.sent_end() {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let room = outbound.room(self.config.network.buffer_bytes);
            if room == 0 {
                _outdated_writer = outbound.writer.replace(cx.waker().clone());
                return Poll::Pending;
            }
            if from == to || !self.chance(self.config.network.reset_chance) {
                return Poll::Ready(Ok(self.send(outbound, connection, [from, to], chunks, skip, room)));
            }
            self.break_stream(stream, connection);
            stream.ends[connection.end].inbound.reader.take()
        };
        // Whoever waits for bytes at this end learns as well that none will come.
        reader.into_iter().for_each(Waker::wake);
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }

    /// Puts what there is room for into the pipe, and sends it off in as many segments as drawn.
    fn send(
        &self,
        outbound: &mut Pipe,
        connection: Connection,
        [from, to]: [usize; 2],
        chunks: &[Bytes],
        skip: usize,
        room: usize,
    ) -> usize {
        let sent = self.fill_pipe(outbound, connection, chunks, skip, room);
        let mut rest = sent;
        while rest > 0 {
            let cut = rest > 1 && self.chance(self.config.network.split_chance);
            let segment = if cut { 1 + self.draw_below(rest as u64 - 1) as usize } else { rest };
            outbound.send(segment);
            self.dispatch(outbound, from, to, Event::Deliver(connection.peer()));
            rest -= segment;
        }
        sent
    }

    fn fill_pipe(
        &self,
        pipe: &mut Pipe,
        connection: Connection,
        chunks: &[Bytes],
        mut skip: usize,
        room: usize,
    ) -> usize {
        let mut sent = 0;
        for chunk in chunks {
            let rest = &chunk[skip.min(chunk.len())..];
            skip -= skip.min(chunk.len());
            let part = &rest[..rest.len().min(room - sent)];
            if !part.is_empty() {
                self.note(Mark::Send, connection.print(), fingerprint(part));
                pipe.fill(part);
                sent += part.len();
            }
        }
        sent
    }

    /// Schedules the arrival of what was just sent, behind everything sent before.
    fn dispatch(&self, pipe: &mut Pipe, from: usize, to: usize, event: Event) {
        let at_ns = self.now_ns().saturating_add(self.draw_way_ns(from, to)).max(pipe.last_arrival_ns);
        pipe.last_arrival_ns = at_ns;
        self.schedule(at_ns, event);
    }

    pub(crate) fn poll_receive(
        &self,
        connection: Connection,
        into: &mut BytesMut,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let (taken, writer) = {
            let network = &mut *self.network.borrow_mut();
            let Some(stream) = network.stream(connection) else {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            };
            let end = &mut stream.ends[connection.end];
            if end.inbound.is_finished() {
                return Poll::Ready(Ok(0));
            }
            if end.inbound.has_arrived() {
                (Some(end.inbound.take(into)), end.inbound.writer.take())
            } else if end.broken {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            } else {
                (None, end.inbound.reader.replace(cx.waker().clone()))
            }
        };
        match (taken, writer) {
            (Some(taken), writer) => {
                writer.into_iter().for_each(Waker::wake);
                Poll::Ready(Ok(taken))
            }
            (None, outdated_reader) => {
                drop(outdated_reader);
                Poll::Pending
            }
        }
    }

    /// Sends the end of the stream behind what was written.
    pub(crate) fn shutdown_stream(&self, connection: Connection) -> io::Result<()> {
        let network = &mut *self.network.borrow_mut();
        let stream = network.stream(connection).ok_or(io::ErrorKind::NotConnected)?;
        if stream.ends[connection.end].broken {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let [from, to] = stream.way_from(connection.end);
        let outbound = &mut stream.ends[1 - connection.end].inbound;
        if outbound.send_end() {
            self.dispatch(outbound, from, to, Event::Deliver(connection.peer()));
        }
        Ok(())
    }

    /// Nobody holds this end any more. Bytes left unread break the stream for the other end.
    pub(crate) fn close_stream(&self, connection: Connection) {
        let forgotten = {
            let network = &mut *self.network.borrow_mut();
            let Some(stream) = network.stream(connection) else { return };
            if !std::mem::replace(&mut stream.ends[connection.end].open, false) {
                return;
            }
            self.note(Mark::Close, connection.print(), 0);
            let [from, to] = stream.way_from(connection.end);
            let own = &stream.ends[connection.end];
            let (unread, broken) = (own.inbound.has_arrived(), own.broken);
            let peer = &mut stream.ends[1 - connection.end];
            if !peer.open {
                network.streams.remove(&connection.number)
            } else {
                // The other end of a broken stream knows already, or is about to hear.
                if !broken && unread {
                    self.dispatch(&mut peer.inbound, from, to, Event::Reset(connection.peer()));
                } else if !broken && peer.inbound.send_end() {
                    self.dispatch(&mut peer.inbound, from, to, Event::Deliver(connection.peer()));
                }
                None
            }
        };
        drop(forgotten);
    }

    /// The connection is gone for this end now, and for the other once word of it arrives.
    fn break_stream(&self, stream: &mut Stream, connection: Connection) {
        self.note(Mark::Reset, connection.print(), 1);
        let [from, to] = stream.way_from(connection.end);
        stream.ends[connection.end].broken = true;
        let peer = &mut stream.ends[1 - connection.end];
        self.dispatch(&mut peer.inbound, from, to, Event::Reset(connection.peer()));
    }

    // Arrivals.

    /// The next segment for this end arrives.
    pub(crate) fn deliver(&self, connection: Connection) {
        let reader = {
            let network = &mut *self.network.borrow_mut();
            let Some(stream) = network.streams.get_mut(&connection.number) else { return };
            let [from, to] = stream.way_from(1 - connection.end);
            let end = &mut stream.ends[connection.end];
            if network.blocked.contains(&(from, to)) {
                end.inbound.held += 1;
                return;
            }
            self.note(Mark::Deliver, connection.print(), 0);
            if end.broken {
                return;
            }
            end.inbound.arrive();
            if !end.open && end.inbound.has_arrived() {
                // Bytes for nobody: the machine answers with a reset.
                self.break_stream(stream, connection);
                return;
            }
            end.inbound.reader.take()
        };
        if let Some(waker) = reader {
            waker.wake();
        }
    }

    /// A reset arrives at this end.
    pub(crate) fn deliver_reset(&self, connection: Connection) {
        let wakers = {
            let network = &mut *self.network.borrow_mut();
            let Some(stream) = network.streams.get_mut(&connection.number) else { return };
            let [from, to] = stream.way_from(1 - connection.end);
            if network.blocked.contains(&(from, to)) {
                stream.ends[connection.end].reset_held = true;
                return;
            }
            self.note(Mark::Reset, connection.print(), 0);
            stream.ends[connection.end].broken = true;
            let reader = stream.ends[connection.end].inbound.reader.take();
            let writer = stream.ends[1 - connection.end].inbound.writer.take();
            [reader, writer]
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    // Faults.

    /// A node has lost its power: its listeners go, and its peers hear of it as a reset.
    pub(crate) fn cut_off(&self, node: usize) {
        let mut dead: Vec<Stream> = Vec::new();
        let dead_listeners = {
            let network = &mut *self.network.borrow_mut();
            for (&number, stream) in &mut network.streams {
                for end in 0..2 {
                    let connection = Connection { number, end };
                    if stream.ends[end].node == node && std::mem::replace(&mut stream.ends[end].open, false) {
                        self.break_stream(stream, connection);
                    }
                }
            }
            let gone = network.streams.extract_if(.., |_, stream| stream.ends.iter().all(|end| !end.open));
            dead.extend(gone.map(|(_, stream)| stream));
            network.listeners.extract_if((node, 0)..=(node, u16::MAX), |_, _| true).collect::<Vec<_>>()
        };
        drop(dead);
        drop(dead_listeners);
    }
}

/// Holds what `from` sends to `to` from now on.
pub(crate) fn block(world: &WorldState, from: usize, to: usize) {
    world.note(Mark::Link, (from as u64) << 32 | to as u64, 0);
    world.network.borrow_mut().blocked.insert((from, to));
}

/// Lets it through again; what was held is sent anew.
pub(crate) fn unblock(world: &WorldState, from: usize, to: usize) {
    world.note(Mark::Link, (from as u64) << 32 | to as u64, 1);
    let network = &mut *world.network.borrow_mut();
    network.blocked.remove(&(from, to));
    for (&number, stream) in &mut network.streams {
        for end in 0..2 {
            if stream.way_from(1 - end) != [from, to] {
                continue;
            }
            let arriving = &mut stream.ends[end];
            let connection = Connection { number, end };
            for _ in 0..std::mem::take(&mut arriving.inbound.held) {
                world.dispatch(&mut arriving.inbound, from, to, Event::Deliver(connection));
            }
            if std::mem::take(&mut arriving.reset_held) {
                world.dispatch(&mut arriving.inbound, from, to, Event::Reset(connection));
            }
        }
    }
}

pub(crate) fn unblock_all(world: &WorldState) {
    let blocked: Vec<_> = world.network.borrow().blocked.iter().copied().collect();
    blocked.into_iter().for_each(|(from, to)| unblock(world, from, to));
}
