//! What a file of producer states holds: for each log of a shard, its producers as of one offset.
//!
//! Pure. A start goes on from there with the batches behind that offset, so it need not read a log from its
//! beginning. One hash covers the whole: a file that does not verify is not used, and the logs are read instead.
//! docs/FORMAT.md draws the bytes.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut};
use corrente_protocol::ids::{Offset, PartitionIndex, ShardId, TopicId, TopicPartition};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use crate::log::{Appended, LogId};
use crate::producer_state::{BATCHES_KEPT, Producer, ProducerState, SequencedBatch};

/// The one version written and read.
const VERSION: u16 = 1;
const MAGIC: [u8; 8] = *b"CORRPRDS";
/// Stands where the log gave no time to the records.
const NO_TIME: i64 = i64::MIN;
const HASH_LEN: usize = 8;

/// The producers of one log as of one offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LogProducers {
    /// Everything below is taken in, nothing beyond.
    pub(crate) end_offset: Offset,
    pub(crate) state: ProducerState,
}

/// What one file says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ProducerSnapshot {
    /// Which start of the node wrote it.
    pub(crate) generation: u64,
    pub(crate) shard: ShardId,
    pub(crate) logs: BTreeMap<LogId, LogProducers>,
}

/// Why a file is not used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum SnapshotFault {
    #[error("no producer states, or damaged")]
    Foreign,
    #[error("producer states of version {0}, this code reads {VERSION}")]
    Version(u16),
    #[error("producer states that cannot be read: {0}")]
    Unreadable(String),
}

/// The largest file that is written, or read.
pub(crate) const FILE_LEN_MAX: usize = 1 << 30;

/// The bytes of a file.
pub(crate) fn encode<'a>(
    generation: u64,
    shard: ShardId,
    logs: impl ExactSizeIterator<Item = (&'a LogId, &'a LogProducers)>,
) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_slice(&MAGIC);
    out.put_u16_le(VERSION);
    out.put_u16_le(shard.0);
    out.put_u32_le(u32::try_from(logs.len()).expect("a shard holds fewer logs than 2^32"));
    out.put_u64_le(generation);
    for (log, LogProducers { end_offset, state }) in logs {
        out.put_slice(&log.topic.0);
        out.put_u32_le(log.partition.0);
        out.put_u32_le(u32::try_from(state.producers.len()).expect("a log remembers few"));
        out.put_u64_le(end_offset.0);
        for (id, producer) in &state.producers {
            encode_producer(&mut out, *id, producer);
        }
    }
    out.put_u64_le(xxh3_64(&out));
    out
}

fn encode_producer(out: &mut Vec<u8>, id: i64, producer: &Producer) {
    out.put_i64_le(id);
    out.put_i64_le(producer.last_append_ms);
    out.put_i16_le(producer.epoch);
    out.put_u16_le(u16::try_from(producer.batches.len()).expect("a producer has few"));
    for SequencedBatch { first_sequence, last_sequence, place } in &producer.batches {
        out.put_i32_le(*first_sequence);
        out.put_i32_le(*last_sequence);
        out.put_u64_le(place.base_offset.0);
        out.put_u64_le(place.end_offset.0);
        out.put_i64_le(place.append_time_ms.unwrap_or(NO_TIME));
    }
}

/// Reads a whole file.
pub(crate) fn decode(bytes: &[u8]) -> Result<ProducerSnapshot, SnapshotFault> {
    let Some((mut body, hash)) = bytes.split_last_chunk::<HASH_LEN>() else {
        return Err(SnapshotFault::Foreign);
    };
    if !body.starts_with(&MAGIC) || xxh3_64(body) != u64::from_le_bytes(*hash) {
        return Err(SnapshotFault::Foreign);
    }
    body.advance(MAGIC.len());
    let version = body.try_get_u16_le().map_err(short)?;
    if version != VERSION {
        return Err(SnapshotFault::Version(version));
    }
    let shard = ShardId(body.try_get_u16_le().map_err(short)?);
    let count = body.try_get_u32_le().map_err(short)?;
    let generation = body.try_get_u64_le().map_err(short)?;
    let mut logs = BTreeMap::new();
    for _ in 0..count {
        let (log, producers) = decode_log(&mut body)?;
        logs.insert(log, producers);
    }
    if body.is_empty() {
        Ok(ProducerSnapshot { generation, shard, logs })
    } else {
        Err(SnapshotFault::Foreign)
    }
}

fn decode_log(body: &mut &[u8]) -> Result<(LogId, LogProducers), SnapshotFault> {
    let mut topic = [0; 16];
    body.try_copy_to_slice(&mut topic).map_err(short)?;
    let partition = PartitionIndex(body.try_get_u32_le().map_err(short)?);
    let count = body.try_get_u32_le().map_err(short)?;
    let end_offset = Offset(body.try_get_u64_le().map_err(short)?);
    let mut state = ProducerState::default();
    for _ in 0..count {
        let (id, producer) = decode_producer(body)?;
        state.producers.insert(id, producer);
    }
    Ok((TopicPartition { topic: TopicId(topic), partition }, LogProducers { end_offset, state }))
}

fn decode_producer(body: &mut &[u8]) -> Result<(i64, Producer), SnapshotFault> {
    let id = body.try_get_i64_le().map_err(short)?;
    let last_append_ms = body.try_get_i64_le().map_err(short)?;
    let epoch = body.try_get_i16_le().map_err(short)?;
    let count = usize::from(body.try_get_u16_le().map_err(short)?);
    if !(1..=BATCHES_KEPT).contains(&count) {
        return Err(SnapshotFault::Foreign);
    }
    let batches = (0..count).map(|_| decode_batch(body)).collect::<Result<_, _>>()?;
    Ok((id, Producer { epoch, last_append_ms, batches }))
}

fn decode_batch(body: &mut &[u8]) -> Result<SequencedBatch, SnapshotFault> {
    let first_sequence = body.try_get_i32_le().map_err(short)?;
    let last_sequence = body.try_get_i32_le().map_err(short)?;
    let base_offset = Offset(body.try_get_u64_le().map_err(short)?);
    let end_offset = Offset(body.try_get_u64_le().map_err(short)?);
    let append_time_ms = Some(body.try_get_i64_le().map_err(short)?).filter(|time| *time != NO_TIME);
    let place = Appended { base_offset, end_offset, append_time_ms };
    Ok(SequencedBatch { first_sequence, last_sequence, place })
}

fn short(_: bytes::TryGetError) -> SnapshotFault {
    SnapshotFault::Foreign
}

/// Entry for fuzzing: a file as it lies there, and with its hash set right.
#[doc(hidden)]
pub fn fuzz_producer_snapshot(bytes: &[u8]) {
    let mut sealed = bytes.to_vec();
    if let Some((body, hash)) = sealed.split_last_chunk_mut::<HASH_LEN>() {
        *hash = xxh3_64(body).to_le_bytes();
    }
    for bytes in [bytes, &sealed] {
        let Ok(snapshot) = decode(bytes) else { continue };
        let written = encode(snapshot.generation, snapshot.shard, snapshot.logs.iter());
        assert_eq!(decode(&written), Ok(snapshot));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn producers(seed: &[i64]) -> ProducerState {
        let batch = |n: i64| SequencedBatch {
            first_sequence: n as i32 & i32::MAX,
            last_sequence: 7,
            place: Appended {
                base_offset: Offset(n.cast_unsigned()),
                end_offset: Offset(9),
                append_time_ms: Some(n).filter(|n| n % 2 == 0),
            },
        };
        let one = |n: &i64| {
            let batches = (0..1 + n.rem_euclid(5)).map(batch).collect();
            (*n, Producer { epoch: 3, last_append_ms: *n, batches })
        };
        ProducerState { producers: seed.iter().map(one).collect() }
    }

    fn file(logs: &[Vec<i64>]) -> (BTreeMap<LogId, LogProducers>, Vec<u8>) {
        let log = |n: u32| TopicPartition { topic: TopicId([1; 16]), partition: PartitionIndex(n) };
        let logs: BTreeMap<_, _> = (0..)
            .zip(logs)
            .map(|(n, seed)| {
                (log(n), LogProducers { end_offset: Offset(u64::from(n)), state: producers(seed) })
            })
            .collect();
        let bytes = encode(5, ShardId(2), logs.iter());
        (logs, bytes)
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            logs in proptest::collection::vec(proptest::collection::vec(any::<i64>(), 0..9), 0..9),
        ) {
            let (logs, bytes) = file(&logs);
            prop_assert_eq!(decode(&bytes), Ok(ProducerSnapshot { generation: 5, shard: ShardId(2), logs }));
        }

        #[test]
        fn strange_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            fuzz_producer_snapshot(&bytes);
            bytes.splice(0..bytes.len().min(10), MAGIC.into_iter().chain(VERSION.to_le_bytes()));
            fuzz_producer_snapshot(&bytes);
        }
    }

    #[test]
    fn a_flipped_bit_or_a_missing_end_is_noticed() {
        let (_, whole) = file(&[vec![1, 2], vec![], vec![3]]);
        for at in 0..whole.len() {
            assert_eq!(decode(&whole[..at]), Err(SnapshotFault::Foreign));
            let mut flipped = whole.clone();
            flipped[at] ^= 4;
            assert_eq!(decode(&flipped), Err(SnapshotFault::Foreign), "byte {at}");
        }
    }
}
