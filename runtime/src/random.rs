//! Random numbers: from the kernel in production, from the seed in a simulated world.

use crate::driver;

/// Sixty-four random bits. Works on any thread.
pub fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    fill_random(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Fills `bytes` with random bits. Works on any thread.
pub fn fill_random(bytes: &mut [u8]) {
    if driver::simulated() {
        driver::sim::random::fill_random(bytes);
    } else {
        driver::uring::random::fill_random(bytes);
    }
}
