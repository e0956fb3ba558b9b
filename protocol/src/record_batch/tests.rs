use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::fuzz::{fuzz_records, fuzz_validate};
use super::*;
use crate::compression::Compression;
use crate::error_code::ErrorCode;
use crate::ids::{LeaderEpoch, Offset};
use crate::record::{Header, RecordError, RecordView};

const LIMITS: BatchLimits = BatchLimits { batch_bytes_max: 1 << 20 };

#[derive(Clone, Debug)]
struct Input {
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<Header>,
}

fn any_bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    option::of(vec(any::<u8>(), 0..80))
}

fn any_header() -> impl Strategy<Value = Header> {
    ("\\PC{0,8}", any_bytes()).prop_map(|(key, value)| Header { key, value: value.map(Bytes::from) })
}

prop_compose! {
    fn any_input()(
        timestamp_ms: i64, key in any_bytes(), value in any_bytes(), headers in vec(any_header(), 0..3),
    ) -> Input {
        Input { timestamp_ms, key, value, headers }
    }
}

fn any_compression() -> impl Strategy<Value = Compression> {
    proptest::sample::select(Compression::ALL.to_vec())
}

fn build(compression: Compression, inputs: &[Input]) -> Bytes {
    let mut builder = RecordBatchBuilder::new(compression);
    for input in inputs {
        builder
            .push(input.timestamp_ms, input.key.as_deref(), input.value.as_deref(), &input.headers)
            .unwrap();
    }
    let estimate = builder.len_estimate();
    let batch = builder.build();
    assert!(batch.len() <= estimate, "{} bytes where {estimate} were estimated", batch.len());
    batch
}

fn one_record() -> Vec<u8> {
    let input = Input { timestamp_ms: 1, key: None, value: Some(b"value".to_vec()), headers: Vec::new() };
    build(Compression::None, &[input]).to_vec()
}

/// A batch of one record with one change, and its checksum right again.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> BatchError {
    let mut batch = one_record();
    change(&mut batch);
    header::seal(&mut batch);
    validate_batches(&batch, &LIMITS).unwrap_err()
}

#[test]
fn a_batch_is_kafkas_byte_for_byte() {
    let mut builder = RecordBatchBuilder::new(Compression::None);
    let header = Header { key: "h".to_owned(), value: Some(Bytes::from_static(b"x")) };
    builder.push(1_000, Some(b"k"), Some(b"v1"), &[]).unwrap();
    builder.push(1_005, None, Some(b"v2"), &[header]).unwrap();
    let batch = builder.build();
    // Laid out by hand from Kafka's description of the format; the checksum by an independent CRC32C.
    let expected = "0000000000000000 00000048 ffffffff 02 CRC_HERE 0000 00000001 00000000000003e8 00000000000003ed \
                    ffffffffffffffff ffff ffffffff 00000002 \
                    12 00 00 00 02 6b 04 7631 00  18 00 0a 02 01 04 7632 02 02 68 02 78";
    let hex: String = batch.iter().map(|byte| format!("{byte:02x}")).collect();
    let expected: String = expected.split_whitespace().collect();
    let (before, after) = expected.split_once("CRC_HERE").unwrap();
    assert_eq!(&hex[..34], before);
    assert_eq!(&hex[42..], after);
    assert_eq!(bitwise_crc32c(&batch[21..]).to_be_bytes(), batch[17..21]);
}

fn bitwise_crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

#[test]
fn every_check_names_its_refusal() {
    let code = |error: &BatchError| error.error_code();
    let good = one_record();
    assert_eq!(validate_batches(&good, &LIMITS).unwrap().len(), 1);
    assert_eq!(validate_batches(&[], &LIMITS).unwrap_err(), BatchError::Empty);

    let error = validate_batches(&good[..60], &LIMITS).unwrap_err();
    assert_eq!(error, BatchError::Truncated { needed: 61, have: 60 });
    let error = validate_batches(&good[..good.len() - 1], &LIMITS).unwrap_err();
    assert_eq!(error, BatchError::Truncated { needed: good.len(), have: good.len() - 1 });
    assert_eq!(code(&error), ErrorCode::CorruptMessage);

    let mut short = good.clone();
    short[8..12].copy_from_slice(&48_i32.to_be_bytes());
    assert_eq!(validate_batches(&short, &LIMITS).unwrap_err(), BatchError::Length { stated: 48, min: 49 });

    let mut old = good.clone();
    old[16] = 1;
    assert_eq!(validate_batches(&old, &LIMITS).unwrap_err(), BatchError::Magic { found: 1 });

    let mut damaged = good.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let error = validate_batches(&damaged, &LIMITS).unwrap_err();
    assert!(matches!(error, BatchError::Crc { .. }), "{error}");
    assert_eq!(code(&error), ErrorCode::CorruptMessage);

    let tight = BatchLimits { batch_bytes_max: good.len() - 1 };
    let error = validate_batches(&good, &tight).unwrap_err();
    assert_eq!(error, BatchError::TooLarge { size: good.len(), max: good.len() - 1 });
    assert_eq!(code(&error), ErrorCode::MessageTooLarge);

    let error = changed(|batch| batch[57..61].copy_from_slice(&0_i32.to_be_bytes()));
    assert_eq!(error, BatchError::NoRecords { count: 0 });
    let error = changed(|batch| batch[57..61].copy_from_slice(&i32::MIN.to_be_bytes()));
    assert_eq!(error, BatchError::NoRecords { count: i32::MIN });
    let error = changed(|batch| batch[57..61].copy_from_slice(&2_i32.to_be_bytes()));
    assert_eq!(error, BatchError::Count { count: 2, last_offset_delta: 0 });
    assert_eq!(code(&error), ErrorCode::InvalidRecord);
    let error = changed(|batch| {
        batch[23..27].copy_from_slice(&99_i32.to_be_bytes());
        batch[57..61].copy_from_slice(&100_i32.to_be_bytes());
    });
    assert_eq!(error, BatchError::TooManyRecords { count: 100, body_len: good.len() - 61, max: 1 });
    let error = changed(|batch| batch[22] = 7);
    assert_eq!(error, BatchError::Compression { code: 7 });
    for attributes in [0x08_u16, 0x10, 0x20, 0x40, 0x80, 0x8000] {
        let error = changed(|batch| batch[21..23].copy_from_slice(&attributes.to_be_bytes()));
        assert_eq!(error, BatchError::Attributes { found: attributes, allowed: 7 });
    }
}

#[test]
fn a_stamp_is_outside_of_the_checksum() {
    let mut batch = one_record();
    stamp(&mut batch, Offset(4_711), LeaderEpoch(3));
    let valid = validate_batches(&batch, &LIMITS).unwrap().remove(0);
    assert_eq!((valid.header.base_offset, valid.header.leader_epoch), (Offset(4_711), LeaderEpoch(3)));
    assert_eq!((valid.header.last_offset(), valid.header.end_offset()), (Offset(4_711), Offset(4_712)));
    assert_eq!((valid.range, valid.record_count), (0..batch.len(), 1));
}

#[test]
fn append_time_is_every_records_time() {
    let input = |timestamp_ms| Input { timestamp_ms, key: None, value: None, headers: Vec::new() };
    let mut batch = build(Compression::None, &[input(5), input(9)]).to_vec();
    stamp_append_time(&mut batch, 77);
    let batch = RecordBatch::new(Bytes::from(batch)).unwrap();
    let times: Vec<i64> = batch.records(0).unwrap().map(|record| record.unwrap().timestamp_ms).collect();
    assert_eq!(times, [77, 77]);
}

#[test]
fn a_compacted_batch_has_gaps_and_no_disorder() {
    let delta_at = HEADER_LEN + 3;
    let mut batch = one_record();
    batch[23..27].copy_from_slice(&10_i32.to_be_bytes());
    batch[delta_at] = 14;
    header::seal(&mut batch);
    let records = |batch: &[u8]| RecordBatch::new(Bytes::copy_from_slice(batch)).unwrap().records(0).unwrap();
    assert_eq!(records(&batch).next().unwrap().unwrap().offset, Offset(7));
    batch[delta_at] = 22;
    header::seal(&mut batch);
    let error = records(&batch).next().unwrap().unwrap_err();
    assert_eq!(error, RecordError::OffsetDelta { index: 0, found: 11, from: 0, last: 10 });
}

#[test]
fn a_batch_that_lost_every_record_still_ends_where_it_ended() {
    for compression in Compression::ALL {
        let mut batch = one_record();
        batch.truncate(HEADER_LEN);
        batch[21..23].copy_from_slice(&compression.code().to_be_bytes());
        batch[23..27].copy_from_slice(&9_i32.to_be_bytes());
        batch[57..61].copy_from_slice(&0_i32.to_be_bytes());
        header::seal(&mut batch);
        stamp(&mut batch, Offset(40), LeaderEpoch(1));
        let empty = RecordBatch::new(Bytes::from(batch.clone())).unwrap();
        assert_eq!(empty.header().end_offset(), Offset(50), "{compression}");
        assert_eq!(empty.records(0).unwrap().count(), 0, "{compression}");
        assert!(validate_batches(&batch, &LIMITS).is_err(), "a producer must not send it");

        let run = Bytes::from([&batch[..], &one_record()].concat());
        let counts = RecordBatches::new(run).map(|batch| batch.unwrap().records(100).unwrap().count());
        assert_eq!(counts.collect::<Vec<_>>(), [0, 1], "{compression}");
    }
    let mut batch = one_record();
    batch[57..61].copy_from_slice(&0_i32.to_be_bytes());
    header::seal(&mut batch);
    let error =
        RecordBatch::new(Bytes::from(batch)).unwrap().records(0).unwrap().next().unwrap().unwrap_err();
    assert_eq!(error, RecordError::AfterLast { count: 12, records: 0 });
}

#[test]
fn a_builder_is_used_again_and_again() {
    for compression in Compression::ALL {
        let mut builder = RecordBatchBuilder::new(compression);
        let mut run = Vec::new();
        for round in 0..5_i64 {
            for at in 0..100 {
                builder.push(round, None, Some(b"again and again"), &[]).unwrap();
                assert_eq!(builder.record_count(), at + 1);
            }
            run.extend_from_slice(&builder.build());
            assert!(builder.is_empty());
        }
        let valid = validate_batches(&run, &LIMITS).unwrap();
        assert_eq!(valid.iter().map(|batch| batch.record_count).sum::<u32>(), 500, "{compression}");
        let batches: Vec<RecordBatch> = RecordBatches::new(Bytes::from(run)).map(Result::unwrap).collect();
        assert_eq!(batches.len(), 5);
        assert_eq!(batches[4].header().base_timestamp_ms, 4);
        assert_eq!(batches[4].header().attributes.compression(), Ok(compression));
    }
}

#[test]
fn a_sequence_is_of_one_batch_alone() {
    for compression in Compression::ALL {
        let mut builder = RecordBatchBuilder::new(compression);
        let sequence = BatchSequence { producer_id: 1 << 40, producer_epoch: 3, base_sequence: 77 };
        let mut build = |sequence: Option<BatchSequence>| {
            builder.push(1, None, Some(b"again and again"), &[]).unwrap();
            match sequence {
                Some(sequence) => builder.finish().seal(sequence),
                None => builder.build(),
            }
        };
        let run = [build(None), build(Some(sequence)), build(None)].concat();
        let found = validate_batches(&run, &LIMITS).unwrap().into_iter().map(|batch| BatchSequence {
            producer_id: batch.header.producer_id,
            producer_epoch: batch.header.producer_epoch,
            base_sequence: batch.header.base_sequence,
        });
        assert_eq!(found.collect::<Vec<_>>(), [BatchSequence::NONE, sequence, BatchSequence::NONE]);
    }
}

#[test]
fn a_record_count_is_no_reason_to_allocate() {
    let mut batch = one_record();
    batch[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
    header::seal(&mut batch);
    let error = RecordBatch::new(Bytes::from(batch)).unwrap().records(1 << 20).unwrap_err();
    assert!(matches!(error, BatchError::TooManyRecords { count: i32::MAX, max: 1, .. }), "{error}");
}

#[test]
fn the_headers_of_a_run_end_after_an_error() {
    let mut run = [one_record(), one_record()].concat();
    assert_eq!(headers(&run).map(|found| found.unwrap().0.len()).sum::<usize>(), run.len());
    run.truncate(run.len() - 1);
    let found: Vec<bool> = headers(&run).map(|found| found.is_ok()).collect();
    assert_eq!(found, [true, false]);
}

proptest! {
    #[test]
    fn records_survive(compression in any_compression(), inputs in vec(any_input(), 1..20), base in 0_u64..1 << 62) {
        let mut bytes = build(compression, &inputs).to_vec();
        stamp(&mut bytes, Offset(base), LeaderEpoch(1));
        let valid = validate_batches(&bytes, &LIMITS).unwrap();
        prop_assert_eq!(valid.len(), 1);
        let batch = RecordBatch::new(Bytes::from(bytes)).unwrap();
        let records: Vec<RecordView> = batch.records(1 << 20).unwrap().map(Result::unwrap).collect();
        prop_assert_eq!(records.len(), inputs.len());
        for (index, (record, input)) in records.iter().zip(&inputs).enumerate() {
            prop_assert_eq!(record.offset, Offset(base).saturating_add(u64::try_from(index).unwrap()));
            prop_assert_eq!(record.timestamp_ms, input.timestamp_ms);
            prop_assert_eq!(record.key.as_deref(), input.key.as_deref());
            prop_assert_eq!(record.value.as_deref(), input.value.as_deref());
            prop_assert_eq!(&record.headers, &input.headers);
        }
    }

    #[test]
    fn a_header_survives(base: u64, length in 49..i32::MAX, epoch: u32, crc: u32, attributes: u16, delta: i32,
                         times: (i64, i64), producer: (i64, i16, i32), record_count: i32) {
        let header = RecordBatchHeader {
            base_offset: Offset(base), length, leader_epoch: LeaderEpoch(epoch), crc,
            attributes: Attributes(attributes), last_offset_delta: delta, base_timestamp_ms: times.0,
            max_timestamp_ms: times.1, producer_id: producer.0, producer_epoch: producer.1,
            base_sequence: producer.2, record_count,
        };
        prop_assert_eq!(RecordBatchHeader::decode(&header.encode()), Ok(header));
        prop_assert!(header.end_offset() >= header.last_offset());
    }

    #[test]
    fn any_flipped_bit_after_the_stamp_is_noticed(inputs in vec(any_input(), 1..4), at: prop::sample::Index) {
        let mut batch = build(Compression::None, &inputs).to_vec();
        let bit = at.index(batch.len() * 8);
        batch[bit / 8] ^= 1 << (bit % 8);
        let stamped = matches!(bit / 8, 0..8 | 12..16);
        prop_assert_eq!(validate_batches(&batch, &LIMITS).is_ok(), stamped);
    }

    #[test]
    fn any_damage_behind_a_right_checksum_is_read_without_panic(compression in any_compression(),
        inputs in vec(any_input(), 1..4), at: prop::sample::Index, cut: prop::sample::Index) {
        let mut batch = build(compression, &inputs).to_vec();
        let bit = at.index(batch.len() * 8);
        batch[bit / 8] ^= 1 << (bit % 8);
        batch.truncate(HEADER_LEN.max(cut.index(batch.len() + 1)));
        fuzz_records(&batch);
        fuzz_validate(&batch);
    }

    #[test]
    fn noise_never_panics(noise in vec(any::<u8>(), 0..300)) {
        fuzz_records(&noise);
        fuzz_validate(&noise);
    }
}
