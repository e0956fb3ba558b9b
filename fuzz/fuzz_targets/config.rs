//! The broker's configuration file.

#![no_main]

corrente_fuzz::target!(corrente_broker::fuzz::config);
