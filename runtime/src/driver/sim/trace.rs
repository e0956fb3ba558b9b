//! The running hash over everything a world decides.
//!
//! Two runs are the same run exactly when their hashes agree, so every scheduling decision, step of
//! time, delivery and disk operation is noted here before it takes effect.

use xxhash_rust::xxh3::xxh3_64;

/// What kind of thing was decided; part of the hash, so the numbers are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mark {
    Spawn = 1,
    Poll = 2,
    Time = 3,
    Random = 4,
    Crash = 5,
    DiskSubmit = 6,
    DiskComplete = 7,
    DiskCrash = 8,
    Send = 9,
    Deliver = 10,
    Reset = 11,
    Connect = 12,
    Close = 13,
    Link = 14,
    Kill = 15,
}

/// A hash that only ever grows; see the module head.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    marks: u64,
}

impl Trace {
    pub(crate) fn new(seed: u64) -> Self {
        Self { hash: mix(seed, 0x9e37_79b9_7f4a_7c15), marks: 0 }
    }

    pub(crate) fn note(&mut self, mark: Mark, a: u64, b: u64) {
        self.marks += 1;
        self.hash = mix(self.hash ^ a, (mark as u64) << 56 ^ self.marks);
        self.hash = mix(self.hash ^ b, 0xe703_7ed1_a0b4_28db);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// How many decisions went into the hash.
    pub(crate) fn marks(&self) -> u64 {
        self.marks
    }
}

/// The fingerprint of bytes that go to disk or network, for [`Trace::note`].
pub(crate) fn fingerprint(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// A folded 64 × 64 multiplication: cheap, and every bit of both factors reaches the result.
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0xa076_1d64_78bd_642f) * u128::from(b ^ 0x8ebc_6af0_9c88_c6e3);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_depends_on_seed_kind_values_and_order() {
        let run = |seed, marks: &[(Mark, u64, u64)]| {
            let mut trace = Trace::new(seed);
            marks.iter().for_each(|&(mark, a, b)| trace.note(mark, a, b));
            trace.hash()
        };
        let base = run(1, &[(Mark::Poll, 1, 2), (Mark::Time, 3, 4)]);
        assert_eq!(base, run(1, &[(Mark::Poll, 1, 2), (Mark::Time, 3, 4)]));
        assert_ne!(base, run(2, &[(Mark::Poll, 1, 2), (Mark::Time, 3, 4)]));
        assert_ne!(base, run(1, &[(Mark::Poll, 2, 1), (Mark::Time, 3, 4)]));
        assert_ne!(base, run(1, &[(Mark::Spawn, 1, 2), (Mark::Time, 3, 4)]));
        assert_ne!(base, run(1, &[(Mark::Time, 3, 4), (Mark::Poll, 1, 2)]));
    }
}
