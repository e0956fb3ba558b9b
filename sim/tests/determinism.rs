//! The same seed gives the same run, decision by decision; another seed gives another.

use std::collections::BTreeSet;

use corrente_sim::power_cut::{self, Planted};
use corrente_sim::trouble::Mode;

#[test]
fn a_seed_is_a_run() {
    let mut hashes = BTreeSet::new();
    for seed in 100..105 {
        let [first, second] = [(); 2].map(|()| power_cut::run(seed, Mode::Failing, Planted::Nothing));
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed} gave two different runs");
        assert_eq!(first.judged, second.judged);
        assert_eq!(first.virtual_time, second.virtual_time);
        hashes.insert(first.trace_hash);
    }
    assert_eq!(hashes.len(), 5, "different seeds gave the same run");
}

#[test]
fn so_is_a_seed_with_a_planted_fault() {
    let [first, second] = [(); 2].map(|()| power_cut::run(7, Mode::Failing, Planted::IgnoredFlushes));
    assert_eq!(first.trace_hash, second.trace_hash);
}
