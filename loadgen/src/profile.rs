//! What the records of a topic are like, as distributions alone: no key and no value is kept.
//!
//! A profile is taken where the load is and sent again where there is a broker to measure: `bench produce --replay`.

mod arrivals;
mod distribution;
mod key_sample;
mod take;
mod zipf;

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use corrente_client::Compression;
use serde::{Deserialize, Serialize};

pub use self::arrivals::Arrivals;
pub use self::distribution::Distribution;
pub(crate) use self::take::take;

/// The records of a topic. Something was read: there is at least one record, and one batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The topic it was taken of.
    pub topic: String,
    /// Partitions that topic has.
    pub partitions: u32,
    /// Records that were read.
    pub records: u64,
    /// Records without a key.
    pub null_keys: u64,
    /// The keys of all others; none if there are no others.
    pub keys: Option<Keys>,
    /// Records without a value: they say that their key was deleted.
    pub null_values: u64,
    /// Bytes of each value there is.
    pub value_sizes: Distribution,
    /// Records in each batch.
    pub batch_records: Distribution,
    /// Batches by their codec.
    pub compression: BTreeMap<String, u64>,
    /// The shape of the load over time; none if no record had a time.
    pub arrivals: Option<Arrivals>,
}

/// A population of keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// How many different ones there are; an estimate where there are more than a million.
    pub distinct: u64,
    /// Shares of the keyed records that the hottest keys have, in falling order; at most a hundred.
    pub hottest: Vec<f64>,
    /// All others follow: the n-th key is used as often as 1 / n to this power.
    pub zipf_exponent: f64,
    /// Bytes of the key of each record.
    pub sizes: Distribution,
}

/// What a record may hold at most, and a batch: what no broker takes would fail at its first send.
const BYTES_MAX: u64 = 1 << 30;
const BATCH_RECORDS_MAX: u64 = 10_000_000;

/// Keys that a generator draws from: 16 bytes each in its memory.
const KEYS_MAX: u64 = 50_000_000;

impl Profile {
    /// Refuses what no reading wrote.
    pub fn check(&self) -> Result<()> {
        ensure!(self.partitions >= 1, "a topic has at least 1 partition");
        ensure!(self.records >= 1 && self.batch_records.count() >= 1, "nothing was read");
        self.batch_records.check("records of batches", BATCH_RECORDS_MAX)?;
        ensure!(self.batch_records.min() >= Some(1), "a batch holds at least 1 record");
        self.value_sizes.check("value sizes", BYTES_MAX)?;
        let values = self.null_values.checked_add(self.value_sizes.count());
        ensure!(values == Some(self.records), "values and null values are not the {} records", self.records);
        let keyed = self.keys.as_ref().map_or(0, |keys| keys.sizes.count());
        let keys = self.null_keys.checked_add(keyed);
        ensure!(keys == Some(self.records), "keys and null keys are not the {} records", self.records);
        self.keys.as_ref().map_or(Ok(()), Keys::check)?;
        ensure!(!self.compression.is_empty(), "no batch has a codec");
        self.compression.keys().try_for_each(|codec| codec.parse::<Compression>().map(drop))?;
        self.arrivals.as_ref().map_or(Ok(()), Arrivals::check)
    }

    /// Records per second at the time it was taken; none if all came at once, or no time is known.
    pub fn records_per_s(&self) -> Option<f64> {
        let arrivals = self.arrivals.as_ref().filter(|arrivals| arrivals.curve.len() > 1)?;
        Some(self.records as f64 / arrivals.seconds())
    }

    /// Bytes of the keys and values of a batch, in the mean.
    pub fn batch_bytes(&self) -> usize {
        (self.record_bytes() * self.batch_records.mean()).max(1.0) as usize
    }

    /// Bytes of the key and the value of a record, in the mean.
    pub fn record_bytes(&self) -> f64 {
        let sizes = |sizes: &Distribution| sizes.mean() * sizes.count() as f64;
        let all = sizes(&self.value_sizes) + self.keys.as_ref().map_or(0.0, |keys| sizes(&keys.sizes));
        all / self.records as f64
    }

    /// The codec at this part of all batches; from 0 to 1.
    pub fn compression_at(&self, quantile: f64) -> Compression {
        let batches: u64 = self.compression.values().sum();
        let rank = quantile * batches as f64;
        let mut counted = 0;
        let holding = self.compression.iter().find(|(_, count)| {
            counted += *count;
            counted as f64 > rank
        });
        let (codec, _) = holding.or(self.compression.last_key_value()).expect("a profile that was checked");
        codec.parse().expect("a profile that was checked")
    }
}

impl Keys {
    fn check(&self) -> Result<()> {
        self.sizes.check("key sizes", BYTES_MAX)?;
        ensure!(self.distinct >= 1, "records with keys have at least 1 key");
        ensure!(
            self.distinct <= KEYS_MAX,
            "{} keys are more than the {KEYS_MAX} that a generator keeps in memory",
            self.distinct
        );
        ensure!(
            self.hottest.len() as u64 <= self.distinct,
            "{} hottest keys are more than the {} there are",
            self.hottest.len(),
            self.distinct
        );
        let sound = self.hottest.iter().all(|share| (0.0..=1.0).contains(share));
        let sum: f64 = self.hottest.iter().sum();
        let is_all = self.hottest.len() as u64 == self.distinct;
        let adds_up = if is_all { (sum - 1.0).abs() <= 1e-3 } else { sum <= 1.0 + 1e-6 };
        ensure!(sound && adds_up, "the shares of the hottest of {} keys add up to {sum}", self.distinct);
        ensure!(
            (0.0..=zipf::EXPONENT_MAX).contains(&self.zipf_exponent),
            "the exponent {} is not between 0 and {}",
            self.zipf_exponent,
            zipf::EXPONENT_MAX
        );
        Ok(())
    }

    /// How often each key is used, in falling order: the hottest as they were seen, and what they leave shared by the
    /// others as the exponent says.
    pub fn weights(&self) -> impl Iterator<Item = f64> {
        let told = self.hottest.len() as u64;
        let others = told + 1..=self.distinct;
        let weight = |rank: u64| (rank as f64).powf(-self.zipf_exponent);
        let left = (1.0 - self.hottest.iter().sum::<f64>()).max(0.0);
        let sum: f64 = others.clone().map(weight).sum();
        let others = others.map(move |rank| weight(rank) / sum * left);
        self.hottest.iter().copied().chain(others)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::distribution::SizeCounter;
    use super::*;

    pub(crate) fn sizes(sizes: impl IntoIterator<Item = u64>) -> Distribution {
        let mut counter = SizeCounter::default();
        sizes.into_iter().for_each(|size| counter.add(size));
        counter.distribution()
    }

    /// A hundred records in batches of one and of nine.
    pub(crate) fn example() -> Profile {
        Profile {
            topic: "orders".to_owned(),
            partitions: 4,
            records: 100,
            null_keys: 20,
            keys: Some(Keys {
                distinct: 10,
                hottest: vec![0.5, 0.2],
                zipf_exponent: 1.0,
                sizes: sizes((0..80).map(|n| 3 + n % 2)),
            }),
            null_values: 10,
            value_sizes: sizes((0..90).map(|n| if n < 45 { 100 } else { 200 })),
            batch_records: sizes((0..20).map(|n| if n < 10 { 1 } else { 9 })),
            compression: BTreeMap::from([("lz4".to_owned(), 15), ("none".to_owned(), 5)]),
            arrivals: Some(Arrivals { step_s: 0.5, curve: vec![0.5, 2.0, 0.0, 1.5] }),
        }
    }

    #[test]
    fn a_profile_survives_its_file_and_says_what_is_wrong_with_one() {
        let profile = example();
        profile.check().unwrap();
        let json = serde_json::to_string(&profile).unwrap();
        assert_eq!(serde_json::from_str::<Profile>(&json).unwrap(), profile);

        type Change = fn(&mut Profile);
        let refusals: [(Change, &str); 6] = [
            (|profile| profile.partitions = 0, "a topic has at least 1 partition"),
            (|profile| profile.batch_records = sizes([0, 4]), "a batch holds at least 1 record"),
            (|profile| profile.null_values = 0, "values and null values are not the 100 records"),
            (|profile| profile.null_keys = u64::MAX, "keys and null keys are not the 100 records"),
            (|profile| profile.compression.clear(), "no batch has a codec"),
            (
                |profile| profile.arrivals = Some(Arrivals { step_s: 1.0, curve: vec![2.0] }),
                "the curve of arrivals has the mean 2 instead of 1",
            ),
        ];
        for (change, refusal) in refusals {
            let mut profile = example();
            change(&mut profile);
            assert_eq!(profile.check().unwrap_err().to_string(), refusal);
        }
    }

    #[test]
    fn the_hottest_keys_keep_their_shares_and_the_others_share_what_is_left() {
        let weights: Vec<f64> = example().keys.unwrap().weights().collect();
        assert_eq!((weights.len(), weights[0], weights[1]), (10, 0.5, 0.2));
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!((weights[2] / weights[9] - 10.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn rates_and_codecs_are_those_that_were_seen() {
        let profile = example();
        assert_eq!(profile.records_per_s(), Some(50.0));
        let at = |quantile: f64| profile.compression_at(quantile);
        assert_eq!((at(0.0), at(0.74), at(0.75), at(1.0)), {
            use Compression::{Lz4, None};
            (Lz4, Lz4, None, None)
        });
    }
}
