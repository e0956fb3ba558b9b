//! Holds what is read from one partition against what was acknowledged. Sans I/O: batches in, counts out.

use std::collections::HashMap;
use std::iter::Peekable;
use std::vec;

use super::Verification;
use super::digest::Digests;

/// What an acknowledgement said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    /// The offset of the first record.
    pub base_offset: u64,
    /// One past the offset of the last.
    pub end_offset: u64,
    /// The number of the batch among all of the run.
    pub batch: u64,
}

/// Reads one partition, from the lowest acknowledged offset on.
#[derive(Debug)]
pub struct Checker<'a> {
    /// Those that were not met yet, by base offset.
    promises: Peekable<vec::IntoIter<Promise>>,
    /// One past the highest offset that was acknowledged.
    acknowledged_end: u64,
    /// Batches without an acknowledgement, by digest: each may be there once.
    failed: HashMap<u64, u64>,
    /// The last batch that was met of each client.
    last: HashMap<u64, u64>,
    clients: u64,
    digests: &'a Digests,
    next: u64,
    found: Verification,
}

impl<'a> Checker<'a> {
    /// At least one batch was acknowledged.
    pub fn new(
        mut acknowledged: Vec<Promise>,
        failed: &[u64],
        clients: u64,
        digests: &'a Digests,
    ) -> Checker<'a> {
        acknowledged.sort_unstable_by_key(|promise| (promise.base_offset, promise.batch));
        let mut by_digest = HashMap::new();
        for &batch in failed {
            *by_digest.entry(digests.of_batch(batch)).or_default() += 1;
        }
        Checker {
            next: acknowledged[0].base_offset,
            acknowledged_end: acknowledged.iter().map(|promise| promise.end_offset).max().unwrap_or(0),
            found: Verification { batches: acknowledged.len() as u64, ..Verification::default() },
            promises: acknowledged.into_iter().peekable(),
            failed: by_digest,
            last: HashMap::new(),
            clients,
            digests,
        }
    }

    /// The offset to go on reading at.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Everything that was acknowledged was read or passed.
    pub fn is_complete(&self) -> bool {
        self.next >= self.acknowledged_end
    }

    /// What was found so far.
    pub fn found(&self) -> &Verification {
        &self.found
    }

    /// A batch stands at these offsets.
    pub fn read(&mut self, base_offset: u64, end_offset: u64, digest: u64) {
        if base_offset < self.next {
            self.found.duplicated += 1;
            self.next = self.next.max(end_offset);
            return;
        }
        let passed = self.pass(base_offset);
        // A gap is a loss even where no acknowledgement tells what stood there.
        self.found.lost += if base_offset > self.next { passed.max(1) } else { passed };
        self.next = end_offset;
        match self.promises.next_if(|promise| promise.base_offset == base_offset) {
            Some(promise) => self.meet(promise, end_offset, digest),
            None => self.meet_unpromised(digest),
        }
    }

    /// Nothing more comes: what was not met is lost.
    pub fn finish(mut self) -> Verification {
        self.found.lost += self.pass(u64::MAX);
        self.found
    }

    /// Leaves behind the promises below an offset; how many.
    fn pass(&mut self, offset: u64) -> u64 {
        let mut passed = 0;
        while self.promises.next_if(|promise| promise.base_offset < offset).is_some() {
            passed += 1;
        }
        passed
    }

    fn meet(&mut self, promise: Promise, end_offset: u64, digest: u64) {
        if promise.end_offset != end_offset || self.digests.of_batch(promise.batch) != digest {
            self.found.altered += 1;
            return;
        }
        // A client sends its batches by their numbers.
        let last = self.last.entry(promise.batch % self.clients).or_insert(promise.batch);
        if promise.batch < *last {
            self.found.out_of_order += 1;
        }
        *last = promise.batch.max(*last);
    }

    fn meet_unpromised(&mut self, digest: u64) {
        match self.failed.get_mut(&digest) {
            Some(left) if *left > 0 => *left -= 1,
            _ if self.digests.contains(digest) => self.found.duplicated += 1,
            _ => self.found.altered += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Payload;
    use crate::plan::Shape;
    use corrente_client::Compression;
    use std::sync::Arc;

    const RECORDS: u64 = 10;

    fn digests() -> Digests {
        let shape = Shape {
            record_size: 100,
            key_size: 0,
            batch_records: 10,
            keys: None,
            compressible: 0.0,
            compression: Compression::None,
            seed: 1,
        };
        Digests::of(&Arc::new(Payload::new(&shape, 1, 0).unwrap())).unwrap()
    }

    /// A log: the number of the batch at each place, from offset 1 000 on.
    fn log(batches: &[u64], digests: &Digests) -> Vec<(u64, u64, u64)> {
        let at = |(place, batch): (u64, &u64)| {
            let base = 1_000 + place * RECORDS;
            (base, base + RECORDS, digests.of_batch(*batch))
        };
        (0..).zip(batches).map(at).collect()
    }

    fn promise(place: u64, batch: u64) -> Promise {
        let base_offset = 1_000 + place * RECORDS;
        Promise { base_offset, end_offset: base_offset + RECORDS, batch }
    }

    /// Batches 0 to 4 of two clients, acknowledged in order but told of in any.
    fn promises() -> Vec<Promise> {
        [3, 0, 4, 2, 1].map(|n| promise(n, n)).to_vec()
    }

    fn check(
        promises: Vec<Promise>,
        failed: &[u64],
        log: &[(u64, u64, u64)],
        digests: &Digests,
    ) -> Verification {
        let mut checker = Checker::new(promises, failed, 2, digests);
        for &(base, end, digest) in log {
            checker.read(base, end, digest);
        }
        checker.finish()
    }

    fn sound() -> Verification {
        Verification { batches: 5, ..Verification::default() }
    }

    #[test]
    fn a_log_of_what_was_acknowledged_is_sound() {
        let digests = digests();
        let found = check(promises(), &[], &log(&[0, 1, 2, 3, 4], &digests), &digests);
        assert_eq!((found.fault(), found), (None, sound()));
    }

    #[test]
    fn a_batch_that_is_missing_is_lost() {
        let digests = digests();
        let mut log = log(&[0, 1, 2, 3, 4], &digests);
        log.remove(2);
        assert_eq!(check(promises(), &[], &log, &digests), Verification { lost: 1, ..sound() });
        log.truncate(2);
        assert_eq!(check(promises(), &[], &log, &digests), Verification { lost: 3, ..sound() });
        assert_eq!(check(promises(), &[], &[], &digests), Verification { lost: 5, ..sound() });
    }

    #[test]
    fn offsets_that_nobody_was_given_are_a_loss_too() {
        let digests = digests();
        let promises = vec![promise(0, 0), promise(2, 1)];
        let mut log = log(&[0, 7, 1], &digests);
        log.remove(1);
        let found = check(promises, &[], &log, &digests);
        assert_eq!(found, Verification { batches: 2, lost: 1, ..Verification::default() });
    }

    #[test]
    fn two_batches_at_the_same_offsets_are_one_too_few() {
        let digests = digests();
        let mut promises = promises();
        promises.push(promise(4, 6));
        let found = check(promises, &[], &log(&[0, 1, 2, 3, 4], &digests), &digests);
        assert_eq!(found, Verification { batches: 6, lost: 1, ..Verification::default() });
    }

    #[test]
    fn a_copy_beside_the_acknowledged_one_is_a_duplicate_wherever_it_stands() {
        let digests = digests();
        let found = check(promises(), &[], &log(&[0, 1, 2, 3, 4, 2], &digests), &digests);
        assert_eq!(found, Verification { duplicated: 1, ..sound() });
        let promises = vec![promise(0, 0), promise(2, 1)];
        let found = check(promises, &[], &log(&[0, 1, 1], &digests), &digests);
        assert_eq!(found, Verification { batches: 2, duplicated: 1, ..Verification::default() });
    }

    #[test]
    fn offsets_that_come_again_are_duplicates() {
        let digests = digests();
        let mut log = log(&[0, 1, 2, 3, 4], &digests);
        log.insert(3, log[2]);
        assert_eq!(check(promises(), &[], &log, &digests), Verification { duplicated: 1, ..sound() });
    }

    #[test]
    fn other_bytes_are_altered() {
        let digests = digests();
        let mut log = log(&[0, 1, 2, 3, 4], &digests);
        log[1].2 ^= 1;
        // What was sent, but at another batch's place.
        log[3].2 = digests.of_batch(9);
        assert_eq!(check(promises(), &[], &log, &digests), Verification { altered: 2, ..sound() });
        log[4].1 += 1;
        assert_eq!(check(promises(), &[], &log, &digests), Verification { altered: 3, ..sound() });
    }

    #[test]
    fn bytes_that_nobody_sent_are_altered() {
        let digests = digests();
        let mut log = log(&[0, 1, 2, 3, 4, 5], &digests);
        log[5].2 ^= 1;
        assert_eq!(check(promises(), &[], &log, &digests), Verification { altered: 1, ..sound() });
    }

    #[test]
    fn a_batch_without_an_acknowledgement_may_be_there_once() {
        let digests = digests();
        let all = log(&[0, 1, 2, 3, 4, 5, 5], &digests);
        assert_eq!(check(promises(), &[5], &all[..5], &digests), sound());
        assert_eq!(check(promises(), &[5], &all[..6], &digests), sound());
        assert_eq!(check(promises(), &[5], &all, &digests), Verification { duplicated: 1, ..sound() });
    }

    #[test]
    fn the_order_is_each_clients_own() {
        let digests = digests();
        // 1 and 3 are of the one client, 0 and 2 of the other.
        let of = |batches: &[u64]| {
            let promises = (0..).zip(batches).map(|(place, batch)| promise(place, *batch)).collect();
            check(promises, &[], &log(batches, &digests), &digests).out_of_order
        };
        assert_eq!(of(&[1, 0, 3, 2]), 0);
        assert_eq!(of(&[0, 3, 2, 1]), 1);
        assert_eq!(of(&[3, 2, 1, 0]), 2);
    }

    #[test]
    fn it_is_complete_at_the_last_acknowledged_offset() {
        let digests = digests();
        let mut checker = Checker::new(promises(), &[], 2, &digests);
        assert_eq!((checker.next(), checker.is_complete()), (1_000, false));
        for (base, end, digest) in log(&[0, 1, 2, 3, 4], &digests) {
            assert!(!checker.is_complete());
            checker.read(base, end, digest);
        }
        assert_eq!((checker.next(), checker.is_complete()), (1_050, true));
    }
}
