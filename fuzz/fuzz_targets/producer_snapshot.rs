//! A file of producer states.

#![no_main]

corrente_fuzz::target!(corrente_storage::fuzz::producer_snapshot);
