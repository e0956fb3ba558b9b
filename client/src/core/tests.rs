//! The core driven by hand: events in, actions out, against a broker that is a model.

mod gaps;
mod property;
mod idempotence;
mod stories;
mod world;
