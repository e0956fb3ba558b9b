//! The load on a broker whose disk is recorded: many producers with much unacknowledged, readers, topics that come
//! and go. Everything that is done and told goes into the history.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use corrente_chaos::recorder::outcome_of;
use corrente_client::{
    Batch, Client, Error, NewTopic, OutOfRange, Producer, Record, RecordView, StartOffset, Ticket,
};
use corrente_faultfs::clock::now_ns;
use corrente_history::{
    Action, Begun, Cleanup, LogId, Outcome, Place, Poll, ReadRecord, RecordId, SentRecord, Topic, content,
};
use tokio::task::JoinSet;

use crate::recorder::Recorder;

/// Topics that are written to all the time: many logs, so that many writes are pending, and few that fill segment after
/// segment, so that old ones are compacted, removed and taken into use again.
const LONG: [Long; 3] = [
    Long { name: "kept", partitions: 24, cleanup: Cleanup::Delete, retention_bytes: None },
    Long { name: "compacted", partitions: 4, cleanup: Cleanup::Compact, retention_bytes: None },
    Long { name: "expiring", partitions: 4, cleanup: Cleanup::Delete, retention_bytes: Some(1 << 20) },
];
const PRODUCERS_PER_TOPIC: u32 = 5;
/// Different keys of a partition.
const KEYS: u32 = 30;
/// One record of so many deletes its key, where the topic is compacted, and for how long that is told.
const TOMBSTONE_ONE_OF: u32 = 20;
const DELETE_RETENTION_MS: u64 = 2_000;
/// What one producer may have unacknowledged.
const UNACKED_BYTES: usize = 2 << 20;
/// Records come in bursts with pauses between them: windows large and small, logs busy and at rest.
const BURST_MAX: u32 = 40;
const PAUSE_MS_MAX: u64 = 200;
/// A broker that restarts is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Topics that come and go: partitions, records each gets, and how many live at a time.
const BRIEF_PARTITIONS: u32 = 3;
const BRIEF_RECORDS: u32 = 12;
const BRIEF_ALIVE_MAX: usize = 4;
/// Topics and processes are numbered anew in each run, each run in a range of its own. Producers of long topics come
/// first there, then readers and whoever makes topics; brief topics, and the producer that each has, are behind those.
const NUMBERS_PER_RUN: u32 = 1_000_000;
const READERS_FROM: u32 = 500;
const MAKER: u32 = 900;
const BRIEF_FROM: u32 = 1_000;

/// A topic that is there all the time.
struct Long {
    name: &'static str,
    partitions: u32,
    cleanup: Cleanup,
    retention_bytes: Option<u64>,
}

/// Load under way; ends when dropped.
pub struct Workload {
    tasks: JoinSet<Result<()>>,
    acked_bytes: Arc<AtomicU64>,
}

/// What every task of a load needs.
#[derive(Clone)]
struct Shared {
    client: Client,
    recorder: Arc<Recorder>,
    acked_bytes: Arc<AtomicU64>,
    /// Names, numbers and chance of one run are its own.
    run: u32,
    seed: u64,
}

impl Workload {
    /// Starts the load against `address`. `inherited` are topics of earlier runs that are written to again.
    pub async fn start(
        address: &str,
        recorder: Arc<Recorder>,
        inherited: &[Topic],
        run: u32,
        seed: u64,
    ) -> Result<Workload> {
        let builder = Client::builder([address]).client_id("power-cuts").request_timeout(PATIENCE);
        let client = builder.connect().await.context("connecting")?;
        let acked_bytes = Arc::new(AtomicU64::new(0));
        let shared = Shared { client, recorder, acked_bytes: Arc::clone(&acked_bytes), run, seed };
        let mut topics = Vec::new();
        for (index, long) in (0..).zip(&LONG) {
            // The first is always a new one; the others go on for as many runs as there are.
            let before = inherited.iter().find(|topic| topic.topic % NUMBERS_PER_RUN == index && index > 0);
            topics.push(match before {
                Some(topic) => topic.clone(),
                None => shared.create(shared.long(index, long)).await?.context("a topic was not made")?,
            });
        }
        let mut tasks = JoinSet::new();
        for (index, topic) in (0..).zip(&topics) {
            tasks.spawn(read(shared.clone(), topic.clone(), shared.number(READERS_FROM + index)));
            for producer in 0..PRODUCERS_PER_TOPIC {
                let number = shared.number(index * PRODUCERS_PER_TOPIC + producer);
                tasks.spawn(produce(shared.clone(), topic.clone(), number));
            }
        }
        tasks.spawn(come_and_go(shared));
        Ok(Workload { tasks, acked_bytes })
    }

    /// Waits until so many more bytes are acknowledged, or this much time is over. An error that any task met ends it.
    pub async fn until(&mut self, bytes: u64, time: Duration) -> Result<()> {
        let goal = self.acked_bytes.load(Ordering::Relaxed) + bytes;
        let reached = async {
            while self.acked_bytes.load(Ordering::Relaxed) < goal {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = reached => Ok(()),
            () = tokio::time::sleep(time) => Ok(()),
            Some(ended) = self.tasks.join_next() => {
                ended.context("a task of the load panicked")??;
                Err(anyhow!("a task of the load ended by itself"))
            }
        }
    }
}

impl Shared {
    fn number(&self, within: u32) -> u32 {
        // Process 0 is whoever cuts the power.
        1 + self.run * NUMBERS_PER_RUN + within
    }

    fn topic(&self, index: u32, kind: &str, partitions: u32) -> Topic {
        let topic = self.run * NUMBERS_PER_RUN + index;
        Topic { topic, name: format!("{kind}-{}-{index}", self.run), partitions, ..Topic::default() }
    }

    fn long(&self, index: u32, long: &Long) -> Topic {
        let Long { name, partitions, cleanup, retention_bytes } = *long;
        let topic = self.topic(index, name, partitions);
        Topic { cleanup, retention_bytes, delete_retention_ms: DELETE_RETENTION_MS, ..topic }
    }

    fn chance(&self, salt: u32) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed ^ (u64::from(salt) << 32))
    }

    /// The topic, if it is known to be made.
    async fn create(&self, topic: Topic) -> Result<Option<Topic>> {
        let begun = self.recorder.begin(self.number(MAKER), Action::CreateTopic(topic.clone()));
        match self.client.admin().create_topic(new_topic(&topic)).await {
            Ok(id) => {
                let made = Topic { id: Some(id.to_string()), ..topic };
                let told = made.clone();
                self.recorder.complete(begun, Outcome::Ok, |action| *action = Action::CreateTopic(told));
                Ok(Some(made))
            }
            Err(error) => self.unless_in_doubt(begun, error).context("creating a topic").map(|()| None),
        }
    }

    async fn delete(&self, topic: &Topic) -> Result<()> {
        let begun = self.recorder.begin(self.number(MAKER), Action::DeleteTopic { topic: topic.topic });
        match self.client.admin().delete_topic(&topic.name).await {
            Ok(()) => {
                self.recorder.complete(begun, Outcome::Ok, |_| {});
                Ok(())
            }
            Err(error) => self.unless_in_doubt(begun, error).context("deleting a topic"),
        }
    }

    /// An answer lost to a kill leaves it open whether something was done; anything else is an error.
    fn unless_in_doubt(&self, begun: Begun, error: Error) -> Result<(), Error> {
        self.recorder.complete(begun, outcome_of(&error), |_| {});
        if error.maybe_applied() { Ok(()) } else { Err(error) }
    }

    async fn producer(&self, topic: &Topic) -> Result<Producer, Error> {
        let builder = self.client.producer(&topic.name).max_unacked_bytes(UNACKED_BYTES);
        builder.batch_bytes(128 * 1024).delivery_timeout(PATIENCE).build().await
    }

    /// Hands over a record with this filler, or one that deletes its key; what comes of it goes into the history when
    /// it is there.
    async fn send(
        &self,
        producer: &Producer,
        id: RecordId,
        log: LogId,
        key: u32,
        filler: Option<usize>,
    ) -> Result<(), Error> {
        let (record, bytes) = match filler {
            Some(filler) => {
                let value = content::value(id, key, filler);
                let bytes = value.len() as u32;
                (Record::value(value).key(content::key(key)), bytes)
            }
            None => {
                let header = content::tombstone(id, key);
                (Record::tombstone(content::key(key)).header(content::TOMBSTONE_HEADER, header), 0)
            }
        };
        let (is_tombstone, timestamp_ms) = (filler.is_none(), self.recorder.wall_ms());
        let sent = SentRecord { log, id, key, is_tombstone, bytes, timestamp_ms, acked: None };
        let begun = self.recorder.begin(id.producer, Action::Send(vec![sent]));
        match producer.send(record.timestamp_ms(timestamp_ms).partition(log.partition)).await {
            Ok(ticket) => {
                tokio::spawn(self.clone().await_receipt(begun, ticket, bytes));
                Ok(())
            }
            Err(error) => {
                self.recorder.complete(begun, outcome_of(&error), |_| {});
                Err(error)
            }
        }
    }

    async fn await_receipt(self, begun: Begun, ticket: Ticket, bytes: u32) {
        let receipt = match ticket.await {
            Ok(receipt) => receipt,
            Err(error) => return self.recorder.complete(begun, outcome_of(&error), |_| {}),
        };
        let place = Place { partition: receipt.partition, offset: receipt.offset.0 };
        self.recorder.complete(begun, Outcome::Ok, |action| {
            if let Action::Send(records) = action {
                records[0].acked = Some(place);
            }
        });
        self.acked_bytes.fetch_add(u64::from(bytes), Ordering::Relaxed);
    }
}

async fn produce(shared: Shared, topic: Topic, number: u32) -> Result<()> {
    let mut chance = shared.chance(number);
    let producer = shared.producer(&topic).await.context("producing")?;
    let mut counter = 0;
    loop {
        for _ in 0..chance.u32(1..BURST_MAX) {
            let log = LogId { topic: topic.topic, partition: chance.u32(..topic.partitions) };
            let id = RecordId { producer: number, counter };
            let key = log.partition * KEYS + chance.u32(..KEYS);
            let deletes = topic.cleanup.compacts() && chance.u32(..TOMBSTONE_ONE_OF) == 0;
            let filler = (!deletes).then(|| filler(&mut chance));
            shared.send(&producer, id, log, key, filler).await.context("producing")?;
            counter += 1;
        }
        tokio::time::sleep(Duration::from_millis(chance.u64(..PAUSE_MS_MAX))).await;
    }
}

/// Mostly small, some that fill a window by themselves.
fn filler(chance: &mut fastrand::Rng) -> usize {
    match chance.u32(..1000) {
        0..700 => chance.usize(..500),
        700..950 => chance.usize(500..8_000),
        950..998 => chance.usize(8_000..64_000),
        _ => chance.usize(64_000..700_000),
    }
}

/// Reads a topic from its beginning for as long as the load lasts.
async fn read(shared: Shared, topic: Topic, process: u32) -> Result<()> {
    let began_ns = now_ns();
    let builder = shared.client.consumer().topic(&topic.name).from(StartOffset::Earliest);
    // Whoever is slower than retention goes on where the log begins.
    let mut consumer = builder.on_out_of_range(OutOfRange::Earliest).build().await.context("consuming")?;
    let mut next: BTreeMap<u32, u64> = BTreeMap::new();
    loop {
        let batch = consumer.next_batch().await.context("consuming")?.context("a reader came to an end")?;
        let poll = poll_of(&topic, &batch, next.get(&batch.partition).copied());
        if let Some(last) = poll.records.last() {
            next.insert(batch.partition, last.offset + 1);
        }
        shared.recorder.note(process, began_ns, Outcome::Ok, Action::Poll(vec![poll]));
    }
}

fn poll_of(topic: &Topic, batch: &Batch, position: Option<u64>) -> Poll {
    Poll {
        log: LogId { topic: topic.topic, partition: batch.partition },
        position,
        high_watermark: Some(batch.high_watermark.0),
        records: batch.records.iter().map(identify).collect(),
    }
}

fn new_topic(topic: &Topic) -> NewTopic {
    let new = NewTopic::new(&topic.name, topic.partitions);
    let new = match topic.cleanup {
        Cleanup::Delete => new,
        _ => new
            .config("cleanup.policy", "compact")
            .config("min.cleanable.dirty.ratio", "0.1")
            .config("delete.retention.ms", topic.delete_retention_ms.to_string()),
    };
    match topic.retention_bytes {
        Some(bytes) => new.config("retention.bytes", bytes.to_string()),
        None => new,
    }
}

/// Which record this is.
pub fn identify(record: &RecordView) -> ReadRecord {
    let header = record.headers.iter().find(|header| header.key == content::TOMBSTONE_HEADER);
    let header = header.and_then(|header| header.value.as_deref());
    ReadRecord {
        offset: record.offset.0,
        timestamp_ms: record.timestamp_ms,
        content: content::read(record.key.as_deref(), record.value.as_deref(), header),
    }
}

/// Topics that are made, written to, and deleted, over and over.
async fn come_and_go(shared: Shared) -> Result<()> {
    let mut chance = shared.chance(MAKER);
    let mut alive: Vec<Topic> = Vec::new();
    for index in BRIEF_FROM.. {
        // A name that may or may not have been taken is not used again.
        let Some(topic) = shared.create(shared.topic(index, "brief", BRIEF_PARTITIONS)).await? else {
            continue;
        };
        let producer = shared.producer(&topic).await.context("producing")?;
        for counter in 0..BRIEF_RECORDS {
            let id = RecordId { producer: shared.number(index), counter };
            let log = LogId { topic: topic.topic, partition: chance.u32(..BRIEF_PARTITIONS) };
            let filler = Some(chance.usize(..4_000));
            shared.send(&producer, id, log, log.partition, filler).await.context("producing")?;
        }
        producer.close().await.context("producing")?;
        alive.push(topic);
        if alive.len() > BRIEF_ALIVE_MAX {
            shared.delete(&alive.swap_remove(chance.usize(..alive.len()))).await?;
        }
    }
    Ok(())
}
