//! Who leads a partition next.

use corrente_protocol::ids::{LeaderEpoch, NodeId, TopicPartition};

use crate::metadata::{Partition, PartitionRecord};

/// The first living member of the ISR in replica order, else of the ELR, which is the whole ISR then; else
/// nobody. Every election takes a new epoch, even if the same broker wins it.
///
/// `None` if nobody leads, nobody can, and so nothing changes.
pub fn elect(
    id: TopicPartition,
    partition: &Partition,
    lives: impl Fn(NodeId) -> bool,
) -> Option<PartitionRecord> {
    let first_of = |members: &[NodeId]| {
        partition.replicas.iter().copied().find(|node| members.contains(node) && lives(*node))
    };
    let mut record = partition.to_record(id);
    record.leader = first_of(&partition.isr);
    if record.leader.is_none()
        && let Some(eligible) = first_of(&partition.elr)
    {
        record.leader = Some(eligible);
        record.isr = vec![eligible];
        record.elr.retain(|node| *node != eligible);
    }
    if record.leader.is_none() && partition.leader.is_none() {
        return None;
    }
    record.leader_epoch = LeaderEpoch(next(id, "leader epoch", partition.leader_epoch.0));
    record.partition_epoch = next(id, "partition epoch", partition.partition_epoch);
    Some(record)
}

fn next(id: TopicPartition, what: &str, epoch: u32) -> u32 {
    match epoch.checked_add(1) {
        Some(next) => next,
        None => panic!("partition {id}: {what} {epoch} has no successor"),
    }
}
