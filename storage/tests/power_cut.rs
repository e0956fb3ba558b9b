//! The power fails or the process is killed at any moment, again and again: nothing acknowledged is lost, nothing
//! torn is served, offsets follow each other. With a disk that lies about its flushes the same story must fail.

mod common;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use common::*;
use corrente_protocol::ids::{Offset, ShardId};
use corrente_runtime::executor::spawn;
use corrente_runtime::random::random_u64;
use corrente_runtime::timer;
use corrente_storage::{Log, NodeLayout, Recovered, Storage, StorageConfig, TailFound};

const LOGS: u32 = 3;
const LIVES: u32 = 7;

/// What one log must hold: every value acknowledged, or seen after a start, in its place.
#[derive(Default)]
struct Expected {
    acknowledged: Vec<Bytes>,
    /// Every value ever handed over, in order, since the last start.
    sent: Vec<(Offset, Bytes)>,
}

#[derive(Default)]
struct Story {
    logs: Vec<RefCell<Expected>>,
    next_value: Cell<u64>,
    lost: RefCell<Option<String>>,
    opened: Cell<u32>,
    /// Recoveries that met a torn tail.
    torn: Cell<u32>,
}

impl Story {
    fn new() -> Rc<Self> {
        let logs = (0..LOGS).map(|_| RefCell::default()).collect();
        Rc::new(Self { logs, ..Self::default() })
    }

    fn value(&self) -> Bytes {
        let n = self.next_value.get();
        self.next_value.set(n + 1);
        let mut value = format!("value {n} ").into_bytes();
        let len = match random_u64() % 10 {
            0 => random_u64() % 12_000,
            1..=3 => random_u64() % 2000,
            _ => random_u64() % 100,
        };
        value.resize(value.len() + usize::try_from(len).unwrap(), u8::try_from(n % 251).unwrap());
        value.into()
    }

    fn lose(&self, what: String) {
        self.lost.borrow_mut().get_or_insert(what);
    }

    /// Holds what was found after a start against what must be there.
    fn check(&self, partition: u32, found: &[(u64, Bytes)]) {
        let mut expected = self.logs[partition as usize].borrow_mut();
        if found.len() < expected.acknowledged.len() {
            self.lose(format!("{} of {} acknowledged", found.len(), expected.acknowledged.len()));
            return;
        }
        for (n, (offset, value)) in found.iter().enumerate() {
            let known = expected.acknowledged.get(n);
            let sent = expected.sent.iter().find(|(at, _)| at.0 == *offset).map(|(_, value)| value);
            if *offset != n as u64 || known.or(sent) != Some(value) {
                self.lose(format!("record {n} is offset {offset} and holds something else"));
                return;
            }
        }
        // What was found has been flushed by the recovery: from now on it must stay.
        expected.acknowledged = found.iter().map(|(_, value)| value.clone()).collect();
        expected.sent.clear();
    }

    async fn live(self: Rc<Self>) {
        let layout = NodeLayout::open(&[data_dir()]).await.expect("the layout opens");
        let mut config = StorageConfig::new(vec![data_dir()], ShardId(0), layout.generation());
        small(&mut config);
        config.idle_after = Duration::from_millis(1 + random_u64() % 50);
        config.checkpoint_interval = Duration::from_millis(1 + random_u64() % 80);
        let storage = Storage::open(config).await.expect("the storage opens");
        let mut logs = Vec::new();
        for found in layout.logs().to_vec() {
            match storage.open_log(found).await {
                Ok((log, Recovered { tail: TailFound::Damaged, .. })) => {
                    return self.lose(format!("{log:?}: {:?}", log.health()));
                }
                Ok((log, recovered)) => {
                    self.torn.set(self.torn.get() + u32::from(recovered.tail == TailFound::Torn));
                    logs.push(log);
                }
                Err(error) => return self.lose(error.to_string()),
            }
        }
        for partition in 0..LOGS {
            let id = log_id(partition);
            let log = match logs.iter().find(|log| log.id() == id) {
                Some(log) => log.clone(),
                None => match storage.create_log(id, 0).await {
                    Ok(log) => log,
                    Err(error) => return self.lose(error.to_string()),
                },
            };
            match read(&log, Offset::ZERO, log.flushed_offset(), 20_000).await {
                Ok(found) => self.check(partition, &found),
                Err(error) => self.lose(error.to_string()),
            }
            if self.lost.borrow().is_some() {
                return;
            }
            spawn(self.clone().produce(partition, log)).detach();
        }
        storage.checkpoint_now().await.expect("a checkpoint");
        layout.retire_old_generations(&[ShardId(0)]).await.expect("old checkpoints go");
        self.opened.set(self.opened.get() + 1);
        timer::sleep(Duration::from_secs(3600)).await;
        drop((layout, storage));
    }

    async fn produce(self: Rc<Self>, partition: u32, log: Log) {
        loop {
            let values: Vec<Bytes> = (0..1 + random_u64() % 3).map(|_| self.value()).collect();
            let bytes = batch(&values);
            if bytes.len() > 32 * 1024 {
                continue;
            }
            let appended = append_bytes(&log, EPOCH, &bytes).await.expect("appended");
            let expected = &self.logs[partition as usize];
            for (offset, value) in (appended.base_offset.0..).zip(&values) {
                expected.borrow_mut().sent.push((Offset(offset), value.clone()));
            }
            if !random_u64().is_multiple_of(4) {
                continue;
            }
            let flushed = log.flushed_past(Offset(appended.end_offset.0 - 1)).await.expect("flushed");
            self.acknowledge(partition, flushed);
            if random_u64().is_multiple_of(8) {
                timer::sleep(Duration::from_micros(random_u64() % 100_000)).await;
            }
            let flushed = usize::try_from(log.flushed_offset().0).unwrap();
            let from = random_u64() % log.flushed_offset().0;
            let read = read(&log, Offset(from), log.flushed_offset().min(Offset(from + 20)), 4000).await;
            let acknowledged = expected.borrow();
            for (offset, value) in read.expect("readable") {
                let n = usize::try_from(offset).unwrap();
                assert!(n < flushed);
                if let Some(expected) = acknowledged.acknowledged.get(n) {
                    assert_eq!(value, expected, "offset {offset} reads as something else");
                }
            }
        }
    }

    fn acknowledge(&self, partition: u32, flushed: Offset) {
        let mut expected = self.logs[partition as usize].borrow_mut();
        let expected = &mut *expected;
        for (offset, value) in &expected.sent {
            let next = Offset(expected.acknowledged.len() as u64);
            if *offset == next && next < flushed {
                expected.acknowledged.push(value.clone());
            }
        }
    }
}

/// How a story went.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    lost: Option<String>,
    acknowledged: u64,
    torn: u32,
    trace: u64,
}

/// Some lives, each ended by a power cut or a kill, some while they start; says what was lost, if anything.
fn tell(seed: u64, ignore_flush: bool) -> Told {
    let (world, node) = world(seed);
    let story = Story::new();
    for life in 0..LIVES {
        // Until the first life has made its logs the disk is honest, so that there is something to lose.
        node.disk().ignore_flush(ignore_flush && life > 0);
        let told = story.clone();
        let before = story.opened.get();
        node.spawn(move || told.live()).detach();
        // One life in three ends before it has opened its logs.
        if draw(seed, 100 + life).is_multiple_of(3) {
            world.run_for(Duration::from_micros(draw(seed, 200 + life) % 10_000));
        } else {
            let limit = Duration::from_secs(600);
            let opened =
                world.run_until(|| story.opened.get() > before || story.lost.borrow().is_some(), limit);
            opened.unwrap_or_else(|error| panic!("{error}"));
            world.run_for(Duration::from_micros(draw(seed, life) % 100_000));
        }
        if story.lost.borrow().is_some() {
            break;
        }
        if draw(seed, 300 + life).is_multiple_of(2) {
            node.crash();
        } else {
            node.kill();
        }
    }
    let acknowledged = story.logs.iter().map(|log| log.borrow().acknowledged.len() as u64).sum();
    let lost = story.lost.borrow().clone();
    Told { lost, acknowledged, torn: story.torn.get(), trace: world.trace_hash() }
}

/// A number that depends on seed and life alone.
fn draw(seed: u64, life: u32) -> u64 {
    let mut n =
        seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(life).wrapping_mul(0xD1B5_4A32_D192_ED03);
    n ^= n >> 29;
    n.wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 17
}

/// All, or the one to be looked at again.
fn seeds() -> std::ops::Range<u64> {
    match std::env::var("CORRENTE_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("CORRENTE_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..300,
    }
}

#[test]
fn nothing_acknowledged_is_lost() {
    let (mut acknowledged, mut torn) = (0, 0);
    for seed in seeds() {
        let replay = format!("CORRENTE_SEED={seed} cargo test -p corrente-storage --test power_cut");
        match std::panic::catch_unwind(|| tell(seed, false)) {
            Ok(Told { lost: Some(lost), .. }) => panic!("seed {seed}: {lost}; again with {replay}"),
            Ok(told) => (acknowledged, torn) = (acknowledged + told.acknowledged, torn + told.torn),
            Err(panic) => {
                eprintln!("seed {seed} panicked; again with {replay}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{acknowledged} records acknowledged, {torn} torn tails");
    assert!(acknowledged > 0, "nothing was ever acknowledged");
    assert!(seeds().end - seeds().start == 1 || torn > 20, "only {torn} torn tails were met");
}

#[test]
fn a_disk_that_lies_is_found_out() {
    let lost = (0..20).filter(|seed| tell(*seed, true).lost.is_some()).count();
    assert!(lost > 10, "only {lost} of 20 seeds lost something without flushes");
}

#[test]
fn the_same_seed_tells_the_same_story() {
    assert_eq!(tell(7, false), tell(7, false));
}
