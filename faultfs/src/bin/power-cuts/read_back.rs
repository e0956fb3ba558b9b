//! Reads everything a broker serves, as any client would, and asks every partition for one more record.

use std::time::Duration;

use anyhow::{Context, Result};
use corrente_client::{Client, Error, OffsetSpec, Record, StartOffset, TopicMetadata};
use futures_util::future::join_all;

use crate::content::{self, Content};
use crate::judge::{Class, Found, FoundTopic, Violation};

/// A partition that takes longer to read is not served.
const READ_MAX: Duration = Duration::from_secs(20);
/// The same for one more record to each partition.
const APPEND_MAX: Duration = Duration::from_secs(20);

/// Everything that the broker serves, all partitions at the same time.
pub async fn read_everything(client: &Client) -> Result<Found> {
    let topics = client.admin().list_topics().await.context("listing topics")?;
    let topics = join_all(topics.iter().map(|topic| read_topic(client, topic))).await;
    Ok(Found { topics })
}

async fn read_topic(client: &Client, topic: &TopicMetadata) -> FoundTopic {
    let name = topic.name.to_string();
    let partitions = topic.partitions.iter().map(|partition| partition.index.0);
    let reads = join_all(partitions.map(|partition| read_partition(client, &name, partition)));
    let admin = client.admin();
    let (ends, reads) = tokio::join!(admin.list_offsets(&name, OffsetSpec::Latest), reads);
    let mut found = FoundTopic {
        id: topic.id.to_string(),
        partitions: Vec::new(),
        ends: vec![None; reads.len()],
        refusals: Vec::new(),
        name,
    };
    match ends {
        Ok(ends) => ends.iter().for_each(|end| found.ends[end.partition as usize] = Some(end.offset.0)),
        Err(error) => found.refusals.push(error.to_string()),
    }
    for (records, refusal) in reads {
        found.partitions.push(records);
        found.refusals.extend(refusal);
    }
    found
}

/// What could be read, and why it was not all.
async fn read_partition(
    client: &Client,
    topic: &str,
    partition: u32,
) -> (Vec<(u64, Content)>, Option<String>) {
    let mut records = Vec::new();
    let read = async {
        let builder = client.consumer().topic(topic).partitions([partition]);
        let mut consumer = builder.from(StartOffset::Earliest).until_end().build().await?;
        while let Some(batch) = consumer.next_batch().await? {
            let contents = batch.records.iter();
            records.extend(contents.map(|found| (found.offset.0, content::read(found.value.as_deref()))));
        }
        Ok::<(), Error>(())
    };
    let refusal = match tokio::time::timeout(READ_MAX, read).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("partition {partition}: not read to its end within {READ_MAX:?}")),
    };
    (records, refusal)
}

/// Asks every partition of what was found to take another record; the refusals.
pub async fn append_everywhere(client: &Client, found: &Found) -> Vec<Violation> {
    let appends = found.topics.iter().map(|topic| async {
        let producer = client.producer(&topic.name).delivery_timeout(APPEND_MAX).build().await?;
        let partitions = 0..u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        let sends = partitions.map(|partition| {
            let producer = producer.clone();
            async move { producer.send_and_wait(Record::value("one more").partition(partition)).await }
        });
        join_all(sends).await.into_iter().collect::<Result<Vec<_>, Error>>()
    });
    let refused = join_all(appends).await.into_iter().filter_map(Result::err);
    refused.map(|error| Violation { class: Class::Deaf, detail: error.to_string() }).collect()
}
