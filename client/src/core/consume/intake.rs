//! Taking in what brokers answer, and what becomes of partitions that fail.

use bytes::Bytes;
use corrente_protocol::api::{FetchPartitionResponse, OffsetSpec, SubscribeRequest};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::Offset;

use super::partition::{Partition, State};
use super::{Consumer, OffsetsFlight};
use crate::core::connection::{Answer, Destination};
use crate::core::hub::{Hub, decode};
use crate::core::time::Micros;
use crate::error::{Error, ErrorKind};

/// Batches that fail their checks are asked for again this often before the consumer is told.
const DAMAGED_ATTEMPTS_MAX: u32 = 3;

impl Consumer {
    /// An answer of a subscription. An error means that the broker does not keep to what was agreed.
    pub(super) fn sent(
        &mut self,
        now: Micros,
        hub: &mut Hub,
        destination: Destination,
        answer: &Answer,
    ) -> Result<(), Error> {
        let has_more = answer.header.has_more();
        let taken = match decode::<SubscribeRequest>(answer) {
            Ok(response) if response.partitions.is_empty() && has_more => {
                self.are_well(destination);
                Ok(())
            }
            Ok(response) => {
                response.partitions.into_iter().try_for_each(|sent| self.took(now, hub, destination, sent))
            }
            Err(error) => {
                self.covered(destination).into_iter().for_each(|place| self.failed(now, hub, place, &error));
                self.set_stale(destination);
                Ok(())
            }
        };
        if !has_more {
            let was_asked =
                self.subscriptions.get(&destination).is_none_or(|open| open.ends || open.is_stale);
            let left = self.ended(destination);
            let error = match &taken {
                Ok(()) if was_asked => return taken,
                Ok(()) => Error::new(ErrorKind::Disconnected, "fetch", "the broker ended the subscription"),
                Err(error) => error.clone(),
            };
            left.into_iter().for_each(|place| self.try_again(now, hub, place, &error));
        }
        taken
    }

    /// A heartbeat: no partition has failed.
    fn are_well(&mut self, destination: Destination) {
        self.covered(destination).into_iter().for_each(|place| self.partitions[place].failures = 0);
    }

    /// Takes in what was sent of one partition.
    fn took(
        &mut self,
        now: Micros,
        hub: &mut Hub,
        destination: Destination,
        sent: FetchPartitionResponse,
    ) -> Result<(), Error> {
        let Some(open) = self.subscriptions.get_mut(&destination) else { return Ok(()) };
        let bytes = sent.batches.iter().map(Bytes::len).sum();
        if bytes > 0 && open.credit.outstanding() == 0 {
            let cause = format!("{bytes} bytes were sent without any credit left");
            return Err(Error::new(ErrorKind::Corrupt, "receive", cause));
        }
        open.credit.use_up(bytes);
        let Some(place) = open.places.get(&(sent.topic, sent.partition)).copied() else {
            let cause = format!("partition {} was sent, which is not subscribed to", sent.partition);
            return Err(Error::new(ErrorKind::Corrupt, "receive", cause));
        };
        // What is still on its way for one that failed or ended, and may be elsewhere by now, is not wanted.
        if self.partitions[place].state() == State::Subscribed(destination) {
            self.took_for(now, hub, place, sent);
            let partition = &self.partitions[place];
            if partition.state() != State::Subscribed(destination) && !partition.has_reached_end() {
                self.set_stale(destination);
            }
        }
        Ok(())
    }

    fn took_for(&mut self, now: Micros, hub: &mut Hub, place: usize, sent: FetchPartitionResponse) {
        let partition = &mut self.partitions[place];
        if sent.error == ErrorCode::OffsetOutOfRange
            && let Some(start) = partition.new_start(self.settings.out_of_range)
        {
            partition.start_at(start);
            return self.partitions.enter(place, State::Idle);
        }
        if sent.error != ErrorCode::None {
            let error = Error::from_code(sent.error, "fetch", sent.message.as_deref());
            return self.failed(now, hub, place, &error);
        }
        partition.failures = 0;
        partition.begun = true;
        for run in sent.batches.into_iter().filter(|run| !run.is_empty()) {
            let (fetched, checked) = self.partitions[place].take_in(run, sent.high_watermark);
            if let Some(fetched) = fetched {
                tracing::trace!(from = fetched.from.0, bytes = fetched.bytes, "sent");
                self.inbox.put(Ok(fetched));
            }
            if let Err(error) = checked {
                return self.damaged(now, hub, place, error);
            }
        }
        let partition = &mut self.partitions[place];
        partition.damaged = 0;
        if partition.has_reached_end() {
            self.partitions.enter(place, State::Done);
        }
    }

    /// The subscription to a destination covers what it should not.
    fn set_stale(&mut self, destination: Destination) {
        if let Some(open) = self.subscriptions.get_mut(&destination) {
            open.is_stale = true;
        }
    }

    pub(super) fn offset_found(&mut self, place: usize, spec: OffsetSpec, offset: Offset) {
        if self.partitions[place].state() == State::Done {
            return;
        }
        self.partitions.enter(place, State::Idle);
        let partition = &mut self.partitions[place];
        // Whether a suspect is well shows when it is read.
        if !std::mem::take(&mut partition.is_suspect) {
            partition.failures = 0;
        }
        if partition.position.is_none() && Some(spec) == partition.start.spec() {
            partition.position = Some(offset);
        }
        if self.settings.until_end && partition.stop_at.is_none() && spec == OffsetSpec::Latest {
            partition.stop_at = Some(offset);
        }
    }

    /// Bytes may have been damaged on the way: they are asked for again a few times.
    fn damaged(&mut self, now: Micros, hub: &mut Hub, place: usize, error: Error) {
        self.partitions[place].damaged += 1;
        if self.partitions[place].damaged >= DAMAGED_ATTEMPTS_MAX {
            return self.give_up(place, error);
        }
        self.try_again(now, hub, place, &error);
    }

    pub(super) fn failed(&mut self, now: Micros, hub: &mut Hub, place: usize, error: &Error) {
        if !error.is_retryable() {
            return self.give_up(place, error.clone());
        }
        let Partition { topic, index, is_suspect, .. } = &mut self.partitions[place];
        *is_suspect = true;
        hub.metadata.forget_leader(topic, *index);
        self.try_again(now, hub, place, error);
    }

    pub(super) fn offsets_failed(
        &mut self,
        now: Micros,
        hub: &mut Hub,
        flight: &OffsetsFlight,
        error: &Error,
    ) {
        flight.asked.iter().for_each(|(place, _)| self.failed(now, hub, *place, error));
    }

    pub(super) fn try_again(&mut self, now: Micros, hub: &mut Hub, place: usize, error: &Error) {
        if self.partitions[place].state() == State::Done {
            return;
        }
        self.partitions.enter(place, State::Idle);
        let partition = &mut self.partitions[place];
        tracing::debug!(topic = %partition.topic, partition = partition.index.0, %error, "asking again");
        partition.failures = partition.failures.saturating_add(1);
        partition.not_before = now + hub.settings.retry.wait(partition.failures, &mut hub.rng);
    }

    /// Tells the owner, once, and leaves the partition alone.
    pub(super) fn give_up(&mut self, place: usize, error: Error) {
        if self.partitions[place].state() == State::Done {
            return;
        }
        self.partitions.enter(place, State::Done);
        self.dirty = true;
        let partition = &self.partitions[place];
        let error = error.operation("fetch").topic(&partition.topic).partition(partition.index.0);
        self.inbox.put(Err(error));
    }
}
