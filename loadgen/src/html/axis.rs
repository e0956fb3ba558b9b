//! Axes: where a value lies between the two ends, and which values get a line and a label.

use super::units;

/// An axis with its two ends, the least before the greatest.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    scale: Scale,
    least: f64,
    greatest: f64,
    measure: Measure,
}

/// How distances follow from values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    /// From 0.
    Linear,
    /// Both ends are above 0.
    Log,
}

/// What the values are, which decides how they are spelt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    /// Microseconds.
    Latency,
    /// Records per second.
    Rate,
    /// Seconds since the end of the warm-up.
    Elapsed,
    /// A quantile as [`one_in`] so many.
    Percentile,
}

/// Values beyond are drawn at the end of an axis: a file may hold anything.
const VALUE_MIN: f64 = 1e-3;
const VALUE_MAX: f64 = 1e15;
/// Ends of a linear axis are rounded to steps of which about so many fit.
const STEPS: f64 = 5.0;

/// A quantile on the scale that HDR histograms are drawn on: 1 / (1 - quantile).
pub fn one_in(quantile: f64) -> f64 {
    (1.0 / (1.0 - quantile.clamp(0.0, 1.0))).clamp(1.0, VALUE_MAX)
}

impl Axis {
    /// For latencies: logarithmic where they span more than a decade, from 0 else.
    pub fn latency(values: impl Iterator<Item = f64>) -> Axis {
        const DECADE: f64 = 10.0;
        let measure = Measure::Latency;
        let values = values.filter(|value| value.is_finite()).map(|value| value.clamp(VALUE_MIN, VALUE_MAX));
        match values.fold(None, wider) {
            None => Axis { scale: Scale::Linear, least: 0.0, greatest: 1_000.0, measure },
            Some((least, greatest)) if greatest > DECADE * least => Axis {
                scale: Scale::Log,
                least: round_below(least),
                greatest: round_above(greatest),
                measure,
            },
            Some((_, greatest)) => Axis::from_zero(greatest, measure),
        }
    }

    /// For records per second, from 0.
    pub fn rate(values: impl Iterator<Item = f64>) -> Axis {
        Axis::from_zero(values.filter(|value| value.is_finite()).fold(0.0, f64::max), Measure::Rate)
    }

    /// For the time of a run, from 0 to its end.
    pub fn elapsed(end_s: f64) -> Axis {
        let greatest = end_s.clamp(VALUE_MIN, VALUE_MAX);
        Axis { scale: Scale::Linear, least: 0.0, greatest, measure: Measure::Elapsed }
    }

    /// For quantiles as [`one_in`] so many, from the least of all to one of `greatest`.
    pub fn percentiles(greatest: f64) -> Axis {
        let greatest = greatest.clamp(10.0, VALUE_MAX);
        Axis { scale: Scale::Log, least: 1.0, greatest, measure: Measure::Percentile }
    }

    fn from_zero(greatest: f64, measure: Measure) -> Axis {
        let greatest = if greatest > 0.0 { greatest.clamp(VALUE_MIN, VALUE_MAX) } else { 1.0 };
        let step = round_above(greatest / STEPS);
        // Not a step more for the last bit of a quotient.
        let steps = (greatest / step - 1e-9).ceil();
        Axis { scale: Scale::Linear, least: 0.0, greatest: step * steps, measure }
    }

    /// From 0 at the least value to 1 at the greatest; what lies beyond an end is drawn there.
    pub fn fraction(&self, value: f64) -> f64 {
        let value = value.clamp(self.least, self.greatest);
        match self.scale {
            Scale::Linear => (value - self.least) / (self.greatest - self.least),
            Scale::Log => (value / self.least).ln() / (self.greatest / self.least).ln(),
        }
    }

    /// At most so many values, in order, all between the ends.
    pub fn ticks(&self, count_max: usize) -> Vec<f64> {
        assert!(count_max >= 2, "{count_max} ticks are too few for a scale");
        match (self.scale, self.measure) {
            (Scale::Linear, _) => self.steps(count_max),
            (Scale::Log, Measure::Percentile) => {
                let mut ticks = self.decades(count_max - 1);
                ticks.insert(1, one_in(0.5));
                ticks
            }
            (Scale::Log, _) => {
                let ticks = self.round_values();
                if ticks.len() <= count_max { ticks } else { self.decades_and_ends(count_max) }
            }
        }
    }

    /// A value as a tick spells it.
    pub fn label(&self, value: f64) -> String {
        match self.measure {
            Measure::Latency => units::latency(value),
            Measure::Rate => units::short(value),
            Measure::Elapsed => units::number(value),
            Measure::Percentile => units::percentile(1.0 - 1.0 / value),
        }
    }

    /// Multiples of the least round step of which no more fit.
    fn steps(&self, count_max: usize) -> Vec<f64> {
        let count = |step: f64| (self.greatest / step + 1e-9).floor() as usize + 1;
        // Time is counted in whole seconds.
        let finest = if self.measure == Measure::Elapsed && self.greatest >= 2.0 { 1.0 } else { 0.0 };
        let mut step = round_above(self.greatest / count_max as f64).max(finest);
        while count(step) > count_max {
            step = round_above(step * 1.5);
        }
        (0..count(step)).map(|index| step * index as f64).collect()
    }

    /// 1, 2 and 5 of every decade.
    fn round_values(&self) -> Vec<f64> {
        let decades = exponent(self.least)..=exponent(self.greatest);
        decades
            .flat_map(|exponent| [1.0, 2.0, 5.0].map(|digit| digit * decade(exponent)))
            .filter(|tick| self.holds(*tick))
            .collect()
    }

    /// Powers of ten; every second or third of them where they are many.
    fn decades(&self, count_max: usize) -> Vec<f64> {
        let decades =
            || (exponent(self.least)..=exponent(self.greatest)).map(decade).filter(|tick| self.holds(*tick));
        let stride = decades().count().div_ceil(count_max).max(1);
        decades().step_by(stride).collect()
    }

    /// Powers of ten, and the ends where there is room.
    fn decades_and_ends(&self, count_max: usize) -> Vec<f64> {
        const DISTANCE_MIN: f64 = 1.99;
        let mut ticks = self.decades(count_max);
        let (first, last) = (ticks[0], ticks[ticks.len() - 1]);
        if ticks.len() < count_max && first / self.least > DISTANCE_MIN {
            ticks.insert(0, self.least);
        }
        if ticks.len() < count_max && self.greatest / last > DISTANCE_MIN {
            ticks.push(self.greatest);
        }
        ticks
    }

    fn holds(&self, tick: f64) -> bool {
        tick >= self.least * (1.0 - 1e-9) && tick <= self.greatest * (1.0 + 1e-9)
    }
}

fn wider(range: Option<(f64, f64)>, value: f64) -> Option<(f64, f64)> {
    let (least, greatest) = range.unwrap_or((value, value));
    Some((least.min(value), greatest.max(value)))
}

/// The greatest of 1, 2 and 5 in any decade that is not above the value.
fn round_below(value: f64) -> f64 {
    let decade = decade(exponent(value));
    let digit = [5.0, 2.0].into_iter().find(|digit| digit * decade <= value * (1.0 + 1e-9));
    digit.unwrap_or(1.0) * decade
}

/// The least of 1, 2 and 5 in any decade that is not below the value.
fn round_above(value: f64) -> f64 {
    let decade = decade(exponent(value));
    let digit = [1.0, 2.0, 5.0].into_iter().find(|digit| digit * decade >= value * (1.0 - 1e-9));
    digit.unwrap_or(10.0) * decade
}

fn exponent(value: f64) -> i32 {
    // Not a decade less for the last bit of a logarithm.
    (value.log10() + 1e-12).floor() as i32
}

fn decade(exponent: i32) -> f64 {
    10_f64.powi(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(axis: &Axis, count_max: usize) -> Vec<String> {
        axis.ticks(count_max).into_iter().map(|tick| axis.label(tick).replace('\u{a0}', " ")).collect()
    }

    fn latency(values: &[f64]) -> Axis {
        Axis::latency(values.iter().copied())
    }

    #[test]
    fn rates_begin_at_zero_and_end_at_a_round_value() {
        let axis = Axis::rate([4_980.0, 5_012.0].into_iter());
        assert_eq!(labels(&axis, 7), ["0", "1k", "2k", "3k", "4k", "5k", "6k"]);
        assert_eq!(labels(&Axis::rate([].into_iter()), 3), ["0", "0.5", "1"]);
    }

    #[test]
    fn latencies_within_a_decade_are_linear() {
        assert_eq!(labels(&latency(&[900.0, 1_900.0]), 6), ["0", "500 µs", "1 ms", "1.5 ms", "2 ms"]);
        assert_eq!(latency(&[100.0]).fraction(50.0), 0.5);
    }

    #[test]
    fn latencies_across_decades_are_logarithmic() {
        let axis = latency(&[130.0, 4_000.0]);
        assert_eq!(labels(&axis, 8), ["100 µs", "200 µs", "500 µs", "1 ms", "2 ms", "5 ms"]);
        assert!((latency(&[10.0, 1_000.0]).fraction(100.0) - 0.5).abs() < 1e-9);
        assert_eq!(
            labels(&latency(&[10.0, 3e7]), 8),
            ["10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s", "50 s"]
        );
        assert_eq!(labels(&latency(&[250.0, 4e5]), 8), ["200 µs", "1 ms", "10 ms", "100 ms", "500 ms"]);
    }

    #[test]
    fn percentiles_are_those_of_hdr() {
        let axis = Axis::percentiles(20_000.0);
        assert_eq!(labels(&axis, 9), ["0", "50", "90", "99", "99.9", "99.99"]);
        assert_eq!(axis.fraction(one_in(1.0)), 1.0);
        assert_eq!(axis.fraction(one_in(0.0)), 0.0);
        assert_eq!(labels(&Axis::percentiles(1.0), 9), ["0", "50", "90"]);
    }

    #[test]
    fn the_time_of_a_run() {
        assert_eq!(labels(&Axis::elapsed(8.003), 9), ["0", "1", "2", "3", "4", "5", "6", "7", "8"]);
        assert_eq!(labels(&Axis::elapsed(8.003), 8), ["0", "2", "4", "6", "8"]);
        assert_eq!(labels(&Axis::elapsed(2.0), 13), ["0", "1", "2"]);
        assert_eq!(labels(&Axis::elapsed(1.0), 3), ["0", "0.5", "1"]);
        let long = ["0", "500", "1,000", "1,500", "2,000", "2,500", "3,000"];
        assert_eq!(labels(&Axis::elapsed(3_000.0), 7), long);
    }

    #[test]
    fn what_no_run_measures_is_drawn_all_the_same() {
        for values in [&[][..], &[f64::NAN], &[-5.0, f64::INFINITY], &[0.0, 1e300], &[1e300]] {
            let axis = latency(values);
            let ticks = axis.ticks(8);
            assert!(ticks.len() >= 2, "{values:?}: {ticks:?}");
            assert!((0.0..=1.0).contains(&axis.fraction(1e300)), "{values:?}");
        }
    }

    fn any_axis() -> impl Strategy<Value = Axis> {
        let value =
            prop_oneof![0.0..1e9_f64, any::<f64>(), (-5..12).prop_map(|exponent| 10_f64.powi(exponent))];
        let values = prop::collection::vec(value, 0..6);
        (0..4, values).prop_map(|(kind, values)| {
            let first = values.first().copied().unwrap_or_default();
            match kind {
                0 => Axis::latency(values.into_iter()),
                1 => Axis::rate(values.into_iter()),
                2 => Axis::elapsed(if first.is_nan() { 0.0 } else { first }),
                _ => Axis::percentiles(if first.is_nan() { 0.0 } else { first }),
            }
        })
    }

    proptest! {
        #[test]
        fn ticks_are_few_ordered_and_on_the_axis(axis in any_axis(), count_max in 3_usize..12) {
            let ticks = axis.ticks(count_max);
            prop_assert!((1..=count_max).contains(&ticks.len()), "{axis:?}: {ticks:?}");
            prop_assert!(ticks.windows(2).all(|pair| pair[0] < pair[1]), "{axis:?}: {ticks:?}");
            prop_assert!(ticks.iter().all(|tick| axis.holds(*tick)), "{axis:?}: {ticks:?}");
        }

        #[test]
        fn a_greater_value_lies_further(axis in any_axis(), one in 0.0..1e12_f64, other in 0.0..1e12_f64) {
            let (less, more) = (axis.fraction(one.min(other)), axis.fraction(one.max(other)));
            prop_assert!(0.0 <= less && less <= more && more <= 1.0, "{axis:?}: {less} {more}");
        }

        #[test]
        fn round_values_enclose(value in 1e-3..1e15_f64) {
            let (below, above) = (round_below(value), round_above(value));
            prop_assert!(below <= value * 1.000_001 && value <= above * 1.000_001, "{below} {value} {above}");
            prop_assert!(above / below < 2.6, "{below} {value} {above}");
        }
    }
}
