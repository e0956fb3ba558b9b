//! What a shard has done since its start, in counts and times.
//!
//! Counting is a few instructions on the shard's own memory; whoever watches asks for a [`MetersReport`].

use std::cell::Cell;
use std::time::Duration;

use crate::histogram::{Histogram, HistogramReport};

/// See the module.
#[derive(Debug, Default)]
pub struct Meters {
    produce_requests: Cell<u64>,
    appended_bytes: Cell<u64>,
    fetch_requests: Cell<u64>,
    fetched_bytes: Cell<u64>,
    /// From a produce request to its batches in the logs' windows: validated, in their turn, with room.
    queued: Histogram,
    /// From there until they were as durable as asked for.
    acknowledged: Histogram,
}

/// The same, up to some moment.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the counts are named for what they count; the times are those of `Meters`")]
pub struct MetersReport {
    pub produce_requests: u64,
    pub appended_bytes: u64,
    pub fetch_requests: u64,
    pub fetched_bytes: u64,
    /// How long batches took from their request into the logs' windows.
    pub queued: HistogramReport,
    /// How long they took from there until they were as durable as asked for.
    pub acknowledged: HistogramReport,
}

impl Meters {
    /// The batches of a produce request, of so many bytes, are in the logs' windows.
    pub fn queued(&self, bytes: usize, took: Duration) {
        add(&self.produce_requests, 1);
        add(&self.appended_bytes, bytes as u64);
        self.queued.record(took);
    }

    /// They are as durable as asked for.
    pub fn acknowledged(&self, took: Duration) {
        self.acknowledged.record(took);
    }

    /// A fetch was answered with so many bytes of batches.
    pub fn fetched(&self, bytes: usize) {
        add(&self.fetch_requests, 1);
        add(&self.fetched_bytes, bytes as u64);
    }

    /// All that was counted since the start.
    pub fn report(&self) -> MetersReport {
        MetersReport {
            produce_requests: self.produce_requests.get(),
            appended_bytes: self.appended_bytes.get(),
            fetch_requests: self.fetch_requests.get(),
            fetched_bytes: self.fetched_bytes.get(),
            queued: self.queued.report(),
            acknowledged: self.acknowledged.report(),
        }
    }
}

fn add(count: &Cell<u64>, more: u64) {
    count.set(count.get().wrapping_add(more));
}
