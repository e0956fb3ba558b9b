//! What a run's topic keeps, and for how long: one way in which records go for each seed, or none.

use corrente_history::{Cleanup, Topic};
use fastrand::Rng;

/// The settings of a run's topic but for the size of its segments.
#[derive(Clone, Debug, Default)]
pub struct TopicPlan {
    /// What becomes of old records. Tombstones are sent where it compacts.
    pub cleanup: Cleanup,
    /// The age at which they go, where it deletes.
    pub retention_ms: Option<u64>,
    /// The size beyond which they go, where it deletes.
    pub retention_bytes: Option<u64>,
    /// How long a tombstone is kept, where it compacts.
    pub delete_retention_ms: u64,
    /// Whether the broker stamps records.
    pub append_time: bool,
    /// Whether the administrator deletes old records now and then.
    pub deletes_records: bool,
    /// The age at which segments end.
    pub segment_ms: u64,
    /// How often the broker looks for what it no longer keeps.
    pub upkeep_interval_ms: u64,
}

impl TopicPlan {
    /// The topic of a seed. Every other one keeps everything.
    pub fn draw(seed: u64) -> TopicPlan {
        let mut rng = Rng::with_seed(seed ^ 0x70_91c5_0000_0001);
        let rng = &mut rng;
        let keeps_all =
            TopicPlan { segment_ms: 604_800_000, upkeep_interval_ms: 30_000, ..TopicPlan::default() };
        if rng.bool() {
            return keeps_all;
        }
        let cleanup = pick(rng, &[Cleanup::Delete, Cleanup::Compact, Cleanup::CompactAndDelete]);
        let deletes = cleanup.deletes();
        TopicPlan {
            cleanup,
            retention_ms: pick(rng, &[None, Some(300), Some(3_000), Some(20_000)]).filter(|_| deletes),
            retention_bytes: pick(rng, &[None, None, Some(100_000), Some(2_000_000)]).filter(|_| deletes),
            delete_retention_ms: pick(rng, &[0, 200, 5_000]),
            append_time: rng.u8(..4) == 0,
            deletes_records: deletes && rng.bool(),
            segment_ms: pick(rng, &[20, 200, 3_000]),
            upkeep_interval_ms: pick(rng, &[10, 100, 1_000]),
        }
    }

    /// The topic as the history has it.
    pub fn facts(&self, topic: u32, name: &str, partitions: u32) -> Topic {
        Topic {
            topic,
            name: name.to_owned(),
            partitions,
            cleanup: self.cleanup,
            retention_ms: self.retention_ms,
            retention_bytes: self.retention_bytes,
            delete_retention_ms: self.delete_retention_ms,
            append_time: self.append_time,
            ..Topic::default()
        }
    }

    /// The topic as the broker is told of it.
    pub fn configs(&self, segment_bytes: u64) -> Vec<(String, String)> {
        let policy = match self.cleanup {
            Cleanup::Delete => "delete",
            Cleanup::Compact => "compact",
            Cleanup::CompactAndDelete => "compact,delete",
        };
        let kept = |limit: Option<u64>| limit.map_or("-1".to_owned(), |limit| limit.to_string());
        let stamp = if self.append_time { "LogAppendTime" } else { "CreateTime" };
        let configs = [
            ("segment.bytes", segment_bytes.to_string()),
            ("segment.ms", self.segment_ms.to_string()),
            ("max.message.bytes", (segment_bytes / 2).to_string()),
            ("cleanup.policy", policy.to_owned()),
            ("retention.ms", kept(self.retention_ms)),
            ("retention.bytes", kept(self.retention_bytes)),
            ("delete.retention.ms", self.delete_retention_ms.to_string()),
            // Whatever can be compacted is.
            ("min.cleanable.dirty.ratio", "0.01".to_owned()),
            ("message.timestamp.type", stamp.to_owned()),
        ];
        configs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

fn pick<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())]
}
