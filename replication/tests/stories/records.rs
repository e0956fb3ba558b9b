//! The bytes of metadata records: golden, round trip, and bytes from strangers.

use std::collections::{BTreeMap, BTreeSet};

use corrente_protocol::ids::{LeaderEpoch, NodeId, PartitionIndex, TopicId, TopicName};
use corrente_replication::fuzz::metadata_record;
use corrente_replication::metadata::{
    BrokerRegistrationRecord, ClusterIdentityRecord, DecodeError, MetadataRecord, PartitionRecord,
    ProducerIdsRecord, RECORD_LEN_MAX, RemoveTopicRecord, TopicConfigRecord, TopicRecord,
};
use proptest::prelude::*;

fn one_of_each() -> Vec<MetadataRecord> {
    let id = TopicId([0xa1; 16]);
    let text = |text: &str| text.to_owned();
    vec![
        MetadataRecord::Topic(TopicRecord {
            id,
            name: TopicName::new("orders").expect("a valid name"),
            configs: BTreeMap::from([
                (text("durability"), text("received")),
                (text("segment.bytes"), text("1048576")),
            ]),
        }),
        MetadataRecord::RemoveTopic(RemoveTopicRecord { id }),
        MetadataRecord::TopicConfig(TopicConfigRecord {
            id,
            set: BTreeMap::from([(text("retention.ms"), text("-1"))]),
            unset: BTreeSet::from([text("durability"), text("segment.bytes")]),
        }),
        MetadataRecord::Partition(PartitionRecord {
            topic: id,
            index: PartitionIndex(300),
            leader: Some(NodeId(0)),
            leader_epoch: LeaderEpoch(5),
            partition_epoch: 9,
            replicas: vec![NodeId(0), NodeId(1), NodeId(200)],
            isr: vec![NodeId(0)],
            elr: vec![NodeId(1)],
        }),
        MetadataRecord::BrokerRegistration(BrokerRegistrationRecord {
            node: NodeId(1),
            incarnation: [0xb2; 16],
            broker_epoch: 3,
            host: text("rack-1"),
            port: 7400,
            shards: 4,
            data_dirs: vec![[0xc3; 16]],
        }),
        MetadataRecord::ClusterIdentity(ClusterIdentityRecord { cluster: [0xd4; 16] }),
        MetadataRecord::ProducerIds(ProducerIdsRecord { end: 3000 }),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("two hex digits");
    (0..text.len()).step_by(2).map(digit).collect()
}

/// These bytes lie in metadata logs: a version that writes others must still read them.
#[test]
fn the_bytes_never_change() {
    let golden = include_str!("../../testdata/records.hex");
    let actual: String = one_of_each().iter().map(|record| hex(&record.encode()) + "\n").collect();
    assert_eq!(actual, golden, "the bytes of metadata records changed");
    for (line, record) in golden.lines().zip(one_of_each()) {
        assert_eq!(MetadataRecord::decode(&unhex(line)), Ok(record));
    }
}

#[test]
fn strangers_get_one_clear_line() {
    let topic = one_of_each()[0].encode();
    let refused = |bytes: &[u8]| MetadataRecord::decode(bytes).expect_err("must be refused").to_string();

    assert_eq!(refused(&[]), "metadata record of 0 bytes holds nothing");
    assert_eq!(refused(&[1]), "metadata record of 1 bytes holds nothing");
    assert_eq!(refused(&[2, 10, 0]), "metadata record has version 2, this broker reads up to 1");
    // Tag 15, length-delimited, empty.
    assert_eq!(refused(&[1, 0x7a, 0]), "metadata record of unknown kind 15, written by a newer broker");
    // Two kinds in one envelope.
    let mut two = topic.to_vec();
    two.extend_from_slice(&one_of_each()[1].encode()[1..]);
    assert!(refused(&two).starts_with("metadata record holds 78 bytes of one kind"), "{}", refused(&two));
    // A topic id of 3 bytes.
    assert_eq!(refused(&[1, 0x12, 5, 0x0a, 3, 1, 2, 3]), "remove topic record: id has 3 bytes, not 16");
    let too_long = vec![1; RECORD_LEN_MAX + 1];
    assert_eq!(MetadataRecord::decode(&too_long), Err(DecodeError::TooLong { len: RECORD_LEN_MAX + 1 }));
}

#[test]
fn an_unknown_field_of_a_known_kind_is_skipped() {
    let record = one_of_each()[1].clone();
    let mut newer = record.encode().to_vec();
    // Field 15, a varint; the kind grows by its two bytes.
    newer.extend_from_slice(&[0x78, 7]);
    newer[2] += 2;
    assert_eq!(MetadataRecord::decode(&newer), Ok(record));
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        metadata_record(&bytes);
        let mut with_version = vec![1];
        with_version.extend_from_slice(&bytes);
        metadata_record(&with_version);
    }

    #[test]
    fn damaged_records_are_decoded_or_refused(
        which in 0usize..7,
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = one_of_each()[which].encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        metadata_record(&bytes);
        metadata_record(&bytes[..at]);
    }

    #[test]
    fn partitions_round_trip(
        topic in any::<[u8; 16]>(),
        numbers in any::<(u32, u32, u32)>(),
        leader in proptest::option::of(any::<u32>()),
        replicas in proptest::collection::vec(any::<u32>(), 0..9),
    ) {
        let nodes: Vec<NodeId> = replicas.into_iter().map(NodeId).collect();
        let record = MetadataRecord::Partition(PartitionRecord {
            topic: TopicId(topic),
            index: PartitionIndex(numbers.0),
            leader: leader.map(NodeId),
            leader_epoch: LeaderEpoch(numbers.1),
            partition_epoch: numbers.2,
            isr: nodes.iter().copied().step_by(2).collect(),
            elr: nodes.iter().copied().skip(1).step_by(2).collect(),
            replicas: nodes,
        });
        prop_assert_eq!(MetadataRecord::decode(&record.encode()), Ok(record));
    }
}
