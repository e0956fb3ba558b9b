//! The load on a broker whose disk is recorded: many producers with much unacknowledged, readers, topics that come
//! and go. Everything that is done and told goes into the history.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use corrente_client::{Client, Error, NewTopic, Producer, Record, StartOffset};
use tokio::task::JoinSet;

use crate::content::{self, Log, RecordId};
use crate::history::{Deed, Writer};

/// Topics that are written to all the time.
const TOPICS: u32 = 3;
const PARTITIONS: u32 = 16;
const PRODUCERS_PER_TOPIC: u32 = 5;
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
/// Topics and producers are numbered anew in each run, each run in a range of its own; brief topics, and the one
/// producer that each has, begin higher up in it.
const NUMBERS_PER_RUN: u32 = 1_000_000;
const BRIEF_FROM: u32 = 1_000;

/// A topic that is there.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its number in the history.
    pub number: u32,
    pub name: String,
    pub partitions: u32,
}

impl Topic {
    /// Whether it comes and goes.
    pub fn is_brief(&self) -> bool {
        self.number % NUMBERS_PER_RUN >= BRIEF_FROM
    }
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
    history: Arc<Writer>,
    acked_bytes: Arc<AtomicU64>,
    /// Names, numbers and chance of one run are its own.
    run: u32,
    seed: u64,
}

impl Workload {
    /// Starts the load against `address`. `inherited` are topics of earlier runs that are written to again.
    pub async fn start(
        address: &str,
        history: Arc<Writer>,
        inherited: &[Topic],
        run: u32,
        seed: u64,
    ) -> Result<Workload> {
        let builder = Client::builder([address]).client_id("power-cuts").request_timeout(PATIENCE);
        let client = builder.connect().await.context("connecting")?;
        let acked_bytes = Arc::new(AtomicU64::new(0));
        let shared = Shared { client, history, acked_bytes: Arc::clone(&acked_bytes), run, seed };
        let mut topics: Vec<Topic> = inherited.iter().take(TOPICS as usize - 1).cloned().collect();
        for index in 0..TOPICS {
            if topics.len() < TOPICS as usize {
                let topic = shared.topic(index, "long", PARTITIONS);
                topics.push(shared.create(topic).await?.context("a topic was not made")?);
            }
        }
        let mut tasks = JoinSet::new();
        for (index, topic) in (0..).zip(&topics) {
            tasks.spawn(read(shared.clone(), topic.clone()));
            for producer in 0..PRODUCERS_PER_TOPIC {
                let number = run * NUMBERS_PER_RUN + index * PRODUCERS_PER_TOPIC + producer;
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
                anyhow::bail!("a task of the load ended by itself")
            }
        }
    }
}

impl Shared {
    fn topic(&self, index: u32, kind: &str, partitions: u32) -> Topic {
        let number = self.run * NUMBERS_PER_RUN + index;
        Topic { number, name: format!("{kind}-{}-{index}", self.run), partitions }
    }

    /// The topic, if it is known to be made.
    async fn create(&self, topic: Topic) -> Result<Option<Topic>> {
        let Topic { number, name, partitions } = topic.clone();
        self.history.note(Deed::TopicAsked { topic: number, name: name.clone(), partitions });
        let asked = self.client.admin().create_topic(NewTopic::new(name, partitions)).await;
        match asked {
            Ok(id) => {
                self.history.note(Deed::TopicMade { topic: number, id: id.to_string() });
                Ok(Some(topic))
            }
            // An answer lost to a kill: it may be there or not.
            Err(error) if error.maybe_applied() => Ok(None),
            Err(error) => Err(error).context("creating a topic"),
        }
    }

    async fn delete(&self, topic: &Topic) -> Result<()> {
        self.history.note(Deed::DeleteAsked { topic: topic.number });
        match self.client.admin().delete_topic(&topic.name).await {
            Ok(()) => self.history.note(Deed::Deleted { topic: topic.number }),
            Err(error) if error.maybe_applied() => {}
            Err(error) => return Err(error).context("deleting a topic"),
        }
        Ok(())
    }

    fn chance(&self, salt: u32) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed ^ (u64::from(salt) << 32))
    }

    async fn producer(&self, topic: &Topic) -> Result<Producer, Error> {
        let builder = self.client.producer(&topic.name).max_unacked_bytes(UNACKED_BYTES);
        builder.batch_bytes(128 * 1024).delivery_timeout(PATIENCE).build().await
    }

    /// Hands a record over; its outcome goes into the history when it is there.
    async fn send(&self, producer: &Producer, id: RecordId, log: Log, filler: usize) -> Result<(), Error> {
        let value = content::value(id, log, filler);
        let bytes = value.len() as u64;
        self.history.note(Deed::Sent { record: id, log });
        let ticket = match producer.send(Record::value(value).partition(log.1)).await {
            Ok(ticket) => ticket,
            Err(error) => return self.gave_up(id, error),
        };
        let shared = self.clone();
        tokio::spawn(async move {
            match ticket.await {
                Ok(receipt) => {
                    shared.history.note(Deed::Acked { record: id, offset: receipt.offset.0 });
                    shared.acked_bytes.fetch_add(bytes, Ordering::Relaxed);
                }
                Err(error) => drop(shared.gave_up(id, error)),
            }
        });
        Ok(())
    }

    fn gave_up(&self, record: RecordId, error: Error) -> Result<(), Error> {
        if !error.maybe_applied() {
            self.history.note(Deed::Refused { record });
        }
        Err(error)
    }
}

async fn produce(shared: Shared, topic: Topic, number: u32) -> Result<()> {
    let mut chance = shared.chance(number);
    let producer = shared.producer(&topic).await.context("producing")?;
    let mut counter = 0;
    loop {
        for _ in 0..chance.u32(1..BURST_MAX) {
            let log = Log(topic.number, chance.u32(..topic.partitions));
            let filler = filler(&mut chance);
            shared.send(&producer, RecordId(number, counter), log, filler).await.context("producing")?;
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
async fn read(shared: Shared, topic: Topic) -> Result<()> {
    let builder = shared.client.consumer().topic(&topic.name).from(StartOffset::Earliest);
    let mut consumer = builder.build().await.context("consuming")?;
    loop {
        let trouble = |what: String| shared.history.note(Deed::Trouble { what });
        match consumer.next_record().await {
            Ok(Some(delivery)) => match content::read(delivery.value.as_deref()) {
                Ok((record, log)) if log == Log(topic.number, delivery.partition) => {
                    shared.history.note(Deed::Seen { record, log, offset: delivery.offset.0 });
                }
                found => trouble(format!(
                    "{}/{} offset {}: {found:?}",
                    topic.name, delivery.partition, delivery.offset
                )),
            },
            Ok(None) => {
                trouble(format!("{}: the reader came to an end", topic.name));
                return Ok(());
            }
            Err(error) => trouble(error.to_string()),
        }
    }
}

/// Topics that are made, written to, and deleted, over and over.
async fn come_and_go(shared: Shared) -> Result<()> {
    let mut chance = shared.chance(u32::MAX);
    let mut alive: Vec<Topic> = Vec::new();
    for index in BRIEF_FROM.. {
        let Some(topic) = shared.create(shared.topic(index, "brief", BRIEF_PARTITIONS)).await? else {
            continue;
        };
        let producer = shared.producer(&topic).await.context("producing")?;
        for counter in 0..BRIEF_RECORDS {
            let id = RecordId(shared.run * NUMBERS_PER_RUN + index, counter);
            let log = Log(topic.number, chance.u32(..BRIEF_PARTITIONS));
            shared.send(&producer, id, log, chance.usize(..4_000)).await.context("producing")?;
        }
        producer.close().await.context("producing")?;
        alive.push(topic);
        if alive.len() > BRIEF_ALIVE_MAX {
            shared.delete(&alive.swap_remove(chance.usize(..alive.len()))).await?;
        }
    }
    Ok(())
}
