//! The configs of a topic.

#![no_main]

corrente_fuzz::target!(corrente_replication::fuzz::topic_config);
