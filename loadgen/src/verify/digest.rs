//! Records in 64 bits, so that what was sent and what was read are compared without keeping either.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use anyhow::Result;
use corrente_client::RecordView;
use corrente_protocol::record_batch::RecordBatch;

use crate::payload::Payload;

/// A digest of keys, values and headers in their order. Times are left out, as a topic may have the broker set them.
#[derive(Debug, Default)]
pub struct Digest {
    hasher: DefaultHasher,
}

impl Digest {
    /// The digest of these records.
    pub fn of(records: &[RecordView]) -> u64 {
        let mut digest = Digest::default();
        records.iter().for_each(|record| digest.add(record));
        digest.value()
    }

    /// Takes in the next record.
    pub fn add(&mut self, record: &RecordView) {
        record.key.hash(&mut self.hasher);
        record.value.hash(&mut self.hasher);
        record.headers.len().hash(&mut self.hasher);
        for header in &record.headers {
            header.key.hash(&mut self.hasher);
            header.value.hash(&mut self.hasher);
        }
    }

    /// The digest of all so far.
    pub fn value(self) -> u64 {
        self.hasher.finish()
    }
}

/// The digests of all prepared batches.
#[derive(Debug)]
pub struct Digests {
    payload: Arc<Payload>,
    /// As the rings of the payload.
    rings: Vec<Vec<u64>>,
}

impl Digests {
    /// Takes them.
    pub fn of(payload: &Arc<Payload>) -> Result<Digests> {
        let of_batch = |batch: &bytes::Bytes| -> Result<u64> {
            let records: Vec<RecordView> =
                RecordBatch::new(batch.clone())?.records(usize::MAX)?.collect::<Result<_, _>>()?;
            Ok(Digest::of(&records))
        };
        let of_ring = |ring: &Vec<bytes::Bytes>| ring.iter().map(of_batch).collect();
        let rings = payload.rings().iter().map(of_ring).collect::<Result<_>>()?;
        Ok(Digests { payload: Arc::clone(payload), rings })
    }

    /// The digest of the batch with this number.
    pub fn of_batch(&self, batch: u64) -> u64 {
        let place = self.payload.place(batch);
        self.rings[place.ring][place.position]
    }

    /// Whether any prepared batch has this digest.
    pub fn contains(&self, digest: u64) -> bool {
        self.rings.iter().flatten().any(|known| *known == digest)
    }
}
