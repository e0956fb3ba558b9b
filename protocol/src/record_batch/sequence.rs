//! The place of a batch among those of an idempotent producer (KIP-98).

/// Whose batch it is, and where it stands among that producer's in one partition.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BatchSequence {
    /// Whose batch.
    pub producer_id: i64,
    /// Which life of that producer.
    pub producer_epoch: i16,
    /// The sequence of the first record; those of the others follow, with 0 after the greatest.
    pub base_sequence: i32,
}

impl BatchSequence {
    /// Of a batch without one.
    pub const NONE: BatchSequence = BatchSequence { producer_id: -1, producer_epoch: -1, base_sequence: -1 };
}

/// The sequence so many records on; 0 comes after the greatest.
pub const fn sequence_after(sequence: i32, records: i32) -> i32 {
    sequence.wrapping_add(records) & i32::MAX
}
