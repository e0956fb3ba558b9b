//! Producers: every record has a name, and its fate is written down.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use corrente_client::partition_for_key;
use corrente_history::{Action, Begun, LogId, Outcome, RecordId, SentRecord, Topic, content};
use fastrand::Rng;
use tokio::sync::Semaphore;

use super::outlet::{Acked, Outgoing, Outlet};
use super::{Phase, Shared};
use crate::plan::{Library, ProducerPlan};

/// One producer of the load, from its own client.
pub(super) async fn run(shared: Arc<Shared>, topic: Topic, plan: ProducerPlan, keys: u32, mut rng: Rng) {
    shared.producers.fetch_add(1, Ordering::SeqCst);
    let sender = Sender::new(&shared, topic, plan, keys).await;
    let mut counter = 0;
    while shared.phase() == Phase::Load {
        let burst = rng.u32(1..=sender.plan.unacked_max.min(50));
        for _ in 0..burst {
            sender.send(counter, &mut rng).await;
            counter += 1;
        }
        let pause_ms = 1_000 * u64::from(burst) / u64::from(sender.plan.rate);
        if !shared.pause(Duration::from_millis(rng.u64(0..=2 * pause_ms))).await {
            break;
        }
    }
    sender.settle().await;
    shared.producers.fetch_sub(1, Ordering::SeqCst);
}

/// A producer, and what it may still have under way.
pub(super) struct Sender {
    shared: Arc<Shared>,
    topic: Topic,
    plan: ProducerPlan,
    keys: u32,
    process: u32,
    outlet: Outlet,
    room: Arc<Semaphore>,
}

impl Sender {
    /// Waits until a broker is there.
    pub(super) async fn new(shared: &Arc<Shared>, topic: Topic, plan: ProducerPlan, keys: u32) -> Sender {
        let outlet = Outlet::open(shared, &topic.name, &plan).await;
        let room = Arc::new(Semaphore::new(plan.unacked_max as usize));
        let process = shared.recorder.process();
        Sender { shared: Arc::clone(shared), topic, plan, keys, process, outlet, room }
    }

    /// Sends one record, once there is room for it. Its answer is waited for by a task of its own.
    pub(super) async fn send(&self, counter: u32, rng: &mut Rng) {
        let room = Arc::clone(&self.room).acquire_owned().await.expect("never closed");
        let shared = &self.shared;
        let (record, sent) = self.draw(counter, rng);
        let begun = shared.recorder.begin(self.process, Action::Send(vec![sent]));
        shared.counters.sent.fetch_add(1, Ordering::SeqCst);
        let pending = self.outlet.send(record).await;
        let (shared, library) = (Arc::clone(shared), self.plan.library);
        tokio::spawn(async move {
            settled(&shared, library, begun, pending.answer().await);
            drop(room);
        });
    }

    /// Waits until everything sent is answered.
    pub(super) async fn settle(self) {
        let all = self.plan.unacked_max;
        let _all = self.room.acquire_many(all).await.expect("never closed");
    }

    fn draw(&self, counter: u32, rng: &mut Rng) -> (Outgoing, SentRecord) {
        let id = RecordId { producer: self.process, counter };
        // Squared, so that some keys are much more frequent than others.
        let key = (rng.f64() * rng.f64() * f64::from(self.keys)) as u32;
        let seldom = rng.u8(..30) == 0;
        let filler =
            rng.usize(if seldom { self.plan.filler_seldom.clone() } else { self.plan.filler.clone() });
        let is_tombstone = self.topic.cleanup.compacts() && rng.u8(..10) == 0;
        // Some records come late: lookups by time must find them all the same.
        let late_ms = if rng.u8(..10) == 0 { rng.i64(0..5_000) } else { 0 };
        let timestamp_ms = self.shared.recorder.wall_ms() - late_ms;
        let key_bytes = content::key(key);
        let partition = partition_for_key(&key_bytes, self.topic.partitions);
        let (value, header) = match is_tombstone {
            true => (None, Some(content::tombstone(id, key))),
            false => (Some(content::value(id, key, filler)), None),
        };
        let bytes = value.as_ref().map_or(0, Bytes::len);
        let log = LogId { topic: self.topic.topic, partition };
        let bytes = u32::try_from(bytes).expect("a record is smaller than 4 GiB");
        let sent = SentRecord { log, id, key, is_tombstone, bytes, timestamp_ms, acked: None };
        (Outgoing { partition, key: key_bytes, value, header, timestamp_ms }, sent)
    }
}

fn settled(shared: &Shared, library: Library, begun: Begun, outcome: Result<Acked, Outcome>) {
    let Acked { place, timestamp_ms } = match outcome {
        Ok(acked) => acked,
        Err(outcome) => {
            shared.recorder.complete(begun, outcome, |_| {});
            shared.counters.failed.fetch_add(1, Ordering::SeqCst);
            return;
        }
    };
    let mut log = None;
    shared.recorder.complete(begun, Outcome::Ok, |action| {
        if let Action::Send(records) = action {
            records[0].acked = Some(place);
            records[0].timestamp_ms = timestamp_ms;
            log = Some(records[0].log);
        }
    });
    if let Some(log) = log {
        let mut topics = shared.topics();
        let end = topics.ends.entry(log).or_default();
        *end = (*end).max(place.offset + 1);
    }
    if library == Library::Librdkafka {
        shared.counters.acked_to_librdkafka.fetch_add(1, Ordering::SeqCst);
    }
    shared.counters.acked.fetch_add(1, Ordering::SeqCst);
}
