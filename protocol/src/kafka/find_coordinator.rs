//! Which broker coordinates a group or a transaction.

use super::{ApiKey, DecodeError, Fields, Message};

/// Several keys in one request from this version on (KIP-699).
const BATCHED_FROM: i16 = 4;

/// For whom a coordinator is sought.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct FindCoordinatorRequest {
    /// The group or the transactional id, below version 4.
    pub key: String,
    /// 0: a group; 1: a transaction; 2: a share group.
    pub key_type: i8,
    /// From then on.
    pub keys: Vec<String>,
}

/// Where they are.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct FindCoordinatorResponse {
    /// How long the broker held the answer back, in ms.
    pub throttle_ms: i32,
    /// One for each key, in their order; below version 4 exactly one.
    pub coordinators: Vec<Coordinator>,
}

/// Where one is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Coordinator {
    /// For whom.
    pub key: String,
    /// The broker, or -1.
    pub node_id: i32,
    /// Host.
    pub host: String,
    /// Port, or -1.
    pub port: i32,
    /// 0, or why there is none.
    pub error: i16,
    /// One line about it.
    pub error_message: Option<String>,
}

impl Default for Coordinator {
    fn default() -> Coordinator {
        Coordinator {
            key: String::new(),
            node_id: -1,
            host: String::new(),
            port: -1,
            error: 0,
            error_message: None,
        }
    }
}

impl FindCoordinatorRequest {
    /// Every key that is asked for.
    pub fn into_keys(self, version: i16) -> Vec<String> {
        if version < BATCHED_FROM { vec![self.key] } else { self.keys }
    }
}

impl Message for FindCoordinatorRequest {
    const API: ApiKey = ApiKey::FindCoordinator;

    fn walk<F: Fields>(&mut self, version: i16, fields: &mut F) -> Result<(), DecodeError> {
        if version < BATCHED_FROM {
            fields.string(&mut self.key)?;
        }
        if version >= 1 {
            fields.i8(&mut self.key_type)?;
        }
        if version >= BATCHED_FROM {
            fields.list(&mut self.keys, |key, fields| fields.string(key))?;
        }
        fields.tags()
    }
}

impl Message for FindCoordinatorResponse {
    const API: ApiKey = ApiKey::FindCoordinator;

    fn walk<F: Fields>(&mut self, version: i16, fields: &mut F) -> Result<(), DecodeError> {
        if version >= 1 {
            fields.i32(&mut self.throttle_ms)?;
        }
        if version >= BATCHED_FROM {
            fields.list(&mut self.coordinators, |found, fields| {
                fields.string(&mut found.key)?;
                found.walk_endpoint(fields)?;
                fields.i16(&mut found.error)?;
                fields.nullable_string(&mut found.error_message)?;
                fields.tags()
            })?;
            return fields.tags();
        }
        if self.coordinators.is_empty() {
            self.coordinators.push(Coordinator::default());
        }
        let only = &mut self.coordinators[0];
        fields.i16(&mut only.error)?;
        if version >= 1 {
            fields.nullable_string(&mut only.error_message)?;
        }
        only.walk_endpoint(fields)?;
        fields.tags()
    }
}

impl Coordinator {
    fn walk_endpoint<F: Fields>(&mut self, fields: &mut F) -> Result<(), DecodeError> {
        fields.i32(&mut self.node_id)?;
        fields.string(&mut self.host)?;
        fields.i32(&mut self.port)
    }
}
