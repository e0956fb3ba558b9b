//! The page as a whole.

use super::markup::Element;
use super::run::{Run, latencies};
use super::{percentile_curve, table, units};
use crate::report::{Latency, Report};

/// Nothing is loaded and nothing is run, whatever stands in a report.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// A page that shows one run, or compares several; there is at least one.
pub fn page(reports: &[Report]) -> String {
    assert!(!reports.is_empty(), "a page shows at least one run");
    let (title, main) = match reports {
        [report] => one(&Run::only(report)),
        _ => several(&Run::several(reports)),
    };
    let head = Element::new("head")
        .child(Element::new("meta").with("charset", "utf-8"))
        .child(Element::new("meta").with("http-equiv", "Content-Security-Policy").with("content", POLICY))
        .child(
            Element::new("meta")
                .with("name", "viewport")
                .with("content", "width=device-width, initial-scale=1"),
        )
        .child(Element::new("title").text(format_args!("{title} – corrente bench")))
        .child(Element::new("style").raw(include_str!("style.css")));
    let page = Element::new("html").with("lang", "en").child(head).child(Element::new("body").child(main));
    format!("<!DOCTYPE html>\n{page}\n")
}

fn one(run: &Run<'_>) -> (String, Element) {
    let main = Element::new("main")
        .child(Element::new("header").child(Element::new("h1").text(&run.name)).child(run.origin()))
        .children(run.summary())
        .children(percentile_curve::figure(std::slice::from_ref(run)))
        .children(run.particulars());
    (run.name.clone(), main)
}

fn several(runs: &[Run<'_>]) -> (String, Element) {
    let title = format!("{} runs", runs.len());
    let hint = runs.iter().any(Run::hides_stalls).then(|| {
        Element::new("p").class("hint").text(
            "Latencies of a closed loop leave out what a stall delays: they do not compare with those of a schedule.",
        )
    });
    let comparison = Element::new("section")
        .class("runs")
        .child(Element::new("h2").text("Comparison"))
        .child(comparison(runs))
        .children(hint);
    let sections = runs.iter().map(|run| {
        Element::new("article")
            .child(run.title())
            .child(run.origin())
            .children(run.summary())
            .children(run.particulars())
    });
    let main = Element::new("main")
        .child(Element::new("header").child(Element::new("h1").text(&title)))
        .child(comparison)
        .children(percentile_curve::figure(runs))
        .children(sections);
    (title, main)
}

fn comparison(runs: &[Run<'_>]) -> Element {
    let mut header = vec!["run", "verdict", "records/s", "MB/s"];
    header.extend(latencies(&Latency::default()).map(|(name, _)| name));
    header.extend(["errors", "held batches"]);
    let rows = runs.iter().map(|run| {
        let report = run.report;
        let mut row = vec![
            run.name.clone(),
            run.verdict().to_owned(),
            units::number(report.records_per_s),
            units::number(report.bytes_per_s / 1e6),
        ];
        row.extend(latencies(&report.latency_us).map(|(_, us)| units::latency_or_none(us)));
        row.extend([units::count(report.errors), units::count(report.held_batches)]);
        row
    });
    table::figures(&header, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::html::markup::tests::check_well_formed;
    use crate::html::run::tests::{example, second};
    use crate::plan::Mode;

    fn well_formed(reports: &[Report]) -> String {
        let page = page(reports);
        if let Err(error) = check_well_formed(&page) {
            panic!("{error}: {page}");
        }
        assert!(!page.contains("NaN"), "{page}");
        page
    }

    #[test]
    fn a_page_needs_nothing_else() {
        let page = well_formed(&[example()]);
        for part in
            ["Valid", "Latency by percentile", "Timeline", "Plan", "Machine of the generator", "Broker"]
        {
            assert!(page.contains(part), "{part} in {page}");
        }
        for reference in ["://", "url(", "@import", "<script", "<link", "<img", "src="] {
            assert!(!page.contains(reference), "{reference} in {page}");
        }
    }

    #[test]
    fn whatever_a_report_holds_is_text() {
        const EVIL: &str = "</style><script>alert(\"1\")</script>";
        let mut report = example();
        let evil = || EVIL.to_owned();
        report.version = evil();
        report.plan.topic = evil();
        report.plan.brokers = vec![evil()];
        report.machine.cpu = evil();
        report.first_errors = vec![evil()];
        report.invalid = vec![evil()];
        report.warnings = vec![evil()];
        let broker = report.broker.as_mut().unwrap();
        broker.command_line = vec![evil()];
        broker.file_systems = vec![evil()];
        for reports in [vec![report.clone()], vec![report.clone(), report]] {
            let page = well_formed(&reports);
            assert!(!page.contains("<script"), "{page}");
            assert_eq!(page.matches("</style>").count(), 1);
            assert!(page.matches("&lt;/style&gt;&lt;script&gt;alert(&quot;1&quot;)").count() >= 9, "{page}");
        }
    }

    #[test]
    fn a_run_without_latencies_has_no_curve() {
        let mut report = example();
        report.latency_us = Latency::default();
        report.latency_curve.clear();
        report.timeline[0].latency_us = Latency::default();
        let page = well_formed(&[report]);
        assert!(!page.contains("Latency by percentile") && page.contains("Throughput"), "{page}");
        assert!(!page.contains("Latency over time"), "{page}");
    }

    #[test]
    fn a_run_in_which_nothing_happened_has_a_page() {
        let mut report = example();
        (report.records, report.seconds) = (0, 0.0);
        report.timeline.clear();
        report.latency_curve.clear();
        assert!(!well_formed(&[report]).contains("Timeline"));
    }

    #[test]
    fn a_long_run_is_no_large_page() {
        let mut report = example();
        report.timeline = (0..3_000).map(|s| second(s, 1_000)).collect();
        report.seconds = 3_000.0;
        let page = well_formed(&[report]);
        assert!(page.contains("Each point stands for 5 seconds"), "{page}");
        assert!(page.len() < 300_000, "{} bytes", page.len());
    }

    #[test]
    fn several_runs_are_compared_and_told_one_by_one() {
        let mut closed = example();
        closed.mode = Mode::ClosedLoop;
        closed.invalid = vec!["it was late".to_owned()];
        let page = well_formed(&[example(), closed]);
        assert_eq!(page.matches("<article>").count(), 2);
        assert_eq!(page.matches("Latency by percentile</h2>").count(), 1);
        for part in ["2 runs", "<td>INVALID</td>", "line s1", "class=\"legend\"", "they do not compare"] {
            assert!(page.contains(part), "{part} in {page}");
        }
    }
}
