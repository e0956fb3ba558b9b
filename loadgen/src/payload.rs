//! Record batches made before the run.
//!
//! Building and checksumming a batch costs a generator more than sending it. So a ring of different batches is built
//! once, from a seed, and its bytes are sent again and again: a batch on its way is a reference count, not a copy.
//! Values and keys are random bytes: no compression on the way, in the broker or on its disk makes them smaller.
//! All records of a batch carry the time at which the ring was built.

use anyhow::Result;
use bytes::Bytes;
use corrente_client::{Compression, RecordBatchBuilder};
use fastrand::Rng;

use crate::plan::Shape;

/// Encoded record batches, all of one shape.
#[derive(Debug)]
pub struct BatchRing {
    batches: Vec<Bytes>,
}

/// Enough different batches that no cache on the way holds them all by chance.
const BATCHES_MAX: usize = 64;
/// The ring's own bound on memory; large batches make it shorter.
const RING_BYTES_MAX: usize = 64 << 20;

impl BatchRing {
    /// Builds the ring; the same shape gives the same records.
    pub fn new(shape: &Shape, timestamp_ms: i64) -> Result<BatchRing> {
        let batch_bytes = usize::try_from(shape.batch_bytes()).unwrap_or(usize::MAX).max(1);
        let count = (RING_BYTES_MAX / batch_bytes).clamp(1, BATCHES_MAX);
        let mut rng = Rng::with_seed(shape.seed);
        let batches = (0..count).map(|_| build(shape, timestamp_ms, &mut rng)).collect::<Result<_>>()?;
        Ok(BatchRing { batches })
    }

    /// The batch with this index in an endless row of them.
    pub fn batch(&self, index: u64) -> Bytes {
        let place = index % self.batches.len() as u64;
        self.batches[usize::try_from(place).expect("less than the ring's length")].clone()
    }
}

fn build(shape: &Shape, timestamp_ms: i64, rng: &mut Rng) -> Result<Bytes> {
    let mut builder = RecordBatchBuilder::new(Compression::None);
    let mut key = vec![0; shape.key_size];
    let mut value = vec![0; shape.record_size];
    for _ in 0..shape.batch_records {
        rng.fill(&mut key);
        rng.fill(&mut value);
        let key = (shape.key_size > 0).then_some(&key[..]);
        builder.push(timestamp_ms, key, Some(&value), &[])?;
    }
    Ok(builder.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { record_size: 100, key_size: 8, batch_records: 10, seed: 1 };

    #[test]
    fn a_seed_is_a_payload() {
        let ring = |seed| BatchRing::new(&Shape { seed, ..SHAPE }, 0).unwrap();
        assert_eq!(ring(1).batch(5), ring(1).batch(5));
        assert_ne!(ring(1).batch(5), ring(2).batch(5));
        assert_ne!(ring(1).batch(5), ring(1).batch(6));
        assert_eq!(ring(1).batch(3), ring(1).batch(3 + BATCHES_MAX as u64));
    }

    #[test]
    fn batches_hold_what_the_shape_says() {
        let ring = BatchRing::new(&SHAPE, 0).unwrap();
        let payload = usize::try_from(SHAPE.batch_bytes()).unwrap();
        let encoded = ring.batch(0).len();
        assert!((payload..payload + 61 + 10 * 12).contains(&encoded), "{payload} bytes became {encoded}");
    }

    #[test]
    fn large_batches_make_a_short_ring() {
        let shape = Shape { record_size: 1 << 20, batch_records: 8, ..SHAPE };
        assert_eq!(BatchRing::new(&shape, 0).unwrap().batches.len(), 7);
    }
}
