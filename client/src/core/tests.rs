//! The core driven by hand: events in, actions out, against a broker that is a model.

mod consuming;
mod gaps;
mod idempotence;
mod property;
mod stories;
mod world;
