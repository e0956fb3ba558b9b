//! What every flow shares: connections and whom they reach, metadata, deadlines, randomness, and the queue of actions.
//!
//! Flows (calls, producers, consumers) ask it for a ready connection and send through it. It never knows what a
//! request is about.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use corrente_protocol::api::metadata::MetadataRequest;
use corrente_protocol::api::{Message, Request};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::frame::{Durability, FRAME_HEADER_LEN, RequestHeader, request_frame};
use corrente_protocol::hello::{ClientHello, ServerHello};
use corrente_protocol::ids::{PartitionIndex, ShardId, TopicName};

use super::connection::{Answer, Connection, ConnectionId, Correlation, Destination, InFlight, Phase};
use super::metadata::{Metadata, RefreshSettings, Route};
use super::owner::Owner;
use super::time::Micros;
use super::timers::{Timer, Timers};
use super::{Action, CoreSettings};
use crate::error::{Error, ErrorKind};

/// The connection to a destination, or when one may be tried again.
#[derive(Debug, Default)]
struct Link {
    open: Option<ConnectionId>,
    /// Attempts that failed since the last one that got as far as a hello.
    failures: u32,
    not_before: Micros,
}

pub(crate) struct Hub {
    pub(crate) settings: CoreSettings,
    pub(crate) metadata: Metadata,
    pub(crate) timers: Timers,
    pub(crate) actions: VecDeque<Action>,
    pub(crate) rng: fastrand::Rng,
    /// Something happened that a flow waiting for a connection or a leader has to look at.
    pub(crate) changed: bool,
    connections: BTreeMap<ConnectionId, Connection>,
    links: BTreeMap<Destination, Link>,
    opened: u64,
    /// Whose turn it is when any broker will do.
    turn: usize,
    /// Why the last connection failed, for callers whose time runs out without one.
    pub(crate) last_failure: Option<Error>,
}

/// A request is larger than the connection allows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TooLarge {
    pub(crate) len: usize,
    pub(crate) max: u32,
}

impl Hub {
    pub(crate) fn new(settings: CoreSettings, rng: fastrand::Rng) -> Hub {
        assert!(!settings.bootstrap.is_empty(), "at least one bootstrap address");
        Hub {
            settings,
            metadata: Metadata::default(),
            timers: Timers::default(),
            actions: VecDeque::new(),
            rng,
            changed: false,
            connections: BTreeMap::new(),
            links: BTreeMap::new(),
            opened: 0,
            turn: 0,
            last_failure: None,
        }
    }

    // Whom to send to.

    /// Where requests for a partition go, if a leader is known. Asks for metadata if none is.
    pub(crate) fn route(&mut self, topic: &TopicName, partition: PartitionIndex) -> Option<Route> {
        self.metadata.route(topic, partition)
    }

    /// A connection to the destination that takes requests now. If there is none, one is being opened, and the
    /// caller has to look again when something `changed`.
    pub(crate) fn ready(&mut self, now: Micros, destination: Destination) -> Option<ConnectionId> {
        let open = self.links.get(&destination).and_then(|link| link.open);
        match open {
            Some(id) => self.takes_requests(id).then_some(id),
            None => {
                self.open(now, destination);
                None
            }
        }
    }

    /// A connection to anyone; else like `ready`.
    pub(crate) fn ready_any(&mut self, now: Micros) -> Option<ConnectionId> {
        let ready = self.connections.keys().copied().find(|id| self.takes_requests(*id));
        if ready.is_some() {
            return ready;
        }
        if self.connections.values().any(|connection| connection.frame_max().is_none()) {
            return None;
        }
        let bootstrap = (0..self.settings.bootstrap.len()).map(Destination::Bootstrap);
        let candidates: Vec<Destination> = self.metadata.anyone().chain(bootstrap).collect();
        for step in 0..candidates.len() {
            let turn = (self.turn + step) % candidates.len();
            if self.open(now, candidates[turn]) {
                self.turn = turn + 1;
                break;
            }
        }
        None
    }

    /// Whether a connection takes a request now. If it does not, the caller has to look again when something `changed`.
    pub(crate) fn takes_requests(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_some_and(|connection| {
            connection.frame_max().is_some() && connection.in_flight() < self.settings.requests_in_flight_max
        })
    }

    /// True if an attempt was begun.
    fn open(&mut self, now: Micros, destination: Destination) -> bool {
        let link = self.links.entry(destination).or_default();
        if link.open.is_some() {
            return false;
        }
        if now < link.not_before {
            self.timers.set(link.not_before, Timer::Reconnect(destination));
            return false;
        }
        let (host, port) = match destination {
            Destination::Bootstrap(index) => self.settings.bootstrap[index].clone(),
            Destination::Shard(node, _) => match self.metadata.address(node) {
                Some(address) => address,
                None => {
                    self.metadata.stale = true;
                    return false;
                }
            },
        };
        self.opened += 1;
        let id = ConnectionId(self.opened);
        link.open = Some(id);
        let address: Arc<str> = format!("{host}:{port}").into();
        let hello_deadline = now + self.settings.connect_timeout;
        self.timers.set(hello_deadline, Timer::Hello(id));
        tracing::debug!(connection = id.0, %address, ?destination, "connecting");
        self.connections.insert(id, Connection::new(destination, address, hello_deadline));
        self.actions.push_back(Action::Connect { connection: id, host, port });
        true
    }

    // Sending.

    pub(crate) fn send<R: Request>(
        &mut self,
        now: Micros,
        id: ConnectionId,
        request: &R,
        durability: Durability,
        timeout: Duration,
        owner: Owner,
    ) -> Result<Correlation, (TooLarge, Owner)> {
        let connection = self.connections.get_mut(&id).expect("a ready connection is known");
        let frame_max = connection.frame_max().expect("a ready connection has said hello");
        let version = super::version_of(R::API);
        let correlation = connection.next_correlation();
        let header = RequestHeader {
            api: R::API,
            version,
            flags: 0,
            correlation_id: correlation,
            deadline_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1),
            durability,
            body_len: 0,
        };
        let chunks = request_frame(header, |writer| request.encode(version, writer));
        let len = chunks.iter().map(Bytes::len).sum::<usize>() - FRAME_HEADER_LEN;
        if u32::try_from(len).map_or(true, |len| len > frame_max) {
            return Err((TooLarge { len, max: frame_max }, owner));
        }
        let deadline = now + timeout;
        self.timers.set(deadline, Timer::Request(id, correlation));
        let in_flight = InFlight { api: R::API, version, patience: timeout, deadline, owner };
        connection.track(correlation, in_flight);
        tracing::debug!(connection = id.0, correlation, api = ?R::API, bytes = len, "request");
        self.actions.push_back(Action::Send { connection: id, chunks });
        Ok(correlation)
    }

    // What comes back.

    pub(crate) fn connected(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        assert_eq!(connection.phase, Phase::Connecting, "a connection opens once");
        connection.phase = Phase::Greeting;
        let wanted = match connection.destination {
            Destination::Bootstrap(_) => ShardId::ANY,
            Destination::Shard(_, shard) => shard,
        };
        let hello = ClientHello::new(&self.settings.client_id, wanted).encode();
        self.actions.push_back(Action::Send { connection: id, chunks: vec![Bytes::copy_from_slice(&hello)] });
    }

    /// Takes in received bytes. Bytes of a connection that is gone are ignored.
    pub(crate) fn receive(&mut self, id: ConnectionId, bytes: BytesMut) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.receive(bytes);
        }
    }

    /// The next complete answer of a connection. An error means that the connection has to be closed.
    pub(crate) fn next_answer(&mut self, id: ConnectionId) -> Result<Option<Answer>, Error> {
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(None) };
        if connection.phase == Phase::Greeting {
            match connection.take_hello()? {
                None => return Ok(None),
                Some(hello) => self.greeted(id, hello)?,
            }
        }
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(None) };
        let Some(frame_max) = connection.frame_max() else { return Ok(None) };
        let full = connection.in_flight() >= self.settings.requests_in_flight_max;
        // A response may carry what a request may: the agreed maximum, and the room the answer's own fields take.
        let answer = connection.take_answer(frame_max.saturating_add(self.settings.answer_overhead_max))?;
        if let Some(answer) = &answer {
            self.timers.cancel(answer.request.deadline, Timer::Request(id, answer.correlation));
            self.changed |= full;
        }
        Ok(answer)
    }

    /// The request of an answer stays in flight: another answer to it is to come, as soon as the first had to.
    pub(crate) fn expect_more(&mut self, now: Micros, id: ConnectionId, answer: &Answer, owner: Owner) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let InFlight { api, version, patience, .. } = answer.request;
        let deadline = now + patience;
        self.timers.set(deadline, Timer::Request(id, answer.correlation));
        connection.track(answer.correlation, InFlight { api, version, patience, deadline, owner });
    }

    fn greeted(&mut self, id: ConnectionId, hello: ServerHello) -> Result<(), Error> {
        if hello.error != ErrorCode::None {
            return Err(Error::from_code(hello.error, "connect", Some(&hello.text)));
        }
        let connection = self.connections.get_mut(&id).expect("the caller found it");
        connection.phase = Phase::Ready { frame_max: hello.frame_len_max };
        self.timers.cancel(connection.hello_deadline, Timer::Hello(id));
        tracing::debug!(connection = id.0, node = hello.node.0, shard = hello.shard.0, "connected");
        if let Some(link) = self.links.get_mut(&connection.destination) {
            link.failures = 0;
        }
        self.changed = true;
        Ok(())
    }

    /// Forgets a connection that broke or has to be broken. Returns what was in flight, in the order it was sent.
    pub(crate) fn lose(&mut self, now: Micros, id: ConnectionId, cause: &Error) -> Vec<InFlight> {
        let Some(connection) = self.connections.remove(&id) else { return Vec::new() };
        tracing::debug!(connection = id.0, address = %connection.address, %cause, "connection lost");
        self.timers.cancel(connection.hello_deadline, Timer::Hello(id));
        let link = self.links.entry(connection.destination).or_default();
        link.open = None;
        link.failures = link.failures.saturating_add(1);
        link.not_before = now + self.settings.retry.wait(link.failures, &mut self.rng);
        self.timers.set(link.not_before, Timer::Reconnect(connection.destination));
        self.metadata.stale = true;
        self.changed = true;
        self.last_failure = Some(cause.clone());
        self.actions.push_back(Action::Close { connection: id });
        let timers = &mut self.timers;
        connection
            .into_in_flight()
            .map(|(correlation, request)| {
                timers.cancel(request.deadline, Timer::Request(id, correlation));
                request
            })
            .collect()
    }

    pub(crate) fn connections(&self) -> Vec<ConnectionId> {
        self.connections.keys().copied().collect()
    }

    pub(crate) fn address(&self, id: ConnectionId) -> Option<Arc<str>> {
        self.connections.get(&id).map(|connection| Arc::clone(&connection.address))
    }

    pub(crate) fn is_waiting_for(&self, id: ConnectionId, correlation: u64) -> bool {
        self.connections.get(&id).is_some_and(|connection| connection.is_waiting_for(correlation))
    }

    pub(crate) fn is_greeting(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_some_and(|connection| connection.frame_max().is_none())
    }

    // Metadata's own requests.

    /// Asks for metadata if it is time to.
    pub(crate) fn pump_metadata(&mut self, now: Micros) {
        if self.metadata.wants_refresh(now)
            && let Some(id) = self.ready_any(now)
        {
            let request = MetadataRequest { topics: Some(self.metadata.interest()) };
            let timeout = self.settings.request_timeout;
            match self.send(now, id, &request, Durability::Received, timeout, Owner::Metadata) {
                Ok(_) => self.metadata.in_flight = true,
                Err((too_large, _)) => self.metadata_failed(now, &too_large.error("metadata")),
            }
        }
        if let Some(at) = self.metadata.next_refresh().filter(|at| *at > now) {
            self.timers.set(at, Timer::Metadata);
        }
    }

    pub(crate) fn metadata_answered(&mut self, now: Micros, answer: &Answer) {
        match decode::<MetadataRequest>(answer) {
            Ok(response) => {
                let settings = RefreshSettings {
                    interval_min: self.settings.metadata_interval_min,
                    age_max: self.settings.metadata_age_max,
                };
                self.metadata.refreshed(now, &response, settings);
                self.changed = true;
            }
            Err(error) => self.metadata_failed(now, &error),
        }
    }

    pub(crate) fn metadata_failed(&mut self, now: Micros, error: &Error) {
        tracing::debug!(%error, "metadata request failed");
        self.metadata.failures = self.metadata.failures.saturating_add(1);
        let wait = self.settings.retry.wait(self.metadata.failures, &mut self.rng);
        self.metadata.failed(now, wait);
    }
}

impl TooLarge {
    pub(crate) fn error(self, operation: &'static str) -> Error {
        let cause = format!("a request of {} bytes exceeds the {} the broker takes", self.len, self.max);
        Error::new(ErrorKind::MessageTooLarge, operation, cause)
    }
}

/// The body of an answer, or the error the broker sent in its place.
pub(crate) fn decode<R: Request>(answer: &Answer) -> Result<R::Response, Error> {
    let version = answer.header.version;
    if answer.header.is_error() {
        let refusal = corrente_protocol::api::ErrorResponse::decode(version, answer.body.clone())
            .map_err(|error| Error::new(ErrorKind::Corrupt, "receive", error.to_string()))?;
        return Err(Error::from_code(refusal.error, "request", refusal.message.as_deref()));
    }
    R::Response::decode(version, answer.body.clone())
        .map_err(|error| Error::new(ErrorKind::Corrupt, "receive", format!("{:?} response: {error}", R::API)))
}
