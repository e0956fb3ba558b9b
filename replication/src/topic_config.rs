//! The configs of a topic: names, values, defaults, and which values this broker acts on.
//!
//! Owns the one table. Never accepts a value that nothing acts on: a user who sets it would believe it.
//! Names and meanings are Kafka's; `durability` is ours.

use std::collections::BTreeMap;

use corrente_protocol::frame::Durability;

/// What values a config takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// A whole number, both bounds included.
    Number {
        /// The least value.
        min: i64,
        /// The largest value.
        max: i64,
    },
    /// One of these words.
    OneOf(&'static [&'static str]),
}

/// Which of the values the broker acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Honoured {
    /// All of them.
    Every,
    /// This one alone; others are refused until something enforces them.
    Only(&'static str),
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigSpec {
    /// The key.
    pub key: &'static str,
    /// What values it takes.
    pub kind: ValueKind,
    /// What holds where it is not set.
    pub default: &'static str,
    /// Which values the broker acts on.
    pub honoured: Honoured,
    /// What it does, in one sentence.
    pub doc: &'static str,
}

/// The longest value, in bytes.
pub const VALUE_LEN_MAX: usize = 64;

/// The longest key for which a nearest known one is looked for, in bytes.
const SUGGEST_KEY_LEN_MAX: usize = 64;

const CLEANUP_POLICY: &str = "cleanup.policy";
const COMPRESSION_TYPE: &str = "compression.type";
const DURABILITY: &str = "durability";
const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
const MESSAGE_TIMESTAMP_TYPE: &str = "message.timestamp.type";
const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
const RETENTION_BYTES: &str = "retention.bytes";
const RETENTION_MS: &str = "retention.ms";
/// The size in bytes at which a segment is followed by a new one.
pub const SEGMENT_BYTES: &str = "segment.bytes";

/// Every config that a topic has, by key.
pub const TOPIC_CONFIGS: &[ConfigSpec] = &[
    ConfigSpec {
        key: CLEANUP_POLICY,
        kind: ValueKind::OneOf(&["delete", "compact", "compact,delete", "delete,compact"]),
        default: "delete",
        honoured: Honoured::Only("delete"),
        doc: "what happens to old segments: deleted by retention, or compacted by key",
    },
    ConfigSpec {
        key: COMPRESSION_TYPE,
        kind: ValueKind::OneOf(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
        default: "producer",
        honoured: Honoured::Only("producer"),
        doc: "how batches are compressed on disk; producer keeps them as they were sent",
    },
    ConfigSpec {
        key: DURABILITY,
        kind: ValueKind::OneOf(&["received", "leader_flushed", "replicated", "isr_flushed"]),
        default: "isr_flushed",
        honoured: Honoured::Every,
        doc: "the floor: no append is acknowledged before it reached this, whatever its request asked for",
    },
    ConfigSpec {
        key: MAX_MESSAGE_BYTES,
        kind: ValueKind::Number { min: 128, max: i32::MAX as i64 },
        default: "1048588",
        honoured: Honoured::Every,
        doc: "the largest record batch in bytes, header included, as it is sent",
    },
    ConfigSpec {
        key: MESSAGE_TIMESTAMP_TYPE,
        kind: ValueKind::OneOf(&["CreateTime", "LogAppendTime"]),
        default: "CreateTime",
        honoured: Honoured::Only("CreateTime"),
        doc: "whether a record keeps its producer's timestamp or takes the broker's",
    },
    ConfigSpec {
        key: MIN_INSYNC_REPLICAS,
        kind: ValueKind::Number { min: 1, max: i16::MAX as i64 },
        // At replication factor 1; `TopicConfig::min_insync_replicas` knows the others.
        default: "1",
        honoured: Honoured::Every,
        doc: "how many in-sync replicas an append needs; by default 1 of 1 and of 2, a majority of more",
    },
    ConfigSpec {
        key: RETENTION_BYTES,
        kind: ValueKind::Number { min: -1, max: i64::MAX },
        default: "-1",
        honoured: Honoured::Only("-1"),
        doc: "how many bytes a partition keeps; -1 keeps all",
    },
    ConfigSpec {
        key: RETENTION_MS,
        kind: ValueKind::Number { min: -1, max: i64::MAX },
        // Kafka's default is 7 days. A default that nothing enforces would be untrue.
        default: "-1",
        honoured: Honoured::Only("-1"),
        doc: "how many milliseconds a record is kept; -1 keeps it for ever",
    },
    ConfigSpec {
        key: SEGMENT_BYTES,
        kind: ValueKind::Number { min: 1024 * 1024, max: i32::MAX as i64 },
        default: "1073741824",
        honoured: Honoured::Every,
        doc: "the size in bytes at which a segment is sealed and the next one begun",
    },
];

/// Why configs are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No such config, and perhaps one that is spelt alike.
    #[error(
        "unknown config {key:?}{}",
        nearest.map(|nearest| format!(", did you mean {nearest:?}")).unwrap_or_default()
    )]
    UnknownKey {
        /// The key, shortened if it is long.
        key: String,
        /// The known key that is spelt most alike.
        nearest: Option<&'static str>,
    },
    /// A value that the config never takes.
    #[error("config {key} is {value:?}, allowed is {allowed}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// The value, shortened if it is long.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// A value that the config will take once the broker acts on it.
    #[error("config {key} is {value:?}, which is not enforced yet, so only {only:?} is accepted")]
    NotEnforced {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// The value that is acted on.
        only: &'static str,
    },
    /// The largest batch does not fit the segment.
    #[error("config max.message.bytes is {max_message_bytes}, more than segment.bytes {segment_bytes}")]
    MessageLargerThanSegment {
        /// The largest batch.
        max_message_bytes: u64,
        /// The segment's size.
        segment_bytes: u64,
    },
    /// More in-sync replicas asked for than there are replicas.
    #[error(
        "config min.insync.replicas is {min_insync_replicas}, more than the replication factor {replication_factor}"
    )]
    MinInsyncAboveReplicationFactor {
        /// In-sync replicas asked for.
        min_insync_replicas: u32,
        /// Replicas of each partition.
        replication_factor: usize,
    },
}

/// The configs of one topic, typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// No append is acknowledged below this level.
    pub durability_floor: Durability,
    /// The largest record batch in bytes, header included.
    pub max_message_bytes: u64,
    /// The size in bytes at which a segment is sealed.
    pub segment_bytes: u64,
    /// As set; [`min_insync_replicas`](Self::min_insync_replicas) knows the default.
    min_insync_replicas: Option<u32>,
}

impl TopicConfig {
    /// Reads the configs that were set; all others have their defaults. Refuses the first one, by key, that
    /// this broker does not know or does not act on.
    pub fn parse(configs: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        for (key, value) in configs {
            check(spec(key)?, value)?;
        }
        let value = |key| configs.get(key).map_or_else(|| default_of(key), String::as_str);
        let config = Self {
            durability_floor: durability(value(DURABILITY))?,
            max_message_bytes: number(MAX_MESSAGE_BYTES, value(MAX_MESSAGE_BYTES))?,
            segment_bytes: number(SEGMENT_BYTES, value(SEGMENT_BYTES))?,
            min_insync_replicas: match configs.get(MIN_INSYNC_REPLICAS) {
                Some(value) => Some(number(MIN_INSYNC_REPLICAS, value)?),
                None => None,
            },
        };
        config.check_together()?;
        Ok(config)
    }

    /// How many in-sync replicas an append needs where each partition has `replication_factor` replicas.
    pub fn min_insync_replicas(&self, replication_factor: usize) -> usize {
        match self.min_insync_replicas {
            Some(set) => set as usize,
            None if replication_factor <= 2 => 1,
            None => replication_factor / 2 + 1,
        }
    }

    /// Refuses a topic that could never take an append.
    pub fn check_replication_factor(&self, replication_factor: usize) -> Result<(), ConfigError> {
        match self.min_insync_replicas {
            Some(min_insync_replicas) if min_insync_replicas as usize > replication_factor => {
                Err(ConfigError::MinInsyncAboveReplicationFactor { min_insync_replicas, replication_factor })
            }
            _ => Ok(()),
        }
    }

    /// What an append must reach that asked for `requested`: that, and no less than the floor.
    pub fn required_durability(&self, requested: Durability) -> Durability {
        self.durability_floor.max(requested)
    }

    fn check_together(&self) -> Result<(), ConfigError> {
        let Self { max_message_bytes, segment_bytes, .. } = *self;
        if max_message_bytes > segment_bytes {
            return Err(ConfigError::MessageLargerThanSegment { max_message_bytes, segment_bytes });
        }
        Ok(())
    }
}

/// One config of one topic as a user should see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveConfig {
    /// The key.
    pub key: &'static str,
    /// The value that holds.
    pub value: String,
    /// Whether nobody set it.
    pub is_default: bool,
}

/// Every config with the value that holds, by key, for a topic whose partitions have `replication_factor`
/// replicas.
pub fn effective_configs(
    configs: &BTreeMap<String, String>,
    replication_factor: usize,
) -> Vec<EffectiveConfig> {
    TOPIC_CONFIGS
        .iter()
        .map(|spec| match configs.get(spec.key) {
            Some(value) => EffectiveConfig { key: spec.key, value: value.clone(), is_default: false },
            None if spec.key == MIN_INSYNC_REPLICAS && replication_factor > 2 => EffectiveConfig {
                key: spec.key,
                value: (replication_factor / 2 + 1).to_string(),
                is_default: true,
            },
            None => EffectiveConfig { key: spec.key, value: spec.default.to_owned(), is_default: true },
        })
        .collect()
}

/// The row of `key`, or a refusal that names the nearest known one.
pub fn spec(key: &str) -> Result<&'static ConfigSpec, ConfigError> {
    TOPIC_CONFIGS
        .iter()
        .find(|spec| spec.key == key)
        .ok_or_else(|| ConfigError::UnknownKey { key: shown(key), nearest: nearest_key(key) })
}

fn check(spec: &ConfigSpec, value: &str) -> Result<(), ConfigError> {
    let fits = value.len() <= VALUE_LEN_MAX
        && match spec.kind {
            ValueKind::Number { min, max } => value.parse::<i64>().is_ok_and(|n| (min..=max).contains(&n)),
            ValueKind::OneOf(words) => words.contains(&value),
        };
    if !fits {
        return Err(ConfigError::BadValue { key: spec.key, value: shown(value), allowed: allowed(spec) });
    }
    match spec.honoured {
        Honoured::Only(only) if value != only => {
            Err(ConfigError::NotEnforced { key: spec.key, value: value.to_owned(), only })
        }
        Honoured::Only(_) | Honoured::Every => Ok(()),
    }
}

fn allowed(spec: &ConfigSpec) -> String {
    match (spec.honoured, spec.kind) {
        (Honoured::Only(only), _) => format!("{only} for now"),
        (Honoured::Every, ValueKind::Number { min, max }) => format!("a whole number from {min} to {max}"),
        (Honoured::Every, ValueKind::OneOf(words)) => format!("one of {}", words.join(", ")),
    }
}

fn default_of(key: &str) -> &'static str {
    TOPIC_CONFIGS.iter().find(|spec| spec.key == key).map_or("", |spec| spec.default)
}

fn bad_value(key: &str, value: &str) -> ConfigError {
    match spec(key) {
        Ok(spec) => ConfigError::BadValue { key: spec.key, value: shown(value), allowed: allowed(spec) },
        Err(unknown) => unknown,
    }
}

fn number<N: std::str::FromStr>(key: &str, value: &str) -> Result<N, ConfigError> {
    value.parse().map_err(|_| bad_value(key, value))
}

fn durability(value: &str) -> Result<Durability, ConfigError> {
    value.parse().map_err(|_| bad_value(DURABILITY, value))
}

fn nearest_key(key: &str) -> Option<&'static str> {
    if key.len() > SUGGEST_KEY_LEN_MAX {
        return None;
    }
    // Similarity is 1 for the same word and 0 for nothing in common; below 0.8 a hint misleads.
    let similarity =
        |spec: &ConfigSpec| strsim::jaro_winkler(&key.to_lowercase().replace(['_', '-'], "."), spec.key);
    let nearest = TOPIC_CONFIGS.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)))?;
    (similarity(nearest) >= 0.8).then_some(nearest.key)
}

/// At most the first 64 characters, so that a message stays one line.
fn shown(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.to_owned(),
    }
}

/// Entry for fuzzing: lines of `key=value`, as a stranger would set them.
#[doc(hidden)]
pub fn fuzz_topic_config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().filter_map(|line| line.split_once('='));
    let configs: BTreeMap<String, String> =
        lines.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    match TopicConfig::parse(&configs) {
        Ok(config) => {
            let effective = effective_configs(&configs, 3);
            let effective = effective.into_iter().map(|config| (config.key.to_owned(), config.value));
            let again = TopicConfig::parse(&effective.collect()).expect("what holds may also be set");
            assert_eq!(again.min_insync_replicas(3), config.min_insync_replicas(3));
        }
        Err(error) => {
            let line = error.to_string();
            assert!(line.len() < 1024 && !line.contains('\n'), "not one line: {line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(key: &str, value: &str) -> Result<TopicConfig, ConfigError> {
        TopicConfig::parse(&BTreeMap::from([(key.to_owned(), value.to_owned())]))
    }

    #[test]
    fn the_table_is_sorted_and_accepts_its_own_defaults() {
        assert!(TOPIC_CONFIGS.is_sorted_by(|a, b| a.key < b.key));
        for spec in TOPIC_CONFIGS {
            assert_eq!(parse(spec.key, spec.default).err(), None, "{} refuses its default", spec.key);
            if let Honoured::Only(only) = spec.honoured {
                assert_eq!(spec.default, only, "{} defaults to what nothing enforces", spec.key);
            }
        }
    }

    #[test]
    fn nothing_set_is_every_default() {
        let config = TopicConfig::parse(&BTreeMap::new()).expect("defaults parse");
        assert_eq!(config.durability_floor, Durability::IsrFlushed);
        assert_eq!(config.max_message_bytes, 1_048_588);
        assert_eq!(config.segment_bytes, 1 << 30);
        let min_insync: Vec<usize> = (1..=6).map(|factor| config.min_insync_replicas(factor)).collect();
        assert_eq!(min_insync, [1, 1, 2, 3, 3, 4]);
    }

    #[test]
    fn the_floor_lifts_what_asks_for_less() {
        let config = parse("durability", "leader_flushed").expect("a level");
        assert_eq!(config.required_durability(Durability::Received), Durability::LeaderFlushed);
        assert_eq!(config.required_durability(Durability::IsrFlushed), Durability::IsrFlushed);
    }

    #[test]
    fn effective_configs_say_what_was_set() {
        let set = BTreeMap::from([("durability".to_owned(), "received".to_owned())]);
        let effective = effective_configs(&set, 3);
        assert_eq!(effective.len(), TOPIC_CONFIGS.len());
        let find = |key| effective.iter().find(|config| config.key == key).expect("every key is there");
        assert_eq!((find("durability").value.as_str(), find("durability").is_default), ("received", false));
        let min_insync = find("min.insync.replicas");
        assert_eq!((min_insync.value.as_str(), min_insync.is_default), ("2", true));
    }

    #[test]
    fn long_keys_and_values_stay_one_line() {
        let long = "x".repeat(1 << 20);
        let unknown = parse(&long, "1").expect_err("unknown").to_string();
        assert!(unknown.len() < 200, "{} bytes", unknown.len());
        let zeros = format!("{}1", "0".repeat(1 << 20));
        let bad = parse("min.insync.replicas", &zeros).expect_err("too long").to_string();
        assert!(bad.len() < 250, "{} bytes", bad.len());
    }
}
