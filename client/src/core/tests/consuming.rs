//! Whatever the network does, within its time: a consumer reads every record once and in its order, holds no more than
//! it may, and does not stop as long as somebody takes what came.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use corrente_protocol::api::{ApiKey, FetchResponse, Message};
use corrente_protocol::frame::{FLAG_MORE, FRAME_HEADER_LEN, ResponseHeader, response_frame};
use corrente_protocol::ids::Offset;
use corrente_protocol::record_batch::HEADER_LEN;

use super::super::consume::{OutOfRange, StartOffset};
use super::super::inbox::Inbox;
use super::super::*;
use super::stories::{consumer, drain, fill, is_subscribe, next_sent};
use super::world::World;
use crate::error::ErrorKind;

const PARTITIONS: u32 = 4;

#[derive(Debug, Clone)]
enum Step {
    /// So many records are appended to a partition, as one batch.
    Append(u32, u64),
    /// Sockets asked for are opened.
    Accept,
    /// One connection's oldest request is served and answered.
    Serve(usize),
    /// Some subscription has its next answer, which is on its way.
    Send,
    /// What is on its way on a connection arrives.
    Arrive(usize),
    /// A byte of what is on its way is flipped.
    Damage(usize),
    /// A connection breaks.
    Break(usize),
    /// A partition's leader moves to a shard.
    Move(u32, u16),
    /// What came is taken.
    Take,
    /// Time passes, in milliseconds.
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..PARTITIONS, 1..20_u64).prop_map(|(partition, records)| Step::Append(partition, records)),
        3 => Just(Step::Accept),
        6 => any::<usize>().prop_map(Step::Serve),
        8 => Just(Step::Send),
        8 => any::<usize>().prop_map(Step::Arrive),
        1 => any::<usize>().prop_map(Step::Damage),
        1 => any::<usize>().prop_map(Step::Break),
        1 => (0..PARTITIONS, 0..3_u16).prop_map(|(partition, shard)| Step::Move(partition, shard)),
        3 => Just(Step::Take),
        2 => (1..400_u64).prop_map(Step::Pass),
    ]
}

/// More than so often in a row is told to the consumer's owner.
const DAMAGE_MAX: usize = 2;

/// Flips a bit in the first record of the first partition of an answer, if there is one.
fn flip_in_first_batch(answer: &mut [u8]) -> bool {
    // Behind the frame's header and the count: topic, partition, error, two offsets, and the length of the batches.
    const BATCHES: usize = FRAME_HEADER_LEN + 4 + 16 + 4 + 2 + 8 + 8 + 4;
    let Some(len) = answer.get(BATCHES - 4..BATCHES) else { return false };
    let has_batch = u32::from_le_bytes(len.try_into().expect("four bytes")) > 0;
    if has_batch {
        answer[BATCHES + HEADER_LEN + 1] ^= 0x40;
    }
    has_batch
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_record_is_read_once_and_in_order(
        seed: u64,
        prefetch_bytes in prop_oneof![Just(1_usize), 200..2_000_usize, Just(1 << 20)],
        answer_bytes_max in prop_oneof![Just(1_usize), 100..1_000_usize],
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let mut world = World::new(seed, 3, PARTITIONS);
        let inbox = consumer(&mut world, |settings| {
            settings.prefetch_bytes = prefetch_bytes;
            settings.answer_bytes_max = answer_bytes_max;
        });
        let mut read: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        let take = |world: &mut World, read: &mut BTreeMap<u32, Vec<u64>>| {
            let (batches, ended) = drain(world, &inbox);
            assert!(!ended, "it was not asked to end");
            for batch in batches {
                let batch = batch.expect("nothing is wrong for good");
                read.entry(batch.partition).or_default().extend(batch.records.iter().map(|record| record.offset.0));
            }
        };
        let (mut batch_bytes_max, mut damage) = (0, 0);
        let mut on_its_way: BTreeMap<ConnectionId, VecDeque<Vec<u8>>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Append(partition, records) => {
                    let end = world.model.topics["t"].logs[partition as usize].end;
                    let kept: Vec<(u64, i64)> = (end..end + records).map(|offset| (offset, 1)).collect();
                    world.model.put_compacted("t", partition, end, end + records, &kept);
                    batch_bytes_max = batch_bytes_max.max(100 + 20 * usize::try_from(records).expect("a few"));
                }
                Step::Accept => world.accept(),
                Step::Serve(any) => if let Some(connection) = world.pick(any)
                    && let Some(response) = world.serve(connection)
                {
                    world.receive(connection, &response);
                },
                Step::Send => if let Some((connection, answer)) = world.sent() {
                    on_its_way.entry(connection).or_default().push_back(answer);
                },
                Step::Arrive(any) => if let Some(connection) = world.pick(any)
                    && let Some(answer) = on_its_way.get_mut(&connection).and_then(VecDeque::pop_front)
                {
                    world.receive(connection, &answer);
                },
                Step::Damage(any) => if let Some(connection) = world.pick(any)
                    && let Some(answer) = on_its_way.get_mut(&connection).and_then(|queue| queue.front_mut())
                    && damage < DAMAGE_MAX && flip_in_first_batch(answer)
                {
                    damage += 1;
                },
                Step::Break(any) => if let Some(connection) = world.pick(any) {
                    on_its_way.remove(&connection);
                    world.break_wire(connection);
                },
                Step::Move(partition, shard) => {
                    world.model.topics.get_mut("t").expect("the topic").logs[partition as usize].shard = shard;
                }
                Step::Take => take(&mut world, &mut read),
                Step::Pass(ms) => world.pass(Duration::from_millis(ms)),
            }
            // Each of the shards may overdraw by a batch.
            let bound = prefetch_bytes + 3 * batch_bytes_max;
            prop_assert!(inbox.held() <= bound, "{} bytes are held, {} at most", inbox.held(), bound);
        }
        // Peace: all that was appended is read. Connections live on, so that nothing but the client helps itself.
        for (connection, answers) in on_its_way {
            answers.into_iter().for_each(|answer| world.receive(connection, &answer));
        }
        for _ in 0..100 {
            world.settle();
            take(&mut world, &mut read);
            world.beat();
            world.pass(Duration::from_millis(500));
        }
        for partition in 0..PARTITIONS {
            let end = world.model.topics["t"].logs[partition as usize].end;
            let found = read.remove(&partition).unwrap_or_default();
            prop_assert_eq!(found, (0..end).collect::<Vec<_>>(), "partition {}", partition);
        }
    }
}

fn offsets(world: &mut World, inbox: &Inbox, partition: u32) -> Vec<u64> {
    let batches = drain(world, inbox).0.into_iter().map(|batch| batch.expect("nothing is wrong for good"));
    let of_partition = batches.filter(|batch| batch.partition == partition);
    of_partition.flat_map(|batch| batch.records.into_iter().map(|record| record.offset.0)).collect()
}

fn served(world: &World, api: ApiKey) -> usize {
    world.model.served.get(&api).copied().unwrap_or(0)
}

/// A frame that answers the request that was sent with this header.
fn answer_without_partitions(header: ResponseHeader) -> Vec<u8> {
    response_frame(header, |writer| FetchResponse { partitions: Vec::new() }.encode(0, writer)).concat()
}

#[test]
fn what_an_old_subscription_still_says_is_not_taken_for_the_new_ones() {
    let mut world = World::new(1, 2, 2);
    for offset in 0..10 {
        world.model.put_compacted("t", 0, offset, offset + 1, &[(offset, 1)]);
    }
    let inbox = consumer(&mut world, |settings| settings.answer_bytes_max = 1);
    let (old, mut damaged) = next_sent(&mut world);
    let late: Vec<Vec<u8>> = (0..2).map(|_| world.sent().expect("the next batches").1).collect();
    let last = damaged.len() - 5;
    damaged[last] ^= 0x40;
    world.receive(old, &damaged);
    // Its leader moves; what the old one has sent already is still on its way.
    world.model.topics.get_mut("t").expect("the topic").logs[0].shard = 1;
    world.call(1, CallRequest::Metadata(corrente_protocol::api::MetadataRequest { topics: None }));
    // What the new one says stays on its way from its first records on.
    let mut on_its_way = Vec::new();
    for _ in 0..8 {
        world.pass(Duration::from_millis(300));
        world.settle_but(|_| false);
        let others = world.connections().into_iter().filter(|id| *id != old);
        let said = others.filter_map(|id| Some((id, world.model.sent(id.0)?.concat()))).next();
        let Some((connection, answer)) = said else { continue };
        if on_its_way.is_empty() && answer.len() < FRAME_HEADER_LEN + HEADER_LEN {
            world.receive(connection, &answer);
        } else {
            on_its_way.push((connection, answer));
        }
    }
    assert!(!on_its_way.is_empty(), "the new leader has sent nothing");
    late.iter().for_each(|answer| world.receive(old, answer));
    on_its_way.iter().for_each(|(connection, answer)| world.receive(*connection, answer));
    for _ in 0..100 {
        world.settle();
        world.beat();
        world.pass(Duration::from_millis(500));
    }
    assert_eq!(
        offsets(&mut world, &inbox, 0),
        (0..10).collect::<Vec<_>>(),
        "none is left out, and none missing"
    );
}

#[test]
fn a_heartbeat_says_nothing_of_a_partition_that_was_not_read() {
    let mut world = World::new(1, 1, 1);
    fill(&mut world, 10, 1);
    let inbox = consumer(&mut world, |settings| {
        settings.out_of_range = OutOfRange::Fail;
        settings.until_end = true;
    });
    world.settle_but(is_subscribe);
    world.settle_but(|_| false);
    world.beat();
    world.model.topics.get_mut("t").expect("the topic").logs[0].start = 7;
    world.settle();
    assert_eq!(offsets(&mut world, &inbox, 0), [7, 8, 9], "its start was overtaken, and is asked for again");
}

#[test]
fn a_broker_that_sends_beyond_the_credit_is_not_listened_to() {
    let mut world = World::new(1, 1, 1);
    fill(&mut world, 100, 1);
    let inbox = consumer(&mut world, |settings| {
        settings.prefetch_bytes = 200;
        settings.answer_bytes_max = 1;
    });
    world.settle_but(|_| false);
    world.model.ignores_credit = true;
    let connects = world.connects;
    while let Some((connection, answer)) = world.sent() {
        world.receive(connection, &answer);
    }
    assert!(inbox.held() < 300, "{} bytes are held, of 200", inbox.held());
    world.pass(Duration::from_secs(3));
    assert!(world.connects > connects, "the connection was given up");
}

#[test]
fn shards_that_come_one_after_the_other_leave_each_other_alone() {
    for shards in [1_u16, 2, 8] {
        let mut world = World::new(1, shards, u32::from(shards));
        let _inbox = consumer(&mut world, |_| {});
        world.settle_but(|header| header.api == ApiKey::ListOffsets);
        for connection in world.connections() {
            while world.wires[&connection].requests.front().is_some() {
                if let Some(answer) = world.serve(connection) {
                    world.receive(connection, &answer);
                }
            }
            world.settle_but(|header| header.api == ApiKey::ListOffsets);
        }
        for _ in 0..20 {
            world.settle();
            world.beat();
            world.pass(Duration::from_millis(100));
        }
        assert_eq!(
            served(&world, ApiKey::Subscribe),
            usize::from(shards),
            "subscriptions to {shards} shards"
        );
    }
}

#[test]
fn a_partition_that_fails_leaves_the_others_alone() {
    for shards in [1, 2] {
        let mut world = World::new(1, shards, 4);
        world.model.sick.insert(3);
        let inbox = consumer(&mut world, |settings| settings.partitions[3].2 = StartOffset::At(Offset(0)));
        let mut after_a_while = 0;
        for round in 0..600 {
            world.settle();
            world.beat();
            world.pass(Duration::from_millis(100));
            if round == 50 {
                after_a_while = served(&world, ApiKey::Subscribe);
            }
        }
        let subscribed = served(&world, ApiKey::Subscribe) - after_a_while;
        assert_eq!(subscribed, 0, "on {shards} shards, in nearly a minute");
        world.model.sick.clear();
        world.model.put_compacted("t", 3, 0, 1, &[(0, 1)]);
        for _ in 0..100 {
            world.settle();
            world.beat();
            world.pass(Duration::from_millis(100));
        }
        assert_eq!(offsets(&mut world, &inbox, 3), [0], "once it is well it joins them");
    }
}

#[test]
fn many_that_fail_at_once_are_told_at_once() {
    let mut world = World::new(1, 1, 50);
    let _inbox = consumer(&mut world, |settings| {
        settings.partitions.iter_mut().for_each(|part| part.2 = StartOffset::At(Offset(9)));
        settings.out_of_range = OutOfRange::Earliest;
    });
    for _ in 0..20 {
        world.settle();
        world.beat();
        world.pass(Duration::from_millis(100));
    }
    assert!(served(&world, ApiKey::Subscribe) <= 3, "{} subscriptions", served(&world, ApiKey::Subscribe));
}

#[test]
fn a_broker_that_ends_every_subscription_is_asked_less_and_less() {
    let mut world = World::new(1, 1, 1);
    let _inbox = consumer(&mut world, |_| {});
    for _ in 0..5 {
        world.settle_but(is_subscribe);
        let open = world.connections().into_iter().find(|id| !world.wires[id].requests.is_empty());
        let Some(open) = open else { return };
        let (_, header, _) = world.take_request(open).expect("a subscription");
        world.receive(open, &answer_without_partitions(header.response()));
    }
    panic!("it subscribes again and again, and no time passes");
}

#[test]
fn answers_are_read_wherever_the_stream_is_cut() {
    for piece in [1, 7, 100, 1_000] {
        let mut world = World::new(1, 1, 1);
        fill(&mut world, 100, 3);
        let inbox = consumer(&mut world, |settings| settings.answer_bytes_max = 300);
        let (connection, mut stream) = next_sent(&mut world);
        while let Some((_, answer)) = world.sent() {
            stream.extend(answer);
        }
        // Each piece is an allocation of its own.
        stream.chunks(piece).for_each(|bytes| world.receive(connection, bytes));
        assert_eq!(offsets(&mut world, &inbox, 0), (0..100).collect::<Vec<_>>(), "pieces of {piece} bytes");
    }
}

#[test]
fn more_to_come_is_believed_of_subscriptions_alone() {
    let mut world = World::new(1, 1, 1);
    world.call(1, CallRequest::Metadata(corrente_protocol::api::MetadataRequest { topics: None }));
    world.accept();
    let connection = world.connections()[0];
    let (_, header, _) = world.take_request(connection).expect("a request for metadata");
    world.receive(
        connection,
        &answer_without_partitions(ResponseHeader { flags: FLAG_MORE, ..header.response() }),
    );
    assert!(!world.wires.contains_key(&connection), "the connection is given up");
}

#[test]
fn what_is_held_and_on_its_way_is_bounded_over_all_shards() {
    let mut world = World::new(1, 4, 4);
    let append = |world: &mut World, partition| {
        let end = world.model.topics["t"].logs[partition as usize].end;
        world.model.put_compacted("t", partition, end, end + 1, &[(end, 1)]);
    };
    let inbox = consumer(&mut world, |settings| settings.prefetch_bytes = 10_000);
    world.settle();
    // First one shard has all there is, then all the others.
    (0..500).for_each(|_| append(&mut world, 0));
    world.settle();
    (0..500).for_each(|n| append(&mut world, 1 + n % 3));
    world.settle();
    let held = inbox.held();
    assert!((7_500..10_400).contains(&held), "{held} bytes are held, of 10 000 and a batch of each shard");
}

#[test]
fn a_partition_that_is_given_up_is_sent_no_longer() {
    let mut world = World::new(1, 1, 2);
    (0..10).for_each(|offset| world.model.put_compacted("t", 0, offset, offset + 1, &[(offset, 1)]));
    let inbox = consumer(&mut world, |settings| settings.answer_bytes_max = 1);
    for _ in 0..60 {
        world.settle_but(|_| false);
        if let Some((connection, mut answer)) = world.sent() {
            flip_in_first_batch(&mut answer);
            world.receive(connection, &answer);
        }
        world.pass(Duration::from_millis(100));
    }
    let told = drain(&mut world, &inbox).0;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].as_ref().expect_err("it is damaged").kind(), ErrorKind::Corrupt);
    assert_eq!(world.model.subscribed(), [[1]], "the other one alone");
}

#[test]
fn a_broker_that_falls_silent_is_left() {
    let mut world = World::new(1, 1, 1);
    let _inbox = consumer(&mut world, |_| {});
    world.settle();
    for _ in 0..120 {
        world.pass(Duration::from_millis(500));
        world.beat();
    }
    assert_eq!(world.model.subscribed().len(), 1, "it said that it is there");
    // The time for an answer and a heartbeat, from the last one on.
    world.pass(Duration::from_millis(10_400));
    assert_eq!(world.model.subscribed().len(), 1);
    world.pass(Duration::from_millis(200));
    assert_eq!(world.model.subscribed().len(), 0, "its connection is closed");
}

#[test]
fn a_consumer_that_is_dropped_leaves_nothing_open() {
    let mut world = World::new(1, 3, 3);
    let inbox = consumer(&mut world, |_| {});
    world.settle();
    assert_eq!(world.model.subscribed().len(), 3);
    inbox.abandon();
    world.handle(Event::Wake);
    assert!(!world.core.consumers.is_empty(), "until they are over");
    world.settle();
    assert_eq!(world.model.subscribed().len(), 0);
    assert!(world.core.consumers.is_empty());
}
