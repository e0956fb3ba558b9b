//! Two sets of runs beside each other: what changed, and whether that is more than chance.
//!
//! A single run says little on a machine that others share, and runs of one side after those of the other measure the
//! time of day. So a difference is called one only from three runs a side on, in turn, and only where the bootstrap
//! interval of the ratio of the medians leaves out "no change".

mod bootstrap;
mod condition;
mod metric;

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde::Serialize;

pub use bootstrap::Spread;
pub use condition::Condition;
pub use metric::Metric;

use self::bootstrap::ratio_interval;
use crate::report::Report;

/// What comparing two sides found.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// Every figure that both sides have.
    pub rows: Vec<Row>,
    /// Why no difference may be called one; empty if it may.
    pub undecidable: Vec<String>,
    /// In what else the two sides differ, runs that were left out, and what the runs themselves warn of.
    pub remarks: BTreeSet<String>,
}

/// One figure of both sides.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Which.
    pub metric: Metric,
    /// The old side.
    pub a: Spread,
    /// The new side.
    pub b: Spread,
    /// B's median less A's, as a part of A's.
    pub change: f64,
    /// Where `change` lies in 95 of 100 resamplings; from the least to the greatest.
    pub interval: (f64, f64),
    /// What may be said.
    pub finding: Finding,
}

/// What may be said of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// B does better.
    Better,
    /// B does worse.
    Worse,
    /// The runs do not show a difference.
    NoDifference,
    /// There are too few runs, or they were not made in turn.
    Undecidable,
}

/// Runs a side before a difference is called one.
const RUNS_MIN: usize = 3;
/// Runs of one side that may follow each other: `A B B A` is in turn, `A A A B B B` is not.
const SAME_SIDE_IN_A_ROW_MAX: usize = 2;

/// Compares the runs of `a` with those of `b`. Runs that are invalid or had errors are left out and named.
pub fn compare(a: &[Report], b: &[Report]) -> Result<Comparison> {
    let mut remarks = BTreeSet::new();
    let (a, b) = (usable(a, "A", &mut remarks), usable(b, "B", &mut remarks));
    ensure!(!a.is_empty() && !b.is_empty(), "no run to compare: {}", join(&remarks));
    remarks.extend(differences(a[0], b[0]));
    let undecidable = undecidable(&a, &b);
    let rows = Metric::ALL.iter().filter_map(|metric| row(*metric, &a, &b, undecidable.is_empty())).collect();
    Ok(Comparison { rows, undecidable, remarks })
}

impl Comparison {
    /// The conditions that hold.
    pub fn failing<'c>(&self, conditions: &'c [Condition]) -> Vec<&'c Condition> {
        let changed = |metric| self.rows.iter().find(|row| row.metric == metric).map(|row| row.change);
        conditions
            .iter()
            .filter(|condition| changed(condition.metric).is_some_and(|c| condition.holds(c)))
            .collect()
    }
}

fn usable<'r>(runs: &'r [Report], side: &str, remarks: &mut BTreeSet<String>) -> Vec<&'r Report> {
    let mut usable = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        let number = index + 1;
        remarks.extend(run.warnings.iter().map(|warning| format!("run {number} of {side}: {warning}")));
        let failed = (run.errors > 0).then(|| format!("{} records failed", run.errors));
        match run.invalid.first().cloned().or(failed).or_else(|| run.fault()) {
            Some(reason) => drop(remarks.insert(format!("run {number} of {side} is left out: {reason}"))),
            None => usable.push(run),
        }
    }
    usable
}

/// Settings, besides names and addresses, in which two runs differ; a comparison may be about exactly one of them.
fn differences(a: &Report, b: &Report) -> Vec<String> {
    let mut differences = Vec::new();
    let plans = [a, b].map(|run| {
        let mut plan = serde_json::to_value(&run.plan).expect("a plan is JSON");
        let fields = plan.as_object_mut().expect("a plan is an object");
        fields.retain(|name, _| !["brokers", "topic", "broker_pid"].contains(&name.as_str()));
        if let Some(config) = fields.get_mut("broker_config").and_then(|config| config.as_object_mut()) {
            config.retain(|section, _| !["listen", "node"].contains(&section.as_str()));
        }
        plan
    });
    differ("plan", &plans[0], &plans[1], &mut differences);
    let machines = [a, b].map(|run| serde_json::to_value(&run.machine).expect("a machine is JSON"));
    differ("machine", &machines[0], &machines[1], &mut differences);
    if a.version != b.version {
        differences.push(format!("version: {} in A, {} in B", a.version, b.version));
    }
    differences
}

fn differ(path: &str, a: &serde_json::Value, b: &serde_json::Value, differences: &mut Vec<String>) {
    match (a.as_object(), b.as_object()) {
        (Some(in_a), Some(in_b)) if in_a.keys().eq(in_b.keys()) => {
            in_a.iter()
                .for_each(|(name, value)| differ(&format!("{path}.{name}"), value, &in_b[name], differences));
        }
        _ if a != b => differences.push(format!("{path}: {a} in A, {b} in B")),
        _ => {}
    }
}

fn undecidable(a: &[&Report], b: &[&Report]) -> Vec<String> {
    let mut reasons = Vec::new();
    for (side, runs) in [("A", a), ("B", b)] {
        if runs.len() < RUNS_MIN {
            reasons.push(format!("{side} has {} of at least {RUNS_MIN} runs", runs.len()));
        }
    }
    if in_a_row(a, b) > SAME_SIDE_IN_A_ROW_MAX {
        reasons.push(format!(
            "more than {SAME_SIDE_IN_A_ROW_MAX} runs of one side follow each other: make them in turn"
        ));
    }
    reasons
}

/// The most runs of one side without one of the other between them.
fn in_a_row(a: &[&Report], b: &[&Report]) -> usize {
    let mut ends: Vec<(u64, char)> = a.iter().map(|run| (run.ended_ms, 'a')).collect();
    ends.extend(b.iter().map(|run| (run.ended_ms, 'b')));
    ends.sort_unstable();
    ends.chunk_by(|left, right| left.1 == right.1).map(<[_]>::len).max().unwrap_or(0)
}

fn row(metric: Metric, a: &[&Report], b: &[&Report], decidable: bool) -> Option<Row> {
    let values = |runs: &[&Report]| runs.iter().map(|run| metric.of(run)).collect::<Option<Vec<f64>>>();
    let (a, b) = (values(a)?, values(b)?);
    let (spread_a, spread_b) = (Spread::of(&a), Spread::of(&b));
    if spread_a.median <= 0.0 {
        return None;
    }
    let change = spread_b.median / spread_a.median - 1.0;
    let (low, high) = ratio_interval(&a, &b);
    let interval = (low - 1.0, high - 1.0);
    let finding = match (decidable, metric.more_is_better()) {
        (false, _) => Finding::Undecidable,
        (true, more) if interval.0 > 0.0 => {
            if more {
                Finding::Better
            } else {
                Finding::Worse
            }
        }
        (true, more) if interval.1 < 0.0 => {
            if more {
                Finding::Worse
            } else {
                Finding::Better
            }
        }
        (true, _) => Finding::NoDifference,
    };
    Some(Row { metric, a: spread_a, b: spread_b, change, interval, finding })
}

fn join(remarks: &BTreeSet<String>) -> String {
    remarks.iter().map(String::as_str).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::produce_plan;
    use crate::report::tests::{recorder, report};
    use std::time::Duration;

    /// Runs with these 99th percentiles, ended at these times.
    fn runs(p99: &[f64], ended_ms: &[u64]) -> Vec<Report> {
        let sample = report(&produce_plan(), &recorder(Duration::ZERO));
        let run = |(p99, ended_ms): (&f64, &u64)| {
            let mut run = sample.clone();
            run.latency_us.p99 = Some(*p99);
            run.ended_ms = *ended_ms;
            run
        };
        p99.iter().zip(ended_ms).map(run).collect()
    }

    fn p99(comparison: &Comparison) -> &Row {
        comparison.rows.iter().find(|row| row.metric == Metric::P99).unwrap()
    }

    #[test]
    fn a_difference_that_three_runs_in_turn_show_is_one() {
        let (a, b) = (runs(&[100.0, 104.0, 98.0], &[1, 3, 5]), runs(&[80.0, 83.0, 79.0], &[2, 4, 6]));
        let comparison = compare(&a, &b).unwrap();
        assert_eq!(comparison.undecidable, Vec::<String>::new());
        assert_eq!(p99(&comparison).finding, Finding::Better);
        assert!((p99(&comparison).change + 0.2).abs() < 1e-9);
        let back = compare(&b, &a).unwrap();
        assert_eq!(p99(&back).finding, Finding::Worse);
    }

    #[test]
    fn runs_that_overlap_show_nothing() {
        let (a, b) = (runs(&[100.0, 140.0, 98.0], &[1, 3, 5]), runs(&[101.0, 96.0, 120.0], &[2, 4, 6]));
        assert_eq!(p99(&compare(&a, &b).unwrap()).finding, Finding::NoDifference);
    }

    #[test]
    fn two_runs_or_one_side_after_the_other_decide_nothing() {
        let few = compare(&runs(&[100.0, 100.0], &[1, 3]), &runs(&[50.0, 50.0, 50.0], &[2, 4, 5])).unwrap();
        assert_eq!(few.undecidable, ["A has 2 of at least 3 runs"]);
        assert_eq!(p99(&few).finding, Finding::Undecidable);
        let apart = compare(&runs(&[100.0; 3], &[1, 2, 3]), &runs(&[50.0; 3], &[4, 5, 6])).unwrap();
        assert_eq!(apart.undecidable, ["more than 2 runs of one side follow each other: make them in turn"]);
        let turned = compare(&runs(&[100.0; 4], &[1, 4, 5, 8]), &runs(&[50.0; 4], &[2, 3, 6, 7])).unwrap();
        assert_eq!(p99(&turned).finding, Finding::Better);
    }

    #[test]
    fn invalid_and_failed_runs_are_left_out_and_named() {
        let mut a = runs(&[100.0, 1.0, 1.0], &[1, 3, 5]);
        a[1].invalid.push("the generator ran late".to_owned());
        a[2].errors = 7;
        let comparison = compare(&a, &runs(&[50.0], &[2])).unwrap();
        assert_eq!(p99(&comparison).a.runs, 1);
        let remarks = join(&comparison.remarks);
        assert!(remarks.contains("run 2 of A is left out: the generator ran late"), "{remarks}");
        assert!(remarks.contains("run 3 of A is left out: 7 records failed"), "{remarks}");
        assert!(compare(&a[1..], &a).unwrap_err().to_string().contains("no run to compare"));
    }

    #[test]
    fn settings_that_differ_are_named() {
        let (a, mut b) = (runs(&[1.0], &[1]), runs(&[1.0], &[2]));
        b[0].plan.topic = "another".to_owned();
        b[0].plan.partitions = 9;
        let comparison = compare(&a, &b).unwrap();
        assert_eq!(join(&comparison.remarks), "plan.partitions: 4 in A, 9 in B");

        let (mut a, mut b) = (runs(&[1.0], &[1]), runs(&[1.0], &[2]));
        let config =
            |idle, port| serde_json::json!({ "shards": { "idle": idle }, "listen": { "native": port } });
        a[0].plan.broker_config = Some(config("spin", 1));
        b[0].plan.broker_config = Some(config("park", 2));
        let comparison = compare(&a, &b).unwrap();
        let remarks = join(&comparison.remarks);
        assert_eq!(remarks, "plan.broker_config.shards.idle: \"spin\" in A, \"park\" in B");
    }

    #[test]
    fn a_figure_that_a_run_does_not_have_is_not_compared() {
        let mut reading = runs(&[1.0], &[1]);
        reading[0].latency_us.p99 = None;
        let comparison = compare(&reading, &runs(&[1.0], &[2])).unwrap();
        assert!(comparison.rows.iter().all(|row| row.metric != Metric::P99), "{comparison:?}");
    }

    #[test]
    fn conditions_are_held_against_medians() {
        let comparison = compare(&runs(&[100.0], &[1]), &runs(&[106.0], &[2])).unwrap();
        let conditions: Vec<Condition> =
            ["p99>+5%", "p99>+7%", "records/s<-1%"].map(|text| text.parse().unwrap()).into();
        let failing: Vec<String> =
            comparison.failing(&conditions).iter().map(|condition| condition.to_string()).collect();
        assert_eq!(failing, ["p99>+5%"]);
    }
}
