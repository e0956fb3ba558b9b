//! What the bytes cost, without any I/O: building and reading record batches, proving them, cutting frames.
//!
//! The shapes are those of the first figures: one record of 256 bytes, a thousand of 1 KiB, a thousand of 100 bytes.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use corrente_protocol::api::produce::{ProducePartition, ProduceRequest};
use corrente_protocol::api::{ApiKey, Message};
use corrente_protocol::frame::{Cut, MAX_FRAME_DEFAULT, cut_request, request_frame};
use corrente_protocol::record_batch::{
    BatchLimits, RecordBatch, RecordBatchBuilder, stamp, validate_batches,
};
use corrente_protocol::{
    Compression, Durability, LeaderEpoch, Offset, PartitionIndex, RequestHeader, TopicId,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Records in a batch, and bytes of each value.
const SHAPES: [(u32, usize); 3] = [(1, 256), (1000, 1024), (1000, 100)];
const COMPRESSIONS: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];
const TIMESTAMP_MS: i64 = 1_700_000_000_000;

/// Bytes that compress about as log lines do: words, drawn by a small generator of fixed seed.
fn value(len: usize, seed: u32) -> Vec<u8> {
    const WORDS: [&str; 8] =
        ["offset ", "segment ", "leader ", "error=0 ", "flushed ", "0x7f3a", "12:41:09.", "GET /"];
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut value = Vec::with_capacity(len + 16);
    while value.len() < len {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        value.extend_from_slice(WORDS[usize::try_from(state >> 29).unwrap_or_default()].as_bytes());
    }
    value.truncate(len);
    value
}

fn batch(builder: &mut RecordBatchBuilder, values: &[Vec<u8>]) -> Bytes {
    for value in values {
        builder.push(TIMESTAMP_MS, None, Some(value), &[]).expect("a short record");
    }
    builder.build()
}

fn values(records: u32, len: usize) -> Vec<Vec<u8>> {
    (0..records).map(|seed| value(len, seed)).collect()
}

fn payload_bytes(records: u32, len: usize) -> Throughput {
    Throughput::Bytes(u64::from(records) * u64::try_from(len).expect("a short record"))
}

fn build(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("build");
    for (records, len) in SHAPES {
        let values = values(records, len);
        group.throughput(payload_bytes(records, len));
        for compression in COMPRESSIONS {
            let mut builder = RecordBatchBuilder::new(compression);
            let id = BenchmarkId::new(format!("{compression:?}"), format!("{records}x{len}"));
            group.bench_function(id, |bencher| bencher.iter(|| batch(&mut builder, black_box(&values))));
        }
    }
    group.finish();
}

fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read");
    for (records, len) in SHAPES {
        let values = values(records, len);
        group.throughput(payload_bytes(records, len));
        for compression in COMPRESSIONS {
            let bytes = batch(&mut RecordBatchBuilder::new(compression), &values);
            let id = BenchmarkId::new(format!("{compression:?}"), format!("{records}x{len}"));
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    let batch = RecordBatch::new(black_box(bytes.clone())).expect("a batch just built");
                    batch
                        .records(usize::MAX)
                        .expect("its records")
                        .map(|record| record.expect("a record").offset)
                        .max()
                });
            });
        }
    }
    group.finish();
}

/// What a broker does with every batch: prove header and CRC32C, then stamp twelve bytes.
fn accept(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("accept");
    let limits = BatchLimits { batch_bytes_max: 1 << 24 };
    for (records, len) in SHAPES {
        let bytes = batch(&mut RecordBatchBuilder::new(Compression::None), &values(records, len));
        group.throughput(payload_bytes(records, len));
        let shape = format!("{records}x{len}");
        group.bench_function(BenchmarkId::new("validate", &shape), |bencher| {
            bencher.iter(|| validate_batches(black_box(&bytes), &limits).expect("a batch just built").len());
        });
        let mut mutable = bytes.to_vec();
        group.bench_function(BenchmarkId::new("stamp", &shape), |bencher| {
            bencher.iter(|| stamp(black_box(&mut mutable), Offset(7), LeaderEpoch(1)));
        });
    }
    group.finish();
}

/// A produce request of one batch, from its chunks and back to its parts.
fn frame(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    for (records, len) in SHAPES {
        let batches = batch(&mut RecordBatchBuilder::new(Compression::None), &values(records, len));
        let shape = format!("{records}x{len}");
        let request = || ProduceRequest {
            wants_stage_times: false,
            partitions: vec![ProducePartition {
                topic: TopicId([7; 16]),
                partition: PartitionIndex(0),
                expected_end_offset: None,
                batches: batches.clone(),
            }],
        };
        let header = RequestHeader {
            api: ApiKey::Produce,
            version: 0,
            flags: 0,
            correlation_id: 1,
            deadline_ms: 0,
            durability: Durability::IsrFlushed,
            body_len: 0,
        };
        let encode = || request_frame(header, |writer| request().encode(0, writer));
        group.bench_function(BenchmarkId::new("encode", &shape), |bencher| {
            bencher.iter(|| black_box(encode()).len())
        });
        let received: Vec<u8> = encode().concat();
        group.bench_function(BenchmarkId::new("decode", &shape), |bencher| {
            bencher.iter_batched_ref(
                || BytesMut::from(&received[..]),
                |buffer| match cut_request(buffer, MAX_FRAME_DEFAULT).expect("a frame just built") {
                    Cut::Frame(header, body) => {
                        ProduceRequest::decode(header.version, body).expect("its body")
                    }
                    Cut::Need(more) => panic!("{more} bytes of the frame are missing"),
                },
                criterion::BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, build, read, accept, frame);
criterion_main!(benches);
