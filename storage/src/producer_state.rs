//! What a log knows of the idempotent producers that write to it: the last batches of each.
//!
//! Pure: a function of the batches in the log, in their order, and of nothing else. A batch that comes again is told
//! by its sequences and answered with the offsets it got the first time; one that leaves a gap, or comes from an
//! earlier life of its producer, is refused. The rules are Kafka's (KIP-98; KIP-360 for producers that are not known,
//! or no longer: they may begin with any sequence).

use std::collections::{BTreeMap, VecDeque};

use corrente_protocol::ids::Offset;
use corrente_protocol::record_batch::{RecordBatchHeader, ValidBatch, sequence_after};
use thiserror::Error;

use crate::log::Appended;

/// Batches that a producer may have under way on one partition: so many are remembered.
pub(crate) const BATCHES_KEPT: usize = 5;
/// Producers that one log remembers; those that were silent for the longest are forgotten first.
pub(crate) const PRODUCERS_KEPT: usize = 10_000;
/// A producer that was silent for so long is forgotten, in ms: a day.
const FORGOTTEN_AFTER_MS: i64 = 24 * 60 * 60 * 1000;

/// Why a batch of an idempotent producer is not appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SequenceRefusal {
    /// Another life of the producer has begun since.
    #[error("producer {producer_id} wrote with epoch {current}, the batch has the earlier epoch {given}")]
    StaleEpoch {
        /// Whose batch.
        producer_id: i64,
        /// Its epoch.
        given: i16,
        /// The latest one in the log.
        current: i16,
    },
    /// Batches before it are missing, or it is an old one that is not remembered any more.
    #[error(
        "producer {producer_id} at epoch {epoch} goes on with sequence {expected}, the batch begins at {given}"
    )]
    OutOfOrder {
        /// Whose batch.
        producer_id: i64,
        /// Its epoch.
        epoch: i16,
        /// The sequence that would follow.
        expected: i32,
        /// The one given.
        given: i32,
    },
    /// A part of the request is in the log, the rest is not: such a request was never sent.
    #[error("some batches of the request are in the log already and others are not")]
    PartlyKnown,
    /// All of the request is in the log, and something else between its batches: such a request was never sent.
    #[error("the batches of the request are in the log already, and do not follow each other there")]
    Apart,
}

/// What is to be done with batches that may be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Append them.
    New,
    /// They are in the log, here.
    Duplicate(Appended),
}

/// See the module. Invariant: every producer has at least one batch and at most [`BATCHES_KEPT`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProducerState {
    pub(crate) producers: BTreeMap<i64, Producer>,
}

/// One producer: its latest epoch, and its last batches in that epoch, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) epoch: i16,
    /// When its last batch was appended, in ms since 1970.
    pub(crate) last_append_ms: i64,
    pub(crate) batches: VecDeque<SequencedBatch>,
}

/// A batch that was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SequencedBatch {
    pub(crate) first_sequence: i32,
    /// The sequence of its last record.
    pub(crate) last_sequence: i32,
    pub(crate) place: Appended,
}

impl ProducerState {
    /// Judges what one append holds, in its order. Batches without a producer are always new.
    pub(crate) fn judge(&self, batches: &[ValidBatch]) -> Result<Judgement, SequenceRefusal> {
        if let [batch] = batches {
            let known = self.producers.get(&batch.header.producer_id);
            return judge_one(known, &batch.header);
        }
        // As the producers would be after those before.
        let mut ahead: BTreeMap<i64, Producer> = BTreeMap::new();
        let mut duplicate: Option<Appended> = None;
        let mut new = 0;
        for ValidBatch { header, .. } in batches {
            let known = ahead.get(&header.producer_id).or_else(|| self.producers.get(&header.producer_id));
            match judge_one(known, header)? {
                Judgement::Duplicate(place) => match &mut duplicate {
                    None => duplicate = Some(place),
                    Some(whole) if whole.end_offset == place.base_offset => {
                        whole.end_offset = place.end_offset
                    }
                    Some(_) => return Err(SequenceRefusal::Apart),
                },
                Judgement::New => {
                    new += 1;
                    if is_sequenced(header) {
                        let mut next = known.cloned().unwrap_or_default();
                        next.push(header, NOWHERE, 0);
                        ahead.insert(header.producer_id, next);
                    }
                }
            }
        }
        match duplicate {
            None => Ok(Judgement::New),
            Some(place) if new == 0 => Ok(Judgement::Duplicate(place)),
            Some(_) => Err(SequenceRefusal::PartlyKnown),
        }
    }

    /// Takes in a batch that stands in the log at `place`.
    pub(crate) fn note(&mut self, header: &RecordBatchHeader, place: Appended, now_ms: i64) {
        if !is_sequenced(header) {
            return;
        }
        if self.producers.len() >= PRODUCERS_KEPT && !self.producers.contains_key(&header.producer_id) {
            self.forget_the_most_silent();
        }
        self.producers.entry(header.producer_id).or_default().push(header, place, now_ms);
    }

    /// Forgets who was silent for a day.
    pub(crate) fn forget_silent(&mut self, now_ms: i64) {
        self.producers
            .retain(|_, producer| now_ms.saturating_sub(producer.last_append_ms) < FORGOTTEN_AFTER_MS);
    }

    /// A tenth of them, so that it is not done for every new one. Their places in the log say who was silent, not the
    /// clock: it is the same after a start that read them all at once.
    fn forget_the_most_silent(&mut self) {
        let mut ends: Vec<Offset> = self.producers.values().map(Producer::end_offset).collect();
        let (_, kept_from, _) = ends.select_nth_unstable(PRODUCERS_KEPT / 10);
        let kept_from = *kept_from;
        self.producers.retain(|_, producer| producer.end_offset() >= kept_from);
    }
}

/// Stands for the place of a batch that is not appended yet.
const NOWHERE: Appended =
    Appended { base_offset: Offset::ZERO, end_offset: Offset::ZERO, append_time_ms: None };

impl Producer {
    /// Panics if there is none, which never lasts.
    fn last_sequence(&self) -> i32 {
        self.batches.back().expect("a producer is known by its batches").last_sequence
    }

    /// Where its last batch ends in the log. Panics if there is none, which never lasts.
    fn end_offset(&self) -> Offset {
        self.batches.back().expect("a producer is known by its batches").place.end_offset
    }

    fn push(&mut self, header: &RecordBatchHeader, place: Appended, now_ms: i64) {
        if header.producer_epoch != self.epoch {
            self.batches.clear();
        }
        if self.batches.len() == BATCHES_KEPT {
            self.batches.pop_front();
        }
        self.epoch = header.producer_epoch;
        self.last_append_ms = now_ms;
        self.batches.push_back(SequencedBatch {
            first_sequence: header.base_sequence,
            last_sequence: last_sequence(header),
            place,
        });
    }
}

fn judge_one(known: Option<&Producer>, header: &RecordBatchHeader) -> Result<Judgement, SequenceRefusal> {
    let &RecordBatchHeader { producer_id, producer_epoch: epoch, base_sequence: given, .. } = header;
    if !is_sequenced(header) {
        return Ok(Judgement::New);
    }
    let out_of_order = |expected| SequenceRefusal::OutOfOrder { producer_id, epoch, expected, given };
    let Some(known) = known else {
        return if given < 0 { Err(out_of_order(0)) } else { Ok(Judgement::New) };
    };
    if epoch < known.epoch {
        return Err(SequenceRefusal::StaleEpoch { producer_id, given: epoch, current: known.epoch });
    }
    if epoch > known.epoch {
        return if given == 0 { Ok(Judgement::New) } else { Err(out_of_order(0)) };
    }
    let same = |batch: &&SequencedBatch| {
        batch.first_sequence == given && batch.last_sequence == last_sequence(header)
    };
    if let Some(batch) = known.batches.iter().find(same) {
        return Ok(Judgement::Duplicate(batch.place));
    }
    let expected = sequence_after(known.last_sequence(), 1);
    if given == expected { Ok(Judgement::New) } else { Err(out_of_order(expected)) }
}

fn is_sequenced(header: &RecordBatchHeader) -> bool {
    header.producer_id >= 0
}

/// The sequence of a batch's last record. Its length in offsets says it: compaction may have taken records out.
fn last_sequence(header: &RecordBatchHeader) -> i32 {
    sequence_after(header.base_sequence, header.last_offset_delta)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(producer_id: i64, producer_epoch: i16, base_sequence: i32, count: i32) -> RecordBatchHeader {
        RecordBatchHeader {
            base_offset: Offset(0),
            length: 49,
            leader_epoch: corrente_protocol::record_batch::NO_LEADER_EPOCH,
            crc: 0,
            attributes: corrente_protocol::record_batch::Attributes(0),
            last_offset_delta: count - 1,
            base_timestamp_ms: 0,
            max_timestamp_ms: 0,
            producer_id,
            producer_epoch,
            base_sequence,
            record_count: count,
        }
    }

    fn valid(header: RecordBatchHeader) -> ValidBatch {
        ValidBatch { range: 0..61, record_count: header.record_count.cast_unsigned(), header }
    }

    fn at(base: u64, count: i32) -> Appended {
        let end_offset = Offset(base + u64::from(count.cast_unsigned()));
        Appended { base_offset: Offset(base), end_offset, append_time_ms: None }
    }

    /// Judges one batch and, if it is new, appends it.
    fn append(
        state: &mut ProducerState,
        end: &mut u64,
        batch: RecordBatchHeader,
    ) -> Result<u64, SequenceRefusal> {
        match state.judge(&[valid(batch)])? {
            Judgement::Duplicate(place) => Ok(place.base_offset.0),
            Judgement::New => {
                let place = at(*end, batch.record_count);
                state.note(&batch, place, 0);
                *end = place.end_offset.0;
                Ok(place.base_offset.0)
            }
        }
    }

    #[test]
    fn each_of_the_last_five_batches_is_told_when_it_comes_again() {
        let (mut state, mut end) = (ProducerState::default(), 100);
        for n in 0..7 {
            assert_eq!(append(&mut state, &mut end, header(1, 0, n * 10, 10)), Ok(100 + 10 * n as u64));
        }
        for n in 2..7 {
            assert_eq!(append(&mut state, &mut end, header(1, 0, n * 10, 10)), Ok(100 + 10 * n as u64));
        }
        let refused = SequenceRefusal::OutOfOrder { producer_id: 1, epoch: 0, expected: 70, given: 10 };
        assert_eq!(append(&mut state, &mut end, header(1, 0, 10, 10)), Err(refused));
        assert_eq!(end, 170);
    }

    #[test]
    fn a_gap_and_an_overlap_are_refused() {
        let (mut state, mut end) = (ProducerState::default(), 0);
        append(&mut state, &mut end, header(1, 0, 0, 10)).unwrap();
        for given in [11, 9, 5, -1] {
            let refused = SequenceRefusal::OutOfOrder { producer_id: 1, epoch: 0, expected: 10, given };
            assert_eq!(append(&mut state, &mut end, header(1, 0, given, 3)), Err(refused));
        }
        // As long as the first one and yet another.
        let refused = SequenceRefusal::OutOfOrder { producer_id: 1, epoch: 0, expected: 10, given: 0 };
        assert_eq!(append(&mut state, &mut end, header(1, 0, 0, 9)), Err(refused));
    }

    #[test]
    fn an_unknown_producer_begins_anywhere_and_a_new_epoch_at_zero() {
        let (mut state, mut end) = (ProducerState::default(), 0);
        assert_eq!(append(&mut state, &mut end, header(7, 3, 4000, 10)), Ok(0));
        let refused = SequenceRefusal::OutOfOrder { producer_id: 7, epoch: 4, expected: 0, given: 4010 };
        assert_eq!(append(&mut state, &mut end, header(7, 4, 4010, 10)), Err(refused));
        assert_eq!(append(&mut state, &mut end, header(7, 4, 0, 10)), Ok(10));
        let refused = SequenceRefusal::StaleEpoch { producer_id: 7, given: 3, current: 4 };
        assert_eq!(append(&mut state, &mut end, header(7, 3, 4000, 10)), Err(refused));
    }

    #[test]
    fn sequences_go_on_with_zero_after_the_greatest() {
        let (mut state, mut end) = (ProducerState::default(), 0);
        assert_eq!(append(&mut state, &mut end, header(1, 0, i32::MAX - 4, 10)), Ok(0));
        assert_eq!(append(&mut state, &mut end, header(1, 0, 5, 10)), Ok(10));
        assert_eq!(append(&mut state, &mut end, header(1, 0, i32::MAX - 4, 10)), Ok(0));
        assert_eq!(append(&mut state, &mut end, header(1, 0, 15, i32::MAX)), Ok(20));
        assert_eq!(append(&mut state, &mut end, header(1, 0, 14, 1)), Ok(20 + i32::MAX as u64));
    }

    #[test]
    fn several_batches_of_one_append_are_judged_together() {
        let mut state = ProducerState::default();
        let both = [valid(header(1, 0, 0, 5)), valid(header(1, 0, 5, 5))];
        assert_eq!(state.judge(&both), Ok(Judgement::New));
        let gap = [valid(header(1, 0, 0, 5)), valid(header(1, 0, 6, 5))];
        let refused = SequenceRefusal::OutOfOrder { producer_id: 1, epoch: 0, expected: 5, given: 6 };
        assert_eq!(state.judge(&gap), Err(refused));
        state.note(&both[0].header, at(0, 5), 0);
        assert_eq!(state.judge(&both), Err(SequenceRefusal::PartlyKnown));
        state.note(&both[1].header, at(5, 5), 0);
        assert_eq!(state.judge(&both), Ok(Judgement::Duplicate(at(0, 10))));
    }

    #[test]
    fn batches_that_come_again_are_answered_as_one_only_where_they_stand_together() {
        let mut state = ProducerState::default();
        let (first, second) = (valid(header(1, 0, 0, 5)), valid(header(1, 0, 5, 5)));
        let between = valid(header(2, 0, 0, 5));
        state.note(&first.header, at(0, 5), 0);
        state.note(&between.header, at(5, 5), 0);
        state.note(&second.header, at(10, 5), 0);
        let both = [first.clone(), second];
        assert_eq!(state.judge(&both), Err(SequenceRefusal::Apart));
        // Nor backwards: the end that is waited for would be that of the earlier one.
        assert_eq!(state.judge(&[between, first]), Err(SequenceRefusal::Apart));
    }

    #[test]
    fn who_was_silent_is_forgotten() {
        let mut state = ProducerState::default();
        for id in 0..PRODUCERS_KEPT as i64 + 1 {
            state.note(&header(id, 0, 0, 1), at(id.cast_unsigned(), 1), id);
        }
        assert_eq!(state.producers.len(), PRODUCERS_KEPT - PRODUCERS_KEPT / 10 + 1);
        assert_eq!(state.producers.keys().next(), Some(&(PRODUCERS_KEPT as i64 / 10)));
        state.forget_silent(FORGOTTEN_AFTER_MS + 9_000);
        assert_eq!(state.producers.keys().next(), Some(&9_001));
    }

    #[test]
    fn batches_without_a_producer_leave_no_trace() {
        let (mut state, mut end) = (ProducerState::default(), 0);
        for _ in 0..2 {
            append(&mut state, &mut end, header(-1, -1, -1, 3)).unwrap();
        }
        assert_eq!((end, state), (6, ProducerState::default()));
    }
}
