//! Entry for fuzzing: the client's core against a broker that answers as the bytes say. Not part of the api; the rules
//! are those of `corrente_protocol::fuzz`.
//!
//! Whatever comes, each call is answered once and each record settled once, within its time, and room that was taken is
//! given back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use corrente_protocol::api::*;
use corrente_protocol::compression::Compression;
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::frame::{
    Cut, Durability, FLAG_ERROR, FLAG_MORE, MAX_FRAME_DEFAULT, RequestHeader, ResponseHeader, cut_request,
    response_frame,
};
use corrente_protocol::fuzz::{Choices, Entry};
use corrente_protocol::hello::{CLIENT_HELLO_LEN, ServerHello};
use corrente_protocol::ids::{LeaderEpoch, NodeId, Offset, PartitionIndex, ShardId, TopicId, TopicName};
use corrente_protocol::record_batch::{RecordBatchBuilder, headers, stamp};

use crate::core::accumulator::{Accumulator, Partitioner, ProducerSettings, room_of};
use crate::core::call::CallRequest;
use crate::core::consume::{ConsumerSettings, OutOfRange, StartOffset};
use crate::core::inbox::Inbox;
use crate::core::{Action, CallId, ConnectionId, ConsumerId, Core, CoreSettings, Event, Micros, ProducerId};
use crate::{Record, Ticket};

/// Every entry of this crate.
pub const ENTRIES: &[Entry] = &[("client", client)];

/// What a request, a call and a record may take; after all of them everything is settled.
const TIMEOUT: Duration = Duration::from_secs(10);
const PARTITIONS: u32 = 3;
const TOPIC: TopicId = TopicId([9; 16]);
/// What the records of one fetched batch may take.
const RECORDS_LEN_MAX: usize = 1 << 12;

/// Entry for fuzzing: see the module.
pub fn client(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut session = Session::begin();
    while !choices.is_empty() {
        session.step(&mut choices);
    }
    session.end();
}

struct Session {
    core: Core,
    now: Micros,
    producer: Arc<Accumulator>,
    inbox: Arc<Inbox>,
    tickets: Vec<Ticket>,
    room_taken: usize,
    room_freed: usize,
    calls: usize,
    answered: BTreeSet<CallId>,
    connecting: Vec<ConnectionId>,
    wires: BTreeMap<ConnectionId, Wire>,
}

/// A socket that is open: what the client has sent on it and nobody has answered.
#[derive(Default)]
struct Wire {
    sent: BytesMut,
    said_hello: bool,
    requests: VecDeque<(RequestHeader, Bytes)>,
}

impl Session {
    fn begin() -> Session {
        let mut settings = CoreSettings::new(vec![(Arc::from("seed"), 7400)]);
        settings.request_timeout = TIMEOUT;
        let mut core = Core::new(settings, fastrand::Rng::with_seed(7));
        let now = Micros(1_000_000);
        let producer = core.add_producer(ProducerId(1), producer_settings(), PARTITIONS);
        let inbox = core.add_consumer(now, ConsumerId(1), consumer_settings());
        let mut session = Session {
            core,
            now,
            producer,
            inbox,
            tickets: Vec::new(),
            room_taken: 0,
            room_freed: 0,
            calls: 0,
            answered: BTreeSet::new(),
            connecting: Vec::new(),
            wires: BTreeMap::new(),
        };
        for request in calls() {
            let call = CallId(u64::try_from(session.calls).expect("a few calls"));
            session.calls += 1;
            session.handle(Event::Call { call, request, timeout: TIMEOUT });
        }
        session.push(Record::value("first"));
        session.open();
        session
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.u8() % 10 {
            0 => self.open(),
            1 => self.on_a_wire(choices, |_, _| Some(vec![Bytes::copy_from_slice(&hello().encode())])),
            2 => self.on_a_wire(choices, |_, choices| {
                Some(vec![Bytes::copy_from_slice(&strange_hello(choices).encode())])
            }),
            3 | 4 => self.on_a_wire(choices, |wire, choices| {
                let (header, body) = wire.requests.pop_front()?;
                let flags = if header.api == ApiKey::Subscribe { u16::from(choices.u8() % 4) } else { 0 };
                let response = ResponseHeader { flags: flags & FLAG_MORE, ..header.response() };
                if response.has_more() {
                    wire.requests.push_back((header, body.clone()));
                }
                Some(plausible_answer(response, body, choices))
            }),
            5 => self.on_a_wire(choices, |wire, choices| {
                let (header, _) = wire.requests.pop_front()?;
                let header = ResponseHeader { flags: choices.u8().into(), ..header.response() };
                let body = Bytes::copy_from_slice(choices.bytes());
                Some(response_frame(header, |writer| writer.put_shared(body)))
            }),
            6 => self.on_a_wire(choices, |_, choices| Some(vec![Bytes::copy_from_slice(choices.bytes())])),
            7 => {
                let connection = self.pick(choices);
                if let Some(connection) = connection {
                    self.wires.remove(&connection);
                    self.handle(Event::Closed { connection, cause: "reset".to_owned() });
                }
            }
            8 => {
                self.now = self.now + Duration::from_millis(choices.u16().into());
                self.handle(Event::Tick);
            }
            _ => {
                self.push(Record::value(Bytes::copy_from_slice(choices.bytes())));
                self.take();
            }
        }
    }

    fn handle(&mut self, event: Event) {
        self.core.handle(self.now, event);
        self.act();
    }

    fn act(&mut self) {
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Connect { connection, .. } => self.connecting.push(connection),
                Action::Send { connection, chunks } => {
                    let wire = self.wires.get_mut(&connection).expect("sent where it is connected");
                    chunks.iter().for_each(|chunk| wire.sent.extend_from_slice(chunk));
                    wire.read();
                }
                Action::Close { connection } => {
                    self.wires.remove(&connection);
                    self.connecting.retain(|connecting| *connecting != connection);
                }
                Action::Reply { call, .. } => {
                    assert!(self.answered.insert(call), "call {call:?} was answered twice");
                }
                Action::RoomFreed { bytes, .. } => self.room_freed += bytes,
            }
        }
    }

    fn open(&mut self) {
        for connection in std::mem::take(&mut self.connecting) {
            self.wires.insert(connection, Wire::default());
            self.handle(Event::Connected { connection });
        }
    }

    fn pick(&self, choices: &mut Choices<'_>) -> Option<ConnectionId> {
        let place = usize::from(choices.u8()).checked_rem(self.wires.len())?;
        self.wires.keys().nth(place).copied()
    }

    /// Bytes arrive on one of the sockets, perhaps in two pieces.
    fn on_a_wire(
        &mut self,
        choices: &mut Choices<'_>,
        say: impl FnOnce(&mut Wire, &mut Choices<'_>) -> Option<Vec<Bytes>>,
    ) {
        let Some(connection) = self.pick(choices) else { return };
        let wire = self.wires.get_mut(&connection).expect("it was picked");
        let Some(said) = say(wire, choices) else { return };
        let mut first = BytesMut::from(&said.concat()[..]);
        let second = first.split_off(usize::from(choices.u16()).min(first.len()));
        for bytes in [first, second] {
            if !bytes.is_empty() && self.wires.contains_key(&connection) {
                self.handle(Event::Received { connection, bytes });
            }
        }
    }

    fn push(&mut self, record: Record) {
        let (room, now) = (room_of(&record), self.now);
        let pushed = self.producer.push(&record, 5, || now).expect("a small record");
        self.room_taken += room;
        self.tickets.push(pushed.ticket);
        if pushed.wake {
            self.handle(Event::Wake);
        }
    }

    fn take(&mut self) {
        while let Poll::Ready(Some(taken)) = self.inbox.poll_take(&mut Context::from_waker(Waker::noop())) {
            if let Ok(mut fetched) = taken.item {
                while let Some(Ok(batch)) = fetched.next_batch(RECORDS_LEN_MAX) {
                    assert!(!batch.records.is_empty(), "a batch without records was handed out");
                }
            }
            if taken.wake {
                self.handle(Event::Wake);
            }
        }
    }

    /// The broker falls silent. Everything that was asked for comes to its end by time alone.
    fn end(mut self) {
        self.take();
        let end = self.now + 3 * TIMEOUT;
        while let Some(at) = self.core.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.handle(Event::Tick);
        }
        assert_eq!(self.answered.len(), self.calls, "a call was never answered");
        for ticket in &mut self.tickets {
            let settled = pin!(ticket).poll(&mut Context::from_waker(Waker::noop())).is_ready();
            assert!(settled, "a record was never settled");
        }
        assert_eq!(self.room_freed, self.room_taken, "room was lost");
        self.core.close(self.now);
        self.act();
    }
}

impl Wire {
    fn read(&mut self) {
        if !self.said_hello && self.sent.len() >= CLIENT_HELLO_LEN {
            self.sent.advance(CLIENT_HELLO_LEN);
            self.said_hello = true;
        }
        while let Cut::Frame(header, body) = cut_request(&mut self.sent, u32::MAX).expect("good frames") {
            self.requests.push_back((header, body));
        }
    }
}

fn topic() -> TopicName {
    TopicName::new("t").expect("a topic name")
}

fn producer_settings() -> ProducerSettings {
    ProducerSettings {
        idempotent: true,
        topic: topic(),
        durability: Durability::IsrFlushed,
        linger: Duration::ZERO,
        batch_bytes: 1 << 16,
        batch_records: 3,
        compression: Compression::None,
        delivery_timeout: TIMEOUT,
        partitioner: Partitioner::RoundRobin,
        record_bytes_max: 1 << 20,
    }
}

fn consumer_settings() -> ConsumerSettings {
    let starts = [StartOffset::Earliest, StartOffset::Latest, StartOffset::At(Offset(5))];
    ConsumerSettings {
        partitions: (0..)
            .map(PartitionIndex)
            .zip(starts)
            .map(|(index, start)| (topic(), index, start))
            .collect(),
        until_end: true,
        out_of_range: OutOfRange::Earliest,
        prefetch_bytes: 1 << 16,
        answer_bytes_max: 1 << 14,
        heartbeat: Duration::from_millis(500),
    }
}

/// One of each.
fn calls() -> Vec<CallRequest> {
    let name = "t".to_owned();
    let mut builder = RecordBatchBuilder::new(Compression::None);
    builder.push(1, None, Some(b"x"), &[]).expect("a small record");
    vec![
        CallRequest::Metadata(MetadataRequest { topics: None }),
        CallRequest::CreateTopic(CreateTopicRequest {
            name: name.clone(),
            partitions: PARTITIONS,
            replication_factor: 0,
            configs: Vec::new(),
            validate_only: false,
        }),
        CallRequest::AlterTopic(AlterTopicRequest {
            name: name.clone(),
            set: Vec::new(),
            unset: Vec::new(),
            validate_only: true,
        }),
        CallRequest::AddPartitions(AddPartitionsRequest {
            name: name.clone(),
            total: 4,
            validate_only: false,
        }),
        CallRequest::DescribeTopic(DescribeTopicRequest { name: name.clone() }),
        CallRequest::ListOffsets {
            topic: topic(),
            partition: PartitionIndex(1),
            spec: OffsetSpec::Timestamp(0),
        },
        CallRequest::Produce {
            topic: topic(),
            partition: PartitionIndex(0),
            batches: builder.build(),
            durability: Durability::Received,
            expected_end_offset: Some(Offset(0)),
            wants_stage_times: true,
        },
        CallRequest::DeleteTopic(DeleteTopicRequest { name }),
    ]
}

fn hello() -> ServerHello {
    ServerHello {
        version: 1,
        error: ErrorCode::None,
        shards: 2,
        shard: ShardId(0),
        node: NodeId(0),
        frame_len_max: MAX_FRAME_DEFAULT,
        flags: 0,
        text: String::new(),
    }
}

fn strange_hello(choices: &mut Choices<'_>) -> ServerHello {
    ServerHello {
        version: choices.u16(),
        error: error(choices),
        shard: ShardId(choices.u16()),
        frame_len_max: choices.u32(),
        text: String::from_utf8_lossy(choices.bytes()).into_owned(),
        ..hello()
    }
}

/// Mostly none.
fn error(choices: &mut Choices<'_>) -> ErrorCode {
    match choices.u8() {
        0..128 => ErrorCode::None,
        some => ErrorCode::from_code(u16::from(some - 128)),
    }
}

/// An answer to the very request, whose fields are as chosen.
fn plausible_answer(header: ResponseHeader, body: Bytes, choices: &mut Choices<'_>) -> Vec<Bytes> {
    let mut response = ResponseHeader { receipt: Durability::IsrFlushed, ..header };
    if choices.u8() == 255 {
        response.flags |= FLAG_ERROR;
        let refusal = ErrorResponse { error: error(choices), message: Some("refused".to_owned()) };
        return response_frame(response, |writer| refusal.encode(0, writer));
    }
    let outcome = error(choices);
    response_frame(response, |writer| match header.api {
        ApiKey::Produce => produced(&read(body), outcome, choices).encode(0, writer),
        ApiKey::Subscribe => sent(&read(body), outcome, choices).encode(0, writer),
        ApiKey::AdjustSubscription => {
            AdjustSubscriptionResponse { found: outcome == ErrorCode::None }.encode(0, writer);
        }
        ApiKey::ListOffsets => listed(&read(body), outcome, choices).encode(0, writer),
        ApiKey::Metadata => metadata(outcome, choices).encode(0, writer),
        ApiKey::CreateTopic => {
            CreateTopicResponse { error: outcome, message: None, id: TOPIC }.encode(0, writer)
        }
        ApiKey::DeleteTopic => DeleteTopicResponse { error: outcome, message: None }.encode(0, writer),
        ApiKey::AlterTopic => AlterTopicResponse { error: outcome, message: None }.encode(0, writer),
        ApiKey::InitProducerId => {
            let producer_id = i64::from(choices.u8());
            InitProducerIdResponse { error: outcome, message: None, producer_id, producer_epoch: 0 }
                .encode(0, writer)
        }
        ApiKey::AddPartitions => AddPartitionsResponse { error: outcome, message: None }.encode(0, writer),
        ApiKey::DescribeTopic => DescribeTopicResponse {
            error: outcome,
            message: None,
            id: TOPIC,
            configs: Vec::new(),
            partitions: Vec::new(),
        }
        .encode(0, writer),
        api => unreachable!("the client asked for {api}"),
    })
}

fn read<R: Request>(body: Bytes) -> R {
    R::decode(0, body).expect("the client writes good requests")
}

fn produced(request: &ProduceRequest, error: ErrorCode, choices: &mut Choices<'_>) -> ProduceResponse {
    let partition = |partition: &ProducePartition| {
        let records: i32 = headers(&partition.batches).flatten().map(|(_, header)| header.record_count).sum();
        let base_offset = Offset(choices.u32().into());
        let missing = u64::from(choices.u8() / 128);
        ProducePartitionResponse {
            topic: partition.topic,
            partition: partition.partition,
            error,
            message: None,
            base_offset,
            end_offset: base_offset.saturating_add(u64::from(records.unsigned_abs()) + missing),
            log_append_time_ms: -1,
            log_start_offset: Offset(0),
            receipt: Durability::IsrFlushed,
        }
    };
    ProduceResponse::new(request.partitions.iter().map(partition).collect())
}

fn sent(request: &SubscribeRequest, error: ErrorCode, choices: &mut Choices<'_>) -> FetchResponse {
    let partition = |partition: &SubscribePartition| {
        let mut builder = RecordBatchBuilder::new(Compression::None);
        for _ in 0..choices.u8() % 4 {
            builder.push(1, None, Some(choices.bytes()), &[]).expect("a small record");
        }
        let batches = (!builder.is_empty()).then(|| {
            let mut batch = builder.build().to_vec();
            // Mostly where it was asked for, or before it.
            let base = partition.offset.0.wrapping_sub(u64::from(choices.u8() % 4));
            stamp(&mut batch, Offset(base), LeaderEpoch(1));
            Bytes::from(batch)
        });
        FetchPartitionResponse {
            topic: partition.topic,
            partition: partition.partition,
            error,
            message: None,
            high_watermark: Offset(choices.u16().into()),
            log_start_offset: Offset(0),
            batches: batches.into_iter().collect(),
        }
    };
    FetchResponse { partitions: request.partitions.iter().map(partition).collect() }
}

fn listed(request: &ListOffsetsRequest, error: ErrorCode, choices: &mut Choices<'_>) -> ListOffsetsResponse {
    let partition = |partition: &ListOffsetsPartition| ListOffsetsPartitionResponse {
        topic: partition.topic,
        partition: partition.partition,
        error,
        message: None,
        offset: Offset(choices.u16().into()),
        timestamp_ms: -1,
        leader_epoch: LeaderEpoch(1),
    };
    ListOffsetsResponse { partitions: request.partitions.iter().map(partition).collect() }
}

fn metadata(error: ErrorCode, choices: &mut Choices<'_>) -> MetadataResponse {
    let node = |node| NodeEndpoint { node: NodeId(node), host: "broker".to_owned(), port: 7400, shards: 2 };
    let nodes = (0..u32::from(choices.u8() % 3) + 1).map(node).collect();
    let mut partition = |index| {
        let placed = choices.u8();
        PartitionMetadata {
            index: PartitionIndex(index),
            error: ErrorCode::None,
            leader: NodeId(u32::from(placed & 3)),
            shard: ShardId(u16::from(placed >> 2 & 1)),
            leader_epoch: LeaderEpoch(1),
            replicas: vec![NodeId(0)],
            isr: vec![NodeId(0)],
        }
    };
    let partitions = (0..PARTITIONS).map(&mut partition).collect();
    let topic = TopicMetadata { name: topic(), id: TOPIC, error, message: None, partitions };
    MetadataResponse {
        cluster_id: [1; 16],
        metadata_version: 1,
        controller: NodeId(u32::from(choices.u8() & 3)),
        nodes,
        topics: vec![topic],
    }
}
