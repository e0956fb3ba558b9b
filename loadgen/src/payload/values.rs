//! Values of a stated compressibility.

use fastrand::Rng;

/// Fills a value: the stated part of it is zeros, in one piece, and the rest is random bytes, which no codec makes
/// smaller. So a codec that is good with zeros leaves about the rest.
pub fn fill_value(value: &mut [u8], compressible: f64, rng: &mut Rng) {
    let zeros = (value.len() as f64 * compressible).round() as usize;
    let (zeros, random) = value.split_at_mut(zeros);
    zeros.fill(0);
    rng.fill(random);
}
