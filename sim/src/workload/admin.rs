//! The administrator of a run: asks where logs begin and end and where times stand, deletes records, grows the topic.

use std::time::Duration;

use corrente_client::core::call::{CallRequest, CallResponse};
use corrente_client::{Offset, OffsetSpec, PartitionIndex};
use corrente_history::{Action, OffsetAnswer, OffsetQuery};
use corrente_protocol::api::{AddPartitionsRequest, DeleteBefore};
use corrente_runtime::timer::{sleep, wall_clock_ms};
use fastrand::Rng;

use super::{ADMINISTRATOR, FINAL_READERS, PATIENCE, TOPIC, Workload, log};
use crate::client::Client;

impl Workload {
    /// Does something of it now and then, and grows the topic half way.
    pub(super) async fn administrate(self, seed: u64) {
        let mut rng = Rng::with_seed(seed);
        let client = self.client(rng.u64(..));
        let plan = &self.0.plan;
        let half: u64 = plan.producers.iter().map(|producer| u64::from(producer.records)).sum::<u64>() / 2;
        while !self.is_done() {
            sleep(Duration::from_micros(rng.u64(1..500_000))).await;
            let partition = PartitionIndex(rng.u32(..plan.partitions));
            match rng.u8(..4) {
                0 => self.look_up(&client, partition, &mut rng).await,
                1 if plan.topic.deletes_records => self.delete(&client, partition, &mut rng).await,
                _ => self.ask(&client, partition, false).await,
            }
            if self.sent() >= half && self.0.partitions.get() < plan.partitions_later {
                self.grow(&client, plan.partitions_later).await;
            }
        }
        self.0.administrator_done.set(true);
    }

    async fn grow(&self, client: &Client, total: u32) {
        let request = AddPartitionsRequest { name: TOPIC.into(), total, validate_only: false };
        let begun = self.0.begin(ADMINISTRATOR, false, Action::AlterTopic(self.0.facts(total)));
        let error = client.call_within(CallRequest::AddPartitions(request), PATIENCE).await.err();
        // An attempt whose answer was lost has done it already.
        self.0.complete(begun, error.filter(|error| !error.maybe_applied()).as_ref(), |_| {});
        self.0.partitions.set(total);
    }

    pub(super) async fn ask(&self, client: &Client, partition: PartitionIndex, is_final: bool) {
        let earliest = (OffsetQuery::Earliest, OffsetSpec::Earliest);
        if let Some(start) = self.list_offsets(client, partition, earliest, is_final).await {
            self.0.know_start(partition.0, start.offset);
        }
        let latest = (OffsetQuery::Latest, OffsetSpec::Latest);
        if let Some(end) = self.list_offsets(client, partition, latest, is_final).await {
            self.0.know_end(partition.0, end.offset);
        }
    }

    /// Asks where a time stands; some are earlier than any record, some later.
    async fn look_up(&self, client: &Client, partition: PartitionIndex, rng: &mut Rng) {
        let age_ms = (rng.f64() * rng.f64() * 30_000.0) as i64 - 500;
        let at_ms = wall_clock_ms() - age_ms;
        let question = match rng.bool() {
            true => (OffsetQuery::Timestamp(at_ms), OffsetSpec::Timestamp(at_ms)),
            false => (OffsetQuery::MaxTimestamp, OffsetSpec::MaxTimestamp),
        };
        self.list_offsets(client, partition, question, false).await;
    }

    async fn list_offsets(
        &self,
        client: &Client,
        partition: PartitionIndex,
        (query, spec): (OffsetQuery, OffsetSpec),
        is_final: bool,
    ) -> Option<OffsetAnswer> {
        let process = if is_final { FINAL_READERS } else { ADMINISTRATOR };
        let question = Action::ListOffsets { log: log(partition), query, answer: None };
        let begun = self.0.begin(process, is_final, question);
        let request = CallRequest::ListOffsets { topic: self.0.topic.clone(), partition, spec };
        let told = client.call_within(request, PATIENCE).await;
        let found = told.as_ref().ok().map(offset_of);
        self.0.complete(begun, told.as_ref().err(), |action| {
            if let Action::ListOffsets { answer, .. } = action {
                *answer = found;
            }
        });
        found
    }

    /// Deletes the oldest records of a partition; sometimes more than there are.
    async fn delete(&self, client: &Client, partition: PartitionIndex, rng: &mut Rng) {
        let (start, end) = self.0.bounds(partition.0);
        let before_offset = match rng.u8(..8) {
            0 => end + rng.u64(1..100_000),
            1 => rng.u64(0..=start),
            2 => end,
            _ => (start + rng.u64(0..=50)).min(end),
        };
        let action = Action::DeleteRecords { log: log(partition), before_offset, log_start: None };
        let begun = self.0.begin(ADMINISTRATOR, false, action);
        let before = DeleteBefore::Offset(Offset(before_offset));
        let request = CallRequest::DeleteRecords { topic: self.0.topic.clone(), partition, before };
        let told = client.call_within(request, PATIENCE).await;
        let start = told.as_ref().ok().map(|told| match told {
            CallResponse::RecordsDeleted(start) => start.0,
            other => panic!("delete-records was answered with {other:?}"),
        });
        self.0.complete(begun, told.as_ref().err(), |action| {
            if let Action::DeleteRecords { log_start, .. } = action {
                *log_start = start;
            }
        });
        if let Some(start) = start {
            self.0.know_start(partition.0, start);
        }
    }
}

fn offset_of(told: &CallResponse) -> OffsetAnswer {
    match told {
        CallResponse::Offset(listed) => {
            OffsetAnswer { offset: listed.offset.0, timestamp_ms: listed.timestamp_ms }
        }
        other => panic!("list-offsets was answered with {other:?}"),
    }
}
