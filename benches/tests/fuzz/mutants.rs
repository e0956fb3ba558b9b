//! Inputs made out of others: bits flipped, numbers pushed to their ends, pieces cut out, doubled and swapped. The same
//! seeds always give the same mutants.

use crate::seeds::Seed;

/// No mutant is longer, in bytes.
const LEN_MAX: usize = 64 * 1024;
/// Numbers at which arithmetic goes wrong.
const ENDS: [u64; 8] = [0, 1, 0x7f, 0x80, 0xff, 0x7fff_ffff, 0x8000_0000, u64::MAX];

/// See the module. Endless.
pub struct Mutants<'a> {
    seeds: &'a [Seed],
    rng: fastrand::Rng,
}

impl Mutants<'_> {
    pub fn new(seeds: &[Seed]) -> Mutants<'_> {
        Mutants { seeds, rng: fastrand::Rng::with_seed(0x00c0_44e4) }
    }

    fn pick(&mut self) -> Vec<u8> {
        self.rng.choice(self.seeds).map(|seed| seed.bytes.clone()).unwrap_or_default()
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        let at = self.rng.usize(..=input.len());
        let len = self.rng.usize(..=(input.len() - at).min(64));
        match self.rng.u8(..8) {
            0 | 1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.rng.u8(..8);
                }
            }
            2 => {
                let end = self.rng.choice(ENDS).expect("there are some");
                let width = 1 << self.rng.u32(..4);
                let bytes = if self.rng.bool() { end.to_le_bytes() } else { end.to_be_bytes() };
                let bytes = if self.rng.bool() { &bytes[..width] } else { &bytes[8 - width..] };
                input.iter_mut().skip(at).zip(bytes).for_each(|(old, new)| *old = *new);
            }
            3 => input.truncate(at),
            4 => drop(input.drain(at..at + len)),
            5 => {
                let piece = input[at..at + len].to_vec();
                input.splice(at..at, piece);
            }
            6 => {
                let noise: Vec<u8> = (0..len).map(|_| self.rng.u8(..)).collect();
                input.splice(at..at + len, noise);
            }
            _ => {
                let other = self.pick();
                let from = self.rng.usize(..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
        input.truncate(LEN_MAX);
    }
}

impl Iterator for Mutants<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut input = self.pick();
        for _ in 0..=self.rng.u8(..4) {
            self.mutate(&mut input);
        }
        Some(input)
    }
}
