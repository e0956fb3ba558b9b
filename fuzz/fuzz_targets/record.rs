//! One record of a batch.

#![no_main]

corrente_fuzz::target!(corrente_protocol::fuzz::record);
