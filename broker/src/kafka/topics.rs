//! Create and delete topics: translated to the native requests and back.

use std::collections::BTreeMap;
use std::rc::Rc;

use corrente_protocol::api::{CreateTopicRequest, DescribeTopicRequest};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::TopicId;
use corrente_protocol::kafka::KafkaError;
use corrente_protocol::kafka::create_topics::{
    CreateTopicsRequest, CreateTopicsResponse, CreatedConfig, CreatedTopic, NewTopic,
};
use corrente_protocol::kafka::delete_topics::{
    DeleteTopicsRequest, DeleteTopicsResponse, DeletedTopic, DoomedTopic,
};

use super::names::{Named, find_in, node_id};
use crate::handlers::topic;
use crate::shard::Shard;

/// Where a config comes from: the topic itself.
const SOURCE_TOPIC: i8 = 1;
/// Where a config comes from: it is the default.
const SOURCE_DEFAULT: i8 = 5;

/// Why a topic is as it was, or is not there.
struct Refused {
    error: KafkaError,
    message: String,
}

/// Creates them one after the other.
pub async fn create(shard: Rc<Shard>, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut named = BTreeMap::<String, usize>::new();
    for topic in &request.topics {
        *named.entry(topic.name.clone()).or_default() += 1;
    }
    let mut topics = Vec::with_capacity(request.topics.len());
    for new in request.topics {
        let name = new.name.clone();
        let created = match named[&name] {
            1 => create_one(&shard, new, request.validate_only).await,
            _ => Err(Refused::new(KafkaError::InvalidRequest, format!("topic '{name}' is named twice"))),
        };
        topics.push(created.unwrap_or_else(|refused| CreatedTopic {
            name,
            error: refused.error.code(),
            error_message: Some(refused.message),
            ..CreatedTopic::default()
        }));
    }
    CreateTopicsResponse { throttle_ms: 0, topics }
}

async fn create_one(shard: &Rc<Shard>, new: NewTopic, validate_only: bool) -> Result<CreatedTopic, Refused> {
    let partitions = partitions_of(shard, &new)?;
    let replication_factor = replication_of(&new)?;
    let configs = new.configs.into_iter().map(|config| {
        let without =
            || Refused::new(KafkaError::InvalidConfig, format!("config {} has no value", config.name));
        Ok((config.name.clone(), config.value.clone().ok_or_else(without)?))
    });
    let configs = configs.collect::<Result<_, _>>()?;
    let request =
        CreateTopicRequest { name: new.name.clone(), partitions, replication_factor, configs, validate_only };
    let created = topic::create(shard.clone(), request).await;
    if created.error != ErrorCode::None {
        return Err(Refused::native(created.error, created.message));
    }
    let told = CreatedTopic {
        num_partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
        replication_factor: 1,
        ..CreatedTopic { name: new.name.clone(), id: created.id.0, ..CreatedTopic::default() }
    };
    if validate_only {
        return Ok(told);
    }
    let described = topic::describe(shard.clone(), DescribeTopicRequest { name: new.name }).await;
    let configs = described.configs.into_iter().map(|config| CreatedConfig {
        name: config.key,
        value: Some(config.value),
        read_only: false,
        source: if config.is_default { SOURCE_DEFAULT } else { SOURCE_TOPIC },
        is_sensitive: false,
    });
    Ok(CreatedTopic { configs: Some(configs.collect()), ..told })
}

/// -1 leaves the number to the broker, or to the assignments.
fn partitions_of(shard: &Shard, new: &NewTopic) -> Result<u32, Refused> {
    if !new.assignments.is_empty() {
        return assigned_partitions(shard, new);
    }
    match new.num_partitions {
        -1 => Ok(shard.config.kafka.auto_create_partitions),
        given => u32::try_from(given)
            .map_err(|_| Refused::new(KafkaError::InvalidPartitions, format!("{given} partitions"))),
    }
}

/// A client may say which broker holds what; here there is one.
fn assigned_partitions(shard: &Shard, new: &NewTopic) -> Result<u32, Refused> {
    let refuse = |message: String| Err(Refused::new(KafkaError::InvalidReplicaAssignment, message));
    if new.num_partitions != -1 || new.replication_factor != -1 {
        let message = "replicas are assigned, so the numbers of partitions and replicas have to be -1";
        return Err(Refused::new(KafkaError::InvalidRequest, message));
    }
    let mut indexes: Vec<i32> = new.assignments.iter().map(|assigned| assigned.partition_index).collect();
    indexes.sort_unstable();
    if !indexes.iter().copied().eq(0..i32::try_from(indexes.len()).unwrap_or(i32::MAX)) {
        return refuse("the assignments do not name every partition from 0 on once".to_owned());
    }
    let this = node_id(shard.node);
    if let Some(other) = new.assignments.iter().find(|assigned| assigned.broker_ids != [this]) {
        let (index, brokers) = (other.partition_index, &other.broker_ids);
        return refuse(format!("partition {index} is assigned to {brokers:?}, the only broker is {this}"));
    }
    Ok(u32::try_from(indexes.len()).unwrap_or(u32::MAX))
}

/// -1 leaves the number to the broker.
fn replication_of(new: &NewTopic) -> Result<u16, Refused> {
    match new.replication_factor {
        -1 => Ok(0),
        given => u16::try_from(given)
            .ok()
            .filter(|given| *given > 0)
            .ok_or_else(|| Refused::new(KafkaError::InvalidReplicationFactor, format!("{given} replicas"))),
    }
}

/// Deletes them one after the other.
pub async fn delete(shard: Rc<Shard>, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for doomed in request.topics {
        topics.push(delete_one(&shard, doomed).await);
    }
    DeleteTopicsResponse { throttle_ms: 0, topics }
}

async fn delete_one(shard: &Rc<Shard>, doomed: DoomedTopic) -> DeletedTopic {
    let DoomedTopic { name, id } = doomed;
    let named = match &name {
        Some(name) => Named::Name(name),
        None => Named::Id(TopicId(id)),
    };
    let found = find_in(&shard.directory().image, named).map(|topic| (topic.id(), topic.name().to_string()));
    let outcome = match found {
        Ok((id, name)) => {
            // A topic of this name that is made meanwhile is another one, and stays.
            let deleted = topic::delete_the_one(shard, name.clone(), id).await;
            deleted
                .map(|()| (id, name))
                .map_err(|refusal| Refused::native(refusal.code, Some(refusal.message)))
        }
        Err(error) => Err(Refused::new(error, "there is no such topic")),
    };
    match outcome {
        Ok((id, name)) => {
            DeletedTopic { name: Some(name), id: id.0, error: KafkaError::None.code(), error_message: None }
        }
        Err(refused) => {
            DeletedTopic { name, id, error: refused.error.code(), error_message: Some(refused.message) }
        }
    }
}

impl Refused {
    fn new(error: KafkaError, message: impl Into<String>) -> Refused {
        Refused { error, message: message.into() }
    }

    fn native(error: ErrorCode, message: Option<String>) -> Refused {
        Refused { error: error.into(), message: message.unwrap_or_else(|| error.to_string()) }
    }
}
