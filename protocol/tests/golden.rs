//! The bytes of every message, hello, frame and batch, held against files that change only when the protocol does.
//!
//! `CORRENTE_GOLDEN_REWRITE=1 cargo test -p corrente-protocol --test golden` writes the files anew. A file of a
//! released version never changes: a new layout is a new version and a new file.

#![allow(clippy::disallowed_methods, reason = "reads and writes the golden files, on no shard")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use bytes::Bytes;
use corrente_protocol::api::*;
use corrente_protocol::frame::{FLAG_ERROR, request_frame, response_frame};
use corrente_protocol::hello::{ClientHello, ServerHello};
use corrente_protocol::record::Header;
use corrente_protocol::record_batch::{RecordBatchBuilder, stamp};
use corrente_protocol::wire::Writer;
use corrente_protocol::*;

const TOPIC: TopicId =
    TopicId([0xa1, 0xa2, 0xa3, 0xa4, 0xb1, 0xb2, 0x43, 0xb4, 0x81, 0x82, 1, 2, 3, 4, 5, 6]);
/// 2026-01-01T00:00:00Z, in ms.
const NOW_MS: i64 = 1_767_225_600_000;

#[test]
fn bytes_are_those_of_the_golden_files() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let golden = golden();
    if std::env::var_os("CORRENTE_GOLDEN_REWRITE").is_some() {
        std::fs::create_dir_all(&directory).unwrap();
        for (name, bytes) in &golden {
            std::fs::write(directory.join(name), hex_dump(bytes)).unwrap();
        }
    }
    for (name, bytes) in &golden {
        let stored =
            std::fs::read_to_string(directory.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(hex_dump(bytes), stored, "{name} is no longer what it was");
    }
    for entry in std::fs::read_dir(&directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(golden.contains_key(&name), "no message is behind the golden file {name}");
    }
}

fn golden() -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut put = |name: &str, bytes: &[u8]| {
        let before = files.insert(format!("{name}.hex"), bytes.to_vec());
        assert!(before.is_none(), "{name} stands here twice");
    };

    let client = ClientHello::new("golden", ShardId(3));
    assert_eq!(ClientHello::decode(&client.encode()), Ok(client.clone()));
    put("hello.client", &client.encode());
    let server = ServerHello {
        version: 1,
        error: ErrorCode::None,
        shards: 4,
        shard: ShardId(3),
        node: NodeId(1),
        frame_len_max: 16 << 20,
        flags: 0,
        text: String::new(),
    };
    assert_eq!(ServerHello::decode(&server.encode()), Ok(server.clone()));
    put("hello.server", &server.encode());
    put(
        "hello.server.refusal",
        &ServerHello::refusal(ErrorCode::UnsupportedVersion, "versions 1 to 1 are spoken").encode(),
    );

    put("batch.one", &batch(1, Compression::None));
    put("batch.three", &batch(3, Compression::None));
    for compression in [Compression::Snappy, Compression::Lz4] {
        // The other codecs may write other bytes from one release of theirs to the next.
        put(&format!("batch.hundred.{compression}"), &batch(100, compression));
    }

    for (api, request, response) in bodies() {
        put(&format!("{api}.request.v0"), &request);
        put(&format!("{api}.response.v0"), &response);
    }
    put("describe_topic.response.v0.quarantined", &body(&quarantined_topic()));
    let error = ErrorResponse { error: ErrorCode::Busy, message: Some("no room".to_owned()) };
    put("error.response", &body(&error));

    put(
        "frame.produce.request",
        &request_frame(request_header(), |w| produce_request().encode(0, w)).concat(),
    );
    put(
        "frame.produce.response",
        &response_frame(response_header(), |w| produce_response().encode(0, w)).concat(),
    );
    let refused = ResponseHeader { flags: FLAG_ERROR, receipt: Durability::Received, ..response_header() };
    put("frame.error.response", &response_frame(refused, |w| error.encode(0, w)).concat());
    files
}

/// The body, proven to be read as what it was written from.
fn body<T: Message + PartialEq + std::fmt::Debug>(message: &T) -> Vec<u8> {
    let mut writer = Writer::new();
    message.encode(0, &mut writer);
    let body = writer.finish().concat();
    assert_eq!(T::decode(0, Bytes::from(body.clone())).as_ref(), Ok(message));
    body
}

fn pair<R>(request: &R, response: &R::Response) -> (ApiKey, Vec<u8>, Vec<u8>)
where
    R: Request + PartialEq + std::fmt::Debug,
    R::Response: PartialEq + std::fmt::Debug,
{
    (R::API, body(request), body(response))
}

fn hex_dump(bytes: &[u8]) -> String {
    let mut dump = String::new();
    for (line, chunk) in bytes.chunks(16).enumerate() {
        write!(dump, "{:04x} ", line * 16).unwrap();
        for byte in chunk {
            write!(dump, " {byte:02x}").unwrap();
        }
        dump.push('\n');
    }
    dump
}

fn batch(records: i64, compression: Compression) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new(compression);
    let header = Header { key: "source".to_owned(), value: Some(Bytes::from_static(b"golden")) };
    for index in 0..records {
        let value = format!("value {index}");
        match index % 3 {
            0 => builder.push(NOW_MS + index, Some(b"key"), Some(value.as_bytes()), &[]),
            1 => builder.push(NOW_MS + index, None, Some(value.as_bytes()), std::slice::from_ref(&header)),
            _ => builder.push(NOW_MS - index, Some(b"key"), None, &[]),
        }
        .unwrap();
    }
    let mut batch = builder.build().to_vec();
    stamp(&mut batch, Offset(42), LeaderEpoch(7));
    batch
}

fn request_header() -> RequestHeader {
    RequestHeader {
        api: ApiKey::Produce,
        version: 0,
        flags: 0,
        correlation_id: 0x0102_0304_0506_0708,
        deadline_ms: 30_000,
        durability: Durability::IsrFlushed,
        body_len: 0,
    }
}

fn response_header() -> ResponseHeader {
    ResponseHeader { receipt: Durability::IsrFlushed, ..request_header().response() }
}

fn produce_request() -> ProduceRequest {
    let partition = |partition, expected_end_offset| ProducePartition {
        topic: TOPIC,
        partition: PartitionIndex(partition),
        expected_end_offset,
        batches: Bytes::from(batch(1, Compression::None)),
    };
    ProduceRequest::new(vec![partition(0, None), partition(5, Some(Offset(42)))])
}

fn produce_response() -> ProduceResponse {
    ProduceResponse {
        stage_times: None,
        partitions: vec![
            ProducePartitionResponse {
                topic: TOPIC,
                partition: PartitionIndex(0),
                error: ErrorCode::None,
                message: None,
                base_offset: Offset(42),
                end_offset: Offset(43),
                log_append_time_ms: -1,
                log_start_offset: Offset(10),
                receipt: Durability::IsrFlushed,
            },
            ProducePartitionResponse {
                topic: TOPIC,
                partition: PartitionIndex(5),
                error: ErrorCode::UnexpectedEndOffset,
                message: Some("the log ends at 50 and not at 42".to_owned()),
                base_offset: Offset::ZERO,
                end_offset: Offset(50),
                log_append_time_ms: -1,
                log_start_offset: Offset(10),
                receipt: Durability::Received,
            },
        ],
    }
}

fn bodies() -> Vec<(ApiKey, Vec<u8>, Vec<u8>)> {
    let config = ("retention.ms".to_owned(), "86400000".to_owned());
    vec![
        pair(&produce_request(), &produce_response()),
        fetch(),
        subscribe(),
        adjust_subscription(),
        list_offsets(),
        metadata(),
        pair(
            &CreateTopicRequest {
                name: "orders".to_owned(),
                partitions: 8,
                replication_factor: 0,
                configs: vec![config.clone()],
                validate_only: false,
            },
            &CreateTopicResponse { error: ErrorCode::None, message: None, id: TOPIC },
        ),
        pair(
            &DeleteTopicRequest { name: "orders".to_owned() },
            &DeleteTopicResponse {
                error: ErrorCode::UnknownTopicOrPartition,
                message: Some("no topic `orders`".to_owned()),
            },
        ),
        pair(
            &InitProducerIdRequest,
            &InitProducerIdResponse {
                error: ErrorCode::None,
                message: None,
                producer_id: 1234,
                producer_epoch: 0,
            },
        ),
        pair(
            &AlterTopicRequest {
                name: "orders".to_owned(),
                set: vec![config],
                unset: vec!["segment.bytes".to_owned()],
                validate_only: true,
            },
            &AlterTopicResponse { error: ErrorCode::None, message: None },
        ),
        pair(&DescribeTopicRequest { name: "orders".to_owned() }, &described_topic()),
        pair(
            &AddPartitionsRequest { name: "orders".to_owned(), total: 16, validate_only: false },
            &AddPartitionsResponse {
                error: ErrorCode::InvalidPartitions,
                message: Some("there are 32 already".to_owned()),
            },
        ),
        delete_records(),
    ]
}

fn fetch() -> (ApiKey, Vec<u8>, Vec<u8>) {
    let partition = |partition, leader_epoch| FetchPartition {
        topic: TOPIC,
        partition: PartitionIndex(partition),
        offset: Offset(42),
        max_bytes: 1 << 20,
        leader_epoch,
    };
    let request = FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 8 << 20,
        partitions: vec![partition(0, None), partition(5, Some(LeaderEpoch(7)))],
    };
    let response = FetchResponse {
        partitions: vec![
            FetchPartitionResponse {
                topic: TOPIC,
                partition: PartitionIndex(0),
                error: ErrorCode::None,
                message: None,
                high_watermark: Offset(43),
                log_start_offset: Offset(10),
                batches: vec![Bytes::from(batch(1, Compression::None))],
            },
            FetchPartitionResponse {
                topic: TOPIC,
                partition: PartitionIndex(5),
                error: ErrorCode::OffsetOutOfRange,
                message: Some("offset 42 is outside of 50 to 60".to_owned()),
                high_watermark: Offset(60),
                log_start_offset: Offset(50),
                batches: Vec::new(),
            },
        ],
    };
    pair(&request, &response)
}

fn subscribe() -> (ApiKey, Vec<u8>, Vec<u8>) {
    let partition = |partition, leader_epoch, end| SubscribePartition {
        topic: TOPIC,
        partition: PartitionIndex(partition),
        offset: Offset(42),
        leader_epoch,
        end,
    };
    let request = SubscribeRequest {
        heartbeat_ms: 500,
        credit: 16 << 20,
        max_bytes: 4 << 20,
        partitions: vec![partition(0, None, None), partition(5, Some(LeaderEpoch(7)), Some(Offset(60)))],
    };
    let response = FetchResponse {
        partitions: vec![FetchPartitionResponse {
            topic: TOPIC,
            partition: PartitionIndex(0),
            error: ErrorCode::None,
            message: None,
            high_watermark: Offset(43),
            log_start_offset: Offset(10),
            batches: vec![Bytes::from(batch(1, Compression::None))],
        }],
    };
    pair(&request, &response)
}

fn adjust_subscription() -> (ApiKey, Vec<u8>, Vec<u8>) {
    let request = AdjustSubscriptionRequest { subscription: 7, credit: 8 << 20, ends: false };
    pair(&request, &AdjustSubscriptionResponse { found: true })
}

fn list_offsets() -> (ApiKey, Vec<u8>, Vec<u8>) {
    let partition =
        |partition, spec| ListOffsetsPartition { topic: TOPIC, partition: PartitionIndex(partition), spec };
    let request = ListOffsetsRequest {
        partitions: vec![
            partition(0, OffsetSpec::Earliest),
            partition(1, OffsetSpec::Latest),
            partition(2, OffsetSpec::Timestamp(NOW_MS)),
            partition(3, OffsetSpec::MaxTimestamp),
        ],
    };
    let response = ListOffsetsResponse {
        partitions: vec![ListOffsetsPartitionResponse {
            topic: TOPIC,
            partition: PartitionIndex(0),
            error: ErrorCode::None,
            message: None,
            offset: Offset(10),
            timestamp_ms: -1,
            leader_epoch: LeaderEpoch(7),
        }],
    };
    pair(&request, &response)
}

fn metadata() -> (ApiKey, Vec<u8>, Vec<u8>) {
    let orders = TopicName::new("orders").unwrap();
    let missing = TopicName::new("missing").unwrap();
    let request = MetadataRequest { topics: Some(vec![orders.clone(), missing.clone()]) };
    let response = MetadataResponse {
        cluster_id: [0xc1; 16],
        metadata_version: 99,
        controller: NodeId(1),
        nodes: vec![NodeEndpoint { node: NodeId(1), host: "127.0.0.1".to_owned(), port: 7400, shards: 4 }],
        topics: vec![
            TopicMetadata {
                name: orders,
                id: TOPIC,
                error: ErrorCode::None,
                message: None,
                partitions: vec![PartitionMetadata {
                    index: PartitionIndex(0),
                    error: ErrorCode::None,
                    leader: NodeId(1),
                    shard: ShardId(3),
                    leader_epoch: LeaderEpoch(7),
                    replicas: vec![NodeId(1), NodeId(2)],
                    isr: vec![NodeId(1)],
                }],
            },
            TopicMetadata {
                name: missing,
                id: TopicId::NIL,
                error: ErrorCode::UnknownTopicOrPartition,
                message: Some("no topic `missing`".to_owned()),
                partitions: Vec::new(),
            },
        ],
    };
    pair(&request, &response)
}

fn described_topic() -> DescribeTopicResponse {
    DescribeTopicResponse {
        error: ErrorCode::None,
        message: None,
        id: TOPIC,
        configs: vec![TopicConfigEntry {
            key: "retention.ms".to_owned(),
            value: "86400000".to_owned(),
            is_default: false,
        }],
        partitions: vec![PartitionDescription {
            index: PartitionIndex(0),
            leader: NodeId(1),
            shard: ShardId(3),
            leader_epoch: LeaderEpoch(7),
            log_start_offset: Offset(10),
            high_watermark: Offset(43),
            log_end_offset: Offset(44),
            size_bytes: 4_096,
            data_dir: "/var/lib/corrente".to_owned(),
            error: ErrorCode::None,
            state: PartitionState::Online,
            reason: None,
        }],
    }
}

/// What the one partition looks like when it is damaged.
fn quarantined_topic() -> DescribeTopicResponse {
    let mut response = described_topic();
    response.partitions[0].error = ErrorCode::Damaged;
    response.partitions[0].state = PartitionState::Quarantined;
    response.partitions[0].reason = Some("offsets 12 to 20 are damaged".to_owned());
    response
}

fn delete_records() -> (ApiKey, Vec<u8>, Vec<u8>) {
    let partition = |partition, before| DeleteRecordsPartition {
        topic: TOPIC,
        partition: PartitionIndex(partition),
        before,
    };
    let request = DeleteRecordsRequest {
        partitions: vec![
            partition(0, DeleteBefore::Offset(Offset(42))),
            partition(5, DeleteBefore::HighWatermark),
        ],
    };
    let response = DeleteRecordsResponse {
        partitions: vec![
            DeleteRecordsPartitionResponse {
                topic: TOPIC,
                partition: PartitionIndex(0),
                error: ErrorCode::OffsetOutOfRange,
                message: Some("offset 42 is beyond the high watermark 40".to_owned()),
                log_start_offset: Offset::ZERO,
            },
            DeleteRecordsPartitionResponse {
                topic: TOPIC,
                partition: PartitionIndex(5),
                error: ErrorCode::None,
                message: None,
                log_start_offset: Offset(60),
            },
        ],
    };
    pair(&request, &response)
}
