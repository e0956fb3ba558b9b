//! Reads everything a broker serves, as any client would, and asks every partition for one more record.

use std::time::Duration;

use anyhow::{Context, Result};
use corrente_client::{Client, Error, OffsetSpec, Record, StartOffset, TopicMetadata};
use corrente_faultfs::clock::now_ns;
use corrente_history::Poll;
use futures_util::future::join_all;

use crate::judge::{Finding, Found, FoundPartition, FoundTopic};
use crate::workload::identify;

/// A partition that takes longer to read is not served.
const READ_MAX: Duration = Duration::from_secs(20);
/// The same for one more record to each partition.
const APPEND_MAX: Duration = Duration::from_secs(20);

/// Everything that the broker serves, all partitions at the same time.
pub async fn read_everything(client: &Client) -> Result<Found> {
    let began_ns = now_ns();
    let topics = client.admin().list_topics().await.context("listing topics")?;
    let topics = join_all(topics.iter().map(|topic| read_topic(client, topic))).await;
    Ok(Found { began_ns, ended_ns: now_ns(), topics })
}

async fn read_topic(client: &Client, topic: &TopicMetadata) -> FoundTopic {
    let name = topic.name.to_string();
    let reads = topic.partitions.iter().map(|partition| read_partition(client, &name, partition.index.0));
    let admin = client.admin();
    let (starts, ends, mut partitions) = tokio::join!(
        admin.list_offsets(&name, OffsetSpec::Earliest),
        admin.list_offsets(&name, OffsetSpec::Latest),
        join_all(reads)
    );
    match (starts, ends) {
        (Ok(starts), Ok(ends)) => {
            for ((partition, start), end) in partitions.iter_mut().zip(starts).zip(ends) {
                partition.bounds = Some((start.offset.0, end.offset.0));
            }
        }
        // The answers of all partitions come together; the one that fails is told by whoever reads it.
        (Err(error), _) | (_, Err(error)) => {
            if let Some(first) = partitions.first_mut() {
                first.refusal.get_or_insert(error.to_string());
            }
        }
    }
    FoundTopic { id: topic.id.to_string(), partitions, name }
}

/// What could be read, and why it was not all.
async fn read_partition(client: &Client, topic: &str, partition: u32) -> FoundPartition {
    let mut polls: Vec<Poll> = Vec::new();
    let mut next = None;
    let read = async {
        let builder = client.consumer().topic(topic).partitions([partition]);
        let mut consumer = builder.from(StartOffset::Earliest).until_end().build().await?;
        while let Some(batch) = consumer.next_batch().await? {
            let records: Vec<_> = batch.records.iter().map(identify).collect();
            let (position, high_watermark) = (next, Some(batch.high_watermark.0));
            next = records.last().map(|last| last.offset + 1);
            polls.push(Poll { position, high_watermark, records, ..Poll::default() });
        }
        Ok::<(), Error>(())
    };
    let refusal = match tokio::time::timeout(READ_MAX, read).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("not read to its end within {READ_MAX:?}")),
    };
    if let (Some(next), None) = (next, &refusal) {
        // Nothing more was there.
        polls.push(Poll { position: Some(next), ..Poll::default() });
    }
    FoundPartition { bounds: None, polls, refusal }
}

/// Asks every partition of what was found to take another record; the refusals.
pub async fn append_everywhere(client: &Client, found: &Found) -> Vec<Finding> {
    let appends = found.topics.iter().map(|topic| async {
        let producer = client.producer(&topic.name).delivery_timeout(APPEND_MAX).build().await?;
        let partitions = 0..u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        let sends = partitions.map(|partition| {
            let producer = producer.clone();
            async move {
                producer.send_and_wait(Record::value("one more").key("one more").partition(partition)).await
            }
        });
        join_all(sends).await.into_iter().collect::<Result<Vec<_>, Error>>()
    });
    let refused = join_all(appends).await.into_iter().filter_map(Result::err);
    refused.map(|error| Finding::new("Deaf", error.to_string())).collect()
}
