//! A population of keys: how often each is used, and to which partition it goes.

use corrente_client::partition_for_key;
use fastrand::Rng;

use crate::plan::{Keys, Skew};
use crate::profile::Distribution;

/// Keys by partition, each with its weight.
#[derive(Debug)]
pub struct Population {
    partitions: Vec<Part>,
    /// Where the share of each partition ends, summed up from 0 to 1.
    ends: Vec<f64>,
    sizes: KeySizes,
}

/// How long each key is, always the same one as long.
#[derive(Debug, Clone)]
pub enum KeySizes {
    /// All alike.
    Same(usize),
    /// As often as it was seen.
    Seen(Distribution),
}

/// The keys of one partition.
#[derive(Debug, Default)]
struct Part {
    keys: Vec<u64>,
    /// Weights, summed up.
    ends: Vec<f64>,
}

impl Population {
    /// The keys of a plan.
    pub fn new(keys: Keys, key_size: usize, partitions: u32) -> Population {
        let weights = (1..=keys.count).map(|rank| match keys.skew {
            Skew::Uniform => 1.0,
            Skew::Zipf(exponent) => (rank as f64).powf(-exponent),
        });
        Population::weighted(weights, KeySizes::Same(key_size), partitions)
    }

    /// Gives every key its partition, by the hash that all producers use; they come in the order of their ranks.
    pub fn weighted(weights: impl Iterator<Item = f64>, sizes: KeySizes, partitions: u32) -> Population {
        let mut parts: Vec<Part> = (0..partitions).map(|_| Part::default()).collect();
        let mut key = Vec::new();
        for (rank, weight) in (1..).zip(weights) {
            write_key(rank, sizes.of(rank), &mut key);
            let part = &mut parts[partition_for_key(&key, partitions) as usize];
            part.ends.push(part.weight() + weight);
            part.keys.push(rank);
        }
        let total: f64 = parts.iter().map(Part::weight).sum();
        let mut end = 0.0;
        let ends = parts.iter().map(|part| {
            end += part.weight() / total;
            end
        });
        Population { ends: ends.collect(), partitions: parts, sizes }
    }

    /// Whether any key goes there.
    pub fn reaches(&self, partition: usize) -> bool {
        !self.partitions[partition].keys.is_empty()
    }

    /// The partition of a batch, for a number drawn evenly from 0 to below 1.
    pub fn partition_at(&self, drawn: f64) -> usize {
        let partition = self.ends.partition_point(|end| *end <= drawn);
        // What is lost in summing up belongs to the last one that has keys.
        let last = self.partitions.iter().rposition(|part| !part.keys.is_empty()).expect("there are keys");
        partition.min(last)
    }

    /// Draws a key of a partition that has some, and writes it.
    pub fn draw(&self, partition: usize, rng: &mut Rng, key: &mut Vec<u8>) {
        let part = &self.partitions[partition];
        let drawn = rng.f64() * part.weight();
        let place = part.ends.partition_point(|end| *end <= drawn).min(part.keys.len() - 1);
        let rank = part.keys[place];
        write_key(rank, self.sizes.of(rank), key);
    }

    /// The part of all records that goes to a partition.
    pub fn share_of(&self, partition: usize) -> f64 {
        self.ends[partition] - partition.checked_sub(1).map_or(0.0, |before| self.ends[before])
    }
}

impl Part {
    fn weight(&self) -> f64 {
        self.ends.last().copied().unwrap_or(0.0)
    }
}

impl KeySizes {
    fn of(&self, rank: u64) -> usize {
        match self {
            KeySizes::Same(size) => *size,
            KeySizes::Seen(sizes) => {
                let size = sizes.at(Rng::with_seed(rank).f64());
                usize::try_from(size).expect("a key that was in memory")
            }
        }
    }
}

/// The rank at the end, zeros in front; of a shorter key only as much of it as there is room for.
fn write_key(rank: u64, size: usize, key: &mut Vec<u8>) {
    key.clear();
    key.resize(size, 0);
    let number = rank.to_be_bytes();
    let written = size.min(number.len());
    key[size - written..].copy_from_slice(&number[number.len() - written..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zipf_population_uses_its_first_key_most() {
        let population = Population::new(Keys { count: 100, skew: Skew::Zipf(1.0) }, 8, 1);
        let mut used = [0_u32; 101];
        let (mut rng, mut key) = (Rng::with_seed(1), Vec::new());
        for _ in 0..100_000 {
            population.draw(0, &mut rng, &mut key);
            used[usize::try_from(u64::from_be_bytes(key[..].try_into().unwrap())).unwrap()] += 1;
        }
        // The n-th of a hundred has 1/n of 1/H(100), which is 0.1928.
        for rank in [1, 2, 10] {
            let share = f64::from(used[rank]) / 100_000.0;
            assert!((share * rank as f64 / 0.1928 - 1.0).abs() < 0.05, "rank {rank}: {share}");
        }
    }

    #[test]
    fn a_key_keeps_its_length_and_a_short_one_what_fits() {
        let sizes = KeySizes::Seen(crate::profile::tests::sizes([2, 2, 20]));
        let population = Population::weighted([1.0; 300].into_iter(), sizes, 1);
        let mut rng = Rng::with_seed(1);
        let mut key = Vec::new();
        let mut keys = std::collections::BTreeSet::new();
        for _ in 0..10_000 {
            population.draw(0, &mut rng, &mut key);
            keys.insert(key.clone());
        }
        assert_eq!(keys.len(), 300);
        let long = keys.iter().filter(|key| key.len() == 20).count();
        assert!((70..130).contains(&long) && keys.iter().all(|key| [2, 20].contains(&key.len())), "{long}");
    }

    #[test]
    fn shares_of_partitions_add_up() {
        let population = Population::new(Keys { count: 3, skew: Skew::Uniform }, 8, 16);
        let shares: f64 = (0..16).map(|partition| population.share_of(partition)).sum();
        assert!((shares - 1.0).abs() < 1e-12);
        for drawn in [0.0, 0.5, 0.999_999_999_999_999_9] {
            assert!(population.reaches(population.partition_at(drawn)));
        }
    }
}
