//! Bodies of describe-topic requests and responses.

#![no_main]

corrente_fuzz::target!(corrente_protocol::fuzz::api_describe_topic);
