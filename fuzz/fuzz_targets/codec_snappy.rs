//! Snappy, raw and in xerial's framing.

#![no_main]

corrente_fuzz::target!(corrente_protocol::fuzz::codec_snappy);
