//! What happened between two scrapes. A figure that the broker does not tell, or whose counter began anew in between,
//! is none.

use serde::Serialize;

use super::open_metrics::Samples;
use super::scrape::Scrape;

/// A broker during one interval.
#[derive(Debug, Serialize, PartialEq)]
pub struct View {
    pub interval_s: f64,
    pub version: Option<String>,
    pub partitions: Partitions,
    pub shards_stopped: Option<f64>,
    pub shards: Vec<Shard>,
    /// From a request to append to its batches in the logs' windows, of all shards.
    pub append_queue: Latency,
    /// From there until they were as durable as asked for.
    pub append_acknowledge: Latency,
    pub data_dirs: Vec<DataDir>,
}

#[derive(Debug, Serialize, PartialEq)]
pub struct Partitions {
    pub online: Option<f64>,
    pub fenced: Option<f64>,
    pub quarantined: Option<f64>,
    pub offline: Option<f64>,
}

#[derive(Debug, Serialize, PartialEq)]
pub struct Shard {
    pub shard: String,
    pub connections: Option<f64>,
    pub produce_requests_per_s: Option<f64>,
    pub appended_bytes_per_s: Option<f64>,
    pub fetch_requests_per_s: Option<f64>,
    pub fetched_bytes_per_s: Option<f64>,
    pub request_memory_bytes: Option<f64>,
    pub request_memory_capacity_bytes: Option<f64>,
    pub response_memory_bytes: Option<f64>,
    pub response_memory_capacity_bytes: Option<f64>,
    pub tail_ring_bytes: Option<f64>,
    pub log_bytes: Option<f64>,
    pub compaction_read_bytes_per_s: Option<f64>,
    pub upkeep_failures: Option<f64>,
}

/// What was counted during the interval alone; quantiles are rounded up to the bounds of their buckets.
#[derive(Debug, Serialize, PartialEq)]
pub struct Latency {
    pub per_s: Option<f64>,
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
}

#[derive(Debug, Serialize, PartialEq)]
pub struct DataDir {
    pub path: String,
    pub size_bytes: Option<f64>,
    pub available_bytes: Option<f64>,
    pub below_reserve: Option<bool>,
    pub failed: Option<bool>,
}

impl View {
    pub fn between(before: &Scrape, after: &Scrape) -> View {
        let seconds = after.at.duration_since(before.at).as_secs_f64();
        let change = Change { before: &before.samples, after: &after.samples, seconds };
        let now = change.after;
        let partitions = |state| now.value("corrente_partitions", Some(("state", state)));
        View {
            interval_s: seconds,
            version: now.labels("corrente_build_info", "version").next().map(str::to_owned),
            partitions: Partitions {
                online: partitions("online"),
                fenced: partitions("fenced"),
                quarantined: partitions("quarantined"),
                offline: partitions("offline"),
            },
            shards_stopped: now.value("corrente_shards", Some(("state", "stopped"))),
            shards: now.labels("corrente_connections", "shard").map(|shard| change.shard(shard)).collect(),
            append_queue: change.latency("corrente_append_queue_seconds"),
            append_acknowledge: change.latency("corrente_append_acknowledge_seconds"),
            data_dirs: now
                .labels("corrente_data_dir_failed", "path")
                .map(|path| data_dir(now, path))
                .collect(),
        }
    }
}

/// Two scrapes and the time between them.
struct Change<'a> {
    before: &'a Samples,
    after: &'a Samples,
    seconds: f64,
}

impl Change<'_> {
    fn shard(&self, shard: &str) -> Shard {
        let label = Some(("shard", shard));
        let now = |name| self.after.value(name, label);
        let rate = |name| self.rate(self.before.value(name, label)?, self.after.value(name, label)?);
        Shard {
            shard: shard.to_owned(),
            connections: now("corrente_connections"),
            produce_requests_per_s: rate("corrente_produce_requests_total"),
            appended_bytes_per_s: rate("corrente_appended_bytes_total"),
            fetch_requests_per_s: rate("corrente_fetch_requests_total"),
            fetched_bytes_per_s: rate("corrente_fetched_bytes_total"),
            request_memory_bytes: now("corrente_request_memory_bytes"),
            request_memory_capacity_bytes: now("corrente_request_memory_capacity_bytes"),
            response_memory_bytes: now("corrente_response_memory_bytes"),
            response_memory_capacity_bytes: now("corrente_response_memory_capacity_bytes"),
            tail_ring_bytes: now("corrente_tail_ring_bytes"),
            log_bytes: now("corrente_log_bytes"),
            compaction_read_bytes_per_s: rate("corrente_compaction_read_bytes_total"),
            upkeep_failures: now("corrente_upkeep_failures_total"),
        }
    }

    fn latency(&self, histogram: &str) -> Latency {
        let (before, after) = (self.before.buckets(histogram), self.after.buckets(histogram));
        // A counter that fell, or bounds that changed, say that another process was asked the second time.
        let comparable = before.len() == after.len()
            && before.iter().zip(&after).all(|(before, after)| before.0 == after.0 && before.1 <= after.1);
        let counted: Vec<(f64, f64)> = match comparable {
            true => before.iter().zip(&after).map(|(before, after)| (after.0, after.1 - before.1)).collect(),
            false => Vec::new(),
        };
        let all = counted.last().map(|(_, count)| *count);
        Latency {
            per_s: all.and_then(|all| self.rate(0.0, all)),
            p50_us: quantile_us(&counted, 0.5),
            p99_us: quantile_us(&counted, 0.99),
        }
    }

    fn rate(&self, before: f64, after: f64) -> Option<f64> {
        (after >= before && self.seconds > 0.0).then(|| (after - before) / self.seconds)
    }
}

/// Of cumulative buckets; none if nothing was counted, or it lies beyond the last bound.
fn quantile_us(buckets: &[(f64, f64)], quantile: f64) -> Option<f64> {
    let (_, all) = buckets.last().filter(|(_, all)| *all > 0.0)?;
    let (bound, _) = buckets.iter().find(|(_, count)| *count >= quantile * all)?;
    bound.is_finite().then_some(bound * 1e6)
}

fn data_dir(now: &Samples, path: &str) -> DataDir {
    let value = |name| now.value(name, Some(("path", path)));
    DataDir {
        path: path.to_owned(),
        size_bytes: value("corrente_data_dir_size_bytes"),
        available_bytes: value("corrente_data_dir_available_bytes"),
        below_reserve: value("corrente_data_dir_below_reserve").map(|below| below != 0.0),
        failed: value("corrente_data_dir_failed").map(|failed| failed != 0.0),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn view(before: &str, after: &str) -> View {
        let at = Instant::now();
        let samples = |text: &str| Samples::parse(&format!("{text}\n# EOF")).unwrap();
        let before = Scrape { samples: samples(before), at };
        View::between(&before, &Scrape { samples: samples(after), at: at + Duration::from_secs(2) })
    }

    #[test]
    fn counters_become_rates_and_histograms_what_was_counted_between() {
        let before = "corrente_connections{shard=\"0\"} 1\ncorrente_appended_bytes_total{shard=\"0\"} 1000\n\
                      corrente_append_queue_seconds_bucket{le=\"0.001\"} 1000\n\
                      corrente_append_queue_seconds_bucket{le=\"0.002\"} 1000\n\
                      corrente_append_queue_seconds_bucket{le=\"+Inf\"} 1000";
        let after = "corrente_connections{shard=\"0\"} 3\ncorrente_appended_bytes_total{shard=\"0\"} 3000\n\
                     corrente_append_queue_seconds_bucket{le=\"0.001\"} 1001\n\
                     corrente_append_queue_seconds_bucket{le=\"0.002\"} 1008\n\
                     corrente_append_queue_seconds_bucket{le=\"+Inf\"} 1010";
        let view = view(before, after);
        assert_eq!(view.shards.len(), 1);
        assert_eq!(view.shards[0].connections, Some(3.0));
        assert_eq!(view.shards[0].appended_bytes_per_s, Some(1_000.0));
        let queue = Latency { per_s: Some(5.0), p50_us: Some(2_000.0), p99_us: None };
        assert_eq!(view.append_queue, queue);
    }

    #[test]
    fn what_is_not_told_or_began_anew_is_none() {
        let before = "corrente_fetch_requests_total{shard=\"0\"} 9\n\
                      corrente_append_acknowledge_seconds_bucket{le=\"+Inf\"} 9";
        let after = "corrente_connections{shard=\"0\"} 1\ncorrente_fetch_requests_total{shard=\"0\"} 1\n\
                     corrente_append_acknowledge_seconds_bucket{le=\"+Inf\"} 1";
        let view = view(before, after);
        assert_eq!(view.shards[0].fetch_requests_per_s, None);
        assert_eq!(view.shards[0].produce_requests_per_s, None);
        assert_eq!(view.append_acknowledge, Latency { per_s: None, p50_us: None, p99_us: None });
        assert_eq!((view.version, view.shards_stopped), (None, None));
        assert!(view.data_dirs.is_empty());
    }
}
