//! The client as a machine without I/O: events in, actions out.
//!
//! No socket, clock, thread or random source inside: a driver (the tokio transport of this crate, the simulator, a
//! test) does what the actions say and reports what happened. Given the same events at the same times and the same
//! seed, the actions are the same.
//!
//! A driver's duties, all of them:
//!
//! 1. Call [`Core::handle`] for every event, with times that never go back, and with [`Event::Tick`] when
//!    [`Core::next_deadline`] is reached.
//! 2. After each, take all actions with [`Core::poll_action`] and do them in order.
//! 3. Report [`Event::Wake`] when [`Accumulator::push`](accumulator::Accumulator::push) or a consumer's inbox says so.
//!
//! Tickets and inboxes are woken by the core itself; they belong to no runtime.

pub mod accumulator;
pub mod call;
pub(crate) mod completion;
mod connection;
pub mod consume;
mod hub;
mod identity;
pub mod inbox;
mod metadata;
mod owner;
mod produce;
mod retry;
mod time;
mod timers;

#[cfg(test)]
#[path = "../../tests/support/model.rs"]
mod model;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use corrente_protocol::api::{AdjustSubscriptionRequest, ApiKey};

use accumulator::{Accumulator, ProducerSettings};
use call::{CallRequest, CallResponse, Calls};
pub use connection::ConnectionId;
use connection::{Answer, InFlight};
use consume::{ConsumerSettings, Consumers};

use hub::{Hub, decode};
use inbox::Inbox;
use owner::Owner;
use produce::Producers;
pub use retry::RetryPolicy;
pub use time::Micros;
use timers::Timer;

use crate::error::{Error, ErrorKind};

/// Names a call; the driver's choice, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Names a producer; the driver's choice, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub u64);

/// Names a consumer; the driver's choice, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerId(pub u64);

/// What the core was configured to do. Every bound of memory and time that is not a producer's or consumer's own.
#[derive(Debug, Clone)]
pub struct CoreSettings {
    /// Host and port of brokers to ask first; at least one.
    pub bootstrap: Vec<(Arc<str>, u16)>,
    /// How this client calls itself in brokers' logs.
    pub client_id: String,
    /// From the socket's opening to the broker's hello.
    pub connect_timeout: Duration,
    /// From a request to its answer.
    pub request_timeout: Duration,
    /// Waits between attempts.
    pub retry: RetryPolicy,
    /// Bytes of batches a produce request is filled to with several partitions. A single larger batch still goes.
    pub request_bytes_max: usize,
    /// Requests in flight on one connection.
    pub requests_in_flight_max: usize,
    /// Bytes an answer may be larger than what the broker takes as a request.
    pub answer_overhead_max: u32,
    /// Least time between two requests for metadata.
    pub metadata_interval_min: Duration,
    /// Metadata of this age is asked for again.
    pub metadata_age_max: Duration,
    /// How long a cluster may say "no such topic" until a call believes it.
    pub missing_grace: Duration,
}

impl CoreSettings {
    /// The defaults, for these brokers.
    pub fn new(bootstrap: Vec<(Arc<str>, u16)>) -> CoreSettings {
        CoreSettings {
            bootstrap,
            client_id: "corrente".to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(15),
            retry: RetryPolicy::default(),
            request_bytes_max: 4 * 1024 * 1024,
            requests_in_flight_max: 4096,
            answer_overhead_max: 1024 * 1024,
            metadata_interval_min: Duration::from_millis(20),
            metadata_age_max: Duration::from_secs(60),
            missing_grace: Duration::from_millis(500),
        }
    }
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The socket asked for by [`Action::Connect`] is open.
    Connected {
        /// Which.
        connection: ConnectionId,
    },
    /// Bytes arrived. Pieces of one allocation are joined without a copy.
    Received {
        /// Where.
        connection: ConnectionId,
        /// Not empty.
        bytes: BytesMut,
    },
    /// The socket could not be opened, broke, or was closed by the broker. Not to be reported after
    /// [`Action::Close`]; harmless if it is.
    Closed {
        /// Which.
        connection: ConnectionId,
        /// Why, for people.
        cause: String,
    },
    /// The application asks.
    Call {
        /// How the reply will be named.
        call: CallId,
        /// What it asks.
        request: CallRequest,
        /// For the whole of it, attempts and waits included.
        timeout: Duration,
    },
    /// An accumulator or an inbox has news.
    Wake,
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Debug)]
pub enum Action {
    /// Open a socket and report `Connected` or `Closed`.
    Connect {
        /// How events name it.
        connection: ConnectionId,
        /// Name or address.
        host: Arc<str>,
        /// Port.
        port: u16,
    },
    /// Write all chunks, in order, after all that was sent before.
    Send {
        /// Where.
        connection: ConnectionId,
        /// Bytes.
        chunks: Vec<Bytes>,
    },
    /// Close the socket, if it is open.
    Close {
        /// Which.
        connection: ConnectionId,
    },
    /// Answer the application.
    Reply {
        /// Which call.
        call: CallId,
        /// The answer.
        result: Result<CallResponse, Error>,
    },
    /// A producer's batch was settled; its tickets know already.
    RoomFreed {
        /// Whose.
        producer: ProducerId,
        /// The sum of [`accumulator::room_of`] over its records.
        bytes: usize,
    },
}

/// See the module.
pub struct Core {
    hub: Hub,
    calls: Calls,
    producers: Producers,
    consumers: Consumers,
}

impl Core {
    /// A core with no connection yet. It connects when something is asked of it.
    pub fn new(settings: CoreSettings, rng: fastrand::Rng) -> Core {
        Core {
            hub: Hub::new(settings, rng),
            calls: Calls::default(),
            producers: Producers::default(),
            consumers: Consumers::default(),
        }
    }

    /// Begins a producer. The caller knows the topic to have `partitions` partitions (at least 1). The producer ends
    /// when the accumulator is detached and empty.
    pub fn add_producer(
        &mut self,
        id: ProducerId,
        settings: ProducerSettings,
        partitions: u32,
    ) -> Arc<Accumulator> {
        self.producers.add(&mut self.hub, id, settings, partitions)
    }

    /// Begins a consumer. It ends when its inbox is abandoned.
    pub fn add_consumer(&mut self, now: Micros, id: ConsumerId, settings: ConsumerSettings) -> Arc<Inbox> {
        let inbox = self.consumers.add(now, &mut self.hub, id, settings);
        self.pump(now);
        inbox
    }

    /// The next thing to do. To be called until there is none.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.hub.actions.pop_front()
    }

    /// When [`Event::Tick`] is due at the latest.
    pub fn next_deadline(&self) -> Option<Micros> {
        self.hub.timers.next()
    }

    /// Takes in what happened at `now`.
    pub fn handle(&mut self, now: Micros, event: Event) {
        match event {
            Event::Connected { connection } => self.hub.connected(connection),
            Event::Received { connection, bytes } => self.received(now, connection, bytes),
            Event::Closed { connection, cause } => {
                self.lose(now, connection, &Error::new(ErrorKind::Disconnected, "connect", cause));
            }
            Event::Call { call, request, timeout } => {
                self.calls.begin(now, &mut self.hub, call, request, timeout);
            }
            Event::Wake | Event::Tick => {}
        }
        while let Some(timer) = self.hub.timers.pop_due(now) {
            self.due(now, timer);
        }
        self.producers.look(&mut self.hub);
        self.consumers.look(&mut self.hub);
        self.pump(now);
    }

    /// Ends: everything that is not settled fails with kind `Closed`.
    pub fn close(&mut self, now: Micros) {
        for connection in self.hub.connections() {
            self.lose(now, connection, &Error::closed("request"));
        }
        self.producers.close(now, &mut self.hub);
        self.consumers.close();
    }

    fn received(&mut self, now: Micros, connection: ConnectionId, bytes: BytesMut) {
        self.hub.receive(connection, bytes);
        loop {
            match self.hub.next_answer(connection) {
                Ok(None) => return,
                Ok(Some(answer)) => {
                    if let Err(error) = self.answered(now, connection, answer) {
                        return self.distrust(now, connection, &error);
                    }
                }
                Err(error) => return self.distrust(now, connection, &error),
            }
        }
    }

    fn distrust(&mut self, now: Micros, connection: ConnectionId, error: &Error) {
        tracing::warn!(%error, "closing a connection that cannot be trusted");
        self.lose(now, connection, error);
    }

    /// Brings an answer to whose it is. An error means that the broker does not keep to what was agreed.
    fn answered(&mut self, now: Micros, connection: ConnectionId, mut answer: Answer) -> Result<(), Error> {
        let hub = &mut self.hub;
        let (correlation, api, bytes) = (answer.correlation, answer.header.api, answer.body.len());
        tracing::debug!(correlation, ?api, bytes, "answer");
        match std::mem::replace(&mut answer.request.owner, Owner::Metadata) {
            Owner::Metadata => hub.metadata_answered(now, &answer),
            Owner::Call(id) => self.calls.answered(now, hub, id, &answer),
            Owner::Produce(flight) => self.producers.answered(now, hub, flight, &answer),
            Owner::Identity(id) => self.producers.identified(now, hub, id, &answer),
            Owner::Offsets(flight) => self.consumers.offsets_answered(now, hub, flight, &answer),
            Owner::Subscription(subscriber) => {
                if answer.header.has_more() {
                    hub.expect_more(now, connection, &answer, Owner::Subscription(subscriber));
                }
                return self.consumers.sent(now, hub, subscriber, &answer);
            }
            // If it is refused, the credit that was given will never come.
            Owner::Adjustment => decode::<AdjustSubscriptionRequest>(&answer).map(|_| ())?,
        }
        Ok(())
    }

    /// The connection is gone or must go; everything in flight on it goes back to its owner, in order.
    fn lose(&mut self, now: Micros, connection: ConnectionId, cause: &Error) {
        let address = self.hub.address(connection);
        let cause = cause.clone().broker(address.as_deref());
        let lost = self.hub.lose(now, connection, &cause);
        // To those in flight, however it broke, it is a disconnect: worth another try elsewhere.
        let to_owner = match cause.kind() {
            ErrorKind::Timeout | ErrorKind::Disconnected => cause,
            _ => Error::new(ErrorKind::Disconnected, "receive", cause.to_string()),
        };
        for InFlight { owner, .. } in lost {
            let hub = &mut self.hub;
            match owner {
                Owner::Metadata => hub.metadata_failed(now, &to_owner),
                Owner::Call(id) => self.calls.lost(now, hub, id, to_owner.clone()),
                Owner::Produce(flight) => self.producers.lost(now, hub, flight, &to_owner),
                Owner::Identity(id) => self.producers.identity_lost(now, hub, id, &to_owner),
                Owner::Offsets(flight) => self.consumers.offsets_lost(now, hub, &flight, &to_owner),
                Owner::Subscription(subscriber) => {
                    self.consumers.subscription_lost(now, hub, subscriber, &to_owner);
                }
                Owner::Adjustment => {}
            }
        }
    }

    fn due(&mut self, now: Micros, timer: Timer) {
        match timer {
            Timer::Request(connection, correlation) => {
                if self.hub.is_waiting_for(connection, correlation) {
                    let cause = "no answer within the request's time";
                    self.lose(now, connection, &Error::new(ErrorKind::Timeout, "request", cause));
                }
            }
            Timer::Hello(connection) => {
                if self.hub.is_greeting(connection) {
                    let cause = format!("no hello within {:?}", self.hub.settings.connect_timeout);
                    self.lose(now, connection, &Error::new(ErrorKind::Timeout, "connect", cause));
                }
            }
            Timer::Reconnect(_) => self.hub.changed = true,
            // Looked at by every pump.
            Timer::Metadata => {}
            Timer::Call(id) => self.calls.due(now, &mut self.hub, id),
            Timer::Producer(id) => self.producers.due(id),
            Timer::Consumer(id) => self.consumers.due(id),
        }
    }

    /// Lets every flow do what it can do now.
    fn pump(&mut self, now: Micros) {
        loop {
            self.calls.pump(now, &mut self.hub);
            self.producers.pump(now, &mut self.hub);
            self.consumers.pump(now, &mut self.hub);
            self.hub.pump_metadata(now);
            self.hub.changed = false;
            if !self.calls.is_dirty() && !self.producers.is_dirty() && !self.consumers.is_dirty() {
                return;
            }
        }
    }
}

/// The version of an api this build speaks.
fn version_of(api: ApiKey) -> u16 {
    api.newest_version().expect("requests of this crate have a known api")
}
