use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::wire;

fn written<M: Message>(message: M, version: i16) -> Bytes {
    let mut writer = Writer::new(wire::Writer::new(), M::API.is_flexible(version));
    message.encode(version, &mut writer);
    Bytes::from(writer.finish().concat())
}

/// In the newest version all of it comes back; in every older one what that version has. No beginning of it is taken
/// for it, and no flipped bit makes the reader panic.
fn assert_survives<M: Message + Clone + PartialEq + std::fmt::Debug>(message: &M) {
    let served = M::API.served();
    assert_eq!(M::decode(served.newest, written(message.clone(), served.newest)).as_ref(), Ok(message));
    for version in served.oldest..=served.newest {
        let body = written(message.clone(), version);
        let read = M::decode(version, body.clone()).expect("what was written is read");
        assert_eq!(written(read, version), body, "version {version}");
        for cut in 0..body.len() {
            assert!(M::decode(version, body.slice(..cut)).is_err(), "version {version}, {cut} bytes");
        }
        for bit in 0..body.len() * 8 {
            let mut flipped = body.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let _ = M::decode(version, Bytes::from(flipped));
        }
    }
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn the_table_is_in_order_and_every_kind_is_found_by_its_number() {
    assert!(SERVED.is_sorted_by_key(|served| served.api.code()));
    for served in &SERVED {
        assert_eq!(ApiKey::from_code(served.api.code()), Some(served.api));
        assert!(served.oldest <= served.newest && served.oldest_told() <= served.oldest);
    }
    assert_eq!(ApiKey::from_code(7), None);
}

#[test]
fn produce_survives() {
    use produce::*;
    let partition = ProducePartition { index: 3, records: vec![Bytes::from_static(b"batches")] };
    let topic = ProduceTopic { id: [7; 16], partitions: vec![partition], ..ProduceTopic::default() };
    let transactional_id = text("tx");
    assert_survives(&ProduceRequest { transactional_id, acks: -1, timeout_ms: 30_000, topics: vec![topic] });
    let partition = ProducedPartition {
        index: 3,
        error: 87,
        base_offset: 1 << 40,
        log_append_time_ms: -1,
        log_start_offset: 5,
        record_errors: vec![RecordError { batch_index: 1, message: text("too long") }],
        error_message: text("no"),
    };
    let topic = ProducedTopic { id: [7; 16], partitions: vec![partition], ..ProducedTopic::default() };
    assert_survives(&ProduceResponse { topics: vec![topic], throttle_ms: 9 });
}

#[test]
fn fetch_survives() {
    use fetch::*;
    let partition = FetchPartition {
        index: 1,
        current_leader_epoch: 4,
        fetch_offset: 77,
        last_fetched_epoch: 3,
        log_start_offset: 2,
        max_bytes: 1 << 20,
    };
    assert_survives(&FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 50 << 20,
        isolation_level: 1,
        session_id: 12,
        session_epoch: 13,
        topics: vec![FetchTopic { id: [1; 16], partitions: vec![partition], ..FetchTopic::default() }],
        forgotten: vec![ForgottenTopic { id: [2; 16], partitions: vec![0, 9], ..ForgottenTopic::default() }],
        rack_id: "north".to_owned(),
        ..FetchRequest::default()
    });
    let partition = FetchedPartition {
        index: 1,
        error: 0,
        high_watermark: 100,
        last_stable_offset: 99,
        log_start_offset: 2,
        aborted_transactions: Some(vec![AbortedTransaction { producer_id: 5, first_offset: 6 }]),
        preferred_read_replica: -1,
        records: vec![Bytes::from_static(b"batches")],
    };
    let topic = FetchedTopic { id: [1; 16], partitions: vec![partition], ..FetchedTopic::default() };
    assert_survives(&FetchResponse { throttle_ms: 1, error: 0, session_id: 12, topics: vec![topic] });
}

#[test]
fn list_offsets_survives() {
    use list_offsets::*;
    let partition =
        ListOffsetsPartition { index: 2, current_leader_epoch: 1, timestamp_ms: 1_700_000_000_000 };
    let topic = ListOffsetsTopic { name: "t".to_owned(), partitions: vec![partition] };
    assert_survives(&ListOffsetsRequest {
        replica_id: -1,
        isolation_level: 1,
        topics: vec![topic],
        timeout_ms: 7,
    });
    let partition = FoundPartition { index: 2, error: 3, timestamp_ms: 5, offset: 6, leader_epoch: 7 };
    let topic = FoundTopic { name: "t".to_owned(), partitions: vec![partition] };
    assert_survives(&ListOffsetsResponse { throttle_ms: 1, topics: vec![topic] });
}

#[test]
fn metadata_survives() {
    use metadata::*;
    let by_name = MetadataRequestTopic { id: [0; 16], name: text("t") };
    let by_id = MetadataRequestTopic { id: [3; 16], name: None };
    let request = MetadataRequest {
        topics: Some(vec![by_name]),
        allow_auto_topic_creation: false,
        include_cluster_authorized_operations: false,
        include_topic_authorized_operations: true,
    };
    assert_survives(&request);
    assert_eq!(
        MetadataRequest::decode(
            12,
            written(MetadataRequest { topics: Some(vec![by_id]), ..request.clone() }, 12)
        )
        .unwrap()
        .topics
        .unwrap()[0]
            .name,
        None
    );
    let all = MetadataRequest { topics: None, ..request };
    for version in [0, 1, 9, 13] {
        assert_eq!(MetadataRequest::decode(version, written(all.clone(), version)).unwrap().topics, None);
    }
    // An empty list means all topics in version 0, and none later.
    let none = Bytes::from_static(&[0, 0, 0, 0]);
    assert_eq!(MetadataRequest::decode(0, none.clone()).unwrap().topics, None);
    assert_eq!(MetadataRequest::decode(1, none).unwrap().topics, Some(Vec::new()));
    let partition = MetadataPartition {
        error: 5,
        index: 1,
        leader_id: 2,
        leader_epoch: 3,
        replicas: vec![2, 4],
        isr: vec![2],
        offline_replicas: vec![4],
    };
    let topic = MetadataTopic {
        error: 0,
        name: text("t"),
        id: [9; 16],
        is_internal: true,
        partitions: vec![partition],
        authorized_operations: OPERATIONS_NOT_TOLD,
    };
    assert_survives(&MetadataResponse {
        throttle_ms: 1,
        brokers: vec![MetadataBroker { node_id: 2, host: "host".to_owned(), port: 9092, rack: text("r") }],
        cluster_id: text("cluster"),
        controller_id: 2,
        topics: vec![topic],
        cluster_authorized_operations: 0,
        error: 0,
    });
}

#[test]
fn find_coordinator_survives() {
    use find_coordinator::*;
    let keys = vec!["one".to_owned(), "two".to_owned()];
    let request = FindCoordinatorRequest { key: String::new(), key_type: 1, keys: keys.clone() };
    assert_survives(&request);
    assert_eq!(request.into_keys(4), keys);
    let coordinator = Coordinator {
        key: "one".to_owned(),
        node_id: 2,
        host: "host".to_owned(),
        port: 9092,
        error: 15,
        error_message: text("none"),
    };
    assert_survives(&FindCoordinatorResponse { throttle_ms: 1, coordinators: vec![coordinator] });
}

#[test]
fn api_versions_survive() {
    use api_versions::*;
    assert_survives(&ApiVersionsRequest {
        client_software_name: "client".to_owned(),
        client_software_version: "1.0".to_owned(),
    });
    assert_survives(&ApiVersionsResponse::of_this_broker(0));
}

#[test]
fn topics_survive() {
    use create_topics::*;
    use delete_topics::*;
    let topic = NewTopic {
        name: "t".to_owned(),
        num_partitions: -1,
        replication_factor: -1,
        assignments: vec![Assignment { partition_index: 0, broker_ids: vec![0, 1] }],
        configs: vec![NewTopicConfig { name: "key".to_owned(), value: None }],
    };
    assert_survives(&CreateTopicsRequest { topics: vec![topic], timeout_ms: 5, validate_only: true });
    let config = CreatedConfig {
        name: "key".to_owned(),
        value: text("value"),
        read_only: true,
        source: 5,
        is_sensitive: true,
    };
    let topic = CreatedTopic {
        name: "t".to_owned(),
        id: [4; 16],
        error: 36,
        error_message: text("there"),
        num_partitions: 3,
        replication_factor: 1,
        configs: Some(vec![config]),
    };
    assert_survives(&CreateTopicsResponse { throttle_ms: 1, topics: vec![topic] });
    let doomed = DoomedTopic { name: text("t"), id: [4; 16] };
    assert_survives(&DeleteTopicsRequest { topics: vec![doomed], timeout_ms: 5 });
    let deleted = DeletedTopic { name: text("t"), id: [4; 16], error: 3, error_message: text("never there") };
    assert_survives(&DeleteTopicsResponse { throttle_ms: 1, topics: vec![deleted] });
}

#[test]
fn producer_ids_survive() {
    use init_producer_id::*;
    let asked = InitProducerIdRequest {
        transactional_id: text("pay"),
        transaction_timeout_ms: 60_000,
        ..Default::default()
    };
    assert_survives(&asked);
    let given = InitProducerIdResponse { throttle_ms: 1, error: 15, producer_id: 1 << 40, producer_epoch: 3 };
    assert_survives(&given);
    let body = Bytes::from_static(&[0, 0, 0xea, 0x60, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 0]);
    let body = [&[0][..], &body].concat();
    let read = InitProducerIdRequest::decode(4, Bytes::from(body)).unwrap();
    assert_eq!((read.transactional_id, read.producer_id, read.producer_epoch), (None, 9, 2));
}

#[test]
fn batches_are_slices_of_the_body() {
    use produce::*;
    let batches = Bytes::from(vec![1; 5_000]);
    let partition = ProducePartition { index: 0, records: vec![batches.clone()] };
    let topic = ProduceTopic { partitions: vec![partition], ..ProduceTopic::default() };
    let request = ProduceRequest { topics: vec![topic], ..ProduceRequest::default() };
    let mut writer = Writer::new(wire::Writer::new(), true);
    request.encode(9, &mut writer);
    let pieces = writer.finish();
    assert!(pieces.iter().any(|piece| piece.as_ptr() == batches.as_ptr()), "written without a copy");
    let body = Bytes::from(pieces.concat());
    let read = ProduceRequest::decode(9, body.clone()).unwrap();
    assert!(
        body.as_ptr_range().contains(&read.topics[0].partitions[0].records[0].as_ptr()),
        "read without a copy"
    );
}

#[test]
fn a_count_bomb_is_refused_before_anything_is_allocated() {
    // No transactional id, acks, time-out, 2^31 - 1 topics.
    let mut body = vec![0xff, 0xff, 0, 1, 0, 0, 0, 0];
    body.extend(i32::MAX.to_be_bytes());
    let refused = produce::ProduceRequest::decode(3, Bytes::from(body)).unwrap_err();
    assert_eq!(refused, DecodeError::Truncated { needed: i32::MAX as usize, remaining: 0 });
    // 200 000 topics, which are there, of no partitions.
    let mut body = vec![0xff, 0xff, 0, 1, 0, 0, 0, 0];
    body.extend(200_000_i32.to_be_bytes());
    body.extend(vec![0; 200_000 * 6]);
    let refused = produce::ProduceRequest::decode(3, Bytes::from(body)).unwrap_err();
    assert_eq!(refused, DecodeError::TooManyElements { count: 200_000, max: 100_000 });
}

#[test]
fn headers_are_told_apart() {
    // ApiVersions 3 as librdkafka sends it: the client's name is no compact text though the version is flexible.
    let frame =
        [&[0, 18, 0, 3, 0, 0, 0, 1, 0, 7][..], b"rdkafka", &[0, 11], b"librdkafka", &[6], b"2.0.2", &[0]];
    let (header, body) = RequestHeader::decode(Bytes::from(frame.concat())).unwrap();
    let expected =
        RequestHeader { api: ApiKey::ApiVersions, version: 3, correlation_id: 1, client_id: text("rdkafka") };
    assert_eq!(header, expected);
    let request = api_versions::ApiVersionsRequest::decode(3, body).unwrap();
    assert_eq!((&*request.client_software_name, &*request.client_software_version), ("librdkafka", "2.0.2"));

    let unknown = RequestHeader::decode(Bytes::from_static(&[0, 99, 0, 0, 0, 0, 0, 1, 0xff, 0xff]));
    assert_eq!(unknown.unwrap_err(), HeaderError::UnknownApi { code: 99 });
    let newer =
        RequestHeader::decode(Bytes::from_static(&[0, 18, 0, 9, 0, 0, 0, 5, 0xff, 0xff])).unwrap_err();
    assert!(matches!(newer, HeaderError::UnsupportedVersion { correlation_id: 5, oldest: 0, newest: 4, .. }));
}

#[test]
fn a_response_says_how_long_it_is() {
    let response = api_versions::ApiVersionsResponse { error: 35, ..Default::default() };
    let frame = Bytes::from(response_frame(7, 0, response).concat());
    assert_eq!(frame, Bytes::from_static(&[0, 0, 0, 10, 0, 0, 0, 7, 0, 35, 0, 0, 0, 0]));
    let response = metadata::MetadataResponse::default();
    let frame = response_frame(7, 13, response).concat();
    // The header of a flexible version ends with its tagged fields, of which there are none.
    assert_eq!(frame[4..9], [0, 0, 0, 7, 0]);
}

proptest! {
    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz_kafka_message(&noise);
        fuzz_kafka_request(&noise);
    }
}
