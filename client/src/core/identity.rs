//! What a producer is to brokers: an id, given by one of them, with which its batches are appended once.
//!
//! A batch that failed after it was sent leaves a gap in the sequences, or does not, for all that can be known. So the
//! producer takes a new id then, and begins anew with 0; batches on their way keep what they were sent with.

use corrente_protocol::record_batch::{BatchSequence, sequence_after};

use super::time::Micros;
use crate::error::Error;

/// See the module.
#[derive(Debug)]
pub(crate) enum Identity {
    /// The producer is not idempotent: its batches have no sequences.
    Anonymous,
    /// An id has to be asked for, not before this moment.
    Wanted {
        failures: u32,
        not_before: Micros,
    },
    /// It was asked for.
    Asked {
        failures: u32,
    },
    Known {
        producer_id: i64,
        producer_epoch: i16,
    },
    /// There will be none.
    Refused(Error),
}

/// How far the sequences of one partition are.
#[derive(Debug)]
pub(crate) struct Sequences {
    producer_id: i64,
    next: i32,
}

impl Identity {
    pub(crate) fn new(is_idempotent: bool) -> Identity {
        if is_idempotent { Identity::wanted_at(Micros(0)) } else { Identity::Anonymous }
    }

    pub(crate) fn wanted_at(not_before: Micros) -> Identity {
        Identity::Wanted { failures: 0, not_before }
    }

    /// Whether a new batch can be sent.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(self, Identity::Anonymous | Identity::Known { .. })
    }

    pub(crate) fn is(&self, id: i64) -> bool {
        matches!(self, Identity::Known { producer_id, .. } if *producer_id == id)
    }

    /// The place of the next batch of a partition.
    ///
    /// # Panics
    /// If the identity is not settled.
    pub(crate) fn take_sequence(&self, sequences: &mut Sequences, records: u32) -> BatchSequence {
        let (producer_id, producer_epoch) = match *self {
            Identity::Anonymous => return BatchSequence::NONE,
            Identity::Known { producer_id, producer_epoch } => (producer_id, producer_epoch),
            _ => panic!("a batch is sent as {self:?}"),
        };
        if sequences.producer_id != producer_id {
            *sequences = Sequences { producer_id, next: 0 };
        }
        let base_sequence = sequences.next;
        sequences.next = sequence_after(base_sequence, records.cast_signed());
        BatchSequence { producer_id, producer_epoch, base_sequence }
    }
}

impl Default for Sequences {
    /// Of nobody yet.
    fn default() -> Sequences {
        Sequences { producer_id: -1, next: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_go_on_with_zero_after_the_greatest_and_begin_anew_with_a_new_id() {
        let known = |producer_id| Identity::Known { producer_id, producer_epoch: 0 };
        let mut sequences = Sequences::default();
        let mut next =
            |identity: &Identity, records| identity.take_sequence(&mut sequences, records).base_sequence;
        assert_eq!(next(&known(0), i32::MAX.cast_unsigned() - 4), 0);
        assert_eq!(next(&known(0), 10), i32::MAX - 4);
        assert_eq!(next(&known(0), 1), 5);
        assert_eq!(next(&known(7), 3), 0);
        assert_eq!(next(&known(7), 3), 3);
        assert_eq!(next(&Identity::Anonymous, 3), -1);
    }
}
