//! What a run found, as JSON for scripts; [`crate::table`] shows it to people.

use std::time::{SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::broker_process::Usage;
use crate::machine::Machine;
use crate::plan::{Mode, Operation, Plan};
use crate::recorder::Recorder;
use crate::stages::StageLatencies;
use crate::timeline::{Interval, Seconds};
use crate::verdict;
use crate::verify::Verification;

/// The result of a run. Counts leave out the warm-up, except for `errors`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The generator's version.
    pub version: String,
    /// When the run was over, in milliseconds since 1970.
    pub ended_ms: u64,
    /// What was measured.
    pub operation: Operation,
    /// Latencies of the two modes do not compare.
    pub mode: Mode,
    /// Why the figures are not to be believed; empty if they are.
    pub invalid: Vec<String>,
    /// What makes the figures doubtful, in words.
    pub warnings: Vec<String>,
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
    /// The same as a curve: pairs of a quantile and the latency in microseconds below which so many were, denser
    /// towards 1.
    pub latency_curve: Vec<(f64, f64)>,
    /// Where the time went, if the broker was asked.
    #[serde(default)]
    pub stages_us: Option<StageLatencies>,
    /// How late the generator itself was, one value a batch. Null throughout without a schedule.
    pub slip_us: Slip,
    /// Batches that were due and had to wait, as no more may be in flight.
    pub held_batches: u64,
    /// What happened in each second; seconds in which nothing did are absent.
    pub timeline: Vec<Second>,
    /// The broker's use of this machine in the measured time; null where it runs elsewhere.
    pub broker: Option<Broker>,
    /// CPU seconds of the generator in the measured time.
    pub generator_cpu_s: Option<f64>,
    /// What was read beside the sending; null in other runs.
    #[serde(default)]
    pub consumed: Option<Consumed>,
    /// Whether what was acknowledged is there; null where the plan does not verify.
    #[serde(default)]
    pub verification: Option<Verification>,
    /// The machine the generator ran on.
    pub machine: Machine,
    /// The first few error texts.
    pub first_errors: Vec<String>,
    /// The plan that was run.
    pub plan: Plan,
}

/// Microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the quantile it is named after")]
pub struct Slip {
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub p999: Option<f64>,
    pub max: Option<f64>,
}

/// One second of the measured part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Whole seconds from the end of the warm-up.
    pub s: u64,
    /// Records acknowledged or read.
    pub records: u64,
    /// Payload bytes of these.
    pub bytes: u64,
    /// Records that failed.
    pub errors: u64,
    /// Latency of the records that came back in this second.
    pub latency_us: Latency,
}

/// What all consumers beside a sender read, from the end of the warm-up to their last read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Consumed {
    /// Records.
    pub records: u64,
    /// Payload bytes of these.
    pub bytes: u64,
    /// Records per second.
    pub records_per_s: f64,
    /// Payload bytes per second.
    pub bytes_per_s: f64,
    /// How often one of them has read everything, the warm-up included.
    pub passes: u64,
}

/// What the broker's process used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Broker {
    /// Its process id.
    pub pid: u32,
    /// Whether that is the generator's own process, whose memory then is that of both.
    #[serde(default)]
    pub is_embedded: bool,
    /// How it was started: with which binary, settings and configuration file.
    pub command_line: Vec<String>,
    /// CPU seconds, user and system, in the measured time.
    pub cpu_s: f64,
    /// `cpu_s` per 10⁹ payload bytes, sent or read.
    pub cpu_s_per_gb: Option<f64>,
    /// Resident memory at the end.
    pub rss_bytes: u64,
    /// The most resident memory since the process began.
    pub rss_peak_bytes: u64,
    /// The file systems of its open files, and the devices below them.
    pub file_systems: Vec<String>,
}

/// What the two processes used before and after the measured part.
#[derive(Debug, Clone, Default)]
pub struct Usages {
    /// The broker.
    pub broker: Option<BrokerUsage>,
    /// The generator.
    pub generator: Option<(Usage, Usage)>,
}

/// The broker's process and its two readings.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields of `Broker` say what they are")]
pub struct BrokerUsage {
    pub pid: u32,
    pub command_line: Vec<String>,
    pub file_systems: Vec<String>,
    pub before: Usage,
    pub after: Usage,
}

impl Report {
    pub(crate) fn new(
        plan: &Plan,
        recorder: &Recorder,
        seconds: &Seconds,
        usages: Usages,
        consumed: Option<Consumed>,
    ) -> Report {
        let read_bytes = consumed.as_ref().map_or(0, |consumed| consumed.bytes);
        let mode = plan.mode();
        let slip_us = if mode == Mode::OpenLoop { Slip::of(recorder.slip_ns()) } else { Slip::default() };
        let mut report = Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ended_ms: now_ms(),
            operation: plan.operation(),
            mode,
            invalid: Vec::new(),
            warnings: Vec::new(),
            records: recorder.records(),
            errors: recorder.errors(),
            seconds: recorder.measured().as_secs_f64(),
            records_per_s: recorder.per_second(recorder.records()),
            bytes_per_s: recorder.per_second(recorder.bytes()),
            latency_us: Latency::of(recorder.latency_ns()),
            latency_curve: curve(recorder.latency_ns()),
            stages_us: None,
            slip_us,
            held_batches: recorder.held(),
            timeline: seconds.iter().map(|second| Second::of(&second)).collect(),
            broker: usages.broker.map(|usage| Broker::between(usage, recorder.bytes() + read_bytes)),
            generator_cpu_s: usages.generator.map(|(before, after)| after.cpu_s - before.cpu_s),
            consumed,
            verification: None,
            machine: Machine::describe(),
            first_errors: recorder.first_errors().to_vec(),
            plan: plan.clone(),
        };
        (report.invalid, report.warnings) = (verdict::invalid(&report), verdict::warnings(&report));
        report
    }

    /// Whether its figures are to be believed.
    pub fn is_valid(&self) -> bool {
        self.invalid.is_empty()
    }

    /// What is wrong with what was acknowledged, if anything is.
    pub fn fault(&self) -> Option<String> {
        self.verification.as_ref().and_then(Verification::fault)
    }

    /// One JSON object on several lines.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report holds nothing that JSON cannot")
    }
}

impl Latency {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Latency {
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
}

impl Slip {
    fn of(histogram: &Histogram<u64>) -> Slip {
        if histogram.is_empty() {
            return Slip::default();
        }
        Slip {
            p50: Some(micros(histogram.value_at_quantile(0.5))),
            p99: Some(micros(histogram.value_at_quantile(0.99))),
            p999: Some(micros(histogram.value_at_quantile(0.999))),
            max: Some(micros(histogram.max())),
        }
    }
}

impl Second {
    pub(crate) fn of(interval: &Interval) -> Second {
        Second {
            s: interval.index,
            records: interval.records,
            bytes: interval.bytes,
            errors: interval.errors,
            latency_us: Latency::of(&interval.latency_ns),
        }
    }
}

impl Consumed {
    pub(crate) fn of(read: &Recorder, passes: u64) -> Consumed {
        let (records, bytes) = (read.records(), read.bytes());
        let (records_per_s, bytes_per_s) = (read.per_second(records), read.per_second(bytes));
        Consumed { records, bytes, records_per_s, bytes_per_s, passes }
    }
}

impl Broker {
    fn between(usage: BrokerUsage, bytes: u64) -> Broker {
        let BrokerUsage { pid, command_line, file_systems, before, after } = usage;
        let cpu_s = after.cpu_s - before.cpu_s;
        Broker {
            pid,
            is_embedded: pid == std::process::id(),
            command_line,
            cpu_s,
            cpu_s_per_gb: (bytes > 0).then(|| cpu_s / (bytes as f64 / 1e9)),
            rss_bytes: after.rss_bytes,
            rss_peak_bytes: after.rss_peak_bytes,
            file_systems,
        }
    }
}

/// Points of the percentile curve: five for each halving of the distance to 1.
fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    const POINTS_PER_HALVING: u32 = 5;
    if histogram.is_empty() {
        return Vec::new();
    }
    histogram
        .iter_quantiles(POINTS_PER_HALVING)
        .map(|point| (point.quantile_iterated_to(), micros(point.value_iterated_to())))
        .collect()
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::plan::tests::produce_plan;
    use crate::recorder::Completion;
    use std::time::Duration;

    /// A thousand records in a hundred batches that each took 100 µs, and left `slip` late.
    pub fn recorder(slip: Duration) -> Recorder {
        let mut recorder = Recorder::new(Duration::from_secs(1));
        for i in 0..100u64 {
            let due = Duration::from_millis(1_000 + i * 10);
            recorder.acknowledged(Completion {
                due,
                possible: due,
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
        let broker = BrokerUsage {
            pid: 42,
            command_line: vec!["corrente".to_owned(), "serve".to_owned()],
            file_systems: vec!["ext4 on /dev/vda".to_owned()],
            before: at(1.0),
            after: at(1.5),
        };
        Usages { broker: Some(broker), generator: Some((at(0.0), at(0.25))) }
    }

    pub fn report(plan: &Plan, recorder: &Recorder) -> Report {
        Report::new(plan, recorder, &Seconds::default(), usages(), None)
    }

    #[test]
    fn json_has_what_scripts_rely_on() {
        let report = report(&produce_plan(), &recorder(Duration::ZERO));
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!((&json["operation"], &json["mode"]), (&"produce".into(), &"open-loop".into()));
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
        assert_eq!(json["invalid"].as_array().unwrap().len(), 0);
    }

    #[test]
    fn json_can_be_read_back() {
        let report = report(&produce_plan(), &recorder(Duration::ZERO));
        let again: Report = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!((again.latency_us, again.machine), (report.latency_us, report.machine));
        assert_eq!(serde_json::to_value(again.plan).unwrap(), serde_json::to_value(report.plan).unwrap());
    }

    #[test]
    fn a_closed_loop_is_labelled_and_has_no_slip() {
        let mut plan = produce_plan();
        let crate::plan::Work::Produce(produce) = &mut plan.work else { unreachable!() };
        produce.pace = crate::plan::Pace::ClosedLoop;
        let report = report(&plan, &recorder(Duration::ZERO));
        assert_eq!((report.mode, report.slip_us.p99), (Mode::ClosedLoop, None));
    }

    #[test]
    fn what_is_read_beside_the_sending_takes_its_part_of_the_brokers_cpu() {
        let mut read = Recorder::new(Duration::ZERO);
        read.consumed(Duration::from_secs(2), 1_000, 998_960_000);
        let consumed = Consumed::of(&read, 3);
        assert_eq!((consumed.records_per_s, consumed.passes), (500.0, 3));
        let recorder = recorder(Duration::ZERO);
        let report = Report::new(&produce_plan(), &recorder, &Seconds::default(), usages(), Some(consumed));
        // Half a second of CPU for a gigabyte, of which a megabyte was sent.
        assert_eq!(report.broker.unwrap().cpu_s_per_gb, Some(0.5));
    }

    #[test]
    fn the_curve_ends_at_the_greatest_latency() {
        let report = report(&produce_plan(), &recorder(Duration::ZERO));
        let (first, last) = (report.latency_curve[0], report.latency_curve[report.latency_curve.len() - 1]);
        assert!(first.0 < 0.5, "{first:?}");
        assert_eq!((last.0, Some(last.1)), (1.0, report.latency_us.max));
    }

    #[test]
    fn an_empty_run_divides_by_nothing() {
        let report = report(&produce_plan(), &Recorder::new(Duration::ZERO));
        assert_eq!((report.records_per_s, report.latency_us.p50), (0.0, None));
    }
}
