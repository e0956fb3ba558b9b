//! Memory the disk can write to and read from without a copy.
//!
//! Direct I/O wants pointer, length and file position aligned to [`BLOCK`]. An [`AlignedBuf`] is
//! such memory; frozen into [`Bytes`] it is shared without another copy.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::slice;

use bytes::Bytes;

/// The unit of direct I/O, in bytes: every position, length and address is a multiple.
pub const BLOCK: usize = 4096;

/// [`BLOCK`] for file positions.
pub(crate) const BLOCK_U64: u64 = BLOCK as u64;

const _: () = assert!(BLOCK.is_power_of_two());

/// Owned memory whose address is a multiple of [`BLOCK`].
///
/// Invariants: `capacity` is a multiple of `BLOCK`, `len <= capacity`, the first `len` bytes are
/// initialised, and `start` was allocated with `layout(capacity)` unless `capacity` is 0.
pub struct AlignedBuf {
    start: NonNull<u8>,
    len: usize,
    capacity: usize,
}

// SAFETY: the memory is owned by this value alone, as in a `Vec<u8>`.
#[expect(unsafe_code, reason = "owned memory without interior sharing moves between threads")]
unsafe impl Send for AlignedBuf {}

// SAFETY: a shared reference gives only shared access to the bytes.
#[expect(unsafe_code, reason = "owned memory without interior sharing may be read by many")]
unsafe impl Sync for AlignedBuf {}

#[expect(unsafe_code, reason = "aligned memory comes from the raw allocator")]
impl AlignedBuf {
    /// `len` zero bytes; memory is taken in whole blocks.
    pub fn zeroed(len: usize) -> Self {
        let mut buffer = Self::allocate(len, true);
        buffer.len = len;
        buffer
    }

    /// An empty buffer with room for at least `capacity` bytes, which are not touched.
    pub fn with_capacity(capacity: usize) -> Self {
        Self::allocate(capacity, false)
    }

    /// Copies `bytes` behind what is there. Without room for them, all moves to at least twice as much.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let len = self.len + bytes.len();
        if len > self.capacity {
            let mut larger = Self::allocate(len.max(2 * self.capacity), false);
            larger.extend_from_slice(self);
            *self = larger;
        }
        // SAFETY: there is room for `len` bytes, and borrowed bytes never lie in the unused part of memory of ours.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().add(self.len), bytes.len());
        }
        self.len = len;
    }

    /// Adds zeros up to the end of the block.
    pub fn pad_to_block(&mut self) {
        let padding = self.len.next_multiple_of(BLOCK) - self.len;
        self.extend_from_slice(&[0; BLOCK][..padding]);
    }

    fn allocate(len: usize, zeroed: bool) -> Self {
        let capacity = len.checked_next_multiple_of(BLOCK).expect("a buffer shorter than the address space");
        if capacity == 0 {
            let start = NonNull::without_provenance(
                std::num::NonZeroUsize::new(BLOCK).expect("a block is not empty"),
            );
            return Self { start, len: 0, capacity };
        }
        let layout = layout(capacity);
        // SAFETY: the layout has a size other than zero.
        let start = unsafe { if zeroed { alloc_zeroed(layout) } else { alloc(layout) } };
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(layout);
        };
        Self { start, len: 0, capacity }
    }

    /// The address the kernel reads from or writes to.
    pub(crate) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// How many bytes there is memory for.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Declares the first `len` bytes as filled.
    ///
    /// # Safety
    ///
    /// They must have been written, by the kernel or by us.
    pub(crate) unsafe fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity, "length {len} beyond the capacity {}", self.capacity);
        self.len = len;
    }

    /// Forgets what lies beyond the first `len` bytes; without effect if there are fewer.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Shares the bytes from now on: slices of the result keep the memory alive, nothing is copied.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

/// `BLOCK` is a power of two and `capacity` a multiple of it, so this cannot fail below `isize::MAX`.
fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, BLOCK).expect("a buffer shorter than the address space")
}

#[expect(unsafe_code, reason = "the memory is ours until here")]
impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if self.capacity > 0 {
            // SAFETY: allocated with this very layout, and given back once.
            unsafe { dealloc(self.start.as_ptr(), layout(self.capacity)) };
        }
    }
}

#[expect(unsafe_code, reason = "a view of memory we own")]
impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the first `len` bytes are ours and initialised.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

#[expect(unsafe_code, reason = "a view of memory we own")]
impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the first `len` bytes are ours and initialised, and `self` is borrowed alone.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_aligned_zeroed_and_as_long_as_asked() {
        for len in [0, 1, 4095, 4096, 4097, 1 << 20] {
            let buffer = AlignedBuf::zeroed(len);
            assert_eq!(buffer.len(), len);
            assert!(buffer.as_ptr().addr().is_multiple_of(BLOCK));
            assert!(buffer.iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn frozen_slices_share_the_memory_and_keep_its_place() {
        let mut buffer = AlignedBuf::zeroed(2 * BLOCK);
        buffer[BLOCK] = 7;
        let place = buffer.as_ptr();
        let bytes = buffer.freeze();
        let tail = bytes.slice(BLOCK..);
        drop(bytes);
        assert_eq!(tail[0], 7);
        assert_eq!(tail.as_ptr().addr(), place.addr() + BLOCK);
    }

    #[test]
    fn what_is_added_stands_behind_the_rest_wherever_all_moves() {
        let mut buffer = AlignedBuf::with_capacity(100);
        let mut expected = Vec::new();
        for (len, fill) in [(100, 1), (BLOCK - 100, 2), (0, 3), (1, 4), (3 * BLOCK, 5)] {
            let bytes = vec![fill; len];
            buffer.extend_from_slice(&bytes);
            expected.extend(bytes);
            assert_eq!(*buffer, expected);
        }
        buffer.pad_to_block();
        expected.resize(5 * BLOCK, 0);
        assert_eq!(*buffer, expected);
        buffer.pad_to_block();
        assert_eq!(buffer.len(), 5 * BLOCK);
        assert!(buffer.as_ptr().addr().is_multiple_of(BLOCK));
    }

    #[test]
    fn truncation_only_shortens() {
        let mut buffer = AlignedBuf::zeroed(10);
        buffer.truncate(20);
        assert_eq!(buffer.len(), 10);
        buffer.truncate(3);
        assert_eq!(buffer.len(), 3);
    }
}
