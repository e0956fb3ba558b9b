//! What is known of one log: which record stands where, and where it began and ended when.

use std::ops::Range;

use super::frontier::Frontier;

/// A record at an offset, and who saw it there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    /// Which record: its index among all that were sent.
    pub(crate) send: u32,
    /// Its timestamp there, as it was seen first.
    pub(crate) timestamp_ms: i64,
    /// The operation that saw it there first, in the order of the file.
    pub(crate) seen_by: u32,
    pub(crate) is_acked: bool,
    /// The first poll before the final reading that showed it.
    pub(crate) read_by: Option<u32>,
    pub(crate) is_final: bool,
}

/// One observation of a record at an offset.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Observation {
    pub(crate) offset: u64,
    pub(crate) send: u32,
    pub(crate) operation: u32,
    pub(crate) by: Witness,
    pub(crate) timestamp_ms: i64,
}

/// Who saw it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Witness {
    Ack,
    Reader,
    FinalReader,
}

/// An answer to a question for the log start offset, or what was told of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StartTold {
    pub(crate) invoked_ns: u64,
    pub(crate) over_ns: u64,
    pub(crate) start: u64,
    pub(crate) operation: u32,
}

/// What is known of one log.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Until [`Log::settle`].
    pub(crate) observations: Vec<Observation>,
    /// By offset. Where one offset showed two records, there are two places.
    pub(crate) places: Vec<Place>,
    /// Its end, as it was told and as it follows from acknowledgements and reads.
    pub(crate) ends: Frontier,
    /// The same from acknowledgements alone.
    pub(crate) acked_ends: Frontier,
    /// Its start, as it was told.
    pub(crate) starts: Frontier,
    /// The same, by the moment of the question; after [`Log::settle`] the least start told from there on.
    pub(crate) starts_told: Vec<StartTold>,
    starts_from_here: Vec<u64>,
    /// Records that may stand in it, by what is known of their sending.
    pub(crate) in_doubt: Vec<u32>,
    /// Up to where records were asked to be deleted, by the moment of the request.
    pub(crate) deletions: Frontier,
    /// What the final reading was told and what it found.
    pub(crate) last: FinalReading,
}

/// What the final reading says of a log.
#[derive(Debug, Default)]
pub(crate) struct FinalReading {
    /// Start and end as told by the last question of each kind.
    pub(crate) start: Option<LastTold>,
    pub(crate) end: Option<LastTold>,
    /// One past the last offset read.
    pub(crate) reached: Option<u64>,
}

/// An answer of the final reading. Of several the one asked for last counts: answers may overtake each other.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct LastTold {
    pub(crate) invoked_ns: u64,
    pub(crate) offset: u64,
    pub(crate) operation: u32,
}

impl Log {
    /// Makes the log ready for questions.
    pub(crate) fn settle(&mut self) {
        self.ends.settle();
        self.acked_ends.settle();
        self.starts.settle();
        self.deletions.settle();
        self.starts_told.sort_unstable_by_key(|told| told.invoked_ns);
        let mut least = u64::MAX;
        self.starts_from_here = self
            .starts_told
            .iter()
            .rev()
            .map(|told| {
                least = least.min(told.start);
                least
            })
            .collect();
        self.starts_from_here.reverse();
        let mut observations = std::mem::take(&mut self.observations);
        observations.sort_unstable();
        for Observation { offset, send, operation, by, timestamp_ms } in observations {
            let known = self.places.last_mut().filter(|last| last.offset == offset && last.send == send);
            let place = match known {
                Some(place) => place,
                None => {
                    let place = Place {
                        offset,
                        send,
                        timestamp_ms,
                        seen_by: operation,
                        is_acked: false,
                        read_by: None,
                        is_final: false,
                    };
                    self.places.push(place);
                    self.places.last_mut().expect("just pushed")
                }
            };
            match by {
                Witness::Ack => place.is_acked = true,
                Witness::Reader => place.read_by = place.read_by.or(Some(operation)),
                Witness::FinalReader => place.is_final = true,
            }
        }
    }

    /// The places at these offsets.
    pub(crate) fn within(&self, offsets: Range<u64>) -> &[Place] {
        let from = self.places.partition_point(|place| place.offset < offsets.start);
        let to = self.places.partition_point(|place| place.offset < offsets.end);
        &self.places[from..to.max(from)]
    }

    /// No start before this offset was told in answer to a question asked after the moment: removal cannot have reached
    /// further by then.
    pub(crate) fn start_max_at(&self, moment_ns: u64) -> u64 {
        let later = self.starts_told.partition_point(|told| told.invoked_ns <= moment_ns);
        self.starts_from_here.get(later).copied().unwrap_or(u64::MAX)
    }
}
