//! Walks a segment file from end to end and meets every extent in it, whatever lies between them.
//!
//! Unlike recovery's walk it goes on behind what does not verify, and believes nothing but an extent's own hashes: what
//! follows from them is for the caller to say.

use std::path::Path;

use bytes::Bytes;
use corrente_runtime::executor::yield_if_needed;

use super::report::InspectError;
use super::segment_bytes::SegmentBytes;
use crate::extent::{EXTENT_ALIGN, EXTENT_HEADER_LEN, ExtentFault, ExtentHeader};
use crate::position::{FilePosition, HeaderHash, Nonce, buffer_len, file_len};
use crate::scan::find_extent;

/// Bytes looked through at one go for the next extent.
const SEARCH: usize = 256 * 1024;

/// What a walk meets.
pub(crate) enum Met {
    /// A header that verifies, with the body behind it.
    Extent(MetExtent),
    /// Bytes in which no header verifies, up to the next that does or the end of the walk.
    Nothing(Nothing),
}

pub(crate) struct MetExtent {
    pub(crate) position: FilePosition,
    pub(crate) header: ExtentHeader,
    pub(crate) hash: HeaderHash,
    /// Shorter than the header says where the file ends.
    pub(crate) body: Bytes,
    /// What is wrong with the body.
    pub(crate) fault: Option<ExtentFault>,
}

pub(crate) struct Nothing {
    pub(crate) from: FilePosition,
    /// What stands where a header should.
    pub(crate) fault: ExtentFault,
    /// Where the last byte that is not zero ends; `from` if there is none.
    pub(crate) filled_to: FilePosition,
}

/// An extent was written by another version of this program.
#[derive(Debug)]
pub(crate) struct OtherVersion(pub(crate) u16);

impl OtherVersion {
    pub(crate) fn of(self, path: &Path) -> InspectError {
        let reason = ExtentFault::Version(self.0).to_string();
        InspectError::OtherVersion { path: path.to_owned(), reason }
    }
}

/// Where a walk stands.
pub(crate) struct Walk {
    bytes: SegmentBytes,
    nonce: Nonce,
    position: FilePosition,
    end: FilePosition,
}

impl Walk {
    /// From `position`, where an extent should begin, to `end` or the end of the file.
    pub(crate) fn new(bytes: SegmentBytes, nonce: Nonce, position: FilePosition, end: FilePosition) -> Walk {
        let end = end.min(FilePosition(bytes.len()));
        Walk { bytes, nonce, position, end }
    }

    /// The file that is walked through.
    pub(crate) fn bytes(&self) -> &SegmentBytes {
        &self.bytes
    }

    /// Gives the file back.
    pub(crate) fn into_bytes(self) -> SegmentBytes {
        self.bytes
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Met>, OtherVersion> {
        if self.position >= self.end {
            return Ok(None);
        }
        yield_if_needed().await;
        let head = self.look(self.position, EXTENT_HEADER_LEN).await;
        if head.len() < EXTENT_HEADER_LEN {
            return Ok(Some(Met::Nothing(self.search(ExtentFault::Foreign).await)));
        }
        match ExtentHeader::decode(&head, self.nonce, self.position) {
            Ok((header, hash)) => Ok(Some(Met::Extent(self.extent(header, hash).await))),
            Err(ExtentFault::Version(version)) => Err(OtherVersion(version)),
            Err(fault) => Ok(Some(Met::Nothing(self.search(fault).await))),
        }
    }

    async fn extent(&mut self, header: ExtentHeader, hash: HeaderHash) -> MetExtent {
        let position = self.position;
        let there = self.look(position, buffer_len(header.total_len())).await;
        let len = there.len().min(buffer_len(header.total_len()));
        let body = there.slice(EXTENT_HEADER_LEN..len);
        let whole = file_len(body.len()) == u64::from(header.body_len);
        let fault = match whole {
            true => header.verify_body(&body, self.nonce, position).err(),
            false => Some(ExtentFault::Foreign),
        };
        self.position = match fault {
            // A length that verifies is right, whatever became of the bytes.
            None | Some(ExtentFault::Body { .. }) => header.next_position(position),
            Some(_) => self.end,
        };
        MetExtent { position, header, hash, body, fault }
    }

    /// Looks for the next header behind the position.
    async fn search(&mut self, fault: ExtentFault) -> Nothing {
        let from = self.position;
        let mut filled_to = from;
        let mut at = from;
        // What stands at the position itself has been judged.
        let mut skip = EXTENT_ALIGN;
        let to = loop {
            if at >= self.end {
                break self.end;
            }
            let there = self.look(at, SEARCH).await;
            let there = there.slice(..there.len().min(SEARCH));
            if there.is_empty() {
                break self.end;
            }
            let found = there.get(skip..).and_then(|rest| find_extent(rest, self.nonce, at + file_len(skip)));
            let seen = found.map_or(there.len(), |(position, _)| buffer_len(position - at));
            if let Some(last) = there[..seen].iter().rposition(|byte| *byte != 0) {
                filled_to = at + file_len(last) + 1;
            }
            if let Some((position, _)) = found {
                break position;
            }
            at = at + file_len(there.len());
            skip = 0;
            yield_if_needed().await;
        };
        self.position = to;
        Nothing { from, fault, filled_to }
    }

    /// The bytes from a position on, as far as the walk goes.
    async fn look(&mut self, position: FilePosition, wanted: usize) -> Bytes {
        let there = self.bytes.at(position, wanted).await;
        let left = self.end.0.saturating_sub(position.0);
        if file_len(there.len()) > left { there.slice(..buffer_len(left)) } else { there }
    }
}
