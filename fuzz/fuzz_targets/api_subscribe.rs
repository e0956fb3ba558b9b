//! Bodies of subscribe requests and their answers.

#![no_main]

corrente_fuzz::target!(corrente_protocol::fuzz::api_subscribe);
