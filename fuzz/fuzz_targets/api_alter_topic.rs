//! Bodies of alter-topic requests and responses.

#![no_main]

corrente_fuzz::target!(corrente_protocol::fuzz::api_alter_topic);
