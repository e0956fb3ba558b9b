//! What an operator may set, where it comes from, and the one line said when it cannot be used.
//!
//! Later sources win: defaults, then the TOML file, then `CORRENTE__SECTION__KEY` in the
//! environment, then flags. A key that nobody knows is refused with the nearest known one named:
//! a setting that is silently ignored is worse than a broker that does not start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use figment::Figment;
use figment::error::Kind;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

use crate::byte_size::ByteSize;

/// The environment's prefix; a further `__` parts the section from the key.
const ENVIRONMENT_PREFIX: &str = "CORRENTE__";

/// Everything that can be set, by section.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who this node is and where its data lies.
    pub node: NodeConfig,
    /// Where clients reach it.
    pub listen: ListenConfig,
    /// How many cores it takes and how they wait.
    pub shards: ShardsConfig,
    /// How much memory a shard may hold.
    pub memory: MemoryConfig,
    /// What one connection may ask for.
    pub connection: ConnectionConfig,
    /// How partitions lie on disk.
    pub log: LogConfig,
    /// Bounds on topics.
    pub topics: TopicsConfig,
    /// What Kafka's clients get.
    pub kafka: KafkaConfig,
    /// How the broker stops.
    pub shutdown: ShutdownConfig,
}

/// `[node]`
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// The node's id within its cluster.
    pub id: u32,
    /// One directory per drive; the first also holds metadata and checkpoints.
    pub data_dirs: Vec<PathBuf>,
}

/// `[listen]`
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenConfig {
    /// Address of the native listener; port 0 lets the kernel choose one.
    pub native: SocketAddr,
    /// `HOST:PORT` told to clients; empty means the listener's own address.
    pub advertise: String,
    /// Address of the HTTP listener for metrics and health; none if empty. Whoever starts the node serves it.
    #[serde(with = "crate::optional_address")]
    pub metrics: Option<SocketAddr>,
    /// Address of the listener for Kafka's protocol; none if empty.
    #[serde(with = "crate::optional_address")]
    pub kafka: Option<SocketAddr>,
    /// `HOST:PORT` told to Kafka's clients; empty means that listener's own address.
    pub advertise_kafka: String,
}

/// `[shards]`
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShardsConfig {
    /// Number of shards; 0 means one per core given to the process.
    pub count: u16,
    /// Cores to take, in the order of the shards; empty means all of them.
    pub cpus: Vec<usize>,
    /// Whether each shard stays on its core.
    pub placement: Placement,
    /// What a shard does when it has nothing to do.
    pub idle: Idle,
    /// How long `idle = "spin"` looks for work before it sleeps, in microseconds.
    pub spin_us: u64,
}

/// Whether shards are pinned to cores.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// Each shard stays on one core.
    #[default]
    Pinned,
    /// The kernel moves shards between cores.
    Unbound,
}

impl FromStr for Placement {
    type Err = String;

    fn from_str(text: &str) -> Result<Placement, String> {
        match text {
            "pinned" => Ok(Placement::Pinned),
            "unbound" => Ok(Placement::Unbound),
            other => Err(format!("unknown placement '{other}'; known are pinned and unbound")),
        }
    }
}

/// What a shard does when it has nothing to do.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Idle {
    /// Sleep in the kernel at once.
    Park,
    /// Look for work for `spin_us`, then sleep.
    #[default]
    Spin,
    /// Never sleep: the lowest latency for a whole core.
    Poll,
}

/// `[memory]`
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryConfig {
    /// Budget of one shard; 0 takes 1 GiB, or its part of half of what the machine or cgroup
    /// allows where that is less.
    pub per_shard_bytes: ByteSize,
}

/// `[connection]`
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionConfig {
    /// Largest frame body accepted; told to clients in the hello.
    pub frame_bytes_max: ByteSize,
    /// Requests of one connection that may be under way at once.
    pub requests_in_flight_max: usize,
    /// Time for a new connection to say hello.
    pub hello_timeout_ms: u64,
    /// Time without a byte inside a frame, or with a peer that takes none, before closing.
    pub stall_timeout_ms: u64,
    /// The same while others wait for memory, which those who stand still hold.
    pub short_of_memory_stall_timeout_ms: u64,
    /// Connections one shard serves; further ones are refused.
    pub per_shard_max: usize,
}

/// `[log]`
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Size at which a segment is sealed, for topics that set no `segment.bytes`.
    pub segment_bytes: ByteSize,
    /// How many appended bytes one flush gathers at most.
    pub window_bytes_max: ByteSize,
    /// How long an acknowledged append may lie above the checkpoint.
    pub checkpoint_interval_ms: u64,
    /// How many appended bytes of a shard may lie above the checkpoint.
    pub checkpoint_bytes: ByteSize,
    /// What is left alone of each data directory's file system: appends are refused rather than take it. 0 takes
    /// 1 GiB, or a twentieth of the file system where that is less.
    pub reserve_bytes: ByteSize,
    /// Removed segments kept to be taken into use again, of all shards together.
    pub pool_bytes: ByteSize,
    /// How often every log is looked at for what it no longer keeps, or should compact.
    pub upkeep_interval_ms: u64,
    /// Memory of a shard for the keys of the log that it compacts.
    pub compaction_bytes: ByteSize,
}

/// `[topics]`
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TopicsConfig {
    /// Partitions of all topics together; a request beyond is refused.
    pub partitions_max: u32,
}

/// `[kafka]`
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// Whether a topic that a client asks for and that is missing is made.
    pub auto_create_topics: bool,
    /// How many partitions a topic gets whose maker names no number.
    pub auto_create_partitions: u32,
}

/// `[shutdown]`
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShutdownConfig {
    /// Time for requests under way to be answered.
    pub drain_ms: u64,
}

impl Default for NodeConfig {
    fn default() -> NodeConfig {
        NodeConfig { id: 0, data_dirs: vec![PathBuf::from("./corrente-data")] }
    }
}

impl Default for ListenConfig {
    fn default() -> ListenConfig {
        ListenConfig {
            native: SocketAddr::from(([127, 0, 0, 1], 7400)),
            advertise: String::new(),
            metrics: None,
            kafka: None,
            advertise_kafka: String::new(),
        }
    }
}

impl Default for ShardsConfig {
    fn default() -> ShardsConfig {
        ShardsConfig {
            count: 0,
            cpus: Vec::new(),
            placement: Placement::default(),
            idle: Idle::default(),
            spin_us: 50,
        }
    }
}

impl Default for ConnectionConfig {
    fn default() -> ConnectionConfig {
        ConnectionConfig {
            frame_bytes_max: ByteSize(u64::from(corrente_protocol::frame::MAX_FRAME_DEFAULT)),
            requests_in_flight_max: 4096,
            hello_timeout_ms: 5_000,
            stall_timeout_ms: 30_000,
            short_of_memory_stall_timeout_ms: 5_000,
            per_shard_max: 100_000,
        }
    }
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig {
            segment_bytes: ByteSize::mib(1024),
            window_bytes_max: ByteSize::mib(1),
            checkpoint_interval_ms: 80,
            checkpoint_bytes: ByteSize::mib(256),
            reserve_bytes: ByteSize(0),
            pool_bytes: ByteSize::mib(512),
            upkeep_interval_ms: 30_000,
            compaction_bytes: ByteSize::mib(32),
        }
    }
}

impl Default for TopicsConfig {
    fn default() -> TopicsConfig {
        TopicsConfig { partitions_max: 100_000 }
    }
}

impl Default for KafkaConfig {
    fn default() -> KafkaConfig {
        KafkaConfig { auto_create_topics: true, auto_create_partitions: 1 }
    }
}

impl Default for ShutdownConfig {
    fn default() -> ShutdownConfig {
        ShutdownConfig { drain_ms: 10_000 }
    }
}

/// A configuration file that was read: its name for messages, its text.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    /// Named in errors.
    pub path: PathBuf,
    /// TOML.
    pub text: String,
}

/// What flags set; `None` and empty leave the lower sources alone.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--data-dir`, once per drive.
    pub data_dirs: Vec<PathBuf>,
    /// `--listen`
    pub listen: Option<SocketAddr>,
    /// `--advertise`
    pub advertise: Option<String>,
    /// `--metrics`
    pub metrics: Option<SocketAddr>,
    /// `--kafka`
    pub kafka: Option<SocketAddr>,
    /// `--advertise-kafka`
    pub advertise_kafka: Option<String>,
    /// `--shards`
    pub shards: Option<u16>,
    /// `--cpus`
    pub cpus: Option<Vec<usize>>,
    /// `--placement`
    pub placement: Option<Placement>,
}

/// Why a configuration cannot be used; one line that names the key.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
#[error("{0}")]
pub struct ConfigError(String);

impl Config {
    /// Joins all sources, the environment of this process among them.
    pub fn load(file: Option<&ConfigFile>, overrides: &Overrides) -> Result<Config, ConfigError> {
        let environment = Env::prefixed(ENVIRONMENT_PREFIX).split("__");
        let config = Config::join(file, Figment::from(environment), overrides)?;
        config.check()?;
        Ok(config)
    }

    fn join(
        file: Option<&ConfigFile>,
        environment: Figment,
        overrides: &Overrides,
    ) -> Result<Config, ConfigError> {
        let mut sources = Figment::from(Serialized::defaults(Config::default()));
        if let Some(file) = file {
            sources = sources.merge(Toml::string(&file.text));
        }
        let mut config: Config =
            sources.merge(environment).extract().map_err(|error| explain(error, file))?;
        overrides.apply(&mut config);
        Ok(config)
    }

    /// A ladder of refusals, each naming its key.
    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |line: String| Err(ConfigError(line));
        if self.node.data_dirs.is_empty() {
            return refuse("node.data_dirs is empty; name at least one directory".into());
        }
        for (i, dir) in self.node.data_dirs.iter().enumerate() {
            if self.node.data_dirs[..i].contains(dir) {
                return refuse(format!("node.data_dirs names {} twice", dir.display()));
            }
        }
        if self.shards.count > SHARDS_MAX {
            return refuse(format!("shards.count is {}, at most {SHARDS_MAX} are served", self.shards.count));
        }
        if self.connection.requests_in_flight_max < 2 {
            let max = self.connection.requests_in_flight_max;
            let why = "half of them may be subscriptions, which others adjust";
            return refuse(format!(
                "connection.requests_in_flight_max is {max}; at least 2 are needed: {why}"
            ));
        }
        in_range(
            "connection.frame_bytes_max",
            self.connection.frame_bytes_max,
            ByteSize::mib(1),
            ByteSize::mib(1024),
        )?;
        in_range("log.segment_bytes", self.log.segment_bytes, ByteSize::mib(1), ByteSize::mib(16 * 1024))?;
        in_range("log.window_bytes_max", self.log.window_bytes_max, ByteSize(64 * 1024), ByteSize::mib(64))?;
        in_range(
            "log.compaction_bytes",
            self.log.compaction_bytes,
            ByteSize(64 * 1024),
            ByteSize::mib(64 * 1024),
        )?;
        if self.log.upkeep_interval_ms == 0 {
            return refuse("log.upkeep_interval_ms is 0; it must be at least 1".to_owned());
        }
        if self.memory.per_shard_bytes.0 != 0 {
            let floor = MEMORY_PER_SHARD_MIN;
            if self.memory.per_shard_bytes < floor {
                let given = self.memory.per_shard_bytes;
                return refuse(format!("memory.per_shard_bytes is {given}, a shard needs at least {floor}"));
            }
        }
        self.advertised()?;
        self.advertised_kafka()?;
        if self.kafka.auto_create_partitions == 0 {
            return refuse("kafka.auto_create_partitions is 0; it must be at least 1".to_owned());
        }
        Ok(())
    }

    /// What clients are told to connect to, where that was set.
    pub fn advertised(&self) -> Result<Option<(String, u16)>, ConfigError> {
        host_and_port("listen.advertise", &self.listen.advertise)
    }

    /// What Kafka's clients are told to connect to, where that was set.
    pub fn advertised_kafka(&self) -> Result<Option<(String, u16)>, ConfigError> {
        host_and_port("listen.advertise_kafka", &self.listen.advertise_kafka)
    }

    /// Time for requests under way to be answered at shutdown.
    pub fn drain(&self) -> Duration {
        Duration::from_millis(self.shutdown.drain_ms)
    }
}

/// Shards one node can have; a hello names its shard in 16 bits, of which one value means "any".
pub const SHARDS_MAX: u16 = 1024;

/// Below this a shard could not hold one frame, its tail ring and its read-ahead.
pub const MEMORY_PER_SHARD_MIN: ByteSize = ByteSize::mib(48);

impl Overrides {
    fn apply(&self, config: &mut Config) {
        if !self.data_dirs.is_empty() {
            config.node.data_dirs.clone_from(&self.data_dirs);
        }
        if let Some(listen) = self.listen {
            config.listen.native = listen;
        }
        if let Some(metrics) = self.metrics {
            config.listen.metrics = Some(metrics);
        }
        if let Some(advertise) = &self.advertise {
            config.listen.advertise.clone_from(advertise);
        }
        if let Some(kafka) = self.kafka {
            config.listen.kafka = Some(kafka);
        }
        if let Some(advertise) = &self.advertise_kafka {
            config.listen.advertise_kafka.clone_from(advertise);
        }
        if let Some(shards) = self.shards {
            config.shards.count = shards;
        }
        if let Some(cpus) = &self.cpus {
            config.shards.cpus.clone_from(cpus);
        }
        if let Some(placement) = self.placement {
            config.shards.placement = placement;
        }
    }
}

fn host_and_port(key: &str, text: &str) -> Result<Option<(String, u16)>, ConfigError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match parsed {
        Some((host, port)) if !host.is_empty() && port != 0 => {
            Ok(Some((host.trim_matches(['[', ']']).to_owned(), port)))
        }
        _ => Err(ConfigError(format!("{key} is '{text}'; give HOST:PORT"))),
    }
}

fn in_range(key: &str, given: ByteSize, min: ByteSize, max: ByteSize) -> Result<(), ConfigError> {
    if (min..=max).contains(&given) {
        return Ok(());
    }
    Err(ConfigError(format!("{key} is {given}; it must lie between {min} and {max}")))
}

/// One line: which key, from where, what is wrong, what would be right.
fn explain(error: figment::Error, file: Option<&ConfigFile>) -> ConfigError {
    let source = match &error.metadata {
        Some(metadata) if metadata.name.contains("TOML") => {
            file.map_or_else(|| "configuration".to_owned(), |file| file.path.display().to_string())
        }
        Some(metadata) => metadata.name.to_string(),
        None => "configuration".to_owned(),
    };
    let dotted = |last: Option<&str>| {
        let mut path: Vec<&str> = error.path.iter().map(String::as_str).collect();
        path.extend(last);
        path.join(".")
    };
    ConfigError(match &error.kind {
        Kind::UnknownField(name, known) => {
            let path: Vec<&str> = error.path.iter().map(String::as_str).filter(|part| part != name).collect();
            let full = |key: &str| path.iter().copied().chain([key]).collect::<Vec<_>>().join(".");
            let hint = nearest(name, known).map_or_else(
                || format!("known there: {}", known.join(", ")),
                |key| format!("did you mean '{}'?", full(key)),
            );
            format!("{source}: unknown key '{}'; {hint}", full(name))
        }
        Kind::UnknownVariant(value, known) => {
            format!("{source}: {} is '{value}'; known values: {}", dotted(None), known.join(", "))
        }
        other if error.path.is_empty() => format!("{source}: {}", one_line(&other.to_string())),
        other => format!("{source}: {}: {}", dotted(None), one_line(&other.to_string())),
    })
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The known name most like what was typed, if any is near enough to be meant.
fn nearest<'a>(typed: &str, known: &[&'a str]) -> Option<&'a str> {
    let scored = known.iter().map(|name| (strsim::normalized_damerau_levenshtein(typed, name), *name));
    scored.filter(|(score, _)| *score > 0.4).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

/// Entry for fuzzing: a configuration file. It is taken, or refused on one line.
#[doc(hidden)]
pub fn fuzz_config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let file = ConfigFile { path: PathBuf::from("fuzz.toml"), text };
    let config = Config::join(Some(&file), Figment::new(), &Overrides::default());
    if let Err(error) = config.and_then(|config| config.check()) {
        let line = error.to_string();
        assert!(!line.contains('\n'), "not one line: {line:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(toml: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let file = ConfigFile { path: "corrente.toml".into(), text: toml.into() };
        let mut layer = Figment::new();
        for (key, value) in environment {
            layer = layer.merge((*key, *value));
        }
        let config = Config::join(Some(&file), layer, &Overrides::default())?;
        config.check()?;
        Ok(config)
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        assert_eq!(load("", &[]).unwrap(), Config::default());
    }

    #[test]
    fn the_environment_wins_over_the_file_and_flags_over_both() {
        let file = ConfigFile { path: "c.toml".into(), text: "[shards]\ncount = 2\nspin_us = 7\n".into() };
        let environment = Figment::new().merge(("shards.count", 3));
        let overrides = Overrides { shards: Some(4), ..Overrides::default() };
        let config = Config::join(Some(&file), environment.clone(), &Overrides::default()).unwrap();
        assert_eq!((config.shards.count, config.shards.spin_us), (3, 7));
        assert_eq!(Config::join(Some(&file), environment, &overrides).unwrap().shards.count, 4);
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        let error = load("[log]\nsegment_byte = 5\n", &[]).unwrap_err().to_string();
        assert_eq!(error, "corrente.toml: unknown key 'log.segment_byte'; did you mean 'log.segment_bytes'?");
        let error = load("[lgo]\nsegment_bytes = 5\n", &[]).unwrap_err().to_string();
        assert!(error.contains("unknown key 'lgo'; did you mean 'log'?"), "{error}");
    }

    #[test]
    fn values_out_of_range_and_of_the_wrong_kind_are_named() {
        let error = load("[log]\nsegment_bytes = \"3KiB\"\n", &[]).unwrap_err().to_string();
        assert_eq!(error, "log.segment_bytes is 3 KiB; it must lie between 1 MiB and 16 GiB");
        let error = load("[shards]\nplacement = \"glued\"\n", &[]).unwrap_err().to_string();
        assert!(error.contains("shards.placement is 'glued'; known values: pinned, unbound"), "{error}");
        let error = load("[shards]\ncount = \"many\"\n", &[]).unwrap_err().to_string();
        assert!(error.contains("shards.count"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    #[test]
    fn an_advertised_address_needs_host_and_port() {
        let mut config = Config::default();
        config.listen.advertise = "broker.example:7400".into();
        assert_eq!(config.advertised().unwrap(), Some(("broker.example".into(), 7400)));
        config.listen.advertise = "[::1]:7400".into();
        assert_eq!(config.advertised().unwrap(), Some(("::1".into(), 7400)));
        config.listen.advertise = "broker.example".into();
        assert!(config.check().is_err());
    }
}
