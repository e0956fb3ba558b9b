//! What the machine can do without us, and tables that set our figures beside it.
//!
//! Owns the floors ([`floor`]), the arithmetic of repeated measurements ([`figures`]) and the summary of a whole
//! session ([`session`]). Never starts a broker: scripts do, and this crate reads what they wrote.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a floor is measured with the machine itself, not through the seam"
)]

pub mod figures;
pub mod floor;
pub mod session;
