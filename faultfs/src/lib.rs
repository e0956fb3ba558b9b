//! A disk for tests: one image file, served to the kernel through FUSE, that records what is written to it, fails when
//! told to, and can be rebuilt as a power cut at any moment would have left it.
//!
//! ```text
//! program ─O_DIRECT─► ext4 on /dev/loopN ─direct I/O─► one file in a FUSE mount ─► device.rs ─► image, recording
//! ```
//!
//! The recorder keeps every write and every flush, when it was received and when it was done. A cut at some event
//! keeps what a completed flush covers, and of everything else whatever chance leaves: nothing, all, some, in another
//! order, torn at sectors. It is development equipment and no part of the product.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it stands outside the broker, below its file system: it has files, threads and a clock of its own"
)]
#![deny(missing_docs)]

pub mod clock;
pub mod control;
pub mod cut;
pub mod device;
pub mod event;
pub mod fault;
pub mod image;
pub mod mount;
pub mod recording;
