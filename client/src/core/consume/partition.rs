//! One partition of a consumer: how far it got, and whether what came for it is good.

use bytes::Bytes;
use corrente_protocol::api::SubscribePartition;
use corrente_protocol::ids::{Offset, PartitionIndex, TopicId, TopicName};
use corrente_protocol::record_batch::{BatchError, RecordBatch, RecordBatches};

use super::settings::{OutOfRange, StartOffset};
use crate::core::connection::Destination;
use crate::core::inbox::Fetched;
use crate::core::time::Micros;
use crate::error::{Error, ErrorKind};

#[derive(Debug)]
pub(super) struct Partition {
    pub(super) topic: TopicName,
    pub(super) index: PartitionIndex,
    /// The topic that the positions belong to, once it was asked: another of the same name has others.
    pub(super) topic_id: Option<TopicId>,
    pub(super) start: StartOffset,
    /// Something was read from where it started.
    pub(super) begun: bool,
    /// The next offset to read, once it is known.
    pub(super) position: Option<Offset>,
    /// Where to end, once it is known; asked for only with `until_end`.
    pub(super) stop_at: Option<Offset>,
    state: State,
    /// The shard that leads it, as last seen; kept by [`Partitions`](super::partitions::Partitions).
    pub(super) destination: Option<Destination>,
    pub(super) not_before: Micros,
    pub(super) failures: u32,
    /// A broker refused it: it is asked about by itself before it joins others, whom a refusal would disturb.
    pub(super) is_suspect: bool,
    /// How often in a row its batches failed their checks.
    pub(super) damaged: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// To be asked about, or subscribed to.
    Idle,
    /// A question for offsets is on its way.
    Asked,
    /// In the subscription at that shard.
    Subscribed(Destination),
    /// Ended or failed.
    Done,
}

impl Partition {
    pub(super) fn new(
        topic: &TopicName,
        index: PartitionIndex,
        start: StartOffset,
        not_before: Micros,
    ) -> Partition {
        Partition {
            topic: topic.clone(),
            index,
            topic_id: None,
            start,
            begun: false,
            position: match start {
                StartOffset::At(offset) => Some(offset),
                _ => None,
            },
            stop_at: None,
            state: State::Idle,
            destination: None,
            not_before,
            failures: 0,
            is_suspect: false,
            damaged: 0,
        }
    }

    /// Where to go on when the position lies outside the log; `None` is not at all.
    pub(super) fn new_start(&self, policy: OutOfRange) -> Option<StartOffset> {
        if !self.begun && self.start.spec().is_some() {
            return Some(self.start);
        }
        match policy {
            OutOfRange::Fail => None,
            OutOfRange::Earliest => Some(StartOffset::Earliest),
            OutOfRange::Latest => Some(StartOffset::Latest),
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// For [`Partitions`](super::partitions::Partitions) alone, which counts.
    pub(super) fn replace_state(&mut self, state: State) -> State {
        std::mem::replace(&mut self.state, state)
    }

    /// Begins anew at a place that has to be asked for.
    pub(super) fn start_at(&mut self, start: StartOffset) {
        self.start = start;
        self.begun = false;
        self.position = None;
    }

    pub(super) fn has_reached_end(&self) -> bool {
        matches!((self.position, self.stop_at), (Some(position), Some(stop_at)) if position >= stop_at)
    }

    /// What is asked of the broker for it.
    pub(super) fn wanted(&self, topic: TopicId) -> SubscribePartition {
        SubscribePartition {
            topic,
            partition: self.index,
            offset: self.position.expect("positions are known before the subscription"),
            leader_epoch: None,
            end: self.stop_at,
        }
    }

    /// Takes the batches whose checks hold, up to the first whose do not.
    pub(super) fn take_in(
        &mut self,
        run: Bytes,
        high_watermark: Offset,
    ) -> (Option<Fetched>, Result<(), Error>) {
        let from = self.position.expect("positions are known before the subscription");
        let mut batches = Vec::new();
        let mut bytes = 0;
        let mut position = from;
        let mut checked = Ok(());
        for batch in RecordBatches::new(run) {
            match batch.map_err(damage).and_then(|batch| follows(position, batch)) {
                Ok(batch) => {
                    position = batch.header().end_offset();
                    bytes += batch.bytes().len();
                    batches.push(batch);
                }
                Err(error) => {
                    checked = Err(error);
                    break;
                }
            }
        }
        self.position = Some(position);
        let (topic, partition, stop_at) = (self.topic.clone(), self.index, self.stop_at);
        let fetched = (!batches.is_empty()).then(|| Fetched {
            topic,
            partition,
            batches: batches.into(),
            bytes,
            from,
            stop_at,
            high_watermark,
        });
        (fetched, checked)
    }
}

fn damage(error: BatchError) -> Error {
    Error::new(ErrorKind::Corrupt, "fetch", error.to_string())
}

/// The batch, if it holds offsets from `position` on. It may begin before what was asked for.
fn follows(position: Offset, batch: RecordBatch) -> Result<RecordBatch, Error> {
    let header = batch.header();
    if header.last_offset_delta < 0 || header.end_offset() <= position {
        let (base, end) = (header.base_offset, header.end_offset());
        let cause = format!("offset {position} is next, a batch of {base} to {end} was answered");
        return Err(Error::new(ErrorKind::Corrupt, "fetch", cause));
    }
    Ok(batch)
}
