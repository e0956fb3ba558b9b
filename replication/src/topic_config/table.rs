//! The one table of topic configs: names, values, defaults, and which values this broker acts on.
//!
//! Owns what a single value may be. Never says how configs bear on each other: that is the typed config's.

use super::ConfigError;

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
    /// A number from 0 to 1.
    Ratio,
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

/// How finely a ratio is told apart: by millionths.
const PPM: f64 = 1_000_000.0;

pub(super) const CLEANUP_POLICY: &str = "cleanup.policy";
pub(super) const COMPRESSION_TYPE: &str = "compression.type";
pub(super) const DELETE_RETENTION_MS: &str = "delete.retention.ms";
pub(super) const DURABILITY: &str = "durability";
pub(super) const MAX_COMPACTION_LAG_MS: &str = "max.compaction.lag.ms";
pub(super) const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
pub(super) const MESSAGE_TIMESTAMP_TYPE: &str = "message.timestamp.type";
pub(super) const MIN_CLEANABLE_DIRTY_RATIO: &str = "min.cleanable.dirty.ratio";
pub(super) const MIN_COMPACTION_LAG_MS: &str = "min.compaction.lag.ms";
pub(super) const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
pub(super) const RETENTION_BYTES: &str = "retention.bytes";
pub(super) const RETENTION_MS: &str = "retention.ms";
pub(super) const SEGMENT_MS: &str = "segment.ms";
/// The size in bytes at which a segment is followed by a new one.
pub const SEGMENT_BYTES: &str = "segment.bytes";

/// Every config that a topic has, by key.
pub const TOPIC_CONFIGS: &[ConfigSpec] = &[
    ConfigSpec {
        key: CLEANUP_POLICY,
        kind: ValueKind::OneOf(&["delete", "compact", "compact,delete", "delete,compact"]),
        default: "delete",
        honoured: Honoured::Every,
        doc: "what happens to old segments: deleted by retention, compacted by key, or both",
    },
    ConfigSpec {
        key: COMPRESSION_TYPE,
        kind: ValueKind::OneOf(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
        default: "producer",
        honoured: Honoured::Only("producer"),
        doc: "how batches are compressed on disk; producer keeps them as they were sent",
    },
    ConfigSpec {
        key: DELETE_RETENTION_MS,
        kind: ValueKind::Number { min: 0, max: i64::MAX },
        default: "86400000",
        honoured: Honoured::Every,
        doc: "how many milliseconds a compacted topic still shows that a key was deleted",
    },
    ConfigSpec {
        key: DURABILITY,
        kind: ValueKind::OneOf(&["received", "leader_flushed", "replicated", "isr_flushed"]),
        default: "isr_flushed",
        honoured: Honoured::Every,
        doc: "the floor: no append is acknowledged before it reached this, whatever its request asked for",
    },
    ConfigSpec {
        key: MAX_COMPACTION_LAG_MS,
        kind: ValueKind::Number { min: 1, max: i64::MAX },
        default: "9223372036854775807",
        honoured: Honoured::Every,
        doc: "after how many milliseconds a record is compacted however little else there is to do",
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
        honoured: Honoured::Every,
        doc: "whether a record keeps its producer's timestamp or takes the broker's",
    },
    ConfigSpec {
        key: MIN_CLEANABLE_DIRTY_RATIO,
        kind: ValueKind::Ratio,
        default: "0.5",
        honoured: Honoured::Every,
        doc: "which part of a log must be new since the last compaction for the next one to be worth it",
    },
    ConfigSpec {
        key: MIN_COMPACTION_LAG_MS,
        kind: ValueKind::Number { min: 0, max: i64::MAX },
        default: "0",
        honoured: Honoured::Every,
        doc: "for how many milliseconds a record is left alone by compaction",
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
        honoured: Honoured::Every,
        doc: "how many bytes a partition keeps; -1 keeps all",
    },
    ConfigSpec {
        key: RETENTION_MS,
        kind: ValueKind::Number { min: -1, max: i64::MAX },
        default: "604800000",
        honoured: Honoured::Every,
        doc: "how many milliseconds a record is kept; -1 keeps it for ever",
    },
    ConfigSpec {
        key: SEGMENT_BYTES,
        kind: ValueKind::Number { min: 1024 * 1024, max: i32::MAX as i64 },
        default: "1073741824",
        honoured: Honoured::Every,
        doc: "the size in bytes at which a segment is sealed and the next one begun",
    },
    ConfigSpec {
        key: SEGMENT_MS,
        kind: ValueKind::Number { min: 1, max: i64::MAX },
        default: "604800000",
        honoured: Honoured::Every,
        doc: "after how many milliseconds a segment is sealed and the next one begun",
    },
];

/// The row of `key`, or a refusal that names the nearest known one.
pub fn spec(key: &str) -> Result<&'static ConfigSpec, ConfigError> {
    TOPIC_CONFIGS
        .iter()
        .find(|spec| spec.key == key)
        .ok_or_else(|| ConfigError::UnknownKey { key: shown(key), nearest: nearest_key(key) })
}

impl ConfigSpec {
    /// Refuses a value that the config never takes, or that nothing acts on yet.
    pub(super) fn check(&self, value: &str) -> Result<(), ConfigError> {
        let fits = value.len() <= VALUE_LEN_MAX
            && match self.kind {
                ValueKind::Number { min, max } => {
                    value.parse::<i64>().is_ok_and(|n| (min..=max).contains(&n))
                }
                ValueKind::Ratio => ppm(value).is_some(),
                ValueKind::OneOf(words) => words.contains(&value),
            };
        if !fits {
            return Err(self.refuse(value));
        }
        match self.honoured {
            Honoured::Only(only) if value != only => {
                Err(ConfigError::NotEnforced { key: self.key, value: value.to_owned(), only })
            }
            Honoured::Only(_) | Honoured::Every => Ok(()),
        }
    }

    pub(super) fn refuse(&self, value: &str) -> ConfigError {
        let allowed = match (self.honoured, self.kind) {
            (Honoured::Only(only), _) => format!("{only} for now"),
            (Honoured::Every, ValueKind::Number { min, max }) => {
                format!("a whole number from {min} to {max}")
            }
            (Honoured::Every, ValueKind::Ratio) => "a number from 0 to 1".to_owned(),
            (Honoured::Every, ValueKind::OneOf(words)) => format!("one of {}", words.join(" | ")),
        };
        ConfigError::BadValue { key: self.key, value: shown(value), allowed }
    }
}

/// A ratio in millionths.
pub(super) fn ppm(value: &str) -> Option<u32> {
    let ratio = value.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio))?;
    Some((ratio * PPM).round() as u32)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_accepts_its_own_defaults() {
        assert!(TOPIC_CONFIGS.is_sorted_by(|a, b| a.key < b.key));
        for spec in TOPIC_CONFIGS {
            assert_eq!(spec.check(spec.default), Ok(()), "{} refuses its default", spec.key);
            if let Honoured::Only(only) = spec.honoured {
                assert_eq!(spec.default, only, "{} defaults to what nothing enforces", spec.key);
            }
        }
    }

    #[test]
    fn ratios_are_numbers_from_0_to_1() {
        for (value, expected) in
            [("0", 0), ("0.5", 500_000), ("1", 1_000_000), ("1.0", 1_000_000), (".25", 250_000), ("1e-6", 1)]
        {
            assert_eq!(ppm(value), Some(expected), "{value}");
        }
        for value in ["", "-0.1", "1.000001", "NaN", "inf", "half", "0,5"] {
            assert_eq!(ppm(value), None, "{value}");
        }
        let error = spec(MIN_CLEANABLE_DIRTY_RATIO).expect("a key").check("2").expect_err("too much");
        assert_eq!(
            error.to_string(),
            "config min.cleanable.dirty.ratio is \"2\", allowed is a number from 0 to 1"
        );
    }
}
