//! What a run found, as JSON for scripts and as a table for people.

use comfy_table::{Table, presets};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::broker_process::Usage;
use crate::plan::Plan;
use crate::recorder::Recorder;

/// The result of a run. Counts leave out the warm-up, except for `errors`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `produce` or `consume`.
    pub operation: &'static str,
    /// `open-loop` or `closed-loop`; latencies of the two do not compare.
    pub mode: &'static str,
    /// Records acknowledged or read.
    pub records: u64,
    /// Records refused or lost, warm-up included.
    pub errors: u64,
    /// From the end of the warm-up to the last acknowledgement or read.
    pub seconds: f64,
    /// `records` / `seconds`.
    pub records_per_s: f64,
    /// Payload bytes (keys and values, no framing) per second.
    pub bytes_per_s: f64,
    /// From the intended send time to the acknowledgement, one value a record; with a feed, to the reading. Null
    /// throughout for a consumer without a feed.
    pub latency_us: Latency,
    /// How late the generator itself was, one value a batch. Null throughout without a schedule.
    pub slip_us: Slip,
    /// The broker's use of this machine in the measured time; null where it runs elsewhere.
    pub broker: Option<Broker>,
    /// CPU seconds of the generator in the measured time.
    pub generator_cpu_s: Option<f64>,
    /// What makes these figures doubtful, in words.
    pub warnings: Vec<String>,
    /// The first few error texts.
    pub first_errors: Vec<String>,
    /// The plan that was run.
    pub plan: Plan,
}

/// Microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "each is the quantile it is named after")]
pub struct Latency {
    pub min: Option<f64>,
    pub mean: Option<f64>,
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p99: Option<f64>,
    pub p999: Option<f64>,
    pub p9999: Option<f64>,
    pub max: Option<f64>,
}

/// Microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "each is the quantile it is named after")]
pub struct Slip {
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub max: Option<f64>,
}

/// What the broker's process used.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Broker {
    /// Its process id.
    pub pid: u32,
    /// CPU seconds, user and system, in the measured time.
    pub cpu_s: f64,
    /// `cpu_s` per 10⁹ payload bytes.
    pub cpu_s_per_gb: Option<f64>,
    /// Resident memory at the end.
    pub rss_bytes: u64,
    /// The most resident memory since the process began.
    pub rss_peak_bytes: u64,
}

/// What the two processes used before and after the measured part.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usages {
    /// The broker: its process id and the two readings.
    pub broker: Option<(u32, Usage, Usage)>,
    /// The generator.
    pub generator: Option<(Usage, Usage)>,
}

/// Slip worth a warning: when the generator's 99th percentile is more than this part of the latency's.
const SLIP_SHARE_MAX: f64 = 0.05;

impl Report {
    pub(crate) fn new(plan: &Plan, operation: &'static str, recorder: &Recorder, usages: Usages) -> Report {
        let seconds = recorder.measured().as_secs_f64();
        let per_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let mode = plan.mode();
        let slip_us = if mode == "open-loop" { Slip::of(recorder.slip_ns()) } else { Slip::default() };
        let latency_us = Latency::of(recorder.latency_ns());
        let mut report = Report {
            operation,
            mode,
            records: recorder.records(),
            errors: recorder.errors(),
            seconds,
            records_per_s: per_second(recorder.records()),
            bytes_per_s: per_second(recorder.bytes()),
            latency_us,
            slip_us,
            broker: usages.broker.map(|reading| Broker::between(reading, recorder.bytes())),
            generator_cpu_s: usages.generator.map(|(before, after)| after.cpu_s - before.cpu_s),
            warnings: Vec::new(),
            first_errors: recorder.first_errors().to_vec(),
            plan: plan.clone(),
        };
        report.warnings = report.doubts();
        report
    }

    fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        if let (Some(slip), Some(latency)) = (self.slip_us.p99, self.latency_us.p99)
            && slip > latency * SLIP_SHARE_MAX
        {
            doubts.push(format!(
                "the generator ran late: slip p99 {slip:.0} µs is more than {:.0} % of latency p99 {latency:.0} µs",
                SLIP_SHARE_MAX * 100.0
            ));
        }
        if let Some(cpu_s) = self.generator_cpu_s
            && self.mode == "open-loop"
            && cpu_s > 0.95 * self.seconds * self.plan.threads() as f64
        {
            doubts.push(format!(
                "the generator used {cpu_s:.1} s of cpu in {:.1} s: it may be the bottleneck",
                self.seconds
            ));
        }
        doubts
    }

    /// One JSON object on several lines.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report holds nothing that JSON cannot")
    }

    /// A table for people.
    pub fn to_table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(vec![self.operation, self.mode]);
        table.add_row(vec!["topic".to_owned(), self.plan.topic.clone()]);
        table.add_row(vec!["records".to_owned(), self.records.to_string()]);
        table.add_row(vec!["errors".to_owned(), self.errors.to_string()]);
        table.add_row(vec!["seconds".to_owned(), format!("{:.3}", self.seconds)]);
        table.add_row(vec!["records/s".to_owned(), format!("{:.0}", self.records_per_s)]);
        table.add_row(vec!["MB/s".to_owned(), format!("{:.1}", self.bytes_per_s / 1e6)]);
        for (name, value) in self.latency_us.rows() {
            table.add_row(vec![format!("latency {name}"), format!("{value:.1} µs")]);
        }
        for (name, value) in self.slip_us.rows() {
            table.add_row(vec![format!("slip {name}"), format!("{value:.1} µs")]);
        }
        if let Some(broker) = &self.broker {
            let per_gb = broker.cpu_s_per_gb.map_or_else(String::new, |s| format!(" ({s:.2} s per GB)"));
            table.add_row(vec!["broker cpu".to_owned(), format!("{:.2} s{per_gb}", broker.cpu_s)]);
            table.add_row(vec![
                "broker memory".to_owned(),
                format!("{} MiB, peak {} MiB", broker.rss_bytes >> 20, broker.rss_peak_bytes >> 20),
            ]);
        }
        if let Some(cpu_s) = self.generator_cpu_s {
            table.add_row(vec!["generator cpu".to_owned(), format!("{cpu_s:.2} s")]);
        }
        if self.mode == "closed-loop" && self.operation == "produce" {
            table.add_row(vec![
                "note".to_owned(),
                "closed loop: these latencies leave out what a schedule would have shown".to_owned(),
            ]);
        }
        for warning in &self.warnings {
            table.add_row(vec!["warning".to_owned(), warning.clone()]);
        }
        table.to_string()
    }
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Latency {
        if histogram.is_empty() {
            return Latency::default();
        }
        let at = |quantile| Some(micros(histogram.value_at_quantile(quantile)));
        Latency {
            min: Some(micros(histogram.min())),
            mean: Some(histogram.mean() / 1e3),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: Some(micros(histogram.max())),
        }
    }

    fn rows(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let rows = [
            ("p50", self.p50),
            ("p90", self.p90),
            ("p99", self.p99),
            ("p99.9", self.p999),
            ("p99.99", self.p9999),
            ("max", self.max),
        ];
        rows.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

impl Slip {
    fn of(histogram: &Histogram<u64>) -> Slip {
        if histogram.is_empty() {
            return Slip::default();
        }
        Slip {
            p50: Some(micros(histogram.value_at_quantile(0.5))),
            p99: Some(micros(histogram.value_at_quantile(0.99))),
            max: Some(micros(histogram.max())),
        }
    }

    fn rows(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let rows = [("p99", self.p99), ("max", self.max)];
        rows.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

impl Broker {
    fn between((pid, before, after): (u32, Usage, Usage), bytes: u64) -> Broker {
        let cpu_s = after.cpu_s - before.cpu_s;
        Broker {
            pid,
            cpu_s,
            cpu_s_per_gb: (bytes > 0).then(|| cpu_s / (bytes as f64 / 1e9)),
            rss_bytes: after.rss_bytes,
            rss_peak_bytes: after.rss_peak_bytes,
        }
    }
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::produce_plan;
    use crate::recorder::Completion;
    use std::time::Duration;

    fn recorder(slip: Duration) -> Recorder {
        let mut recorder = Recorder::new(Duration::from_secs(1));
        for i in 0..100u64 {
            let due = Duration::from_millis(1_000 + i * 10);
            recorder.acknowledged(Completion {
                due,
                sent: due + slip,
                done: due + slip + Duration::from_micros(100),
                records: 10,
                bytes: 10_400,
            });
        }
        recorder
    }

    fn usages() -> Usages {
        let at = |cpu_s| Usage { cpu_s, rss_bytes: 100 << 20, rss_peak_bytes: 120 << 20 };
        Usages { broker: Some((42, at(1.0), at(1.5))), generator: Some((at(0.0), at(0.25))) }
    }

    #[test]
    fn json_has_what_scripts_rely_on() {
        let report = Report::new(&produce_plan(), "produce", &recorder(Duration::ZERO), usages());
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["mode"], "open-loop");
        assert_eq!(json["records"], 1_000);
        assert_eq!(json["errors"], 0);
        assert_eq!(json["broker"]["cpu_s"], 0.5);
        assert_eq!(json["broker"]["rss_bytes"], 100 << 20);
        for quantile in ["p50", "p90", "p99", "p999", "p9999", "max"] {
            let value = json["latency_us"][quantile].as_f64().unwrap();
            assert!((99.0..101.0).contains(&value), "{quantile} is {value}");
        }
        for key in ["p99", "max"] {
            assert!(json["slip_us"][key].is_f64());
        }
        let seconds = json["seconds"].as_f64().unwrap();
        assert!((json["records_per_s"].as_f64().unwrap() - 1_000.0 / seconds).abs() < 1e-6);
        assert!((json["bytes_per_s"].as_f64().unwrap() - 1_040_000.0 / seconds).abs() < 1e-3);
        assert_eq!(json["warnings"].as_array().unwrap().len(), 0);
    }

    #[test]
    fn a_late_generator_is_named() {
        let report =
            Report::new(&produce_plan(), "produce", &recorder(Duration::from_millis(5)), Usages::default());
        assert!(report.warnings[0].contains("the generator ran late"), "{:?}", report.warnings);
        assert!(report.to_table().contains("the generator ran late"));
        assert!(report.broker.is_none());
    }

    #[test]
    fn a_closed_loop_is_labelled_and_has_no_slip() {
        let mut plan = produce_plan();
        let crate::plan::Work::Produce(produce) = &mut plan.work else { unreachable!() };
        produce.pace = crate::plan::Pace::ClosedLoop;
        let report = Report::new(&plan, "produce", &recorder(Duration::ZERO), usages());
        assert_eq!((report.mode, report.slip_us.p99), ("closed-loop", None));
        assert!(report.to_table().contains("closed loop: these latencies"));
    }

    #[test]
    fn an_empty_run_divides_by_nothing() {
        let report = Report::new(&produce_plan(), "produce", &Recorder::new(Duration::ZERO), usages());
        assert_eq!((report.records_per_s, report.latency_us.p50), (0.0, None));
    }
}
