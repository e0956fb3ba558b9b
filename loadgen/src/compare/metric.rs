//! The figures that are compared, by the names that conditions and reports use.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::report::Report;

/// One figure of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "each is what its name says")]
pub enum Metric {
    P50,
    P90,
    P99,
    P999,
    P9999,
    Max,
    Mean,
    RecordsPerS,
    BytesPerS,
    BrokerCpuPerGb,
}

impl Metric {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Metric; 10] = [
        Metric::P50,
        Metric::P90,
        Metric::P99,
        Metric::P999,
        Metric::P9999,
        Metric::Max,
        Metric::Mean,
        Metric::RecordsPerS,
        Metric::BytesPerS,
        Metric::BrokerCpuPerGb,
    ];

    /// What a run found, if it measured that: microseconds, or a rate.
    pub fn of(self, report: &Report) -> Option<f64> {
        let latency = &report.latency_us;
        match self {
            Metric::P50 => latency.p50,
            Metric::P90 => latency.p90,
            Metric::P99 => latency.p99,
            Metric::P999 => latency.p999,
            Metric::P9999 => latency.p9999,
            Metric::Max => latency.max,
            Metric::Mean => latency.mean,
            Metric::RecordsPerS => Some(report.records_per_s),
            Metric::BytesPerS => Some(report.bytes_per_s),
            Metric::BrokerCpuPerGb => report.broker.as_ref().and_then(|broker| broker.cpu_s_per_gb),
        }
    }

    /// Whether more of it is what one wants.
    pub fn more_is_better(self) -> bool {
        matches!(self, Metric::RecordsPerS | Metric::BytesPerS)
    }

    /// Whether it is a time in microseconds.
    pub fn is_latency(self) -> bool {
        !matches!(self, Metric::RecordsPerS | Metric::BytesPerS | Metric::BrokerCpuPerGb)
    }

    fn name(self) -> &'static str {
        match self {
            Metric::P50 => "p50",
            Metric::P90 => "p90",
            Metric::P99 => "p99",
            Metric::P999 => "p99.9",
            Metric::P9999 => "p99.99",
            Metric::Max => "max",
            Metric::Mean => "mean",
            Metric::RecordsPerS => "records/s",
            Metric::BytesPerS => "bytes/s",
            Metric::BrokerCpuPerGb => "broker-cpu-s/GB",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Metric {
    type Err = String;

    fn from_str(text: &str) -> Result<Metric, String> {
        Metric::ALL.into_iter().find(|metric| metric.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Metric::ALL.iter().map(|metric| metric.name()).collect();
            format!("'{text}' is no figure of a run: use one of {}", names.join(", "))
        })
    }
}
