//! The fuzz targets on a stable toolchain, as plain tests: each decoder has an entry, each entry a target and seeds,
//! and every seed, every regression and a few thousand mutants of them are survived.
//!
//! `CORRENTE_SEEDS_REWRITE=1 cargo test -p corrente-benches --test fuzz` writes the generated seeds anew. Whatever else
//! lies below `fuzz/seeds` was found by a fuzzer, and stays.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the test reads and writes the repository as it lies on disk"
)]

mod house;
mod mutants;
mod seeds;

#[path = "../../../fuzz/src/held.rs"]
mod held;

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use corrente_protocol::fuzz::{Entry, HELD_BASE, HELD_BASE_OF_WORLDS};

use mutants::Mutants;
use seeds::Seed;

/// Mutants of each target, but for those of which one run takes long.
const MUTANTS: usize = 3_000;
const MUTANTS_OF_SLOW_TARGETS: [(&str, usize); 4] =
    [("client", 300), ("broker", 20), ("broker_kafka", 20), ("data_dir", 100)];
/// Targets whose entries make a simulated world.
const WORLDS: [&str; 3] = ["broker", "broker_kafka", "data_dir"];

fn entries() -> impl Iterator<Item = Entry> {
    let lists = [
        corrente_protocol::fuzz::ENTRIES,
        corrente_storage::fuzz::ENTRIES,
        corrente_replication::fuzz::ENTRIES,
        corrente_broker::fuzz::ENTRIES,
        corrente_client::fuzz::ENTRIES,
        corrente_sim::fuzz::ENTRIES,
    ];
    lists.into_iter().flatten().copied()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("benches/ lies in the repository").to_path_buf()
}

/// What is allocated is counted for the whole process, so the tests take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every seed by its target, those that were just generated first, then the files in order of their names.
fn all_seeds() -> BTreeMap<String, Vec<Seed>> {
    let mut all: BTreeMap<String, Vec<Seed>> = BTreeMap::new();
    for seed in seeds::generated(&root()) {
        all.entry(seed.target.clone()).or_default().push(seed);
    }
    for (target, name, path) in house::seed_files(&root()) {
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        all.entry(target.clone()).or_default().push(Seed { target, name, bytes });
    }
    all
}

/// What the entry makes of the input, if it does not survive it.
fn fault((target, entry): Entry, input: &[u8]) -> Option<String> {
    let base = if WORLDS.contains(&target) { HELD_BASE_OF_WORLDS } else { HELD_BASE };
    let panic = catch_unwind(AssertUnwindSafe(|| held::run(entry, base, input))).err()?;
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    Some(text.unwrap_or("a panic without words").to_owned())
}

/// Feeds seeds and then mutants of them; the first input that was not survived, and what was said.
fn attack(entry: Entry, seeds: &[Seed], mutants: usize) -> Option<(Vec<u8>, String)> {
    let inputs = seeds.iter().map(|seed| seed.bytes.clone()).chain(Mutants::new(seeds).take(mutants));
    inputs.into_iter().find_map(|input| fault(entry, &input).map(|fault| (input, fault)))
}

#[test]
fn seeds_regressions_and_mutants_are_survived() {
    let _alone = alone();
    let seeds = all_seeds();
    for entry in entries() {
        let (target, _) = entry;
        let slow = MUTANTS_OF_SLOW_TARGETS.iter().find(|(name, _)| *name == target);
        let mutants = slow.map_or(MUTANTS, |(_, mutants)| *mutants);
        let seeds = seeds.get(target).map_or(&[][..], Vec::as_slice);
        if let Some((input, fault)) = attack(entry, seeds, mutants) {
            let directory = root().join("target/fuzz/mutants");
            let path = directory.join(target);
            fs::create_dir_all(&directory).expect("a directory for the input");
            fs::write(&path, input).expect("the input is written");
            panic!(
                "{target}: {fault}\nthe input is {}: mend the decoder, and keep it as fuzz/seeds/{target}/crash-…",
                path.display()
            );
        }
    }
}

#[test]
fn generated_seeds_lie_in_the_repository() {
    let _alone = alone();
    let generated = seeds::generated(&root());
    if std::env::var_os("CORRENTE_SEEDS_REWRITE").is_some() {
        for seed in &generated {
            let directory = root().join("fuzz/seeds").join(&seed.target);
            fs::create_dir_all(&directory).expect("a directory for the seeds of a target");
            fs::write(directory.join(&seed.name), &seed.bytes).expect("a seed is written");
        }
    }
    let files = house::seed_files(&root());
    for seed in generated {
        let there = files.iter().any(|(target, name, _)| (target, name) == (&seed.target, &seed.name));
        assert!(there, "fuzz/seeds/{}/{} is missing: write the seeds anew", seed.target, seed.name);
    }
}

#[test]
fn every_entry_has_a_target_and_seeds_and_no_target_is_without_an_entry() {
    let _alone = alone();
    let names: Vec<&str> = entries().map(|(name, _)| name).collect();
    let faults = house::check_targets(&root(), &names);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_decoder_has_an_entry() {
    let _alone = alone();
    let names: Vec<&str> = entries().map(|(name, _)| name).collect();
    for api in corrente_protocol::ApiKey::ALL {
        let name = format!("api_{}", api.name());
        assert!(names.contains(&name.as_str()), "no entry is named {name}");
    }
    let faults = house::check_decoders(&root(), &names);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The checks see what they are there to see.
mod planted {
    use super::*;

    fn seed(bytes: &[u8]) -> [Seed; 1] {
        [Seed { target: "planted".to_owned(), name: "one".to_owned(), bytes: bytes.to_vec() }]
    }

    #[test]
    fn a_length_without_a_bound_is_found() {
        fn decode(bytes: &[u8]) {
            if let [len, rest @ ..] = bytes {
                let _ = &rest[..usize::from(*len)];
            }
        }
        let _alone = alone();
        let (input, fault) = attack(("", decode), &seed(&[3, 1, 2, 3]), MUTANTS).expect("it is found");
        assert!(usize::from(input[0]) >= input.len(), "{input:?}");
        assert!(fault.contains("out of range"), "{fault}");
    }

    #[test]
    fn memory_for_a_claim_is_found() {
        fn decode(bytes: &[u8]) {
            if let Some(claim) = bytes.first_chunk::<4>() {
                drop(Vec::<u8>::with_capacity(u32::from_le_bytes(*claim).min(1 << 28) as usize));
            }
        }
        let _alone = alone();
        let (_, fault) = attack(("", decode), &seed(&[16, 0, 0, 0]), MUTANTS).expect("it is found");
        assert!(fault.contains("bytes were held for an input of"), "{fault}");
    }

    #[test]
    fn what_is_survived_is_no_fault() {
        let _alone = alone();
        let entry: Entry = ("", |bytes| assert!(bytes.len() < 1 << 20));
        assert_eq!(attack(entry, &seed(b"good"), MUTANTS), None);
    }
}
