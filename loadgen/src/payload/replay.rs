//! Batches like those that were recorded.
//!
//! A ring is short, and chance would make its few batches larger or smaller than what was recorded. So their sizes and
//! codecs are not drawn but dealt: the distribution is cut into as many equal parts as a ring has batches, and each
//! part gives one, at a place in it that differs from ring to ring. Sizes of keys and values are drawn, as there are
//! many.

use anyhow::{Result, ensure};
use bytes::Bytes;
use corrente_client::RecordBatchBuilder;
use fastrand::Rng;

use super::keys::{KeySizes, Population};
use super::values::fill_value;
use super::{BYTES_MAX, Payload, ring_length};
use crate::drive::Size;
use crate::plan::Shape;
use crate::profile::Profile;

impl Payload {
    /// Builds batches as recorded; of the shape, the seed and the compressible part of values count.
    pub fn replayed(profile: &Profile, shape: &Shape, partitions: u32, timestamp_ms: i64) -> Result<Payload> {
        let (records, bytes) = (profile.batch_records.at(1.0), profile.record_bytes());
        ensure!(
            records as f64 * bytes <= BYTES_MAX as f64,
            "a batch of {records} records of {bytes:.0} bytes takes more than {BYTES_MAX} bytes"
        );
        let keys = profile.keys.as_ref();
        let population = keys
            .map(|keys| Population::weighted(keys.weights(), KeySizes::Seen(keys.sizes.clone()), partitions));
        let mut rng = Rng::with_seed(shape.seed);
        let rings_count = population.as_ref().map_or(1, |_| partitions as usize);
        let length = ring_length(rings_count, profile.batch_bytes());
        let places = deal(rings_count, 0.5, &mut rng, |place| place);

        let (mut rings, mut sizes) = (Vec::new(), Vec::new());
        let mut bytes_built = 0;
        for (partition, place) in places.into_iter().enumerate() {
            let keys = population.as_ref().map(|population| (population, partition));
            let is_reached = keys.is_none_or(|(population, partition)| population.reaches(partition));
            let length = if is_reached { length } else { 0 };
            let records = deal(length, place, &mut rng, |part| profile.batch_records.at(part));
            let codecs = deal(length, place, &mut rng, |part| profile.compression_at(part));
            let fill = Fill { profile, keys, compressible: shape.compressible, timestamp_ms };
            let (mut ring, mut ring_sizes) = (Vec::new(), Vec::new());
            for (records, codec) in records.into_iter().zip(codecs) {
                let mut builder = RecordBatchBuilder::new(codec);
                let bytes = fill.fill(&mut builder, records, &mut rng)?;
                let batch: Bytes = builder.build();
                bytes_built += batch.len();
                ensure!(
                    bytes_built <= BYTES_MAX,
                    "prepared batches for {partitions} partitions take more than {BYTES_MAX} bytes"
                );
                ring.push(batch);
                ring_sizes.push(Size { records, bytes });
            }
            rings.push(ring);
            sizes.push(ring_sizes);
        }
        Ok(Payload { rings, sizes, population, partitions, seed: shape.seed })
    }
}

/// One value of each of `count` equal parts of a distribution, from that place in the part, in any order.
fn deal<T>(count: usize, place: f64, rng: &mut Rng, at: impl Fn(f64) -> T) -> Vec<T> {
    let mut dealt: Vec<T> = (0..count).map(|part| at((part as f64 + place) / count as f64)).collect();
    rng.shuffle(&mut dealt);
    dealt
}

/// What the records of a batch are made of.
struct Fill<'a> {
    profile: &'a Profile,
    /// The keys, and the partition the batch goes to.
    keys: Option<(&'a Population, usize)>,
    compressible: f64,
    timestamp_ms: i64,
}

impl Fill<'_> {
    /// Bytes of all keys and values.
    fn fill(&self, builder: &mut RecordBatchBuilder, records: u64, rng: &mut Rng) -> Result<u64> {
        let profile = self.profile;
        let share = |count: u64| count as f64 / profile.records as f64;
        let (null_keys, null_values) = (share(profile.null_keys), share(profile.null_values));
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        for _ in 0..records {
            let keys = self.keys.filter(|_| rng.f64() >= null_keys);
            if let Some((population, partition)) = keys {
                population.draw(partition, rng, &mut key);
                bytes += key.len();
            }
            let has_value = rng.f64() >= null_values;
            if has_value {
                value.resize(usize::try_from(profile.value_sizes.at(rng.f64()))?, 0);
                fill_value(&mut value, self.compressible, rng);
                bytes += value.len();
            }
            let key = keys.map(|_| &key[..]);
            builder.push(self.timestamp_ms, key, has_value.then_some(&value[..]), &[])?;
        }
        Ok(bytes as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::tests::SHAPE;
    use crate::profile::tests::{example, sizes as distribution};

    fn sizes(payload: &Payload) -> Vec<Size> {
        (0..4_000).map(|index| payload.batch(index).2).collect()
    }

    #[test]
    fn batches_are_like_those_that_were_recorded() {
        let payload = Payload::replayed(&example(), &SHAPE, 4, 0).unwrap();
        let sent = sizes(&payload);
        let records: u64 = sent.iter().map(|size| size.records).sum();
        let mean = records as f64 / sent.len() as f64;
        // Half of the batches hold one record and half of them nine.
        assert!((mean / 5.0 - 1.0).abs() < 0.05, "{mean}");
        assert!((payload.batch_records() / mean - 1.0).abs() < 0.05, "{}", payload.batch_records());
        // Nine tenths have a value of 150 bytes, eight tenths a key of 3 or 4.
        let bytes: u64 = sent.iter().map(|size| size.bytes).sum();
        let mean = bytes as f64 / records as f64;
        assert!((mean / (0.9 * 150.0 + 0.8 * 3.5) - 1.0).abs() < 0.05, "{mean}");
        assert_eq!(sizes(&Payload::replayed(&example(), &SHAPE, 4, 0).unwrap()), sent);
    }

    #[test]
    fn the_partition_of_the_hottest_key_gets_its_share() {
        let profile = example();
        let payload = Payload::replayed(&profile, &SHAPE, 64, 0).unwrap();
        let mut sent = [0_u32; 64];
        (0..4_000).for_each(|index| sent[payload.batch(index).0 as usize] += 1);
        let most = f64::from(*sent.iter().max().unwrap()) / 4_000.0;
        assert!(most > 0.45, "{most}");
    }

    #[test]
    fn a_batch_that_no_memory_holds_is_refused_before_it_is_built() {
        let profile = Profile { batch_records: distribution([BYTES_MAX as u64 / 100]), ..example() };
        let refusal = Payload::replayed(&profile, &SHAPE, 1, 0).unwrap_err().to_string();
        assert!(refusal.contains("bytes takes more than"), "{refusal}");
    }

    #[test]
    fn without_keys_partitions_take_turns() {
        let profile = Profile { keys: None, null_keys: 100, ..example() };
        let payload = Payload::replayed(&profile, &SHAPE, 3, 0).unwrap();
        let partitions: Vec<u32> = (0..6).map(|index| payload.batch(index).0).collect();
        assert_eq!(partitions, [0, 1, 2, 0, 1, 2]);
        assert_eq!(payload.batch_records(), 5.0);
    }
}
