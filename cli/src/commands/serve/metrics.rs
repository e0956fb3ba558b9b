//! A node's report as OpenMetrics text.
//!
//! Pure. docs/OPERATIONS.md says what each metric means; a test holds the two together.

use std::fmt;
use std::time::Duration;

use corrente_broker::{DataDirReport, HistogramReport, NodeReport, ShardReport};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// The content type of [`text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The whole answer to a scrape.
pub fn text(report: NodeReport) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(report)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Scrape(NodeReport);

type Outcome = Result<(), fmt::Error>;

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder) -> Outcome {
        let mut page = Page { encoder };
        let Scrape(report) = self;
        page.build()?;
        page.node(report)?;
        page.shards(&report.shards)?;
        page.data_dirs(&report.data_dirs)
    }
}

/// Writes families of metrics one after the other.
struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Page<'_> {
    fn build(&mut self) -> Outcome {
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        self.gauges("corrente_build_info", "The version that runs", [(version, 1)])
    }

    fn node(&mut self, report: &NodeReport) -> Outcome {
        let shards = [("serving", report.shards.len()), ("stopped", report.stopped.len())];
        let shards = shards.map(|(state, count)| (vec![("state", state.to_owned())], as_u64(count)));
        self.gauges("corrente_shards", "Shards by whether they answer", shards)?;
        let counts = report.partitions();
        let partitions = [
            ("online", counts.online),
            ("fenced", counts.fenced),
            ("quarantined", counts.quarantined),
            ("offline", counts.offline),
        ];
        let partitions = partitions.map(|(state, count)| (vec![("state", state.to_owned())], count));
        self.gauges("corrente_partitions", "Partitions by what they can be used for", partitions)
    }

    fn shards(&mut self, shards: &[ShardReport]) -> Outcome {
        self.of_shards(shards, "corrente_log_bytes", "What logs take on disk", |shard| shard.log_bytes)?;
        self.of_shards(shards, "corrente_connections", "Connections of clients", |shard| {
            as_u64(shard.connections)
        })?;
        self.of_shards(shards, "corrente_request_memory_bytes", "Memory that requests hold", |shard| {
            as_u64(shard.requests.used)
        })?;
        self.of_shards(
            shards,
            "corrente_request_memory_capacity_bytes",
            "Memory that requests may hold",
            |shard| as_u64(shard.requests.capacity),
        )?;
        self.of_shards(shards, "corrente_response_memory_bytes", "Memory that answers hold", |shard| {
            as_u64(shard.responses.used)
        })?;
        self.of_shards(
            shards,
            "corrente_response_memory_capacity_bytes",
            "Memory that answers may hold",
            |shard| as_u64(shard.responses.capacity),
        )?;
        self.of_shards(
            shards,
            "corrente_tail_ring_bytes",
            "Memory from which tail reads are served",
            |shard| as_u64(shard.tail_ring_bytes),
        )?;
        self.counters(shards, "corrente_produce_requests", "Requests to append", |shard| {
            shard.meters.produce_requests
        })?;
        self.counters(shards, "corrente_appended_bytes", "Record batches that were appended", |shard| {
            shard.meters.appended_bytes
        })?;
        self.counters(shards, "corrente_fetch_requests", "Fetches that were answered", |shard| {
            shard.meters.fetch_requests
        })?;
        self.counters(shards, "corrente_fetched_bytes", "Record batches in their answers", |shard| {
            shard.meters.fetched_bytes
        })?;
        self.histogram(
            shards,
            "corrente_append_queue_seconds",
            "From a request to append to its batches in the logs' windows",
            |shard| &shard.meters.queued,
        )?;
        self.histogram(
            shards,
            "corrente_append_acknowledge_seconds",
            "From there until they were as durable as asked for",
            |shard| &shard.meters.acknowledged,
        )?;
        self.counters(shards, "corrente_compaction_read_bytes", "Segments before compaction", |shard| {
            shard.upkeep.compacted_bytes_before
        })?;
        self.counters(shards, "corrente_compaction_written_bytes", "What took their place", |shard| {
            shard.upkeep.compacted_bytes_after
        })?;
        self.counters(
            shards,
            "corrente_upkeep_failures",
            "Retention or compaction that ended early",
            |shard| shard.upkeep.failures,
        )
    }

    fn data_dirs(&mut self, dirs: &[DataDirReport]) -> Outcome {
        let known = |pick: fn(&DataDirReport) -> Option<u64>| {
            dirs.iter().filter_map(move |dir| Some((path(dir), pick(dir)?)))
        };
        self.gauges(
            "corrente_data_dir_size_bytes",
            "What the file system of a data directory holds at most",
            known(|dir| dir.space.map(|space| space.total_bytes)),
        )?;
        self.gauges(
            "corrente_data_dir_available_bytes",
            "What may still be written to it",
            known(|dir| dir.space.map(|space| space.available_bytes)),
        )?;
        self.gauges(
            "corrente_data_dir_reserve_bytes",
            "What appends leave alone of that",
            known(|dir| Some(dir.reserve_bytes)),
        )?;
        self.gauges(
            "corrente_data_dir_below_reserve",
            "Whether appends are refused for want of room",
            known(|dir| Some(u64::from(dir.is_below_reserve()))),
        )?;
        self.gauges(
            "corrente_data_dir_failed",
            "Whether a write to it has failed since the start",
            known(|dir| Some(u64::from(dir.failed.is_some()))),
        )
    }

    fn of_shards(
        &mut self,
        shards: &[ShardReport],
        name: &str,
        help: &str,
        pick: impl Fn(&ShardReport) -> u64,
    ) -> Outcome {
        self.gauges(name, help, shards.iter().map(|shard| (shard_label(shard), pick(shard))))
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Vec<(&'static str, String)>, u64)>,
    ) -> Outcome {
        let kind = ConstGauge::new(0_u64).metric_type();
        let mut family = self.encoder.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in values {
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// The text has `_total` behind the names of counters.
    fn counters(
        &mut self,
        shards: &[ShardReport],
        name: &str,
        help: &str,
        pick: impl Fn(&ShardReport) -> u64,
    ) -> Outcome {
        let kind = ConstCounter::new(0_u64).metric_type();
        let mut family = self.encoder.encode_descriptor(name, help, None, kind)?;
        for shard in shards {
            ConstCounter::new(pick(shard)).encode(family.encode_family(&shard_label(shard))?)?;
        }
        Ok(())
    }

    /// One for all shards: what they counted, added up.
    fn histogram(
        &mut self,
        shards: &[ShardReport],
        name: &str,
        help: &str,
        pick: impl Fn(&ShardReport) -> &HistogramReport,
    ) -> Outcome {
        let mut all = HistogramReport::default();
        shards.iter().for_each(|shard| all.add(pick(shard)));
        let bound = |bound: Option<Duration>| bound.map_or(f64::INFINITY, |bound| bound.as_secs_f64());
        let buckets: Vec<(f64, u64)> = all.buckets().map(|(upper, count)| (bound(upper), count)).collect();
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(all.sum().as_secs_f64(), all.count(), &buckets, None)
    }
}

fn shard_label(shard: &ShardReport) -> Vec<(&'static str, String)> {
    vec![("shard", shard.shard.0.to_string())]
}

fn path(dir: &DataDirReport) -> Vec<(&'static str, String)> {
    vec![("path", dir.path.display().to_string())]
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
