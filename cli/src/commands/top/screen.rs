//! An interval as text: a line of totals, a table of shards, one of latencies, one of data directories.

use super::view::{DataDir, Latency, Shard, View};
use crate::output::table;

pub fn text(view: &View) -> String {
    let sections = [summary(view), shards(&view.shards), latencies(view), data_dirs(&view.data_dirs)];
    sections.join("\n\n")
}

fn summary(view: &View) -> String {
    let version = view.version.as_deref().unwrap_or("-");
    let partitions = &view.partitions;
    let states = [
        ("online", partitions.online),
        ("fenced", partitions.fenced),
        ("quarantined", partitions.quarantined),
        ("offline", partitions.offline),
    ];
    let states = states.map(|(state, count)| format!("{} {state}", whole(count)));
    let stopped = match view.shards_stopped {
        Some(stopped) if stopped > 0.0 => format!(", {} stopped", whole(Some(stopped))),
        _ => String::new(),
    };
    let shards = view.shards.len();
    format!("corrente {version}: {shards} shards{stopped}; partitions: {}", states.join(", "))
}

const SHARDS: [&str; 11] = [
    "SHARD",
    "CONNS",
    "PRODUCE/S",
    "IN MB/S",
    "FETCH/S",
    "OUT MB/S",
    "REQUEST MEM",
    "RESPONSE MEM",
    "TAIL MIB",
    "LOG GB",
    "UPKEEP FAILURES",
];

fn shards(shards: &[Shard]) -> String {
    table(&SHARDS, shards.iter().map(shard_row))
}

fn shard_row(shard: &Shard) -> Vec<String> {
    vec![
        shard.shard.clone(),
        whole(shard.connections),
        whole(shard.produce_requests_per_s),
        scaled(shard.appended_bytes_per_s, 1e6),
        whole(shard.fetch_requests_per_s),
        scaled(shard.fetched_bytes_per_s, 1e6),
        used(shard.request_memory_bytes, shard.request_memory_capacity_bytes),
        used(shard.response_memory_bytes, shard.response_memory_capacity_bytes),
        scaled(shard.tail_ring_bytes, MIB),
        scaled(shard.log_bytes, 1e9),
        whole(shard.upkeep_failures),
    ]
}

fn latencies(view: &View) -> String {
    let row = |name: &str, latency: &Latency| {
        vec![name.to_owned(), whole(latency.per_s), whole(latency.p50_us), whole(latency.p99_us)]
    };
    let rows = [row("queue", &view.append_queue), row("acknowledge", &view.append_acknowledge)];
    table(&["APPENDS", "/S", "P50 US", "P99 US"], rows.into_iter())
}

fn data_dirs(dirs: &[DataDir]) -> String {
    let row = |dir: &DataDir| {
        let state = match (dir.failed, dir.below_reserve) {
            (Some(true), _) => "a write failed",
            (_, Some(true)) => "below its reserve",
            (Some(false), Some(false)) => "ok",
            _ => "-",
        };
        vec![
            dir.path.clone(),
            scaled(dir.available_bytes, 1e9),
            scaled(dir.size_bytes, 1e9),
            state.to_owned(),
        ]
    };
    table(&["DATA DIRECTORY", "FREE GB", "OF GB", "STATE"], dirs.iter().map(row))
}

const MIB: f64 = (1 << 20) as f64;

fn used(used: Option<f64>, capacity: Option<f64>) -> String {
    format!("{} of {} MiB", scaled(used, MIB), scaled(capacity, MIB))
}

fn scaled(value: Option<f64>, unit: f64) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{:.1}", value / unit))
}

fn whole(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"))
}

#[cfg(test)]
mod tests {
    use super::super::view::Partitions;
    use super::*;

    #[test]
    fn what_is_missing_is_a_dash() {
        let nothing = || Latency { per_s: None, p50_us: None, p99_us: None };
        let view = View {
            interval_s: 1.0,
            version: None,
            partitions: Partitions { online: Some(4.0), fenced: None, quarantined: None, offline: None },
            shards_stopped: None,
            shards: Vec::new(),
            append_queue: Latency { per_s: Some(1234.4), p50_us: Some(56.0), p99_us: None },
            append_acknowledge: nothing(),
            data_dirs: Vec::new(),
        };
        let text = text(&view);
        let first = "corrente -: 0 shards; partitions: 4 online, - fenced, - quarantined, - offline";
        assert_eq!(text.lines().next(), Some(first));
        let queue: Vec<&str> =
            text.lines().find(|line| line.contains("queue")).unwrap().split_whitespace().collect();
        assert_eq!(queue, ["queue", "1234", "56", "-"]);
    }
}
