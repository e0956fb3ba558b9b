//! A whole broker, a client, and a stranger who says what it likes to the Kafka listener.

#![no_main]

corrente_fuzz::target!(corrente_sim::fuzz::broker_kafka, corrente_protocol::fuzz::HELD_BASE_OF_WORLDS);
