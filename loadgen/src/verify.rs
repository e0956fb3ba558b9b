//! Whether what was acknowledged is there: keeps the acknowledgements of a run, and reads the topic back after it.

mod checker;
mod digest;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use self::checker::{Checker, Promise};
pub use self::digest::Digest;
use self::digest::Digests;
use crate::broker::Broker;
use crate::payload::Payload;
use crate::plan::Plan;

/// What was found of the acknowledged batches, the warm-up's among them. Every count is one of batches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Acknowledged batches.
    pub batches: u64,
    /// Of these, the ones that are not where their acknowledgement said; and offsets that no batch has.
    pub lost: u64,
    /// Copies of a batch beyond the one that was acknowledged, and offsets that came twice.
    pub duplicated: u64,
    /// Acknowledged batches that stand behind one that the same client sent later.
    pub out_of_order: u64,
    /// Batches whose records are not those that were sent.
    pub altered: u64,
    /// Why reading ended before everything was read; the counts then say nothing of the rest.
    pub incomplete: Option<String>,
}

impl Verification {
    /// What is wrong, on one line.
    pub fn fault(&self) -> Option<String> {
        let wrong = self.lost + self.duplicated + self.out_of_order + self.altered;
        (wrong > 0 || self.incomplete.is_some()).then(|| format!("verification failed: {self}"))
    }

    fn add(&mut self, other: Verification) {
        self.batches += other.batches;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.altered += other.altered;
        self.incomplete = self.incomplete.take().or(other.incomplete);
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verification { batches, lost, duplicated, out_of_order, altered, incomplete } = self;
        write!(f, "{batches} acknowledged batches, {lost} lost, {duplicated} duplicated, ")?;
        write!(f, "{out_of_order} out of order, {altered} altered")?;
        match incomplete {
            Some(reason) => write!(f, "; not read to the end: {reason}"),
            None => Ok(()),
        }
    }
}

/// What became of the batches of a run: 24 bytes for each that was acknowledged, 8 for each that was not.
#[derive(Debug)]
pub struct Outcomes {
    payload: Arc<Payload>,
    /// Clients that sent in turn: the n-th batch is of the client n modulo so many.
    clients: u64,
    partitions: Vec<Mutex<Answers>>,
}

#[derive(Debug, Default)]
struct Answers {
    acknowledged: Vec<Promise>,
    failed: Vec<u64>,
}

impl Outcomes {
    /// Of nothing so far.
    pub fn new(payload: &Arc<Payload>, clients: usize) -> Outcomes {
        let partitions = (0..payload.partitions()).map(|_| Mutex::default()).collect();
        Outcomes { payload: Arc::clone(payload), clients: clients as u64, partitions }
    }

    /// The batch with this number was given these offsets, of which the end is exclusive; without, it may be there or
    /// not.
    pub fn answered(&self, partition: u32, batch: u64, offsets: Option<&(u64, u64)>) {
        self.of(partition, |answers| match offsets {
            Some(&(base_offset, end_offset)) => {
                answers.acknowledged.push(Promise { base_offset, end_offset, batch });
            }
            None => answers.failed.push(batch),
        });
    }

    fn of<T>(&self, partition: u32, then: impl FnOnce(&mut Answers) -> T) -> T {
        then(&mut self.partitions[partition as usize].lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads every partition from the first acknowledged offset to its end, one after the other.
pub async fn verify(plan: &Plan, outcomes: &Outcomes) -> Result<Verification> {
    let digests = Digests::of(&outcomes.payload)?;
    let mut all = Verification::default();
    for partition in 0..outcomes.payload.partitions() {
        let Answers { acknowledged, failed } = outcomes.of(partition, std::mem::take);
        if acknowledged.is_empty() {
            continue;
        }
        let mut checker = Checker::new(acknowledged, &failed, outcomes.clients, &digests);
        let found = match read_back(plan, partition, &mut checker).await {
            Ok(()) => checker.finish(),
            Err(error) => Verification {
                incomplete: Some(format!("partition {partition}: {error:#}")),
                ..checker.found().clone()
            },
        };
        all.add(found);
    }
    Ok(all)
}

/// How long nothing may come before what is missing is given up.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Reads to the end of the partition, and again to where it ends then, until all that was acknowledged is read: of two
/// levels of durability it is acknowledged before consumers may see it.
async fn read_back(plan: &Plan, partition: u32, checker: &mut Checker<'_>) -> Result<()> {
    const PAUSE: Duration = Duration::from_millis(50);
    let mut last_read = Instant::now();
    loop {
        let mut reader = Broker::connect(plan).await?.read_back(partition, checker.next()).await?;
        loop {
            let next = tokio::time::timeout(SILENCE_MAX, reader.next()).await;
            let Some(arrival) = next.with_context(|| format!("no answer within {SILENCE_MAX:?}"))?? else {
                break;
            };
            let digest = arrival.digest.context("a reader that was to take digests")?;
            checker.read(arrival.base_offset, arrival.end_offset, digest);
            last_read = Instant::now();
        }
        if checker.is_complete() || last_read.elapsed() > SILENCE_MAX {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}
