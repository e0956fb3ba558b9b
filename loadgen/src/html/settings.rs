//! The conditions of a run, each setting by its name. Every structure is taken apart whole, so that none is forgotten.

use std::time::Duration;

use super::units;
use crate::machine::Machine;
use crate::plan::{
    Arrivals, Begin, ConsumePlan, Extent, Fill, Keys, MixedPlan, Pace, Plan, ProducePlan, Protocol, Rate,
    Shape, Skew, Work,
};
use crate::report::{Broker, Report};

/// Names and values, in the order they are shown.
pub type Rows = Vec<(&'static str, String)>;

/// The whole plan.
pub fn plan(plan: &Plan) -> Rows {
    let Plan {
        brokers,
        protocol,
        topic,
        partitions,
        work,
        cpus,
        broker_pid,
        broker_config: _,
        slip_share_max,
    } = plan;
    let protocol = match protocol {
        Protocol::Native => "Corrente's own",
        Protocol::Kafka => "Kafka's",
    };
    let mut rows = vec![
        ("topic", topic.clone()),
        ("partitions if created", partitions.to_string()),
        ("brokers", brokers.join(", ")),
        ("protocol", protocol.to_owned()),
    ];
    rows.extend(match work {
        Work::Produce(plan) => produce(plan),
        Work::Consume(plan) => consume(plan),
        Work::Mixed(plan) => mixed(plan),
    });
    let cpus = cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    rows.push(("CPUs of the generator", if cpus.is_empty() { "any, one thread".to_owned() } else { cpus }));
    rows.extend(broker_pid.map(|pid| ("process of the broker", pid.to_string())));
    rows.push(("slip of the latency, at most", format!("{} %", units::number(slip_share_max * 100.0))));
    rows
}

fn produce(plan: &ProducePlan) -> Rows {
    let ProducePlan { pace, extent, warmup, shape, replay, in_flight_max, connections, durability, .. } =
        plan;
    let mut rows = self::pace(*pace);
    rows.extend([("measured", self::extent(*extent)), ("warm-up", seconds(*warmup))]);
    match replay {
        Some(profile) => rows.push(("records like those of", format!("topic {}", profile.topic))),
        None => rows.extend(self::shape(*shape)),
    }
    rows.extend([
        ("batches in flight, at most", units::count(*in_flight_max as u64)),
        ("connections", connections.to_string()),
        ("durability", durability.to_string()),
        ("read back afterwards", yes_or_no(plan.verify)),
        ("asked where the time went", yes_or_no(plan.stages)),
    ]);
    rows
}

fn yes_or_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

fn consume(plan: &ConsumePlan) -> Rows {
    let ConsumePlan { from, extent, consumers, fill, feed } = plan;
    let from = match from {
        Begin::Earliest => "the log start offset",
        Begin::Latest => "the log end offset",
    };
    let mut rows = vec![("consumers", consumers.to_string()), ("from", from.to_owned())];
    match feed {
        Some(feed) => rows.extend(produce(feed)),
        None => {
            let to_the_end = || "to the log end offset at the beginning".to_owned();
            rows.push(("measured", extent.map_or_else(to_the_end, self::extent)));
        }
    }
    rows.extend(fill.iter().flat_map(self::fill));
    rows
}

fn mixed(plan: &MixedPlan) -> Rows {
    let MixedPlan { feed, consumers, fill } = plan;
    let mut rows = vec![("consumers, again and again", consumers.to_string())];
    rows.extend(produce(feed));
    rows.extend(self::fill(fill));
    rows
}

fn fill(fill: &Fill) -> Rows {
    let Fill { records, shape } = fill;
    let mut rows = vec![("filled with, if created", format!("{} records", units::count(*records)))];
    rows.extend(self::shape(*shape));
    rows
}

fn pace(pace: Pace) -> Rows {
    let Pace::OpenLoop { rate, arrivals } = pace else {
        return vec![("pace", "closed loop".to_owned())];
    };
    let rate = match rate {
        Rate::Constant(rate) => format!("{} records/s", units::count(rate)),
        Rate::Ramp { from, to } => format!("{} to {} records/s", units::count(from), units::count(to)),
    };
    let arrivals = match arrivals {
        Arrivals::Constant => "at equal distances".to_owned(),
        Arrivals::Poisson => "independent (Poisson)".to_owned(),
        Arrivals::Burst(batches) => format!("{} batches at once", units::count(batches)),
    };
    vec![("pace", "open loop".to_owned()), ("rate", rate), ("arrivals", arrivals)]
}

fn extent(extent: Extent) -> String {
    match extent {
        Extent::Records(records) => format!("{} records", units::count(records)),
        Extent::Duration(duration) => seconds(duration),
    }
}

fn shape(shape: Shape) -> Rows {
    let Shape { record_size, key_size, batch_records, keys, compressible, compression, seed } = shape;
    let key =
        if key_size == 0 { "none".to_owned() } else { format!("{} bytes", units::count(key_size as u64)) };
    let mut rows = vec![("value", format!("{} bytes", units::count(record_size as u64))), ("key", key)];
    rows.extend(keys.map(|Keys { count, skew }| {
        let skew = match skew {
            Skew::Uniform => "all alike".to_owned(),
            Skew::Zipf(exponent) => format!("zipf {exponent}"),
        };
        ("keys", format!("{}, {skew}", units::count(count)))
    }));
    rows.extend([
        ("records in a batch", units::count(batch_records.into())),
        ("compressible", format!("{} %", units::number(compressible * 100.0))),
        ("compression", compression.to_string()),
        ("seed", seed.to_string()),
    ]);
    rows
}

fn seconds(duration: Duration) -> String {
    format!("{} s", units::number(duration.as_secs_f64()))
}

/// Where the generator ran, and what it took.
pub fn machine(report: &Report) -> Rows {
    let Machine { cpu, cpus, cpu_governor, memory_bytes, kernel, clock_source } = &report.machine;
    let mut rows = vec![
        ("CPU", cpu.clone()),
        ("CPUs", cpus.to_string()),
        ("CPU governor", cpu_governor.clone()),
        ("memory", units::memory(*memory_bytes)),
        ("kernel", kernel.clone()),
        ("clock source", clock_source.clone()),
    ];
    rows.extend(report.generator_cpu_s.map(|cpu_s| ("CPU used", format!("{cpu_s:.2} s"))));
    rows
}

/// How the broker was started, and what it took.
pub fn broker(broker: &Broker) -> Rows {
    let Broker {
        pid,
        is_embedded,
        command_line,
        cpu_s,
        cpu_s_per_gb,
        rss_bytes,
        rss_peak_bytes,
        file_systems,
    } = broker;
    let process = if *is_embedded { format!("{pid}, with the generator in it") } else { pid.to_string() };
    let mut rows = vec![("command line", command_line.join(" ")), ("process", process)];
    rows.push(("CPU used", format!("{cpu_s:.2} s")));
    rows.extend(cpu_s_per_gb.map(|cpu_s| ("CPU per GB of payload", format!("{cpu_s:.2} s"))));
    rows.push(("memory at the end", units::memory(*rss_bytes)));
    rows.push(("memory at its peak", units::memory(*rss_peak_bytes)));
    rows.push(("file systems", file_systems.join("; ")));
    rows
}

/// How the broker is configured, a line for each section.
pub fn broker_config(config: &serde_json::Value) -> Vec<(String, String)> {
    let sections = config.as_object().into_iter().flatten();
    sections.map(|(section, values)| (section.clone(), config_values(values))).collect()
}

fn config_values(values: &serde_json::Value) -> String {
    match values.as_object() {
        Some(values) => {
            let values = values.iter().map(|(key, value)| format!("{key} = {value}"));
            values.collect::<Vec<_>>().join(", ")
        }
        None => values.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::html::run::tests::example;

    #[test]
    fn a_plan_is_told_whole() {
        let mut report = example();
        report.plan.cpus = vec![2, 3];
        let Work::Produce(produce) = &mut report.plan.work else { unreachable!() };
        produce.shape.keys = Some(Keys { count: 1_000, skew: Skew::Zipf(0.99) });
        let text: Vec<String> =
            plan(&report.plan).into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
        for line in [
            "topic: bench",
            "rate: 1,000 records/s",
            "arrivals: at equal distances",
            "measured: 10,001 records",
            "warm-up: 1 s",
            "value: 1,024 bytes",
            "key: 16 bytes",
            "keys: 1,000, zipf 0.99",
            "compression: none",
            "protocol: Corrente's own",
            "durability: isr_flushed",
            "CPUs of the generator: 2, 3",
            "slip of the latency, at most: 5 %",
        ] {
            assert!(text.iter().any(|told| told == line), "{line} in {text:?}");
        }
    }

    #[test]
    fn a_configuration_is_a_line_for_each_section() {
        let config = serde_json::json!({
            "shards": { "count": 2, "idle": "spin" }, "memory": { "per_shard_bytes": "1 GiB" }
        });
        let rows = broker_config(&config);
        let line = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            rows,
            [line("memory", "per_shard_bytes = \"1 GiB\""), line("shards", "count = 2, idle = \"spin\"")]
        );
    }

    #[test]
    fn a_consumer_tells_what_it_fills_a_topic_with() {
        let Work::Produce(produce) = example().plan.work else { unreachable!() };
        let fill = Some(Fill { records: 5_000, shape: produce.shape });
        let rows =
            consume(&ConsumePlan { from: Begin::Earliest, extent: None, consumers: 2, fill, feed: None });
        assert!(rows.contains(&("filled with, if created", "5,000 records".to_owned())), "{rows:?}");
        assert!(
            rows.contains(&("measured", "to the log end offset at the beginning".to_owned())),
            "{rows:?}"
        );
    }
}
