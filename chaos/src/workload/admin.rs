//! Administrators: one asks for offsets, others create topics, use them and delete them again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::bail;
use corrente_client::{
    Client, Compression, DeleteBefore, Durability, Error, ErrorKind, Offset, OffsetSpec, PartitionOffset,
};
use corrente_history::{Action, LogId, OffsetAnswer, OffsetQuery, Outcome, RefusalKind, Topic};
use fastrand::Rng;

use super::{RETRY_WAIT, Shared, produce, read};
use crate::plan::{Library, ProducerPlan, TopicPlan};
use crate::recorder::outcome_of;

/// Names that are used again and again: offsets must never follow a name.
const NAMES: u32 = 4;

/// Asks for bounds of topics now and then.
pub(super) async fn ask(shared: Arc<Shared>, topics: Vec<u32>, mut rng: Rng) {
    let client = shared.connect().await;
    let process = shared.recorder.process();
    while shared.pause(Duration::from_millis(rng.u64(1..200))).await {
        let topic = shared.topic(topics[rng.usize(..topics.len())]);
        let (query, spec) = match rng.u8(..8) {
            0..2 => (OffsetQuery::Earliest, OffsetSpec::Earliest),
            2..5 => (OffsetQuery::Latest, OffsetSpec::Latest),
            5 => (OffsetQuery::MaxTimestamp, OffsetSpec::MaxTimestamp),
            // Some are earlier than any record, some later.
            _ => {
                let age_ms = (rng.f64() * rng.f64() * 60_000.0) as i64 - 1_000;
                let at_ms = shared.recorder.wall_ms() - age_ms;
                (OffsetQuery::Timestamp(at_ms), OffsetSpec::Timestamp(at_ms))
            }
        };
        // What was not answered stands in the history.
        let _ = list_offsets(&shared, &client, process, &topic, query, spec, false).await;
    }
}

/// Asks for one offset of every partition of a topic.
pub(super) async fn list_offsets(
    shared: &Shared,
    client: &Client,
    process: u32,
    topic: &Topic,
    query: OffsetQuery,
    spec: OffsetSpec,
    is_final: bool,
) -> anyhow::Result<()> {
    let logs = (0..topic.partitions).map(|partition| LogId { topic: topic.topic, partition });
    let begun: Vec<_> = logs
        .map(|log| {
            let action = Action::ListOffsets { log, query, answer: None };
            if is_final {
                shared.recorder.begin_final(process, action)
            } else {
                shared.recorder.begin(process, action)
            }
        })
        .collect();
    let told = ask_patiently(shared, client, topic, spec).await;
    match told {
        Ok(told) if told.len() == begun.len() => {
            for (begun, told) in begun.into_iter().zip(told) {
                let found = OffsetAnswer { offset: told.offset.0, timestamp_ms: told.timestamp_ms };
                shared.counters.offsets.fetch_add(1, Ordering::Relaxed);
                shared.recorder.complete(begun, Outcome::Ok, |action| {
                    if let Action::ListOffsets { answer, .. } = action {
                        *answer = Some(found);
                    }
                });
            }
            Ok(())
        }
        // What was begun has no answer, and the history says so.
        Ok(told) => bail!("topic {} has {} partitions, {} were told", topic.name, begun.len(), told.len()),
        Err(error) => {
            begun.into_iter().for_each(|begun| shared.recorder.complete(begun, outcome_of(&error), |_| {}));
            Err(error.into())
        }
    }
}

/// The SDK tries for as long as one request may take; clients of this load have more patience.
async fn ask_patiently(
    shared: &Shared,
    client: &Client,
    topic: &Topic,
    spec: OffsetSpec,
) -> Result<Vec<PartitionOffset>, Error> {
    let began_ns = shared.recorder.now_ns();
    loop {
        let told = client.admin().list_offsets(&topic.name, spec).await;
        let tried = Duration::from_nanos(shared.recorder.now_ns() - began_ns);
        match told {
            Err(error) if error.kind() == ErrorKind::TopicNotFound => return Err(error),
            Err(error) if error.is_retryable() && tried < shared.plan.patience => {
                tokio::time::sleep(RETRY_WAIT).await;
            }
            told => return told,
        }
    }
}

/// Deletes the oldest records of some topics now and then; sometimes more than there are.
pub(super) async fn delete_records(shared: Arc<Shared>, topics: Vec<u32>, mut rng: Rng) {
    let client = shared.connect().await;
    let process = shared.recorder.process();
    let mut kept_from: BTreeMap<LogId, u64> = BTreeMap::new();
    while shared.pause(Duration::from_millis(rng.u64(1..1_500))).await {
        let topic = shared.topic(topics[rng.usize(..topics.len())]);
        let log = LogId { topic: topic.topic, partition: rng.u32(..topic.partitions) };
        let end = shared.topics().ends.get(&log).copied().unwrap_or(0);
        let start = kept_from.entry(log).or_default();
        let before_offset = match rng.u8(..10) {
            0 => end + rng.u64(1..1_000_000),
            1 => rng.u64(0..=*start),
            2 => end,
            _ => (*start + rng.u64(0..=200)).min(end),
        };
        let action = Action::DeleteRecords { log, before_offset, log_start: None };
        let begun = shared.recorder.begin(process, action);
        let told = delete_patiently(&shared, &client, &topic, log.partition, Offset(before_offset)).await;
        let outcome = told.as_ref().map_or_else(outcome_of, |_| Outcome::Ok);
        if let Ok(told) = &told {
            *start = told.0;
            shared.counters.deletions.fetch_add(1, Ordering::Relaxed);
        }
        shared.recorder.complete(begun, outcome, |action| {
            if let Action::DeleteRecords { log_start, .. } = action {
                *log_start = told.ok().map(|told| told.0);
            }
        });
    }
}

async fn delete_patiently(
    shared: &Shared,
    client: &Client,
    topic: &Topic,
    partition: u32,
    before: Offset,
) -> Result<Offset, Error> {
    let began_ns = shared.recorder.now_ns();
    loop {
        let told = client.admin().delete_records(&topic.name, partition, DeleteBefore::Offset(before)).await;
        let tried = Duration::from_nanos(shared.recorder.now_ns() - began_ns);
        match told {
            Err(error) if error.is_retryable() && tried < shared.plan.patience => {
                tokio::time::sleep(RETRY_WAIT).await;
            }
            told => return told,
        }
    }
}

/// Creates a topic, fills it, reads it, deletes it, and looks that it is gone; again and again.
pub(super) async fn churn(shared: Arc<Shared>, mut rng: Rng) {
    let client = shared.connect().await;
    let process = shared.recorder.process();
    while shared.pause(Duration::from_millis(rng.u64(0..1_000))).await {
        // Some stay until the final reading, under a name that nobody uses again.
        let stays = rng.u8(..8) == 0;
        let name = match stays {
            true => format!("stays-{process}-{}", shared.topics().next),
            false => format!("churn-{process}-{}", rng.u32(..NAMES)),
        };
        let plan = TopicPlan::keeping_all(name, rng.u32(1..=3), 20);
        // What was refused stands in the history.
        let Ok(number) = shared.create(&client, process, &plan).await else { continue };
        shared.counters.topics.fetch_add(1, Ordering::Relaxed);
        let topic = shared.topic(number);
        fill(&shared, &topic, &mut rng).await;
        read::whole(&shared, &client, &topic).await;
        if !stays {
            delete(&shared, &client, process, &topic).await;
            let (query, spec) = (OffsetQuery::Latest, OffsetSpec::Latest);
            let _ = list_offsets(&shared, &client, process, &topic, query, spec, false).await;
        }
    }
}

async fn fill(shared: &Arc<Shared>, topic: &Topic, rng: &mut Rng) {
    let plan = ProducerPlan {
        topic: 0,
        rate: 1_000,
        unacked_max: 50,
        filler: 0..200,
        filler_seldom: 0..20_000,
        batch_bytes: 16_000,
        linger: Duration::ZERO,
        compression: Compression::None,
        durability: Durability::IsrFlushed,
        library: Library::Native,
    };
    let sender = produce::Sender::new(shared, topic.clone(), plan, 20).await;
    for counter in 0..rng.u32(1..200) {
        sender.send(counter, rng).await;
    }
    sender.settle().await;
}

/// Deletes a topic. An attempt whose answer was lost is repeated until it is gone for sure.
async fn delete(shared: &Shared, client: &Client, process: u32, topic: &Topic) {
    shared.topics().living.remove(&topic.topic);
    loop {
        let begun = shared.recorder.begin(process, Action::DeleteTopic { topic: topic.topic });
        let outcome = match client.admin().delete_topic(&topic.name).await {
            Ok(()) => Outcome::Ok,
            Err(error) => outcome_of(&error),
        };
        shared.recorder.complete(begun, outcome.clone(), |_| {});
        let (Outcome::Info(refusal) | Outcome::Fail(refusal)) = outcome else { return };
        if refusal.kind == RefusalKind::UnknownTopic {
            return;
        }
        tokio::time::sleep(RETRY_WAIT).await;
    }
}
