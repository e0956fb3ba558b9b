//! What is measured where it is not at --brokers: a broker in the generator's own process, for as long as that lasts,
//! or one that keeps nothing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use corrente_broker::{Addresses, Config, Node, Overrides, Placement};
use corrente_loadgen::machine::file_system_of;
use corrente_loadgen::null_broker::NullBroker;
use corrente_loadgen::plan::{Plan, Protocol, Work};
use tokio::runtime::Runtime;

use crate::args::Global;
use crate::http;
use crate::units::{CpuList, parse_cpus};

/// Whether a broker is started, and with what.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// Start a broker in this process instead of looking for --brokers, and stop it afterwards. It takes the settings
    /// of the environment (CORRENTE__SECTION__KEY) like any other.
    #[arg(long, conflicts_with = "broker_pid")]
    embedded: bool,
    /// Send to a broker in this process that keeps nothing and acknowledges at once: how fast the generator itself is.
    #[arg(long, conflicts_with_all = ["embedded", "broker_pid"])]
    null: bool,
    /// The cores of the broker in this process. Default: with --cpus the others, else all, and no thread keeps to one
    #[arg(long, value_name = "LIST", value_parser = parse_cpus)]
    broker_cpus: Option<CpuList>,
    /// The number of shards of an embedded broker. Default: one for each of its cores
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), requires = "embedded")]
    shards: Option<u16>,
    /// Where its data lies, which then stays. Default: a directory in TMPDIR that is removed afterwards
    #[arg(long, value_name = "DIR", requires = "embedded")]
    data_dir: Option<PathBuf>,
    /// Where the broker serves its metrics: it is asked there how it is configured, and the report keeps that. An
    /// embedded broker need not be asked.
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["embedded", "null"])]
    control: Option<String>,
}

/// A broker that serves. Dropped, it stops.
pub enum Broker {
    /// A whole one.
    Embedded(Box<Embedded>),
    /// One that keeps nothing.
    Null(NullBroker),
}

/// A whole broker.
pub struct Embedded {
    runtime: Runtime,
    node: Option<Node>,
    /// Goes away last.
    _home: Home,
}

impl Target {
    /// Starts a broker, if one is asked for, and makes it the plan's.
    pub fn start(&self, global: &Global, plan: &mut Plan) -> Result<Option<Broker>> {
        if !self.embedded && !self.null {
            ensure!(self.broker_cpus.is_none(), "--broker-cpus are for --embedded or --null");
            plan.broker_config = self.control.as_deref().map(configuration_of).transpose()?;
            return Ok(None);
        }
        let flag = if self.null { "--null" } else { "--embedded" };
        ensure!(
            global.brokers.is_empty(),
            "{flag} starts a broker of its own: give no --brokers (CORRENTE_BROKERS)"
        );
        plan.check()?;
        let cpus = self.cpus(&plan.cpus)?;
        Ok(Some(match self.null {
            true => Broker::Null(null(plan, &cpus.unwrap_or_default())?),
            false => Broker::Embedded(Box::new(self.embedded(plan, cpus)?)),
        }))
    }

    fn embedded(&self, plan: &mut Plan, cpus: Option<Vec<usize>>) -> Result<Embedded> {
        let home = Home::new(self.data_dir.as_deref())?;
        let any_port = "127.0.0.1:0".parse().context("an address with any port")?;
        let overrides = Overrides {
            data_dirs: vec![home.path.clone()],
            listen: Some(any_port),
            kafka: (plan.protocol == Protocol::Kafka).then_some(any_port),
            shards: self.shards,
            placement: cpus.is_none().then_some(Placement::Unbound),
            cpus,
            ..Overrides::default()
        };
        let config = Config::load(None, &overrides)?;
        plan.broker_config = Some(serde_json::to_value(&config)?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let node = runtime.block_on(Node::start(config)).context("the embedded broker")?;
        plan.brokers = vec![address(node.addresses(), plan.protocol)?];
        let shards = node.addresses().shards;
        let on = file_system_of(&home.path).map_or_else(String::new, |on| format!(" ({on})"));
        eprintln!("embedded broker of {shards} shards, data in {}{on}", home.path.display());
        Ok(Embedded { runtime, node: Some(node), _home: home })
    }

    /// The cores of the broker, where it has some of its own: never the generator's.
    fn cpus(&self, generator: &[usize]) -> Result<Option<Vec<usize>>> {
        if let Some(CpuList(cpus)) = &self.broker_cpus {
            let shared = cpus.iter().find(|cpu| generator.contains(cpu));
            ensure!(
                shared.is_none(),
                "cpu {} is given to the generator and to the broker",
                shared.unwrap_or(&0)
            );
            return Ok(Some(cpus.clone()));
        }
        if generator.is_empty() {
            return Ok(None);
        }
        let all = rustix::thread::sched_getaffinity(None).context("which CPUs there are")?;
        let others: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU)
            .filter(|cpu| all.is_set(*cpu) && !generator.contains(cpu))
            .collect();
        ensure!(!others.is_empty(), "the generator has all CPUs: leave some of --cpus to the broker");
        Ok(Some(others))
    }
}

/// How the broker that serves metrics at `control` says that it is configured.
fn configuration_of(control: &str) -> Result<serde_json::Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let text = runtime.block_on(http::get(control, "/debug/config"))?;
    serde_json::from_str(&text).with_context(|| format!("the configuration that {control} tells"))
}

fn null(plan: &mut Plan, cpus: &[usize]) -> Result<NullBroker> {
    let Work::Produce(sending) = &plan.work else { bail!("a broker that keeps nothing has nothing to read") };
    ensure!(!sending.verify, "a broker that keeps nothing has nothing to verify");
    ensure!(
        plan.protocol == Protocol::Native,
        "a broker that keeps nothing speaks Corrente's own protocol alone"
    );
    let broker = NullBroker::start(cpus)?;
    plan.brokers = vec![broker.address().to_string()];
    Ok(broker)
}

fn address(addresses: &Addresses, protocol: Protocol) -> Result<String> {
    match protocol {
        Protocol::Native => Ok(addresses.native.to_string()),
        Protocol::Kafka => {
            let kafka = addresses.kafka.as_ref().context("the broker does not listen for Kafka's clients")?;
            Ok(kafka.listening.to_string())
        }
    }
}

impl Broker {
    /// Stops it: everything is flushed, and a temporary directory is removed.
    pub fn stop(self) -> Result<()> {
        match self {
            Broker::Embedded(mut broker) => broker.end().context("stopping the embedded broker"),
            Broker::Null(broker) => {
                drop(broker);
                Ok(())
            }
        }
    }
}

impl Embedded {
    fn end(&mut self) -> Result<()> {
        let Some(mut node) = self.node.take() else { return Ok(()) };
        let shutdown = node.shutdown_handle();
        self.runtime.block_on(async {
            shutdown.shutdown().await;
            node.stopped().await
        })?;
        Ok(())
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // A broker that was not stopped belongs to a run that failed, of which more is told.
        let _ = self.end();
    }
}

/// A data directory.
struct Home {
    path: PathBuf,
    is_temporary: bool,
}

impl Home {
    fn new(given: Option<&Path>) -> Result<Home> {
        if let Some(path) = given {
            return Ok(Home { path: path.to_owned(), is_temporary: false });
        }
        let path = std::env::temp_dir().join(format!("corrente-bench-{:016x}", fastrand::u64(..)));
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Home { path, is_temporary: true })
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.is_temporary
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            eprintln!("{} stays: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(broker_cpus: Option<Vec<usize>>) -> Target {
        let broker_cpus = broker_cpus.map(CpuList);
        Target { embedded: true, null: false, broker_cpus, shards: None, data_dir: None, control: None }
    }

    #[test]
    fn generator_and_broker_share_no_core_that_was_named() {
        assert_eq!(target(None).cpus(&[]).unwrap(), None);
        assert_eq!(target(Some(vec![1, 2])).cpus(&[0]).unwrap(), Some(vec![1, 2]));
        let refusal = target(Some(vec![1, 2])).cpus(&[2]).unwrap_err().to_string();
        assert_eq!(refusal, "cpu 2 is given to the generator and to the broker");
        let all: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).collect();
        let refusal = target(None).cpus(&all).unwrap_err().to_string();
        assert!(refusal.contains("leave some of --cpus"), "{refusal}");
    }
}
