//! A report as a table for people.

use comfy_table::{Table, presets};

use crate::plan::{Mode, Operation};
use crate::report::{Latency, Report, Slip};
use crate::stages::StageLatencies;

/// The figures, and what is to be known about them.
pub fn table(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(vec![report.operation.name(), report.mode.name()]);
    for (name, value) in rows(report) {
        table.add_row(vec![name, value]);
    }
    table.to_string()
}

fn rows(report: &Report) -> Vec<(String, String)> {
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
    row("topic", report.plan.topic.clone());
    row("records", report.records.to_string());
    row("errors", report.errors.to_string());
    row("seconds", format!("{:.3}", report.seconds));
    row("records/s", format!("{:.0}", report.records_per_s));
    row("MB/s", format!("{:.1}", report.bytes_per_s / 1e6));
    if let Some(consumed) = &report.consumed {
        row("read records/s", format!("{:.0}", consumed.records_per_s));
        row("read MB/s", format!("{:.1}", consumed.bytes_per_s / 1e6));
        row("read to the end", format!("{} times", consumed.passes));
    }
    for (quantile, value) in latencies(&report.latency_us) {
        row(&format!("latency {quantile}"), format!("{value:.1} µs"));
    }
    for (stage, latency) in report.stages_us.iter().flat_map(StageLatencies::named) {
        if let (Some(p50), Some(p99), Some(p999)) = (latency.p50, latency.p99, latency.p999) {
            row(&format!("stage {stage}"), format!("p50 {p50:.1}, p99 {p99:.1}, p99.9 {p999:.1} µs"));
        }
    }
    for (quantile, value) in slips(&report.slip_us) {
        row(&format!("slip {quantile}"), format!("{value:.1} µs"));
    }
    if let Some(broker) = &report.broker {
        let per_gb = broker.cpu_s_per_gb.map_or_else(String::new, |s| format!(" ({s:.2} s per GB)"));
        row("broker cpu", format!("{:.2} s{per_gb}", broker.cpu_s));
        let (rss, peak) = (broker.rss_bytes >> 20, broker.rss_peak_bytes >> 20);
        let memory = if broker.is_embedded { "memory of both" } else { "broker memory" };
        row(memory, format!("{rss} MiB, peak {peak} MiB"));
    }
    if let Some(cpu_s) = report.generator_cpu_s {
        row("generator cpu", format!("{cpu_s:.2} s"));
    }
    if let Some(verification) = &report.verification {
        row("verified", verification.to_string());
    }
    if report.mode == Mode::ClosedLoop && report.operation == Operation::Produce {
        row("note", "closed loop: these latencies leave out what a schedule would have shown".to_owned());
    }
    for warning in &report.warnings {
        row("warning", warning.clone());
    }
    for reason in &report.invalid {
        row("INVALID", reason.clone());
    }
    rows
}

fn latencies(latency: &Latency) -> impl Iterator<Item = (&'static str, f64)> {
    let rows = [
        ("p50", latency.p50),
        ("p90", latency.p90),
        ("p99", latency.p99),
        ("p99.9", latency.p999),
        ("p99.99", latency.p9999),
        ("max", latency.max),
    ];
    rows.into_iter().filter_map(|(name, value)| Some((name, value?)))
}

fn slips(slip: &Slip) -> impl Iterator<Item = (&'static str, f64)> {
    let rows = [("p99", slip.p99), ("p99.9", slip.p999), ("max", slip.max)];
    rows.into_iter().filter_map(|(name, value)| Some((name, value?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::produce_plan;
    use crate::plan::{Pace, Work};
    use crate::report::tests::{recorder, report};
    use std::time::Duration;

    #[test]
    fn people_are_told_what_to_make_of_the_figures() {
        let late = report(&produce_plan(), &recorder(Duration::from_millis(5)));
        assert!(table(&late).contains("INVALID"), "{}", table(&late));
        let mut plan = produce_plan();
        let Work::Produce(produce) = &mut plan.work else { unreachable!() };
        produce.pace = Pace::ClosedLoop;
        let closed = report(&plan, &recorder(Duration::ZERO));
        assert!(table(&closed).contains("closed loop: these latencies"), "{}", table(&closed));
    }
}
