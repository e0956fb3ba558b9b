//! A core, a model broker, and the wire between them, which moves only when a test says so.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use corrente_protocol::compression::Compression;
use corrente_protocol::frame::{Cut, Durability, RequestHeader, cut_request};
use corrente_protocol::hello::{CLIENT_HELLO_LEN, ClientHello};
use corrente_protocol::ids::{ShardId, TopicName};

use super::super::accumulator::{Accumulator, Partitioner, ProducerSettings};
use super::super::call::{CallRequest, CallResponse};
use super::super::model::Model;
use super::super::*;
use crate::error::Error;

pub struct Wire {
    pub shard: Option<ShardId>,
    inbound: BytesMut,
    /// Sent by the core, not read by the broker.
    pub requests: VecDeque<(RequestHeader, Bytes)>,
}

pub struct World {
    pub core: Core,
    pub model: Model,
    pub now: Micros,
    /// Asked for, not opened.
    pub connecting: Vec<ConnectionId>,
    pub wires: BTreeMap<ConnectionId, Wire>,
    pub replies: BTreeMap<CallId, Result<CallResponse, Error>>,
    pub freed: usize,
    pub connects: usize,
}

impl World {
    /// One topic, `t`, with this many partitions spread over the shards.
    pub fn new(seed: u64, shards: u16, partitions: u32) -> World {
        let mut model = Model::new("broker", 7400, shards);
        model.create("t", partitions);
        let mut settings = CoreSettings::new(vec![(Arc::from("seed"), 7400)]);
        settings.request_timeout = Duration::from_secs(10);
        World {
            core: Core::new(settings, fastrand::Rng::with_seed(seed)),
            model,
            now: Micros(1_000_000),
            connecting: Vec::new(),
            wires: BTreeMap::new(),
            replies: BTreeMap::new(),
            freed: 0,
            connects: 0,
        }
    }

    pub fn producer(&mut self, change: impl FnOnce(&mut ProducerSettings)) -> Arc<Accumulator> {
        let mut settings = ProducerSettings {
            idempotent: true,
            topic: topic(),
            durability: Durability::IsrFlushed,
            linger: Duration::ZERO,
            batch_bytes: 64 * 1024,
            batch_records: 1000,
            compression: Compression::None,
            delivery_timeout: Duration::from_secs(60),
            partitioner: Partitioner::Sticky,
            record_bytes_max: 1 << 20,
        };
        change(&mut settings);
        let partitions = u32::try_from(self.model.topics["t"].logs.len()).expect("few partitions");
        self.core.add_producer(ProducerId(1), settings, partitions)
    }

    pub fn handle(&mut self, event: Event) {
        self.core.handle(self.now, event);
        self.act();
    }

    pub fn call(&mut self, id: u64, request: CallRequest) {
        self.handle(Event::Call { call: CallId(id), request, timeout: Duration::from_secs(10) });
    }

    pub fn act(&mut self) {
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Connect { connection, .. } => {
                    self.connects += 1;
                    self.connecting.push(connection);
                }
                Action::Send { connection, chunks } => {
                    let wire = self.wires.get_mut(&connection).expect("sent where it is connected");
                    chunks.iter().for_each(|chunk| wire.inbound.extend_from_slice(chunk));
                    self.read(connection);
                }
                Action::Close { connection } => {
                    self.wires.remove(&connection);
                    self.model.forget(connection.0);
                    self.connecting.retain(|connecting| *connecting != connection);
                }
                Action::Reply { call, result } => {
                    let before = self.replies.insert(call, result);
                    assert!(before.is_none(), "call {call:?} was answered twice");
                }
                Action::RoomFreed { bytes, .. } => self.freed += bytes,
            }
        }
    }

    fn read(&mut self, connection: ConnectionId) {
        let wire = self.wires.get_mut(&connection).expect("the caller found it");
        if wire.shard.is_none() {
            let Some(hello) = wire.inbound.first_chunk::<CLIENT_HELLO_LEN>() else { return };
            let hello = ClientHello::decode(hello).expect("a client hello");
            let _ = wire.inbound.split_to(CLIENT_HELLO_LEN);
            let answer = self.model.hello(hello.wanted_shard);
            wire.shard = Some(answer.shard);
            self.receive(connection, &answer.encode());
            return;
        }
        while let Cut::Frame(header, body) = cut_request(&mut wire.inbound, 1 << 26).expect("good frames") {
            wire.requests.push_back((header, body));
        }
    }

    pub fn receive(&mut self, connection: ConnectionId, bytes: &[u8]) {
        self.handle(Event::Received { connection, bytes: BytesMut::from(bytes) });
    }

    /// Opens every socket asked for.
    pub fn accept(&mut self) {
        for connection in std::mem::take(&mut self.connecting) {
            self.wires.insert(
                connection,
                Wire { shard: None, inbound: BytesMut::new(), requests: VecDeque::new() },
            );
            self.handle(Event::Connected { connection });
        }
    }

    /// The socket breaks, with all that is on the wire.
    pub fn break_wire(&mut self, connection: ConnectionId) {
        self.wires.remove(&connection);
        self.model.forget(connection.0);
        self.connecting.retain(|connecting| *connecting != connection);
        self.handle(Event::Closed { connection, cause: "reset".to_owned() });
    }

    /// The oldest request waiting at any broker's socket.
    pub fn take_request(&mut self, connection: ConnectionId) -> Option<(ShardId, RequestHeader, Bytes)> {
        let wire = self.wires.get_mut(&connection)?;
        let (header, body) = wire.requests.pop_front()?;
        Some((wire.shard.expect("requests follow the hello"), header, body))
    }

    /// The broker serves the oldest request of a connection. `None` if there is none, or its answer comes later.
    pub fn serve(&mut self, connection: ConnectionId) -> Option<Vec<u8>> {
        let (shard, header, body) = self.take_request(connection)?;
        self.model.serve(connection.0, shard, &header, body).map(|chunks| chunks.concat())
    }

    /// The next answer of any subscription, and its connection.
    pub fn sent(&mut self) -> Option<(ConnectionId, Vec<u8>)> {
        let connections = self.connections().into_iter();
        connections.filter_map(|id| Some((id, self.model.sent(id.0)?.concat()))).next()
    }

    /// Brokers say that they are there.
    pub fn beat(&mut self) {
        for connection in self.connections() {
            for heartbeat in self.model.heartbeats(connection.0) {
                self.receive(connection, &heartbeat.concat());
            }
        }
    }

    pub fn connections(&self) -> Vec<ConnectionId> {
        self.wires.keys().copied().collect()
    }

    /// One of the connections, whatever the number; `None` if there is none.
    pub fn pick(&self, any: usize) -> Option<ConnectionId> {
        let place = any.checked_rem(self.wires.len())?;
        self.wires.keys().nth(place).copied()
    }

    /// Serves and answers everything there is until nothing moves. Time stands still.
    pub fn settle(&mut self) {
        loop {
            self.settle_but(|_| false);
            match self.sent() {
                Some((connection, answer)) => self.receive(connection, &answer),
                None => return,
            }
        }
    }

    /// Serves everything but requests for which `hold` says so, and those behind them; those stay on the wire. What
    /// subscriptions have to say does, too.
    pub fn settle_but(&mut self, hold: impl Fn(&RequestHeader) -> bool) {
        loop {
            self.accept();
            let found = self
                .connections()
                .into_iter()
                .find(|id| self.wires[id].requests.front().is_some_and(|(header, _)| !hold(header)));
            let Some(connection) = found else {
                if self.connecting.is_empty() {
                    return;
                }
                continue;
            };
            if let Some(response) = self.serve(connection) {
                self.receive(connection, &response);
            }
        }
    }

    /// Lets time pass to the core's next deadline.
    pub fn tick(&mut self) {
        let at = self.core.next_deadline().expect("something is due");
        self.now = self.now.max(at);
        self.handle(Event::Tick);
    }

    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.core.next_deadline().is_some_and(|at| at <= until) {
            self.tick();
        }
        self.now = until;
    }
}

pub fn topic() -> TopicName {
    TopicName::new("t").expect("a topic name")
}

/// What a future has come to, without waiting.
pub fn peek<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
