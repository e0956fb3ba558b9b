//! Record batches made before the run.
//!
//! Building and checksumming a batch costs a generator more than sending it. So different batches are built once, from
//! a seed, and their bytes are sent again and again: a batch on its way is a reference count, not a copy. All records
//! of a batch carry the time at which it was built.

mod keys;
mod replay;
mod values;

use anyhow::{Result, ensure};
use bytes::Bytes;
use corrente_client::RecordBatchBuilder;
use fastrand::Rng;

use self::keys::Population;
use self::values::fill_value;
use crate::drive::Size;
use crate::plan::Shape;

/// Encoded record batches for a topic.
#[derive(Debug)]
pub struct Payload {
    /// By partition; one ring for all where keys do not decide.
    rings: Vec<Vec<Bytes>>,
    /// What each of them holds.
    sizes: Vec<Vec<Size>>,
    population: Option<Population>,
    partitions: u32,
    seed: u64,
}

/// Where a batch stands among the prepared ones, and where it goes.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Its partition.
    pub partition: usize,
    /// Which ring.
    pub ring: usize,
    /// And where in it.
    pub position: usize,
}

/// Enough different batches that no cache on the way holds them all by chance.
const BATCHES_MAX: usize = 64;
/// The bound on memory that shortens the rings.
const BYTES_WANTED_MAX: usize = 64 << 20;
/// What even the shortest rings, of one batch a partition, may take.
const BYTES_MAX: usize = 1 << 30;

impl Payload {
    /// Builds the batches; the same shape and partitions give the same records.
    pub fn new(shape: &Shape, partitions: u32, timestamp_ms: i64) -> Result<Payload> {
        let population = shape.keys.map(|keys| Population::new(keys, shape.key_size, partitions));
        let rings = population.as_ref().map_or(1, |_| partitions as usize);
        let batch_bytes = usize::try_from(shape.batch_bytes()).unwrap_or(usize::MAX).max(1);
        ensure!(
            rings.checked_mul(batch_bytes).is_some_and(|bytes| bytes <= BYTES_MAX),
            "one prepared batch of {batch_bytes} bytes for each of {rings} partitions is more than the {BYTES_MAX} \
             bytes that batches may take: make batches smaller, or leave --keys out"
        );
        let count = ring_length(rings, batch_bytes);
        let mut rng = Rng::with_seed(shape.seed);
        let ring = |partition: usize| -> Result<Vec<Bytes>> {
            let keys = population.as_ref().map(|population| (population, partition));
            if keys.is_some_and(|(population, partition)| !population.reaches(partition)) {
                return Ok(Vec::new());
            }
            (0..count).map(|_| build(shape, keys, timestamp_ms, &mut rng)).collect()
        };
        let rings: Vec<Vec<Bytes>> = (0..rings).map(ring).collect::<Result<_>>()?;
        let size = Size { records: u64::from(shape.batch_records), bytes: shape.batch_bytes() };
        let sizes = rings.iter().map(|ring| vec![size; ring.len()]).collect();
        Ok(Payload { rings, sizes, population, partitions, seed: shape.seed })
    }

    /// The batch with this number in an endless row of them, where it goes, and what it holds. It goes to the partition
    /// its keys choose, or to the partitions in turn.
    pub fn batch(&self, index: u64) -> (u32, Bytes, Size) {
        let Place { partition, ring, position } = self.place(index);
        let partition = u32::try_from(partition).expect("one of them");
        (partition, self.rings[ring][position].clone(), self.sizes[ring][position])
    }

    /// Records of a batch in the mean, over an endless row of them.
    pub fn batch_records(&self) -> f64 {
        let mut records = self.sizes.iter().flatten().map(|size| size.records);
        // What is lost in summing up shares would make a batch too many where all are alike.
        if let Some(first) = records.next()
            && records.all(|records| records == first)
        {
            return first as f64;
        }
        let mean = |ring: &Vec<Size>| {
            ring.iter().map(|size| size.records as f64).sum::<f64>() / ring.len().max(1) as f64
        };
        match &self.population {
            Some(population) => {
                let parts = self.sizes.iter().enumerate();
                parts.map(|(partition, ring)| population.share_of(partition) * mean(ring)).sum()
            }
            None => mean(&self.sizes[0]),
        }
    }

    /// Where that batch is taken from.
    pub fn place(&self, index: u64) -> Place {
        let (partition, ring) = match &self.population {
            Some(population) => {
                let drawn = Rng::with_seed(self.seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).f64();
                let partition = population.partition_at(drawn);
                (partition, partition)
            }
            None => (modulo(index, self.partitions as usize), 0),
        };
        Place { partition, ring, position: modulo(index, self.rings[ring].len()) }
    }

    /// All prepared batches.
    pub fn rings(&self) -> &[Vec<Bytes>] {
        &self.rings
    }

    /// Partitions of the topic it was made for.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }
}

/// Batches of each ring, that many rings of batches of that size stay within what is wanted.
fn ring_length(rings: usize, batch_bytes: usize) -> usize {
    (BYTES_WANTED_MAX / rings / batch_bytes).clamp(1, BATCHES_MAX)
}

fn modulo(index: u64, length: usize) -> usize {
    usize::try_from(index % length as u64).expect("less than a length")
}

fn build(
    shape: &Shape,
    keys: Option<(&Population, usize)>,
    timestamp_ms: i64,
    rng: &mut Rng,
) -> Result<Bytes> {
    let mut builder = RecordBatchBuilder::new(shape.compression);
    let mut key = vec![0; shape.key_size];
    let mut value = vec![0; shape.record_size];
    for _ in 0..shape.batch_records {
        match keys {
            Some((population, partition)) => population.draw(partition, rng, &mut key),
            None => rng.fill(&mut key),
        }
        fill_value(&mut value, shape.compressible, rng);
        let key = (shape.key_size > 0).then_some(&key[..]);
        builder.push(timestamp_ms, key, Some(&value), &[])?;
    }
    Ok(builder.build())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::plan::{Keys, Skew};
    use corrente_client::{Compression, partition_for_key};

    pub(crate) const SHAPE: Shape = Shape {
        record_size: 100,
        key_size: 8,
        batch_records: 10,
        keys: None,
        compressible: 0.0,
        compression: Compression::None,
        seed: 1,
    };

    fn payload(shape: &Shape) -> Payload {
        Payload::new(shape, 1, 0).unwrap()
    }

    #[test]
    fn a_seed_is_a_payload() {
        let payload = |seed| payload(&Shape { seed, ..SHAPE });
        assert_eq!(payload(1).batch(5), payload(1).batch(5));
        assert_ne!(payload(1).batch(5), payload(2).batch(5));
        assert_ne!(payload(1).batch(5), payload(1).batch(6));
        assert_eq!(payload(1).batch(3), payload(1).batch(3 + BATCHES_MAX as u64));
    }

    #[test]
    fn batches_hold_what_the_shape_says() {
        let bytes = usize::try_from(SHAPE.batch_bytes()).unwrap();
        let encoded = payload(&SHAPE).batch(0).1.len();
        assert!((bytes..bytes + 61 + 10 * 12).contains(&encoded), "{bytes} bytes became {encoded}");
    }

    #[test]
    fn large_batches_make_a_short_ring() {
        let shape = Shape { record_size: 1 << 20, batch_records: 8, ..SHAPE };
        assert_eq!(payload(&shape).rings[0].len(), 7);
    }

    #[test]
    fn without_a_population_partitions_take_turns() {
        let payload = Payload::new(&SHAPE, 3, 0).unwrap();
        let partitions: Vec<u32> = (0..6).map(|index| payload.batch(index).0).collect();
        assert_eq!(partitions, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn keys_go_where_any_producer_sends_them_and_as_often_as_their_weight_says() {
        let keys = Some(Keys { count: 1_000, skew: Skew::Zipf(1.0) });
        let payload = Payload::new(&Shape { keys, record_size: 1, ..SHAPE }, 8, 0).unwrap();
        let population = payload.population.as_ref().unwrap();
        let mut sent = [0_u32; 8];
        for index in 0..20_000 {
            sent[payload.batch(index).0 as usize] += 1;
        }
        for (partition, sent) in sent.into_iter().enumerate() {
            let share = population.share_of(partition);
            assert!((f64::from(sent) / 20_000.0 - share).abs() < 0.02, "{partition}: {sent} of {share}");
        }
        let mut key = Vec::new();
        for partition in 0..8 {
            population.draw(partition, &mut Rng::with_seed(1), &mut key);
            assert_eq!(partition_for_key(&key, 8) as usize, partition);
        }
    }

    #[test]
    fn compressible_values_become_smaller_by_as_much() {
        let shape = Shape { compression: Compression::Zstd, record_size: 1_000, batch_records: 100, ..SHAPE };
        let len = |compressible: f64| payload(&Shape { compressible, ..shape }).batch(0).1.len() as f64;
        let whole = len(0.0);
        for compressible in [0.3, 0.6, 0.9] {
            let left = len(compressible) / whole;
            assert!((left - (1.0 - compressible)).abs() < 0.05, "{compressible} left {left}");
        }
    }

    #[test]
    fn what_would_take_all_memory_is_refused() {
        let keys = Some(Keys { count: 10, skew: Skew::Uniform });
        let shape = Shape { keys, record_size: 1 << 20, batch_records: 100, ..SHAPE };
        let refusal = Payload::new(&shape, 1_000, 0).unwrap_err().to_string();
        assert!(refusal.contains("make batches smaller"), "{refusal}");
    }
}
