//! Producers: every record has a name, and its fate is written down.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use corrente_client::{Error, Producer, Receipt, Record, Ticket, partition_for_key};
use corrente_history::{Action, Begun, LogId, Outcome, Place, RecordId, SentRecord, Topic, content};
use fastrand::Rng;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Phase, RETRY_WAIT, Shared};
use crate::plan::ProducerPlan;
use crate::recorder::outcome_of;

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
    producer: Producer,
    room: Arc<Semaphore>,
}

impl Sender {
    /// Waits until a broker is there.
    pub(super) async fn new(shared: &Arc<Shared>, topic: Topic, plan: ProducerPlan, keys: u32) -> Sender {
        let client = shared.connect().await;
        let producer = loop {
            let builder = client
                .producer(&topic.name)
                .durability(plan.durability)
                .linger(plan.linger)
                .batch_bytes(plan.batch_bytes)
                .compression(plan.compression)
                .delivery_timeout(shared.plan.patience);
            match builder.build().await {
                Ok(producer) => break producer,
                Err(_) => tokio::time::sleep(RETRY_WAIT).await,
            }
        };
        let room = Arc::new(Semaphore::new(plan.unacked_max as usize));
        let process = shared.recorder.process();
        Sender { shared: Arc::clone(shared), topic, plan, keys, process, producer, room }
    }

    /// Sends one record, once there is room for it. Its answer is waited for by a task of its own.
    pub(super) async fn send(&self, counter: u32, rng: &mut Rng) {
        let room = Arc::clone(&self.room).acquire_owned().await.expect("never closed");
        let shared = &self.shared;
        let (record, sent) = self.draw(counter, rng);
        let begun = shared.recorder.begin(self.process, Action::Send(vec![sent]));
        shared.counters.sent.fetch_add(1, Ordering::SeqCst);
        match self.producer.send(record).await {
            Ok(ticket) => drop(tokio::spawn(await_receipt(Arc::clone(shared), begun, ticket, room))),
            Err(error) => settled(shared, begun, Err(error)),
        }
    }

    /// Waits until everything sent is answered.
    pub(super) async fn settle(self) {
        let all = self.plan.unacked_max;
        let _all = self.room.acquire_many(all).await.expect("never closed");
    }

    fn draw(&self, counter: u32, rng: &mut Rng) -> (Record, SentRecord) {
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
        let (record, bytes) = if is_tombstone {
            let header = content::tombstone(id, key);
            (Record::tombstone(key_bytes).header(content::TOMBSTONE_HEADER, header), 0)
        } else {
            let value = content::value(id, key, filler);
            let bytes = value.len();
            (Record::value(value).key(key_bytes), bytes)
        };
        let log = LogId { topic: self.topic.topic, partition };
        let bytes = u32::try_from(bytes).expect("a record is smaller than 4 GiB");
        let sent = SentRecord { log, id, key, is_tombstone, bytes, timestamp_ms, acked: None };
        (record.timestamp_ms(timestamp_ms), sent)
    }
}

async fn await_receipt(shared: Arc<Shared>, begun: Begun, ticket: Ticket, _room: OwnedSemaphorePermit) {
    let outcome = ticket.await;
    settled(&shared, begun, outcome);
}

fn settled(shared: &Shared, begun: Begun, outcome: Result<Receipt, Error>) {
    match outcome {
        Ok(receipt) => {
            let place = Place { partition: receipt.partition, offset: receipt.offset.0 };
            let mut log = None;
            shared.recorder.complete(begun, Outcome::Ok, |action| {
                if let Action::Send(records) = action {
                    records[0].acked = Some(place);
                    records[0].timestamp_ms = receipt.timestamp_ms;
                    log = Some(records[0].log);
                }
            });
            if let Some(log) = log {
                let mut topics = shared.topics();
                let end = topics.ends.entry(log).or_default();
                *end = (*end).max(place.offset + 1);
            }
            shared.counters.acked.fetch_add(1, Ordering::SeqCst);
        }
        Err(error) => {
            shared.recorder.complete(begun, outcome_of(&error), |_| {});
            shared.counters.failed.fetch_add(1, Ordering::SeqCst);
        }
    }
}
