//! Counts keys in bounded memory: how many different ones there are, and how often each is used.
//!
//! Keys are known by their hash. As long as there are few, all are counted. Once there are too many, those with an odd
//! hash are forgotten, then those whose hash is no multiple of four, and so on: what is left is a fair sample of the
//! population, and each key in it is counted from its first record on. The hottest are never forgotten.

use std::collections::BTreeMap;

use super::zipf;

/// Different keys that are counted at most.
const KEYS_MAX: usize = 1 << 20;
/// Keys that are told one by one, and never forgotten.
pub const HOTTEST: usize = 100;

/// See the module.
#[derive(Debug)]
pub struct KeySample {
    used: BTreeMap<u64, u64>,
    keys_max: usize,
    /// Keys are in the sample whose hash ends in so many zero bits.
    level: u32,
    records: u64,
}

/// What is known of the population of keys.
#[derive(Debug, PartialEq)]
pub struct Population {
    pub distinct: u64,
    /// The shares of all keyed records that the hottest keys have, in falling order.
    pub hottest: Vec<f64>,
    pub exponent: f64,
}

impl Default for KeySample {
    fn default() -> KeySample {
        KeySample { used: BTreeMap::new(), keys_max: KEYS_MAX, level: 0, records: 0 }
    }
}

impl KeySample {
    pub fn add(&mut self, key: &[u8]) {
        self.records += 1;
        let hash = hash(key);
        if let Some(used) = self.used.get_mut(&hash) {
            *used += 1;
        } else if self.samples(hash) {
            self.used.insert(hash, 1);
            while self.used.len() > self.keys_max {
                self.forget_half();
            }
        }
    }

    pub fn population(&self) -> Population {
        let sampled: Vec<u64> = self.used.keys().copied().filter(|hash| self.samples(*hash)).collect();
        let distinct = ((sampled.len() as u64) << self.level).max(self.used.len() as u64);
        let mut counts: Vec<u64> = sampled.iter().map(|hash| self.used[hash]).collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let hottest = self.hottest().into_iter();
        let hottest = hottest.map(|(used, _)| used as f64 / self.records as f64).collect();
        Population { distinct, hottest, exponent: zipf::exponent(&counts) }
    }

    fn samples(&self, hash: u64) -> bool {
        hash.trailing_zeros() >= self.level
    }

    fn forget_half(&mut self) {
        self.level += 1;
        let hottest: Vec<u64> = self.hottest().into_iter().map(|(_, hash)| hash).collect();
        let level = self.level;
        self.used.retain(|hash, _| hash.trailing_zeros() >= level || hottest.contains(hash));
    }

    /// How often each was used, and its hash.
    fn hottest(&self) -> Vec<(u64, u64)> {
        let mut all: Vec<(u64, u64)> = self.used.iter().map(|(hash, used)| (*used, *hash)).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.truncate(HOTTEST);
        all
    }
}

/// FNV-1a, its bits mixed once more so that the last ones are as good as the first.
fn hash(key: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in key {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ (hash >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_keys_are_counted_one_by_one() {
        let mut sample = KeySample::default();
        for n in 0..100_u32 {
            sample.add(if n < 60 { b"hot" } else { b"warm" });
        }
        let population = sample.population();
        assert_eq!((population.distinct, population.hottest), (2, vec![0.6, 0.4]));
    }

    #[test]
    fn many_keys_are_estimated_and_the_hottest_stay() {
        let mut sample = KeySample { keys_max: 4_096, ..KeySample::default() };
        for n in 0..200_000_u32 {
            sample.add(&n.to_be_bytes());
            if n % 4 == 0 {
                sample.add(b"hot");
            }
        }
        assert!(sample.used.len() <= 4_096);
        let population = sample.population();
        assert!((population.distinct as f64 / 200_001.0 - 1.0).abs() < 0.1, "{}", population.distinct);
        assert_eq!(population.hottest[0], 0.2);
    }

    #[test]
    fn a_topic_without_keys_has_no_population() {
        let population = KeySample::default().population();
        assert_eq!(population, Population { distinct: 0, hottest: Vec::new(), exponent: 0.0 });
    }
}
