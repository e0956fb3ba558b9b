//! `corrente topic`: what topics there are, and changing them.

mod delete_records;
mod offsets;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use corrente_client::{
    Admin, ErrorCode, NewTopic, PartitionDescription, PartitionState, TopicChanges, TopicConfigEntry,
    TopicDescription,
};
use serde::Serialize;

use crate::args::Global;
use crate::confirm;
use crate::output::{Output, table};
use crate::units::parse_pair;

#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create a topic.
    Create(CreateArgs),
    /// List all topics.
    List,
    /// Show the configuration of a topic, and its partitions and what they can be used for.
    Describe(NameArgs),
    /// Delete a topic and all its records; asks first on a terminal.
    Delete(DeleteArgs),
    /// Change the configuration of a topic.
    Alter(AlterArgs),
    /// Grow a topic; keys may go to other partitions from then on.
    AddPartitions(AddPartitionsArgs),
    Offsets(offsets::OffsetsArgs),
    DeleteRecords(delete_records::DeleteRecordsArgs),
}

#[derive(Debug, Args)]
pub struct NameArgs {
    /// The topic.
    name: String,
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The topic: 1 to 249 of a-z A-Z 0-9 . _ -
    name: String,
    /// How many partitions it has.
    #[arg(long, value_name = "N")]
    partitions: u32,
    /// A setting of the topic.
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = parse_pair)]
    configs: Vec<(String, String)>,
    /// Only say whether it could be created.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The topic.
    name: String,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true).args(["configs", "unset"]))]
pub struct AlterArgs {
    /// The topic.
    name: String,
    /// A setting to change.
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = parse_pair)]
    configs: Vec<(String, String)>,
    /// A setting to bring back to its default.
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
}

#[derive(Debug, Args)]
pub struct AddPartitionsArgs {
    /// The topic.
    name: String,
    /// How many partitions it has afterwards.
    #[arg(long, value_name = "N")]
    partitions: u32,
}

/// What a change says when it is done.
#[derive(Debug, Serialize)]
struct Done {
    topic: String,
    done: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partitions: Option<u32>,
}

pub async fn run(global: &Global, command: TopicCommand) -> Result<ExitCode> {
    let client = super::connect(global).await?;
    let admin = client.admin();
    match command {
        TopicCommand::Create(args) => create(global.output, &admin, args).await?,
        TopicCommand::List => list(global.output, &admin).await?,
        TopicCommand::Describe(args) => describe(global.output, &admin, &args.name).await?,
        TopicCommand::Delete(args) => return delete(global.output, &admin, args).await,
        TopicCommand::Alter(args) => alter(global.output, &admin, args).await?,
        TopicCommand::AddPartitions(args) => add_partitions(global.output, &admin, args).await?,
        TopicCommand::Offsets(args) => offsets::run(global.output, &admin, args).await?,
        TopicCommand::DeleteRecords(args) => return delete_records::run(global.output, &admin, args).await,
    }
    Ok(ExitCode::SUCCESS)
}

impl Done {
    fn new(topic: &str, done: &'static str) -> Done {
        Done { topic: topic.to_owned(), done, id: None, partitions: None }
    }

    fn print(self, output: Output) -> Result<()> {
        Ok(output.one(&self, |done| match done.partitions {
            Some(partitions) => format!("topic {} {}, {partitions} partitions", done.topic, done.done),
            None => format!("topic {} {}", done.topic, done.done),
        })?)
    }
}

async fn create(output: Output, admin: &Admin, args: CreateArgs) -> Result<()> {
    let mut topic = NewTopic::new(&args.name, args.partitions);
    for (key, value) in &args.configs {
        topic = topic.config(key, value);
    }
    if args.dry_run {
        admin.create_topic(topic.validate_only()).await?;
        return Done::new(&args.name, "could be created").print(output);
    }
    let id = admin.create_topic(topic).await?;
    let done = Done::new(&args.name, "created");
    Done { id: Some(id.to_string()), partitions: Some(args.partitions), ..done }.print(output)
}

/// A line of the list.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    id: String,
    partitions: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

async fn list(output: Output, admin: &Admin) -> Result<()> {
    let mut topics: Vec<Listed> = admin
        .list_topics()
        .await?
        .into_iter()
        .map(|topic| Listed {
            name: topic.name.to_string(),
            id: topic.id.to_string(),
            partitions: topic.partitions.len(),
            error: (topic.error != ErrorCode::None)
                .then(|| topic.message.unwrap_or_else(|| topic.error.to_string())),
        })
        .collect();
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    output.list(&["NAME", "PARTITIONS", "ID"], &topics, |topic| {
        vec![topic.name.clone(), topic.partitions.to_string(), topic.id.clone()]
    })?;
    Ok(())
}

/// A topic as it is printed.
#[derive(Debug, Serialize)]
struct Described {
    name: String,
    id: String,
    configs: Vec<DescribedConfig>,
    partitions: Vec<DescribedPartition>,
}

#[derive(Debug, Serialize)]
struct DescribedConfig {
    key: String,
    value: String,
    is_default: bool,
}

/// Ends are exclusive.
#[derive(Debug, Serialize)]
struct DescribedPartition {
    partition: u32,
    leader: u32,
    shard: u16,
    leader_epoch: u32,
    log_start_offset: u64,
    high_watermark: u64,
    log_end_offset: u64,
    size_bytes: u64,
    data_dir: String,
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

async fn describe(output: Output, admin: &Admin, name: &str) -> Result<()> {
    let described = Described::new(admin.describe_topic(name).await?);
    Ok(output.one(&described, Described::text)?)
}

impl Described {
    fn new(topic: TopicDescription) -> Described {
        let config = |config: TopicConfigEntry| DescribedConfig {
            key: config.key,
            value: config.value,
            is_default: config.is_default,
        };
        let partition = |partition: PartitionDescription| DescribedPartition {
            partition: partition.index.0,
            leader: partition.leader.0,
            shard: partition.shard.0,
            leader_epoch: partition.leader_epoch.0,
            log_start_offset: partition.log_start_offset.0,
            high_watermark: partition.high_watermark.0,
            log_end_offset: partition.log_end_offset.0,
            size_bytes: partition.size_bytes,
            data_dir: partition.data_dir,
            state: state_name(partition.state),
            reason: partition.reason,
            error: (partition.error != ErrorCode::None).then(|| partition.error.to_string()),
        };
        Described {
            name: topic.name,
            id: topic.id.to_string(),
            configs: topic.configs.into_iter().map(config).collect(),
            partitions: topic.partitions.into_iter().map(partition).collect(),
        }
    }

    fn text(&self) -> String {
        let configs = self.configs.iter().map(|config| {
            let origin = if config.is_default { "default" } else { "set" };
            vec![config.key.clone(), config.value.clone(), origin.to_owned()]
        });
        let partitions = self.partitions.iter().map(|partition| {
            let mut row: Vec<String> = [
                u64::from(partition.partition),
                u64::from(partition.leader),
                u64::from(partition.shard),
                partition.log_start_offset,
                partition.high_watermark,
                partition.log_end_offset,
                partition.size_bytes,
            ]
            .map(|number| number.to_string())
            .into();
            let reason = partition.reason.as_ref().or(partition.error.as_ref());
            row.push(partition.data_dir.clone());
            row.push(partition.state.clone());
            row.push(reason.cloned().unwrap_or_default());
            row
        });
        format!(
            "{}  {}\n\n{}\n\n{}",
            self.name,
            self.id,
            table(&["CONFIG", "VALUE", "ORIGIN"], configs),
            table(
                &[
                    "PARTITION",
                    "LEADER",
                    "SHARD",
                    "START",
                    "HIGH WATERMARK",
                    "END",
                    "BYTES",
                    "DATA DIR",
                    "STATE",
                    "REASON"
                ],
                partitions
            )
        )
    }
}

/// A broker newer than this binary may know states that it does not.
fn state_name(state: PartitionState) -> String {
    match state {
        PartitionState::Unknown(number) => format!("state {number}"),
        known => known.to_string(),
    }
}

async fn delete(output: Output, admin: &Admin, args: DeleteArgs) -> Result<ExitCode> {
    if confirm::is_due(args.yes) {
        let topic = admin.describe_topic(&args.name).await?;
        let bytes: u64 = topic.partitions.iter().map(|partition| partition.size_bytes).sum();
        let partitions = topic.partitions.len();
        let question =
            format!("delete topic {}, {partitions} partitions, {bytes} bytes, for good?", args.name);
        if !confirm::ask(&question, "nothing was deleted")? {
            return Ok(ExitCode::FAILURE);
        }
    }
    admin.delete_topic(&args.name).await?;
    Done::new(&args.name, "deleted").print(output)?;
    Ok(ExitCode::SUCCESS)
}

async fn alter(output: Output, admin: &Admin, args: AlterArgs) -> Result<()> {
    let mut changes = TopicChanges::new(&args.name);
    for (key, value) in &args.configs {
        changes = changes.set(key, value);
    }
    for key in &args.unset {
        changes = changes.unset(key);
    }
    admin.alter_topic(changes).await?;
    Done::new(&args.name, "altered").print(output)
}

async fn add_partitions(output: Output, admin: &Admin, args: AddPartitionsArgs) -> Result<()> {
    admin.add_partitions(&args.name, args.partitions).await?;
    Done { partitions: Some(args.partitions), ..Done::new(&args.name, "grown") }.print(output)
}
