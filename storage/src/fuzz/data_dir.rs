//! Entry for fuzzing: a data directory whose files are what the bytes make of sound ones, in a simulated world.
//!
//! Whatever lies there, looking at it, repairing it and starting on it come to their end; a log that a start takes for
//! sound takes appends; and what was repaired starts.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use corrente_protocol::compression::Compression;
use corrente_protocol::fuzz::Choices;
use corrente_protocol::ids::{LeaderEpoch, Offset, ShardId};
use corrente_protocol::record_batch::{BatchLimits, RecordBatchBuilder, validate_batches};
use corrente_runtime::buffer::BLOCK;
use corrente_runtime::file;
use corrente_runtime::sim::{Node, World, WorldConfig};

use super::LOG;
use crate::inspect::{Beside, Dump, DumpRange, OfflineDirs, verify};
use crate::layout::log_dir;
use crate::policy::{CompactionPolicy, LogPolicy};
use crate::repair::Repair;
use crate::scan::{ChainEnd, fuzz_walk};
use crate::segment::{FIRST_EXTENT, FileName, Segment, SegmentHeader, parse_name};
use crate::{
    Health, Log, NodeLayout, Storage, StorageConfig, checkpoint, identity, log_start, segment, segment_index,
};

/// Virtual time in which everything must come to its end.
const PATIENCE: Duration = Duration::from_secs(3_600);
const DATA_DIR: &str = "/data";
const FILE_LEN_MAX: usize = 1 << 22;

type Files = Rc<Vec<(PathBuf, Vec<u8>)>>;

/// Entry for fuzzing: see the module.
#[doc(hidden)]
pub fn fuzz_data_dir(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let how = choices.u8();
    let files = edited(&sound_files(), &mut choices);
    let (world, node) = world();
    run(&world, &node, || lay_down(files));
    if how & 1 != 0 {
        run(&world, &node, look);
    }
    if how & 2 != 0 {
        run(&world, &node, repair);
    }
    run(&world, &node, start);
    // What a start has made of it is as good the next time.
    run(&world, &node, start);
}

fn world() -> (World, Node) {
    let world = World::new(7, WorldConfig::default());
    let node = world.node("north", [10, 0, 0, 1]);
    (world, node)
}

fn run<T: 'static, F: Future<Output = T> + 'static>(
    world: &World,
    node: &Node,
    make: impl FnOnce() -> F + 'static,
) -> T {
    world.run(node, PATIENCE, make).expect("it comes to its end")
}

// The sound directory.

/// The files of a log that was appended to, compacted, cut at its start and closed. Made once.
fn sound_files() -> Files {
    thread_local! {
        static FILES: OnceCell<Files> = const { OnceCell::new() };
    }
    FILES.with(|files| files.get_or_init(made_files).clone())
}

fn made_files() -> Files {
    let (world, node) = world();
    run(&world, &node, live);
    let mut files = run(&world, &node, || files_below(PathBuf::from(DATA_DIR)));
    files.sort();
    for (_, bytes) in &mut files {
        // Space ahead is told by its zeros, however many there are.
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(end.next_multiple_of(BLOCK));
    }
    Rc::new(files)
}

async fn live() {
    let compaction = CompactionPolicy {
        min_lag_ms: 0,
        max_lag_ms: u64::MAX,
        delete_retention_ms: 60_000,
        dirty_ratio_ppm: 0,
    };
    let (layout, storage) = opened().await.expect("an empty directory");
    let log = storage.create_log(LOG, 0).await.expect("a new log");
    log.set_policy(LogPolicy { compaction: Some(compaction), ..LogPolicy::keep_all(8 << 10) });
    for number in 0..12_u32 {
        append(&log, LeaderEpoch(number / 5), number % 3, 1 << 10).await;
        if number == 8 {
            storage.upkeep_now().await;
        }
    }
    log.delete_records_before(Offset(3)).await.expect("records that are there");
    append(&log, LeaderEpoch(2), 9, 100).await;
    storage.close().await.expect("closed");
    layout.retire_old_generations(&[ShardId(0)]).await.expect("old checkpoints go");
}

async fn opened() -> Option<(NodeLayout, Rc<Storage>)> {
    let dirs = vec![PathBuf::from(DATA_DIR)];
    let layout = NodeLayout::open(&dirs).await.ok()?;
    let config = StorageConfig {
        segment_bytes: 8 << 10,
        window_bytes_max: 4 << 10,
        append_bytes_max: 16 << 10,
        tail_ring_bytes: 16 << 10,
        read_ahead_bytes: 64 << 10,
        ..StorageConfig::new(dirs, ShardId(0), layout.generation())
    };
    let storage = Storage::open(config).await.ok()?;
    Some((layout, storage))
}

/// Two records of one key, flushed.
async fn append(log: &Log, epoch: LeaderEpoch, key: u32, len: usize) {
    let mut builder = RecordBatchBuilder::new(Compression::None);
    for _ in 0..2 {
        let (key, value) = (key.to_le_bytes(), vec![0xa5; len]);
        builder.push(1_000, Some(&key), Some(&value), &[]).expect("a small record");
    }
    let batch: Bytes = builder.build();
    let batches = validate_batches(&batch, &BatchLimits { batch_bytes_max: 1 << 20 }).expect("a sound batch");
    let appended = log.append(epoch, &batch, &batches).await.expect("a sound log takes it");
    log.flushed_past(Offset(appended.end_offset.0 - 1)).await.expect("a sound disk");
    log.settle(log.flushed_offset());
}

async fn files_below(dir: PathBuf) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in file::read_dir(&dir).await.expect("a directory") {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            files.extend(Box::pin(files_below(path)).await);
        } else if let Ok(bytes) = file::read_small(&path, FILE_LEN_MAX).await {
            files.push((path, bytes));
        }
    }
    files
}

// What the bytes make of it.

fn edited(sound: &[(PathBuf, Vec<u8>)], choices: &mut Choices<'_>) -> Files {
    let mut files = sound.to_vec();
    while !choices.is_empty() && !files.is_empty() {
        let place = usize::from(choices.u8()) % files.len();
        let other = files[usize::from(choices.u8()) % files.len()].1.clone();
        let (path, bytes) = &mut files[place];
        let at = (choices.u32() as usize).checked_rem(bytes.len()).unwrap_or(0);
        match choices.u8() % 8 {
            0 => bytes.truncate(at),
            1 => *bytes = other,
            2 => drop(files.remove(place)),
            3 => bytes.extend_from_slice(choices.bytes()),
            4 => mend(path, bytes, choices.u8()),
            5 => *path = path.with_file_name(format!("{:020}.seg", choices.u8())),
            _ => bytes.iter_mut().skip(at).zip(choices.bytes()).for_each(|(byte, change)| *byte ^= change),
        }
    }
    Rc::new(files)
}

/// Sets the hashes of a file right, so that what it says is believed.
fn mend(path: &Path, bytes: &mut [u8], how: u8) {
    match bytes.first_chunk::<8>() {
        Some(b"CORRDATA") => identity::fuzz_seal(bytes),
        Some(b"CORRCKPT") => checkpoint::fuzz_seal(bytes),
        Some(b"CORRLOGS") => log_start::fuzz_seal(bytes),
        Some(b"CORRINDX") => segment_index::fuzz_seal(bytes),
        Some(b"CORRSEGM") => {
            segment::fuzz_seal(bytes);
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let FileName::Segment(base_offset) = parse_name(name) else { return };
            let Ok((header, hash)) = SegmentHeader::decode(bytes, LOG, base_offset) else { return };
            let start = ChainEnd {
                nonce: header.nonce,
                position: FIRST_EXTENT,
                last_extent: FIRST_EXTENT,
                hash: Segment::new(&header, hash).chain_start(),
                next_offset: base_offset,
                epoch: LeaderEpoch(0),
                max_timestamp_ms: 0,
            };
            if let Some(extents) = bytes.get_mut(BLOCK..) {
                fuzz_walk(how, extents, start);
            }
        }
        _ => {}
    }
}

async fn lay_down(files: Files) {
    file::create_dir_all(&log_dir(Path::new(DATA_DIR), LOG)).await.expect("a directory");
    for (path, bytes) in files.iter() {
        let dir = path.parent().expect("a file lies in a directory");
        file::create_dir_all(dir).await.expect("a directory");
        file::write_small(path, bytes.clone()).await.expect("a file");
    }
}

// What is done with it.

async fn look() {
    let Ok(dirs) = OfflineDirs::open(&[PathBuf::from(DATA_DIR)], None, Beside::Nobody).await else { return };
    for log in dirs.logs() {
        let _ = verify(log).await;
        let Ok(mut dump) = Dump::begin(log, DumpRange::default()).await else { continue };
        while let Ok(Some(_)) = dump.next().await {}
    }
}

async fn repair() {
    let Ok(dirs) = OfflineDirs::open(&[PathBuf::from(DATA_DIR)], None, Beside::Nobody).await else { return };
    for log in dirs.logs() {
        let Ok(repair) = Repair::plan_for(&dirs, log).await else { continue };
        if repair.plan().refused.is_none() && repair.apply().await.is_ok() {
            let report = verify(log).await.expect("what was repaired can be read");
            assert!(!report.is_damaged(), "damaged after its repair: {report:?}");
        }
    }
}

/// Opens what can be opened, reads it, and appends where that may be.
async fn start() {
    let Some((layout, storage)) = opened().await else { return };
    for found in layout.logs().to_vec() {
        let Ok((log, _)) = storage.open_log(found).await else { continue };
        log.set_policy(LogPolicy::keep_all(8 << 10));
        read(&log).await;
        if log.health() == Health::Sound {
            let end = log.log_end_offset();
            append(&log, log.last_epoch(), 1, 100).await;
            let read = log.read(end, log.flushed_offset(), 1 << 20).await;
            assert!(read.is_ok_and(|chunks| !chunks.is_empty()), "what was appended at {end} cannot be read");
        }
    }
    storage.upkeep_now().await;
    let _ = storage.close().await;
    let _ = layout.retire_old_generations(&[ShardId(0)]).await;
}

async fn read(log: &Log) {
    let mut next = log.log_start_offset();
    while next < log.flushed_offset() {
        let Ok(chunks) = log.read(next, log.flushed_offset(), 4 << 10).await else { return };
        let end =
            chunks.iter().flat_map(|chunk| corrente_protocol::record_batch::headers(chunk)).flatten().last();
        let Some((_, header)) = end.filter(|(_, header)| header.end_offset() > next) else { return };
        next = header.end_offset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sound_directory_holds_every_kind_of_file() {
        let files = sound_files();
        for magic in [b"CORRDATA", b"CORRCKPT", b"CORRLOGS", b"CORRINDX", b"CORRSEGM"] {
            let found = files.iter().any(|(_, bytes)| bytes.starts_with(magic));
            assert!(found, "no {}", String::from_utf8_lossy(magic));
        }
        let rewritten = files.iter().any(|(path, bytes)| {
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
            let FileName::Segment(base_offset) = parse_name(name) else { return false };
            SegmentHeader::decode(bytes, LOG, base_offset).expect("a sound header").0.rewritten.is_some()
        });
        assert!(rewritten, "no segment was compacted");
    }

    #[test]
    fn sound_files_stay_what_they_are_when_they_are_mended() {
        for (path, bytes) in sound_files().iter() {
            let mut mended = bytes.clone();
            // But for base offsets: where compaction has left a gap, there is one.
            mend(path, &mut mended, 0b1101);
            assert!(*bytes == mended, "{} is another file", path.display());
        }
    }
}
