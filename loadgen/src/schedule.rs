//! When each record batch is due.
//!
//! An open loop is a promise made before the run: every due time follows from the rate and the arrivals alone, whatever
//! the broker does. The two are independent. The [`Rate`] says how many records are due by when; the [`Arrivals`] say
//! how they are spread around that.

use std::time::Duration;

use fastrand::Rng;
use serde::{Deserialize, Serialize};

/// Records per second, over all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rate {
    /// The same all the time; at least 1.
    Constant(u64),
    /// `from` until the warm-up is over, then straight to `to`, which is reached when the run ends. Both at least 1.
    Ramp {
        /// At the start.
        from: u64,
        /// At the end.
        to: u64,
    },
}

/// How record batches arrive at a given rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrivals {
    /// At equal distances.
    Constant,
    /// Independently of each other, as those of many separate senders do: distances are exponentially distributed.
    Poisson,
    /// So many batches at once, and then none until as many are due again; at least 1.
    Burst(u64),
}

/// The due times of one worker's batches, counted from the start of the run. They never go back.
#[derive(Debug, Clone)]
pub struct Schedule {
    curve: Curve,
    arrivals: Arrivals,
    batch_records: f64,
    /// This worker's next batch among those of all workers.
    next: u64,
    workers: u64,
    /// Records due before the last batch of a Poisson process, as a point on the curve.
    position: f64,
    rng: Rng,
}

impl Schedule {
    /// The schedule of worker number `worker` of `workers`: at equal distances they take turns, and Poisson processes
    /// of their own add up to one. The same seed gives the same times. Batches hold `batch_records` in the mean.
    pub fn new(
        curve: Curve,
        arrivals: Arrivals,
        batch_records: f64,
        (worker, workers): (u64, u64),
        seed: u64,
    ) -> Schedule {
        assert!(worker < workers, "worker {worker} of {workers}");
        let rng = Rng::with_seed(seed ^ worker.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Schedule { curve, arrivals, batch_records, next: worker, workers, position: 0.0, rng }
    }

    /// When the next batch is due.
    pub fn next_due(&mut self) -> Duration {
        let position = match self.arrivals {
            Arrivals::Constant => self.next as f64 * self.batch_records,
            Arrivals::Burst(batches) => (self.next / batches * batches) as f64 * self.batch_records,
            Arrivals::Poisson => {
                // The logarithm of 1 - u, as u may be 0 and is never 1.
                let distance = -(1.0 - self.rng.f64()).ln();
                self.position += distance * self.batch_records * self.workers as f64;
                self.position
            }
        };
        self.next += self.workers;
        self.curve.due(position)
    }
}

/// A rate with its times: how many records are due by when.
#[derive(Debug, Clone, PartialEq)]
pub enum Curve {
    /// The same all the time, or changing in a straight line.
    Straight(Straight),
    /// As it was recorded.
    Recorded(Recorded),
}

impl Curve {
    /// A ramp begins behind the warm-up and lasts for `measured`.
    pub fn new(rate: Rate, warmup: Duration, measured: Duration) -> Curve {
        let (from, to) = match rate {
            Rate::Constant(rate) => (rate, rate),
            Rate::Ramp { from, to } => (from, to),
        };
        let (ramp_begin_s, ramp_s) = (warmup.as_secs_f64(), measured.as_secs_f64());
        Curve::Straight(Straight { from: from as f64, to: to as f64, ramp_begin_s, ramp_s })
    }

    /// Rates in equal steps, in parts of the mean, laid over `measured` behind the warm-up; the mean before that, and
    /// after. Their mean is 1.
    pub fn recorded(mean: f64, steps: &[f64], warmup: Duration, measured: Duration) -> Curve {
        let step_s = measured.as_secs_f64() / steps.len() as f64;
        let mut due = 0.0;
        let ends = steps.iter().map(|part| {
            due += part * mean * step_s;
            due
        });
        Curve::Recorded(Recorded { mean, begin_s: warmup.as_secs_f64(), step_s, ends: ends.collect() })
    }

    /// When the record is due before which `records` are.
    fn due(&self, records: f64) -> Duration {
        match self {
            Curve::Straight(straight) => straight.due(records),
            Curve::Recorded(recorded) => recorded.due(records),
        }
    }
}

/// From one rate to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Straight {
    from: f64,
    to: f64,
    /// The seconds at which it begins to rise or fall, and how many it does so.
    ramp_begin_s: f64,
    ramp_s: f64,
}

impl Straight {
    /// When the record is due before which `records` are.
    fn due(&self, records: f64) -> Duration {
        let before_ramp = self.from * self.ramp_begin_s;
        if self.from == self.to || records <= before_ramp {
            return seconds(records / self.from);
        }
        let in_ramp = records - before_ramp;
        // in_ramp = from·t + slope·t²/2, solved in the form that holds for a slope of either sign and near zero.
        let slope = (self.to - self.from) / self.ramp_s;
        let discriminant = self.from.mul_add(self.from, 2.0 * slope * in_ramp);
        let end_of_ramp = (self.from + self.to) / 2.0 * self.ramp_s;
        if in_ramp >= end_of_ramp || discriminant < 0.0 {
            return seconds(self.ramp_begin_s + self.ramp_s + (in_ramp - end_of_ramp).max(0.0) / self.to);
        }
        seconds(self.ramp_begin_s + 2.0 * in_ramp / (self.from + discriminant.sqrt()))
    }
}

/// A rate that is constant within each step.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    mean: f64,
    begin_s: f64,
    step_s: f64,
    /// Records due by the end of each step, counted from the begin.
    ends: Vec<f64>,
}

impl Recorded {
    fn due(&self, records: f64) -> Duration {
        let in_steps = records - self.mean * self.begin_s;
        if in_steps <= 0.0 {
            return seconds(records / self.mean);
        }
        // A step in which nothing is due ends with as many as it began with, and is passed over.
        let step = self.ends.partition_point(|end| *end <= in_steps);
        let before = step.checked_sub(1).map_or(0.0, |before| self.ends[before]);
        let into_step_s = match self.ends.get(step) {
            Some(end) => (in_steps - before) / (end - before) * self.step_s,
            None => (in_steps - before) / self.mean,
        };
        seconds(self.begin_s + step as f64 * self.step_s + into_step_s)
    }
}

/// To the nearest nanosecond; what no clock can count is never due.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn dues(rate: Rate, arrivals: Arrivals, batch_records: u32, workers: u64, count: usize) -> Vec<Duration> {
        let curve = Curve::new(rate, SECOND, 10 * SECOND);
        let of_worker = |worker| {
            let records = f64::from(batch_records);
            let mut schedule = Schedule::new(curve.clone(), arrivals, records, (worker, workers), 1);
            (0..count).map(move |_| schedule.next_due())
        };
        let mut dues: Vec<Duration> = (0..workers).flat_map(of_worker).collect();
        dues.sort();
        dues
    }

    #[test]
    fn a_batch_is_due_with_all_its_records() {
        let dues = dues(Rate::Constant(1_000_000), Arrivals::Constant, 1_000, 1, 4);
        assert_eq!(dues, [0, 1, 2, 3].map(Duration::from_millis));
    }

    #[test]
    fn workers_take_turns() {
        let one = dues(Rate::Constant(777), Arrivals::Constant, 3, 1, 300);
        assert_eq!(dues(Rate::Constant(777), Arrivals::Constant, 3, 3, 100), one);
    }

    #[test]
    fn a_day_later_it_has_not_drifted() {
        let curve = Curve::new(Rate::Constant(1_000), SECOND, SECOND);
        assert_eq!(curve.due(86_400_000.0), Duration::from_secs(86_400));
    }

    #[test]
    fn bursts_come_at_once_and_keep_the_rate() {
        let dues = dues(Rate::Constant(1_000), Arrivals::Burst(100), 1, 2, 150);
        for (index, due) in dues.iter().enumerate() {
            assert_eq!(*due, Duration::from_millis(index as u64 / 100 * 100), "batch {index}");
        }
    }

    #[test]
    fn a_ramp_passes_the_rates_between() {
        // 1 s at 1 000 and 10 s from 1 000 to 3 000: 1 000 records, and then 20 000 of which 7 500 in the first half.
        let curve = Curve::new(Rate::Ramp { from: 1_000, to: 3_000 }, SECOND, 10 * SECOND);
        assert_eq!(curve.due(1_000.0), SECOND);
        assert_eq!(curve.due(8_500.0), 6 * SECOND);
        assert_eq!(curve.due(21_000.0), 11 * SECOND);
        assert_eq!(curve.due(24_000.0), 12 * SECOND);
        let falling = Curve::new(Rate::Ramp { from: 3_000, to: 1_000 }, Duration::ZERO, 10 * SECOND);
        assert_eq!(falling.due(12_500.0), 5 * SECOND);
        assert_eq!(falling.due(21_000.0), 11 * SECOND);
    }

    #[test]
    fn a_recorded_curve_is_laid_over_the_measured_part() {
        // 1 s at the mean of 1 000, then 4 steps of 2 s, and the mean again.
        let curve = Curve::recorded(1_000.0, &[0.5, 2.0, 0.0, 1.5], SECOND, 8 * SECOND);
        for (records, due_s) in [
            (0, 0.0),
            (1_000, 1.0),
            (1_500, 2.0),
            (2_000, 3.0),
            (4_000, 4.0),
            (5_999, 4.999_5),
            // Nothing is due between the end of the second step and the begin of the fourth.
            (6_000, 7.0),
            (7_500, 8.0),
            (9_000, 9.0),
            (10_000, 10.0),
        ] {
            assert_eq!(curve.due(f64::from(records)), seconds(due_s), "{records}");
        }
        let mut schedule = Schedule::new(curve, Arrivals::Constant, 500.0, (0, 1), 1);
        let dues: Vec<f64> = (0..5).map(|_| schedule.next_due().as_secs_f64()).collect();
        assert_eq!(dues, [0.0, 0.5, 1.0, 2.0, 3.0]);
    }

    #[test]
    fn poisson_arrivals_have_the_mean_and_the_spread_of_their_kind() {
        const COUNT: usize = 40_000;
        for workers in [1, 4] {
            let dues = dues(Rate::Constant(1_000), Arrivals::Poisson, 1, workers, COUNT / workers as usize);
            // The last worker to end leaves a thin tail: look at the part that all of them fill.
            let dues = &dues[..COUNT * 9 / 10];
            let distances: Vec<f64> = dues.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
            let mean = distances.iter().sum::<f64>() / distances.len() as f64;
            let variance = distances.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / distances.len() as f64;
            assert!((mean * 1_000.0 - 1.0).abs() < 0.03, "{workers} workers: mean {mean}");
            // An exponential distribution spreads as wide as its mean.
            assert!(
                (variance.sqrt() / mean - 1.0).abs() < 0.05,
                "{workers} workers: {}",
                variance.sqrt() / mean
            );
        }
    }

    #[test]
    fn a_seed_is_a_schedule() {
        let poisson = |seed| {
            let curve = Curve::new(Rate::Constant(1_000), SECOND, SECOND);
            Schedule::new(curve, Arrivals::Poisson, 1.0, (0, 1), seed).next_due()
        };
        assert_eq!(poisson(7), poisson(7));
        assert_ne!(poisson(7), poisson(8));
    }

    fn any_rate() -> impl Strategy<Value = Rate> {
        let rate = 1_u64..100_000_000;
        prop_oneof![
            rate.clone().prop_map(Rate::Constant),
            (rate.clone(), rate).prop_map(|(from, to)| Rate::Ramp { from, to }),
        ]
    }

    fn any_arrivals() -> impl Strategy<Value = Arrivals> {
        prop_oneof![
            Just(Arrivals::Constant),
            Just(Arrivals::Poisson),
            (1_u64..1_000).prop_map(Arrivals::Burst)
        ]
    }

    proptest! {
        #[test]
        fn due_times_never_go_back(
            rate in any_rate(),
            arrivals in any_arrivals(),
            batch_records in 1_u32..10_000,
            seed: u64,
        ) {
            let curve = Curve::new(rate, SECOND, 10 * SECOND);
            let mut schedule = Schedule::new(curve, arrivals, f64::from(batch_records), (1, 2), seed);
            let mut last = Duration::ZERO;
            for _ in 0..1_000 {
                let due = schedule.next_due();
                prop_assert!(due >= last, "{due:?} after {last:?}");
                last = due;
            }
        }

        #[test]
        fn as_many_are_due_as_the_rate_says(rate in any_rate(), at_s in 0.0_f64..20.0) {
            let curve = Curve::new(rate, SECOND, 10 * SECOND);
            let (from, to) = match rate {
                Rate::Constant(rate) => (rate as f64, rate as f64),
                Rate::Ramp { from, to } => (from as f64, to as f64),
            };
            let in_ramp = (at_s - 1.0).clamp(0.0, 10.0);
            let records = from * at_s.min(1.0)
                + from * in_ramp + (to - from) / 10.0 * in_ramp * in_ramp / 2.0
                + to * (at_s - 11.0).max(0.0);
            let due = curve.due(records).as_secs_f64();
            prop_assert!((due - at_s).abs() < 1e-6, "{due} for {at_s}");
        }
    }
}
