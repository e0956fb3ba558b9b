//! Inputs that the entries understand: written by our own encoders, so that a change of a format changes them too.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use corrente_protocol::ids::{LeaderEpoch, NodeId, Offset, PartitionIndex, TopicId, TopicName};
use corrente_protocol::kafka::{
    self, api_versions, create_topics, delete_topics, fetch, find_coordinator, init_producer_id,
    list_offsets, metadata, produce,
};
use corrente_protocol::record::Header;
use corrente_protocol::record_batch::{HEADER_LEN, RecordBatchBuilder, stamp};
use corrente_protocol::wire::{TaggedWriter, Writer};
use corrente_protocol::{ApiKey, Compression, compression};
use corrente_replication::metadata::{
    BrokerRegistrationRecord, ClusterIdentityRecord, MetadataRecord, PartitionRecord, ProducerIdsRecord,
    RemoveTopicRecord, TopicConfigRecord, TopicRecord,
};
use corrente_replication::topic_config::TOPIC_CONFIGS;

/// One input of one target.
#[derive(Clone, Debug)]
pub struct Seed {
    pub target: String,
    pub name: String,
    pub bytes: Vec<u8>,
}

/// Everything that can be generated. Golden bytes and the example configuration are read where they lie.
pub fn generated(root: &Path) -> Vec<Seed> {
    let mut seeds = Seeds(Vec::new());
    messages(&mut seeds, &root.join("protocol/golden"));
    batches(&mut seeds);
    codecs(&mut seeds);
    wire(&mut seeds);
    for (target, name, bytes) in corrente_storage::fuzz::seeds() {
        seeds.put(target, name, bytes);
    }
    metadata_records(&mut seeds);
    configs(&mut seeds, &root.join("deploy/corrente.toml"));
    answers(&mut seeds);
    strangers(&mut seeds);
    strangers_of_kafka(&mut seeds);
    kafka(&mut seeds);
    seeds.0
}

struct Seeds(Vec<Seed>);

impl Seeds {
    fn put(&mut self, target: &str, name: &str, bytes: impl Into<Vec<u8>>) {
        self.0.push(Seed { target: target.to_owned(), name: name.to_owned(), bytes: bytes.into() });
    }
}

fn messages(seeds: &mut Seeds, golden: &Path) {
    let read = |name: &str| {
        let path = golden.join(format!("{name}.hex"));
        unhex(&fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    };
    for api in ApiKey::ALL.map(ApiKey::name) {
        for kind in ["request", "response"] {
            seeds.put(&format!("api_{api}"), kind, read(&format!("{api}.{kind}.v0")));
        }
    }
    seeds.put("api_error", "busy", read("error.response"));
    let frames = ["frame.produce.request", "frame.produce.response", "frame.error.response"];
    for name in frames {
        seeds.put("frame", name.trim_start_matches("frame."), read(name));
    }
    seeds.put("frame", "two", [read(frames[1]), read(frames[2])].concat());
    for name in ["hello.client", "hello.server", "hello.server.refusal"] {
        seeds.put("hello", name.trim_start_matches("hello."), read(name));
    }
}

/// A line of our hex files: the place, then up to sixteen bytes.
fn unhex(dump: &str) -> Vec<u8> {
    let bytes = dump.lines().flat_map(|line| line.split_whitespace().skip(1));
    bytes.map(|byte| u8::from_str_radix(byte, 16).expect("two hex digits")).collect()
}

fn batches(seeds: &mut Seeds) {
    let one = batch(1, Compression::None);
    seeds.put("batch_header", "one", &one[..HEADER_LEN]);
    seeds.put("record", "key", &one[HEADER_LEN..]);
    let two = batch(2, Compression::None);
    let second = HEADER_LEN + (one.len() - HEADER_LEN);
    seeds.put("record", "headers", &two[second..]);
    for compression in Compression::ALL {
        seeds.put("batch_records", compression.name(), batch(20, compression));
        seeds.put("batch_validate", compression.name(), batch(20, compression));
        seeds.put(
            "batch_round_trip",
            compression.name(),
            [vec![code(compression)], choices_of_records()].concat(),
        );
    }
    seeds.put("batch_validate", "two", [one, two].concat());
}

fn code(compression: Compression) -> u8 {
    u8::try_from(compression.code()).expect("five codecs")
}

fn batch(records: u32, compression: Compression) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new(compression);
    let header = Header { key: "source".to_owned(), value: Some(Bytes::from_static(b"seed")) };
    for index in 0..records {
        let value = format!("value {index}");
        match index % 3 {
            0 => builder.push(1_000, Some(b"key"), Some(value.as_bytes()), &[]),
            1 => builder.push(1_007, None, Some(value.as_bytes()), std::slice::from_ref(&header)),
            _ => builder.push(993, Some(b"key"), None, &[]),
        }
        .expect("a small record");
    }
    let mut batch = builder.build().to_vec();
    stamp(&mut batch, Offset(42), LeaderEpoch(7));
    batch
}

/// Three records as the entry draws them: time, key, value, headers.
fn choices_of_records() -> Vec<u8> {
    let mut choices = Vec::new();
    for number in 0..3_u8 {
        choices.extend_from_slice(&(1_000 + u64::from(number)).to_le_bytes());
        choices.push(number);
        choices.extend_from_slice(&[3, 0, b'k', b'e', b'y'][..if number == 0 { 0 } else { 5 }]);
        choices.extend_from_slice(&[1, 40, 0]);
        choices.extend_from_slice(&[b'v'; 40]);
        choices.push(number);
        for _ in 0..number {
            choices.extend_from_slice(&[1, 0, b'h', 1, 2, 0, b'x', b'y']);
        }
    }
    choices
}

fn codecs(seeds: &mut Seeds) {
    let text = b"never twice the same river; ".repeat(20);
    let long: Vec<u8> = (0..40_000_u32).flat_map(|n| (n / 900).to_le_bytes()).take(60_000).collect();
    for codec in &Compression::ALL[1..] {
        let target = format!("codec_{codec}");
        for (name, data) in [("text", &text), ("long", &long)] {
            seeds.put(&target, name, compression::compress(*codec, data).expect("it shrinks"));
        }
    }
}

fn wire(seeds: &mut Seeds) {
    let mut tags = TaggedWriter::new();
    tags.field(1, |w| w.put_u32(11));
    tags.field(9, |w| w.put_u32(12));
    let mut w = Writer::new();
    // Before each value stands which kind of value the entry is to read.
    w.put_u8(4);
    tags.finish(&mut w);
    w.put_u8(0);
    w.put_bytes(Bytes::from_static(b"bytes"));
    w.put_u8(1);
    w.put_str("text");
    w.put_u8(2);
    w.put_list(&[1, 2, 3], |w, n| w.put_u64(*n));
    w.put_u8(3);
    w.put_list(&[(), ()], |w, ()| w.put_no_tags());
    w.put_u8(5);
    w.put_bool(true);
    w.put_u8(6);
    w.put_uuid([6; 16]);
    w.put_u8(7);
    w.put_option(Some(&-7), |w, n| w.put_i64(*n));
    seeds.put("wire", "every-kind", w.finish().concat());
}

/// The same for the Kafka listener; `corrente_sim::fuzz::kafka` reads them.
fn strangers_of_kafka(seeds: &mut Seeds) {
    const STOP: u8 = 0;
    const CUT: u8 = 1;
    const CONNECT: u8 = 0;
    const HEAR: u8 = 3;
    // Which of the apis served, which version of it, which name, partition and number; then what is its own.
    let ask = |fields: [u8; 5], own: &[u8]| [&[5][..], &fields, own, &[HEAR]].concat();
    let create = ask([6, 5, 0, 0, 5], &[0]);
    let produce = |acks: u8, codec: u8| ask([0, 7, 0, 1, 2], &[&[acks, codec, 5, 0][..], b"hello"].concat());
    let fetch = |version: u8, number: u8| ask([1, version, 0, 1, number], &[1]);
    let life = [
        vec![CONNECT],
        ask([5, 3, 0, 0, 0], &[]),
        create.clone(),
        ask([3, 9, 0, 0, 9], &[]),
        produce(1, 0),
        produce(3, 1),
        produce(2, 0),
        fetch(8, 2),
        fetch(0, 9),
        ask([2, 5, 0, 1, 1], &[]),
        ask([2, 0, 0, 1, 9], &[]),
        ask([4, 4, 0, 0, 0], &[]),
    ];
    let delete = ask([7, 5, 0, 0, 0], &[]);
    seeds.put("broker_kafka", "life", [vec![STOP], life.concat()].concat());
    seeds.put("broker_kafka", "life-cut", [vec![CUT], life.concat()].concat());
    seeds.put(
        "broker_kafka",
        "life-deleted",
        [vec![CUT], life.concat(), delete.clone(), create, delete].concat(),
    );
    // Asked for before it is there, and several things at once.
    let made = ask([3, 4, 1, 0, 9], &[]);
    let at_once = [&[CONNECT][..], &made, &produce(1, 0), &fetch(3, 2), &made].concat();
    let at_once: Vec<u8> = at_once.into_iter().filter(|byte| *byte != HEAR).collect();
    seeds.put("broker_kafka", "at-once", [&[STOP][..], &at_once, &[HEAR]].concat());
    let count_bomb =
        [&[2, 0, 0, 12, 0][..], &[0xff, 0xff, 0, 1, 0, 0, 0, 0], &[0x7f, 0xff, 0xff, 0xff]].concat();
    seeds.put("broker_kafka", "count-bomb", [vec![CUT, CONNECT], count_bomb, vec![HEAR]].concat());
    let babble = [&[1, 4, 0][..], b"GET ", &[HEAR]].concat();
    seeds.put("broker_kafka", "babble", [vec![STOP, CONNECT], babble].concat());
}

/// What Kafka's clients send, in the newest version of each; as a message it is led by what chooses kind and version.
fn kafka(seeds: &mut Seeds) {
    let batch = Bytes::from(batch(2, Compression::None));
    let produced = produce::ProducePartition { index: 0, records: vec![batch] };
    let fetched = fetch::FetchPartition { index: 0, max_bytes: 1 << 20, ..Default::default() };
    let name = || "topic".to_owned();
    let id = [7; 16];
    put_kafka(
        seeds,
        0,
        produce::ProduceRequest {
            acks: -1,
            timeout_ms: 30_000,
            topics: vec![produce::ProduceTopic { id, partitions: vec![produced], ..Default::default() }],
            ..Default::default()
        },
    );
    put_kafka(
        seeds,
        2,
        fetch::FetchRequest {
            topics: vec![fetch::FetchTopic { id, partitions: vec![fetched], ..Default::default() }],
            ..Default::default()
        },
    );
    let partition = list_offsets::ListOffsetsPartition { timestamp_ms: -1, ..Default::default() };
    put_kafka(
        seeds,
        4,
        list_offsets::ListOffsetsRequest {
            topics: vec![list_offsets::ListOffsetsTopic { name: name(), partitions: vec![partition] }],
            ..Default::default()
        },
    );
    let asked = metadata::MetadataRequestTopic { name: Some(name()), ..Default::default() };
    put_kafka(seeds, 6, metadata::MetadataRequest { topics: Some(vec![asked]), ..Default::default() });
    put_kafka(
        seeds,
        8,
        find_coordinator::FindCoordinatorRequest { keys: vec![name()], ..Default::default() },
    );
    put_kafka(
        seeds,
        10,
        api_versions::ApiVersionsRequest {
            client_software_name: "librdkafka".to_owned(),
            client_software_version: "2.0.2".to_owned(),
        },
    );
    let new = create_topics::NewTopic { name: name(), num_partitions: 3, ..Default::default() };
    put_kafka(seeds, 12, create_topics::CreateTopicsRequest { topics: vec![new], ..Default::default() });
    let doomed = delete_topics::DoomedTopic { name: Some(name()), id };
    put_kafka(seeds, 14, delete_topics::DeleteTopicsRequest { topics: vec![doomed], timeout_ms: 5 });
    put_kafka(seeds, 16, init_producer_id::InitProducerIdRequest::default());
}

fn put_kafka<M: kafka::Message>(seeds: &mut Seeds, choice: u8, message: M) {
    let served = M::API.served();
    let mut body = kafka::Writer::new(Writer::new(), M::API.is_flexible(served.newest));
    message.encode(served.newest, &mut body);
    let body = body.finish().concat();
    let name = format!("{:?}", M::API).to_lowercase();
    let version = u8::try_from(served.newest - served.oldest).expect("few versions are served");
    seeds.put("kafka_message", &name, [&[choice, version][..], &body].concat());
    let mut frame = Vec::new();
    frame.extend(M::API.code().to_be_bytes());
    frame.extend(served.newest.to_be_bytes());
    // The correlation id, no name of the client, no tagged fields.
    frame.extend([0, 0, 0, 1, 0xff, 0xff, 0]);
    frame.extend(body);
    seeds.put("kafka_request", &name, frame);
}

fn metadata_records(seeds: &mut Seeds) {
    let id = TopicId([0xa1; 16]);
    let topic = |id, name: &str| {
        let name = TopicName::new(name).expect("a topic name");
        let configs = BTreeMap::from([("durability".to_owned(), "received".to_owned())]);
        MetadataRecord::Topic(TopicRecord { id, name, configs })
    };
    let partition = |index, partition_epoch| {
        MetadataRecord::Partition(PartitionRecord {
            topic: id,
            index: PartitionIndex(index),
            leader: Some(NodeId(1)),
            leader_epoch: LeaderEpoch(5),
            partition_epoch,
            replicas: vec![NodeId(1), NodeId(2), NodeId(300)],
            isr: vec![NodeId(1)],
            elr: vec![NodeId(2)],
        })
    };
    let config = |key: &str, unset: &str| {
        let set = BTreeMap::from([(key.to_owned(), "1048576".to_owned())]);
        let unset = [unset.to_owned()].into();
        MetadataRecord::TopicConfig(TopicConfigRecord { id, set, unset })
    };
    let broker = |broker_epoch| {
        MetadataRecord::BrokerRegistration(BrokerRegistrationRecord {
            node: NodeId(1),
            incarnation: [0xb2; 16],
            broker_epoch,
            host: "rack-1".to_owned(),
            port: 7400,
            shards: 4,
            data_dirs: vec![[0xc3; 16]],
        })
    };
    let log = [
        ("cluster", MetadataRecord::ClusterIdentity(ClusterIdentityRecord { cluster: [0xd4; 16] })),
        ("producer_ids", MetadataRecord::ProducerIds(ProducerIdsRecord { end: 3000 })),
        ("broker", broker(3)),
        ("topic", topic(id, "orders")),
        ("partition", partition(0, 0)),
        ("partition.next", partition(1, 0)),
        ("partition.changed", partition(0, 1)),
        ("config", config("segment.bytes", "durability")),
        ("broker.again", broker(4)),
        ("remove", MetadataRecord::RemoveTopic(RemoveTopicRecord { id })),
        ("topic.again", topic(TopicId([0xa2; 16]), "orders")),
    ];
    let mut image = Vec::new();
    for (name, record) in log {
        let bytes = record.encode();
        image.extend_from_slice(&u16::try_from(bytes.len()).expect("a small record").to_le_bytes());
        image.extend_from_slice(&bytes);
        seeds.put("metadata_record", name, bytes);
        if matches!(name, "partition" | "broker.again") {
            seeds.put("image", name, image.clone());
        }
    }
    seeds.put("image", "whole", image);
}

fn configs(seeds: &mut Seeds, example: &Path) {
    let defaults: String =
        TOPIC_CONFIGS.iter().map(|spec| format!("{}={}\n", spec.key, spec.default)).collect();
    seeds.put("topic_config", "defaults", defaults);
    seeds.put("topic_config", "misspelt", "retention.mss=1\nsegment.bytes=many\n");
    let text = fs::read_to_string(example).expect("the example configuration");
    let setting = |line: &str| match line.strip_prefix('#') {
        Some(setting) if setting.starts_with(|first: char| first.is_ascii_lowercase()) => setting.to_owned(),
        _ => line.to_owned(),
    };
    let settings: String = text
        .lines()
        .map(setting)
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line + "\n")
        .collect();
    seeds.put("config", "every-setting", settings);
    seeds.put(
        "config",
        "dotted",
        "log.segment_bytes = \"64 MiB\"\nlisten = { advertise = \"[::1]:7400\" }\n",
    );
    seeds.put("config", "misspelt", "[shards]\ncont = 2\nplacement = \"glued\"\n");
}

/// What a broker says to the client, step by step; `corrente_client::fuzz` reads them.
fn answers(seeds: &mut Seeds) {
    // Zeros are steps that do nothing, so whatever an answer leaves of them is passed over.
    const NOTHING: [u8; 16] = [0; 16];
    const OPEN: [u8; 1] = [0];
    let greet = |wire| [&[1, wire][..], &NOTHING].concat();
    // No refusal, no error; then what the answer's own fields are.
    let answer = |wire, fields: &[u8]| [&[3, wire, 0, 0][..], fields, &NOTHING].concat();
    // To a question for offsets: from 0 to 9.
    let answers = |wire, count| vec![answer(wire, &[0, 0, 9, 0, 0, 0, 9, 0]); count].concat();
    let push = [9, 5, 0, b'h', b'e', b'l', b'l', b'o'];
    let time = |ms: u16| [&[8][..], &ms.to_le_bytes()].concat();

    let greeted = [&OPEN[..], &greet(0)].concat();
    // The first wire leads to whoever is there; what comes by metadata opens the second, to the leader.
    let led = [&greeted[..], &answers(0, 6), &OPEN, &greet(1), &answers(1, 8)].concat();
    let records = answer(1, &[2, 3, 0, b'a', b'b', b'c', 1, 0, b'd', 0, 9, 0]);
    seeds.put("client", "greeted", greeted.clone());
    seeds.put("client", "answered", [&greeted[..], &answers(0, 12)].concat());
    seeds.put("client", "led", led.clone());
    seeds.put("client", "records", [&led[..], &push, &records, &time(50), &records, &push].concat());
    let later =
        [&push[..], &time(1_000), &OPEN, &greet(0), &greet(1), &answers(0, 4), &answers(1, 4)].concat();
    seeds.put("client", "later", [&led[..], &later, &later].concat());
    seeds.put(
        "client",
        "reset",
        [&led[..], &push, &[7, 1], &time(500), &OPEN, &greet(1), &answers(1, 3)].concat(),
    );
    let body = [&[5, 0, 0, 4, 0][..], &NOTHING].concat();
    seeds.put("client", "strange-body", [greeted, body].concat());
    let hello = [&[2, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0][..], &NOTHING].concat();
    seeds.put("client", "strange-hello", [&OPEN[..], &hello].concat());
}

/// What a stranger says to a broker, step by step; `corrente_sim::fuzz` reads them.
fn strangers(seeds: &mut Seeds) {
    const STOP: u8 = 0;
    const CUT: u8 = 1;
    const CONNECT: [u8; 2] = [0, 255];
    const HEAR: u8 = 3;
    // As the broker knows it, no deadline, flushed.
    const HEADER: [u8; 3] = [0, 0, 3];
    let batch = |codec| [&[codec, 5, 0][..], b"hello"].concat();
    // Which api, which name, which of its topics, partition, offset, config, validate only, a number.
    let ask = |fields: [u8; 8]| [&[5][..], &fields, &batch(fields[0] % 5), &HEADER, &[HEAR]].concat();
    let create = ask([4, 0, 0, 0, 0, 32, 0, 3]);
    let produce = ask([0, 0, 0, 1, 0, 0, 0, 0]);
    let life: Vec<Vec<u8>> = vec![
        CONNECT.to_vec(),
        create.clone(),
        produce.clone(),
        produce.clone(),
        ask([1, 0, 0, 1, 0, 0, 0, 9]),
        ask([2, 0, 0, 1, 0, 0, 0, 1]),
        ask([3, 0, 0, 0, 0, 0, 0, 0]),
        ask([7, 0, 0, 0, 0, 0, 0, 0]),
        ask([6, 0, 0, 0, 0, 32, 0, 0]),
        ask([8, 0, 0, 0, 0, 0, 0, 5]),
        produce.clone(),
    ];
    let delete = ask([5, 0, 0, 0, 0, 0, 0, 0]);
    seeds.put("broker", "life", [vec![STOP], life.concat()].concat());
    seeds.put("broker", "life-cut", [vec![CUT], life.concat()].concat());
    seeds.put("broker", "life-deleted", [vec![CUT], life.concat(), delete.clone(), create, delete].concat());
    let count_bomb = [&[2, 1, 4, 0][..], &[0xff; 4], &HEADER].concat();
    let unknown = [&[2, 99, 0, 0][..], &HEADER, &[HEAR]].concat();
    seeds.put("broker", "strange-bodies", [vec![CUT], CONNECT.to_vec(), count_bomb, unknown].concat());
    let babble = [&[1, 4, 0][..], b"GET ", &[HEAR]].concat();
    seeds.put("broker", "babble", [vec![STOP], CONNECT.to_vec(), babble].concat());
}
