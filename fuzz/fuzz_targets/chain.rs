//! A segment, walked from extent to extent.

#![no_main]

corrente_fuzz::target!(corrente_storage::fuzz::chain);
