//! How long something took, counted in buckets that grow with it.
//!
//! Four buckets for each doubling, from a microsecond to half a minute: a quantile is read to within a fifth of itself,
//! and recording is a few instructions without an allocation.

use std::cell::Cell;
use std::time::Duration;

/// Buckets of each doubling.
const PER_DOUBLING: usize = 4;
const DOUBLINGS: usize = 25;
/// Everything beyond the last bound is counted in one more.
const BUCKETS: usize = PER_DOUBLING * DOUBLINGS + 1;

/// Durations, as a shard counts them.
#[derive(Debug)]
pub struct Histogram {
    counts: [Cell<u64>; BUCKETS],
    sum_ns: Cell<u64>,
}

/// Durations, counted up to some moment.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramReport {
    /// By bucket; the last one has no upper bound.
    counts: Vec<u64>,
    sum: Duration,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: [const { Cell::new(0) }; BUCKETS], sum_ns: Cell::new(0) }
    }
}

impl Histogram {
    /// Counts one.
    pub fn record(&self, took: Duration) {
        let count = &self.counts[bucket_of(took)];
        count.set(count.get() + 1);
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.set(self.sum_ns.get().saturating_add(took_ns));
    }

    /// All that was counted since the start.
    pub fn report(&self) -> HistogramReport {
        HistogramReport {
            counts: self.counts.iter().map(Cell::get).collect(),
            sum: Duration::from_nanos(self.sum_ns.get()),
        }
    }
}

impl Default for HistogramReport {
    fn default() -> HistogramReport {
        HistogramReport { counts: vec![0; BUCKETS], sum: Duration::ZERO }
    }
}

impl HistogramReport {
    /// Adds what another shard counted.
    pub fn add(&mut self, other: &HistogramReport) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, other)| *count += other);
        self.sum += other.sum;
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all of them.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The upper bound of the bucket that holds this quantile, from 0 to 1; none if nothing was counted, or it is
    /// beyond the last bound.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let rank = (quantile * self.count() as f64).ceil().max(1.0) as u64;
        let mut counted = 0;
        let holding = self.buckets().find(|(_, count)| {
            counted += count;
            counted >= rank
        });
        holding.and_then(|(bound, _)| bound)
    }

    /// Each bucket: its upper bound, inclusive, and how many it holds. The last one has no bound.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let bounds = (0..BUCKETS - 1).map(|bucket| Some(bound_of(bucket))).chain([None]);
        bounds.zip(self.counts.iter().copied())
    }
}

/// The upper bound of a bucket: 1 µs, 1.25, 1.5, 1.75, 2, 2.5 and so on.
fn bound_of(bucket: usize) -> Duration {
    let (doubling, quarter) = (bucket / PER_DOUBLING, bucket % PER_DOUBLING);
    let quarters = (PER_DOUBLING + quarter) << doubling;
    Duration::from_nanos(quarters as u64 * 1_000 / PER_DOUBLING as u64)
}

/// The first bucket whose bound is not below.
fn bucket_of(took: Duration) -> usize {
    let quarters = took.as_nanos().div_ceil(1_000 / PER_DOUBLING as u128);
    let Some(above) = quarters.checked_sub(PER_DOUBLING as u128 + 1) else { return 0 };
    // `above` counts from the first quarter above 1 µs: the leading bit says the doubling.
    let number = above + PER_DOUBLING as u128;
    let doubling = number.ilog2() - PER_DOUBLING.ilog2();
    let quarter = (number >> doubling) as usize - PER_DOUBLING;
    (doubling as usize * PER_DOUBLING + quarter + 1).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_grow_by_a_quarter_of_their_doubling() {
        let bounds: Vec<u64> = (0..9).map(|bucket| bound_of(bucket).as_nanos() as u64).collect();
        assert_eq!(bounds, [1_000, 1_250, 1_500, 1_750, 2_000, 2_500, 3_000, 3_500, 4_000]);
        assert!(bound_of(BUCKETS - 2) > Duration::from_secs(29));
    }

    #[test]
    fn each_duration_is_in_the_first_bucket_that_holds_it() {
        for nanos in (0..20_000).chain((0..10_000).map(|n| n * 3_571_111)) {
            let took = Duration::from_nanos(nanos);
            let bucket = bucket_of(took);
            assert!(bucket == BUCKETS - 1 || took <= bound_of(bucket), "{took:?} in bucket {bucket}");
            assert!(bucket == 0 || took > bound_of(bucket - 1), "{took:?} in bucket {bucket}");
        }
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_rounded_up() {
        let histogram = Histogram::default();
        assert_eq!(histogram.report().quantile(0.5), None);
        (1..=100).for_each(|micros| histogram.record(Duration::from_micros(micros)));
        let report = histogram.report();
        assert_eq!(report.quantile(0.5), Some(Duration::from_micros(56)));
        assert_eq!(report.quantile(0.0), Some(Duration::from_micros(1)));
        assert_eq!(report.quantile(1.0), Some(Duration::from_micros(112)));
    }

    #[test]
    fn shards_add_up() {
        let (one, other) = (Histogram::default(), Histogram::default());
        one.record(Duration::from_micros(1));
        other.record(Duration::from_micros(1));
        other.record(Duration::from_secs(3_600));
        let mut all = one.report();
        all.add(&other.report());
        assert_eq!((all.count(), all.sum()), (3, Duration::from_micros(2) + Duration::from_secs(3_600)));
        assert_eq!(all.buckets().next(), Some((Some(Duration::from_micros(1)), 2)));
        assert_eq!(all.buckets().last(), Some((None, 1)));
    }
}
