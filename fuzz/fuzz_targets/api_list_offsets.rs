//! Bodies of list-offsets requests and responses.

#![no_main]

corrente_fuzz::target!(corrente_protocol::fuzz::api_list_offsets);
