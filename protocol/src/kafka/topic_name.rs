//! How the requests that carry records name a topic.

use super::fields::{DecodeError, Fields};

/// The first version of Produce and Fetch that names topics by their ids alone (KIP-516); older ones have names alone.
pub const IDS_FROM: i16 = 13;

/// Visits the one that the version has.
pub(super) fn walk_topic<F: Fields>(
    name: &mut String,
    id: &mut [u8; 16],
    version: i16,
    fields: &mut F,
) -> Result<(), DecodeError> {
    if version >= IDS_FROM { fields.uuid(id) } else { fields.string(name) }
}
