//! Little-endian fields at fixed places, for headers whose layout FORMAT.md draws.

/// Puts `bytes` at `at`.
pub(crate) fn put<const N: usize>(block: &mut [u8], at: usize, bytes: [u8; N]) {
    block[at..at + N].copy_from_slice(&bytes);
}

/// Takes `N` bytes from `at`; the caller has checked the length of `block`.
pub(crate) fn take<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    block[at..at + N].try_into().expect("the slice has N bytes")
}

/// A `u16` at `at`.
pub(crate) fn u16_at(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(take(block, at))
}

/// A `u32` at `at`.
pub(crate) fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(take(block, at))
}

/// A `u64` at `at`.
pub(crate) fn u64_at(block: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(take(block, at))
}

/// An `i64` at `at`.
pub(crate) fn i64_at(block: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(take(block, at))
}
