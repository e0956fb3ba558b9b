//! What happened in each second: throughput, and below it the latencies.

use std::collections::BTreeMap;

use super::axis::Axis;
use super::markup::Element;
use super::run::Run;
use super::svg::{Chart, Plane, colour_of, legend, stroke};
use super::{table, units};
use crate::report::{Report, Second};

/// Seconds beyond are merged, as no screen shows them apart.
const POINTS_MAX: u64 = 600;

/// A run ends a moment after its last whole second, when the last answers are back. A rate over less would be chance.
const END_S_MIN: f64 = 0.5;

/// Neighbouring seconds as one point.
#[derive(Debug, Clone, PartialEq)]
struct Point {
    from_s: f64,
    to_s: f64,
    records: u64,
    bytes: u64,
    errors: u64,
    /// In microseconds; of several seconds the greatest.
    p50: Option<f64>,
    p99: Option<f64>,
    max: Option<f64>,
}

/// One of the latencies of a point.
type LatencyOf = fn(&Point) -> Option<f64>;

/// A timeline as it is drawn.
#[derive(Debug)]
struct Points {
    /// Seconds that each stands for.
    width_s: u64,
    /// In order, without a gap from the beginning to the last second in which something happened.
    points: Vec<Point>,
    /// Whether the last holds an end of less than [`END_S_MIN`].
    end_is_merged: bool,
}

/// The charts of one run, if anything happened in it.
pub fn figure(run: &Run<'_>) -> Option<Element> {
    let merged = Points::of(run.report);
    let points = &merged.points;
    if points.is_empty() {
        return None;
    }
    let latencies = points.iter().any(|point| point.max.is_some());
    let figure = Element::new("section")
        .child(Element::new(run.heading()).text("Timeline"))
        .child(throughput(run, points))
        .children(latencies.then(|| latency(points)))
        .children(merged.hint().map(|hint| Element::new("p").class("hint").text(hint)))
        .child(table::details("Timeline as a table", figures(points)));
    Some(figure)
}

impl Points {
    fn of(report: &Report) -> Points {
        let Some(last) = report.timeline.iter().map(|second| second.s).max() else {
            return Points { width_s: 1, points: Vec::new(), end_is_merged: false };
        };
        let width_s = (last / POINTS_MAX).saturating_add(1);
        let end_s = report.seconds.max(last as f64);
        let mut groups: BTreeMap<u64, Vec<&Second>> = BTreeMap::new();
        for second in &report.timeline {
            groups.entry(second.s / width_s).or_default().push(second);
        }
        let point = |index: u64| {
            let from_s = index as f64 * width_s as f64;
            let to_s = end_s.clamp(from_s, from_s + width_s as f64);
            Point::new(from_s, to_s, groups.get(&index).map_or(&[], Vec::as_slice))
        };
        let mut points: Vec<Point> = (0..=last / width_s).map(point).collect();
        assert!(points.len() as u64 <= POINTS_MAX, "{} points of {width_s} s", points.len());
        let end = points.pop_if(|end| end.from_s > 0.0 && end.to_s - end.from_s < END_S_MIN);
        if let (Some(end), Some(before)) = (&end, points.last_mut()) {
            before.take_over(end);
        }
        Points { width_s, points, end_is_merged: end.is_some() }
    }

    /// What is to be known about the points.
    fn hint(&self) -> Option<String> {
        let merged = (self.width_s > 1).then(|| {
            format!(
                "Each point stands for {} seconds: their records and errors are added up, and of each latency it is \
                 the greatest of these seconds.",
                self.width_s
            )
        });
        let end = self.end_is_merged.then(|| {
            format!("The end of the run, less than {END_S_MIN} s, is counted with the point before it.")
        });
        let sentences: Vec<String> = merged.into_iter().chain(end).collect();
        (!sentences.is_empty()).then(|| sentences.join(" "))
    }
}

impl Point {
    fn new(from_s: f64, to_s: f64, seconds: &[&Second]) -> Point {
        let sum = |count: fn(&Second) -> u64| {
            seconds.iter().map(|second| count(second)).fold(0_u64, u64::saturating_add)
        };
        let greatest = |latency: fn(&Second) -> Option<f64>| {
            seconds.iter().filter_map(|second| latency(second)).reduce(f64::max)
        };
        Point {
            from_s,
            to_s,
            records: sum(|second| second.records),
            bytes: sum(|second| second.bytes),
            errors: sum(|second| second.errors),
            p50: greatest(|second| second.latency_us.p50),
            p99: greatest(|second| second.latency_us.p99),
            max: greatest(|second| second.latency_us.max),
        }
    }

    /// Adds what came back in the moment behind it. The quantiles of so few records are left out, the greatest is not.
    fn take_over(&mut self, end: &Point) {
        self.to_s = end.to_s;
        self.records = self.records.saturating_add(end.records);
        self.bytes = self.bytes.saturating_add(end.bytes);
        self.errors = self.errors.saturating_add(end.errors);
        self.p50 = self.p50.or(end.p50);
        self.p99 = self.p99.or(end.p99);
        self.max = [self.max, end.max].into_iter().flatten().reduce(f64::max);
    }

    /// Records per second.
    fn rate(&self) -> f64 {
        let seconds = self.to_s - self.from_s;
        if seconds > 0.0 { self.records as f64 / seconds } else { 0.0 }
    }

    fn middle_s(&self) -> f64 {
        self.from_s.midpoint(self.to_s)
    }
}

fn throughput(run: &Run<'_>, points: &[Point]) -> Element {
    let rates = || points.iter().map(Point::rate);
    let failed = points.iter().filter(|point| point.errors > 0).count();
    let (least, most) = (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max));
    let chart = Chart {
        title: "Throughput over time",
        description: format!(
            "Between {} and {} records per second over {} seconds; {failed} points with errors.",
            units::number(least.min(most)),
            units::number(most),
            units::number(end_s(points))
        ),
        x: Axis::elapsed(end_s(points)),
        x_title: "seconds since the warm-up",
        y: Axis::rate(rates()),
        y_title: "records/s",
    };
    let drawing = chart.draw(|plane| {
        let outline = outline(plane, points);
        let begin = plane.x(0.0);
        let colour = colour_of(run.index);
        let mut curves = vec![
            stroke(
                format_args!("area {colour}"),
                format_args!("M{begin:.1} {:.1}V{outline}V{:.1}Z", plane.floor(), plane.floor()),
            ),
            stroke(format_args!("line {colour}"), format_args!("M{begin:.1} {outline}")),
        ];
        let failed = points.iter().filter(|point| point.errors > 0);
        curves.extend(failed.map(|point| {
            stroke("failed", format_args!("M{:.1} {:.1}v-12", plane.x(point.middle_s()), plane.floor()))
        }));
        curves
    });
    let legend = Element::new("p")
        .class("hint")
        .child(Element::new("span").class("failed").text("▮"))
        .text(" seconds in which records failed");
    Element::new("figure")
        .child(Element::new("figcaption").text("Throughput"))
        .child(drawing)
        .children((failed > 0).then_some(legend))
}

/// The tops of the seconds as steps, beginning with the height of the first.
fn outline(plane: &Plane<'_>, points: &[Point]) -> String {
    let steps = points.iter().map(|point| (plane.y(point.rate()), plane.x(point.to_s)));
    steps.map(|(y, to)| format!("{y:.1}H{to:.1}")).collect::<Vec<_>>().join("V")
}

fn latency(points: &[Point]) -> Element {
    let series: [(&str, LatencyOf); 3] =
        [("p50", |point| point.p50), ("p99", |point| point.p99), ("max", |point| point.max)];
    let values = series.iter().flat_map(|(_, latency)| points.iter().filter_map(latency));
    let greatest = points.iter().filter_map(|point| point.max).fold(0.0, f64::max);
    let chart = Chart {
        title: "Latency over time",
        description: format!(
            "The median, the 99th percentile and the greatest latency of each second; the greatest of all is {}.",
            units::latency(greatest)
        ),
        x: Axis::elapsed(end_s(points)),
        x_title: "seconds since the warm-up",
        y: Axis::latency(values),
        y_title: "latency",
    };
    let drawing = chart.draw(|plane| {
        let line = |(index, latency): (usize, LatencyOf)| {
            plane.line(index, points.iter().map(|point| Some((point.middle_s(), latency(point)?))))
        };
        series.iter().map(|(_, latency)| *latency).enumerate().map(line).collect()
    });
    Element::new("figure")
        .child(Element::new("figcaption").text("Latency"))
        .child(drawing)
        .child(legend(series.iter().map(|(name, _)| *name).enumerate()))
}

fn end_s(points: &[Point]) -> f64 {
    points.last().map_or(0.0, |point| point.to_s)
}

fn figures(points: &[Point]) -> Element {
    let rows = points.iter().map(|point| {
        vec![
            units::number(point.from_s),
            units::count(point.records),
            units::number(point.rate()),
            units::number(point.bytes as f64 / 1e6),
            units::count(point.errors),
            units::latency_or_none(point.p50),
            units::latency_or_none(point.p99),
            units::latency_or_none(point.max),
        ]
    });
    table::figures(&["second", "records", "records/s", "MB", "errors", "p50", "p99", "max"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::html::markup::tests::check_well_formed;
    use crate::html::run::tests::{example, second};
    use crate::report::Latency;

    fn points(seconds: Vec<Second>, end_s: f64) -> Points {
        Points::of(&Report { timeline: seconds, seconds: end_s, ..example() })
    }

    #[test]
    fn one_second_is_drawn() {
        let report = Report { timeline: vec![second(0, 70)], seconds: 0.25, ..example() };
        let text = figure(&Run::only(&report)).unwrap().to_string();
        check_well_formed(&text).unwrap();
        assert_eq!(Points::of(&report).points[0].rate(), 280.0);
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }

    #[test]
    fn seconds_in_which_nothing_happened_are_empty() {
        let merged = points(vec![second(1, 10), second(3, 20)], 4.0);
        let rates: Vec<f64> = merged.points.iter().map(Point::rate).collect();
        assert_eq!(rates, [0.0, 10.0, 0.0, 20.0]);
        assert_eq!(merged.points[2].p50, None);
        assert_eq!(merged.hint(), None);
    }

    #[test]
    fn an_end_of_a_moment_belongs_to_the_second_before() {
        let mut end = second(1, 3);
        end.latency_us =
            Latency { p50: Some(1.0), p99: Some(9_000.0), max: Some(9_000.0), ..Latency::default() };
        let merged = points(vec![second(0, 10), end.clone()], 1.25);
        let [point] = &merged.points[..] else { panic!("{merged:?}") };
        assert_eq!((point.records, point.to_s, point.rate()), (13, 1.25, 10.4));
        assert_eq!((point.p50, point.p99, point.max), (Some(90.0), Some(150.0), Some(9_000.0)));
        assert!(merged.hint().unwrap().contains("less than 0.5 s"));
        assert_eq!(points(vec![second(0, 10), end], 1.5).points[1].rate(), 6.0);
    }

    #[test]
    fn a_long_run_is_merged() {
        let mut seconds: Vec<Second> = (0..3_000).map(|s| second(s, 10)).collect();
        seconds[17].latency_us.max = Some(9_999.0);
        seconds[17].errors = 2;
        let merged = points(seconds, 3_000.0);
        assert_eq!((merged.width_s, merged.points.len()), (5, 600));
        assert!(merged.points.iter().all(|point| point.records == 50 && point.rate() == 10.0));
        assert_eq!((merged.points[3].max, merged.points[3].errors), (Some(9_999.0), 2));
        assert!(merged.hint().unwrap().contains("stands for 5 seconds"));
    }

    #[test]
    fn no_second_is_too_late() {
        let merged = points(vec![second(0, u64::MAX), second(1, u64::MAX), second(u64::MAX, 1)], 1.0);
        assert!(merged.points.len() as u64 <= POINTS_MAX);
        assert_eq!(merged.points[0].records, u64::MAX);
    }
}
