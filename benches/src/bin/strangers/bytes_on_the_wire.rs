//! Frames, bodies and batches, sound ones and such as lie.

use bytes::{BufMut, Bytes, BytesMut};
use corrente_protocol::api::{ApiKey, ProducePartition, ProduceRequest, Request};
use corrente_protocol::compression::Compression;
use corrente_protocol::frame::{Durability, MAX_FRAME_DEFAULT, RequestHeader, request_frame};
use corrente_protocol::ids::{PartitionIndex, TopicId};
use corrente_protocol::record_batch::RecordBatchBuilder;

/// A request header that claims a body of `body_len` bytes.
pub fn header(api: u16, correlation_id: u64, body_len: u32) -> RequestHeader {
    RequestHeader {
        api: ApiKey::from_code(api),
        version: 0,
        flags: 0,
        correlation_id,
        deadline_ms: 0,
        durability: Durability::IsrFlushed,
        body_len,
    }
}

/// A whole frame around a body of any bytes.
pub fn frame_around(api: u16, correlation_id: u64, body: &[u8]) -> Bytes {
    let body_len = u32::try_from(body.len()).expect("a body's length fits in 32 bits");
    let mut frame = BytesMut::from(&header(api, correlation_id, body_len).encode()[..]);
    frame.put_slice(body);
    frame.freeze()
}

/// A whole frame of a sound request.
pub fn frame_of<R: Request>(request: &R, correlation_id: u64) -> Bytes {
    let frame = request_frame(header(R::API.code(), correlation_id, 0), |writer| request.encode(0, writer));
    frame.concat().into()
}

/// A produce of these bytes to partition `partition`.
pub fn produce(topic: TopicId, partition: u32, batches: Bytes) -> ProduceRequest {
    let partition = PartitionIndex(partition);
    ProduceRequest {
        wants_stage_times: false,
        partitions: vec![ProducePartition { topic, partition, expected_end_offset: None, batches }],
    }
}

/// One uncompressed batch of records without keys.
pub fn batch(values: &[&[u8]]) -> Bytes {
    let mut builder = RecordBatchBuilder::new(Compression::None);
    for value in values {
        builder.push(1_700_000_000_000, None, Some(value), &[]).expect("a short record");
    }
    builder.build()
}

/// Batches that must not be kept, with how their refusal begins.
pub fn damaged_batches() -> [(Bytes, &'static str); 5] {
    let good = batch(&[b"one", b"two"]);
    let flip = |at: usize, bits: u8| {
        let mut bytes = good.to_vec();
        bytes[at] ^= bits;
        Bytes::from(bytes)
    };
    [
        (flip(good.len() - 1, 1), "record batch checksum is"),
        (recounted(&good, 200), "record batch states 200 records"),
        (flip(16, 3), "record batch has magic"),
        (good.slice(..good.len() - 5), "record batch of"),
        (Bytes::new(), "no record batch"),
    ]
}

/// The batch with another record count, and a checksum that fits it.
fn recounted(batch: &Bytes, count: u8) -> Bytes {
    let mut bytes = batch.to_vec();
    bytes[60] = count;
    let checksum = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    bytes.into()
}

/// For every api a body that is sound up to its first list or text, which claims more than the body holds.
pub fn count_bombs() -> Vec<(ApiKey, Vec<u8>)> {
    const MORE: [u8; 4] = u32::MAX.to_le_bytes();
    // A name, one partition, the default replication factor: what stands before the configs of a new topic.
    const NEW_TOPIC: &[u8] = b"\x01\0\0\0t\x01\0\0\0\0\0";
    const NAME: &[u8] = b"\x01\0\0\0t";
    ApiKey::ALL
        .into_iter()
        .map(|api| {
            let before: &[u8] = match api {
                ApiKey::Fetch => &[0; 12],
                ApiKey::Metadata => &[1],
                ApiKey::CreateTopic => NEW_TOPIC,
                ApiKey::AlterTopic => NAME,
                _ => &[],
            };
            (api, [before, &MORE, &[0; 8]].concat())
        })
        .collect()
}

/// Sound frames with as many of the smallest elements as the longest body holds, none of which means anything: what a
/// broker makes of them must not be many times what came. One frame for each api that takes long lists.
pub fn full_frames() -> [Bytes; 4] {
    const BODY_LEN: usize = MAX_FRAME_DEFAULT as usize;
    const NO_TAGS: &[u8] = &[0; 2];
    // Before the list; the front of an element, which is no topic that there is, and how many zeros follow in it.
    let shapes: [(ApiKey, &[u8], &[u8], usize); 4] = [
        (ApiKey::Produce, &[], &[7; 20], 6),
        (ApiKey::Fetch, &[0; 12], &[7; 28], 6),
        (ApiKey::ListOffsets, &[], &[7; 20], 11),
        (ApiKey::Metadata, &[1], b"\x01\0\0\0t", 0),
    ];
    shapes.map(|(api, before, front, zeros)| {
        let element = [front, &vec![0; zeros]].concat();
        let count = (BODY_LEN - before.len() - size_of::<u32>() - NO_TAGS.len()) / element.len();
        let claimed = u32::try_from(count).expect("fewer than there are bytes").to_le_bytes();
        frame_around(api.code(), 7, &[before, &claimed, &element.repeat(count), NO_TAGS].concat())
    })
}
