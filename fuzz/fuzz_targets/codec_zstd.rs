//! zstd as records are compressed with it.

#![no_main]

corrente_fuzz::target!(corrente_protocol::fuzz::codec_zstd);
