//! `corrente serve`: a broker in this process, until a signal ends it.

mod control;
mod debug;
mod metrics;

use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clap::{Args, ValueEnum};
use corrente_broker::{Addresses, Config, ConfigFile, Node, Overrides, Placement};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;

use self::control::Control;
use crate::args::Global;
use crate::units::{CpuList, parse_cpus};

/// Start a broker.
///
/// Every setting can be given in the file, as CORRENTE__SECTION__KEY in the environment, or as a flag; the later wins.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// A TOML file with settings.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the data lies; once for each drive. Default: ./corrente-data
    #[arg(long = "data-dir", value_name = "DIR")]
    data_dirs: Vec<PathBuf>,
    /// Where clients are listened to; port 0 takes any free one. Default: 127.0.0.1:7400
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// What clients are told to connect to. Default: the listener's own address
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Where Kafka's clients are listened to. Default: nowhere
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// What Kafka's clients are told to connect to. Default: that listener's own address
    #[arg(long, value_name = "HOST:PORT")]
    advertise_kafka: Option<String>,
    /// Where metrics and health are served over HTTP: /metrics, /livez, /readyz. Default: nowhere
    #[arg(long, value_name = "HOST:PORT")]
    metrics: Option<String>,
    /// Number of shards. Default: one for each core
    #[arg(long, value_name = "N")]
    shards: Option<u16>,
    /// The cores to take, for example 0-3,8, in the order of the shards.
    #[arg(long, value_name = "LIST", value_parser = parse_cpus)]
    cpus: Option<CpuList>,
    /// Whether each shard keeps to one core.
    #[arg(long, value_name = "pinned|unbound", value_parser = str::parse::<Placement>)]
    placement: Option<Placement>,
    /// Written, with the addresses as JSON, once requests are served; an older one is removed first.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// How log lines are written to stderr.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Which log lines are written, for example info,corrente_storage=debug
    #[arg(long, env = "CORRENTE_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}

/// What the ready file holds.
#[derive(Debug, Serialize)]
struct Ready {
    /// The listener's address.
    native: SocketAddr,
    /// What clients are told to connect to.
    advertised: String,
    /// The listener for Kafka's clients, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    kafka: Option<SocketAddr>,
    /// What Kafka's clients are told to connect to.
    #[serde(skip_serializing_if = "Option::is_none")]
    advertised_kafka: Option<String>,
    /// The listener for metrics, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<SocketAddr>,
    node_id: u32,
    shards: u16,
    pid: u32,
}

pub fn run(global: &Global, args: ServeArgs) -> Result<ExitCode> {
    let _logs = start_logs(&args)?;
    if let Some(path) = args.ready_file.as_ref().filter(|path| !belongs_to_a_living_broker(path)) {
        forget(path)?;
    }
    let config = load_config(&args)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(serve(global, &args, config))
}

async fn serve(global: &Global, args: &ServeArgs, config: Config) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    let control = Control::new(&config);
    let metrics = match config.listen.metrics {
        Some(address) => Some(control.listen(address).await?),
        None => None,
    };
    let mut node = Node::start(config).await?;
    control.started(node.report_handle());
    let ready = Ready::new(node.addresses(), metrics);
    if let Some(path) = &args.ready_file {
        write_whole(path, &serde_json::to_vec(&ready)?)?;
    }
    global.output.one(&ready, Ready::line)?;

    let shutdown = node.shutdown_handle();
    let outcome = tokio::select! {
        stopped = node.stopped() => stopped,
        () = signals.next() => {
            tracing::info!("draining; a second signal ends at once");
            control.drains();
            let drained = async {
                shutdown.shutdown().await;
                node.stopped().await
            };
            tokio::select! {
                stopped = drained => stopped,
                () = signals.next() => std::process::exit(130),
            }
        }
    };
    if let Some(path) = &args.ready_file {
        forget(path)?;
    }
    outcome?;
    tracing::info!("stopped: everything is flushed and the checkpoint is written");
    Ok(ExitCode::SUCCESS)
}

/// A start that is about to fail must not take away what a broker that serves has written.
fn belongs_to_a_living_broker(ready_file: &Path) -> bool {
    let Ok(content) = fs::read(ready_file) else { return false };
    let ready = serde_json::from_slice::<serde_json::Value>(&content).unwrap_or_default();
    let pid = ready.get("pid").and_then(serde_json::Value::as_u64);
    pid.is_some_and(|pid| pid != u64::from(std::process::id()) && Path::new(&format!("/proc/{pid}")).exists())
}

impl Ready {
    fn new(addresses: &Addresses, metrics: Option<SocketAddr>) -> Ready {
        let kafka = addresses.kafka.as_ref();
        Ready {
            native: addresses.native,
            advertised: as_text(&addresses.advertised),
            kafka: kafka.map(|kafka| kafka.listening),
            advertised_kafka: kafka.map(|kafka| as_text(&kafka.advertised)),
            metrics,
            node_id: addresses.node.0,
            shards: addresses.shards,
            pid: std::process::id(),
        }
    }

    fn line(&self) -> String {
        let Ready { native, advertised, node_id, shards, .. } = self;
        let shards = if *shards == 1 { "1 shard".to_owned() } else { format!("{shards} shards") };
        let kafka = self.kafka.map_or_else(String::new, |kafka| format!(", for Kafka's clients at {kafka}"));
        let metrics = self.metrics.map_or_else(String::new, |metrics| format!(", metrics at {metrics}"));
        format!(
            "corrente: node {node_id} with {shards} listens at {native}, advertised as {advertised}{kafka}{metrics}"
        )
    }
}

fn as_text((host, port): &(String, u16)) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn load_config(args: &ServeArgs) -> Result<Config> {
    let file = match &args.config {
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            Some(ConfigFile { path: path.clone(), text })
        }
        None => None,
    };
    let overrides = Overrides {
        data_dirs: args.data_dirs.clone(),
        listen: args.listen.as_deref().map(|address| resolve("--listen", address)).transpose()?,
        metrics: args.metrics.as_deref().map(|address| resolve("--metrics", address)).transpose()?,
        advertise: args.advertise.clone(),
        kafka: args.kafka.as_deref().map(|address| resolve("--kafka", address)).transpose()?,
        advertise_kafka: args.advertise_kafka.clone(),
        shards: args.shards,
        cpus: args.cpus.clone().map(|CpuList(cpus)| cpus),
        placement: args.placement,
    };
    Ok(Config::load(file.as_ref(), &overrides)?)
}

fn resolve(flag: &str, address: &str) -> Result<SocketAddr> {
    let mut found = address.to_socket_addrs().with_context(|| format!("{flag} {address}"))?;
    found.next().ok_or_else(|| anyhow!("{flag} {address}: the name has no address"))
}

/// A thread of its own writes the lines: a shard never waits for a terminal. If that thread falls behind, lines are
/// lost.
fn start_logs(args: &ServeArgs) -> Result<WorkerGuard> {
    let filter = EnvFilter::try_new(&args.log).with_context(|| format!("--log {}", args.log))?;
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match args.log_format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    Ok(guard)
}

/// A reader sees the whole file or none.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().context("--ready-file names no file")?.to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let unfinished = path.with_file_name(name);
    fs::write(&unfinished, bytes).with_context(|| format!("writing {}", unfinished.display()))?;
    fs::rename(&unfinished, path).with_context(|| format!("writing {}", path.display()))
}

fn forget(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The two signals that ask for an end. Caught from before the start, so that none is lost.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Signals> {
        let catch = |kind| signal(kind).context("catching signals");
        Ok(Signals { interrupt: catch(SignalKind::interrupt())?, terminate: catch(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
