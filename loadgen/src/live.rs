//! The running counts of a run, for a progress line on another thread, and the wish to stop it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::report::Second;

/// Counts since the start of the run, warm-up included. Only ever grow.
#[derive(Debug, Default)]
pub struct Live {
    records: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
    second: Mutex<Option<Second>>,
    stop: Arc<AtomicBool>,
}

impl Live {
    /// Records acknowledged or read so far.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Payload bytes acknowledged or read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Records that failed so far.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// The last second of the measured part that is over; none during the warm-up.
    pub fn second(&self) -> Option<Second> {
        self.second.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the run to send nothing more, wait for what is in flight, and report.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether [`stop`](Self::stop) was called.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Stops when `stop` is set.
    pub fn stopped_by(stop: Arc<AtomicBool>) -> Live {
        Live { stop, ..Live::default() }
    }

    /// Counts of its own that stop together with `other`.
    pub(crate) fn following(other: &Live) -> Live {
        Live::stopped_by(Arc::clone(&other.stop))
    }

    pub(crate) fn set_second(&self, second: Second) {
        *self.second.lock().unwrap_or_else(PoisonError::into_inner) = Some(second);
    }

    pub(crate) fn add(&self, records: u64, bytes: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_errors(&self, records: u64) {
        self.errors.fetch_add(records, Ordering::Relaxed);
    }
}
