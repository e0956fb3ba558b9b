//! Connections: hello, cutting frames out of received bytes, correlation of answers with requests.
//!
//! Owns what is known of each connection and what is in flight on it. Never decides whom to connect to or what to
//! retry, and holds at most one frame that is not complete, bounded by what the hello agreed on.

use std::collections::BTreeMap;
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
    inbound: BytesMut,
    /// Bytes that the frame at the head of `inbound` lacks.
    missing: usize,
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
            missing: 0,
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
        if self.inbound.is_empty() {
            self.inbound = bytes;
        } else {
            // Joined without a copy where the driver read both pieces into one allocation; else the whole frame gets
            // its room at once. What is missing was checked against the largest frame.
            if self.inbound.as_ptr_range().end != bytes.as_ptr() {
                self.inbound.reserve(self.missing.max(bytes.len()));
            }
            self.inbound.unsplit(bytes);
        }
    }

    /// The broker's hello, once it is complete.
    pub(crate) fn take_hello(&mut self) -> Result<Option<ServerHello>, Error> {
        let Some(bytes) = self.inbound.first_chunk::<SERVER_HELLO_LEN>() else { return Ok(None) };
        let hello = ServerHello::decode(bytes)
            .map_err(|error| Error::new(ErrorKind::Corrupt, "hello", error.to_string()))?;
        self.inbound.advance(SERVER_HELLO_LEN);
        Ok(Some(hello))
    }

    /// The next answer, once it is complete. An error means that the stream can no longer be trusted.
    pub(crate) fn take_answer(&mut self, frame_max: u32) -> Result<Option<Answer>, Error> {
        let (header, body) = match cut_response(&mut self.inbound, frame_max) {
            Ok(Cut::Frame(header, body)) => (header, body),
            Ok(Cut::Need(missing)) => {
                self.missing = missing;
                return Ok(None);
            }
            Err(error) => return Err(untrusted(error.to_string())),
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
