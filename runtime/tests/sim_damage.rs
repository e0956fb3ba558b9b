//! A disk that lies: it says nothing of what it has lost, mislaid or garbled, and the world keeps the account.

use bytes::Bytes;
use corrente_runtime::{
    buffer::{AlignedBuf, BLOCK},
    file,
    file::{File, OpenOptions, Sync},
    sim::{Damage, DiskFault, FaultRule, Harm, Node, When, World, WorldConfig},
};
use std::{path::Path, time::Duration};

const LIMIT: Duration = Duration::from_secs(600);
const BLOCKS: usize = 16;
const FILES: [&str; 2] = ["/drive/one", "/drive/two"];

fn blocks(count: usize, byte: u8) -> Bytes {
    let mut buffer = AlignedBuf::zeroed(count * BLOCK);
    buffer.fill(byte);
    buffer.freeze()
}

/// A node with two durable files of ones.
fn world(seed: u64) -> (World, Node) {
    let world = World::new(seed, WorldConfig::default());
    let node = world.node("node", [10, 0, 0, 1]);
    world
        .run(&node, LIMIT, || async {
            file::create_dir_all(Path::new("/drive")).await.unwrap();
            for path in FILES {
                let file = File::open(Path::new(path), OpenOptions::CREATE_NEW).await.unwrap();
                file.write_at(blocks(BLOCKS, 1), 0, Sync::Data).await.unwrap();
            }
            file::sync_dir(Path::new("/drive")).await.unwrap();
        })
        .unwrap();
    (world, node)
}

fn strike_next(node: &Node, fault: DiskFault) {
    node.disk().inject(FaultRule { fault, when: When::Nth(1), below: "/drive".into() });
}

/// Writes twos over the third and fourth block of the first file, durably.
fn overwrite(world: &World, node: &Node) {
    let write = || async {
        let file = File::open(Path::new(FILES[0]), OpenOptions::READ_WRITE).await.unwrap();
        file.write_at(blocks(2, 2), 2 * BLOCK as u64, Sync::Data).await.unwrap();
    };
    world.run(node, LIMIT, write).unwrap();
}

fn read(world: &World, node: &Node) -> [Vec<u8>; 2] {
    FILES.map(|path| {
        let read = move || async move {
            let file = File::open(Path::new(path), OpenOptions::READ).await.unwrap();
            file.read_at(0, BLOCKS * BLOCK).await.unwrap().to_vec()
        };
        world.run(node, LIMIT, read).unwrap()
    })
}

fn differing_bits(one: &[u8], other: &[u8]) -> u32 {
    one.iter().zip(other).map(|(one, other)| (one ^ other).count_ones()).sum()
}

/// The two files with twos where they belong.
fn as_written() -> [Vec<u8>; 2] {
    let mut first = vec![1; BLOCKS * BLOCK];
    first[2 * BLOCK..4 * BLOCK].fill(2);
    [first, vec![1; BLOCKS * BLOCK]]
}

#[test]
fn a_lost_write_is_reported_done_and_was_never_made() {
    let (world, node) = world(1);
    strike_next(&node, DiskFault::LostWrite);
    overwrite(&world, &node);
    for _ in 0..2 {
        assert_eq!(read(&world, &node).concat(), vec![1; 2 * BLOCKS * BLOCK]);
        node.crash();
    }
    let [Damage { harm, path, range, at }] = &node.disk().damages()[..] else { panic!("one damage") };
    assert_eq!((*harm, path.as_path(), range), (Harm::NeverWritten, Path::new(FILES[0]), &(8192..16384)));
    assert!(*at > Duration::ZERO && *at <= world.elapsed());
    overwrite(&world, &node);
    assert_eq!(read(&world, &node), as_written(), "the next write came");
    assert_eq!(node.disk().counters().writes_never_made, 1);
}

#[test]
fn a_misdirected_write_lands_at_other_blocks_of_its_drive() {
    let mut in_the_other = 0;
    for seed in 0..100 {
        let (world, node) = world(seed);
        strike_next(&node, DiskFault::MisdirectedWrite);
        overwrite(&world, &node);
        node.crash();
        let found = read(&world, &node);
        let damages = node.disk().damages();
        let [Damage { harm: Harm::NeverWritten, .. }, victim] = &damages[..] else { panic!("{damages:?}") };
        assert_eq!(victim.harm, Harm::Overwritten);
        let mut expected = [(); 2].map(|()| vec![1; BLOCKS * BLOCK]);
        let place = FILES.iter().position(|path| Path::new(path) == victim.path).unwrap();
        let range = usize::try_from(victim.range.start).unwrap()..usize::try_from(victim.range.end).unwrap();
        expected[place][range].fill(2);
        assert_eq!(found, expected, "seed {seed}");
        in_the_other += place;
    }
    assert!((20..80).contains(&in_the_other), "{in_the_other} of 100 writes landed in the other file");
}

#[test]
fn a_flipped_read_differs_in_one_bit_once() {
    for seed in 0..50 {
        let (world, node) = world(seed);
        overwrite(&world, &node);
        strike_next(&node, DiskFault::FlippedRead);
        assert_eq!(differing_bits(&read(&world, &node).concat(), &as_written().concat()), 1);
        assert_eq!(read(&world, &node), as_written());
    }
}

#[test]
fn a_stale_read_finds_one_block_as_it_was_once() {
    let mut stale = 0;
    for seed in 0..100 {
        let (world, node) = world(seed);
        overwrite(&world, &node);
        strike_next(&node, DiskFault::StaleRead);
        let [first, _] = read(&world, &node);
        let twos = first.iter().filter(|&&byte| byte == 2).count();
        // The other blocks held zeros before.
        let ones = first.iter().filter(|&&byte| byte == 1).count();
        match (twos / BLOCK, ones / BLOCK) {
            (1, 15) => stale += 1,
            (2, 13) => assert_eq!(first.iter().filter(|&&byte| byte == 0).count(), BLOCK),
            other => panic!("seed {seed}: {other:?} blocks of twos and ones"),
        }
        assert_eq!(read(&world, &node), as_written());
        assert_eq!(node.disk().counters().reads_stale, 1);
        let damages = node.disk().damages();
        assert!(matches!(&damages[..], [Damage { harm: Harm::Misread, .. }]), "{damages:?}");
    }
    assert!(stale > 3, "{stale} of 100 stale reads met what had been written twice");
}

#[test]
fn bits_rot_where_nothing_was_written_for_long_and_stay_so() {
    for seed in 0..50 {
        let (world, node) = world(seed);
        world.run_for(Duration::from_secs(10));
        overwrite(&world, &node);
        node.disk().rot("/drive", 3, Duration::from_secs(5));
        let rotten = read(&world, &node);
        assert_eq!(
            &rotten[0][2 * BLOCK..4 * BLOCK],
            vec![2; 2 * BLOCK],
            "seed {seed}: what is new has rotted"
        );
        let bits = differing_bits(&rotten.concat(), &as_written().concat());
        assert!(bits == 3 || bits == 1, "seed {seed}: {bits} bits differ");
        node.crash();
        assert_eq!(read(&world, &node), rotten);
        assert_eq!(node.disk().damages().len(), 3);
        assert!(node.disk().damages().iter().all(|damage| damage.harm == Harm::Rotten));
    }
}

#[test]
fn the_same_seed_does_the_same_damage() {
    let tell = |seed| {
        let (world, node) = world(seed);
        for fault in [DiskFault::MisdirectedWrite, DiskFault::StaleRead, DiskFault::FlippedRead] {
            strike_next(&node, fault);
        }
        overwrite(&world, &node);
        node.disk().rot("/", 2, Duration::ZERO);
        (read(&world, &node), node.disk().damages(), world.trace_hash())
    };
    for seed in 0..20 {
        assert_eq!(tell(seed), tell(seed), "seed {seed}");
    }
}
