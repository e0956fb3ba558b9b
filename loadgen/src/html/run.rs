//! One run: whether it is to be believed, its figures, how it went and under which conditions.

use super::markup::Element;
use super::{settings, svg, table, timeline, units};
use crate::plan::{Mode, Operation, Pace, Rate};
use crate::report::{Latency, Report};
use crate::stages::StageLatencies;
use crate::verify::Verification;

/// A run with its place among those of its page.
#[derive(Debug)]
pub struct Run<'a> {
    pub report: &'a Report,
    /// From 0; decides the colour.
    pub index: usize,
    /// What was done, how fast, and to which topic; of several with its number.
    pub name: String,
    is_only: bool,
}

const CLOSED_LOOP: &str = "There was no schedule: the next batch went when an answer made room. Such latencies leave \
                           out what a stall delays, and do not compare with those of a schedule.";

impl<'a> Run<'a> {
    /// The one run of a page.
    pub fn only(report: &'a Report) -> Run<'a> {
        Run { report, index: 0, name: name(report), is_only: true }
    }

    /// Several runs, numbered from 1.
    pub fn several(reports: &'a [Report]) -> Vec<Run<'a>> {
        let numbered = |(index, report): (usize, &'a Report)| {
            let name = format!("{}: {}", index + 1, name(report));
            Run { report, index, name, is_only: false }
        };
        reports.iter().enumerate().map(numbered).collect()
    }

    /// The heading of a part of the run, below the run's own where it has one.
    pub fn heading(&self) -> &'static str {
        if self.is_only { "h2" } else { "h3" }
    }

    /// The heading of the run among several.
    pub fn title(&self) -> Element {
        Element::new("h2").child(svg::sample(self.index)).text(&self.name)
    }

    /// Which generator it was, and when.
    pub fn origin(&self) -> Element {
        let Report { version, mode, ended_ms, .. } = self.report;
        Element::new("p")
            .class("origin")
            .text(format_args!("corrente bench {version}, {}, ended ", mode.name()))
            .child(Element::new("time").text(units::moment(*ended_ms)))
    }

    /// The verdict and the main figures.
    pub fn summary(&self) -> Vec<Element> {
        let closed = self.hides_stalls().then(|| notice("doubt", "Closed loop", &[CLOSED_LOOP]));
        let warnings = &self.report.warnings;
        let mut parts = vec![notice_of_verdict(self.report)];
        parts.extend(self.report.verification.as_ref().map(notice_of_verification));
        parts.extend((!warnings.is_empty()).then(|| notice("doubt", "Warning", warnings)));
        parts.extend(closed);
        parts.push(tiles(self.report));
        parts
    }

    /// How it went, what failed, and the conditions.
    pub fn particulars(&self) -> Vec<Element> {
        let errors = &self.report.first_errors;
        let first_errors = (!errors.is_empty()).then(|| {
            let list = Element::new("ol").children(errors.iter().map(|error| Element::new("li").text(error)));
            Element::new("section")
                .child(Element::new(self.heading()).text("First errors"))
                .child(list.class("errors"))
        });
        let titled = |title| Element::new("section").child(Element::new(self.heading()).text(title));
        let part = |title, rows| titled(title).child(table::settings(rows));
        let mut conditions = vec![
            part("Plan", settings::plan(&self.report.plan)),
            part("Machine of the generator", settings::machine(self.report)),
        ];
        conditions.extend(self.report.broker.as_ref().map(|broker| part("Broker", settings::broker(broker))));
        conditions.extend(self.report.plan.broker_config.as_ref().map(|config| {
            titled("Configuration of the broker").child(table::settings(settings::broker_config(config)))
        }));
        let stages = self.report.stages_us.as_ref().map(|stages| {
            Element::new("section")
                .child(Element::new(self.heading()).text("Where the time of a batch went"))
                .child(stage_figures(stages))
        });
        let mut parts: Vec<Element> =
            timeline::figure(self).into_iter().chain(stages).chain(first_errors).collect();
        parts.push(Element::new("div").class("conditions").children(conditions));
        parts
    }

    /// Whether it has latencies that no schedule accounts for.
    pub fn hides_stalls(&self) -> bool {
        self.report.mode == Mode::ClosedLoop && self.report.latency_us.max.is_some()
    }

    /// One word for its verdict.
    pub fn verdict(&self) -> &'static str {
        if self.report.is_valid() { "valid" } else { "INVALID" }
    }
}

/// What was measured: a consumer that is fed measures from end to end.
fn measured(report: &Report) -> &'static str {
    match (report.operation, report.plan.sending()) {
        (Operation::Produce, _) => "produce",
        (Operation::Mixed, _) => "mixed",
        (Operation::Consume, Some(_)) => "e2e",
        (Operation::Consume, None) => "consume",
    }
}

fn name(report: &Report) -> String {
    let pace = match report.plan.sending().map(|sending| sending.pace) {
        Some(Pace::OpenLoop { rate: Rate::Constant(rate), .. }) => format!(" {}/s", units::count(rate)),
        Some(Pace::OpenLoop { rate: Rate::Ramp { from, to }, .. }) => {
            format!(" {} to {}/s", units::count(from), units::count(to))
        }
        Some(Pace::ClosedLoop) => " in a closed loop".to_owned(),
        None => String::new(),
    };
    format!("{}{pace}, {}", measured(report), report.plan.topic)
}

fn notice_of_verdict(report: &Report) -> Element {
    if !report.is_valid() {
        return notice("bad", "INVALID", &report.invalid);
    }
    let why = match (report.slip_us.p999, report.latency_us.p999) {
        (Some(slip), Some(latency)) if latency > 0.0 => format!(
            "The generator's own lateness (slip) is {} at p99.9: {} % of the latency, of which the plan allows {} %.",
            units::latency(slip),
            units::number(slip / latency * 100.0),
            units::number(report.plan.slip_share_max * 100.0)
        ),
        _ => "Nothing speaks against these figures.".to_owned(),
    };
    notice("good", "Valid", &[why])
}

fn notice_of_verification(verification: &Verification) -> Element {
    match verification.fault() {
        Some(_) => notice("bad", "Verification failed", &[verification]),
        None => notice("good", "Verified", &[verification]),
    }
}

fn notice(class: &'static str, title: &str, sentences: &[impl std::fmt::Display]) -> Element {
    let sentences = sentences.iter().map(|sentence| Element::new("p").text(sentence));
    Element::new("div")
        .class(format_args!("notice {class}"))
        .child(Element::new("strong").text(title))
        .child(Element::new("div").children(sentences))
}

/// Each stage by itself: quantiles of several do not add up.
fn stage_figures(stages: &StageLatencies) -> Element {
    let rows = stages.named().map(|(name, latency)| {
        let values = latencies(latency).map(|(_, us)| us.map_or_else(|| "-".to_owned(), units::latency));
        [vec![name.to_owned()], values.to_vec()].concat()
    });
    table::figures(&["stage", "p50", "p99", "p99.9", "p99.99", "max"], rows)
}

fn tiles(report: &Report) -> Element {
    let tile = |(name, value): (&str, String)| {
        Element::new("div").child(Element::new("dt").text(name)).child(Element::new("dd").text(value))
    };
    Element::new("dl").class("tiles").children(figures(report).into_iter().map(tile))
}

/// The main figures, those that the run has.
fn figures(report: &Report) -> Vec<(&'static str, String)> {
    let mut figures = vec![
        ("records/s", units::number(report.records_per_s)),
        ("MB/s", units::number(report.bytes_per_s / 1e6)),
    ];
    if let Some(consumed) = &report.consumed {
        figures.push(("read records/s", units::number(consumed.records_per_s)));
        figures.push(("read MB/s", units::number(consumed.bytes_per_s / 1e6)));
        figures.push(("read to the end", units::count(consumed.passes)));
    }
    let latencies = latencies(&report.latency_us).into_iter();
    figures.extend(latencies.filter_map(|(name, us)| Some((name, units::latency(us?)))));
    figures.push(("records", units::count(report.records)));
    figures.push(("errors", units::count(report.errors)));
    figures.push(("seconds", units::number(report.seconds)));
    if report.plan.sending().is_some() {
        figures.push(("held batches", units::count(report.held_batches)));
    }
    figures.extend(report.slip_us.p999.map(|us| ("slip p99.9", units::latency(us))));
    figures.extend(report.slip_us.max.map(|us| ("slip max", units::latency(us))));
    figures
}

/// The quantiles that runs are compared by.
pub fn latencies(latency: &Latency) -> [(&'static str, Option<f64>); 5] {
    [
        ("p50", latency.p50),
        ("p99", latency.p99),
        ("p99.9", latency.p999),
        ("p99.99", latency.p9999),
        ("max", latency.max),
    ]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::plan::tests::produce_plan;
    use crate::plan::{Begin, ConsumePlan, Work};
    use crate::report::Second;
    use crate::report::tests::{recorder, report};
    use std::time::Duration;

    /// A valid run of a second at a constant rate.
    pub fn example() -> Report {
        let mut report = report(&produce_plan(), &recorder(Duration::ZERO));
        report.timeline = vec![second(0, 1_000)];
        report
    }

    /// A second with so many records of 100 bytes.
    pub fn second(s: u64, records: u64) -> Second {
        let latency_us =
            Latency { p50: Some(90.0), p99: Some(150.0), max: Some(2_000.0), ..Latency::default() };
        Second { s, records, bytes: records.saturating_mul(100), errors: 0, latency_us }
    }

    fn summary(report: &Report) -> String {
        Run::only(report).summary().iter().map(Element::to_string).collect()
    }

    #[test]
    fn a_run_is_named_after_what_it_did() {
        let mut report = example();
        assert_eq!(Run::only(&report).name, "produce 1,000/s, bench");
        let Work::Produce(mut feed) = report.plan.work.clone() else { unreachable!() };
        feed.pace = Pace::ClosedLoop;
        report.plan.work = Work::Produce(feed.clone());
        assert_eq!(Run::only(&report).name, "produce in a closed loop, bench");
        report.operation = Operation::Consume;
        let consume =
            ConsumePlan { from: Begin::Latest, extent: None, consumers: 1, fill: None, feed: Some(feed) };
        report.plan.work = Work::Consume(consume);
        assert_eq!(Run::several(&[report])[0].name, "1: e2e in a closed loop, bench");
    }

    #[test]
    fn the_verdict_stands_first() {
        let mut lenient = example();
        lenient.plan.slip_share_max = 0.5;
        (lenient.slip_us.p999, lenient.latency_us.p999) = (Some(30.0), Some(100.0));
        let text = summary(&lenient);
        assert!(text.starts_with("<div class=\"notice good\">"), "{text}");
        assert!(text.contains("at p99.9: 30 % of the latency, of which the plan allows 50 %"), "{text}");
        let mut invalid = example();
        invalid.invalid = vec!["the generator ran late".to_owned()];
        invalid.warnings = vec!["the broker did not keep up".to_owned()];
        let text = summary(&invalid);
        assert!(text.starts_with("<div class=\"notice bad\"><strong>INVALID</strong>"), "{text}");
        assert!(
            text.contains("the generator ran late") && text.contains("the broker did not keep up"),
            "{text}"
        );
    }

    #[test]
    fn what_was_verified_stands_beside_it() {
        let mut report = example();
        report.verification = Some(Verification { batches: 9, ..Verification::default() });
        assert!(summary(&report).contains("<strong>Verified</strong>"), "{}", summary(&report));
        report.verification = Some(Verification { batches: 9, lost: 2, ..Verification::default() });
        let text = summary(&report);
        assert!(text.contains("<strong>Verification failed</strong>") && text.contains("2 lost"), "{text}");
    }

    #[test]
    fn a_closed_loop_says_that_its_latencies_do_not_compare() {
        let mut report = example();
        assert!(!summary(&report).contains("do not compare"));
        report.mode = Mode::ClosedLoop;
        assert!(summary(&report).contains("do not compare"));
        report.latency_us = Latency::default();
        assert!(!summary(&report).contains("do not compare"));
    }
}
