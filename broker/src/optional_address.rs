//! An address in the configuration that may be left out: an empty text stands for none.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// For `#[serde(with = ...)]`.
pub fn serialize<S: Serializer>(address: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    match address {
        Some(address) => serializer.collect_str(address),
        None => serializer.serialize_str(""),
    }
}

/// For `#[serde(with = ...)]`.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| D::Error::custom(format!("'{text}' is not IP:PORT, nor empty for none")))
}
