//! What each shard is doing, as JSON for people who look for something: more than a metric says, and no promise of
//! names.

use corrente_broker::{HistogramReport, NodeReport, ShardReport};
use serde_json::{Value, json};

/// Every shard that answers, in its order.
pub fn shards(report: &NodeReport) -> Value {
    let stopped: Vec<u16> = report.stopped.iter().map(|shard| shard.0).collect();
    json!({ "shards": report.shards.iter().map(shard).collect::<Vec<_>>(), "stopped": stopped })
}

fn shard(report: &ShardReport) -> Value {
    let ShardReport { partitions, requests, responses, meters, upkeep, .. } = report;
    json!({
        "shard": report.shard.0,
        "connections": report.connections,
        "partitions": {
            "online": partitions.online,
            "fenced": partitions.fenced,
            "quarantined": partitions.quarantined,
            "offline": partitions.offline,
        },
        "log_bytes": report.log_bytes,
        "memory": {
            "requests": { "used": requests.used, "capacity": requests.capacity },
            "responses": { "used": responses.used, "capacity": responses.capacity },
            "tail_ring": report.tail_ring_bytes,
        },
        "produce": {
            "requests": meters.produce_requests,
            "bytes": meters.appended_bytes,
            "queue_us": quantiles(&meters.queued),
            "acknowledge_us": quantiles(&meters.acknowledged),
        },
        "fetch": { "requests": meters.fetch_requests, "bytes": meters.fetched_bytes },
        "upkeep": {
            "compacted_bytes_before": upkeep.compacted_bytes_before,
            "compacted_bytes_after": upkeep.compacted_bytes_after,
            "failures": upkeep.failures,
        },
    })
}

/// Since the start of the node, each rounded up to the bound of its bucket.
fn quantiles(histogram: &HistogramReport) -> Value {
    let at = |quantile| histogram.quantile(quantile).map(|bound| bound.as_secs_f64() * 1e6);
    json!({ "count": histogram.count(), "p50": at(0.5), "p99": at(0.99), "p999": at(0.999) })
}
