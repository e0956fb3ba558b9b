//! Entries for fuzzing, by the names of their targets, and what a fuzzer begins with. Not part of the api; the rules
//! are those of `corrente_protocol::fuzz`.

mod data_dir;

use std::collections::BTreeMap;

use corrente_protocol::fuzz::Entry;
use corrente_protocol::ids::{LeaderEpoch, Offset, PartitionIndex, ShardId, TopicId, TopicPartition};

use crate::checkpoint::{CheckpointEntry, FileHeader, encode_frame};
use crate::identity::Identity;
use crate::log::Appended;
use crate::log_start::encode as log_start_of;
use crate::position::{FilePosition, HeaderHash, Nonce, buffer_len, file_len};
use crate::producer_snapshot::{self, LogProducers};
use crate::producer_state::{Producer, ProducerState, SequencedBatch};
use crate::segment::{PreviousSegment, Rewritten, RewrittenBy, SegmentHeader};
use crate::segment_index::{POINT_EVERY, SegmentIndex};
use crate::window::{SealedWindow, Window};

pub use crate::checkpoint::fuzz_checkpoint as checkpoint;
pub use crate::extent::fuzz_extent as extent;
pub use crate::identity::fuzz_identity as identity;
pub use crate::log_start::fuzz_log_start as log_start;
pub use crate::producer_snapshot::fuzz_producer_snapshot as producer_snapshot;
pub use crate::scan::fuzz_chain as chain;
pub use crate::segment::fuzz_segment_header as segment_header;
pub use crate::segment_index::fuzz_segment_index as segment_index;
pub use data_dir::fuzz_data_dir as data_dir;

/// Every entry of this crate.
pub const ENTRIES: &[Entry] = &[
    ("chain", chain),
    ("checkpoint", checkpoint),
    ("data_dir", data_dir),
    ("extent", extent),
    ("identity", identity),
    ("log_start", log_start),
    ("producer_snapshot", producer_snapshot),
    ("segment_header", segment_header),
    ("segment_index", segment_index),
];

const LOG: TopicPartition = TopicPartition { topic: TopicId([0; 16]), partition: PartitionIndex(0) };
const START: FilePosition = FilePosition(4096);

/// Inputs that the entries understand, written by the very code that writes files: target, name, bytes.
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let identity = Identity { dir_id: [7; 16], created_ms: 1_767_225_600_000 };
    let all_mended = 0b1111;
    vec![
        ("chain", "one", [vec![0], segment(&[100])].concat()),
        ("chain", "many", [vec![0], segment(&[100, 1, 3840, 300])].concat()),
        ("chain", "mended", [vec![all_mended], segment(&[64, 700])].concat()),
        ("checkpoint", "snapshot", checkpoint_of(&[2])),
        ("checkpoint", "deltas", checkpoint_of(&[3, 1, 0])),
        ("data_dir", "sound", vec![0b11]),
        ("data_dir", "a-byte-rotten", [&[0b11][..], &edit(4, 5_000, &[6, 1, 0, 0x5a])].concat()),
        (
            "data_dir",
            "a-lie-that-verifies",
            [&[0b11][..], &edit(4, 4_120, &[6, 1, 0, 1]), &edit(4, 0, &[4, 15])].concat(),
        ),
        ("data_dir", "cut-short", [&[0b11][..], &edit(4, 6_000, &[0])].concat()),
        ("data_dir", "a-file-less", [&[0b01][..], &edit(3, 0, &[2])].concat()),
        ("extent", "one", segment(&[300])),
        ("identity", "new", identity.encode()),
        ("log_start", "moved", log_start_of(LOG, Offset(42))),
        ("producer_snapshot", "two-logs", producer_snapshot_of(&[0, 3])),
        ("segment_header", "first", header(None, None)),
        ("segment_header", "later", header(Some(Offset(0)), None)),
        ("segment_header", "rewritten", header(Some(Offset(0)), Some(rewritten()))),
        ("segment_index", "empty", index(0)),
        ("segment_index", "some", index(9)),
    ]
}

/// A change of one file, as the entry draws it: which file, whose bytes it may take, where, and what happens there.
fn edit(file: u8, at: u32, what: &[u8]) -> Vec<u8> {
    [&[file, 0][..], &at.to_le_bytes(), what].concat()
}

/// A segment without its first block: extents with bodies of these lengths, one offset each.
fn segment(bodies: &[usize]) -> Vec<u8> {
    let mut image = Vec::new();
    let mut before: Option<SealedWindow> = None;
    for (offset, len) in (0..).zip(bodies) {
        let front = before.as_ref().map_or_else(Default::default, SealedWindow::front_of_next);
        let mut window = Window::new(&front, Offset(offset), LeaderEpoch(1), *len);
        window.gather(&vec![0xa5; *len], Offset(offset + 1), 1_767_225_600_000);
        let position = before.as_ref().map_or(START, |window| window.next_extent);
        let prev = before.as_ref().map_or(HeaderHash(1), |window| window.hash);
        let sealed = window.seal(position, Nonce(0), prev);
        image.truncate(buffer_len(sealed.at - START));
        image.extend_from_slice(&sealed.data);
        before = Some(sealed);
    }
    let end = before.map_or(START, |window| window.next_extent);
    image.truncate(buffer_len(end - START));
    image
}

/// A file of logs that remember this many producers each.
fn producer_snapshot_of(logs: &[i64]) -> Vec<u8> {
    let place = Appended { base_offset: Offset(5), end_offset: Offset(8), append_time_ms: None };
    let batch = SequencedBatch { first_sequence: 0, last_sequence: 2, place };
    let producer = Producer { epoch: 1, last_append_ms: 1_767_225_600_000, batches: [batch, batch].into() };
    let logs: BTreeMap<_, _> = (0..)
        .zip(logs)
        .map(|(partition, count)| {
            let producers = (0..*count).map(|id| (id, producer.clone())).collect();
            let state = ProducerState { producers };
            let log = TopicPartition { partition: PartitionIndex(partition), ..LOG };
            (log, LogProducers { end_offset: Offset(8), state })
        })
        .collect();
    producer_snapshot::encode(3, ShardId(1), logs.iter())
}

/// A file whose frames have this many entries each.
fn checkpoint_of(frames: &[u64]) -> Vec<u8> {
    let header = FileHeader { generation: 3, shard: 1, nonce: Nonce(77) };
    let mut file = header.encode().to_vec();
    for (sequence, count) in (1..).zip(frames) {
        let entries: Vec<CheckpointEntry> = (0..*count).map(entry).collect();
        let at = FilePosition(file_len(file.len()));
        file.extend_from_slice(&encode_frame(&entries, sequence, header.nonce, at));
    }
    file
}

fn entry(number: u64) -> CheckpointEntry {
    CheckpointEntry {
        log: LOG,
        leader_epoch: LeaderEpoch(2),
        log_start_offset: Offset(number),
        flushed_offset: Offset(number + 10),
        segment_base: Offset(number),
        nonce: Nonce(number),
        position: START + 64 * number,
        last_extent: START,
        last_hash: HeaderHash(9),
        max_timestamp_ms: 1_767_225_600_000,
    }
}

fn header(previous: Option<Offset>, rewritten: Option<Rewritten>) -> Vec<u8> {
    let previous = previous.map(|base_offset| PreviousSegment {
        base_offset,
        end_position: START + 640,
        end_hash: HeaderHash(5),
        max_timestamp_ms: 1_767_225_600_000,
    });
    let header = SegmentHeader {
        log: LOG,
        base_offset: Offset(0),
        nonce: Nonce(11),
        created_ms: 1_767_225_600_000,
        leader_epoch: LeaderEpoch(4),
        previous,
        rewritten,
    };
    header.encode().0.to_vec()
}

fn rewritten() -> Rewritten {
    Rewritten {
        by: RewrittenBy::Compaction,
        end_offset: Offset(90),
        end_position: START + 640,
        end_hash: HeaderHash(6),
        max_timestamp_ms: 1_767_225_600_000,
        last_epoch: LeaderEpoch(4),
    }
}

fn index(points: u64) -> Vec<u8> {
    let mut index = SegmentIndex::default();
    for number in 0..points {
        index.note(Offset(10 * number), START + POINT_EVERY * number, 7);
    }
    index.encode(Nonce(0), FilePosition(1 << 30)).to_vec()
}
