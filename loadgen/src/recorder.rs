//! What a run measured: latency from the intended send time, and the generator's own slip.
//!
//! A latency taken from the moment of *sending* forgets every record that should have been sent while the broker
//! stalled. Here it is taken from the moment the schedule promised, so a stall is charged to every record it delayed.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::timeline::{Interval, RunningSecond, Timeline};

/// One batch that came back, with its four times from the start of the run, none before the one above it.
#[derive(Debug, Clone, Copy)]
pub struct Completion {
    /// When the schedule wanted it sent.
    pub due: Duration,
    /// When, besides, fewer batches were in flight than may be.
    pub possible: Duration,
    /// When it was sent.
    pub sent: Duration,
    /// When its acknowledgement, or its refusal, arrived.
    pub done: Duration,
    /// Records it carried.
    pub records: u64,
    /// Payload bytes it carried: keys and values.
    pub bytes: u64,
}

/// The figures of one worker; workers are merged at the end.
#[derive(Debug)]
pub struct Recorder {
    /// Batches due before this belong to the warm-up: they count for nothing but errors.
    measure_from: Duration,
    /// The second that runs, for the timeline; absent where figures of several workers are added up.
    second: Option<RunningSecond>,
    latency_ns: Histogram<u64>,
    slip_ns: Histogram<u64>,
    held: u64,
    records: u64,
    bytes: u64,
    errors: u64,
    last_done: Duration,
    first_errors: Vec<String>,
}

/// Error texts kept for the report; the rest is only counted.
const FIRST_ERRORS_MAX: usize = 5;
/// The histograms span one nanosecond to one hour at three significant digits; beyond, a value counts as one hour.
const HIGHEST_NS: u64 = 3_600_000_000_000;

impl Recorder {
    /// An empty recorder that leaves out what was due before `measure_from`.
    pub fn new(measure_from: Duration) -> Recorder {
        Recorder {
            measure_from,
            second: None,
            latency_ns: histogram(),
            slip_ns: histogram(),
            held: 0,
            records: 0,
            bytes: 0,
            errors: 0,
            last_done: Duration::ZERO,
            first_errors: Vec::new(),
        }
    }

    /// The same, and each second of it is told to `timeline`.
    pub fn with_timeline(measure_from: Duration, timeline: &Timeline) -> Recorder {
        let mut recorder = Recorder::new(measure_from);
        recorder.second = Some(RunningSecond::new(timeline));
        recorder
    }

    /// Whether a batch due at `due` counts.
    pub fn measures(&self, due: Duration) -> bool {
        due >= self.measure_from
    }

    /// Takes in an acknowledged batch: each of its records has the latency of the batch.
    pub fn acknowledged(&mut self, done: Completion) {
        if !self.measures(done.due) {
            return;
        }
        self.slip_ns.saturating_record(nanos(done.sent.saturating_sub(done.possible)));
        self.held += u64::from(done.possible > done.due);
        self.arrived(done.due, done.done, done.records, done.bytes);
    }

    /// Takes in records that were read without a send time of their own.
    pub fn consumed(&mut self, at: Duration, records: u64, bytes: u64) {
        if !self.measures(at) {
            return;
        }
        self.second_at(at, |second| second.count(records, bytes));
        self.records += records;
        self.bytes += bytes;
        self.last_done = self.last_done.max(at);
    }

    /// Takes in a batch that was due then and has arrived at a reader.
    pub fn arrived(&mut self, due: Duration, at: Duration, records: u64, bytes: u64) {
        if !self.measures(due) {
            return;
        }
        let latency_ns = nanos(at.saturating_sub(due));
        self.second_at(at, |second| {
            second.count(records, bytes);
            second.latency_ns.saturating_record_n(latency_ns, records);
        });
        self.latency_ns.saturating_record_n(latency_ns, records);
        self.records += records;
        self.bytes += bytes;
        self.last_done = self.last_done.max(at);
    }

    /// Takes over how late the sender of what was read was, and what it failed to send.
    pub fn adopt_slip_and_errors(&mut self, sender: &Recorder) {
        self.slip_ns += &sender.slip_ns;
        self.held += sender.held;
        self.errors += sender.errors;
        let room = FIRST_ERRORS_MAX.saturating_sub(self.first_errors.len());
        self.first_errors.extend(sender.first_errors.iter().take(room).cloned());
    }

    /// Counts a batch that was refused or lost, warm-up or not.
    pub fn failed(&mut self, at: Duration, records: u64, error: &dyn std::fmt::Display) {
        self.second_at(at, |second| second.errors += records);
        self.errors += records;
        self.last_done = self.last_done.max(at);
        if self.first_errors.len() < FIRST_ERRORS_MAX {
            self.first_errors.push(error.to_string());
        }
    }

    /// Adds another worker's figures.
    pub fn merge(&mut self, other: &Recorder) {
        self.latency_ns += &other.latency_ns;
        self.slip_ns += &other.slip_ns;
        self.held += other.held;
        self.records += other.records;
        self.bytes += other.bytes;
        self.errors += other.errors;
        self.last_done = self.last_done.max(other.last_done);
        let room = FIRST_ERRORS_MAX.saturating_sub(self.first_errors.len());
        self.first_errors.extend(other.first_errors.iter().take(room).cloned());
    }

    /// From the end of the warm-up to the last acknowledgement.
    pub fn measured(&self) -> Duration {
        self.last_done.saturating_sub(self.measure_from)
    }

    /// So many in the measured time, by the second.
    pub fn per_second(&self, count: u64) -> f64 {
        let measured_s = self.measured().as_secs_f64();
        if measured_s > 0.0 { count as f64 / measured_s } else { 0.0 }
    }

    /// Records acknowledged or read in the measured time.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Payload bytes (keys and values) of [`records`](Self::records).
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Records that were refused or lost.
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// The first few error texts.
    pub fn first_errors(&self) -> &[String] {
        &self.first_errors
    }

    /// Latency in nanoseconds from the intended send time, one value a record.
    pub fn latency_ns(&self) -> &Histogram<u64> {
        &self.latency_ns
    }

    /// How late the generator itself was, in nanoseconds, one value a batch.
    pub fn slip_ns(&self) -> &Histogram<u64> {
        &self.slip_ns
    }

    /// Batches that were due and had to wait, as no more may be in flight.
    pub fn held(&self) -> u64 {
        self.held
    }

    fn second_at(&mut self, at: Duration, record: impl FnOnce(&mut Interval)) {
        if let Some(second) = &mut self.second {
            record(second.at(at.saturating_sub(self.measure_from)));
        }
    }
}

/// An empty histogram of nanoseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, HIGHEST_NS, 3).expect("constant bounds are valid")
}

/// A histogram's values begin at one.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A target that serves one batch at a time in 10 µs, but stands still once for 500 ms.
    fn run_against_a_stalled_target(batches: u64) -> Recorder {
        let mut recorder = Recorder::new(Duration::ZERO);
        let mut free_at = Duration::ZERO;
        for index in 0..batches {
            let due = Duration::from_millis(index);
            let sent = due.max(free_at);
            let stall = if index == 100 { 500 * MS } else { Duration::ZERO };
            let done = sent + stall + Duration::from_micros(10);
            free_at = done;
            recorder.acknowledged(Completion { due, possible: due, sent, done, records: 1, bytes: 256 });
        }
        recorder
    }

    #[test]
    fn a_stall_is_charged_to_every_record_it_delayed() {
        let recorder = run_against_a_stalled_target(1_000);
        // Half of the thousand records were due during or just after the stall: without the schedule only one would be
        // slow.
        let delayed = recorder.latency_ns().count_between(1_000_000, u64::MAX);
        assert!((500..=520).contains(&delayed), "{delayed} records show the stall");
        assert!(recorder.latency_ns().value_at_quantile(0.75) > 200_000_000);
        assert!(recorder.slip_ns().max() > 490_000_000);
    }

    #[test]
    fn warm_up_is_left_out_but_its_errors_are_not() {
        let mut recorder = Recorder::new(10 * MS);
        let batch = |at: Duration| Completion {
            due: at,
            possible: at,
            sent: at,
            done: at + MS,
            records: 5,
            bytes: 50,
        };
        recorder.acknowledged(batch(9 * MS));
        recorder.acknowledged(batch(10 * MS));
        recorder.failed(3 * MS, 5, &"refused");
        assert_eq!((recorder.records(), recorder.bytes(), recorder.errors()), (5, 50, 5));
        assert_eq!(recorder.measured(), MS);
        assert_eq!(recorder.first_errors(), ["refused"]);
    }

    #[test]
    fn waiting_for_room_is_the_brokers_delay_and_not_the_generators() {
        let mut recorder = Recorder::new(Duration::ZERO);
        recorder.acknowledged(Completion {
            due: MS,
            possible: 7 * MS,
            sent: 8 * MS,
            done: 10 * MS,
            records: 1,
            bytes: 1,
        });
        assert_eq!(recorder.held(), 1);
        assert!(recorder.slip_ns().equivalent(recorder.slip_ns().max(), 1_000_000));
        assert!(recorder.latency_ns().equivalent(recorder.latency_ns().max(), 9_000_000));
    }

    #[test]
    fn workers_add_up() {
        let mut left = run_against_a_stalled_target(10);
        let right = run_against_a_stalled_target(20);
        left.merge(&right);
        assert_eq!(left.records(), 30);
        assert_eq!(left.latency_ns().len(), 30);
        assert_eq!(left.slip_ns().len(), 30);
    }
}
