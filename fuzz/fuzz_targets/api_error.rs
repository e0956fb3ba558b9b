//! Bodies of refusals.

#![no_main]

corrente_fuzz::target!(corrente_protocol::fuzz::api_error);
