//! Deterministic simulation of the whole broker with a client on the SDK's core: one thread, one seed.
//!
//! A seed becomes a [`plan`]; [`power_cut`] carries it out in a simulated world; the [`workload`] writes down what its
//! clients did and saw; `corrente-history` judges that history alone, and [`excuses`] says what the [`trouble`] of the
//! disk excuses. A [`campaign`] adds up many seeds. Nothing here reaches into the broker: it is started, stopped and
//! cut off like any other, and spoken to over its socket.

pub mod befell;
pub mod campaign;
pub mod client;
pub mod excuses;
#[doc(hidden)]
pub mod fuzz;
pub mod plan;
pub mod power_cut;
pub mod topic_plan;
pub mod trouble;
pub mod workload;
