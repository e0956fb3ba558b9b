//! The topic a run works on.

use anyhow::Result;
use corrente_client::{Client, ErrorKind, NewTopic};

use crate::plan::Plan;

/// A topic that is there, and how it came to be.
#[derive(Debug, Clone)]
pub struct Target {
    /// Partitions it has, whatever the plan asked for.
    pub partitions: u32,
    /// It was created for this run.
    pub created: bool,
}

/// A client of its own: connections are not shared between workers.
pub async fn connect(plan: &Plan) -> Result<Client> {
    Ok(Client::builder(plan.brokers.iter().cloned()).client_id("corrente-bench").connect().await?)
}

/// Creates the topic if it is missing.
pub async fn prepare(client: &Client, plan: &Plan) -> Result<Target> {
    let admin = client.admin();
    let created = match admin.create_topic(NewTopic::new(&plan.topic, plan.partitions)).await {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::TopicAlreadyExists => false,
        Err(error) => return Err(error.into()),
    };
    let description = admin.describe_topic(&plan.topic).await?;
    let partitions = u32::try_from(description.partitions.len())?;
    Ok(Target { partitions, created })
}
