//! End to end: records are sent on a schedule and read by the same process, so that one clock sees both.
//!
//! Latency is from the intended send time to the moment a consumer holds the batch. Sender and reader learn different
//! halves of that; they meet in a [`Ledger`], by partition and offset, whichever comes first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::Watch;
use crate::broker::{Arrival, Broker, Reader};
use crate::live::Live;
use crate::plan::{Begin, ConsumePlan, Plan, ProducePlan};
use crate::produce::Sender;
use crate::recorder::Recorder;

/// What one consumer has to read, and what it has read.
#[derive(Debug)]
pub struct Ledger {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    partitions: Vec<Half>,
    /// Nothing more will be acknowledged.
    closed: bool,
    recorder: Recorder,
}

/// Batches of one partition of which one side is not known yet, by base offset. Ends are exclusive.
#[derive(Debug, Default)]
struct Half {
    due: BTreeMap<u64, Duration>,
    read: BTreeMap<u64, Read>,
    acknowledged_end: u64,
    /// None until something was read.
    read_end: Option<u64>,
}

/// A batch that was read before its acknowledgement came.
#[derive(Debug, Clone, Copy)]
struct Read {
    at: Duration,
    records: u64,
    bytes: u64,
}

impl Ledger {
    fn new(partitions: u32, recorder: Recorder) -> Ledger {
        let partitions = (0..partitions).map(|_| Half::default()).collect();
        Ledger { state: Mutex::new(State { partitions, closed: false, recorder }) }
    }

    /// The batch at these offsets was due then.
    pub fn acknowledged(&self, partition: u32, base_offset: u64, end_offset: u64, due: Duration) {
        let State { partitions, recorder, .. } = &mut *self.lock();
        let half = &mut partitions[partition as usize];
        half.acknowledged_end = half.acknowledged_end.max(end_offset);
        match half.read.remove(&base_offset) {
            Some(read) => recorder.arrived(due, read.at, read.records, read.bytes),
            None => drop(half.due.insert(base_offset, due)),
        }
    }

    /// A batch was read then.
    fn read(&self, arrival: &Arrival, at: Duration) {
        let &Arrival { partition, base_offset, end_offset, records, bytes, .. } = arrival;
        let State { partitions, recorder, .. } = &mut *self.lock();
        let half = &mut partitions[partition as usize];
        if let Some(expected) = half.read_end.filter(|expected| *expected != base_offset) {
            // A record that was skipped is lost to this reader, and one that came again stands twice.
            let error = format!("partition {partition} went on at offset {base_offset}, not {expected}");
            recorder.failed(at, records, &error);
        }
        half.read_end = Some(end_offset);
        match half.due.remove(&base_offset) {
            Some(due) => recorder.arrived(due, at, records, bytes),
            None => drop(half.read.insert(base_offset, Read { at, records, bytes })),
        }
    }

    fn failed(&self, at: Duration, error: &dyn std::fmt::Display) {
        self.lock().recorder.failed(at, 1, error);
    }

    fn close(&self) {
        self.lock().closed = true;
    }

    fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Everything that will ever be acknowledged was read.
    fn is_complete(&self) -> bool {
        let state = self.lock();
        state.closed
            && state.partitions.iter().all(|half| half.read_end.unwrap_or(0) >= half.acknowledged_end)
    }

    fn add_to(&self, all: &mut Recorder) {
        all.merge(&self.lock().recorder);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the plan with `feed` as what is sent.
pub async fn tail(
    plan: &Plan,
    work: &ConsumePlan,
    feed: &ProducePlan,
    watch: &mut Watch,
) -> Result<Recorder> {
    let sender = Sender::prepare(plan, feed).await?;
    // In a new topic the start is the end, and needs no question that may be answered after the first record was sent.
    let from = if sender.created() { Begin::Earliest } else { Begin::Latest };
    let mut readers = Vec::new();
    for _ in 0..work.consumers {
        let reader = Broker::connect(plan).await?.read(from, false).await?;
        let recorder = Recorder::with_timeline(feed.warmup, &watch.timeline);
        readers.push((reader, Arc::new(Ledger::new(sender.partitions(), recorder))));
    }
    let ledgers: Vec<Arc<Ledger>> = readers.iter().map(|(_, ledger)| Arc::clone(ledger)).collect();
    let start = Instant::now();
    let reading: Vec<_> = readers
        .into_iter()
        .map(|(reader, ledger)| tokio::spawn(read(reader, ledger, start, Arc::clone(&watch.live))))
        .collect();
    let sent = sender.send(start, &ledgers, watch).await;
    ledgers.iter().for_each(|ledger| ledger.close());
    let mut all = Recorder::new(feed.warmup);
    for reader in reading {
        reader.await.context("a reader of the load generator panicked")?;
    }
    ledgers.iter().for_each(|ledger| ledger.add_to(&mut all));
    all.adopt_slip_and_errors(&sent?);
    Ok(all)
}

/// How long after the last acknowledgement nothing may arrive until a reader gives up.
const SILENCE_MAX: Duration = Duration::from_secs(10);

async fn read(mut reader: Reader, ledger: Arc<Ledger>, start: Instant, live: Arc<Live>) {
    const LOOK_UP: Duration = Duration::from_millis(20);
    let mut last_seen = start.elapsed();
    while !ledger.is_complete() {
        match tokio::time::timeout(LOOK_UP, reader.next()).await {
            Ok(Ok(Some(arrival))) => {
                last_seen = start.elapsed();
                ledger.read(&arrival, last_seen);
                live.add(arrival.records, arrival.bytes);
            }
            Ok(Ok(None)) => return,
            Ok(Err(error)) => return ledger.failed(start.elapsed(), &error),
            Err(_elapsed) if !ledger.is_closed() => last_seen = start.elapsed(),
            Err(_elapsed) => {
                if start.elapsed() - last_seen > SILENCE_MAX {
                    let error = format!("acknowledged records were not read within {SILENCE_MAX:?}");
                    return ledger.failed(start.elapsed(), &error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn arrival(partition: u32, base_offset: u64) -> Arrival {
        Arrival {
            partition,
            base_offset,
            end_offset: base_offset + 10,
            records: 10,
            bytes: 100,
            digest: None,
        }
    }

    fn ledger(partitions: u32) -> Ledger {
        Ledger::new(partitions, Recorder::new(Duration::ZERO))
    }

    fn recorder(ledger: &Ledger) -> Recorder {
        let mut recorder = Recorder::new(Duration::ZERO);
        ledger.add_to(&mut recorder);
        recorder
    }

    #[test]
    fn halves_meet_in_either_order() {
        let ledger = ledger(2);
        ledger.acknowledged(0, 0, 10, MS);
        ledger.read(&arrival(0, 0), 3 * MS);
        // The same offsets of another partition are other records, and here the reader is the faster.
        ledger.read(&arrival(1, 0), 9 * MS);
        assert_eq!(recorder(&ledger).records(), 10);
        ledger.acknowledged(1, 0, 10, 5 * MS);
        let recorder = recorder(&ledger);
        assert_eq!((recorder.records(), recorder.bytes()), (20, 200));
        assert_eq!(recorder.latency_ns().count_between(1_990_000, 2_010_000), 10);
        assert_eq!(recorder.latency_ns().count_between(3_990_000, 4_010_000), 10);
    }

    #[test]
    fn what_is_skipped_or_comes_again_is_an_error() {
        let ledger = ledger(1);
        // Where a reader begins is no matter.
        ledger.read(&arrival(0, 20), MS);
        ledger.read(&arrival(0, 30), MS);
        assert_eq!(recorder(&ledger).errors(), 0);
        ledger.read(&arrival(0, 30), MS);
        ledger.read(&arrival(0, 50), MS);
        let found = recorder(&ledger);
        assert_eq!(found.errors(), 20);
        assert_eq!(found.first_errors()[1], "partition 0 went on at offset 50, not 40");
    }

    #[test]
    fn it_is_complete_when_all_that_was_acknowledged_is_read() {
        let ledger = ledger(2);
        ledger.acknowledged(1, 0, 10, MS);
        ledger.acknowledged(1, 10, 20, MS);
        ledger.close();
        assert!(!ledger.is_complete());
        ledger.read(&arrival(1, 0), MS);
        assert!(!ledger.is_complete());
        ledger.read(&arrival(1, 10), MS);
        assert!(ledger.is_complete());
    }

    #[test]
    fn an_open_ledger_is_never_complete() {
        assert!(!ledger(1).is_complete());
    }
}
