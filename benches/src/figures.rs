//! Figures that were measured several times: all values are kept, the median speaks, the range stands beside it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One quantity, a value per round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Of every value: `us`, `MB/s`, …
    pub unit: String,
    /// In the order measured.
    pub rounds: Vec<f64>,
}

impl Figure {
    /// The middle value, or the mean of the two in the middle; `None` before the first round.
    pub fn median(&self) -> Option<f64> {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            count if count % 2 == 1 => Some(sorted[middle]),
            _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
        }
    }

    fn least(&self) -> f64 {
        self.rounds.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn greatest(&self) -> f64 {
        self.rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }
}

/// `median (least..greatest) unit`, or `-` before the first round.
impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.median() {
            None => f.pad("-"),
            Some(median) => {
                let [median, least, greatest] = [median, self.least(), self.greatest()].map(three_digits);
                f.pad(&format!("{median} ({least}..{greatest}) {}", self.unit))
            }
        }
    }
}

/// Enough digits to compare, none that pretend.
pub fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        below if below >= 100.0 => 0,
        below if below >= 10.0 => 1,
        below if below >= 0.1 => 2,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

/// Figures by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Figures {
    by_name: BTreeMap<String, Figure>,
}

impl Figures {
    /// Adds one round's value. One name has one unit: the first one given stays.
    pub fn add(&mut self, name: &str, unit: &str, value: f64) {
        let figure = self
            .by_name
            .entry(name.to_owned())
            .or_insert_with(|| Figure { unit: unit.to_owned(), rounds: Vec::new() });
        assert_eq!(figure.unit, unit, "{name} was measured in another unit before");
        figure.rounds.push(value);
    }

    /// Adds every value of `other`, as further rounds.
    pub fn merge(&mut self, other: &Figures) {
        for (name, figure) in &other.by_name {
            figure.rounds.iter().for_each(|value| self.add(name, &figure.unit, *value));
        }
    }

    /// The figure of that name, if it was ever measured.
    pub fn get(&self, name: &str) -> Option<&Figure> {
        self.by_name.get(name)
    }

    /// The median of that name, if it was ever measured.
    pub fn median(&self, name: &str) -> Option<f64> {
        self.get(name).and_then(Figure::median)
    }

    /// Every figure, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Figure)> {
        self.by_name.iter().map(|(name, figure)| (name.as_str(), figure))
    }
}

/// Latencies of one round, each one kept.
#[derive(Debug, Default)]
pub struct Samples {
    nanoseconds: Vec<u64>,
}

impl Samples {
    /// Takes one in.
    pub fn push(&mut self, latency: Duration) {
        self.nanoseconds.push(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How many were taken in.
    pub fn len(&self) -> usize {
        self.nanoseconds.len()
    }

    /// Whether none was taken in.
    pub fn is_empty(&self) -> bool {
        self.nanoseconds.is_empty()
    }

    /// Adds p50, p99, p99.9 and the greatest to `figures` as `NAME.p50` and so on, in microseconds.
    pub fn add_to(mut self, figures: &mut Figures, name: &str) {
        self.nanoseconds.sort_unstable();
        for (quantile, permille) in [("p50", 500), ("p99", 990), ("p999", 999), ("max", 1000)] {
            if let Some(nanoseconds) = self.quantile(permille) {
                figures.add(&format!("{name}.{quantile}"), "us", nanoseconds as f64 / 1000.0);
            }
        }
    }

    /// The least value that so many in a thousand do not exceed; the values must be sorted.
    fn quantile(&self, permille: usize) -> Option<u64> {
        let rank = (self.nanoseconds.len() * permille).div_ceil(1000);
        self.nanoseconds.get(rank.saturating_sub(1)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(rounds: &[f64]) -> Figure {
        Figure { unit: "us".to_owned(), rounds: rounds.to_vec() }
    }

    #[test]
    fn the_median_speaks_and_the_range_stands_beside_it() {
        assert_eq!(figure(&[30.0, 10.0, 1000.0]).to_string(), "30.0 (10.0..1000) us");
        assert_eq!(figure(&[1.0, 2.0]).median(), Some(1.5));
        assert_eq!(figure(&[]).median(), None);
        assert_eq!(figure(&[]).to_string(), "-");
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let mut samples = Samples::default();
        (1..=1000).rev().for_each(|microseconds| samples.push(Duration::from_micros(microseconds)));
        let mut figures = Figures::default();
        samples.add_to(&mut figures, "write");
        let medians =
            ["p50", "p99", "p999", "max"].map(|quantile| figures.median(&format!("write.{quantile}")));
        assert_eq!(medians, [Some(500.0), Some(990.0), Some(999.0), Some(1000.0)]);
    }

    #[test]
    fn one_sample_is_every_quantile_and_none_is_no_figure() {
        let mut figures = Figures::default();
        Samples::default().add_to(&mut figures, "none");
        assert_eq!(figures, Figures::default());
        let mut samples = Samples::default();
        samples.push(Duration::from_micros(7));
        samples.add_to(&mut figures, "one");
        assert_eq!((figures.median("one.p50"), figures.median("one.max")), (Some(7.0), Some(7.0)));
    }

    #[test]
    fn merged_figures_are_further_rounds() {
        let mut figures = Figures::default();
        figures.add("a", "us", 1.0);
        figures.merge(&figures.clone());
        assert_eq!(figures.get("a").map(|figure| figure.rounds.clone()), Some(vec![1.0, 1.0]));
    }

    #[test]
    fn figures_survive_json() {
        let mut figures = Figures::default();
        figures.add("a.p50", "us", 1.25);
        let json = serde_json::to_string(&figures).expect("plain data");
        assert_eq!(serde_json::from_str::<Figures>(&json).expect("what was just written"), figures);
    }
}
