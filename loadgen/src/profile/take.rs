//! Reads a topic and keeps what its records are like.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use corrente_client::{Batch, Client, StartOffset};

use super::arrivals::ArrivalCounter;
use super::distribution::SizeCounter;
use super::key_sample::KeySample;
use super::{Keys, Profile};
use crate::live::Live;

/// What was seen so far.
#[derive(Debug, Default)]
struct Seen {
    records: u64,
    null_keys: u64,
    null_values: u64,
    keys: KeySample,
    key_sizes: SizeCounter,
    value_sizes: SizeCounter,
    batch_records: SizeCounter,
    compression: BTreeMap<String, u64>,
    arrivals: ArrivalCounter,
}

/// Reads a topic from its start up to where it ends now, or the first so many records of it, to whole batches; stops
/// early when `live` says so.
pub async fn take(brokers: &[String], topic: &str, records_max: Option<u64>, live: &Live) -> Result<Profile> {
    const LOOK_UP: Duration = Duration::from_millis(100);
    let client = Client::builder(brokers.iter().cloned()).client_id("corrente-bench").connect().await?;
    let partitions = u32::try_from(client.admin().describe_topic(topic).await?.partitions.len())?;
    let reader = client.consumer().topic(topic).from(StartOffset::Earliest).until_end();
    let mut reader = reader.build().await?;
    let mut seen = Seen::default();
    while !live.stopping() && records_max.is_none_or(|records| seen.records < records) {
        // To be told to stop, it must not wait for a batch for ever.
        let Ok(next) = tokio::time::timeout(LOOK_UP, reader.next_batch()).await else { continue };
        let Some(batch) = next? else { break };
        let bytes = seen.add(&batch);
        live.add(batch.records.len() as u64, bytes);
    }
    ensure!(seen.records > 0, "topic {topic} holds no record");
    Ok(seen.profile(topic, partitions))
}

impl Seen {
    /// Bytes of the batch's keys and values.
    fn add(&mut self, batch: &Batch) -> u64 {
        let mut bytes = 0;
        for record in &batch.records {
            match &record.key {
                Some(key) => {
                    self.keys.add(key);
                    self.key_sizes.add(key.len() as u64);
                    bytes += key.len() as u64;
                }
                None => self.null_keys += 1,
            }
            match &record.value {
                Some(value) => {
                    self.value_sizes.add(value.len() as u64);
                    bytes += value.len() as u64;
                }
                None => self.null_values += 1,
            }
            self.arrivals.add(record.timestamp_ms);
        }
        self.records += batch.records.len() as u64;
        self.batch_records.add(batch.records.len() as u64);
        *self.compression.entry(batch.compression.to_string()).or_default() += 1;
        bytes
    }

    fn profile(&self, topic: &str, partitions: u32) -> Profile {
        let population = self.keys.population();
        let keys = (self.records > self.null_keys).then(|| Keys {
            distinct: population.distinct,
            hottest: population.hottest,
            zipf_exponent: population.exponent,
            sizes: self.key_sizes.distribution(),
        });
        Profile {
            topic: topic.to_owned(),
            partitions,
            records: self.records,
            null_keys: self.null_keys,
            keys,
            null_values: self.null_values,
            value_sizes: self.value_sizes.distribution(),
            batch_records: self.batch_records.distribution(),
            compression: self.compression.clone(),
            arrivals: self.arrivals.arrivals(),
        }
    }
}
