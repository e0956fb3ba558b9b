//! Entries for fuzzing record batches: what a broker proves, what a client reads, and that both agree.

use bytes::Bytes;

use super::header::{compute_crc, seal};
use super::*;
use crate::compression::Compression;
use crate::fuzz::Choices;
use crate::ids::{LeaderEpoch, Offset};
use crate::record::Header;

/// What records may take once they are decompressed.
const RECORDS_LEN_MAX: usize = 1 << 16;

/// Entry for fuzzing: a header, which says itself again when it is written.
pub fn fuzz_header(input: &[u8]) {
    let Ok(header) = RecordBatchHeader::decode(input) else { return };
    assert_eq!(header.encode(), input[..HEADER_LEN]);
    assert!(header.size() >= HEADER_LEN, "a batch of {} bytes has no room for its header", header.size());
    assert!(header.base_offset <= header.last_offset() && header.last_offset() <= header.end_offset());
}

/// Entry for fuzzing: batches back to back, as a broker proves them. What it would append, a client reads.
pub fn fuzz_validate(input: &[u8]) {
    for bytes in [input.to_vec(), with_right_checksums(input)] {
        let limits = BatchLimits { batch_bytes_max: 1 << 20 };
        let Ok(batches) = validate_batches(&bytes, &limits) else { continue };
        let mut end = 0;
        for batch in batches {
            assert_eq!(batch.range.start, end, "valid batches leave nothing out");
            end = batch.range.end;
            assert!(batch.record_count > 0, "a batch without records was let in");
            let mut stamped = bytes[batch.range].to_vec();
            stamp(&mut stamped, Offset(7), LeaderEpoch(3));
            let read = RecordBatch::new(Bytes::from(stamped)).expect("a stamped batch is still valid");
            let stamped =
                RecordBatchHeader { base_offset: Offset(7), leader_epoch: LeaderEpoch(3), ..batch.header };
            assert_eq!(*read.header(), stamped);
        }
        assert_eq!(end, bytes.len(), "valid batches leave nothing out");
    }
}

/// Entry for fuzzing: one batch, as a client reads it; length, magic and checksum are set right before.
pub fn fuzz_records(input: &[u8]) {
    let mut bytes = input.to_vec();
    if bytes.len() >= HEADER_LEN {
        seal(&mut bytes);
    }
    for batch in RecordBatches::new(Bytes::from(bytes)).flatten() {
        let Ok(records) = batch.records(RECORDS_LEN_MAX) else { continue };
        let mut next = batch.header().base_offset;
        for record in records {
            let Ok(record) = record else { break };
            assert!(record.offset >= next, "offset {} where {next} is next", record.offset);
            next = record.offset.saturating_add(1);
        }
    }
}

/// Entry for fuzzing: the bytes choose records; a batch of them is valid, and holds them.
pub fn fuzz_round_trip(input: &[u8]) {
    let mut choices = Choices::new(input);
    let compression = Compression::ALL[usize::from(choices.u8()) % Compression::ALL.len()];
    let mut builder = RecordBatchBuilder::new(compression);
    let mut sent = Vec::new();
    while !choices.is_empty() {
        let timestamp_ms = choices.u64().cast_signed();
        let mut optional = || (choices.u8() & 3 > 0).then(|| Bytes::copy_from_slice(choices.bytes()));
        let (key, value) = (optional(), optional());
        let headers: Vec<Header> = (0..choices.u8() % 4)
            .map(|_| Header {
                key: String::from_utf8_lossy(choices.bytes()).into_owned(),
                value: (choices.u8() > 0).then(|| Bytes::copy_from_slice(choices.bytes())),
            })
            .collect();
        builder.push(timestamp_ms, key.as_deref(), value.as_deref(), &headers).expect("far under 2 GiB");
        sent.push((timestamp_ms, key, value, headers));
    }
    if sent.is_empty() {
        return;
    }
    let (count, len_max) = (sent.len(), builder.len_estimate());
    let batch = builder.build();
    assert!(batch.len() <= len_max, "{} bytes where at most {len_max} were announced", batch.len());
    let valid = validate_batches(&batch, &BatchLimits { batch_bytes_max: len_max });
    let valid = valid.expect("a batch that was built is valid");
    assert_eq!(valid.iter().map(|batch| batch.record_count as usize).collect::<Vec<_>>(), [count]);
    let batch = RecordBatch::new(batch).expect("a batch that was built is whole");
    let records = batch.records(len_max).expect("records no longer than announced");
    for ((offset, sent), record) in (0..).zip(sent).zip(records) {
        let record = record.expect("a record that was put in");
        assert_eq!(record.offset, Offset(offset));
        assert_eq!((record.timestamp_ms, record.key, record.value, record.headers), sent);
    }
    assert_eq!(batch.records(len_max).expect("as before").count(), count);
}

/// Every whole batch gets the checksum of its bytes, so that what lies behind the checksum is reached.
fn with_right_checksums(input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for (range, mut header) in headers(input).map_while(Result::ok) {
        header.crc = compute_crc(&bytes[range.clone()]);
        bytes[range][..HEADER_LEN].copy_from_slice(&header.encode());
    }
    bytes
}
