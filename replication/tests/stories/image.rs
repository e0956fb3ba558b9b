//! The image follows from the records alone: by replay, by snapshot, through their bytes.

use std::collections::BTreeMap;

use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{
    LeaderEpoch, NodeId, Offset, PartitionIndex, TopicId, TopicName, TopicPartition,
};
use corrente_replication::controller::{
    BrokerRegistration, Command, Context, Limits, PRODUCER_ID_BLOCK, plan,
};
use corrente_replication::metadata::{
    ApplyError, Change, Delta, Image, MetadataRecord, PartitionRecord, ProducerIdsRecord, TopicRecord,
};
use proptest::prelude::*;

fn topic(id: u8, name: &str) -> MetadataRecord {
    let name = TopicName::new(name).expect("a valid name");
    MetadataRecord::Topic(TopicRecord { id: TopicId([id; 16]), name, configs: BTreeMap::new() })
}

fn partition(topic: u8, index: u32) -> PartitionRecord {
    PartitionRecord {
        topic: TopicId([topic; 16]),
        index: PartitionIndex(index),
        leader: Some(NodeId(1)),
        leader_epoch: LeaderEpoch(0),
        partition_epoch: 0,
        replicas: vec![NodeId(1)],
        isr: vec![NodeId(1)],
        elr: Vec::new(),
    }
}

fn refusal(image: &Image, record: PartitionRecord) -> String {
    let before = image.clone();
    let mut after = image.clone();
    let error = after.apply(&MetadataRecord::Partition(record)).expect_err("must not fit");
    assert_eq!(before, after, "a record that does not fit changed the image");
    error.to_string()
}

#[test]
fn a_record_that_does_not_fit_is_refused_and_changes_nothing() {
    let mut image = Image::new();
    image.apply(&topic(1, "a")).expect("fits");
    image.apply(&MetadataRecord::Partition(partition(1, 0))).expect("fits");
    let id = "01010101-0101-0101-0101-010101010101";

    let taken = image.apply(&topic(2, "a"));
    assert!(matches!(taken, Err(ApplyError::TopicNameInUse { .. })), "{taken:?}");
    let taken = image.apply(&topic(1, "b"));
    assert!(matches!(taken, Err(ApplyError::TopicIdInUse { .. })), "{taken:?}");
    assert_eq!(image.version(), Some(Offset(1)));

    let p = |change: fn(&mut PartitionRecord)| {
        let mut record = partition(1, 0);
        record.partition_epoch = 1;
        change(&mut record);
        refusal(&image, record)
    };
    assert!(p(|r| r.topic = TopicId([9; 16])).starts_with("unknown topic id 09090909"));
    assert!(p(|r| r.index = PartitionIndex(2)).ends_with("would leave a hole: the topic has 1 partitions"));
    assert!(p(|r| r.index = PartitionIndex(u32::MAX)).contains("hole"));
    assert!(p(|r| r.partition_epoch = 0).ends_with("partition epoch goes from 0 to 0"));
    assert!(p(|r| r.leader = None).ends_with("leader epoch goes from 0 to 0"));
    assert!(p(|r| r.replicas.clear()).ends_with("it has no replica"));
    assert!(p(|r| r.isr.clear()).ends_with("leader 1 is not in its isr"));
    assert!(p(|r| r.isr.push(NodeId(2))).ends_with("node 2 is in its isr, not in its replicas"));
    assert!(p(|r| r.replicas.push(NodeId(1))).ends_with("node 1 is twice in its replicas"));
    assert!(p(|r| r.elr.push(NodeId(1))).ends_with("node 1 is in its isr and in its elr"));
    assert!(p(|r| r.isr.clear()).contains(id));
}

#[test]
fn a_clone_is_a_snapshot() {
    let mut image = Image::new();
    image.apply_batch(&[topic(1, "a"), MetadataRecord::Partition(partition(1, 0))]).expect("fits");
    let snapshot = image.clone();
    let delta =
        image.apply_batch(&[topic(2, "b"), MetadataRecord::Partition(partition(1, 1))]).expect("fits");
    assert_eq!((snapshot.topic_count(), snapshot.partition_count()), (1, 1));
    assert_eq!((image.topic_count(), image.partition_count()), (2, 2));
    assert_eq!(delta.topics, BTreeMap::from([(TopicId([2; 16]), Change::Appeared)]));
    let added = TopicPartition { topic: TopicId([1; 16]), partition: PartitionIndex(1) };
    assert_eq!(delta.partitions, BTreeMap::from([(added, Change::Appeared)]));
    assert_eq!(image.delta_since(&snapshot), delta);
}

#[test]
fn producer_ids_only_grow_and_end() {
    let last = i64::MAX.unsigned_abs();
    let ids = |end| MetadataRecord::ProducerIds(ProducerIdsRecord { end });
    let mut image = Image::new();
    image.apply(&ids(1000)).expect("fits");
    for end in [0, 999, 1000, last + 1] {
        assert_eq!(image.apply(&ids(end)), Err(ApplyError::StaleProducerIds { have: 1000, new: end }));
    }
    assert_eq!((image.producer_ids_end(), image.version()), (1000, Some(Offset(0))));

    let context = Context { nodes: &[], topic_id: TopicId([0; 16]), limits: Limits::default() };
    image.apply(&ids(last - PRODUCER_ID_BLOCK)).expect("fits");
    assert_eq!(plan(&image, &Command::GrantProducerIds, &context), Ok(vec![ids(last)]));
    image.apply(&ids(last - PRODUCER_ID_BLOCK + 1)).expect("fits");
    let refusal =
        plan(&image, &Command::GrantProducerIds, &context).expect_err("the last ids do not fill a block");
    assert_eq!(refusal.code, ErrorCode::Internal);
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let name = || prop_oneof![Just("a"), Just("b"), Just("c"), Just("d")].prop_map(str::to_owned);
    let configs = || {
        let one = prop_oneof![
            Just(("durability", "received")),
            Just(("min.insync.replicas", "1")),
            Just(("segment.bytes", "2097152")),
            Just(("retention.ms", "-1")),
            Just(("retention.ms", "7")),
        ];
        proptest::collection::vec(one.prop_map(|(key, value)| (key.to_owned(), value.to_owned())), 0..3)
    };
    let unset = proptest::collection::vec(Just("segment.bytes".to_owned()), 0..2);
    let register = (0u32..3, 0u8..4).prop_map(|(node, incarnation)| {
        Command::RegisterBroker(BrokerRegistration {
            node: NodeId(node),
            incarnation: [incarnation; 16],
            host: "rack-1".to_owned(),
            port: 7400,
            shards: 2,
            data_dirs: vec![[incarnation; 16]],
        })
    });
    let one = prop_oneof![
        4 => (name(), 0u32..6, 0u16..4, configs()).prop_map(|(name, partitions, replication_factor, configs)| {
            Command::CreateTopic { name, partitions, replication_factor, configs }
        }),
        1 => name().prop_map(|name| Command::DeleteTopic { name, id: None }),
        2 => (name(), configs(), unset).prop_map(|(name, set, unset)| Command::AlterTopic { name, set, unset }),
        2 => (name(), 0u32..9).prop_map(|(name, total)| Command::AddPartitions { name, total }),
        2 => register,
        1 => Just(Command::GrantProducerIds),
        1 => (0u8..2).prop_map(|id| Command::IdentifyCluster { cluster: [id; 16] }),
    ];
    proptest::collection::vec(one, 0..40)
}

/// Merges are judged by their sum: what came and went may be told, what stayed must be.
fn same_news(told: &Delta, seen: &Delta) {
    assert_eq!(told.topics.keys().collect::<Vec<_>>(), seen.topics.keys().collect::<Vec<_>>());
    for (id, change) in &seen.partitions {
        assert_eq!(told.partitions.get(id), Some(change), "partition {id}");
    }
    assert_eq!((&told.brokers, told.cluster), (&seen.brokers, seen.cluster));
    assert_eq!(told.producer_ids, seen.producer_ids);
}

proptest! {
    #[test]
    fn replay_and_snapshot_give_the_same_image(commands in commands()) {
        let nodes = [NodeId(0), NodeId(1), NodeId(2)];
        let mut image = Image::new();
        let mut log = Vec::new();
        for (drawn, command) in (0..).zip(&commands) {
            let context = Context { nodes: &nodes, topic_id: TopicId([drawn; 16]), limits: Limits::default() };
            let before = image.clone();
            let Ok(records) = plan(&image, command, &context) else { continue };
            let told = image.apply_batch(&records).expect("a plan applies to the image it was made for");
            image.invariants();
            same_news(&told, &image.delta_since(&before));
            log.extend(records.iter().map(MetadataRecord::encode));
        }
        prop_assert_eq!(image.end_offset(), Offset(log.len() as u64));

        let mut replayed = Image::new();
        for bytes in &log {
            replayed.apply(&MetadataRecord::decode(bytes).expect("our own bytes")).expect("fits as it did");
        }
        prop_assert_eq!(&replayed, &image);

        let snapshot: Vec<MetadataRecord> = image.to_records().collect();
        let restored = Image::from_snapshot(image.end_offset(), snapshot).expect("fits as it did");
        prop_assert_eq!(&restored, &image);
        prop_assert!(restored.delta_since(&image).is_empty());
        let names: Vec<&str> = restored.topics().map(|topic| topic.name().as_str()).collect();
        prop_assert!(names.is_sorted());
    }
}
