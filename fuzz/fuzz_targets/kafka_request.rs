//! Frames of Kafka's clients, as the broker takes them apart.

#![no_main]

corrente_fuzz::target!(corrente_protocol::fuzz::kafka_request);
