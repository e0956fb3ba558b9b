//! The mixed load: clients that remember what they sent and note what they see, whatever happens to the broker.
//!
//! Nothing here judges, and nothing ends a client but the end of the load. Then everything sent is waited for, readers
//! catch up, and the final reading reads every log from end to end.

mod admin;
mod outlet;
mod produce;
mod read;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use corrente_client::{Client, NewTopic};
use corrente_history::{Action, Cleanup, LogId, Outcome, Refusal, RefusalKind, Topic};
use fastrand::Rng;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::broker::Addresses;
use crate::plan::{Plan, TopicPlan};
use crate::recorder::{Recorder, outcome_of};

/// Between two attempts of what the SDK does not try again by itself.
const RETRY_WAIT: Duration = Duration::from_millis(100);

/// A load that runs until it is told to stop.
pub struct Workload {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    stop: watch::Sender<Phase>,
}

/// What clients are to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Go on.
    Load,
    /// Send nothing more; wait for what was sent.
    Settle,
    /// Read on to the end, and stop there.
    CatchUp,
}

struct Shared {
    plan: Plan,
    broker: Addresses,
    recorder: Recorder,
    counters: Counters,
    topics: Mutex<Topics>,
    phase: watch::Receiver<Phase>,
    producers: AtomicU64,
}

/// How far a load is.
#[derive(Debug, Default)]
pub struct Counters {
    /// Records handed to a client library.
    pub sent: AtomicU64,
    /// Records acknowledged.
    pub acked: AtomicU64,
    /// Those of them that librdkafka sent.
    pub acked_to_librdkafka: AtomicU64,
    /// Records given up.
    pub failed: AtomicU64,
    /// Records that readers were given.
    pub read: AtomicU64,
    /// Topics created after the beginning.
    pub topics: AtomicU64,
    /// Offsets told.
    pub offsets: AtomicU64,
    /// Times that records were deleted.
    pub deletions: AtomicU64,
}

/// Topics by their number in the history.
#[derive(Default)]
struct Topics {
    next: u32,
    /// Those that have not been deleted.
    living: BTreeMap<u32, Topic>,
    /// The least end each log can have, by what was acknowledged.
    ends: BTreeMap<LogId, u64>,
}

impl Workload {
    /// Creates the topics at this broker and starts all clients, each a task of the present runtime.
    ///
    /// # Errors
    /// If the topics cannot be created.
    pub async fn start(plan: Plan, broker: Addresses, recorder: Recorder) -> Result<Workload> {
        let (stop, phase) = watch::channel(Phase::Load);
        let shared = Arc::new(Shared {
            plan,
            broker,
            recorder,
            counters: Counters::default(),
            topics: Mutex::default(),
            phase,
            producers: AtomicU64::new(0),
        });
        let mut numbers = Vec::new();
        let process = shared.recorder.process();
        let client = shared.connect().await;
        for topic in shared.plan.topics.clone() {
            numbers.push(shared.create(&client, process, &topic).await.context("create the topics")?);
        }
        let mut workload = Workload { shared, tasks: JoinSet::new(), stop };
        workload.start_clients(&numbers);
        Ok(workload)
    }

    fn start_clients(&mut self, numbers: &[u32]) {
        let shared = &self.shared;
        let mut rng = Rng::with_seed(shared.plan.seed);
        for plan in shared.plan.producers.clone() {
            let topic = shared.topic(numbers[plan.topic]);
            let keys = shared.plan.topics[plan.topic].keys;
            self.tasks.spawn(produce::run(Arc::clone(shared), topic, plan, keys, rng.fork()));
        }
        for number in numbers {
            for _ in 0..shared.plan.tail_readers {
                self.tasks.spawn(read::follow(Arc::clone(shared), shared.topic(*number)));
            }
        }
        for _ in 0..shared.plan.catch_up_readers {
            self.tasks.spawn(read::catch_up(Arc::clone(shared), numbers.to_vec(), rng.fork()));
        }
        for _ in 0..shared.plan.churners {
            self.tasks.spawn(admin::churn(Arc::clone(shared), rng.fork()));
        }
        self.tasks.spawn(admin::ask(Arc::clone(shared), numbers.to_vec(), rng.fork()));
        let deleting = numbers.iter().zip(&shared.plan.topics).filter(|(_, plan)| plan.deletes_records);
        let deleting: Vec<u32> = deleting.map(|(number, _)| *number).collect();
        if !deleting.is_empty() {
            self.tasks.spawn(admin::delete_records(Arc::clone(shared), deleting, rng.fork()));
        }
    }

    /// How far it is.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Records sent and neither acknowledged nor given up.
    pub fn unacked(&self) -> u64 {
        self.shared.unacked()
    }

    /// Sends nothing more, and waits until everything sent is answered and every reader is at the end. Whoever is not
    /// there within the plan's patience is in the history as never answered.
    ///
    /// # Panics
    /// If a client did.
    pub async fn stop(&mut self) {
        let patience = self.shared.plan.patience;
        self.stop.send_replace(Phase::Settle);
        let settled = async {
            while self.shared.unacked() > 0 || self.shared.producers.load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(RETRY_WAIT).await;
            }
        };
        // Whatever is open then stands in the history as it is.
        let _ = tokio::time::timeout(patience, settled).await;
        self.stop.send_replace(Phase::CatchUp);
        let ended = async {
            while let Some(task) = self.tasks.join_next().await {
                task.expect("no client panics");
            }
        };
        if tokio::time::timeout(patience, ended).await.is_err() {
            self.tasks.abort_all();
        }
    }

    /// Reads every log of every living topic from end to end, and ends the history: the run came to rest.
    pub async fn read_everything(&self) {
        let process = self.shared.recorder.process();
        let read =
            tokio::time::timeout(self.shared.plan.patience, read::everything(&self.shared, process)).await;
        let outcome = match read {
            Ok(Ok(())) => Outcome::Ok,
            Ok(Err(error)) => Outcome::Info(Refusal::new(RefusalKind::Other, format!("{error:#}"))),
            Err(_) => Outcome::Info(Refusal::new(RefusalKind::Timeout, "the final reading did not end")),
        };
        let rest = self.shared.recorder.begin_final(process, Action::Rest);
        self.shared.recorder.complete(rest, outcome, |_| {});
    }
}

impl Shared {
    /// A client, once a broker is there to answer.
    async fn connect(&self) -> Client {
        loop {
            let builder = Client::builder([&self.broker.native]).request_timeout(self.plan.request_timeout);
            match builder.client_id("chaos").connect().await {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(RETRY_WAIT).await,
            }
        }
    }

    /// Creates a topic under a number of its own. An attempt whose answer was lost is looked after until it is clear
    /// what came of it.
    async fn create(&self, client: &Client, process: u32, plan: &TopicPlan) -> Result<u32> {
        let topic = {
            let mut topics = self.topics();
            topics.next += 1;
            topics.next - 1
        };
        let mut facts = facts_of(topic, plan);
        let begun = self.recorder.begin(process, Action::CreateTopic(facts.clone()));
        let created = client.admin().create_topic(new_topic(plan)).await;
        let outcome = match created {
            Ok(id) => {
                facts.id = Some(id.to_string());
                Outcome::Ok
            }
            Err(error) => outcome_of(&error),
        };
        let answered = facts.clone();
        self.recorder.complete(begun, outcome.clone(), |action| *action = Action::CreateTopic(answered));
        match outcome {
            Outcome::Ok => {}
            Outcome::Fail(refusal) => return Err(anyhow!("{}", refusal.detail)),
            Outcome::Info(_) => self.find_out(client, &plan.name).await?,
        }
        self.topics().living.insert(topic, facts);
        Ok(topic)
    }

    /// Waits until a topic that may have been created is there.
    async fn find_out(&self, client: &Client, name: &str) -> Result<()> {
        let find = async {
            while client.admin().describe_topic(name).await.is_err() {
                tokio::time::sleep(RETRY_WAIT).await;
            }
        };
        tokio::time::timeout(self.plan.patience, find)
            .await
            .with_context(|| format!("whether topic {name} was created cannot be found out"))
    }

    fn topic(&self, number: u32) -> Topic {
        self.topics().living[&number].clone()
    }

    fn topics(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Waits until the phase is no longer this one.
    async fn until_after(&self, phase: Phase) {
        // An error means that the load is being dropped.
        let _ = self.phase.clone().wait_for(|now| *now != phase).await;
    }

    /// Sleeps, or stops sleeping when the load ends. False then.
    async fn pause(&self, pause: Duration) -> bool {
        tokio::time::timeout(pause, self.until_after(Phase::Load)).await.is_err()
    }

    fn unacked(&self) -> u64 {
        let Counters { sent, acked, failed, .. } = &self.counters;
        // In this order, so that it never seems to be less than nothing.
        let resolved = acked.load(Ordering::SeqCst) + failed.load(Ordering::SeqCst);
        sent.load(Ordering::SeqCst) - resolved
    }
}

fn facts_of(topic: u32, plan: &TopicPlan) -> Topic {
    Topic {
        topic,
        name: plan.name.clone(),
        partitions: plan.partitions,
        cleanup: plan.cleanup,
        retention_ms: plan.retention_ms,
        retention_bytes: plan.retention_bytes,
        delete_retention_ms: plan.delete_retention_ms,
        append_time: plan.append_time,
        ..Topic::default()
    }
}

fn new_topic(plan: &TopicPlan) -> NewTopic {
    let policy = match plan.cleanup {
        Cleanup::Delete => "delete",
        Cleanup::Compact => "compact",
        Cleanup::CompactAndDelete => "compact,delete",
    };
    let kept = |limit: Option<u64>| limit.map_or("-1".to_owned(), |limit| limit.to_string());
    NewTopic::new(&plan.name, plan.partitions)
        .config("segment.bytes", plan.segment_bytes.to_string())
        .config("segment.ms", plan.segment_ms.to_string())
        .config("max.message.bytes", (plan.segment_bytes / 2).to_string())
        .config("cleanup.policy", policy)
        .config("retention.ms", kept(plan.retention_ms))
        .config("retention.bytes", kept(plan.retention_bytes))
        .config("delete.retention.ms", plan.delete_retention_ms.to_string())
        // Whatever can be compacted is.
        .config("min.cleanable.dirty.ratio", "0.01")
        .config("message.timestamp.type", if plan.append_time { "LogAppendTime" } else { "CreateTime" })
}
