//! Medians, and how sure they are: the percentile bootstrap (Efron, 1979), resampling the runs of each side.

use fastrand::Rng;
use serde::Serialize;

/// The runs of one side.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[expect(missing_docs, reason = "each is what its name says")]
pub struct Spread {
    pub runs: usize,
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: &[f64]) -> Spread {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Spread { runs: values.len(), median: median(&sorted), min: sorted[0], max: sorted[sorted.len() - 1] }
    }
}

const RESAMPLINGS: usize = 10_000;
/// What is cut off at each end, so that 95 of 100 are left.
const TAIL: f64 = 0.025;
/// The same runs always give the same interval.
const SEED: u64 = 1;

/// Where the ratio of B's median to A's lies in 95 of 100 resamplings.
pub fn ratio_interval(a: &[f64], b: &[f64]) -> (f64, f64) {
    let mut rng = Rng::with_seed(SEED);
    let mut ratios: Vec<f64> =
        (0..RESAMPLINGS).map(|_| resampled_median(b, &mut rng) / resampled_median(a, &mut rng)).collect();
    ratios.sort_by(f64::total_cmp);
    let cut = (RESAMPLINGS as f64 * TAIL) as usize;
    (ratios[cut], ratios[RESAMPLINGS - 1 - cut])
}

fn resampled_median(values: &[f64], rng: &mut Rng) -> f64 {
    let mut drawn: Vec<f64> = values.iter().map(|_| values[rng.usize(..values.len())]).collect();
    drawn.sort_by(f64::total_cmp);
    median(&drawn)
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Spread { runs: 3, median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
    }

    #[test]
    fn the_interval_holds_the_ratio_and_narrows_with_the_runs() {
        let noisy = |center: f64, runs: usize| -> Vec<f64> {
            let mut rng = Rng::with_seed(3);
            (0..runs).map(|_| center * (0.9 + 0.2 * rng.f64())).collect()
        };
        let width = |runs| {
            let (low, high) = ratio_interval(&noisy(100.0, runs), &noisy(200.0, runs));
            assert!(low < 2.0 && high > 2.0, "{low} to {high}");
            high - low
        };
        assert!(width(100) < width(5));
    }
}
