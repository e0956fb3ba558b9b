//! A data directory whose files are what the bytes make of sound ones: looked at, repaired, started on.

#![no_main]

corrente_fuzz::target!(corrente_storage::fuzz::data_dir, corrente_protocol::fuzz::HELD_BASE_OF_WORLDS);
