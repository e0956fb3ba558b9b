//! How much an entry holds at once. Owns the allocator of the whole program, so one entry runs at a time.

use corrente_protocol::fuzz::HELD_PER_BYTE;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// Feeds an entry that may hold `base` bytes, and some for each byte of its input.
///
/// # Panics
///
/// If the entry does, or if it held more.
pub fn run(entry: fn(&[u8]), base: usize, bytes: &[u8]) {
    ALLOCATED.reset_peak_usage();
    let before = ALLOCATED.peak_usage();
    entry(bytes);
    let (held, max) = (ALLOCATED.peak_usage().saturating_sub(before), base + HELD_PER_BYTE * bytes.len());
    assert!(held <= max, "{held} bytes were held for an input of {}, at most {max} may be", bytes.len());
}
