//! One story each.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use corrente_protocol::api::{ApiKey, MetadataRequest, OffsetSpec};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::frame::{Durability, FRAME_HEADER_LEN, RequestHeader, ResponseHeader};
use corrente_protocol::ids::{Offset, PartitionIndex};
use corrente_protocol::record_batch::HEADER_LEN;

use super::super::accumulator::{Accumulator, room_of};
use super::super::call::{CallRequest, CallResponse};
use super::super::completion::Ticket;
use super::super::consume::{ConsumerSettings, OutOfRange, StartOffset};
use super::super::inbox::{Batch, Inbox};
use super::super::*;
use super::world::{World, peek, topic};
use crate::Record;
use crate::error::ErrorKind;

pub(super) fn push(world: &mut World, accumulator: &Accumulator, text: &str, partition: u32) -> Ticket {
    let now = world.now;
    let record = Record::value(text.to_owned()).partition(partition);
    let pushed = accumulator.push(&record, 5, || now).expect("accepted");
    if pushed.wake {
        world.handle(Event::Wake);
    }
    pushed.ticket
}

pub(super) fn values(world: &World, partition: u32) -> Vec<String> {
    let records = world.model.records("t", partition);
    records
        .iter()
        .map(|r| String::from_utf8(r.value.clone().expect("a value").to_vec()).expect("text"))
        .collect()
}

pub(super) fn is_produce(header: &RequestHeader) -> bool {
    header.api == ApiKey::Produce
}

pub(super) fn is_subscribe(header: &RequestHeader) -> bool {
    header.api == ApiKey::Subscribe
}

fn produce_call() -> CallRequest {
    let mut builder = corrente_protocol::record_batch::RecordBatchBuilder::new(
        corrente_protocol::compression::Compression::None,
    );
    builder.push(1, None, Some(b"x"), &[]).expect("a small record");
    CallRequest::Produce {
        topic: topic(),
        partition: PartitionIndex(0),
        batches: builder.build(),
        durability: Durability::IsrFlushed,
        expected_end_offset: None,
        wants_stage_times: false,
    }
}

#[test]
fn a_record_is_acknowledged_with_its_place() {
    let mut world = World::new(1, 2, 4);
    let producer = world.producer(|_| {});
    let mut ticket = push(&mut world, &producer, "a", 3);
    assert!(peek(&mut ticket).is_none());
    world.settle();
    let receipt = peek(&mut ticket).expect("settled").expect("acknowledged");
    assert_eq!((receipt.partition, receipt.offset, receipt.timestamp_ms), (3, Offset(0), 5));
    assert_eq!(receipt.durability, Durability::IsrFlushed);
    assert_eq!(world.freed, room_of(&Record::value("a")));
    assert_eq!(producer.report().acked, 1);
}

#[test]
fn a_time_given_by_the_broker_is_the_records_time() {
    let mut world = World::new(1, 1, 1);
    world.model.append_time_ms = Some(77);
    let producer = world.producer(|_| {});
    let mut ticket = push(&mut world, &producer, "a", 0);
    world.call(1, produce_call());
    world.settle();
    assert_eq!(peek(&mut ticket).expect("settled").expect("acknowledged").timestamp_ms, 77);
    match &world.replies[&CallId(1)] {
        Ok(CallResponse::Produced(produced)) => assert_eq!(produced.append_time_ms, Some(77)),
        other => panic!("answered with {other:?}"),
    }
    assert!(world.model.records("t", 0).iter().all(|record| record.timestamp_ms == 77));
}

#[test]
fn batches_gather_while_one_is_in_flight() {
    let mut world = World::new(1, 1, 1);
    let producer = world.producer(|_| {});
    let mut tickets = vec![push(&mut world, &producer, "0", 0)];
    world.settle_but(is_produce);
    tickets.extend((1..50).map(|n| push(&mut world, &producer, &n.to_string(), 0)));
    world.settle();
    assert_eq!(world.model.served[&ApiKey::Produce], 2, "the first alone, the rest together");
    for (offset, mut ticket) in (0..).zip(tickets) {
        assert_eq!(peek(&mut ticket).expect("settled").expect("acknowledged").offset, Offset(offset));
    }
}

#[test]
fn partitions_of_a_shard_share_a_request() {
    let mut world = World::new(1, 2, 8);
    let producer = world.producer(|_| {});
    let tickets: Vec<_> = (0..8).map(|partition| push(&mut world, &producer, "x", partition)).collect();
    world.settle();
    assert_eq!(world.model.served[&ApiKey::Produce], 2, "one request for each shard");
    assert!(tickets.into_iter().all(|mut ticket| peek(&mut ticket).is_some_and(|outcome| outcome.is_ok())));
}

#[test]
fn a_lost_request_is_sent_again_before_what_is_younger() {
    let mut world = World::new(1, 1, 1);
    let producer = world.producer(|_| {});
    let mut first = push(&mut world, &producer, "first", 0);
    world.settle_but(is_produce);
    let mut second = push(&mut world, &producer, "second", 0);
    let connection = world.connections().into_iter().find(|id| !world.wires[id].requests.is_empty());
    world.break_wire(connection.expect("a produce request is on the wire"));
    assert!(peek(&mut first).is_none() && peek(&mut second).is_none());
    world.pass(Duration::from_secs(5));
    world.settle();
    world.pass(Duration::from_secs(5));
    world.settle();
    assert_eq!(values(&world, 0), ["first", "second"]);
    assert_eq!(peek(&mut first).expect("settled").expect("acknowledged").offset, Offset(0));
    assert_eq!(peek(&mut second).expect("settled").expect("acknowledged").offset, Offset(1));
}

#[test]
fn a_moved_leader_is_followed() {
    let mut world = World::new(1, 2, 1);
    let producer = world.producer(|_| {});
    let mut ticket = push(&mut world, &producer, "a", 0);
    world.settle();
    assert!(peek(&mut ticket).expect("settled").is_ok());
    let asked = world.model.served[&ApiKey::Metadata];

    world.model.topics.get_mut("t").expect("the topic").logs[0].shard = 1;
    let mut ticket = push(&mut world, &producer, "b", 0);
    world.settle();
    assert!(peek(&mut ticket).is_none(), "the old leader refused");
    world.pass(Duration::from_secs(1));
    world.settle();
    world.pass(Duration::from_secs(1));
    world.settle();
    assert!(peek(&mut ticket).expect("settled").is_ok());
    assert!(world.model.served[&ApiKey::Metadata] > asked, "metadata was asked again");
    assert_eq!(values(&world, 0), ["a", "b"]);
}

#[test]
fn a_refusal_for_good_is_told_at_once() {
    let mut world = World::new(1, 1, 1);
    world.model.refuse_produce.push_back(ErrorCode::MessageTooLarge);
    let producer = world.producer(|_| {});
    let mut ticket = push(&mut world, &producer, "a", 0);
    world.settle();
    let error = peek(&mut ticket).expect("settled").expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::MessageTooLarge);
    assert!(!error.maybe_applied() && !error.is_retryable());
    assert_eq!((producer.report().acked, producer.report().failed), (0, 1));
    assert!(producer.take_untold().is_some());
}

#[test]
fn a_batch_nobody_takes_fails_at_its_delivery_timeout() {
    let mut world = World::new(1, 1, 1);
    let producer = world.producer(|settings| settings.delivery_timeout = Duration::from_secs(3));
    let mut ticket = push(&mut world, &producer, "a", 0);
    let began = world.now;
    while peek(&mut ticket).is_none() {
        assert!(world.now - began < Duration::from_secs(10), "the timeout is kept");
        for connection in std::mem::take(&mut world.connecting) {
            world.handle(Event::Closed { connection, cause: "refused".to_owned() });
        }
        world.tick();
    }
    assert_eq!(world.now - began, Duration::from_secs(3));
    assert_eq!(producer.report().failed, 1);
    let error = producer.report().first_error.expect("an error");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(!error.maybe_applied(), "it was never sent");
    assert!(error.to_string().contains("refused"), "{error}");
    assert_eq!(world.freed, room_of(&Record::value("a")));
}

#[test]
fn a_silent_broker_is_given_up_with_what_may_have_happened() {
    let mut world = World::new(1, 1, 1);
    let producer = world.producer(|settings| settings.delivery_timeout = Duration::from_secs(2));
    let mut ticket = push(&mut world, &producer, "a", 0);
    world.call(9, produce_call());
    world.settle_but(is_produce);
    world.pass(Duration::from_secs(11));
    let error = peek(&mut ticket).expect("settled").expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.maybe_applied() && error.is_retryable());
    let error = world.replies[&CallId(9)].as_ref().expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.maybe_applied());
    assert_eq!(error.to_string().lines().count(), 1);
}

#[test]
fn an_oversized_answer_closes_the_connection() {
    let mut world = World::new(1, 1, 1);
    world.call(1, produce_call());
    world.settle_but(is_produce);
    let connection = world.connections().into_iter().find(|id| !world.wires[id].requests.is_empty());
    let connection = connection.expect("a produce request is on the wire");
    let (_, header, _) = world.take_request(connection).expect("it is there");
    let oversized = ResponseHeader { body_len: u32::MAX, ..header.response() };
    world.receive(connection, &oversized.encode());
    assert!(!world.wires.contains_key(&connection), "closed");
    assert!(world.replies.is_empty(), "the call goes on");
    world.pass(Duration::from_secs(1));
    world.settle();
    world.pass(Duration::from_secs(1));
    world.settle();
    assert!(world.replies[&CallId(1)].is_ok());
}

#[test]
fn an_answer_nobody_asked_for_closes_the_connection() {
    let mut world = World::new(1, 1, 1);
    world.call(1, CallRequest::Metadata(MetadataRequest { topics: None }));
    world.settle();
    let connection = world.connections()[0];
    let stray = ResponseHeader {
        api: ApiKey::Produce,
        version: 0,
        flags: 0,
        correlation_id: 4711,
        throttle_ms: 0,
        receipt: Durability::Received,
        body_len: 0,
    };
    world.receive(connection, &stray.encode());
    assert!(!world.wires.contains_key(&connection));
}

#[test]
fn answers_may_come_in_any_order_and_in_any_pieces() {
    let mut world = World::new(1, 1, 2);
    let offset = |partition| CallRequest::ListOffsets {
        topic: topic(),
        partition: PartitionIndex(partition),
        spec: OffsetSpec::Latest,
    };
    let producer = world.producer(|_| {});
    drop(push(&mut world, &producer, "a", 1));
    world.settle();
    world.call(1, offset(0));
    world.call(2, offset(1));
    let connection = world.connections().into_iter().find(|id| world.wires[id].requests.len() == 2);
    let connection = connection.expect("both go to the owning shard");
    let first = world.serve(connection).expect("a request");
    let second = world.serve(connection).expect("a request");
    for byte in second.iter().chain(&first) {
        world.receive(connection, &[*byte]);
    }
    for (call, expected) in [(1, 0), (2, 1)] {
        match &world.replies[&CallId(call)] {
            Ok(CallResponse::Offset(found)) => assert_eq!(found.offset, Offset(expected)),
            other => panic!("answered with {other:?}"),
        }
    }
}

#[test]
fn a_missing_topic_is_believed_after_a_while() {
    let mut world = World::new(1, 1, 1);
    let topics = Some(vec![corrente_protocol::ids::TopicName::new("nope").expect("a name")]);
    world.call(1, CallRequest::Metadata(MetadataRequest { topics }));
    let began = world.now;
    world.settle();
    while world.replies.is_empty() {
        world.tick();
        world.settle();
    }
    let error = world.replies[&CallId(1)].as_ref().expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::TopicNotFound);
    assert_eq!(world.now - began, Duration::from_millis(500));
}

#[test]
fn linger_waits_and_flush_does_not() {
    let mut world = World::new(1, 1, 1);
    let producer = world.producer(|settings| settings.linger = Duration::from_secs(1));
    let mut ticket = push(&mut world, &producer, "a", 0);
    world.settle();
    assert!(peek(&mut ticket).is_none());
    world.pass(Duration::from_millis(1001));
    world.settle();
    assert!(peek(&mut ticket).expect("settled").is_ok());

    let mut ticket = push(&mut world, &producer, "b", 0);
    assert_eq!(producer.flush().len(), 1);
    world.handle(Event::Wake);
    world.settle();
    assert!(peek(&mut ticket).expect("settled").is_ok());
}

pub(super) fn consumer(world: &mut World, change: impl FnOnce(&mut ConsumerSettings)) -> Arc<Inbox> {
    let partitions = u32::try_from(world.model.topics["t"].logs.len()).expect("few partitions");
    let mut settings = ConsumerSettings {
        partitions: (0..partitions)
            .map(|index| (topic(), PartitionIndex(index), StartOffset::Earliest))
            .collect(),
        until_end: false,
        out_of_range: OutOfRange::Fail,
        prefetch_bytes: 1 << 20,
        answer_bytes_max: 1 << 20,
        heartbeat: Duration::from_millis(500),
    };
    change(&mut settings);
    let inbox = world.core.add_consumer(world.now, ConsumerId(1), settings);
    world.act();
    inbox
}

/// All batches there are, and whether the end is reached.
pub(super) fn drain(world: &mut World, inbox: &Inbox) -> (Vec<Result<Batch, Error>>, bool) {
    let mut batches = Vec::new();
    loop {
        match inbox.poll_take(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => return (batches, false),
            Poll::Ready(None) => return (batches, true),
            Poll::Ready(Some(taken)) => {
                match taken.item {
                    Ok(mut fetched) => batches.extend(std::iter::from_fn(|| fetched.next_batch(1 << 20))),
                    Err(error) => batches.push(Err(error)),
                }
                if taken.wake {
                    world.handle(Event::Wake);
                }
            }
        }
    }
}

/// Everything else moves; then one subscription has one answer.
pub(super) fn send_once(world: &mut World) {
    let (connection, answer) = next_sent(world);
    world.receive(connection, &answer);
}

/// The answer that comes next, once everything else has moved.
pub(super) fn next_sent(world: &mut World) -> (ConnectionId, Vec<u8>) {
    world.settle_but(|_| false);
    world.sent().expect("a subscription has something to say")
}

pub(super) fn fill(world: &mut World, records: u32, batch_records: u32) {
    let producer = world.producer(|settings| settings.batch_records = batch_records);
    for n in 0..records {
        drop(push(world, &producer, &n.to_string(), 0));
    }
    world.settle();
    producer.detach();
    world.handle(Event::Wake);
}

#[test]
fn a_consumer_reads_to_the_end_and_trims_what_was_not_asked_for() {
    let mut world = World::new(1, 1, 1);
    fill(&mut world, 10, 4);
    let inbox = consumer(&mut world, |settings| {
        settings.partitions[0].2 = StartOffset::At(Offset(2));
        settings.until_end = true;
    });
    world.settle();
    let (batches, ended) = drain(&mut world, &inbox);
    assert!(ended);
    let offsets: Vec<u64> = batches
        .into_iter()
        .flat_map(|batch| batch.expect("a batch").records)
        .map(|record| record.offset.0)
        .collect();
    assert_eq!(offsets, (2..10).collect::<Vec<_>>());
}

#[test]
fn an_empty_topic_ends_at_once_and_only_until_end() {
    let mut world = World::new(1, 2, 3);
    let inbox = consumer(&mut world, |settings| settings.until_end = true);
    world.settle();
    let (batches, ended) = drain(&mut world, &inbox);
    assert!(batches.is_empty() && ended);
}

#[test]
fn a_topic_that_was_replaced_while_nobody_read_it_is_read_as_what_it_is() {
    let mut world = World::new(1, 1, 1);
    fill(&mut world, 3, 1);
    let inbox = consumer(&mut world, |settings| settings.until_end = true);
    world.settle();
    assert_eq!(drain(&mut world, &inbox).0.len(), 3);
    inbox.abandon();
    world.handle(Event::Wake);
    world.settle();
    // Another topic has the name now. Whoever builds a consumer asks for its partitions first.
    world.model.create("t", 1);
    let topics = Some(vec![topic()]);
    world.call(1, CallRequest::Metadata(MetadataRequest { topics }));
    world.settle();
    let partitions = vec![(topic(), PartitionIndex(0), StartOffset::Earliest)];
    let inbox = world.core.add_consumer(
        world.now,
        ConsumerId(2),
        ConsumerSettings {
            partitions,
            until_end: true,
            out_of_range: OutOfRange::Fail,
            prefetch_bytes: 1 << 20,
            answer_bytes_max: 1 << 20,
            heartbeat: Duration::from_millis(500),
        },
    );
    world.act();
    for _ in 0..4 {
        world.settle();
        world.pass(Duration::from_secs(1));
    }
    let (batches, ended) = drain(&mut world, &inbox);
    assert!(ended);
    assert!(batches.is_empty(), "the other topic is empty: {batches:?}");
}

#[test]
fn a_consumer_goes_on_where_it_was_after_a_disconnect() {
    let mut world = World::new(1, 1, 1);
    fill(&mut world, 3, 1);
    let inbox = consumer(&mut world, |_| {});
    world.settle_but(is_subscribe);
    for _ in 0..3 {
        let fetching = world.connections().into_iter().find(|id| !world.wires[id].requests.is_empty());
        world.break_wire(fetching.expect("a subscription is on the wire"));
        assert!(drain(&mut world, &inbox).0.is_empty());
        world.pass(Duration::from_secs(3));
        world.settle_but(is_subscribe);
        world.pass(Duration::from_secs(3));
        world.settle_but(is_subscribe);
    }
    send_once(&mut world);
    let (batches, ended) = drain(&mut world, &inbox);
    assert_eq!(batches.len(), 3);
    assert!(!ended);
}

#[test]
fn an_offset_out_of_range_is_an_error_or_a_new_start() {
    let mut world = World::new(1, 1, 1);
    fill(&mut world, 5, 5);
    let beyond = |settings: &mut ConsumerSettings| settings.partitions[0].2 = StartOffset::At(Offset(99));
    let inbox = consumer(&mut world, beyond);
    world.settle();
    let (batches, ended) = drain(&mut world, &inbox);
    let error = batches.into_iter().next().expect("one item").expect_err("out of range");
    assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
    assert!(ended, "nothing is left to read");

    let mut world = World::new(1, 1, 1);
    fill(&mut world, 5, 5);
    let inbox = consumer(&mut world, |settings| {
        beyond(settings);
        settings.out_of_range = OutOfRange::Earliest;
    });
    for _ in 0..2 {
        send_once(&mut world);
    }
    let (batches, ended) = drain(&mut world, &inbox);
    assert_eq!(batches.into_iter().next().expect("one item").expect("a batch").records.len(), 5);
    assert!(!ended);
}

#[test]
fn a_damaged_batch_is_asked_for_again_and_then_told() {
    let mut world = World::new(1, 1, 1);
    fill(&mut world, 1, 1);
    let inbox = consumer(&mut world, |_| {});
    for attempt in 1..=3 {
        // The subscription that is given up has a last answer, without batches.
        let (connection, mut answer) = loop {
            let (connection, answer) = next_sent(&mut world);
            if answer.len() > HEADER_LEN + FRAME_HEADER_LEN {
                break (connection, answer);
            }
            world.receive(connection, &answer);
        };
        let last = answer.len() - 5;
        answer[last] ^= 0x40;
        world.receive(connection, &answer);
        let (batches, ended) = drain(&mut world, &inbox);
        if attempt < 3 {
            assert!(batches.is_empty() && !ended, "attempt {attempt}");
            world.pass(Duration::from_secs(2));
        } else {
            let error = batches.into_iter().next().expect("one item").expect_err("damaged");
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains("checksum"), "{error}");
        }
    }
}

#[test]
fn a_full_inbox_stops_the_sending() {
    let mut world = World::new(1, 1, 1);
    fill(&mut world, 200, 10);
    let inbox = consumer(&mut world, |settings| {
        settings.until_end = true;
        settings.prefetch_bytes = 600;
    });
    world.settle();
    let held = inbox.held();
    assert!((600..1200).contains(&held), "{held} bytes fill 600, and a batch more");
    let mut seen = 0;
    for _ in 0..200 {
        let (batches, ended) = drain(&mut world, &inbox);
        seen += batches.into_iter().map(|batch| batch.expect("a batch").records.len()).sum::<usize>();
        if ended {
            break;
        }
        world.settle();
    }
    assert_eq!(seen, 200);
}

#[test]
fn a_detached_producer_sends_what_it_took_and_is_forgotten() {
    let mut world = World::new(1, 1, 1);
    let producer = world.producer(|_| {});
    let mut ticket = push(&mut world, &producer, "a", 0);
    producer.detach();
    world.handle(Event::Wake);
    assert!(!world.core.producers.is_empty());
    world.settle();
    assert!(peek(&mut ticket).expect("settled").is_ok());
    world.tick();
    assert!(world.core.producers.is_empty());
    let refused = producer.push(&Record::value("b"), 1, || Micros(0)).expect_err("closed");
    assert_eq!(refused.kind(), ErrorKind::Closed);
}

#[test]
fn the_end_fails_what_is_left() {
    let mut world = World::new(1, 1, 2);
    let producer = world.producer(|_| {});
    let mut sent = push(&mut world, &producer, "sent", 0);
    world.settle_but(is_produce);
    let mut waiting = push(&mut world, &producer, "waiting", 0);
    let inbox = consumer(&mut world, |_| {});
    world.core.close(world.now);
    let error = peek(&mut sent).expect("settled").expect_err("closed");
    assert!(error.maybe_applied(), "{error}");
    let error = peek(&mut waiting).expect("settled").expect_err("closed");
    assert_eq!((error.kind(), error.maybe_applied()), (ErrorKind::Closed, false));
    let (batches, ended) = drain(&mut world, &inbox);
    assert_eq!(batches.into_iter().next().expect("one item").expect_err("closed").kind(), ErrorKind::Closed);
    assert!(ended);
}
