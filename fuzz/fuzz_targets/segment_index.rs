//! The index file of a segment.

#![no_main]

corrente_fuzz::target!(corrente_storage::fuzz::segment_index);
