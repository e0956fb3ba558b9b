//! The core driven by hand: events in, actions out, against a broker that is a model.

mod property;
mod stories;
mod world;
