//! The first bytes of either side.

#![no_main]

corrente_fuzz::target!(corrente_protocol::fuzz::hello);
