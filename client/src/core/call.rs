//! Calls: one question of the application, one answer. Admin operations, offsets, metadata and raw produce.
//!
//! A call is tried again, wherever it has to go then, until it succeeds, is refused for good, or its request timeout
//! has passed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corrente_protocol::api::{
    AddPartitionsRequest, AlterTopicRequest, CreateTopicRequest, DeleteBefore, DeleteRecordsPartition,
    DeleteRecordsRequest, DeleteTopicRequest, DescribeTopicRequest, DescribeTopicResponse,
    ListOffsetsPartition, ListOffsetsRequest, MetadataRequest, MetadataResponse, OffsetSpec,
    ProducePartition, ProduceRequest, StageTimes,
};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::frame::Durability;
use corrente_protocol::ids::{Offset, PartitionIndex, TopicId, TopicName};

use super::connection::{Answer, ConnectionId, Correlation};
use super::hub::{Hub, TooLarge, decode};
use super::metadata::Route;
use super::owner::Owner;
use super::time::Micros;
use super::timers::Timer;
use super::{Action, CallId};
use crate::error::{Error, ErrorKind};

/// What is asked.
#[derive(Debug, Clone)]
pub enum CallRequest {
    /// Nodes, and topics with their partitions and leaders.
    Metadata(MetadataRequest),
    /// Create a topic.
    CreateTopic(CreateTopicRequest),
    /// Delete a topic.
    DeleteTopic(DeleteTopicRequest),
    /// Change the configuration of a topic.
    AlterTopic(AlterTopicRequest),
    /// Grow a topic.
    AddPartitions(AddPartitionsRequest),
    /// Everything about a topic.
    DescribeTopic(DescribeTopicRequest),
    /// One offset of one partition.
    ListOffsets {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionIndex,
        /// Which offset.
        spec: OffsetSpec,
    },
    /// Raise the log start offset of one partition.
    DeleteRecords {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionIndex,
        /// Where the records to be kept begin.
        before: DeleteBefore,
    },
    /// Append record batches as they are.
    Produce {
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionIndex,
        /// At least one record batch, back to back.
        batches: Bytes,
        /// When the broker may answer.
        durability: Durability,
        /// Append only if the log ends here.
        expected_end_offset: Option<Offset>,
        /// Have the broker say where the time went.
        wants_stage_times: bool,
    },
}

/// What is answered.
#[derive(Debug, Clone)]
pub enum CallResponse {
    /// To `Metadata`.
    Metadata(MetadataResponse),
    /// To `CreateTopic`.
    Created(TopicId),
    /// To `DeleteTopic`, `AlterTopic` and `AddPartitions`.
    Done,
    /// To `DescribeTopic`.
    Described(DescribeTopicResponse),
    /// To `ListOffsets`.
    Offset(ListedOffset),
    /// To `DeleteRecords`: the log start offset.
    RecordsDeleted(Offset),
    /// To `Produce`.
    Produced(Produced),
}

/// An offset that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset.
    pub offset: Offset,
    /// Timestamp of the record there, in milliseconds since the Unix epoch, where the question was about timestamps.
    pub timestamp_ms: Option<i64>,
}

/// What became of raw batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Produced {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// One past the offset of the last record.
    pub end_offset: Offset,
    /// The time the broker gave to all records, in milliseconds since the Unix epoch, where the topic has it do so.
    pub append_time_ms: Option<i64>,
    /// What the broker says was reached before it answered.
    pub durability: Durability,
    /// Where the broker says the time went, if it was asked to.
    pub stage_times: Option<StageTimes>,
}

impl CallRequest {
    fn operation(&self) -> &'static str {
        match self {
            CallRequest::Metadata(_) => "metadata",
            CallRequest::CreateTopic(_) => "create topic",
            CallRequest::DeleteTopic(_) => "delete topic",
            CallRequest::AlterTopic(_) => "alter topic",
            CallRequest::AddPartitions(_) => "add partitions",
            CallRequest::DescribeTopic(_) => "describe topic",
            CallRequest::ListOffsets { .. } => "list offsets",
            CallRequest::DeleteRecords { .. } => "delete records",
            CallRequest::Produce { .. } => "produce",
        }
    }

    fn changes_something(&self) -> bool {
        match self {
            CallRequest::Metadata(_) | CallRequest::DescribeTopic(_) | CallRequest::ListOffsets { .. } => {
                false
            }
            CallRequest::CreateTopic(request) => !request.validate_only,
            CallRequest::AlterTopic(request) => !request.validate_only,
            CallRequest::AddPartitions(request) => !request.validate_only,
            CallRequest::DeleteTopic(_) | CallRequest::DeleteRecords { .. } | CallRequest::Produce { .. } => {
                true
            }
        }
    }

    fn partition(&self) -> Option<(&TopicName, PartitionIndex)> {
        match self {
            CallRequest::ListOffsets { topic, partition, .. }
            | CallRequest::DeleteRecords { topic, partition, .. }
            | CallRequest::Produce { topic, partition, .. } => Some((topic, *partition)),
            _ => None,
        }
    }

    fn needs_controller(&self) -> bool {
        matches!(
            self,
            CallRequest::CreateTopic(_)
                | CallRequest::DeleteTopic(_)
                | CallRequest::AlterTopic(_)
                | CallRequest::AddPartitions(_)
        )
    }

    fn place(&self, error: Error) -> Error {
        let error = error.operation(self.operation());
        match self {
            CallRequest::CreateTopic(request) => error.topic(&request.name),
            CallRequest::DeleteTopic(request) => error.topic(&request.name),
            CallRequest::AlterTopic(request) => error.topic(&request.name),
            CallRequest::AddPartitions(request) => error.topic(&request.name),
            CallRequest::DescribeTopic(request) => error.topic(&request.name),
            CallRequest::ListOffsets { topic, partition, .. }
            | CallRequest::DeleteRecords { topic, partition, .. }
            | CallRequest::Produce { topic, partition, .. } => error.topic(topic).partition(partition.0),
            CallRequest::Metadata(request) => match request.topics.as_deref() {
                Some([topic]) => error.topic(topic),
                _ => error,
            },
        }
    }
}

#[derive(Debug)]
struct Call {
    request: CallRequest,
    started_at: Micros,
    deadline: Micros,
    /// Not tried before this moment.
    not_before: Micros,
    attempts: u32,
    in_flight: bool,
    maybe_applied: bool,
    broker: Option<Arc<str>>,
    last: Option<Error>,
}

/// Every call that is not answered yet.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    calls: BTreeMap<CallId, Call>,
    /// Those not in flight.
    waiting: BTreeSet<CallId>,
    /// Those of them that may be able to go now, whatever else has changed.
    look: BTreeSet<CallId>,
}

impl Calls {
    pub(crate) fn begin(
        &mut self,
        now: Micros,
        hub: &mut Hub,
        id: CallId,
        request: CallRequest,
        timeout: Duration,
    ) {
        if let Some((topic, _)) = request.partition() {
            hub.metadata.attend(topic);
        }
        let deadline = now + timeout;
        hub.timers.set(deadline, Timer::Call(id));
        let call = Call {
            request,
            started_at: now,
            deadline,
            not_before: now,
            attempts: 0,
            in_flight: false,
            maybe_applied: false,
            broker: None,
            last: None,
        };
        let before = self.calls.insert(id, call);
        assert!(before.is_none(), "call {} was begun twice", id.0);
        self.waiting.insert(id);
        self.look.insert(id);
    }

    /// Something can be done at once.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.look.is_empty()
    }

    /// A deadline of this call has come: to try again, or to give up.
    pub(crate) fn due(&mut self, now: Micros, hub: &mut Hub, id: CallId) {
        let Some(call) = self.calls.get(&id) else { return };
        // In flight, the request's own deadline decides, which is the same moment.
        if call.in_flight {
            return;
        }
        if now >= call.deadline {
            return self.give_up(now, hub, id);
        }
        self.look.insert(id);
    }

    pub(crate) fn pump(&mut self, now: Micros, hub: &mut Hub) {
        let look = std::mem::take(&mut self.look);
        let look = if hub.changed { self.waiting.clone() } else { look };
        for id in look {
            self.try_send(now, hub, id);
        }
    }

    fn try_send(&mut self, now: Micros, hub: &mut Hub, id: CallId) {
        let call = self.calls.get_mut(&id).expect("waiting calls are known");
        if now < call.not_before {
            return;
        }
        let (connection, route) = match call.request.partition() {
            Some((topic, partition)) => {
                if let Some(refusal) =
                    missing(now, hub, call.started_at, hub.settings.missing_grace, topic, partition)
                {
                    return self.finish(now, hub, id, Err(refusal));
                }
                match hub.route(topic, partition) {
                    None => (None, None),
                    Some(route) => (hub.ready(now, route.destination), Some(route)),
                }
            }
            None => match hub.metadata.controller().filter(|_| call.request.needs_controller()) {
                Some(controller) => (hub.ready(now, controller), None),
                None => (hub.ready_any(now), None),
            },
        };
        let Some(connection) = connection else { return };
        let timeout = call.deadline - now;
        if let Err((too_large, _)) = send(now, hub, connection, &call.request, route, timeout, id) {
            let error = too_large.error(call.request.operation());
            return self.finish(now, hub, id, Err(error));
        }
        call.attempts += 1;
        call.in_flight = true;
        call.broker = hub.address(connection);
        self.waiting.remove(&id);
    }

    pub(crate) fn answered(&mut self, now: Micros, hub: &mut Hub, id: CallId, answer: &Answer) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.in_flight = false;
        self.waiting.insert(id);
        match read_answer(&call.request, answer) {
            Ok(response) => {
                if let CallResponse::Metadata(metadata) = &response {
                    hub.metadata.apply(now, metadata);
                    hub.changed = true;
                }
                self.finish(now, hub, id, Ok(response));
            }
            Err(error) => self.failed(now, hub, id, error),
        }
    }

    /// The connection broke, or the request's time ran out.
    pub(crate) fn lost(&mut self, now: Micros, hub: &mut Hub, id: CallId, error: Error) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.in_flight = false;
        call.maybe_applied |= call.request.changes_something();
        self.waiting.insert(id);
        self.retry(now, hub, id, error);
    }

    fn failed(&mut self, now: Micros, hub: &mut Hub, id: CallId, error: Error) {
        let call = self.calls.get_mut(&id).expect("the caller found it");
        let code = error.broker_code();
        match code {
            Some(ErrorCode::NotController) => hub.metadata.stale = true,
            Some(code) if code.is_retryable() => {
                if let Some((topic, partition)) = call.request.partition() {
                    hub.metadata.forget_leader(topic, partition);
                }
            }
            _ => {}
        }
        if error.leaves_doubt() {
            call.maybe_applied |= call.request.changes_something();
        }
        let final_answer = !error.is_retryable()
            || (code == Some(ErrorCode::UnknownTopicOrPartition)
                && (call.request.needs_controller() || now - call.started_at >= hub.settings.missing_grace));
        if final_answer { self.finish(now, hub, id, Err(error)) } else { self.retry(now, hub, id, error) }
    }

    fn retry(&mut self, now: Micros, hub: &mut Hub, id: CallId, error: Error) {
        let call = self.calls.get_mut(&id).expect("the caller found it");
        // A missing topic is asked for once more when it is to be believed.
        let asked_at_last = match error.broker_code() {
            Some(ErrorCode::UnknownTopicOrPartition) => call.started_at + hub.settings.missing_grace,
            _ => call.deadline,
        };
        call.last = Some(error);
        if now >= call.deadline {
            return self.give_up(now, hub, id);
        }
        call.not_before = (now + hub.settings.retry.wait(call.attempts, &mut hub.rng)).min(asked_at_last);
        if call.not_before < call.deadline {
            hub.timers.set(call.not_before, Timer::Call(id));
        }
    }

    fn give_up(&mut self, now: Micros, hub: &mut Hub, id: CallId) {
        let call = &self.calls[&id];
        let last = call.last.clone().or_else(|| hub.last_failure.clone());
        let last = last.unwrap_or_else(|| no_leader_or_broker(&call.request));
        let error = last.timed_out(call.deadline - call.started_at);
        self.finish(now, hub, id, Err(error));
    }

    fn finish(&mut self, now: Micros, hub: &mut Hub, id: CallId, result: Result<CallResponse, Error>) {
        let call = self.calls.remove(&id).expect("the caller found it");
        self.waiting.remove(&id);
        self.look.remove(&id);
        hub.timers.cancel(call.deadline, Timer::Call(id));
        hub.timers.cancel(call.not_before, Timer::Call(id));
        if let Some((topic, _)) = call.request.partition() {
            hub.metadata.neglect(topic);
        }
        let result = result.map_err(|error| {
            let error = call.request.place(error).broker(call.broker.as_deref());
            error.after(call.attempts, now - call.started_at).applied_maybe(call.maybe_applied)
        });
        hub.actions.push_back(Action::Reply { call: id, result });
    }
}

fn no_leader_or_broker(request: &CallRequest) -> Error {
    let cause = if request.partition().is_some() { "no leader is known" } else { "no broker answered" };
    Error::new(ErrorKind::Disconnected, request.operation(), cause)
}

/// Why a partition cannot exist, once the cluster has said so for long enough to be believed.
pub(crate) fn missing(
    now: Micros,
    hub: &Hub,
    since: Micros,
    grace: Duration,
    topic: &TopicName,
    partition: PartitionIndex,
) -> Option<Error> {
    let known = hub.metadata.topic(topic)?;
    if let Some(missing_since) = known.missing_since {
        let believed = now - missing_since.max(since) >= grace;
        return believed.then(|| Error::new(ErrorKind::TopicNotFound, "find", "there is no such topic"));
    }
    let outside = partition.0 as usize >= known.partitions() && known.partitions() > 0;
    (outside && now - since >= grace).then(|| {
        let cause = format!("partition {partition} of a topic with {}", known.partitions());
        Error::new(ErrorKind::TopicNotFound, "find", cause)
    })
}

fn send(
    now: Micros,
    hub: &mut Hub,
    connection: ConnectionId,
    request: &CallRequest,
    route: Option<Route>,
    timeout: Duration,
    id: CallId,
) -> Result<Correlation, (TooLarge, Owner)> {
    let owner = Owner::Call(id);
    let none = Durability::Received;
    let topic_id = route.map_or(TopicId::NIL, |route| route.topic);
    match request {
        CallRequest::Metadata(request) => hub.send(now, connection, request, none, timeout, owner),
        CallRequest::CreateTopic(request) => hub.send(now, connection, request, none, timeout, owner),
        CallRequest::DeleteTopic(request) => hub.send(now, connection, request, none, timeout, owner),
        CallRequest::AlterTopic(request) => hub.send(now, connection, request, none, timeout, owner),
        CallRequest::AddPartitions(request) => hub.send(now, connection, request, none, timeout, owner),
        CallRequest::DescribeTopic(request) => hub.send(now, connection, request, none, timeout, owner),
        CallRequest::ListOffsets { partition, spec, .. } => {
            let partitions =
                vec![ListOffsetsPartition { topic: topic_id, partition: *partition, spec: *spec }];
            hub.send(now, connection, &ListOffsetsRequest { partitions }, none, timeout, owner)
        }
        CallRequest::DeleteRecords { partition, before, .. } => {
            let partitions =
                vec![DeleteRecordsPartition { topic: topic_id, partition: *partition, before: *before }];
            hub.send(now, connection, &DeleteRecordsRequest { partitions }, none, timeout, owner)
        }
        CallRequest::Produce {
            partition,
            batches,
            durability,
            expected_end_offset,
            wants_stage_times,
            ..
        } => {
            let partitions = vec![ProducePartition {
                topic: topic_id,
                partition: *partition,
                expected_end_offset: *expected_end_offset,
                batches: batches.clone(),
            }];
            let request = ProduceRequest { partitions, wants_stage_times: *wants_stage_times };
            hub.send(now, connection, &request, *durability, timeout, owner)
        }
    }
}

fn read_answer(request: &CallRequest, answer: &Answer) -> Result<CallResponse, Error> {
    let operation = request.operation();
    let check = |code: ErrorCode, message: &Option<String>| match code {
        ErrorCode::None => Ok(()),
        code => Err(Error::from_code(code, operation, message.as_deref())),
    };
    match request {
        CallRequest::Metadata(_) => {
            let response = decode::<MetadataRequest>(answer)?;
            if let CallRequest::Metadata(MetadataRequest { topics: Some(_) }) = request {
                response.topics.iter().try_for_each(|topic| check(topic.error, &topic.message))?;
            }
            Ok(CallResponse::Metadata(response))
        }
        CallRequest::CreateTopic(_) => {
            let response = decode::<CreateTopicRequest>(answer)?;
            check(response.error, &response.message)?;
            Ok(CallResponse::Created(response.id))
        }
        CallRequest::DeleteTopic(_) => {
            let response = decode::<DeleteTopicRequest>(answer)?;
            check(response.error, &response.message).map(|()| CallResponse::Done)
        }
        CallRequest::AlterTopic(_) => {
            let response = decode::<AlterTopicRequest>(answer)?;
            check(response.error, &response.message).map(|()| CallResponse::Done)
        }
        CallRequest::AddPartitions(_) => {
            let response = decode::<AddPartitionsRequest>(answer)?;
            check(response.error, &response.message).map(|()| CallResponse::Done)
        }
        CallRequest::DescribeTopic(_) => {
            let response = decode::<DescribeTopicRequest>(answer)?;
            check(response.error, &response.message)?;
            Ok(CallResponse::Described(response))
        }
        CallRequest::ListOffsets { .. } => {
            let response = decode::<ListOffsetsRequest>(answer)?;
            let [partition] = only(&response.partitions, operation)?;
            check(partition.error, &partition.message)?;
            let timestamp_ms = (partition.timestamp_ms >= 0).then_some(partition.timestamp_ms);
            Ok(CallResponse::Offset(ListedOffset { offset: partition.offset, timestamp_ms }))
        }
        CallRequest::DeleteRecords { .. } => {
            let response = decode::<DeleteRecordsRequest>(answer)?;
            let [partition] = only(&response.partitions, operation)?;
            check(partition.error, &partition.message)?;
            Ok(CallResponse::RecordsDeleted(partition.log_start_offset))
        }
        CallRequest::Produce { .. } => {
            let response = decode::<ProduceRequest>(answer)?;
            let [partition] = only(&response.partitions, operation)?;
            check(partition.error, &partition.message)?;
            Ok(CallResponse::Produced(Produced {
                base_offset: partition.base_offset,
                end_offset: partition.end_offset,
                append_time_ms: (partition.log_append_time_ms >= 0).then_some(partition.log_append_time_ms),
                durability: partition.receipt,
                stage_times: response.stage_times,
            }))
        }
    }
}

fn only<'a, T>(partitions: &'a [T], operation: &'static str) -> Result<&'a [T; 1], Error> {
    partitions.try_into().map_err(|_| {
        let cause = format!("asked about 1 partition, answered about {}", partitions.len());
        Error::new(ErrorKind::Corrupt, operation, cause)
    })
}
