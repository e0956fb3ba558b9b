//! Topics go.

use super::{ApiKey, DecodeError, Fields, Message};

/// Topics have a name or an id from this version on (KIP-516).
const IDS_FROM: i16 = 6;

/// Topics to delete.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct DeleteTopicsRequest {
    /// Each of them.
    pub topics: Vec<DoomedTopic>,
    /// How long the client waits, in ms.
    pub timeout_ms: i32,
}

/// A topic to delete.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct DoomedTopic {
    /// Its name, if the id is not given.
    pub name: Option<String>,
    /// Its id, or zeros.
    pub id: [u8; 16],
}

/// What became of them.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct DeleteTopicsResponse {
    /// How long the broker held the answer back, in ms.
    pub throttle_ms: i32,
    /// Each of them.
    pub topics: Vec<DeletedTopic>,
}

/// What became of one.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct DeletedTopic {
    /// Its name; null only if it was given by an id that nobody knows.
    pub name: Option<String>,
    /// Its id.
    pub id: [u8; 16],
    /// 0, or why it is still there.
    pub error: i16,
    /// One line about it.
    pub error_message: Option<String>,
}

impl Message for DeleteTopicsRequest {
    const API: ApiKey = ApiKey::DeleteTopics;

    fn walk<F: Fields>(&mut self, version: i16, fields: &mut F) -> Result<(), DecodeError> {
        fields.list(&mut self.topics, |topic, fields| {
            if version < IDS_FROM {
                return fields.string(topic.name.get_or_insert_default());
            }
            fields.nullable_string(&mut topic.name)?;
            fields.uuid(&mut topic.id)?;
            fields.tags()
        })?;
        fields.i32(&mut self.timeout_ms)?;
        fields.tags()
    }
}

impl Message for DeleteTopicsResponse {
    const API: ApiKey = ApiKey::DeleteTopics;

    fn walk<F: Fields>(&mut self, version: i16, fields: &mut F) -> Result<(), DecodeError> {
        fields.i32(&mut self.throttle_ms)?;
        fields.list(&mut self.topics, |topic, fields| {
            if version >= IDS_FROM {
                fields.nullable_string(&mut topic.name)?;
                fields.uuid(&mut topic.id)?;
            } else {
                fields.string(topic.name.get_or_insert_default())?;
            }
            fields.i16(&mut topic.error)?;
            if version >= 5 {
                fields.nullable_string(&mut topic.error_message)?;
            }
            fields.tags()
        })?;
        fields.tags()
    }
}
