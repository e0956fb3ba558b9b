//! What an extent and an index cost, without any disk.

use std::hint::black_box;

use corrente_storage::trial::{Index, build_extent, check_extent};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Batches in a window, and bytes of each: one small append, a flush of many, large ingest.
const WINDOWS: [(u64, usize); 3] = [(1, 330), (128, 330), (4, 1_034_000)];

/// Points of an index: of 64 MiB at rest, of a full segment of 1 GiB, and far beyond.
const POINTS: [u64; 3] = [256, 4096, 65_536];

fn extents(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("extent");
    for (batches, len) in WINDOWS {
        let batch = vec![7; len];
        group.throughput(Throughput::Bytes(batches * u64::try_from(len).expect("a small batch")));
        let shape = format!("{batches}x{len}");
        group.bench_function(BenchmarkId::new("build", &shape), |bencher| {
            bencher.iter(|| build_extent(black_box(&batch), batches));
        });
        let extent = build_extent(&batch, batches);
        assert!(check_extent(&extent));
        group.bench_function(BenchmarkId::new("check", &shape), |bencher| {
            bencher.iter(|| check_extent(black_box(&extent)));
        });
    }
    group.finish();
}

fn index(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("index");
    for points in POINTS {
        let index = Index::with_points(points);
        let records = points * 1000;
        let mut offset = 1;
        group.bench_function(BenchmarkId::new("look up", points), |bencher| {
            bencher.iter(|| {
                offset = (offset * 48_271 + 11) % records;
                index.look_up(black_box(offset))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, extents, index);
criterion_main!(benches);
