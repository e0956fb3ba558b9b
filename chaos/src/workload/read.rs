//! Readers: at the tail, from somewhere to the end, and at last of everything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use corrente_client::{
    Batch, Client, Consumer, ConsumerBuilder, Error, ErrorKind, Offset, OffsetSpec, RecordView, StartOffset,
};
use corrente_history::{Action, LogId, OffsetQuery, Outcome, Poll, ReadRecord, Topic, content};
use fastrand::Rng;

use super::{Phase, RETRY_WAIT, Shared, admin};
use crate::recorder::outcome_of;

/// Follows the tail of a topic, and stops at its end when the load does.
pub(super) async fn follow(shared: Arc<Shared>, topic: Topic) {
    let client = shared.connect().await;
    let mut from = StartOffset::Latest;
    loop {
        let mut reader = Reader::new(&shared, &topic, false);
        let mut consumer = build(|| client.consumer().topic(&topic.name).from(from)).await;
        while reader.is_within {
            tokio::select! {
                next = consumer.next_batch() => if !reader.take(next) { return },
                () = reader.until_caught_up() => return,
            }
        }
        // Records were removed faster than they were read.
        from = StartOffset::Earliest;
    }
}

/// Begins somewhere, reads to the end, and begins again.
pub(super) async fn catch_up(shared: Arc<Shared>, topics: Vec<u32>, mut rng: Rng) {
    let client = shared.connect().await;
    while shared.pause(Duration::from_millis(rng.u64(0..1_500))).await {
        let topic = shared.topic(topics[rng.usize(..topics.len())]);
        let partition = rng.u32(..topic.partitions);
        let log = LogId { topic: topic.topic, partition };
        let end = shared.topics().ends.get(&log).copied().unwrap_or(0);
        let from = match rng.u8(..20) {
            // Whole logs are long.
            0 if end < 20_000 => StartOffset::Earliest,
            1 => StartOffset::Latest,
            2..12 => StartOffset::At(Offset(end.saturating_sub(rng.u64(0..2_000)))),
            _ => StartOffset::At(Offset(rng.u64(0..=end).max(end.saturating_sub(10_000)))),
        };
        let mut reader = Reader::new(&shared, &topic, false);
        if let StartOffset::At(offset) = from {
            reader.next.insert(partition, offset.0);
        }
        let consumer = || client.consumer().topic(&topic.name).partitions([partition]).from(from).until_end();
        read_to_end(&mut reader, build(consumer).await).await;
    }
}

/// Reads all that a topic holds now.
pub(super) async fn whole(shared: &Arc<Shared>, client: &Client, topic: &Topic) {
    let mut reader = Reader::new(shared, topic, false);
    let consumer = || client.consumer().topic(&topic.name).from(StartOffset::Earliest).until_end();
    read_to_end(&mut reader, build(consumer).await).await;
}

/// The final reading: the bounds of every log, and all between them.
pub(super) async fn everything(shared: &Arc<Shared>, process: u32) -> Result<()> {
    let client = shared.connect().await;
    let living: Vec<Topic> = shared.topics().living.values().cloned().collect();
    for topic in living {
        for (query, spec) in
            [(OffsetQuery::Earliest, OffsetSpec::Earliest), (OffsetQuery::Latest, OffsetSpec::Latest)]
        {
            admin::list_offsets(shared, &client, process, &topic, query, spec, true).await?;
        }
        loop {
            let mut reader = Reader::new(shared, &topic, true);
            let consumer = || client.consumer().topic(&topic.name).from(StartOffset::Earliest).until_end();
            read_to_end(&mut reader, build(consumer).await).await;
            // The broker still removes what is too old: then it is read anew.
            if reader.is_within {
                break;
            }
        }
    }
    Ok(())
}

async fn build(builder: impl Fn() -> ConsumerBuilder) -> Consumer {
    loop {
        match builder().build().await {
            Ok(consumer) => return consumer,
            Err(_) => tokio::time::sleep(RETRY_WAIT).await,
        }
    }
}

async fn read_to_end(reader: &mut Reader<'_>, mut consumer: Consumer) {
    while reader.take(consumer.next_batch().await) {}
    reader.note_end();
}

/// What one consumer has read, and the process in the history that it is.
struct Reader<'a> {
    shared: &'a Arc<Shared>,
    topic: &'a Topic,
    process: u32,
    /// Before this moment it asked the broker for nothing.
    started_ns: u64,
    is_final: bool,
    /// What comes next in each partition, where it has read any.
    next: BTreeMap<u32, u64>,
    /// Some partition is not read any more.
    has_failed: bool,
    /// No position has fallen before the log start.
    is_within: bool,
}

impl<'a> Reader<'a> {
    fn new(shared: &'a Arc<Shared>, topic: &'a Topic, is_final: bool) -> Reader<'a> {
        let process = shared.recorder.process();
        let started_ns = shared.recorder.now_ns();
        Reader {
            shared,
            topic,
            process,
            started_ns,
            is_final,
            next: BTreeMap::new(),
            has_failed: false,
            is_within: true,
        }
    }

    /// Notes what came next; false at the end.
    fn take(&mut self, next: Result<Option<Batch>, Error>) -> bool {
        match next {
            Ok(None) => return false,
            Ok(Some(batch)) => self.note_batch(batch),
            Err(error) => self.note_failure(&error),
        }
        true
    }

    fn note_batch(&mut self, batch: Batch) {
        let position = self.next.get(&batch.partition).copied();
        let records: Vec<ReadRecord> = batch.records.iter().map(identify).collect();
        if let Some(last) = records.last() {
            self.next.insert(batch.partition, last.offset + 1);
        }
        self.shared.counters.read.fetch_add(records.len() as u64, Ordering::Relaxed);
        self.note(
            Outcome::Ok,
            Poll {
                log: self.log(batch.partition),
                position,
                high_watermark: Some(batch.high_watermark.0),
                records,
            },
        );
    }

    /// The consumer has left a partition alone, or all of them.
    fn note_failure(&mut self, error: &Error) {
        self.has_failed = true;
        self.is_within &= error.kind() != ErrorKind::OffsetOutOfRange;
        let partitions = match error.concerns_partition() {
            Some(partition) => partition..partition + 1,
            None => 0..self.topic.partitions,
        };
        for partition in partitions {
            let position = self.next.get(&partition).copied();
            let poll = Poll { log: self.log(partition), position, ..Poll::default() };
            self.note(outcome_of(error), poll);
        }
    }

    /// A consumer that was to stop at the end has found nothing more.
    fn note_end(&mut self) {
        if self.has_failed {
            return;
        }
        for (partition, position) in self.next.clone() {
            let poll = Poll { log: self.log(partition), position: Some(position), ..Poll::default() };
            self.note(Outcome::Ok, poll);
        }
    }

    fn note(&self, outcome: Outcome, poll: Poll) {
        let action = Action::Poll(vec![poll]);
        self.shared.recorder.note(self.process, self.started_ns, self.is_final, outcome, action);
    }

    /// Waits until the load is over and everything acknowledged behind the first record read has been read.
    async fn until_caught_up(&self) {
        self.shared.until_after(Phase::Load).await;
        self.shared.until_after(Phase::Settle).await;
        let is_behind = {
            let topics = self.shared.topics();
            self.next
                .iter()
                .any(|(partition, next)| topics.ends.get(&self.log(*partition)).is_some_and(|end| next < end))
        };
        if is_behind && !self.has_failed {
            // Asked again after the next batch.
            std::future::pending::<()>().await;
        }
    }

    fn log(&self, partition: u32) -> LogId {
        LogId { topic: self.topic.topic, partition }
    }
}

fn identify(record: &RecordView) -> ReadRecord {
    let header = record.headers.iter().find(|header| header.key == content::TOMBSTONE_HEADER);
    let header = header.and_then(|header| header.value.as_deref());
    ReadRecord {
        offset: record.offset.0,
        timestamp_ms: record.timestamp_ms,
        content: content::read(record.key.as_deref(), record.value.as_deref(), header),
    }
}
