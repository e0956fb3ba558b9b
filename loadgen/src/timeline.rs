//! What happened in each second of the measured part.
//!
//! Workers record into a second of their own and hand it over when it has passed; a thread beside them adds up the
//! seconds of all workers. A histogram takes a third of a megabyte, and a long run has many seconds: those that have
//! passed are kept in HDR's own serialized form ([V2](https://github.com/HdrHistogram/HdrHistogram)), some kilobytes each.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};

use crate::THREADS;
use crate::live::Live;
use crate::recorder::histogram;
use crate::report::Second;

/// One second of one worker, or of all.
#[derive(Debug, Clone)]
pub struct Interval {
    /// Whole seconds from the end of the warm-up to its beginning.
    pub index: u64,
    /// Records acknowledged or read.
    pub records: u64,
    /// Payload bytes of these.
    pub bytes: u64,
    /// Records that failed.
    pub errors: u64,
    /// Latency in nanoseconds, one value a record.
    pub latency_ns: Histogram<u64>,
}

impl Interval {
    /// An empty one.
    pub fn new(index: u64) -> Interval {
        Interval { index, records: 0, bytes: 0, errors: 0, latency_ns: histogram() }
    }

    /// Counts what was acknowledged or read.
    pub fn count(&mut self, records: u64, bytes: u64) {
        self.records += records;
        self.bytes += bytes;
    }

    /// From the end of the warm-up to its beginning.
    pub fn begin(&self) -> Duration {
        Duration::from_secs(self.index)
    }

    fn is_empty(&self) -> bool {
        self.records == 0 && self.errors == 0
    }

    fn add(&mut self, other: &Interval) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.errors += other.errors;
        self.latency_ns += &other.latency_ns;
    }
}

/// Where workers tell of their seconds; clones share it.
#[derive(Debug, Clone)]
pub struct Timeline {
    seconds: mpsc::Sender<Interval>,
}

impl Timeline {
    /// A timeline and the thread that keeps it, and shows each second that is over to `live`.
    pub fn start(live: &Arc<Live>) -> Result<(Timeline, Keeper)> {
        let (seconds, told) = mpsc::channel();
        let kept = Arc::new(Mutex::new(Seconds::default()));
        let thread = {
            let (kept, live) = (Arc::clone(&kept), Arc::clone(live));
            std::thread::Builder::new()
                .name(format!("{THREADS}-seconds"))
                .spawn(move || told.into_iter().for_each(|second| lock(&kept).add(&second, &live)))
                .context("starting the thread of the timeline")?
        };
        Ok((Timeline { seconds }, Keeper { kept, thread }))
    }

    fn tell(&self, second: Interval) {
        if !second.is_empty() {
            // Nobody listens any more only when the run is given up.
            let _ = self.seconds.send(second);
        }
    }
}

/// The second that a worker is in. Told when the next one begins, and when it is dropped.
#[derive(Debug)]
pub struct RunningSecond {
    interval: Interval,
    timeline: Timeline,
}

impl RunningSecond {
    /// The first.
    pub fn new(timeline: &Timeline) -> RunningSecond {
        RunningSecond { interval: Interval::new(0), timeline: timeline.clone() }
    }

    /// The second that holds this moment, or a later one where that has begun: several tasks record not quite in order.
    pub fn at(&mut self, since_warmup: Duration) -> &mut Interval {
        let index = since_warmup.as_secs();
        if index > self.interval.index {
            self.pass_to(index);
        }
        &mut self.interval
    }

    fn pass_to(&mut self, index: u64) {
        self.timeline.tell(std::mem::replace(&mut self.interval, Interval::new(index)));
    }
}

impl Drop for RunningSecond {
    fn drop(&mut self) {
        self.pass_to(u64::MAX);
    }
}

/// Adds up what workers tell.
#[derive(Debug)]
pub struct Keeper {
    kept: Arc<Mutex<Seconds>>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Every second, in order, once every [`Timeline`] is dropped; seconds without a record are absent.
    pub fn finish(self) -> Result<Seconds> {
        self.thread.join().map_err(|_| anyhow::anyhow!("the thread of the timeline panicked"))?;
        Ok(std::mem::take(&mut lock(&self.kept)))
    }
}

/// The seconds of a run.
#[derive(Debug, Default)]
pub struct Seconds {
    seconds: BTreeMap<u64, Packed>,
}

impl Seconds {
    /// In order, each unpacked when it is reached.
    pub fn iter(&self) -> impl Iterator<Item = Interval> {
        self.seconds.iter().map(|(index, packed)| packed.unpack(*index))
    }

    fn add(&mut self, second: &Interval, live: &Live) {
        let is_first_of_its_second =
            self.seconds.last_key_value().is_none_or(|(last, _)| *last < second.index);
        if let (true, Some((index, over))) = (is_first_of_its_second, self.seconds.last_key_value()) {
            live.set_second(Second::of(&over.unpack(*index)));
        }
        let mut sum = match self.seconds.get(&second.index) {
            Some(packed) => packed.unpack(second.index),
            None => Interval::new(second.index),
        };
        sum.add(second);
        self.seconds.insert(second.index, Packed::new(&sum));
    }
}

/// A second with its histogram serialized.
#[derive(Debug)]
struct Packed {
    records: u64,
    bytes: u64,
    errors: u64,
    latency_ns: Vec<u8>,
}

impl Packed {
    fn new(interval: &Interval) -> Packed {
        let mut latency_ns = Vec::new();
        V2Serializer::new()
            .serialize(&interval.latency_ns, &mut latency_ns)
            .expect("a vector takes whatever is written, and counts are far below the format's bound");
        Packed { records: interval.records, bytes: interval.bytes, errors: interval.errors, latency_ns }
    }

    fn unpack(&self, index: u64) -> Interval {
        let latency_ns = Deserializer::new()
            .deserialize(&mut Cursor::new(&self.latency_ns))
            .expect("what was serialized here can be read again");
        Interval { index, records: self.records, bytes: self.bytes, errors: self.errors, latency_ns }
    }
}

fn lock(kept: &Mutex<Seconds>) -> MutexGuard<'_, Seconds> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::Recorder;

    #[test]
    fn seconds_of_several_workers_add_up_in_order() {
        let warmup = Duration::from_secs(2);
        let (timeline, keeper) = Timeline::start(&Arc::default()).unwrap();
        for worker in 0..3 {
            let mut recorder = Recorder::with_timeline(warmup, &timeline);
            for second in [2, 3, 5] {
                let due = Duration::from_secs(second) + Duration::from_millis(worker);
                recorder.arrived(due, due + Duration::from_millis(1 + worker), 10, 100);
            }
            // Belongs to the warm-up, and an error of the warm-up is an error of the run.
            recorder.arrived(Duration::ZERO, Duration::from_secs(1), 10, 100);
            recorder.failed(Duration::from_secs(4), 1, &"refused");
        }
        drop(timeline);
        let seconds: Vec<Interval> = keeper.finish().unwrap().iter().collect();
        let counts: Vec<_> = seconds
            .iter()
            .map(|second| (second.index, second.records, second.bytes, second.errors))
            .collect();
        assert_eq!(counts, [(0, 30, 300, 0), (1, 30, 300, 0), (3, 30, 300, 3)]);
        let latencies = &seconds[0].latency_ns;
        assert_eq!(latencies.len(), 30);
        assert!(latencies.equivalent(latencies.max(), 3_000_000), "{}", latencies.max());
    }

    #[test]
    fn a_second_is_shown_when_the_next_one_has_begun() {
        let live = Arc::new(Live::default());
        let (timeline, keeper) = Timeline::start(&live).unwrap();
        let mut recorder = Recorder::with_timeline(Duration::ZERO, &timeline);
        for second in [0, 1, 2] {
            let due = Duration::from_secs(second);
            recorder.arrived(due, due + Duration::from_millis(1), 10 + second, 100);
        }
        drop((recorder, timeline));
        keeper.finish().unwrap();
        let shown = live.second().unwrap();
        assert_eq!((shown.s, shown.records), (1, 11));
    }

    #[test]
    fn a_run_without_a_record_has_no_seconds() {
        let (timeline, keeper) = Timeline::start(&Arc::default()).unwrap();
        drop(Recorder::with_timeline(Duration::ZERO, &timeline));
        drop(timeline);
        assert_eq!(keeper.finish().unwrap().iter().count(), 0);
    }
}
