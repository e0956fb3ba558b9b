//! Who owns what on this node: which shard is the home of each partition.
//!
//! Homes are this node's own affair. They are never part of a path, so that a start with another
//! number of shards moves ownership and copies no data.

use std::collections::BTreeMap;
use std::sync::Arc;

use corrente_protocol::ids::{ShardId, TopicPartition};
use corrente_replication::metadata::Image;

/// What every shard knows of the cluster and of its siblings: one immutable picture, replaced whole
/// when metadata changes.
#[derive(Clone, Debug)]
pub struct Directory {
    /// The cluster's metadata.
    pub image: Image,
    /// The home of each partition that this node holds.
    pub homes: Arc<BTreeMap<TopicPartition, ShardId>>,
}

impl Directory {
    /// The shard that owns the partition, if this node holds it.
    pub fn home(&self, partition: TopicPartition) -> Option<ShardId> {
        self.homes.get(&partition).copied()
    }
}

/// Gives every partition a home among `shards` shards.
///
/// No shard ends with more than its even share rounded up, and a partition leaves its `former` home
/// only where that home is gone or full. The result depends on nothing but the arguments.
pub fn assign_homes(
    partitions: impl IntoIterator<Item = (TopicPartition, Option<ShardId>)>,
    shards: u16,
) -> BTreeMap<TopicPartition, ShardId> {
    assert!(shards > 0, "a node has at least one shard");
    let partitions: BTreeMap<TopicPartition, Option<ShardId>> = partitions.into_iter().collect();
    let share_max = partitions.len().div_ceil(usize::from(shards));
    let mut load = vec![0_usize; usize::from(shards)];
    let mut homes = BTreeMap::new();
    let mut homeless = Vec::new();
    for (partition, former) in partitions {
        match former {
            Some(shard) if shard.0 < shards && load[usize::from(shard.0)] < share_max => {
                load[usize::from(shard.0)] += 1;
                homes.insert(partition, shard);
            }
            _ => homeless.push(partition),
        }
    }
    for partition in homeless {
        let shard = least_loaded(&load);
        load[usize::from(shard.0)] += 1;
        homes.insert(partition, shard);
    }
    homes
}

/// Adds homes for new partitions, leaving every present one where it is.
pub fn extend_homes(
    homes: &BTreeMap<TopicPartition, ShardId>,
    added: impl IntoIterator<Item = TopicPartition>,
    shards: u16,
) -> BTreeMap<TopicPartition, ShardId> {
    let mut load = vec![0_usize; usize::from(shards)];
    for shard in homes.values() {
        load[usize::from(shard.0)] += 1;
    }
    let mut homes = homes.clone();
    for partition in added {
        let shard = least_loaded(&load);
        load[usize::from(shard.0)] += 1;
        homes.insert(partition, shard);
    }
    homes
}

fn least_loaded(load: &[usize]) -> ShardId {
    let (shard, _) = load.iter().enumerate().min_by_key(|(_, count)| **count).expect("at least one shard");
    ShardId(u16::try_from(shard).expect("shards are counted in 16 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use corrente_protocol::ids::{PartitionIndex, TopicId};

    fn partition(i: u32) -> TopicPartition {
        TopicPartition { topic: TopicId([7; 16]), partition: PartitionIndex(i) }
    }

    fn rehome(homes: &BTreeMap<TopicPartition, ShardId>, shards: u16) -> BTreeMap<TopicPartition, ShardId> {
        assign_homes(homes.iter().map(|(p, s)| (*p, Some(*s))), shards)
    }

    fn moved(before: &BTreeMap<TopicPartition, ShardId>, after: &BTreeMap<TopicPartition, ShardId>) -> usize {
        before.iter().filter(|(p, s)| after[*p] != **s).count()
    }

    #[test]
    fn shares_are_even() {
        for shards in 1..6_u16 {
            let homes = assign_homes((0..17).map(|i| (partition(i), None)), shards);
            for shard in 0..shards {
                let count = homes.values().filter(|home| home.0 == shard).count();
                assert!(count <= 17_usize.div_ceil(usize::from(shards)), "{shards} shards");
            }
        }
    }

    #[test]
    fn another_number_of_shards_moves_no_more_than_it_must() {
        let two = assign_homes((0..16).map(|i| (partition(i), None)), 2);
        assert_eq!(moved(&two, &rehome(&two, 2)), 0);
        let four = rehome(&two, 4);
        assert_eq!(moved(&two, &four), 8);
        let one = rehome(&four, 1);
        assert_eq!(moved(&four, &one), 12);
    }

    #[test]
    fn new_partitions_leave_the_present_ones_alone() {
        let homes = assign_homes((0..3).map(|i| (partition(i), None)), 2);
        let more = extend_homes(&homes, [partition(3), partition(4)], 2);
        assert_eq!(moved(&homes, &more), 0);
        assert_eq!(more.len(), 5);
        assert_eq!(more.values().filter(|shard| shard.0 == 1).count(), 2);
    }
}
