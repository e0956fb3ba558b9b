//! Brings a shard to what the metadata says: opens, leads, reconfigures and removes partitions.

use std::rc::Rc;
use std::sync::Arc;

use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{Offset, ShardId, TopicPartition};
use corrente_replication::metadata::{Change, Delta, Topic};
use corrente_replication::topic_config::{CompactionConfig, SEGMENT_BYTES, TimestampType, TopicConfig};
use corrente_storage::{CompactionPolicy, CreateError, FoundLog, Health, Log, LogPolicy, RecoveryError};

use futures_util::stream::{self, StreamExt};

use crate::awaiting_room;
use crate::error::Refusal;
use crate::partition::{Partition, Terms};
use crate::shard::{Place, Shard, Slot};
use crate::topology::Directory;

/// Room in a frame for what surrounds a record batch.
const FRAME_OVERHEAD: usize = 4 * 1024;

/// Logs that are made at the same time: each waits for the file system's journal, whose commits serve many.
const CREATED_AT_ONCE: usize = 32;

/// Takes over a changed directory. What cannot be done for one partition makes that partition
/// unavailable and leaves the others alone.
pub async fn apply(shard: &Rc<Shard>, directory: Arc<Directory>, delta: &Delta) {
    shard.set_directory(directory.clone());
    let mut appeared = Vec::new();
    for (id, change) in &delta.partitions {
        match change {
            Change::Vanished => remove(shard, *id).await,
            Change::Appeared if directory.home(*id) == Some(shard.id) => appeared.push(*id),
            Change::Changed => follow_election(shard, *id),
            Change::Appeared => {}
        }
    }
    stream::iter(&appeared).for_each_concurrent(CREATED_AT_ONCE, |id| create(shard, *id)).await;
    // A log that no checkpoint knows would be made anew, empty, if its drive were gone at the next start.
    if !appeared.is_empty()
        && let Err(error) = shard.storage.checkpoint_now().await
    {
        tracing::warn!(%error, "a checkpoint could not be written; it is tried again");
    }
    for (topic, _) in delta.topics.iter().filter(|(_, change)| **change == Change::Changed) {
        let Some(topic) = directory.image.topic(*topic) else { continue };
        for partition in shard.partitions_of(topic.id()) {
            partition.set_config(topic.config().clone(), log_policy(shard, topic));
        }
    }
}

async fn create(shard: &Rc<Shard>, id: TopicPartition) {
    let slot = match shard.storage.place_log(id).await {
        Ok(log) => lead(shard, id, log),
        Err(CreateError::NoRoom) => awaiting_room::refuse(shard, id),
        Err(error) => unavailable(id, ErrorCode::StorageError, &error),
    };
    shard.insert(id, slot);
}

/// What earlier starts left behind of a log.
pub enum Origin {
    /// Its files.
    Found(FoundLog),
    /// What a checkpoint knows of it; the files are gone.
    Lost(FoundLog),
    /// Nothing: a crash came between the metadata and the log.
    New,
}

impl Origin {
    /// The shard that had it last.
    pub fn home(&self) -> Option<ShardId> {
        match self {
            Origin::Found(log) | Origin::Lost(log) => log.home,
            Origin::New => None,
        }
    }
}

/// Opens what the metadata says lives here. Only a log of which nothing is known is made anew.
pub async fn open(shard: &Rc<Shard>, id: TopicPartition, origin: Origin) {
    match origin {
        Origin::Found(found) => open_found(shard, found).await,
        Origin::Lost(lost) => shard.insert(id, lost_log(shard, &lost)),
        Origin::New => create(shard, id).await,
    }
}

async fn open_found(shard: &Rc<Shard>, found: FoundLog) {
    let id = found.id;
    let slot = match shard.storage.open_log(found).await {
        Ok((log, recovered)) => {
            if recovered.truncated_bytes > 0 {
                tracing::info!(partition = %id, ?recovered, "cut a torn tail: none of it was acknowledged");
            }
            if let Health::Quarantined(reason) = log.health() {
                tracing::error!(partition = %id, %reason, "the log is in quarantine: what is whole is read, \
                                                           nothing is appended or removed");
            }
            lead(shard, id, log)
        }
        Err(error) => {
            let code = match error {
                RecoveryError::Damaged { .. } => ErrorCode::Damaged,
                _ => ErrorCode::StorageError,
            };
            unavailable(id, code, &error)
        }
    };
    shard.insert(id, slot);
}

fn lost_log(shard: &Rc<Shard>, lost: &FoundLog) -> Slot {
    // What is known of it must survive the checkpoints of this start.
    shard.storage.keep_closed(lost);
    let end = lost.checkpoint.map_or(Offset(0), |entry| entry.flushed_offset);
    let gone = format!("log {} was flushed up to offset {end} and is gone", lost.id);
    let mut failed = shard.storage.drives().into_iter().filter(|drive| drive.failed.is_some()).peekable();
    if failed.peek().is_none() {
        let line = format!("{gone}: is a data directory missing?");
        return unavailable(lost.id, ErrorCode::Damaged, &line);
    }
    let dirs: Vec<String> = failed.map(|drive| drive.path.display().to_string()).collect();
    let line = format!("{gone}: data directory {} cannot be used", dirs.join(" or "));
    unavailable(lost.id, ErrorCode::StorageError, &line)
}

async fn remove(shard: &Rc<Shard>, id: TopicPartition) {
    if shard.remove(id).is_none() {
        return;
    }
    if let Err(error) = shard.storage.delete_log(id).await {
        tracing::warn!(
            partition = %id,
            %error,
            "a removed partition's log is still on disk; the next start removes it"
        );
    }
}

fn follow_election(shard: &Rc<Shard>, id: TopicPartition) {
    let Place::Here(Slot::Serving(partition)) = shard.place(id) else { return };
    let directory = shard.directory();
    let Some(elected) = directory.image.partition(id) else { return };
    if elected.leader == Some(shard.node) && partition.leader_epoch() < Some(elected.leader_epoch) {
        partition.become_leader(elected.leader_epoch);
    }
}

/// Leads the partition with this log, by the metadata of this moment.
pub fn lead(shard: &Rc<Shard>, id: TopicPartition, log: Log) -> Slot {
    let directory = shard.directory();
    let (Some(topic), Some(partition)) = (directory.image.topic(id.topic), directory.image.partition(id))
    else {
        let gone = format!("partition {id} is not in the metadata");
        return Slot::Unavailable(Refusal::new(ErrorCode::UnknownTopicOrPartition, gone));
    };
    log.set_policy(log_policy(shard, topic));
    Slot::Serving(Partition::lead(
        log,
        Terms {
            id,
            node: shard.node,
            epoch: partition.leader_epoch,
            config: topic.config().clone(),
            batch_bytes_max: shard.frame_len_max() as usize - FRAME_OVERHEAD,
        },
    ))
}

/// A topic's configs as its logs understand them.
fn log_policy(shard: &Shard, topic: &Topic) -> LogPolicy {
    let TopicConfig { segment_ms, cleanup, retention_ms, retention_bytes, compaction, .. } = *topic.config();
    let CompactionConfig { min_lag_ms, max_lag_ms, delete_retention_ms, dirty_ratio_ppm } = compaction;
    let compaction = CompactionPolicy { min_lag_ms, max_lag_ms, delete_retention_ms, dirty_ratio_ppm };
    LogPolicy {
        segment_bytes: segment_bytes(shard, topic),
        segment_ms,
        delete: cleanup.delete,
        retention_ms,
        retention_bytes,
        uses_reserve: false,
        compaction: cleanup.compact.then_some(compaction),
        append_time: topic.config().timestamp_type == TimestampType::LogAppendTime,
    }
}

/// The topic's own setting, or the node's where the topic has none.
pub fn segment_bytes(shard: &Shard, topic: &Topic) -> u64 {
    match topic.configs().contains_key(SEGMENT_BYTES) {
        true => topic.config().segment_bytes,
        false => shard.config.log.segment_bytes.0,
    }
}

/// Says that a partition is not served, and why.
pub fn unavailable(id: TopicPartition, code: ErrorCode, error: &dyn std::fmt::Display) -> Slot {
    tracing::error!(partition = %id, %error, "the partition is not served; nothing of it was changed");
    Slot::Unavailable(Refusal::new(code, error.to_string()))
}
