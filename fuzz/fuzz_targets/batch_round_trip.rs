//! Records that are put into a batch and read again.

#![no_main]

corrente_fuzz::target!(corrente_protocol::fuzz::batch_round_trip);
