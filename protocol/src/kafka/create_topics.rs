//! New topics.

use super::{ApiKey, DecodeError, Fields, Message};

/// Topics to create.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct CreateTopicsRequest {
    /// Each of them.
    pub topics: Vec<NewTopic>,
    /// How long the client waits, in ms.
    pub timeout_ms: i32,
    /// Whether only to say what would come of it.
    pub validate_only: bool,
}

/// A topic to create.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions, or -1 for the broker's default or those of `assignments`.
    pub num_partitions: i32,
    /// How many replicas of each, or -1.
    pub replication_factor: i16,
    /// Who is to hold each partition, if the client decides.
    pub assignments: Vec<Assignment>,
    /// Configs that differ from the defaults.
    pub configs: Vec<NewTopicConfig>,
}

/// Who is to hold a partition.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Assignment {
    /// Which one.
    pub partition_index: i32,
    /// The preferred leader first.
    pub broker_ids: Vec<i32>,
}

/// A config of a new topic.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct NewTopicConfig {
    /// Its key.
    pub name: String,
    /// Its value.
    pub value: Option<String>,
}

/// What became of them.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct CreateTopicsResponse {
    /// How long the broker held the answer back, in ms.
    pub throttle_ms: i32,
    /// Each of them.
    pub topics: Vec<CreatedTopic>,
}

/// What became of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreatedTopic {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: [u8; 16],
    /// 0, or why it was not created.
    pub error: i16,
    /// One line about it.
    pub error_message: Option<String>,
    /// How many partitions it has, or -1.
    pub num_partitions: i32,
    /// How many replicas each has, or -1.
    pub replication_factor: i16,
    /// What holds for it.
    pub configs: Option<Vec<CreatedConfig>>,
}

impl Default for CreatedTopic {
    fn default() -> CreatedTopic {
        CreatedTopic {
            name: String::new(),
            id: [0; 16],
            error: 0,
            error_message: None,
            num_partitions: -1,
            replication_factor: -1,
            configs: None,
        }
    }
}

/// A config that holds for a topic.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct CreatedConfig {
    /// Its key.
    pub name: String,
    /// Its value.
    pub value: Option<String>,
    /// Whether it can be changed.
    pub read_only: bool,
    /// Where it comes from: 1 the topic, 5 the default.
    pub source: i8,
    /// Whether it is a secret.
    pub is_sensitive: bool,
}

impl Message for CreateTopicsRequest {
    const API: ApiKey = ApiKey::CreateTopics;

    fn walk<F: Fields>(&mut self, _version: i16, fields: &mut F) -> Result<(), DecodeError> {
        fields.list(&mut self.topics, |topic, fields| {
            fields.string(&mut topic.name)?;
            fields.i32(&mut topic.num_partitions)?;
            fields.i16(&mut topic.replication_factor)?;
            fields.list(&mut topic.assignments, |assignment, fields| {
                fields.i32(&mut assignment.partition_index)?;
                fields.list(&mut assignment.broker_ids, |node, fields| fields.i32(node))?;
                fields.tags()
            })?;
            fields.list(&mut topic.configs, |config, fields| {
                fields.string(&mut config.name)?;
                fields.nullable_string(&mut config.value)?;
                fields.tags()
            })?;
            fields.tags()
        })?;
        fields.i32(&mut self.timeout_ms)?;
        fields.bool(&mut self.validate_only)?;
        fields.tags()
    }
}

impl Message for CreateTopicsResponse {
    const API: ApiKey = ApiKey::CreateTopics;

    fn walk<F: Fields>(&mut self, version: i16, fields: &mut F) -> Result<(), DecodeError> {
        fields.i32(&mut self.throttle_ms)?;
        fields.list(&mut self.topics, |topic, fields| topic.walk(version, fields))?;
        fields.tags()
    }
}

impl CreatedTopic {
    fn walk<F: Fields>(&mut self, version: i16, fields: &mut F) -> Result<(), DecodeError> {
        fields.string(&mut self.name)?;
        if version >= 7 {
            fields.uuid(&mut self.id)?;
        }
        fields.i16(&mut self.error)?;
        fields.nullable_string(&mut self.error_message)?;
        if version >= 5 {
            fields.i32(&mut self.num_partitions)?;
            fields.i16(&mut self.replication_factor)?;
            fields.nullable_list(&mut self.configs, |config, fields| {
                fields.string(&mut config.name)?;
                fields.nullable_string(&mut config.value)?;
                fields.bool(&mut config.read_only)?;
                fields.i8(&mut config.source)?;
                fields.bool(&mut config.is_sensitive)?;
                fields.tags()
            })?;
        }
        fields.tags()
    }
}
