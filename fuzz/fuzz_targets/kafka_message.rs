//! Bodies of Kafka's requests and responses, in every version that is served.

#![no_main]

corrente_fuzz::target!(corrente_protocol::fuzz::kafka_message);
