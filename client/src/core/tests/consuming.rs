//! Whatever the network does, within its time: a consumer reads every record once and in its order, holds no more than
//! it may, and does not stop as long as somebody takes what came.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::super::*;
use super::stories::{consumer, drain};
use super::world::World;

const PARTITIONS: u32 = 4;

#[derive(Debug, Clone)]
enum Step {
    /// So many records are appended to a partition, as one batch.
    Append(u32, u64),
    /// Sockets asked for are opened.
    Accept,
    /// One connection's oldest request is served and answered.
    Serve(usize),
    /// Some subscription has its next answer.
    Send,
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
        1 => any::<usize>().prop_map(Step::Break),
        1 => (0..PARTITIONS, 0..3_u16).prop_map(|(partition, shard)| Step::Move(partition, shard)),
        3 => Just(Step::Take),
        2 => (1..400_u64).prop_map(Step::Pass),
    ]
}

fn pick(world: &World, any: usize) -> Option<ConnectionId> {
    let connections = world.connections();
    (!connections.is_empty()).then(|| connections[any % connections.len()])
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
        let mut batch_bytes_max = 0;
        for step in steps {
            match step {
                Step::Append(partition, records) => {
                    let end = world.model.topics["t"].logs[partition as usize].end;
                    let kept: Vec<(u64, i64)> = (end..end + records).map(|offset| (offset, 1)).collect();
                    world.model.put_compacted("t", partition, end, end + records, &kept);
                    batch_bytes_max = batch_bytes_max.max(100 + 20 * usize::try_from(records).expect("a few"));
                }
                Step::Accept => world.accept(),
                Step::Serve(any) => if let Some(connection) = pick(&world, any)
                    && let Some(response) = world.serve(connection)
                {
                    world.receive(connection, &response);
                },
                Step::Send => if let Some((connection, answer)) = world.sent() {
                    world.receive(connection, &answer);
                },
                Step::Break(any) => if let Some(connection) = pick(&world, any) {
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
        // Peace: all that was appended is read.
        for _ in 0..100 {
            world.settle();
            take(&mut world, &mut read);
            world.pass(Duration::from_millis(500));
        }
        for partition in 0..PARTITIONS {
            let end = world.model.topics["t"].logs[partition as usize].end;
            let found = read.remove(&partition).unwrap_or_default();
            prop_assert_eq!(found, (0..end).collect::<Vec<_>>(), "partition {}", partition);
        }
    }
}
