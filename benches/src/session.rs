//! A whole measuring session, read back from the directory its script filled: `round-N/floor.json` and
//! `round-N/RUN.json` for each run of the load generator. Medians, ranges, and ratios to the session's own floors.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use corrente_loadgen::machine::Machine;
use serde::Deserialize;

use crate::figures::{Figures, three_digits};
use crate::floor::Site;

/// Floors and runs of all rounds.
#[derive(Debug)]
pub struct Session {
    machine: Site,
    rounds: usize,
    floors: Figures,
    runs: BTreeMap<String, Figures>,
    idle: Figures,
    warnings: BTreeSet<String>,
}

/// What `corrente-benches --bin floor --json` writes.
#[derive(Deserialize)]
struct FloorReport {
    machine: Site,
    figures: Figures,
}

/// The part of the load generator's report that is set beside the floors.
#[derive(Deserialize)]
struct RunReport {
    errors: u64,
    seconds: f64,
    records_per_s: f64,
    bytes_per_s: f64,
    latency_us: Quantiles,
    broker: Option<Broker>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    invalid: Vec<String>,
}

#[derive(Deserialize)]
struct Quantiles {
    p50: Option<f64>,
    p99: Option<f64>,
    p999: Option<f64>,
}

#[derive(Deserialize)]
struct Broker {
    cpu_s: f64,
    rss_bytes: f64,
}

/// What the kernel says of a broker with and without partitions that nobody uses.
#[derive(Deserialize)]
struct IdleReport {
    partitions: f64,
    without: Held,
    with: Held,
}

#[derive(Deserialize)]
struct Held {
    rss_kib: f64,
    files: f64,
}

/// One figure of two runs of ours.
struct Pair {
    figure: &'static str,
    run: &'static str,
    beside: &'static str,
}

const PAIRS: [Pair; 6] = [
    Pair { figure: "latency p99", run: "produce-beside-catch-up", beside: "produce-alone" },
    Pair { figure: "latency p99", run: "partitions-100", beside: "partitions-1" },
    Pair { figure: "latency p99", run: "partitions-1000", beside: "partitions-1" },
    Pair { figure: "latency p99", run: "partitions-10000", beside: "partitions-1" },
    Pair { figure: "broker CPU per record", run: "shards-2", beside: "shards-1" },
    Pair { figure: "payload", run: "ingest-1kib-kafka", beside: "ingest-1kib" },
];

/// A figure of ours and what bounds it: the sum of floors for a latency, one floor for a rate.
struct Bound {
    run: &'static str,
    figure: &'static str,
    floors: &'static [&'static str],
}

/// The table of comparisons; a rate is bounded by disk or loopback, whichever the bytes must pass.
const BOUNDS: [Bound; 14] = [
    Bound {
        run: "produce-256b-depth-1",
        figure: "latency p50",
        floors: &["tcp_ping_pong_256_b.p50", "disk_durable_write_4_kib.p50"],
    },
    Bound {
        run: "produce-256b-depth-1",
        figure: "latency p99",
        floors: &["tcp_ping_pong_256_b.p99", "disk_durable_write_4_kib.p99"],
    },
    Bound {
        run: "produce-256b-depth-1",
        figure: "latency p99.9",
        floors: &["tcp_ping_pong_256_b.p999", "disk_durable_write_4_kib.p999"],
    },
    Bound { run: "ingest-1kib", figure: "payload", floors: &["disk_write_1_mib_depth_8"] },
    Bound { run: "ingest-1kib", figure: "payload", floors: &["disk_durable_write_1_mib_depth_1"] },
    Bound { run: "ingest-1kib", figure: "payload", floors: &["tcp_stream"] },
    Bound { run: "ingest-1kib-kafka", figure: "payload", floors: &["disk_durable_write_1_mib_depth_1"] },
    Bound { run: "ingest-100b", figure: "payload", floors: &["disk_durable_write_1_mib_depth_1"] },
    Bound {
        run: "e2e-100mb",
        figure: "latency p50",
        floors: &["tcp_ping_pong_256_b.p50", "disk_durable_write_4_kib.p50"],
    },
    Bound {
        run: "e2e-100mb",
        figure: "latency p99.9",
        floors: &["tcp_ping_pong_256_b.p999", "disk_durable_write_4_kib.p999"],
    },
    Bound { run: "consume-tail", figure: "payload", floors: &["tcp_stream"] },
    Bound { run: "consume-catch-up", figure: "payload", floors: &["disk_read_1_mib_depth_1"] },
    Bound { run: "consume-catch-up", figure: "payload", floors: &["disk_read_1_mib_depth_8"] },
    Bound { run: "consume-catch-up", figure: "payload", floors: &["tcp_stream"] },
];

/// Columns of the table of runs, by the names of their figures.
const COLUMNS: [&str; 8] = [
    "records",
    "payload",
    "latency p50",
    "latency p99",
    "latency p99.9",
    "broker CPU",
    "broker CPU per record",
    "broker RSS",
];

impl Session {
    /// Reads every `round-*` below `directory`.
    pub fn read(directory: &Path) -> Result<Session> {
        let rounds = entries(directory, |name| name.starts_with("round-"))?;
        ensure!(!rounds.is_empty(), "no round-N below {}", directory.display());
        let (mut machine, mut floors, mut idle) = (None, Figures::default(), Figures::default());
        let (mut runs, mut warnings) = (BTreeMap::<String, Figures>::new(), BTreeSet::new());
        for file in rounds.iter().map(|round| entries(round, |name| name.ends_with(".json"))) {
            for file in file? {
                let name = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
                let json = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
                let unreadable = || format!("understand {}", file.display());
                if name == "floor" {
                    let floor: FloorReport = serde_json::from_slice(&json).with_context(unreadable)?;
                    floors.merge(&floor.figures);
                    machine = Some(floor.machine);
                } else if name == "idle" {
                    let report: IdleReport = serde_json::from_slice(&json).with_context(unreadable)?;
                    report.add_to(&mut idle);
                } else {
                    let run: RunReport = serde_json::from_slice(&json).with_context(unreadable)?;
                    run.add_to(runs.entry(name.clone()).or_default());
                    warnings.extend(
                        run.invalid
                            .into_iter()
                            .chain(run.warnings)
                            .map(|warning| format!("{name}: {warning}")),
                    );
                }
            }
        }
        let machine = machine.with_context(|| format!("no floor.json below {}", directory.display()))?;
        Ok(Session { machine, rounds: rounds.len(), floors, runs, idle, warnings })
    }

    fn table_of_runs(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "| run | {} | errors |", COLUMNS.join(" | "))?;
        writeln!(out, "|---|{}---|", "---|".repeat(COLUMNS.len()))?;
        for (name, figures) in &self.runs {
            write!(out, "| {name}")?;
            for column in COLUMNS {
                let cell = figures.get(column).map_or_else(|| "-".to_owned(), ToString::to_string);
                write!(out, " | {cell}")?;
            }
            let errors: f64 = figures.get("errors").map_or(0.0, |errors| errors.rounds.iter().sum());
            writeln!(out, " | {errors} |")?;
        }
        Ok(())
    }

    fn table_of_bounds(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "| ours | median | floor | median | ours / floor |")?;
        writeln!(out, "|---|---|---|---|---|")?;
        for Bound { run, figure, floors } in BOUNDS {
            let Some(ours) = self.runs.get(run).and_then(|figures| figures.get(figure)) else { continue };
            let (Some(median), Some(floor)) = (ours.median(), self.floor_of(floors, &ours.unit)) else {
                continue;
            };
            let [value, bound, ratio] = [median, floor, median / floor].map(three_digits);
            let unit = &ours.unit;
            writeln!(
                out,
                "| {run}, {figure} | {value} {unit} | {} | {bound} {unit} | {ratio} |",
                floors.join(" + ")
            )?;
        }
        Ok(())
    }

    fn table_of_pairs(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "| figure | of | median | beside | median | ratio |")?;
        writeln!(out, "|---|---|---|---|---|---|")?;
        for Pair { figure, run, beside } in PAIRS {
            let of = |run| self.runs.get(run).and_then(|figures: &Figures| figures.get(figure));
            let (Some(ours), Some(other)) = (of(run), of(beside)) else { continue };
            let (Some(value), Some(bound)) = (ours.median(), other.median()) else { continue };
            let [value, bound, ratio] = [value, bound, value / bound].map(three_digits);
            let unit = &ours.unit;
            writeln!(out, "| {figure} | {run} | {value} {unit} | {beside} | {bound} {unit} | {ratio} |")?;
        }
        Ok(())
    }

    /// The sum of the floors' medians, in `unit`; rates come in MB/s or GB/s.
    fn floor_of(&self, floors: &[&str], unit: &str) -> Option<f64> {
        let in_unit = |name: &&str| {
            let figure = self.floors.get(name)?;
            let factor = match (figure.unit.as_str(), unit) {
                (of, wanted) if of == wanted => 1.0,
                ("GB/s", "MB/s") => 1000.0,
                _ => return None,
            };
            figure.median().map(|median| median * factor)
        };
        floors.iter().map(in_unit).sum()
    }
}

impl IdleReport {
    fn add_to(&self, figures: &mut Figures) {
        let each = (self.with.rss_kib - self.without.rss_kib) / self.partitions;
        figures.add("memory of an idle partition", "KiB", each);
        figures.add(
            "open files of an idle partition",
            "",
            (self.with.files - self.without.files) / self.partitions,
        );
    }
}

impl RunReport {
    fn add_to(&self, figures: &mut Figures) {
        let megabytes_per_s = self.bytes_per_s / 1e6;
        figures.add("records", "/s", self.records_per_s);
        figures.add("payload", "MB/s", megabytes_per_s);
        figures.add("errors", "", self.errors as f64);
        let Quantiles { p50, p99, p999 } = self.latency_us;
        for (name, value) in [("latency p50", p50), ("latency p99", p99), ("latency p99.9", p999)] {
            value.into_iter().for_each(|value| figures.add(name, "us", value));
        }
        if let Some(broker) = &self.broker {
            let gigabytes = megabytes_per_s * self.seconds / 1000.0;
            if gigabytes > 0.0 {
                figures.add("broker CPU", "s/GB", broker.cpu_s / gigabytes);
            }
            let records = self.records_per_s * self.seconds;
            if records > 0.0 {
                figures.add("broker CPU per record", "us", broker.cpu_s * 1e6 / records);
            }
            figures.add("broker RSS", "MiB", broker.rss_bytes / (1024.0 * 1024.0));
        }
    }
}

/// Markdown, so that it can be published as it is.
impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Site { machine: Machine { cpu, cpus, memory_bytes, kernel, .. }, file_system } = &self.machine;
        let gibibytes = memory_bytes / (1 << 30);
        writeln!(f, "{cpus} × {cpu}, {gibibytes} GiB, kernel {kernel}, {file_system}.")?;
        writeln!(
            f,
            "Median (least..greatest) of {} rounds; broker on one CPU, generator on another, but for shards-2.\n",
            self.rounds
        )?;
        let mut tables = String::new();
        self.table_of_runs(&mut tables)?;
        tables.push('\n');
        self.table_of_bounds(&mut tables)?;
        tables.push('\n');
        self.table_of_pairs(&mut tables)?;
        for (name, figure) in self.idle.iter() {
            writeln!(tables, "\n{name}: {figure}")?;
        }
        writeln!(f, "{tables}\n| floor | |\n|---|---|")?;
        for (name, figure) in self.floors.iter() {
            writeln!(f, "| {name} | {figure} |")?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "\nWarning: {warning}"))
    }
}

/// Paths below `directory` whose names are wanted, in order.
fn entries(directory: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(&wanted) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: &str = r#"{
        "machine": { "cpu": "c", "cpus": 2, "cpu_governor": "g", "memory_bytes": 1073741824, "kernel": "k",
                     "clock_source": "t", "file_system": "f" },
        "figures": {
            "tcp_ping_pong_256_b.p50": { "unit": "us", "rounds": [10.0] },
            "disk_durable_write_4_kib.p50": { "unit": "us", "rounds": [30.0] },
            "tcp_stream": { "unit": "GB/s", "rounds": [2.0] }
        }
    }"#;

    fn run(bytes_per_s: f64, p50: &str, warnings: &str) -> String {
        format!(
            r#"{{ "errors": 0, "seconds": 2.0, "records_per_s": 5.0, "bytes_per_s": {bytes_per_s},
                 "latency_us": {{ "p50": {p50}, "p99": null, "p999": null }}, "unknown": 1,
                 "broker": {{ "cpu_s": 1.0, "rss_bytes": 1048576 }}, "warnings": [{warnings}] }}"#
        )
    }

    #[test]
    fn a_session_is_medians_and_ratios_to_its_own_floors() {
        let directory = tempfile::tempdir().expect("a directory");
        for (round, p50) in [("round-1", "80.0"), ("round-2", "100.0"), ("round-3", "60.0")] {
            let round = directory.path().join(round);
            fs::create_dir(&round).expect("a directory");
            fs::write(round.join("floor.json"), FLOOR).expect("a file");
            fs::write(round.join("produce-256b-depth-1.json"), run(1e6, p50, "")).expect("a file");
            fs::write(round.join("consume-tail.json"), run(5e8, "null", "\"late\"")).expect("a file");
            fs::write(round.join("shards-1.json"), run(1e6, "80.0", "")).expect("a file");
            fs::write(round.join("shards-2.json"), run(2e6, "80.0", "")).expect("a file");
            let idle = r#"{ "partitions": 100, "without": { "rss_kib": 1000, "files": 20 },
                            "with": { "rss_kib": 1400, "files": 20 } }"#;
            fs::write(round.join("idle.json"), idle).expect("a file");
        }
        let session = Session::read(directory.path()).expect("a session").to_string();
        for line in [
            "| produce-256b-depth-1, latency p50 | 80.0 us \
             | tcp_ping_pong_256_b.p50 + disk_durable_write_4_kib.p50 | 40.0 us | 2.00 |",
            "| consume-tail, payload | 500 MB/s | tcp_stream | 2000 MB/s | 0.25 |",
            "| broker CPU per record | shards-2 | 100000 us | shards-1 | 100000 us | 1.00 |",
            "memory of an idle partition: 4.00 (4.00..4.00) KiB",
            "Warning: consume-tail: late",
        ] {
            assert!(session.contains(line), "{line} is missing in:\n{session}");
        }
        assert!(session.contains("| 80.0 (60.0..100) us |"), "{session}");
        assert!(session.contains("| 1.00 (1.00..1.00) s/GB |"), "{session}");
    }

    #[test]
    fn an_unreadable_file_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let round = directory.path().join("round-1");
        fs::create_dir(&round).expect("a directory");
        fs::write(round.join("ingest-1kib.json"), "{").expect("a file");
        let error = format!("{:#}", Session::read(directory.path()).expect_err("half a file"));
        assert!(error.contains("ingest-1kib.json"), "{error}");
    }
}
