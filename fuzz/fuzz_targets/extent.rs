//! One extent: its header and its body.

#![no_main]

corrente_fuzz::target!(corrente_storage::fuzz::extent);
