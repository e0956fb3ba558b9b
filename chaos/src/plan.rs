//! What a load does, drawn from a seed: topics, producers of different kinds, readers.

use std::ops::Range;
use std::time::Duration;

use corrente_client::{Compression, Durability};
use corrente_history::{Cleanup, Header};
use fastrand::Rng;

/// A load.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Draws what is left to chance during the run.
    pub seed: u64,
    /// Topics that are there all the time.
    pub topics: Vec<TopicPlan>,
    /// Producers.
    pub producers: Vec<ProducerPlan>,
    /// Readers that follow each topic's tail.
    pub tail_readers: u32,
    /// Readers that begin somewhere, read to the end, and begin again.
    pub catch_up_readers: u32,
    /// Topics that are created, used and deleted again, one after the other, by so many clients.
    pub churners: u32,
    /// How long a record, or a question of an administrator, is tried; beyond any fault if nobody may be turned away.
    pub patience: Duration,
    /// How long a request may take before its connection is given up.
    pub request_timeout: Duration,
}

/// A topic.
#[derive(Clone, Debug)]
pub struct TopicPlan {
    /// Its name.
    pub name: String,
    /// Its partitions.
    pub partitions: u32,
    /// Different keys.
    pub keys: u32,
    /// When segments end.
    pub segment_bytes: u64,
    /// The same by age.
    pub segment_ms: u64,
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
    /// Whether an administrator deletes old records now and then.
    pub deletes_records: bool,
}

/// A producer.
#[derive(Clone, Debug)]
pub struct ProducerPlan {
    /// Its topic's place in the plan.
    pub topic: usize,
    /// Records a second, about.
    pub rate: u32,
    /// Records that may be unacknowledged.
    pub unacked_max: u32,
    /// Bytes of filler in most records.
    pub filler: Range<usize>,
    /// Bytes of filler in one record of thirty.
    pub filler_seldom: Range<usize>,
    /// When a batch is full.
    pub batch_bytes: usize,
    /// How long it may wait to become so.
    pub linger: Duration,
    /// How it is compressed.
    pub compression: Compression,
    /// What is asked for.
    pub durability: Durability,
    /// What it sends with.
    pub library: Library,
}

/// A client library that produces. Both are idempotent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Library {
    /// The SDK, at the native listener.
    Native,
    /// librdkafka, at the Kafka listener. It waits for the flush whatever else is asked for: idempotence demands it.
    Librdkafka,
}

impl Plan {
    /// The load of a seed: about three thousand records a second, two thousand of them through the SDK.
    pub fn draw(seed: u64) -> Plan {
        let mut rng = Rng::with_seed(seed ^ 0xc4a0_5000_0000_0001);
        let topics = draw_topics(&mut rng);
        let libraries = [Library::Native, Library::Native, Library::Librdkafka];
        let producers = libraries.iter().flat_map(|library| (0..topics.len()).map(|topic| (*library, topic)));
        let producers = producers.map(|(library, topic)| draw_producer(&mut rng, library, topic)).collect();
        Plan {
            seed,
            topics,
            producers,
            tail_readers: 1,
            catch_up_readers: 3,
            churners: 1,
            patience: Duration::from_secs(300),
            request_timeout: Duration::from_secs(5),
        }
    }

    /// What has to be said of such a load at the head of its history. `run` is the command that repeats it.
    pub fn header(&self, run: String) -> Header {
        Header {
            run,
            idempotent: true,
            in_order: true,
            patient: true,
            stall_ns_max: Some(60_000_000_000),
            ..Header::default()
        }
    }
}

impl TopicPlan {
    /// A topic that keeps everything.
    pub fn keeping_all(name: impl Into<String>, partitions: u32, keys: u32) -> TopicPlan {
        TopicPlan {
            name: name.into(),
            partitions,
            keys,
            segment_bytes: 1 << 20,
            segment_ms: 60_000,
            cleanup: Cleanup::Delete,
            retention_ms: None,
            retention_bytes: None,
            delete_retention_ms: 0,
            append_time: false,
            deletes_records: false,
        }
    }
}

/// One topic that keeps everything, and one for each way in which records go.
fn draw_topics(rng: &mut Rng) -> Vec<TopicPlan> {
    let mut named = |name| {
        let (partitions, keys) = (rng.u32(1..=4), pick(rng, &[3, 50, 2_000]));
        let append_time = rng.u8(..3) == 0;
        TopicPlan { append_time, ..TopicPlan::keeping_all(name, partitions, keys) }
    };
    let (kept, aged, compacted, both) =
        (named("kept"), named("aged"), named("compacted"), named("compacted-and-aged"));
    let aged = TopicPlan {
        segment_ms: pick(rng, &[500, 3_000]),
        retention_ms: pick(rng, &[None, Some(2_000), Some(15_000)]),
        retention_bytes: pick(rng, &[None, Some(2 << 20)]),
        deletes_records: rng.u8(..4) > 0,
        ..aged
    };
    let compacted = TopicPlan {
        segment_ms: pick(rng, &[500, 3_000]),
        cleanup: Cleanup::Compact,
        delete_retention_ms: pick(rng, &[0, 1_000, 20_000]),
        ..compacted
    };
    let both = TopicPlan {
        segment_ms: pick(rng, &[500, 3_000]),
        cleanup: Cleanup::CompactAndDelete,
        delete_retention_ms: pick(rng, &[0, 1_000, 20_000]),
        retention_ms: pick(rng, &[None, Some(15_000)]),
        deletes_records: true,
        ..both
    };
    vec![kept, aged, compacted, both]
}

fn draw_producer(rng: &mut Rng, library: Library, topic: usize) -> ProducerPlan {
    let durabilities = [Durability::IsrFlushed, Durability::LeaderFlushed, Durability::Received];
    ProducerPlan {
        topic,
        rate: pick(rng, &[100, 300, 600]),
        unacked_max: pick(rng, &[1, 20, 200, 1_000]),
        filler: 0..pick(rng, &[1, 100, 1_000]),
        filler_seldom: 0..pick(rng, &[1, 20_000, 100_000]),
        batch_bytes: pick(rng, &[1_000, 16_000, 256_000]),
        linger: Duration::from_millis(pick(rng, &[0, 0, 2, 20])),
        compression: pick(rng, &[Compression::None, Compression::None, Compression::Lz4, Compression::Zstd]),
        durability: pick(rng, &durabilities),
        library,
    }
}

fn pick<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())]
}
