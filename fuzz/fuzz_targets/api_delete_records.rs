//! Bodies of delete-records requests and responses.

#![no_main]

corrente_fuzz::target!(corrente_protocol::fuzz::api_delete_records);
