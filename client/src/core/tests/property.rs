//! Whatever the network does, within its time: every record is acknowledged exactly once to its caller, stands where
//! the receipt says, and a partition holds what was sent to it, once and in that order.

use std::collections::BTreeMap;
use std::time::Duration;

use corrente_protocol::error_code::ErrorCode;
use proptest::prelude::*;

use super::super::*;
use super::stories::values;
use super::world::{World, peek};
use crate::Record;

const PARTITIONS: u32 = 3;

#[derive(Debug, Clone)]
enum Step {
    /// A record is sent to a partition.
    Push(u32),
    /// Sockets asked for are opened.
    Accept,
    /// Sockets asked for are refused.
    Refuse,
    /// One connection's oldest request is served and answered.
    Serve(usize),
    /// One connection's oldest request is served, then the connection breaks before the answer.
    ServeAndBreak(usize),
    /// A connection breaks.
    Break(usize),
    /// The broker will refuse the next partition for now.
    RefuseProduce,
    /// A partition's leader moves to a shard.
    Move(u32, u16),
    /// Time passes, in milliseconds.
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..PARTITIONS).prop_map(Step::Push),
        3 => Just(Step::Accept),
        1 => Just(Step::Refuse),
        6 => any::<usize>().prop_map(Step::Serve),
        2 => any::<usize>().prop_map(Step::ServeAndBreak),
        1 => any::<usize>().prop_map(Step::Break),
        1 => Just(Step::RefuseProduce),
        1 => (0..PARTITIONS, 0..2u16).prop_map(|(partition, shard)| Step::Move(partition, shard)),
        3 => (1..400u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_record_is_acknowledged_once_and_in_order(seed: u64, steps in proptest::collection::vec(step(), 1..150)) {
        let mut world = World::new(seed, 2, PARTITIONS);
        let producer = world.producer(|settings| {
            settings.batch_records = 3;
            settings.delivery_timeout = Duration::from_secs(3600);
        });
        let mut tickets = Vec::new();
        let mut sent: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        let mut room = 0;
        for step in steps {
            match step {
                Step::Push(partition) => {
                    let text = tickets.len().to_string();
                    let record = Record::value(text.clone()).partition(partition);
                    let now = world.now;
                    room += accumulator::room_of(&record);
                    let pushed = producer.push(&record, 1, || now).expect("accepted");
                    tickets.push((text.clone(), pushed.ticket));
                    sent.entry(partition).or_default().push(text);
                    if pushed.wake {
                        world.handle(Event::Wake);
                    }
                }
                Step::Accept => world.accept(),
                Step::Refuse => {
                    for connection in std::mem::take(&mut world.connecting) {
                        world.handle(Event::Closed { connection, cause: "refused".to_owned() });
                    }
                }
                Step::Serve(any) => if let Some(connection) = world.pick(any)
                    && let Some(response) = world.serve(connection)
                {
                    world.receive(connection, &response);
                },
                Step::ServeAndBreak(any) => if let Some(connection) = world.pick(any) {
                    let _ = world.serve(connection);
                    world.break_wire(connection);
                },
                Step::Break(any) => if let Some(connection) = world.pick(any) {
                    world.break_wire(connection);
                },
                Step::RefuseProduce => world.model.refuse_produce.push_back(ErrorCode::Busy),
                Step::Move(partition, shard) => {
                    world.model.topics.get_mut("t").expect("the topic").logs[partition as usize].shard = shard;
                }
                Step::Pass(ms) => world.pass(Duration::from_millis(ms)),
            }
        }
        // Peace: everything comes to its end.
        for _ in 0..200 {
            world.settle();
            world.pass(Duration::from_millis(500));
        }
        for (text, mut ticket) in tickets {
            let receipt = peek(&mut ticket).expect("settled").expect("acknowledged");
            let records = world.model.records("t", receipt.partition);
            let place = usize::try_from(receipt.offset.0).expect("a small offset");
            prop_assert_eq!(records[place].value.as_deref(), Some(text.as_bytes()));
        }
        for (partition, sent) in sent {
            prop_assert_eq!(values(&world, partition), sent);
        }
        prop_assert_eq!(world.freed, room);
        prop_assert_eq!(producer.report().failed, 0);
    }
}
