//! The log start of one log.

#![no_main]

corrente_fuzz::target!(corrente_storage::fuzz::log_start);
