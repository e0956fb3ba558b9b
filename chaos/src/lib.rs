//! Campaigns on real brokers: a mixed load through the SDK and through librdkafka, what befalls the broker
//! under it, and a verdict.
//!
//! The [`workload`] knows nothing of what happens to the broker: it rides through, and writes down everything that its
//! clients did and saw ([`recorder`]). A campaign starts a [`broker`] as a process, does to it whatever it is about,
//! and has the history judged by `corrente-history`.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "campaigns are users of the broker: they have clocks, files and processes of their own"
)]

pub mod broker;
pub mod plan;
pub mod recorder;
pub mod workload;
