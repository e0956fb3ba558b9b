//! The 61 bytes before the records of a batch.

#![no_main]

corrente_fuzz::target!(corrente_protocol::fuzz::batch_header);
