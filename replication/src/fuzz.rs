//! Entries for fuzzing, by the names of their targets. Not part of the api; the rules are those of
//! `corrente_protocol::fuzz`.

use corrente_protocol::fuzz::Entry;

pub use crate::metadata::image::apply::fuzz_image as image;
pub use crate::metadata::records::fuzz_metadata_record as metadata_record;
pub use crate::topic_config::fuzz_topic_config as topic_config;

/// Every entry of this crate.
pub const ENTRIES: &[Entry] =
    &[("image", image), ("metadata_record", metadata_record), ("topic_config", topic_config)];
