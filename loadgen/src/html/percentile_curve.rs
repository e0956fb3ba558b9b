//! Latency over percentiles, the axis stretched towards the greatest as HDR histograms are drawn.

use super::axis::{Axis, one_in};
use super::markup::Element;
use super::run::Run;
use super::svg::{Chart, legend};
use super::{table, units};

/// The curves of all runs on one chart, if any has one.
pub fn figure(runs: &[Run<'_>]) -> Option<Element> {
    let drawn: Vec<&Run<'_>> = runs.iter().filter(|run| !run.report.latency_curve.is_empty()).collect();
    if drawn.is_empty() {
        return None;
    }
    let chart = chart(&drawn);
    let curves = chart.draw(|plane| {
        drawn.iter().map(|run| plane.line(run.index, points(run).into_iter().map(Some))).collect()
    });
    let names = drawn.iter().map(|run| (run.index, run.name.as_str()));
    let figure = Element::new("section")
        .class("runs")
        .child(Element::new("h2").text("Latency by percentile"))
        .child(curves)
        .children((runs.len() > 1).then(|| legend(names)))
        .child(Element::new("p").class("hint").text(
            "At most how long so many per cent of the records took; each step to the right is ten times rarer.",
        ))
        .child(table::details("Latency by percentile as a table", figures(&drawn)));
    Some(figure)
}

fn chart(runs: &[&Run<'_>]) -> Chart {
    let all: Vec<(f64, f64)> = runs.iter().flat_map(|run| points(run)).collect();
    Chart {
        title: "Latency by percentile",
        description: runs.iter().map(|run| description(run)).collect::<Vec<_>>().join(" "),
        x: Axis::percentiles(all.iter().map(|(x, _)| *x).fold(1.0, f64::max)),
        x_title: "percentile",
        y: Axis::latency(all.iter().map(|(_, us)| *us)),
        y_title: "latency",
    }
}

fn description(run: &Run<'_>) -> String {
    let latency = &run.report.latency_us;
    format!(
        "{}: half of the records took at most {}, 99 % at most {}, the slowest {}.",
        run.name,
        units::latency_or_none(latency.p50),
        units::latency_or_none(latency.p99),
        units::latency_or_none(latency.max)
    )
}

/// On the axes of the chart. The greatest is as rare as one of all records, and no less than the point before it.
fn points(run: &Run<'_>) -> Vec<(f64, f64)> {
    let mut rarest = 1.0_f64;
    let records = run.report.records as f64;
    let place = |(quantile, us): &(f64, f64)| {
        let x = if *quantile < 1.0 { one_in(*quantile) } else { records };
        rarest = rarest.max(x);
        (rarest, *us)
    };
    run.report.latency_curve.iter().map(place).collect()
}

/// The points of the curves; with several runs each names its own.
fn figures(runs: &[&Run<'_>]) -> Element {
    let of_several = runs.len() > 1;
    let columns = if of_several { &["run", "percentile", "latency"][..] } else { &["percentile", "latency"] };
    let rows = runs.iter().flat_map(|run| {
        run.report.latency_curve.iter().map(move |(quantile, us)| {
            let name = of_several.then(|| run.name.clone());
            name.into_iter().chain([units::percentile(*quantile), units::latency(*us)]).collect()
        })
    });
    table::figures(columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::html::run::tests::example;

    #[test]
    fn the_greatest_latency_is_as_rare_as_one_record() {
        let mut report = example();
        report.records = 1_000;
        report.latency_curve = vec![(0.0, 90.0), (0.5, 100.0), (0.99, 150.0), (1.0, 900.0)];
        let places: Vec<f64> = points(&Run::only(&report)).iter().map(|(x, _)| x.round()).collect();
        assert_eq!(places, [1.0, 2.0, 100.0, 1_000.0]);
        report.records = 10;
        assert_eq!(points(&Run::only(&report))[3].0.round(), 100.0, "it never goes back");
    }

    #[test]
    fn only_runs_with_latencies_have_a_curve() {
        let (with, mut without) = (example(), example());
        without.latency_curve.clear();
        assert!(figure(&[Run::only(&without)]).is_none());
        let both = figure(&Run::several(&[without, with])).unwrap().to_string();
        assert!(both.contains("line s1") && !both.contains("line s0"), "{both}");
    }
}
