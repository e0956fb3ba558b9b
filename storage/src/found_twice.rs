//! A log that lies in more than one data directory: a drive failed while the log was made on it, and another one took
//! its place. What was never made holds no record and goes.

use std::path::{Path, PathBuf};

use corrente_protocol::ids::Offset;
use corrente_runtime::buffer::BLOCK;
use corrente_runtime::file::{self, File, OpenOptions};

use crate::checkpoint::CheckpointEntry;
use crate::error::{AtPath, OpenError, PathError};
use crate::layout::log_dir;
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
) -> Result<usize, OpenError> {
    let mut parts = Vec::new();
    for &dir_index in found_in {
        let dir = log_dir(&data_dirs[dir_index], id);
        parts.push(Part::look(id, dir_index, dir).await?);
    }
    let holding = parts.iter().filter(|part| part.holds_records).count();
    let known = |part: &&Part| checkpoint.is_some_and(|entry| part.nonce == Some(entry.nonce));
    let log = match holding {
        1 => parts.iter().find(|part| part.holds_records),
        // None was ever written to, or what the checkpoint knows of it is damaged.
        0 => parts.iter().find(known).or(parts
            .first()
            .filter(|_| checkpoint.is_none_or(|entry| entry.flushed_offset == Offset::ZERO))),
        _ => None,
    };
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

impl Part {
    async fn look(id: LogId, dir_index: usize, dir: PathBuf) -> Result<Part, PathError> {
        let mut part = Part { dir_index, holds_records: false, nonce: None, dir };
        for entry in file::read_dir(&part.dir).await.at(&part.dir)? {
            let FileName::Segment(base_offset) = parse_name(&entry.name) else { continue };
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
