//! The configs of a topic, typed: what a user set, and defaults for the rest.
//!
//! Owns what the configs mean together. Never accepts a value that nothing acts on: a user who sets it would
//! believe it. Names and meanings are Kafka's; `durability` is ours.

mod error;
mod table;

use std::collections::BTreeMap;

use corrente_protocol::frame::Durability;

pub use error::ConfigError;
use table::{
    CLEANUP_POLICY, DELETE_RETENTION_MS, DURABILITY, MAX_COMPACTION_LAG_MS, MAX_MESSAGE_BYTES,
    MESSAGE_TIMESTAMP_TYPE, MIN_CLEANABLE_DIRTY_RATIO, MIN_COMPACTION_LAG_MS, MIN_INSYNC_REPLICAS,
    RETENTION_BYTES, RETENTION_MS, SEGMENT_MS, ppm,
};
pub use table::{ConfigSpec, Honoured, SEGMENT_BYTES, TOPIC_CONFIGS, VALUE_LEN_MAX, ValueKind, spec};

/// The configs of one topic, typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// No append is acknowledged below this level.
    pub durability_floor: Durability,
    /// The largest record batch in bytes, header included.
    pub max_message_bytes: u64,
    /// Whose time a record carries.
    pub timestamp_type: TimestampType,
    /// The size in bytes at which a segment is sealed.
    pub segment_bytes: u64,
    /// The age at which a segment is sealed.
    pub segment_ms: u64,
    /// What happens to old segments.
    pub cleanup: CleanupPolicy,
    /// How long a record is kept where segments are deleted; `None` keeps it for ever.
    pub retention_ms: Option<u64>,
    /// How much a partition keeps where segments are deleted; `None` keeps all.
    pub retention_bytes: Option<u64>,
    /// How segments are compacted where they are.
    pub compaction: CompactionConfig,
    /// As set; [`min_insync_replicas`](Self::min_insync_replicas) knows the default.
    min_insync_replicas: Option<u32>,
}

/// What happens to old segments; at least one of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// They are deleted by age and size.
    pub delete: bool,
    /// The last record of each key is kept, others go.
    pub compact: bool,
}

/// When records are compacted, and how long deletions stay visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionConfig {
    /// For so long a record is left alone.
    pub min_lag_ms: u64,
    /// After so long a record is compacted in any case.
    pub max_lag_ms: u64,
    /// For so long after its compaction a deletion can still be read.
    pub delete_retention_ms: u64,
    /// The part of a log that must be new for a compaction to be worth it, in millionths.
    pub dirty_ratio_ppm: u32,
}

/// Whose time a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// That of the broker when it appended.
    LogAppendTime,
}

impl TopicConfig {
    /// Reads the configs that were set; all others have their defaults. Refuses the first one, by key, that
    /// this broker does not know or does not act on.
    pub fn parse(configs: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        for (key, value) in configs {
            spec(key)?.check(value)?;
        }
        let values = Values { configs };
        let config = Self {
            durability_floor: values.word(DURABILITY, |word| word.parse().ok())?,
            max_message_bytes: values.number(MAX_MESSAGE_BYTES)?,
            timestamp_type: values.word(MESSAGE_TIMESTAMP_TYPE, TimestampType::from_word)?,
            segment_bytes: values.number(SEGMENT_BYTES)?,
            segment_ms: values.number(SEGMENT_MS)?,
            cleanup: values.word(CLEANUP_POLICY, CleanupPolicy::from_words)?,
            retention_ms: values.limit(RETENTION_MS)?,
            retention_bytes: values.limit(RETENTION_BYTES)?,
            compaction: CompactionConfig {
                min_lag_ms: values.number(MIN_COMPACTION_LAG_MS)?,
                max_lag_ms: values.number(MAX_COMPACTION_LAG_MS)?,
                delete_retention_ms: values.number(DELETE_RETENTION_MS)?,
                dirty_ratio_ppm: values.word(MIN_CLEANABLE_DIRTY_RATIO, ppm)?,
            },
            min_insync_replicas: match configs.contains_key(MIN_INSYNC_REPLICAS) {
                true => Some(values.number(MIN_INSYNC_REPLICAS)?),
                false => None,
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
        let CompactionConfig { min_lag_ms, max_lag_ms, .. } = self.compaction;
        if min_lag_ms > max_lag_ms {
            return Err(ConfigError::CompactionLags { min_lag_ms, max_lag_ms });
        }
        Ok(())
    }
}

impl CleanupPolicy {
    fn from_words(words: &str) -> Option<Self> {
        let names = |wanted| words.split(',').any(|word| word == wanted);
        let policy = Self { delete: names("delete"), compact: names("compact") };
        (policy.delete || policy.compact).then_some(policy)
    }
}

impl TimestampType {
    fn from_word(word: &str) -> Option<Self> {
        match word {
            "CreateTime" => Some(Self::CreateTime),
            "LogAppendTime" => Some(Self::LogAppendTime),
            _ => None,
        }
    }
}

/// Values that were checked against the table, and its defaults.
struct Values<'a> {
    configs: &'a BTreeMap<String, String>,
}

impl Values<'_> {
    fn word<T>(&self, key: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<T, ConfigError> {
        let spec = spec(key)?;
        let value = self.configs.get(key).map_or(spec.default, String::as_str);
        read(value).ok_or_else(|| spec.refuse(value))
    }

    fn number<N: std::str::FromStr>(&self, key: &str) -> Result<N, ConfigError> {
        self.word(key, |value| value.parse().ok())
    }

    /// A limit, or none where it is -1.
    fn limit(&self, key: &str) -> Result<Option<u64>, ConfigError> {
        Ok(u64::try_from(self.number::<i64>(key)?).ok())
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

    const DAY_MS: u64 = 24 * 60 * 60 * 1000;

    fn parse_all(configs: &[(&str, &str)]) -> Result<TopicConfig, ConfigError> {
        let configs = configs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        TopicConfig::parse(&configs.collect())
    }

    fn parse(key: &str, value: &str) -> Result<TopicConfig, ConfigError> {
        parse_all(&[(key, value)])
    }

    #[test]
    fn nothing_set_is_every_default() {
        let config = parse_all(&[]).expect("defaults parse");
        assert_eq!(config.durability_floor, Durability::IsrFlushed);
        assert_eq!(config.max_message_bytes, 1_048_588);
        assert_eq!(config.segment_bytes, 1 << 30);
        assert_eq!(config.segment_ms, 7 * DAY_MS);
        assert_eq!(config.cleanup, CleanupPolicy { delete: true, compact: false });
        assert_eq!((config.retention_ms, config.retention_bytes), (Some(7 * DAY_MS), None));
        assert_eq!(config.timestamp_type, TimestampType::CreateTime);
        let compaction = CompactionConfig {
            min_lag_ms: 0,
            max_lag_ms: i64::MAX as u64,
            delete_retention_ms: DAY_MS,
            dirty_ratio_ppm: 500_000,
        };
        assert_eq!(config.compaction, compaction);
        let min_insync: Vec<usize> = (1..=6).map(|factor| config.min_insync_replicas(factor)).collect();
        assert_eq!(min_insync, [1, 1, 2, 3, 3, 4]);
    }

    #[test]
    fn each_key_moves_its_own_field() {
        let default = parse_all(&[]).expect("defaults parse");
        let only = |key, value, changed: fn(&mut TopicConfig)| {
            let mut expected = default.clone();
            changed(&mut expected);
            assert_ne!(expected, default, "{key}");
            assert_eq!(parse(key, value), Ok(expected), "{key}={value}");
        };
        only("cleanup.policy", "compact", |c| c.cleanup = CleanupPolicy { delete: false, compact: true });
        for both in ["compact,delete", "delete,compact"] {
            only("cleanup.policy", both, |c| c.cleanup = CleanupPolicy { delete: true, compact: true });
        }
        only("retention.ms", "-1", |c| c.retention_ms = None);
        only("retention.ms", "0", |c| c.retention_ms = Some(0));
        only("retention.bytes", "5", |c| c.retention_bytes = Some(5));
        only("segment.ms", "1", |c| c.segment_ms = 1);
        only("message.timestamp.type", "LogAppendTime", |c| c.timestamp_type = TimestampType::LogAppendTime);
        only("min.cleanable.dirty.ratio", "0.25", |c| c.compaction.dirty_ratio_ppm = 250_000);
        only("min.compaction.lag.ms", "9", |c| c.compaction.min_lag_ms = 9);
        only("max.compaction.lag.ms", "9", |c| c.compaction.max_lag_ms = 9);
        only("delete.retention.ms", "0", |c| c.compaction.delete_retention_ms = 0);
    }

    #[test]
    fn values_out_of_their_bounds_are_refused_with_what_is_allowed() {
        for (key, value) in [
            ("retention.ms", "-2"),
            ("retention.bytes", "9223372036854775808"),
            ("segment.ms", "0"),
            ("max.compaction.lag.ms", "0"),
            ("min.compaction.lag.ms", "-1"),
            ("delete.retention.ms", "1h"),
            ("cleanup.policy", "compact, delete"),
            ("cleanup.policy", ""),
            ("message.timestamp.type", "createtime"),
            ("min.cleanable.dirty.ratio", "1.1"),
        ] {
            let error = parse(key, value).expect_err("refused").to_string();
            let begin = format!("config {key} is {value:?}, allowed is ");
            assert!(error.starts_with(&begin), "{error}");
        }
    }

    #[test]
    fn compaction_must_not_be_late_before_it_may_begin() {
        let lags = |min, max| parse_all(&[("min.compaction.lag.ms", min), ("max.compaction.lag.ms", max)]);
        assert!(lags("7", "7").is_ok());
        assert_eq!(
            lags("8", "7").expect_err("refused").to_string(),
            "config min.compaction.lag.ms is 8, more than max.compaction.lag.ms 7"
        );
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
