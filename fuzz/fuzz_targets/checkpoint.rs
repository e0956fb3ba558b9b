//! A checkpoint file.

#![no_main]

corrente_fuzz::target!(corrente_storage::fuzz::checkpoint);
