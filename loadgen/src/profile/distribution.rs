//! How often each size occurs.

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Sizes and how often each was seen, from the smallest on. Those above 255 are kept to two digits, so that there are
/// few of them however many were seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    counts: Vec<(u64, u64)>,
}

/// Counts sizes while a topic is read.
#[derive(Debug)]
pub struct SizeCounter(Histogram<u64>);

impl Default for SizeCounter {
    fn default() -> SizeCounter {
        SizeCounter(Histogram::new(2).expect("two digits are allowed"))
    }
}

impl SizeCounter {
    pub fn add(&mut self, size: u64) {
        self.0.record(size).expect("a histogram that grows as it must");
    }

    pub fn distribution(&self) -> Distribution {
        let recorded = self.0.iter_recorded();
        // A bucket of several sizes is told by its lowest one, which the smallest buckets alone hold exactly.
        let counts = recorded.map(|bucket| {
            let size = self.0.lowest_equivalent(bucket.value_iterated_to());
            (size, bucket.count_since_last_iteration())
        });
        Distribution { counts: counts.collect() }
    }
}

impl Distribution {
    /// How many were seen.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|(_, count)| count).sum()
    }

    /// The size below which, or at which, this part of all is; from 0 to 1. Something was seen.
    pub fn at(&self, quantile: f64) -> u64 {
        let rank = quantile * self.count() as f64;
        let mut counted = 0;
        let holding = self.counts.iter().find(|(_, count)| {
            counted += count;
            counted as f64 > rank
        });
        holding.or(self.counts.last()).expect("something was seen").0
    }

    /// The mean; 0 if nothing was seen.
    pub fn mean(&self) -> f64 {
        let sum: f64 = self.counts.iter().map(|(size, count)| *size as f64 * *count as f64).sum();
        sum / self.count().max(1) as f64
    }

    /// The smallest.
    pub fn min(&self) -> Option<u64> {
        self.counts.first().map(|(size, _)| *size)
    }

    /// The largest.
    pub fn max(&self) -> Option<u64> {
        self.counts.last().map(|(size, _)| *size)
    }

    /// Refuses what no counter wrote; `what` names it.
    pub fn check(&self, what: &str, size_max: u64) -> Result<()> {
        let rises = self.counts.windows(2).all(|pair| pair[0].0 < pair[1].0);
        ensure!(rises, "{what} are not in rising order");
        let counted = self.counts.iter().try_fold(0_u64, |sum, (_, count)| sum.checked_add(*count));
        ensure!(counted.is_some(), "{what} are more than can be counted");
        ensure!(self.counts.iter().all(|(_, count)| *count > 0), "{what} name a size that was never seen");
        let largest = self.max().unwrap_or(0);
        ensure!(largest <= size_max, "{what} reach {largest}, and {size_max} is the most");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sizes: impl IntoIterator<Item = u64>) -> Distribution {
        let mut counter = SizeCounter::default();
        sizes.into_iter().for_each(|size| counter.add(size));
        counter.distribution()
    }

    #[test]
    fn small_sizes_are_exact_and_large_ones_within_a_hundredth() {
        let distribution = of([0, 1, 100, 255, 100, 1_234_567]);
        assert_eq!(distribution.counts[..4], [(0, 1), (1, 1), (100, 2), (255, 1)]);
        let (large, _) = distribution.counts[4];
        assert!((large as f64 / 1_234_567.0 - 1.0).abs() < 0.01, "{large}");
        assert_eq!(distribution.count(), 6);
    }

    #[test]
    fn quantiles_drawn_evenly_give_the_distribution_back() {
        let distribution = of((0..90).map(|_| 10).chain((0..10).map(|_| 200)));
        let drawn: Vec<u64> = (0..1_000).map(|n| distribution.at((f64::from(n) + 0.5) / 1_000.0)).collect();
        assert_eq!(drawn.iter().filter(|size| **size == 200).count(), 100);
        assert_eq!((distribution.at(0.0), distribution.at(1.0)), (10, 200));
        assert!((distribution.mean() - 29.0).abs() < 1e-9);
    }

    #[test]
    fn what_no_counter_wrote_is_refused() {
        let refused = |counts: &[(u64, u64)]| {
            let distribution = Distribution { counts: counts.to_vec() };
            distribution.check("value sizes", 1_000).unwrap_err().to_string()
        };
        assert_eq!(refused(&[(2, 1), (1, 1)]), "value sizes are not in rising order");
        assert_eq!(refused(&[(2, 0)]), "value sizes name a size that was never seen");
        assert_eq!(refused(&[(1, u64::MAX), (2, 1)]), "value sizes are more than can be counted");
        assert_eq!(refused(&[(2_000, 1)]), "value sizes reach 2000, and 1000 is the most");
    }
}
