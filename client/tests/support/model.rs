//! A broker as a model: requests in, responses out, logs in memory. It keeps every rule the SDK relies on, and fails
//! where it is told to. Shared by the tests of the core and those over real sockets.

#![allow(dead_code, reason = "each test uses its part")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use corrente_protocol::api::*;
use corrente_protocol::compression::Compression;
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::frame::{
    Durability, FLAG_ERROR, FLAG_MORE, RequestHeader, ResponseHeader, response_frame,
};
use corrente_protocol::hello::ServerHello;
use corrente_protocol::ids::{LeaderEpoch, NodeId, Offset, PartitionIndex, ShardId, TopicId, TopicName};
use corrente_protocol::record::RecordView;
use corrente_protocol::record_batch::{
    BatchLimits, HEADER_LEN, RecordBatch, RecordBatchBuilder, RecordBatchHeader, headers, stamp,
    stamp_append_time, validate_batches,
};

pub const NODE: NodeId = NodeId(7);

/// One partition's log.
#[derive(Debug, Clone, Default)]
pub struct Log {
    pub start: u64,
    pub end: u64,
    /// The shard that leads it.
    pub shard: u16,
    batches: Vec<RecordBatch>,
}

#[derive(Debug, Clone, Default)]
pub struct Topic {
    pub id: TopicId,
    pub logs: Vec<Log>,
}

/// One node, all shards.
#[derive(Debug, Clone)]
pub struct Model {
    pub host: String,
    pub port: u16,
    pub shards: u16,
    pub frame_len_max: u32,
    pub topics: BTreeMap<String, Topic>,
    /// Errors to answer the next produce partitions with, before anything is appended.
    pub refuse_produce: VecDeque<ErrorCode>,
    /// Partitions, of any topic, that fail whoever asks about their records.
    pub sick: BTreeSet<u32>,
    /// Whether it sends without looking at credit.
    pub ignores_credit: bool,
    /// Subscriptions that are open, by their connections and correlation ids.
    subscriptions: BTreeMap<(u64, u64), Subscription>,
    /// What was served, by api.
    pub served: BTreeMap<ApiKey, usize>,
    /// Records appended so far, all partitions.
    pub appended: u64,
    /// The time all topics give to what is appended, if they do.
    pub append_time_ms: Option<i64>,
    /// Producer ids given out.
    pub producers: i64,
    /// Errors to answer the next requests for one with.
    pub refuse_identity: VecDeque<ErrorCode>,
}

#[derive(Debug, Clone)]
struct Subscription {
    shard: ShardId,
    header: RequestHeader,
    credit: i64,
    max_bytes: usize,
    partitions: Vec<SubscribePartition>,
    ends: bool,
}

impl Model {
    pub fn new(host: &str, port: u16, shards: u16) -> Model {
        Model {
            host: host.to_owned(),
            port,
            shards,
            frame_len_max: 16 * 1024 * 1024,
            topics: BTreeMap::new(),
            refuse_produce: VecDeque::new(),
            sick: BTreeSet::new(),
            ignores_credit: false,
            subscriptions: BTreeMap::new(),
            served: BTreeMap::new(),
            appended: 0,
            append_time_ms: None,
            producers: 0,
            refuse_identity: VecDeque::new(),
        }
    }

    pub fn create(&mut self, name: &str, partitions: u32) {
        let mut id = [0; 16];
        id[0] = u8::try_from(self.topics.len() + 1).expect("few topics");
        let shards = u32::from(self.shards);
        let shard = |partition: u32| u16::try_from(partition % shards).expect("a shard");
        let logs = (0..partitions).map(|partition| Log { shard: shard(partition), ..Log::default() });
        self.topics.insert(name.to_owned(), Topic { id: TopicId(id), logs: logs.collect() });
    }

    pub fn hello(&self, wanted: ShardId) -> ServerHello {
        ServerHello {
            version: 1,
            error: ErrorCode::None,
            shards: self.shards,
            shard: if wanted == ShardId::ANY { ShardId(0) } else { wanted },
            node: NODE,
            frame_len_max: self.frame_len_max,
            flags: 0,
            text: String::new(),
        }
    }

    /// Every record of a partition.
    pub fn records(&self, topic: &str, partition: u32) -> Vec<RecordView> {
        let log = &self.topics[topic].logs[partition as usize];
        log.records().collect()
    }

    /// Puts a batch at the end of a log as compaction might have left it: from `base` to `end`, with records at `kept`
    /// alone, each at the time named.
    pub fn put_compacted(&mut self, topic: &str, partition: u32, base: u64, end: u64, kept: &[(u64, i64)]) {
        let log = &mut self.topics.get_mut(topic).expect("the topic").logs[partition as usize];
        assert!(
            log.end <= base && base < end,
            "a batch of {base} to {end} in a log that ends at {}",
            log.end
        );
        log.batches.push(compacted_batch(base, end, kept));
        log.end = end;
    }

    pub fn log(&mut self, topic: TopicId, partition: PartitionIndex) -> Option<&mut Log> {
        let topic = self.topics.values_mut().find(|found| found.id == topic)?;
        topic.logs.get_mut(partition.0 as usize)
    }

    /// Serves a request that reached `shard`. Only one to subscribe has no answer of its own: see [`Model::sent`].
    pub fn serve(
        &mut self,
        connection: u64,
        shard: ShardId,
        header: &RequestHeader,
        body: Bytes,
    ) -> Option<Vec<Bytes>> {
        *self.served.entry(header.api).or_default() += 1;
        let version = header.version;
        let response = match header.api {
            ApiKey::Metadata => {
                let request = MetadataRequest::decode(version, body).expect("a metadata request");
                respond(header, &self.metadata(&request))
            }
            ApiKey::Produce => {
                let request = ProduceRequest::decode(version, body).expect("a produce request");
                let partitions = request.partitions.into_iter();
                let partitions =
                    partitions.map(|partition| self.produce(shard, header.durability, partition));
                respond(header, &ProduceResponse::new(partitions.collect()))
            }
            ApiKey::Subscribe => {
                let request = SubscribeRequest::decode(version, body).expect("a subscribe request");
                let subscription = Subscription {
                    shard,
                    header: *header,
                    credit: request.credit.into(),
                    max_bytes: request.max_bytes as usize,
                    partitions: request.partitions,
                    ends: false,
                };
                let before = self.subscriptions.insert((connection, header.correlation_id), subscription);
                assert!(before.is_none(), "correlation id {} is open twice", header.correlation_id);
                return None;
            }
            ApiKey::AdjustSubscription => {
                let request = AdjustSubscriptionRequest::decode(version, body).expect("an adjustment");
                let found = self.subscriptions.get_mut(&(connection, request.subscription));
                let response = AdjustSubscriptionResponse { found: found.is_some() };
                if let Some(subscription) = found {
                    subscription.credit += i64::from(request.credit);
                    subscription.ends |= request.ends;
                }
                respond(header, &response)
            }
            ApiKey::ListOffsets => {
                let request = ListOffsetsRequest::decode(version, body).expect("a list-offsets request");
                let partitions = request.partitions.iter().map(|asked| self.list_offset(asked)).collect();
                respond(header, &ListOffsetsResponse { partitions })
            }
            ApiKey::CreateTopic => {
                let request = CreateTopicRequest::decode(version, body).expect("a create-topic request");
                let exists = self.topics.contains_key(&request.name);
                let error = if exists { ErrorCode::TopicAlreadyExists } else { ErrorCode::None };
                if !exists {
                    self.create(&request.name, request.partitions);
                }
                respond(
                    header,
                    &CreateTopicResponse { error, message: None, id: self.topics[&request.name].id },
                )
            }
            ApiKey::DeleteTopic => {
                let request = DeleteTopicRequest::decode(version, body).expect("a delete-topic request");
                let error = match self.topics.remove(&request.name) {
                    Some(_) => ErrorCode::None,
                    None => ErrorCode::UnknownTopicOrPartition,
                };
                respond(header, &DeleteTopicResponse { error, message: None })
            }
            ApiKey::DeleteRecords => {
                let request = DeleteRecordsRequest::decode(version, body).expect("a delete-records request");
                let partitions = request.partitions.iter().map(|asked| self.delete_records(asked)).collect();
                respond(header, &DeleteRecordsResponse { partitions })
            }
            ApiKey::InitProducerId => {
                self.producers += 1;
                let producer_id = self.producers;
                let error = self.refuse_identity.pop_front().unwrap_or(ErrorCode::None);
                let (message, producer_epoch) = (None, 0);
                respond(header, &InitProducerIdResponse { error, message, producer_id, producer_epoch })
            }
            api => {
                let refusal = ErrorResponse {
                    error: ErrorCode::UnsupportedApi,
                    message: Some(format!("the model does not serve {api}")),
                };
                let header = ResponseHeader { flags: FLAG_ERROR, ..header.response() };
                response_frame(header, |writer| refusal.encode(0, writer))
            }
        };
        Some(response)
    }

    /// What a connection's subscriptions have to say now, one answer at a time.
    pub fn sent(&mut self, connection: u64) -> Option<Vec<Bytes>> {
        let of_connection = (connection, 0)..=(connection, u64::MAX);
        let open: Vec<u64> = self.subscriptions.range(of_connection).map(|((_, id), _)| *id).collect();
        open.into_iter().find_map(|id| self.send((connection, id)))
    }

    /// A heartbeat of each subscription of a connection.
    pub fn heartbeats(&self, connection: u64) -> Vec<Vec<Bytes>> {
        let of_connection = (connection, 0)..=(connection, u64::MAX);
        let open = self.subscriptions.range(of_connection).map(|(_, subscription)| subscription);
        open.map(|open| {
            let header = ResponseHeader { flags: FLAG_MORE, ..open.header.response() };
            response_frame(header, |writer| FetchResponse { partitions: Vec::new() }.encode(0, writer))
        })
        .collect()
    }

    /// What is subscribed to: the partitions of each open subscription.
    pub fn subscribed(&self) -> Vec<Vec<u32>> {
        let places = |open: &Subscription| open.partitions.iter().map(|part| part.partition.0).collect();
        self.subscriptions.values().map(places).collect()
    }

    /// The connection is gone.
    pub fn forget(&mut self, connection: u64) {
        self.subscriptions.retain(|(of, _), _| *of != connection);
    }

    fn send(&mut self, id: (u64, u64)) -> Option<Vec<Bytes>> {
        let mut subscription = self.subscriptions.remove(&id).expect("the caller found it");
        let credit = if self.ignores_credit { i64::MAX } else { subscription.credit };
        let mut room = usize::try_from(credit).unwrap_or(0).min(subscription.max_bytes);
        let mut partitions = Vec::new();
        for asked in subscription.partitions.iter_mut().filter(|_| !subscription.ends) {
            if room == 0 {
                break;
            }
            let found = self.read(subscription.shard, asked, &mut room);
            if found.error != ErrorCode::None || !found.batches.is_empty() {
                asked.offset = end_of(&found.batches).unwrap_or(asked.offset);
                partitions.push(found);
            }
        }
        let bytes: usize = partitions.iter().flat_map(|found| &found.batches).map(Bytes::len).sum();
        subscription.credit -= i64::try_from(bytes).expect("a small answer");
        subscription.partitions.retain(|part| part.end.is_none_or(|end| part.offset < end));
        let is_last = subscription.ends
            || subscription.partitions.is_empty()
            || partitions.iter().any(|found| found.error != ErrorCode::None);
        let header = subscription.header;
        if partitions.is_empty() && !is_last {
            self.subscriptions.insert(id, subscription);
            return None;
        }
        if !is_last {
            self.subscriptions.insert(id, subscription);
        }
        let flags = if is_last { 0 } else { FLAG_MORE };
        let header = ResponseHeader { flags, receipt: header.durability, ..header.response() };
        Some(response_frame(header, |writer| FetchResponse { partitions }.encode(0, writer)))
    }

    fn metadata(&self, request: &MetadataRequest) -> MetadataResponse {
        let all = || self.topics.keys().map(|name| TopicName::new(name).expect("a topic name")).collect();
        let names: Vec<TopicName> = request.topics.clone().unwrap_or_else(all);
        let endpoint =
            NodeEndpoint { node: NODE, host: self.host.clone(), port: self.port, shards: self.shards };
        MetadataResponse {
            cluster_id: [1; 16],
            metadata_version: 1,
            controller: NODE,
            nodes: vec![endpoint],
            topics: names.into_iter().map(|name| self.topic_metadata(name)).collect(),
        }
    }

    fn topic_metadata(&self, name: TopicName) -> TopicMetadata {
        let Some(topic) = self.topics.get(name.as_str()) else {
            let error = ErrorCode::UnknownTopicOrPartition;
            return TopicMetadata { name, id: TopicId::NIL, error, message: None, partitions: Vec::new() };
        };
        let partition = |(index, log): (u32, &Log)| PartitionMetadata {
            index: PartitionIndex(index),
            error: ErrorCode::None,
            leader: NODE,
            shard: ShardId(log.shard),
            leader_epoch: LeaderEpoch(1),
            replicas: vec![NODE],
            isr: vec![NODE],
        };
        let partitions = (0..).zip(&topic.logs).map(partition).collect();
        TopicMetadata { name, id: topic.id, error: ErrorCode::None, message: None, partitions }
    }

    fn produce(
        &mut self,
        shard: ShardId,
        durability: Durability,
        request: ProducePartition,
    ) -> ProducePartitionResponse {
        let mut response = ProducePartitionResponse {
            topic: request.topic,
            partition: request.partition,
            error: ErrorCode::None,
            message: None,
            base_offset: Offset::ZERO,
            end_offset: Offset::ZERO,
            log_append_time_ms: self.append_time_ms.unwrap_or(-1),
            log_start_offset: Offset::ZERO,
            receipt: durability,
        };
        let append_time_ms = self.append_time_ms;
        if let Some(error) = self.refuse_produce.pop_front() {
            response.error = error;
            return response;
        }
        let Some(log) = self.log(request.topic, request.partition) else {
            response.error = ErrorCode::UnknownTopicOrPartition;
            return response;
        };
        if log.shard != shard.0 {
            response.error = ErrorCode::NotLeader;
            return response;
        }
        let limits = BatchLimits { batch_bytes_max: 1 << 26 };
        let batches = validate_batches(&request.batches, &limits).expect("the SDK sends valid batches");
        if let [batch] = &batches[..]
            && let Some(judged) = log.judge(&batch.header)
        {
            match judged {
                Ok((base, end)) => (response.base_offset, response.end_offset) = (Offset(base), Offset(end)),
                Err(error) => response.error = error,
            }
            return response;
        }
        response.base_offset = Offset(log.end);
        let mut count = 0;
        for batch in batches {
            let mut bytes = BytesMut::from(&request.batches[batch.range]);
            stamp(&mut bytes, Offset(log.end), LeaderEpoch(1));
            if let Some(append_time_ms) = append_time_ms {
                stamp_append_time(&mut bytes, append_time_ms);
            }
            log.batches.push(RecordBatch::new(bytes.freeze()).expect("a valid batch"));
            log.end += u64::from(batch.record_count);
            count += u64::from(batch.record_count);
        }
        response.end_offset = Offset(log.end);
        self.appended += count;
        response
    }

    fn read(
        &mut self,
        shard: ShardId,
        request: &SubscribePartition,
        room: &mut usize,
    ) -> FetchPartitionResponse {
        let mut response = FetchPartitionResponse {
            topic: request.topic,
            partition: request.partition,
            error: ErrorCode::None,
            message: None,
            high_watermark: Offset::ZERO,
            log_start_offset: Offset::ZERO,
            batches: Vec::new(),
        };
        if self.sick.contains(&request.partition.0) {
            response.error = ErrorCode::StorageError;
            return response;
        }
        let Some(log) = self.log(request.topic, request.partition) else {
            response.error = ErrorCode::UnknownTopicOrPartition;
            return response;
        };
        response.high_watermark = Offset(log.end);
        response.log_start_offset = Offset(log.start);
        let from = request.offset.0;
        if log.shard != shard.0 {
            response.error = ErrorCode::NotLeader;
        } else if from < log.start || from > log.end {
            response.error = ErrorCode::OffsetOutOfRange;
            response.message =
                Some(format!("offset {from} asked for, the log holds [{}, {})", log.start, log.end));
        } else if from < log.end {
            let first = log.batches.partition_point(|batch| batch.header().end_offset().0 <= from);
            for batch in log.batches[first..].iter().map(RecordBatch::bytes) {
                if batch.len() > *room && !response.batches.is_empty() {
                    break;
                }
                *room = room.saturating_sub(batch.len());
                response.batches.push(batch.clone());
            }
        }
        response
    }

    fn list_offset(&mut self, asked: &ListOffsetsPartition) -> ListOffsetsPartitionResponse {
        let is_sick = self.sick.contains(&asked.partition.0);
        let log = self.log(asked.topic, asked.partition);
        let error = match log {
            _ if is_sick => ErrorCode::StorageError,
            Some(_) => ErrorCode::None,
            None => ErrorCode::UnknownTopicOrPartition,
        };
        let (offset, timestamp_ms) = log.map_or((0, -1), |log| log.find(asked.spec));
        ListOffsetsPartitionResponse {
            topic: asked.topic,
            partition: asked.partition,
            error,
            message: None,
            offset: Offset(offset),
            timestamp_ms,
            leader_epoch: LeaderEpoch(1),
        }
    }

    fn delete_records(&mut self, asked: &DeleteRecordsPartition) -> DeleteRecordsPartitionResponse {
        let mut response = DeleteRecordsPartitionResponse {
            topic: asked.topic,
            partition: asked.partition,
            error: ErrorCode::None,
            message: None,
            log_start_offset: Offset::ZERO,
        };
        let Some(log) = self.log(asked.topic, asked.partition) else {
            response.error = ErrorCode::UnknownTopicOrPartition;
            return response;
        };
        let before = match asked.before {
            DeleteBefore::Offset(offset) => offset.0,
            DeleteBefore::HighWatermark => log.end,
        };
        if before > log.end {
            response.error = ErrorCode::OffsetOutOfRange;
            response.message = Some(format!("offset {before} asked for, the log ends at {}", log.end));
        } else {
            log.start = log.start.max(before);
            response.log_start_offset = Offset(log.start);
        }
        response
    }
}

impl Log {
    /// Loses its last batches, as one that was not flushed would.
    pub fn lose(&mut self, batches: usize) {
        self.batches.truncate(self.batches.len() - batches);
        self.end = self.batches.last().map_or(0, |batch| batch.header().end_offset().0);
    }

    /// Whose batches it holds, and their first sequences.
    pub fn sequences(&self) -> Vec<(i64, i32)> {
        let headers = self.batches.iter().map(RecordBatch::header);
        headers.map(|header| (header.producer_id, header.base_sequence)).collect()
    }

    fn records(&self) -> impl Iterator<Item = RecordView> + '_ {
        let records = self.batches.iter().flat_map(|batch| batch.records(1 << 26).expect("records"));
        records.map(|record| record.expect("a record")).filter(|record| record.offset.0 >= self.start)
    }

    /// Where a batch of an idempotent producer stands already, or why it cannot: by all that the log holds of it.
    fn judge(&self, new: &RecordBatchHeader) -> Option<Result<(u64, u64), ErrorCode>> {
        let of_producer = || {
            let headers = self.batches.iter().map(RecordBatch::header);
            headers.filter(|old| old.producer_id == new.producer_id)
        };
        if new.producer_id < 0 {
            return None;
        }
        if let Some(same) = of_producer().find(|old| old.base_sequence == new.base_sequence) {
            return Some(Ok((same.base_offset.0, same.end_offset().0)));
        }
        let last = of_producer().last()?;
        let follows = last.base_sequence.wrapping_add(last.record_count) & i32::MAX == new.base_sequence;
        (!follows).then_some(Err(ErrorCode::OutOfOrderSequence))
    }

    fn find(&self, spec: OffsetSpec) -> (u64, i64) {
        let found = match spec {
            OffsetSpec::Earliest => return (self.start, -1),
            OffsetSpec::Latest => None,
            OffsetSpec::Timestamp(at_ms) => self.records().find(|record| record.timestamp_ms >= at_ms),
            OffsetSpec::MaxTimestamp => {
                // The first of several.
                self.records()
                    .reduce(|best, next| if next.timestamp_ms > best.timestamp_ms { next } else { best })
            }
        };
        found.map_or((self.end, -1), |record| (record.offset.0, record.timestamp_ms))
    }
}

/// Built as a producer would, then spread over its offsets.
fn compacted_batch(base: u64, end: u64, kept: &[(u64, i64)]) -> RecordBatch {
    let mut builder = RecordBatchBuilder::new(Compression::None);
    for (offset, timestamp_ms) in kept {
        builder.push(*timestamp_ms, None, Some(&offset.to_be_bytes()), &[]).expect("a small record");
    }
    let mut bytes = match kept.is_empty() {
        false => BytesMut::from(&builder.build()[..]),
        true => {
            builder.push(1, None, None, &[]).expect("a small record");
            BytesMut::from(&builder.build()[..HEADER_LEN])
        }
    };
    let length = i32::try_from(bytes.len() - 12).expect("a small batch");
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    let last_delta = i32::try_from(end - base - 1).expect("a small gap");
    bytes[23..27].copy_from_slice(&last_delta.to_be_bytes());
    let count = i32::try_from(kept.len()).expect("few records");
    bytes[57..61].copy_from_slice(&count.to_be_bytes());
    spread(&mut bytes, base, kept);
    stamp(&mut bytes, Offset(base), LeaderEpoch(1));
    write_checksum(&mut bytes);
    RecordBatch::new(bytes.freeze()).expect("a batch with a right checksum")
}

/// Gives each record its offset delta. Deltas, like lengths, stay below 64, so that they take one byte each.
fn spread(batch: &mut [u8], base: u64, kept: &[(u64, i64)]) {
    let mut at = HEADER_LEN;
    for (offset, _) in kept {
        let delta = u8::try_from(offset - base).expect("a small delta");
        assert!(delta < 64 && batch[at] < 128, "a delta of {delta}");
        let timestamp_len = batch[at + 2..].iter().take_while(|byte| **byte >= 0x80).count() + 1;
        batch[at + 2 + timestamp_len] = delta * 2;
        at += 1 + usize::from(batch[at] / 2);
    }
}

fn write_checksum(batch: &mut [u8]) {
    let crc = !batch[21..].iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    });
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// One past the last record of a run of batches.
fn end_of(batches: &[Bytes]) -> Option<Offset> {
    let (_, last) = headers(batches.last()?).last()?.ok()?;
    Some(last.end_offset())
}

pub fn respond<M: Message>(header: &RequestHeader, response: &M) -> Vec<Bytes> {
    response_frame(header.response(), |writer| response.encode(header.version, writer))
}
