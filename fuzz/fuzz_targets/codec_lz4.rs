//! LZ4 frames as records are compressed with them.

#![no_main]

corrente_fuzz::target!(corrente_protocol::fuzz::codec_lz4);
