//! Bodies of add-partitions requests and responses.

#![no_main]

corrente_fuzz::target!(corrente_protocol::fuzz::api_add_partitions);
