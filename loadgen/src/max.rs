//! The highest rate at which a promise about latency holds.
//!
//! Rates are doubled until one fails, or halved until one holds; then the gap between the highest that held and the
//! lowest that failed is halved until it is narrow. On a machine that others share one bad moment fails a run: a rate
//! fails only when it failed twice.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use crate::compare::Metric;
use crate::report::Report;

/// What is promised: a bound on one latency.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Objective {
    /// Which latency.
    pub metric: Metric,
    /// Its bound, in microseconds, inclusive.
    pub us_max: f64,
}

/// How a run at some rate went.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Probe {
    /// Every objective was met and the broker kept up.
    Holds,
    /// It did not, for this reason.
    Fails(String),
    /// The generator could not send at that rate, for this reason: nothing is known of the broker.
    BeyondTheGenerator(String),
}

/// The part of the asked rate that has to be reached: a run that ends a little late is not one that fell behind.
const REACHED_MIN: f64 = 0.99;

/// Holds a run against the objectives.
pub fn judge(report: &Report, rate: u64, objectives: &[Objective]) -> Probe {
    if let Some(reason) = report.invalid.first() {
        return Probe::BeyondTheGenerator(reason.clone());
    }
    if report.errors > 0 {
        return Probe::Fails(format!("{} records failed", report.errors));
    }
    if let Some(fault) = report.fault() {
        return Probe::Fails(fault);
    }
    for objective in objectives {
        let Objective { metric, us_max } = objective;
        match metric.of(report) {
            Some(us) if us <= *us_max => {}
            Some(us) => return Probe::Fails(format!("{metric} was {}", Micros(us))),
            None => return Probe::Fails(format!("there is no {metric}")),
        }
    }
    let reached = report.records_per_s;
    if reached < rate as f64 * REACHED_MIN {
        return Probe::Fails(format!("{reached:.0} records/s were reached"));
    }
    Probe::Holds
}

/// The search, without the runs: it says which rate to try and is told how that went.
#[derive(Debug)]
pub struct Search {
    next: u64,
    /// The highest that held.
    holds: Option<u64>,
    /// The lowest that failed twice, or that the generator could not send.
    fails: Option<u64>,
    /// The next rate has failed once.
    failed_once: bool,
    /// How far apart the two may be at the end, as a part of the lower.
    precision: f64,
}

impl Search {
    /// Begins at a rate of at least 1.
    pub fn new(start: u64, precision: f64) -> Search {
        Search { next: start.max(1), holds: None, fails: None, failed_once: false, precision }
    }

    /// The rate to try, or nothing once the answer is known.
    pub fn next(&self) -> Option<u64> {
        match (self.holds, self.fails) {
            (Some(holds), Some(fails))
                if (fails - holds) as f64 <= (holds as f64 * self.precision).max(1.0) =>
            {
                None
            }
            (None, Some(1)) => None,
            _ => Some(self.next),
        }
    }

    /// The highest rate that held.
    pub fn holds(&self) -> Option<u64> {
        self.holds
    }

    /// Takes in how the run at [`next`](Search::next) went.
    pub fn record(&mut self, probe: &Probe) {
        match probe {
            Probe::Fails(_) if !self.failed_once => {
                self.failed_once = true;
                return;
            }
            Probe::Holds => self.holds = Some(self.next),
            Probe::Fails(_) | Probe::BeyondTheGenerator(_) => self.fails = Some(self.next),
        }
        self.failed_once = false;
        self.next = match (self.holds, self.fails) {
            (Some(holds), Some(fails)) => holds.midpoint(fails),
            (Some(holds), None) => holds.saturating_mul(2),
            (None, Some(fails)) => (fails / 2).max(1),
            (None, None) => self.next,
        };
    }
}

impl FromStr for Objective {
    type Err = String;

    /// `p99=2ms`, `p99.9=500us`.
    fn from_str(text: &str) -> Result<Objective, String> {
        let form = || format!("'{text}' is not of the form p99=2ms");
        let (name, bound) = text.split_once('=').ok_or_else(form)?;
        let unit = bound.find(|c: char| c.is_ascii_alphabetic() || c == 'µ').ok_or_else(form)?;
        let (number, unit) = bound.split_at(unit);
        let us_per_unit = match unit {
            "us" | "µs" => 1.0,
            "ms" => 1e3,
            "s" => 1e6,
            _ => return Err(format!("unknown unit '{unit}': use us, ms or s")),
        };
        let metric: Metric = name.parse()?;
        if !metric.is_latency() {
            return Err(format!("an objective bounds a latency, not {metric}"));
        }
        let us_max = number.parse::<f64>().map_err(|_| form())? * us_per_unit;
        Ok(Objective { metric, us_max })
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ≤ {}", self.metric, Micros(self.us_max))
    }
}

struct Micros(f64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", Duration::from_nanos((self.0 * 1e3).round() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::produce_plan;
    use crate::report::tests::{recorder, report};
    use proptest::prelude::*;

    /// Searches a broker that holds up to and including `limit`; the rates it tried.
    fn search(start: u64, precision: f64, limit: u64) -> (Option<u64>, Vec<u64>) {
        let mut search = Search::new(start, precision);
        let mut tried = Vec::new();
        while let Some(rate) = search.next() {
            tried.push(rate);
            assert!(tried.len() < 500, "{tried:?}");
            let probe = if rate <= limit { Probe::Holds } else { Probe::Fails("slow".to_owned()) };
            search.record(&probe);
        }
        (search.holds(), tried)
    }

    #[test]
    fn it_doubles_and_then_halves_the_gap() {
        let (holds, tried) = search(1_000, 0.1, 5_000);
        assert_eq!(tried, [1_000, 2_000, 4_000, 8_000, 8_000, 6_000, 6_000, 5_000, 5_500, 5_500]);
        assert_eq!(holds, Some(5_000));
    }

    #[test]
    fn one_failure_is_not_the_limit() {
        let mut search = Search::new(1_000, 0.1);
        search.record(&Probe::Fails("a bad moment".to_owned()));
        assert_eq!(search.next(), Some(1_000));
        search.record(&Probe::Holds);
        assert_eq!((search.holds(), search.next()), (Some(1_000), Some(2_000)));
    }

    #[test]
    fn what_the_generator_cannot_send_is_not_tried_twice() {
        let mut search = Search::new(1_000, 0.5);
        search.record(&Probe::Holds);
        search.record(&Probe::BeyondTheGenerator("late".to_owned()));
        assert_eq!(search.next(), Some(1_500));
    }

    #[test]
    fn a_broker_that_never_holds_is_told_so() {
        assert_eq!(search(4, 0.1, 0), (None, vec![4, 4, 2, 2, 1, 1]));
    }

    proptest! {
        #[test]
        fn the_answer_is_as_near_as_was_asked(
            start in 1_u64..10_000_000,
            limit in 1_u64..100_000_000,
            precision in 0.01_f64..0.5,
        ) {
            let (holds, _) = search(start, precision, limit);
            let holds = holds.unwrap();
            prop_assert!(holds <= limit);
            prop_assert!((limit - holds) as f64 <= (holds as f64 * precision).max(1.0));
        }
    }

    #[test]
    fn a_run_is_held_against_the_objectives_and_the_rate() {
        let run = report(&produce_plan(), &recorder(Duration::ZERO));
        let judge = |rate, objective: &str| judge(&run, rate, &[objective.parse().unwrap()]);
        assert_eq!(judge(1_000, "p99=1ms"), Probe::Holds);
        assert_eq!(judge(1_000, "p99=99us"), Probe::Fails("p99 was 100.031µs".to_owned()));
        assert_eq!(judge(2_000, "p99=1ms"), Probe::Fails("1010 records/s were reached".to_owned()));
    }

    #[test]
    fn objectives_are_read() {
        let objective: Objective = "p99.9=1.5ms".parse().unwrap();
        assert_eq!(objective, Objective { metric: Metric::P999, us_max: 1_500.0 });
        assert_eq!(objective.to_string(), "p99.9 ≤ 1.5ms");
        assert!("p99".parse::<Objective>().unwrap_err().contains("of the form"));
        assert!("p99=2parsecs".parse::<Objective>().unwrap_err().contains("use us, ms or s"));
        assert!("records/s=2ms".parse::<Objective>().unwrap_err().contains("bounds a latency"));
    }
}
