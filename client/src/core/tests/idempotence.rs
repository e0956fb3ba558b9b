//! Batches are appended once, whatever is lost, and nothing is held up for good by one that failed.

use std::time::Duration;

use corrente_protocol::api::ApiKey;
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::frame::{Durability, RequestHeader};
use corrente_protocol::ids::Offset;

use super::stories::{is_produce, push, values};
use super::world::{World, peek};
use crate::error::ErrorKind;

fn is_identity(header: &RequestHeader) -> bool {
    header.api == ApiKey::InitProducerId
}

/// Lets time pass until what can be retried was.
fn patience(world: &mut World) {
    for _ in 0..5 {
        world.pass(Duration::from_secs(2));
        world.settle();
    }
}

/// Serves what is on the wire, and loses the answer with the connection.
fn lose_the_answer(world: &mut World) {
    let connection = world.connections().into_iter().find(|id| !world.wires[id].requests.is_empty());
    let connection = connection.expect("a request is on the wire");
    world.serve(connection).expect("an answer");
    world.break_wire(connection);
}

fn sequences(world: &World) -> Vec<(i64, i32)> {
    world.model.topics["t"].logs[0].sequences()
}

#[test]
fn a_batch_whose_answer_was_lost_is_appended_once() {
    let mut world = World::new(1, 1, 1);
    let producer = world.producer(|_| {});
    let mut first = push(&mut world, &producer, "first", 0);
    world.settle_but(is_produce);
    let mut second = push(&mut world, &producer, "second", 0);
    lose_the_answer(&mut world);
    patience(&mut world);
    assert_eq!(values(&world, 0), ["first", "second"]);
    assert_eq!(sequences(&world), [(1, 0), (1, 1)]);
    assert_eq!(peek(&mut first).expect("settled").expect("acknowledged").offset, Offset(0));
    assert_eq!(peek(&mut second).expect("settled").expect("acknowledged").offset, Offset(1));
}

#[test]
fn without_idempotence_it_is_appended_twice() {
    let mut world = World::new(1, 1, 1);
    let producer = world.producer(|settings| settings.idempotent = false);
    drop(push(&mut world, &producer, "first", 0));
    world.settle_but(is_produce);
    lose_the_answer(&mut world);
    patience(&mut world);
    assert_eq!(sequences(&world), [(-1, -1), (-1, -1)]);
    assert!(!world.model.served.contains_key(&ApiKey::InitProducerId));
}

#[test]
fn after_a_batch_that_failed_the_producer_is_another() {
    let mut world = World::new(1, 1, 2);
    let producer = world.producer(|_| {});
    drop(push(&mut world, &producer, "first", 0));
    world.settle();
    world.model.refuse_produce.push_back(ErrorCode::InvalidRecord);
    let mut refused = push(&mut world, &producer, "refused", 0);
    world.settle();
    let error = peek(&mut refused).expect("settled").expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    let mut last = push(&mut world, &producer, "last", 0);
    patience(&mut world);
    peek(&mut last).expect("settled").expect("acknowledged");
    assert_eq!(sequences(&world), [(1, 0), (2, 0)]);
    assert_eq!(world.model.served[&ApiKey::InitProducerId], 2, "asked once for each");
}

#[test]
fn a_batch_on_its_way_stays_what_it_is_while_another_fails() {
    let mut world = World::new(1, 1, 2);
    let producer = world.producer(|_| {});
    let mut lost = push(&mut world, &producer, "lost", 0);
    world.settle_but(is_produce);
    lose_the_answer(&mut world);
    world.model.refuse_produce.extend([ErrorCode::Busy, ErrorCode::InvalidRecord]);
    let mut refused = push(&mut world, &producer, "refused", 1);
    patience(&mut world);
    peek(&mut lost).expect("settled").expect("acknowledged");
    assert!(peek(&mut refused).expect("settled").is_err());
    drop(push(&mut world, &producer, "next", 0));
    patience(&mut world);
    assert_eq!(sequences(&world), [(1, 0), (2, 0)], "sent again as it was, and only then another");
}

#[test]
fn a_log_that_lost_what_it_had_acknowledged_goes_on_under_another_id() {
    let mut world = World::new(1, 1, 1);
    let producer = world.producer(|settings| settings.durability = Durability::Received);
    for text in ["flushed", "not flushed"] {
        drop(push(&mut world, &producer, text, 0));
        world.settle();
    }
    world.model.topics.get_mut("t").expect("the topic").logs[0].lose(1);
    let mut next = push(&mut world, &producer, "next", 0);
    patience(&mut world);
    assert_eq!(peek(&mut next).expect("settled").expect("acknowledged").offset, Offset(1));
    assert_eq!(values(&world, 0), ["flushed", "next"]);
    assert_eq!(sequences(&world), [(1, 0), (2, 0)]);
}

#[test]
fn a_log_that_lost_what_it_had_flushed_is_told_of() {
    let mut world = World::new(1, 1, 1);
    let producer = world.producer(|_| {});
    for text in ["flushed", "flushed as well"] {
        drop(push(&mut world, &producer, text, 0));
        world.settle();
    }
    world.model.topics.get_mut("t").expect("the topic").logs[0].lose(1);
    let mut next = push(&mut world, &producer, "next", 0);
    patience(&mut world);
    let error = peek(&mut next).expect("settled").expect_err("a loss");
    assert_eq!(error.broker_code(), Some(ErrorCode::OutOfOrderSequence));
    drop(push(&mut world, &producer, "later", 0));
    patience(&mut world);
    assert_eq!(values(&world, 0), ["flushed", "later"]);
}

#[test]
fn an_id_is_asked_for_until_there_is_one() {
    let mut world = World::new(1, 1, 1);
    world.model.refuse_identity.extend([ErrorCode::Busy, ErrorCode::ShuttingDown]);
    let producer = world.producer(|_| {});
    let mut ticket = push(&mut world, &producer, "a", 0);
    world.settle_but(is_identity);
    lose_the_answer(&mut world);
    patience(&mut world);
    peek(&mut ticket).expect("settled").expect("acknowledged");
    assert_eq!(sequences(&world), [(3, 0)]);
}

#[test]
fn without_an_id_batches_fail_in_time() {
    let mut world = World::new(1, 1, 1);
    world.model.refuse_identity.extend([ErrorCode::Busy; 1000]);
    let producer = world.producer(|settings| settings.delivery_timeout = Duration::from_secs(8));
    let mut ticket = push(&mut world, &producer, "a", 0);
    patience(&mut world);
    assert_eq!(peek(&mut ticket).expect("settled").expect_err("too late").kind(), ErrorKind::Timeout);
    assert!(values(&world, 0).is_empty());
}

#[test]
fn a_broker_that_gives_no_ids_is_told_of() {
    let mut world = World::new(1, 1, 1);
    world.model.refuse_identity.push_back(ErrorCode::UnsupportedApi);
    let producer = world.producer(|_| {});
    let mut ticket = push(&mut world, &producer, "a", 0);
    patience(&mut world);
    let error = peek(&mut ticket).expect("settled").expect_err("no id");
    assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
    assert!(error.to_string().contains("idempotence has to be turned off"), "{error}");
}

#[test]
fn a_batch_of_an_earlier_epoch_fails_and_the_producer_is_another() {
    let mut world = World::new(1, 1, 1);
    let producer = world.producer(|_| {});
    world.model.refuse_produce.push_back(ErrorCode::InvalidProducerEpoch);
    let mut fenced = push(&mut world, &producer, "fenced", 0);
    world.settle();
    let error = peek(&mut fenced).expect("settled").expect_err("fenced");
    assert_eq!(error.broker_code(), Some(ErrorCode::InvalidProducerEpoch));
    assert!(!error.is_retryable());
    drop(push(&mut world, &producer, "next", 0));
    patience(&mut world);
    assert_eq!(sequences(&world), [(2, 0)]);
}

#[test]
fn an_id_that_is_none_is_not_taken_for_one() {
    let mut world = World::new(1, 1, 1);
    world.model.producers = -2;
    let producer = world.producer(|_| {});
    let mut ticket = push(&mut world, &producer, "a", 0);
    patience(&mut world);
    assert_eq!(peek(&mut ticket).expect("settled").expect_err("no id").kind(), ErrorKind::Corrupt);
    assert!(values(&world, 0).is_empty(), "nothing is sent that could be appended twice");
}
