//! A metadata log, applied record by record.

#![no_main]

corrente_fuzz::target!(corrente_replication::fuzz::image);
