//! What has to happen when: one ordered set of deadlines for the whole core.

use std::collections::BTreeSet;

use super::connection::{ConnectionId, Correlation, Destination};
use super::time::Micros;
use super::{CallId, ConsumerId, ProducerId};

/// What a deadline is for. A deadline that fires late or needlessly is harmless: its owner looks again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A request must have been answered.
    Request(ConnectionId, Correlation),
    /// A connection must have said hello.
    Hello(ConnectionId),
    /// A destination may be tried again.
    Reconnect(Destination),
    /// Metadata may or must be asked again.
    Metadata,
    /// A call has to be tried again or given up.
    Call(CallId),
    /// A producer has to look at its partitions: linger, backoff or delivery timeout.
    Producer(ProducerId),
    /// A consumer has to look at its partitions.
    Consumer(ConsumerId),
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeSet<(Micros, Timer)>,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Micros, timer: Timer) {
        self.due.insert((at, timer));
    }

    pub(crate) fn cancel(&mut self, at: Micros, timer: Timer) {
        self.due.remove(&(at, timer));
    }

    pub(crate) fn next(&self) -> Option<Micros> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The earliest deadline at or before `now`, removed.
    pub(crate) fn pop_due(&mut self, now: Micros) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.due.pop_first().map(|(_, timer)| timer)
    }
}
