//! A log that lies in more than one data directory: a drive failed while the log was made on it, and another one took
//! its place. What was never made holds no record and goes.

use std::path::{Path, PathBuf};

use corrente_protocol::ids::Offset;
use corrente_runtime::buffer::BLOCK;
use corrente_runtime::file::{self, File, OpenOptions};

use crate::checkpoint::CheckpointEntry;
use crate::error::{AtPath, OpenError, PathError};
use crate::layout::{FailedDir, log_dir};
use crate::log::LogId;
use crate::position::{Nonce, file_len};
use crate::segment::{FileName, SegmentHeader, parse_name};
use crate::storage::remove_log_dir;

/// What a directory has of a log.
struct Part {
    dir_index: usize,
    dir: PathBuf,
    holds_records: bool,
    /// Of the first segment, if its header is whole.
    nonce: Option<Nonce>,
}

/// The directory, of those that have something of a log, that has the log itself. Refused where two hold records.
pub(crate) async fn settle(
    data_dirs: &[PathBuf],
    id: LogId,
    found_in: &[usize],
    checkpoint: Option<&CheckpointEntry>,
    failed: &mut Vec<FailedDir>,
) -> Result<usize, OpenError> {
    let mut parts = Vec::new();
    let mut unanswered = None;
    for &dir_index in found_in {
        if failed.iter().any(|failed| failed.index == dir_index) {
            unanswered = Some(dir_index);
            continue;
        }
        let dir = log_dir(&data_dirs[dir_index], id);
        match Part::look(id, dir_index, dir).await {
            Ok(part) => parts.push(part),
            Err(error) if dir_index > 0 && error.tells_of_a_failed_drive() => {
                tracing::error!(log = %id, %error, "the data directory is not used: its logs are offline");
                failed.push(FailedDir { index: dir_index, reason: error.to_string() });
                unanswered = Some(dir_index);
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(dir_index) = unanswered.filter(|_| !parts.iter().any(|part| part.holds_records)) {
        // As far as can be told, the records lie there.
        return Ok(dir_index);
    }
    let log = choose(&parts, checkpoint);
    let Some(log) = log else {
        let [first, second] = [0, 1].map(|nth| data_dirs[found_in[nth]].clone());
        return Err(OpenError::DuplicateLog { log: id, first, second });
    };
    for Part { dir, .. } in parts.iter().filter(|part| part.dir_index != log.dir_index) {
        tracing::warn!(log = %id, dir = %dir.display(), "what was never made of the log is removed");
        // It harms nothing where it is: the next start tries again.
        if let Err(error) = remove_log_dir(dir).await {
            tracing::warn!(log = %id, %error, "it could not be removed");
        }
    }
    Ok(log.dir_index)
}

/// The part that is the log, if all others can go.
fn choose<'a>(parts: &'a [Part], checkpoint: Option<&CheckpointEntry>) -> Option<&'a Part> {
    let is_known = |part: &Part| checkpoint.is_some_and(|entry| part.nonce == Some(entry.nonce));
    let was_written = checkpoint.is_some_and(|entry| entry.flushed_offset > Offset::ZERO);
    let mut holding = parts.iter().filter(|part| part.holds_records);
    let log = match (holding.next(), holding.next()) {
        (Some(_), Some(_)) => return None,
        (Some(only), None) => Some(only),
        (None, _) => parts.iter().find(|part| is_known(part)).or_else(|| {
            // None was ever written to, or what the checkpoint knows of it is damaged.
            let whole = || parts.iter().find(|part| part.nonce.is_some());
            if was_written { None } else { whole().or(parts.first()) }
        }),
    }?;
    let others_can_go =
        parts.iter().all(|part| part.dir_index == log.dir_index || !(was_written && is_known(part)));
    others_can_go.then_some(log)
}

impl Part {
    async fn look(id: LogId, dir_index: usize, dir: PathBuf) -> Result<Part, OpenError> {
        let mut part = Part { dir_index, holds_records: false, nonce: None, dir };
        for entry in file::read_dir(&part.dir).await.at(&part.dir)? {
            let base_offset = match parse_name(&entry.name) {
                FileName::Segment(base_offset) => base_offset,
                FileName::Index(_) | FileName::Unfinished => continue,
                _ => {
                    part.holds_records = true;
                    continue;
                }
            };
            let path = part.dir.join(&entry.name);
            part.holds_records |= base_offset > Offset::ZERO;
            let header = read_header(&path).await?;
            // All that is written of a log before its first record is the block of the header.
            part.holds_records |= header.is_longer;
            let header = SegmentHeader::decode(&header.block, id, base_offset);
            part.nonce = part.nonce.or(header.ok().map(|(header, _)| header.nonce));
        }
        Ok(part)
    }
}

struct HeaderBlock {
    block: Vec<u8>,
    /// There is more in the file.
    is_longer: bool,
}

async fn read_header(path: &Path) -> Result<HeaderBlock, PathError> {
    let file = File::open(path, OpenOptions::READ).await.at(path)?;
    let block = file.read_at(0, BLOCK).await.at(path)?.to_vec();
    let is_longer = file.len().await.at(path)? > file_len(BLOCK);
    file.close().await.at(path)?;
    Ok(HeaderBlock { block, is_longer })
}

#[cfg(test)]
mod tests {
    use corrente_protocol::ids::{LeaderEpoch, PartitionIndex, TopicId};

    use super::*;
    use crate::extent::NO_TIMESTAMP;
    use crate::position::{FilePosition, HeaderHash};

    const HOLDS: bool = true;
    const EMPTY: bool = false;

    fn part(dir_index: usize, holds_records: bool, nonce: Option<u64>) -> Part {
        Part { dir_index, dir: PathBuf::new(), holds_records, nonce: nonce.map(Nonce) }
    }

    /// What a checkpoint says of a log whose only segment has this nonce.
    fn entry(nonce: u64, flushed_offset: u64) -> CheckpointEntry {
        CheckpointEntry {
            log: LogId { topic: TopicId([1; 16]), partition: PartitionIndex(0) },
            leader_epoch: LeaderEpoch(0),
            log_start_offset: Offset::ZERO,
            flushed_offset: Offset(flushed_offset),
            segment_base: Offset::ZERO,
            nonce: Nonce(nonce),
            position: FilePosition(BLOCK as u64),
            last_extent: FilePosition(BLOCK as u64),
            last_hash: HeaderHash(0),
            max_timestamp_ms: NO_TIMESTAMP,
        }
    }

    fn chosen(parts: [Part; 2], checkpoint: Option<CheckpointEntry>) -> Option<usize> {
        choose(&parts, checkpoint.as_ref()).map(|part| part.dir_index)
    }

    #[test]
    fn the_part_that_holds_records_is_the_log() {
        assert_eq!(chosen([part(0, EMPTY, Some(1)), part(1, HOLDS, Some(2))], None), Some(1));
        assert_eq!(chosen([part(0, HOLDS, None), part(1, EMPTY, Some(2))], Some(entry(7, 5))), Some(0));
    }

    #[test]
    fn of_parts_without_records_it_is_the_known_one_or_else_a_whole_one() {
        assert_eq!(chosen([part(0, EMPTY, Some(1)), part(1, EMPTY, Some(2))], Some(entry(2, 0))), Some(1));
        assert_eq!(chosen([part(0, EMPTY, None), part(1, EMPTY, Some(2))], None), Some(1));
        assert_eq!(chosen([part(0, EMPTY, None), part(1, EMPTY, None)], None), Some(0));
    }

    #[test]
    fn nothing_is_chosen_where_records_could_be_dropped() {
        assert_eq!(chosen([part(0, HOLDS, Some(1)), part(1, HOLDS, Some(2))], None), None);
        // Records were flushed to neither of them.
        assert_eq!(chosen([part(0, EMPTY, Some(1)), part(1, EMPTY, Some(2))], Some(entry(7, 5))), None);
        // They were flushed to the one that has none now.
        assert_eq!(chosen([part(0, EMPTY, Some(1)), part(1, HOLDS, Some(2))], Some(entry(1, 5))), None);
    }
}
