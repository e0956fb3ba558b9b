//! What every fuzz target shares: an entry is run, and held to the memory it may take.
//!
//! Owns no entry; those live with their decoders. A panic, a leak, a read out of bounds and memory for a length that
//! was only claimed all end the run, and the input is kept.

pub mod held;

#[doc(hidden)]
pub use libfuzzer_sys;

/// Makes a program out of an entry; one that needs more than a decoder says how much.
#[macro_export]
macro_rules! target {
    ($entry:path) => {
        $crate::target!($entry, corrente_protocol::fuzz::HELD_BASE);
    };
    ($entry:path, $base:expr) => {
        $crate::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| $crate::held::run($entry, $base, bytes));
    };
}
