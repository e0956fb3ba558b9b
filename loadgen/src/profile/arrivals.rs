//! When records came: how many in each step of time, relative to the mean.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// Steps at most: as time goes on they become longer, not more.
const STEPS_MAX: i64 = 512;

/// The shape of the load over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arrivals {
    /// The length of a step.
    pub step_s: f64,
    /// Records per second in each step, in parts of their mean over all steps.
    pub curve: Vec<f64>,
}

/// Counts timestamps while a topic is read.
#[derive(Debug)]
pub struct ArrivalCounter {
    step_ms: i64,
    /// By the number of the step, counted from 1970.
    steps: BTreeMap<i64, u64>,
}

impl Default for ArrivalCounter {
    fn default() -> ArrivalCounter {
        ArrivalCounter { step_ms: 1, steps: BTreeMap::new() }
    }
}

impl ArrivalCounter {
    /// A record without a time says nothing.
    pub fn add(&mut self, timestamp_ms: i64) {
        if timestamp_ms < 0 {
            return;
        }
        *self.steps.entry(timestamp_ms / self.step_ms).or_default() += 1;
        while self.last_step() >= STEPS_MAX {
            self.step_ms *= 2;
            let mut longer = BTreeMap::new();
            for (step, count) in &self.steps {
                *longer.entry(step / 2).or_default() += count;
            }
            self.steps = longer;
        }
    }

    /// None if no record had a time.
    pub fn arrivals(&self) -> Option<Arrivals> {
        let (first, _) = self.steps.first_key_value()?;
        let records: u64 = self.steps.values().sum();
        let last = self.last_step();
        let mean = records as f64 / (last + 1) as f64;
        let step = |step: i64| self.steps.get(&(first + step)).copied().unwrap_or(0) as f64 / mean;
        let curve = (0..=last).map(step).collect();
        Some(Arrivals { step_s: self.step_ms as f64 / 1e3, curve })
    }

    /// The last step, counted from the first. Times are not negative, so it fits.
    fn last_step(&self) -> i64 {
        match (self.steps.first_key_value(), self.steps.last_key_value()) {
            (Some((first, _)), Some((last, _))) => last - first,
            _ => 0,
        }
    }
}

impl Arrivals {
    /// From the first step to the end of the last.
    pub fn seconds(&self) -> f64 {
        self.step_s * self.curve.len() as f64
    }

    /// Refuses what no counter wrote.
    pub fn check(&self) -> Result<()> {
        ensure!(self.step_s > 0.0 && self.step_s.is_finite(), "a step of {} s is none", self.step_s);
        let sound = self.curve.iter().all(|rate| *rate >= 0.0 && rate.is_finite());
        let mean = self.curve.iter().sum::<f64>() / self.curve.len() as f64;
        ensure!(sound && (mean - 1.0).abs() < 1e-3, "the curve of arrivals has the mean {mean} instead of 1");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(timestamps: impl IntoIterator<Item = i64>) -> Option<Arrivals> {
        let mut counter = ArrivalCounter::default();
        timestamps.into_iter().for_each(|timestamp| counter.add(timestamp));
        counter.arrivals()
    }

    #[test]
    fn steps_become_longer_instead_of_more() {
        let day_ms = 86_400_000;
        let arrivals = of((0..day_ms / 1_000).map(|second| 1_700_000_000_000 + second * 1_000)).unwrap();
        assert!((256..=513).contains(&arrivals.curve.len()), "{}", arrivals.curve.len());
        assert!((arrivals.seconds() - 86_400.0).abs() < 2.0 * arrivals.step_s, "{}", arrivals.seconds());
        arrivals.check().unwrap();
        // All but the first and the last, which may be cut short, are alike.
        let inner = &arrivals.curve[1..arrivals.curve.len() - 1];
        assert!(inner.iter().all(|rate| (rate - 1.0).abs() < 0.02), "{inner:?}");
    }

    #[test]
    fn the_order_of_records_is_no_matter_and_silence_is_a_rate_of_nothing() {
        let arrivals = of([13, 10, 10, -1]).unwrap();
        assert_eq!(arrivals, Arrivals { step_s: 0.001, curve: vec![8.0 / 3.0, 0.0, 0.0, 4.0 / 3.0] });
        assert_eq!(arrivals, of([10, 10, 13]).unwrap());
        assert_eq!(of([-1]), None);
        assert_eq!(of([i64::MAX]).unwrap().curve, [1.0]);
        let all_times = of([0, i64::MAX]).unwrap();
        assert!(all_times.curve.len() as i64 <= STEPS_MAX, "{}", all_times.curve.len());
    }
}
