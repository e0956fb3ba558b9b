//! Records go in, are flushed, and come back the same: from the tail, from disk, after a restart.

mod common;

use common::*;
use corrente_protocol::ids::{LeaderEpoch, Offset};
use corrente_runtime::file;
use corrente_storage::{AppendError, ReadError};

fn values(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|n| format!("record {n} {}", "x".repeat(usize::try_from(n % 900).unwrap()))).collect()
}

#[test]
fn what_is_appended_is_read_and_survives_a_restart() {
    let (world, node) = world(1);
    run(&world, &node, || async {
        let (opened, log) = open_one(|_| {}).await;
        for chunk in values(0..300).chunks(7) {
            append_flushed(&log, chunk).await;
        }
        assert_eq!(log.log_end_offset(), Offset(300));
        assert_eq!(read_all(&log, 5000).await, values(0..300));
        opened.storage.close().await.expect("closed");
    });
    run(&world, &node, || async {
        let (_opened, log) = open_one(|_| {}).await;
        assert_eq!(log.flushed_offset(), Offset(300));
        assert_eq!(log.last_epoch(), EPOCH);
        assert_eq!(read_all(&log, 1).await, values(0..300));
        assert_eq!(read_all(&log, usize::MAX).await, values(0..300));
        append_flushed(&log, &values(300..301)).await;
        assert_eq!(read_all(&log, 9000).await, values(0..301));
    });
}

#[test]
fn many_appends_share_windows_and_keep_their_order() {
    let (world, node) = world(2);
    run(&world, &node, || async {
        let (_opened, log) = open_one(|_| {}).await;
        let mut ends = Vec::new();
        for n in 0..500 {
            ends.push(append(&log, &values(n..n + 1)).await);
        }
        log.flushed_past(Offset(499)).await.expect("flushed");
        for (n, appended) in (0..).zip(ends) {
            assert_eq!((appended.base_offset, appended.end_offset), (Offset(n), Offset(n + 1)));
        }
        assert_eq!(read_all(&log, 3000).await, values(0..500));
    });
}

#[test]
fn segments_roll_and_reads_cross_them() {
    let (world, node) = world(3);
    run(&world, &node, || async {
        let (opened, log) = open_one(|_| {}).await;
        for n in 0..600 {
            append_flushed(&log, &values(n..n + 1)).await;
        }
        let segments = names(&log_dir(0), ".seg").await;
        assert!(segments.len() > 3, "{} segments", segments.len());
        assert_eq!(read_all(&log, 100_000).await, values(0..600));
        assert_eq!(read(&log, Offset(77), Offset(78), 10).await.unwrap()[0].1, values(77..78)[0]);
        opened.storage.close().await.expect("closed");
        let indexes = names(&log_dir(0), ".idx").await;
        assert_eq!(indexes.len(), segments.len() - 1);
        // Missing or damaged, an index is only a help.
        file::remove_file(&log_dir(0).join(&indexes[0])).await.unwrap();
        file::write_small(&log_dir(0).join(&indexes[1]), vec![7; 5000]).await.unwrap();
    });
    run(&world, &node, || async {
        let (_opened, log) = open_one(|_| {}).await;
        assert_eq!(read_all(&log, 100_000).await, values(0..600));
        corrente_runtime::timer::sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(names(&log_dir(0), ".idx").await.len(), names(&log_dir(0), ".seg").await.len() - 1);
    });
}

#[test]
fn a_restart_in_the_middle_of_a_segment_goes_on_in_it() {
    let (world, node) = world(4);
    for life in 0..20 {
        run(&world, &node, move || async move {
            let (opened, log) = open_one(|_| {}).await;
            assert_eq!(log.flushed_offset(), Offset(life * 3));
            append_flushed(&log, &values(life * 3..life * 3 + 3)).await;
            opened.storage.close().await.expect("closed");
        });
    }
    run(&world, &node, || async {
        let (_opened, log) = open_one(|_| {}).await;
        assert_eq!(read_all(&log, 700).await, values(0..60));
        assert_eq!(names(&log_dir(0), ".seg").await.len(), 1);
    });
}

#[test]
fn what_cannot_be_is_refused() {
    let (world, node) = world(5);
    run(&world, &node, || async {
        let (opened, log) = open_one(|_| {}).await;
        append_flushed(&log, &["a", "b"]).await;
        let out_of_range = |asked| ReadError::OutOfRange { asked, start: Offset(0), end: Offset(2) };
        assert_eq!(log.read(Offset(3), Offset(9), 100).await, Err(out_of_range(Offset(3))));
        assert_eq!(log.read(Offset(2), Offset(9), 100).await, Ok(Vec::new()));
        let too_large = append_bytes(&log, EPOCH, &batch(&[vec![1; 40_000]])).await;
        assert!(matches!(too_large, Err(AppendError::TooLarge { max: 32_768, .. })), "{too_large:?}");
        let stale = append_bytes(&log, LeaderEpoch(0), &batch(&["c"])).await;
        assert_eq!(stale, Err(AppendError::StaleEpoch { given: LeaderEpoch(0), last: EPOCH }));
        assert_eq!(log.append(EPOCH, &[], &[]).await, Err(AppendError::Empty));
        opened.storage.close().await.expect("closed");
        assert_eq!(append_bytes(&log, EPOCH, &batch(&["c"])).await, Err(AppendError::Closed));
        assert_eq!(log.read(Offset(0), Offset(2), 100).await, Err(ReadError::Closed));
    });
}

#[test]
fn an_epoch_has_windows_of_its_own() {
    let (world, node) = world(6);
    run(&world, &node, || async {
        let (_opened, log) = open_one(|_| {}).await;
        for epoch in 1..30 {
            append_bytes(&log, LeaderEpoch(epoch), &batch(&["x"])).await.expect("appended");
        }
        log.flushed_past(Offset(28)).await.expect("flushed");
        let chunks = log.read(Offset(0), Offset(29), 1 << 20).await.expect("readable");
        let mut epoch = 0;
        for chunk in chunks {
            for batch in corrente_protocol::record_batch::RecordBatches::new(chunk) {
                epoch += 1;
                assert_eq!(batch.expect("whole").header().leader_epoch, LeaderEpoch(epoch));
            }
        }
        assert_eq!(epoch, 29);
    });
}
