//! A population of keys: how often each is used, and to which partition it goes.

use corrente_client::partition_for_key;
use fastrand::Rng;

use crate::plan::{Keys, Skew};

/// Keys by partition, each with its weight.
#[derive(Debug)]
pub struct Population {
    partitions: Vec<Part>,
    /// Where the share of each partition ends, summed up from 0 to 1.
    ends: Vec<f64>,
    key_size: usize,
}

/// The keys of one partition.
#[derive(Debug, Default)]
struct Part {
    keys: Vec<u64>,
    /// Weights, summed up.
    ends: Vec<f64>,
}

impl Population {
    /// Gives every key its weight and its partition, by the hash that all producers use.
    pub fn new(keys: Keys, key_size: usize, partitions: u32) -> Population {
        let mut parts: Vec<Part> = (0..partitions).map(|_| Part::default()).collect();
        let mut key = vec![0; key_size];
        for rank in 1..=keys.count {
            write_key(rank, &mut key);
            let part = &mut parts[partition_for_key(&key, partitions) as usize];
            let weight = match keys.skew {
                Skew::Uniform => 1.0,
                Skew::Zipf(exponent) => (rank as f64).powf(-exponent),
            };
            part.ends.push(part.weight() + weight);
            part.keys.push(rank);
        }
        let total: f64 = parts.iter().map(Part::weight).sum();
        let mut end = 0.0;
        let ends = parts.iter().map(|part| {
            end += part.weight() / total;
            end
        });
        Population { ends: ends.collect(), partitions: parts, key_size }
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
    pub fn draw(&self, partition: usize, rng: &mut Rng, key: &mut [u8]) {
        assert_eq!(key.len(), self.key_size, "the length of a key");
        let part = &self.partitions[partition];
        let drawn = rng.f64() * part.weight();
        let place = part.ends.partition_point(|end| *end <= drawn).min(part.keys.len() - 1);
        write_key(part.keys[place], key);
    }

    /// The part of all records that goes to a partition.
    #[cfg(test)]
    pub fn share_of(&self, partition: usize) -> f64 {
        self.ends[partition] - partition.checked_sub(1).map_or(0.0, |before| self.ends[before])
    }
}

impl Part {
    fn weight(&self) -> f64 {
        self.ends.last().copied().unwrap_or(0.0)
    }
}

/// The rank at the end, zeros in front; a key has at least 8 bytes where there is a population.
fn write_key(rank: u64, key: &mut [u8]) {
    let (zeros, number) = key.split_at_mut(key.len() - size_of::<u64>());
    zeros.fill(0);
    number.copy_from_slice(&rank.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zipf_population_uses_its_first_key_most() {
        let population = Population::new(Keys { count: 100, skew: Skew::Zipf(1.0) }, 8, 1);
        let mut used = [0_u32; 101];
        let (mut rng, mut key) = (Rng::with_seed(1), [0; 8]);
        for _ in 0..100_000 {
            population.draw(0, &mut rng, &mut key);
            used[usize::try_from(u64::from_be_bytes(key)).unwrap()] += 1;
        }
        // The n-th of a hundred has 1/n of 1/H(100), which is 0.1928.
        for rank in [1, 2, 10] {
            let share = f64::from(used[rank]) / 100_000.0;
            assert!((share * rank as f64 / 0.1928 - 1.0).abs() < 0.05, "rank {rank}: {share}");
        }
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
