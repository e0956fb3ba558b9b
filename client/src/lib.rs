//! The Rust client SDK of Corrente.
