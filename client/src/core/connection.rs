//! Connections: hello, cutting frames out of received bytes, correlation of answers with requests.
//!
//! Owns what is known of each connection and what is in flight on it. Never decides whom to connect to or what to
//! retry, and holds at most one frame that is not complete, bounded by what the hello agreed on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use corrente_protocol::api::ApiKey;
use corrente_protocol::frame::{Cut, ResponseHeader, cut_response};
use corrente_protocol::hello::{SERVER_HELLO_LEN, ServerHello};
use corrente_protocol::ids::{NodeId, ShardId};

use super::owner::Owner;
use super::time::Micros;
use crate::error::{Error, ErrorKind};

/// A connection, for as long as it lives; numbers are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Names a request on its connection.
pub(crate) type Correlation = u64;

/// Whom a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Destination {
    /// An address of the bootstrap list, any shard.
    Bootstrap(usize),
    /// A shard of a node that metadata named.
    Shard(NodeId, ShardId),
}

/// A request that was sent and not answered.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) api: ApiKey,
    pub(crate) version: u16,
    /// From the request to its answer, and from one answer to the next.
    pub(crate) patience: Duration,
    pub(crate) deadline: Micros,
    pub(crate) owner: Owner,
}

/// An answer, with the request it belongs to.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) correlation: Correlation,
    pub(crate) request: InFlight,
    pub(crate) header: ResponseHeader,
    pub(crate) body: Bytes,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The driver was asked for a socket.
    Connecting,
    /// Our hello is out, the broker's is not here yet.
    Greeting,
    Ready {
        frame_max: u32,
    },
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) destination: Destination,
    pub(crate) address: Arc<str>,
    pub(crate) phase: Phase,
    /// When the hello must be done.
    pub(crate) hello_deadline: Micros,
    /// Begins with a frame, or part of one.
    inbound: BytesMut,
    /// What came behind it and is not joined to it yet; empty whenever all that came was looked at.
    behind: VecDeque<BytesMut>,
    in_flight: BTreeMap<Correlation, InFlight>,
    next_correlation: Correlation,
}

impl Connection {
    pub(crate) fn new(destination: Destination, address: Arc<str>, hello_deadline: Micros) -> Connection {
        Connection {
            destination,
            address,
            phase: Phase::Connecting,
            hello_deadline,
            inbound: BytesMut::new(),
            behind: VecDeque::new(),
            in_flight: BTreeMap::new(),
            next_correlation: 1,
        }
    }

    pub(crate) fn frame_max(&self) -> Option<u32> {
        match self.phase {
            Phase::Ready { frame_max } => Some(frame_max),
            Phase::Connecting | Phase::Greeting => None,
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(crate) fn next_correlation(&mut self) -> Correlation {
        self.next_correlation += 1;
        self.next_correlation
    }

    pub(crate) fn track(&mut self, correlation: Correlation, request: InFlight) {
        let before = self.in_flight.insert(correlation, request);
        assert!(before.is_none(), "correlation id {correlation} is in flight twice");
    }

    pub(crate) fn is_waiting_for(&self, correlation: Correlation) -> bool {
        self.in_flight.contains_key(&correlation)
    }

    /// All that was in flight, in the order it was sent.
    pub(crate) fn into_in_flight(self) -> impl Iterator<Item = (Correlation, InFlight)> {
        self.in_flight.into_iter()
    }

    pub(crate) fn receive(&mut self, bytes: BytesMut) {
        self.behind.push_back(bytes);
    }

    /// Joins to `inbound` what the frame there lacks, and says whether anything came that could be joined.
    ///
    /// No copy where the driver read both pieces into one allocation. Where it did not, no more is copied than belongs
    /// to that frame: those behind it lie well where they are.
    fn join(&mut self, missing: usize) -> bool {
        let Some(mut piece) = self.behind.pop_front() else { return false };
        if self.inbound.is_empty() {
            self.inbound = piece;
        } else if self.inbound.as_ptr_range().end == piece.as_ptr() {
            self.inbound.unsplit(piece);
        } else {
            // The whole frame gets its room at once. What is missing was checked against the largest frame.
            self.inbound.reserve(missing);
            let head = piece.split_to(missing.min(piece.len()));
            self.inbound.extend_from_slice(&head);
            if !piece.is_empty() {
                self.behind.push_front(piece);
            }
        }
        true
    }

    /// The broker's hello, once it is complete.
    pub(crate) fn take_hello(&mut self) -> Result<Option<ServerHello>, Error> {
        while self.inbound.len() < SERVER_HELLO_LEN {
            if !self.join(SERVER_HELLO_LEN - self.inbound.len()) {
                return Ok(None);
            }
        }
        let Some(bytes) = self.inbound.first_chunk::<SERVER_HELLO_LEN>() else { return Ok(None) };
        let hello = ServerHello::decode(bytes)
            .map_err(|error| Error::new(ErrorKind::Corrupt, "hello", error.to_string()))?;
        self.inbound.advance(SERVER_HELLO_LEN);
        Ok(Some(hello))
    }

    /// The next answer, once it is complete. An error means that the stream can no longer be trusted.
    pub(crate) fn take_answer(&mut self, frame_max: u32) -> Result<Option<Answer>, Error> {
        let (header, body) = loop {
            match cut_response(&mut self.inbound, frame_max) {
                Ok(Cut::Frame(header, body)) => break (header, body),
                Ok(Cut::Need(missing)) if self.join(missing) => {}
                Ok(Cut::Need(_)) => return Ok(None),
                Err(error) => return Err(untrusted(error.to_string())),
            }
        };
        let correlation = header.correlation_id;
        let Some(request) = self.in_flight.remove(&correlation) else {
            return Err(untrusted(format!(
                "an answer with correlation id {correlation}, which is not in flight"
            )));
        };
        if header.api != request.api || header.version != request.version {
            let cause = format!(
                "correlation id {correlation} was sent as {:?} version {} and answered as {:?} version {}",
                request.api, request.version, header.api, header.version
            );
            self.in_flight.insert(correlation, request);
            return Err(untrusted(cause));
        }
        if header.has_more() && request.api != ApiKey::Subscribe {
            let cause = format!("more answers are to follow one of {}", request.api);
            self.in_flight.insert(correlation, request);
            return Err(untrusted(cause));
        }
        Ok(Some(Answer { correlation, request, header, body }))
    }
}

fn untrusted(cause: String) -> Error {
    Error::new(ErrorKind::Corrupt, "receive", cause)
}
