//! The identity of a data directory.

#![no_main]

corrente_fuzz::target!(corrente_storage::fuzz::identity);
