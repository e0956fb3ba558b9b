//! Logs that lost records: to compaction, which leaves gaps, and to retention, which moves the start.

use corrente_protocol::api::{ApiKey, DeleteBefore, Message, OffsetSpec, SubscribeRequest};
use corrente_protocol::ids::{Offset, PartitionIndex};
use proptest::prelude::*;

use super::super::call::{CallRequest, CallResponse};
use super::super::consume::{OutOfRange, StartOffset};
use super::super::inbox::Inbox;
use super::super::*;
use super::stories::{consumer, drain, fill, is_subscribe, next_sent, send_once};
use super::world::{World, topic};
use crate::error::ErrorKind;

/// Offsets of the records there are, or the first error.
fn offsets(world: &mut World, inbox: &Inbox) -> Result<Vec<u64>, Error> {
    let (batches, _) = drain(world, inbox);
    let mut offsets = Vec::new();
    for batch in batches {
        offsets.extend(batch?.records.iter().map(|record| record.offset.0));
    }
    Ok(offsets)
}

fn read_from(world: &mut World, start: StartOffset) -> Vec<u64> {
    let inbox = consumer(world, |settings| {
        settings.partitions[0].2 = start;
        settings.until_end = true;
    });
    world.settle();
    let found = offsets(world, &inbox).expect("no error");
    assert!(drain(world, &inbox).1, "the end is reached");
    found
}

#[test]
fn a_reader_steps_over_gaps_and_batches_without_records() {
    let log = |world: &mut World| {
        world.model.put_compacted("t", 0, 5, 10, &[(6, 1), (9, 1)]);
        world.model.put_compacted("t", 0, 10, 30, &[]);
        world.model.put_compacted("t", 0, 40, 45, &[(44, 1)]);
        world.model.put_compacted("t", 0, 45, 60, &[]);
    };
    for (start, expected) in [
        (StartOffset::Earliest, vec![6, 9, 44]),
        (StartOffset::At(Offset(0)), vec![6, 9, 44]),
        (StartOffset::At(Offset(7)), vec![9, 44]),
        (StartOffset::At(Offset(10)), vec![44]),
        (StartOffset::At(Offset(35)), vec![44]),
        (StartOffset::At(Offset(45)), vec![]),
        (StartOffset::Latest, vec![]),
    ] {
        let mut world = World::new(1, 1, 1);
        log(&mut world);
        assert_eq!(read_from(&mut world, start), expected, "{start:?}");
    }
}

#[test]
fn a_batch_without_records_moves_the_reader_to_its_end() {
    let mut world = World::new(1, 1, 1);
    world.model.put_compacted("t", 0, 0, 50, &[]);
    let inbox = consumer(&mut world, |_| {});
    let (connection, answer) = next_sent(&mut world);
    world.receive(connection, &answer);
    // Where it is shows when it has to subscribe again.
    world.break_wire(connection);
    for _ in 0..2 {
        world.pass(Duration::from_secs(3));
        world.settle_but(is_subscribe);
    }
    let open = world.connections().into_iter().find(|id| !world.wires[id].requests.is_empty());
    let (_, _, body) = world.take_request(open.expect("the next subscription")).expect("a request");
    let request = SubscribeRequest::decode(0, body).expect("a subscription");
    assert_eq!(request.partitions[0].offset, Offset(50));
    assert_eq!(offsets(&mut world, &inbox).expect("no error"), Vec::<u64>::new());
}

#[test]
fn a_time_is_where_the_first_record_of_it_or_later_stands() {
    let log =
        |world: &mut World| world.model.put_compacted("t", 0, 0, 5, &[(0, 10), (1, 40), (2, 20), (4, 30)]);
    for (at_ms, expected) in
        [(i64::MIN, vec![0, 1, 2, 4]), (11, vec![1, 2, 4]), (40, vec![1, 2, 4]), (41, vec![])]
    {
        let mut world = World::new(1, 1, 1);
        log(&mut world);
        assert_eq!(read_from(&mut world, StartOffset::Timestamp(at_ms)), expected, "{at_ms}");
    }

    let mut world = World::new(1, 1, 1);
    log(&mut world);
    let ask = |spec| CallRequest::ListOffsets { topic: topic(), partition: PartitionIndex(0), spec };
    let specs =
        [(1, OffsetSpec::Timestamp(15)), (2, OffsetSpec::Timestamp(99)), (3, OffsetSpec::MaxTimestamp)];
    specs.into_iter().for_each(|(id, spec)| world.call(id, ask(spec)));
    world.settle();
    let found = |id| match world.replies.get(&CallId(id)) {
        Some(Ok(CallResponse::Offset(found))) => (found.offset.0, found.timestamp_ms),
        other => panic!("answered with {other:?}"),
    };
    assert_eq!([found(1), found(2), found(3)], [(1, Some(40)), (5, None), (1, Some(40))]);
}

#[test]
fn records_deleted_before_they_were_read_are_told_or_stepped_over() {
    for (policy, expected) in [
        (OutOfRange::Fail, None),
        (OutOfRange::Earliest, Some(vec![7, 8, 9])),
        (OutOfRange::Latest, Some(vec![])),
    ] {
        let mut world = World::new(1, 1, 1);
        fill(&mut world, 10, 1);
        let inbox = consumer(&mut world, |settings| {
            settings.out_of_range = policy;
            settings.answer_bytes_max = 1;
            settings.until_end = true;
        });
        send_once(&mut world);
        assert_eq!(offsets(&mut world, &inbox).expect("no error"), [0]);
        world.model.topics.get_mut("t").expect("the topic").logs[0].start = 7;
        world.settle();
        match (offsets(&mut world, &inbox), expected) {
            (Ok(found), expected) => assert_eq!(Some(found), expected, "{policy:?}"),
            (Err(error), expected) => {
                assert_eq!(expected, None, "{policy:?}: {error}");
                assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
                assert_eq!(error.to_string(), "fetch t/0 failed: offset 1 asked for, the log holds [7, 10)");
            }
        }
        assert!(drain(&mut world, &inbox).1, "{policy:?}: the end is reached");
    }
}

#[test]
fn a_start_overtaken_by_a_deletion_is_asked_for_again() {
    for policy in [OutOfRange::Fail, OutOfRange::Latest] {
        let mut world = World::new(1, 1, 1);
        fill(&mut world, 10, 1);
        let inbox = consumer(&mut world, |settings| {
            settings.out_of_range = policy;
            settings.until_end = true;
        });
        world.settle_but(is_subscribe);
        world.model.topics.get_mut("t").expect("the topic").logs[0].start = 7;
        world.settle();
        assert_eq!(offsets(&mut world, &inbox).expect("no error"), [7, 8, 9], "{policy:?}");
    }
}

#[test]
fn deleting_records_is_a_call_to_the_partitions_leader() {
    let mut world = World::new(1, 2, 2);
    fill(&mut world, 10, 1);
    let delete = |before| CallRequest::DeleteRecords { topic: topic(), partition: PartitionIndex(0), before };
    world.call(1, delete(DeleteBefore::Offset(Offset(4))));
    world.call(2, delete(DeleteBefore::Offset(Offset(11))));
    world.settle();
    assert!(matches!(world.replies[&CallId(1)], Ok(CallResponse::RecordsDeleted(Offset(4)))));
    let error = world.replies[&CallId(2)].as_ref().expect_err("beyond the end");
    assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
    assert!(!error.maybe_applied(), "{error}");
    assert!(error.to_string().starts_with("delete records t/0 at broker:7400 failed"), "{error}");
    assert_eq!(world.model.records("t", 0).len(), 6);

    world.call(3, delete(DeleteBefore::HighWatermark));
    world.settle();
    assert!(matches!(world.replies[&CallId(3)], Ok(CallResponse::RecordsDeleted(Offset(10)))));
    assert_eq!(world.model.served[&ApiKey::DeleteRecords], 3);
}

/// A batch of a compacted log: where it lies, and which offsets it kept.
#[derive(Clone, Debug)]
struct Compacted {
    base: u64,
    end: u64,
    kept: Vec<(u64, i64)>,
}

fn any_log() -> impl Strategy<Value = Vec<Compacted>> {
    let batch = (0..5_u64, proptest::collection::vec(any::<bool>(), 1..20));
    proptest::collection::vec(batch, 1..12).prop_map(|batches| {
        let mut log_end = 0;
        let place = |(gap, kept): (u64, Vec<bool>)| {
            let base = log_end + gap;
            log_end = base + kept.len() as u64;
            let kept = (base..).zip(kept).filter(|(_, kept)| *kept).map(|(offset, _)| (offset, 1));
            Compacted { base, end: log_end, kept: kept.collect() }
        };
        batches.into_iter().map(place).collect()
    })
}

proptest! {
    #[test]
    fn every_record_that_is_left_is_read_once_and_in_order(log in any_log(), start: prop::sample::Index,
        answer_bytes_max in prop_oneof![Just(1_usize), 100..400_usize, Just(1 << 20)])
    {
        let mut world = World::new(1, 1, 1);
        for Compacted { base, end, kept } in &log {
            world.model.put_compacted("t", 0, *base, *end, kept);
        }
        let end = log.last().expect("at least one batch").end;
        let start = start.index(usize::try_from(end).expect("a short log") + 1) as u64;
        let inbox = consumer(&mut world, |settings| {
            settings.partitions[0].2 = StartOffset::At(Offset(start));
            settings.until_end = true;
            settings.answer_bytes_max = answer_bytes_max;
        });
        world.settle();
        let left = log.iter().flat_map(|batch| &batch.kept).map(|(offset, _)| *offset);
        let expected: Vec<u64> = left.filter(|offset| *offset >= start).collect();
        prop_assert_eq!(offsets(&mut world, &inbox).expect("no error"), expected);
        prop_assert!(drain(&mut world, &inbox).1, "the end is reached");
    }
}
