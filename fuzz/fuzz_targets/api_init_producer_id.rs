//! Bodies of init-producer-id requests and responses.

#![no_main]

corrente_fuzz::target!(corrente_protocol::fuzz::api_init_producer_id);
