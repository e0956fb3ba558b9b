//! `corrente bench`: plans a run of the load generator, shows how far it is, prints what it found.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use corrente_client::Durability;
use corrente_loadgen::Live;
use corrente_loadgen::plan::{Begin, ConsumePlan, Extent, Fill, Pace, Plan, ProducePlan, Shape, Work};
use corrente_loadgen::report::Report;

use crate::args::Global;
use crate::output::Output;
use crate::progress::Progress;
use crate::units::{CpuList, parse_bytes, parse_count, parse_cpus, parse_duration};

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Send record batches on a schedule and measure the time to their acknowledgement.
    ///
    /// Latency counts from the moment the schedule intended, not from the sending: a broker that stalls is charged for
    /// every record it delayed. Batches are prepared beforehand, a ring of up to 64 different ones with random,
    /// incompressible values, and sent again and again.
    Produce(ProduceArgs),
    /// Read records as fast as they come, or measure the way from end to end.
    ///
    /// A topic that does not exist is created and filled first, with --records records; that is not measured. With
    /// --rate, records are sent at that rate meanwhile, and latency is from the moment the schedule intended to the
    /// reading.
    Consume(ConsumeArgs),
}

/// What both kinds of run understand.
#[derive(Debug, Args)]
struct Common {
    /// Measure so many records.
    #[arg(long, value_name = "N", value_parser = parse_count, conflicts_with = "duration")]
    records: Option<u64>,
    /// Measure so long, for example 30s.
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Bytes of each value.
    #[arg(long, value_name = "B", value_parser = parse_bytes, default_value = "1024")]
    record_size: usize,
    /// Bytes of each key; 0 is the null key.
    #[arg(long, value_name = "B", value_parser = parse_bytes, default_value = "0")]
    key_size: usize,
    /// Records in each record batch.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    batch_records: u32,
    /// The topic; created if it is missing. Default: a new one named bench- and a random number
    #[arg(long, value_name = "T")]
    topic: Option<String>,
    /// Partitions of a topic that is created.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
    /// Keep the generator on these CPUs, with a thread for each; default: one thread, anywhere.
    #[arg(long, value_name = "LIST", value_parser = parse_cpus, default_value = None)]
    cpus: Option<CpuList>,
    /// Also write the report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The broker's process, where the owner of its port is not to be looked up.
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,
    /// The seed of the payload.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
pub struct ProduceArgs {
    #[command(flatten)]
    common: Common,
    /// Records per second, sent on time whether or not the broker keeps up. Default: 10000
    #[arg(long, value_name = "R", value_parser = parse_count, conflicts_with = "closed_loop")]
    rate: Option<u64>,
    /// Send as fast as acknowledgements make room instead; such latencies hide what a stall delays.
    #[arg(long)]
    closed_loop: bool,
    /// Batches in flight at most, over all connections. Default: 1 in a closed loop, 4096 else
    #[arg(long, value_name = "N")]
    in_flight: Option<usize>,
    /// Clients, each with connections of its own.
    #[arg(long, value_name = "N", default_value_t = 1)]
    connections: usize,
    /// Leave so long at the start out of the figures.
    #[arg(long, value_name = "D", value_parser = parse_duration, default_value = "1s")]
    warmup: Duration,
    /// What an acknowledgement promises: received, leader_flushed, replicated or isr_flushed.
    #[arg(long, value_name = "LEVEL", value_parser = str::parse::<Durability>, default_value = "isr_flushed")]
    durability: Durability,
}

#[derive(Debug, Args)]
pub struct ConsumeArgs {
    #[command(flatten)]
    common: Common,
    /// Where to begin: earliest reads what is there, latest only what arrives meanwhile.
    #[arg(long, value_name = "earliest|latest", default_value = "earliest", value_parser = parse_begin)]
    from: Begin,
    /// Independent consumers, each reading everything.
    #[arg(long, value_name = "N", default_value_t = 1)]
    consumers: usize,
    /// Send so many records per second meanwhile, and measure the latency from end to end.
    #[arg(long, value_name = "R", value_parser = parse_count, conflicts_with_all = ["closed_loop", "from"])]
    rate: Option<u64>,
    /// Read as fast as records come; what happens without --rate.
    #[arg(long)]
    closed_loop: bool,
    /// With --rate: leave so long at the start out of the figures.
    #[arg(long, value_name = "D", value_parser = parse_duration, default_value = "1s")]
    warmup: Duration,
}

/// What an open loop runs at unless told otherwise.
const DEFAULT_RATE: u64 = 10_000;
/// Batches an open loop may have in flight: far above any healthy depth, yet bounded.
const OPEN_LOOP_IN_FLIGHT: usize = 4096;
/// How long a run is if nothing is said.
const DEFAULT_DURATION: Duration = Duration::from_secs(10);
/// Records a new topic is filled with for a consumer that was not told a number.
const DEFAULT_FILL: u64 = 1_000_000;

pub fn run(global: &Global, command: BenchCommand) -> Result<ExitCode> {
    let (common, work) = match command {
        BenchCommand::Produce(args) => {
            let work = Work::Produce(args.plan());
            (args.common, work)
        }
        BenchCommand::Consume(args) => {
            let work = Work::Consume(args.plan());
            (args.common, work)
        }
    };
    let plan = common.plan(global, work);
    let report = run_plan(&plan)?;
    print(global.output, &report)?;
    if let Some(path) = &common.json {
        fs::write(path, report.to_json()).with_context(|| format!("writing {}", path.display()))?;
    }
    for error in &report.first_errors {
        eprintln!("failed: {}", crate::output::one_line(error));
    }
    if report.errors > 0 {
        bail!("{} records failed", report.errors);
    }
    Ok(ExitCode::SUCCESS)
}

impl Common {
    fn plan(&self, global: &Global, work: Work) -> Plan {
        let topic = self.topic.clone().unwrap_or_else(|| {
            let name = format!("bench-{:08x}", fastrand::u32(..));
            eprintln!("topic {name}");
            name
        });
        Plan {
            brokers: global.brokers.clone(),
            topic,
            partitions: self.partitions,
            work,
            cpus: self.cpus.clone().unwrap_or_default().0,
            broker_pid: self.broker_pid,
        }
    }

    fn extent(&self) -> Option<Extent> {
        self.records.map(Extent::Records).or(self.duration.map(Extent::Duration))
    }

    fn shape(&self) -> Shape {
        Shape {
            record_size: self.record_size,
            key_size: self.key_size,
            batch_records: self.batch_records,
            seed: self.seed,
        }
    }
}

impl ProduceArgs {
    fn plan(&self) -> ProducePlan {
        let pace = if self.closed_loop {
            Pace::ClosedLoop
        } else {
            Pace::OpenLoop { records_per_s: self.rate.unwrap_or(DEFAULT_RATE) }
        };
        let in_flight_default = if self.closed_loop { self.connections } else { OPEN_LOOP_IN_FLIGHT };
        ProducePlan {
            pace,
            extent: self.common.extent().unwrap_or(Extent::Duration(DEFAULT_DURATION)),
            warmup: self.warmup,
            shape: self.common.shape(),
            in_flight_max: self.in_flight.unwrap_or(in_flight_default),
            connections: self.connections,
            durability: self.durability,
        }
    }
}

impl ConsumeArgs {
    fn plan(&self) -> ConsumePlan {
        let feed = self.rate.map(|records_per_s| ProducePlan {
            pace: Pace::OpenLoop { records_per_s },
            extent: self.common.extent().unwrap_or(Extent::Duration(DEFAULT_DURATION)),
            warmup: self.warmup,
            shape: self.common.shape(),
            in_flight_max: OPEN_LOOP_IN_FLIGHT,
            connections: 1,
            durability: Durability::IsrFlushed,
        });
        let records = self.common.records.unwrap_or(DEFAULT_FILL);
        let fills = self.from == Begin::Earliest && feed.is_none();
        let fill = fills.then(|| Fill { records, shape: self.common.shape() });
        let extent = if feed.is_none() { self.common.extent() } else { None };
        ConsumePlan { from: self.from, extent, consumers: self.consumers, fill, feed }
    }
}

/// The generator has threads of its own; this one watches, and stops it when interrupted.
fn run_plan(plan: &Plan) -> Result<Report> {
    let live = Arc::new(Live::default());
    let generator = {
        let (plan, live) = (plan.clone(), live.clone());
        std::thread::Builder::new()
            .name("loadgen".to_owned())
            .spawn(move || corrente_loadgen::run(&plan, &live))?
    };
    stop_when_interrupted(live.clone())?;
    let progress = Progress::text();
    while !generator.is_finished() {
        progress.say(|| status(&live));
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(progress);
    generator.join().map_err(|_| anyhow::anyhow!("the load generator panicked"))?
}

fn status(live: &Live) -> String {
    format!("{} records, {:.1} MB, {} errors", live.records(), live.bytes() as f64 / 1e6, live.errors())
}

fn stop_when_interrupted(live: Arc<Live>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            while super::interrupted().await.is_ok() {
                if live.stopping() {
                    std::process::exit(130);
                }
                live.stop();
            }
        });
    })?;
    Ok(())
}

fn print(output: Output, report: &Report) -> Result<()> {
    Ok(output.one(report, Report::to_table)?)
}

fn parse_begin(text: &str) -> Result<Begin, String> {
    match text {
        "earliest" => Ok(Begin::Earliest),
        "latest" => Ok(Begin::Latest),
        _ => Err("use earliest or latest".to_owned()),
    }
}
