//! Produce: append record batches, answer when they are as durable as asked.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use corrente_protocol::api::{
    ProducePartition, ProducePartitionResponse, ProduceRequest, ProduceResponse, StageTimes,
};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::frame::Durability;
use corrente_protocol::ids::{Offset, ShardId, TopicPartition};
use corrente_runtime::executor::spawn;
use corrente_runtime::sync::{Permit, oneshot};
use corrente_runtime::timer::{Instant, now};
use corrente_storage::{Appended, Fenced};

use crate::call::Call;
use crate::error::{Refusal, stopped, unknown_partition};
use crate::meters::Meters;
use crate::partition::Partition;
use crate::shard::{Message, Place, Shard, Slot};

/// Appends in the order of the request, then answers beside the reading of further requests.
///
/// `memory` is the body's share of the shard's memory. It is kept until the records are flushed,
/// even where the client wants to hear earlier: until then the log holds a copy.
pub async fn start(shard: &Rc<Shard>, call: Call, body: Bytes, memory: Permit) {
    let Some((call, request)) = super::decode::<ProduceRequest>(call, body).await else { return };
    let durability = call.header.durability;
    // A client that gave up may have sent the records again: appended now, they would come after those.
    let refuse = || call.is_late().then(|| late(&call));
    let appends = append_all(shard, request.partitions, durability, refuse).await;
    let wants_times = request.wants_stage_times;
    let appends = match appends.single() {
        Ok(single) => return single.answer_when_acknowledged(call, wants_times, memory),
        Err(appends) => appends,
    };
    let appended = appends.appended;
    spawn(async move {
        let Outcome { partitions, receipt, durable, unflushed } = appends.acknowledged().await;
        let stage_times =
            durable.filter(|_| wants_times).map(|durable| stage_times(call.received, appended, durable));
        call.answer_with_receipt(&ProduceResponse { partitions, stage_times }, receipt, None).await;
        unflushed.flushed().await;
        drop(memory);
    })
    .detach();
}

fn late(call: &Call) -> Refusal {
    let line = format!("the deadline of {} ms passed before the append was begun", call.header.deadline_ms);
    Refusal::new(ErrorCode::RequestTimedOut, line)
}

/// The parts of a request, in the logs' memory or refused.
pub struct Appends {
    parts: Vec<(TopicPartition, Result<Pending, Refusal>)>,
    durability: Durability,
    appended: Instant,
    meters: Rc<Meters>,
}

/// What became of a request's records.
pub struct Outcome {
    /// In the order of the request.
    pub partitions: Vec<ProducePartitionResponse>,
    /// The least durability that was reached.
    pub receipt: Durability,
    /// When the last of them was as durable as asked; `None` if none was appended.
    pub durable: Option<Instant>,
    /// What was acknowledged before that.
    pub unflushed: Unflushed,
}

/// Records that were acknowledged and are still in memory alone.
pub struct Unflushed(Vec<(Rc<Partition>, Offset)>);

/// Appends in the order given, but for what `refuse` says no to just before. Returns once everything is in memory, so
/// that what a connection sends next comes after it.
pub async fn append_all(
    shard: &Rc<Shard>,
    partitions: Vec<ProducePartition>,
    durability: Durability,
    refuse: impl Fn() -> Option<Refusal>,
) -> Appends {
    let begun = now();
    let mut bytes = 0;
    let mut parts = Vec::with_capacity(partitions.len());
    for part in partitions {
        let id = TopicPartition { topic: part.topic, partition: part.partition };
        let batch_bytes = part.batches.len();
        let appending = match (refuse(), shard.place(id)) {
            (Some(refusal), _) => Err(refusal),
            (None, Place::Here(slot)) => append(&slot, part).await,
            (None, Place::There(home)) => append_at(shard, home, part, durability).await,
            (None, Place::Unknown) => Err(unknown_partition(id)),
        };
        bytes += appending.as_ref().map_or(0, |_| batch_bytes);
        parts.push((id, appending));
    }
    let appended = now();
    shard.meters.queued(bytes, appended - begun);
    Appends { parts, durability, appended, meters: shard.meters.clone() }
}

impl Appends {
    /// Waits until everything is as durable as asked.
    pub async fn acknowledged(self) -> Outcome {
        let mut partitions = Vec::with_capacity(self.parts.len());
        let mut unflushed = Vec::new();
        let mut receipt = Durability::IsrFlushed;
        for (id, pending) in self.parts {
            if self.durability == Durability::Received {
                unflushed.extend(pending.as_ref().ok().and_then(Pending::unflushed));
            }
            let outcome = match pending {
                Ok(pending) => pending.acknowledged(self.durability).await,
                Err(refusal) => Err(refusal),
            };
            if let Ok(acknowledged) = &outcome {
                receipt = receipt.min(acknowledged.receipt);
            }
            partitions.push(respond(id, outcome));
        }
        let durable = partitions.iter().any(|part| part.error == ErrorCode::None).then(now);
        if let Some(durable) = durable {
            self.meters.acknowledged(durable - self.appended);
        }
        Outcome { partitions, receipt, durable, unflushed: Unflushed(unflushed) }
    }
}

/// The one append of a request, on this shard: what most requests are.
struct Single {
    id: TopicPartition,
    partition: Rc<Partition>,
    record: Appended,
    durability: Durability,
    appended: Instant,
    meters: Rc<Meters>,
}

impl Appends {
    /// Itself back if it is not just that.
    fn single(mut self) -> Result<Single, Appends> {
        match self.parts.pop() {
            Some((id, Ok(Pending::Here(partition, record)))) if self.parts.is_empty() => {
                let Appends { durability, appended, meters, .. } = self;
                Ok(Single { id, partition, record, durability, appended, meters })
            }
            last => {
                self.parts.extend(last);
                Err(self)
            }
        }
    }
}

impl Single {
    /// Answers from whoever learns of the flush, without a task of its own.
    fn answer_when_acknowledged(self, call: Call, wants_times: bool, memory: Permit) {
        let (partition, end, durability) = (self.partition.clone(), self.record.end_offset, self.durability);
        let tell = move |reached: Result<Durability, Fenced>, at: Instant| {
            let outcome = reached.map(|receipt| acknowledged(&self.partition, &self.record, receipt));
            let receipt = outcome.as_ref().map_or(Durability::IsrFlushed, |done| done.receipt);
            if outcome.is_ok() {
                self.meters.acknowledged(at - self.appended);
            }
            let stage_times =
                (wants_times && outcome.is_ok()).then(|| stage_times(call.received, self.appended, at));
            let partitions = vec![respond(self.id, outcome.map_err(Refusal::from))];
            call.answer_soon(&ProduceResponse { partitions, stage_times }, receipt);
            self.keep_until_flushed(memory);
        };
        partition.when_acknowledged(end, durability, Box::new(tell));
    }

    fn keep_until_flushed(self, memory: Permit) {
        let Single { partition, record, .. } = self;
        if partition.log().flushed_offset() >= record.end_offset {
            return;
        }
        spawn(async move {
            // A fenced log holds nothing that could still be flushed.
            let _ = partition.flushed(record.end_offset).await;
            drop(memory);
        })
        .detach();
    }
}

/// Up to now. Replication takes no time while every partition has one replica.
fn stage_times(received: Instant, appended: Instant, durable: Instant) -> StageTimes {
    StageTimes {
        queue: appended - received,
        disk: durable - appended,
        replication: Duration::ZERO,
        send: now() - durable,
    }
}

fn acknowledged(partition: &Partition, record: &Appended, receipt: Durability) -> Acknowledged {
    Acknowledged {
        base_offset: record.base_offset,
        end_offset: record.end_offset,
        log_start_offset: partition.log().log_start_offset(),
        append_time_ms: record.append_time_ms,
        receipt,
    }
}

impl Unflushed {
    /// Waits until it is flushed, or never will be.
    pub async fn flushed(self) {
        for (partition, end) in self.0 {
            // A fenced log holds nothing that could still be flushed.
            let _ = partition.flushed(end).await;
        }
    }
}

/// What one partition's part of a request has come to so far.
enum Pending {
    /// In the log of this shard.
    Here(Rc<Partition>, Appended),
    /// In the log of a sibling, which will say how it ends.
    There(oneshot::Receiver<Result<Acknowledged, Refusal>>),
}

/// One partition's part of a request, done.
#[derive(Clone, Copy)]
struct Acknowledged {
    base_offset: Offset,
    end_offset: Offset,
    log_start_offset: Offset,
    /// The time the broker gave to the records, if the topic has it do so.
    append_time_ms: Option<i64>,
    receipt: Durability,
}

async fn append(slot: &Slot, part: ProducePartition) -> Result<Pending, Refusal> {
    let partition = slot.serving()?;
    let appended = partition.append(&part.batches, part.expected_end_offset).await?;
    Ok(Pending::Here(partition, appended))
}

/// Appends on the shard that owns the partition. Returns when it has, so that what the connection
/// sends next comes after.
async fn append_at(
    shard: &Rc<Shard>,
    home: ShardId,
    part: ProducePartition,
    durability: Durability,
) -> Result<Pending, Refusal> {
    let id = TopicPartition { topic: part.topic, partition: part.partition };
    let (appended, wait) = oneshot::channel();
    let (acknowledged, outcome) = oneshot::channel();
    let task = move |home: Rc<Shard>| {
        spawn(async move {
            let pending = match home.place(id) {
                Place::Here(slot) => append(&slot, part).await,
                // It moved or vanished while the request was on its way.
                Place::There(_) | Place::Unknown => Err(unknown_partition(id)),
            };
            // The asker may have gone; the records are appended all the same.
            let _ = appended.send(());
            let result = match pending {
                Ok(pending) => pending.acknowledged(durability).await,
                Err(refusal) => Err(refusal),
            };
            let _ = acknowledged.send(result);
        })
        .detach();
    };
    shard.send(home, Message::Run(Box::new(task))).await.map_err(stopped)?;
    wait.await.map_err(|_| stopped(home))?;
    Ok(Pending::There(outcome))
}

impl Pending {
    async fn acknowledged(self, durability: Durability) -> Result<Acknowledged, Refusal> {
        match self {
            Pending::Here(partition, appended) => {
                let receipt = partition.acknowledged(appended.end_offset, durability).await?;
                Ok(acknowledged(&partition, &appended, receipt))
            }
            Pending::There(outcome) => outcome.await.unwrap_or_else(|_| {
                Err(Refusal::new(
                    ErrorCode::ShuttingDown,
                    "the partition's shard stopped; the append may have been made",
                ))
            }),
        }
    }

    /// What must still be flushed before the request's memory is free.
    fn unflushed(&self) -> Option<(Rc<Partition>, Offset)> {
        match self {
            Pending::Here(partition, appended) => Some((partition.clone(), appended.end_offset)),
            Pending::There(_) => None,
        }
    }
}

fn respond(id: TopicPartition, outcome: Result<Acknowledged, Refusal>) -> ProducePartitionResponse {
    let (error, message, done) = match outcome {
        Ok(done) => (ErrorCode::None, None, Some(done)),
        Err(refusal) => (refusal.code, Some(refusal.message), None),
    };
    ProducePartitionResponse {
        topic: id.topic,
        partition: id.partition,
        error,
        message,
        base_offset: done.map_or(Offset(0), |done| done.base_offset),
        end_offset: done.map_or(Offset(0), |done| done.end_offset),
        log_append_time_ms: done.and_then(|done| done.append_time_ms).unwrap_or(-1),
        log_start_offset: done.map_or(Offset(0), |done| done.log_start_offset),
        receipt: done.map_or(Durability::Received, |done| done.receipt),
    }
}
