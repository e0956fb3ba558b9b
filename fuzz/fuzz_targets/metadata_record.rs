//! One metadata record.

#![no_main]

corrente_fuzz::target!(corrente_replication::fuzz::metadata_record);
